//! `db-redo`: roll back the last run and apply it again.

use clap::Args;

use super::args::{BackupArgs, HistoryArgs, LockArgs, Output};
use crate::Context;
use crate::error::Result;
use crate::options::{Reports, RunOptions};
use crate::runbook;

/// Arguments of `db-redo`.
#[derive(Args, Debug)]
pub struct Redo {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    locks: LockArgs,
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Redo) -> Result {
    let folder = flags.history.folder(ctx)?;
    let options = RunOptions {
        locks: flags.locks.options(),
        backup: flags.backup.options(),
        dry_run: false,
        reports: Reports::default(),
    };
    ctx.ui.json(&runbook::redo(ctx, &folder, &options)?)
}
