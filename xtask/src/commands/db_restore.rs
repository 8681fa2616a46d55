//! `db-restore`: merge the rows of backups into their tables.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::{LockArgs, Output};
use crate::Context;
use crate::error::Result;
use crate::runbook::restore::{self, Request};

/// Arguments of `db-restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup, with its manifest `FILE.json` in the same folder. Several backups are restored in one transaction
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Compare and print the counts; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Restore only this column, in rows that exist in the table; may be repeated. With one FILE only
    #[arg(long = "column", value_name = "COLUMN")]
    columns: Vec<String>,
    /// For a column whose type has changed: how to compute its new value, as an SQL expression over the
    /// backup's columns; may be repeated. With one FILE only
    #[arg(long, value_name = "COLUMN=EXPRESSION")]
    convert: Vec<String>,
    /// Restore a backup even if it was taken from another database
    #[arg(long)]
    force_other_database: bool,
    #[command(flatten)]
    locks: LockArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Restore {
    fn request(&self) -> Request {
        Request {
            files: self.files.clone(),
            dry_run: self.dry_run,
            columns: self.columns.clone(),
            convert: self.convert.clone(),
            force_other_database: self.force_other_database,
            locks: self.locks.options(),
        }
    }
}

pub(crate) fn run(ctx: &Context, flags: &Restore) -> Result {
    let restored = restore::run(ctx, &flags.request())?;
    match &restored[..] {
        [one] => ctx.ui.json(one),
        several => ctx
            .ui
            .json(&json!({ "restored": several, "dry_run": flags.dry_run })),
    }
}
