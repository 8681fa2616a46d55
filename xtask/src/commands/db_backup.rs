//! `db-backup`: take and prove a backup, without a migration.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::args::{Output, ProofArgs, lock_deadline};
use crate::Context;
use crate::database::catalog::{self, Relation};
use crate::database::{Database, history};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::source::{Direction, Folder, Migration};
use crate::runbook::backup::{self, CompletedBackup};
use crate::runbook::backup_tables;
use crate::ui;

#[derive(Serialize)]
struct Report {
    backups: Vec<CompletedBackup>,
}

/// Arguments of `db-backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// Tables to back up, with a schema or found in the search path
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    #[command(flatten)]
    proof: ProofArgs,
    /// Give up (exit 4) if another session keeps a table locked for this long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lock_deadline)]
    lock_deadline: Duration,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Backup) -> Result {
    let folder = match flags.tables.is_empty() {
        true => Some(ctx.folder()?),
        false => None,
    };
    let mut db = ctx.connect_with(flags.lock_deadline)?;
    let started_at = db.server.clock;
    // Look up all tables before the first is dumped, so that a wrong name fails at once.
    let relations = match &folder {
        Some(folder) => chosen(ctx, &mut db, folder)?,
        None => backup_tables::find_all(&mut db, &flags.tables)?,
    };
    let mut report = Report {
        backups: Vec::new(),
    };
    for relation in &relations {
        let taken = backup::take(ctx, &mut db, relation, flags.proof.options(), started_at)?;
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

/// The tables if none is named: those that migrations name in `backup` directives. Also says which
/// tables are not among them.
fn chosen(ctx: &Context, db: &mut Database, folder: &Folder) -> Result<Vec<Relation>> {
    let applied = history::read_known(db)?.applied;
    // A backup may be what somebody wants because the files and the history disagree.
    let is_pending =
        |migration: &&Migration| applied.iter().all(|row| row.version != migration.version);
    let pending: Vec<&Migration> = folder.migrations.iter().filter(is_pending).collect();
    let scripts = folder.scripts(&pending, Direction::Up)?;
    let affected = AffectedTables::from_scripts(scripts, db.server.schema.as_deref());
    let names = backup_tables::default_names(db, folder, &affected)?;
    let tables = backup_tables::find_all(db, &names)?;
    let schema = db.server.schema.clone().unwrap_or_default();
    let others: Vec<String> = catalog::tables_of(db, &schema)?
        .iter()
        .filter(|other| other.name != history::TABLE)
        .filter(|other| tables.iter().all(|table| table.oid != other.oid))
        .map(Relation::qualified)
        .collect();
    if tables.is_empty() {
        return Err(
            Failure::usage("no table is named, and no migration asks to back one up")
                .cause(format!("there are: {}", others.join(", ")))
                .hint(Hint::to("name those that you want", "db-backup TABLE"))
                .into(),
        );
    }
    if !others.is_empty() {
        ctx.ui.info(
            "Not chosen",
            format_args!("{}: name them to back them up too", others.join(", ")),
        );
    }
    Ok(tables)
}
