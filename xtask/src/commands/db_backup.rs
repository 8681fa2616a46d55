//! `db-backup`: take and prove a backup, apart from a migration.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::args::{Output, ProofArgs, lock_deadline};
use crate::Context;
use crate::database::{Database, history};
use crate::error::Result;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::plan;
use crate::migration::source::Folder;
use crate::runbook::backup::{self, CompletedBackup};
use crate::ui;

#[derive(Serialize)]
struct Report {
    backups: Vec<CompletedBackup>,
}

/// Arguments of `db-backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// Tables to back up, schema-qualified or found through the search path
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    #[command(flatten)]
    proof: ProofArgs,
    /// Give up (exit 4) if a table is locked by somebody else for this long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lock_deadline)]
    lock_deadline: Duration,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Backup) -> Result {
    let (mut db, names) = if flags.tables.is_empty() {
        let folder = ctx.folder()?;
        let mut db = ctx.connect()?;
        let names = named_by_pending(&mut db, &folder)?;
        (db, names)
    } else {
        (ctx.connect()?, flags.tables.clone())
    };
    db.wait_for_locks(flags.lock_deadline)?;
    // All are looked up before the first is dumped.
    let relations = backup::tables(&mut db, &names)?;
    let mut report = Report {
        backups: Vec::new(),
    };
    for relation in &relations {
        let taken = backup::take(ctx, &mut db, relation, flags.proof.options())?;
        ctx.ui.status(
            "Backed up",
            format_args!(
                "{}: {}, {} ({})",
                taken.table,
                ui::plural(taken.rows, "row"),
                ui::bytes(taken.bytes),
                taken.proven()
            ),
        );
        ctx.ui.command(&backup::command(
            &taken.table,
            &taken.file.display().to_string(),
        ));
        ctx.ui.data(taken.file.display());
        report.backups.push(taken);
    }
    ctx.ui.json(&report)
}

/// The tables that pending migrations ask to back up, or else the default.
fn named_by_pending(db: &mut Database, folder: &Folder) -> Result<Vec<String>> {
    let applied = history::read_known(db)?;
    let pending = plan::up(folder, &applied, None, true)?;
    let affected = AffectedTables::from_scripts(
        pending.iter().map(|migration| &migration.up),
        db.server.schema.as_deref(),
    );
    if affected.backup.is_empty() {
        return Ok(vec![backup::DEFAULT_TABLE.to_owned()]);
    }
    Ok(affected.backup.iter().map(ToString::to_string).collect())
}
