//! A backup's rows merged back into the live table, in one transaction: what is missing returns, what
//! differs takes the backup's values, what is newer stays. Nothing is deleted.
//!
//! Of the file only the rows are used, through COPY into a temporary table: its SQL never runs. That,
//! and the comparison, happen before any lock; the lock on the live table lets readers through and is
//! held while what differs is written. A row that somebody writes between the comparison and the
//! lock is newer than the restore, and stays as it is; where the table itself was changed or swapped
//! meanwhile, nothing is restored.

mod file;
mod merge;
mod plan;
mod types;
mod unique;

use std::time::Instant;

use anyhow::Context as _;
use postgres::Client;
use serde::Serialize;

use self::file::{find, same_database, stage};
use self::merge::merge;
use self::plan::{Comparison, Plan, conflict};
use super::{backup, preflight};
use crate::Context;
use crate::database::{Database, SESSION_OPTIONS, connect, lock, own_session, pooler};
use crate::error::{Failure, Result};
use crate::flags::Restore;
use crate::interrupt;
use crate::ui;

/// Settings of the session that merges: values are read as pg_dump writes them; a hash join of two
/// large tables is worth some memory; and where a policy hides rows that is an error.
const OPTIONS: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c array_nulls=on -c xmloption=content \
     -c work_mem=64MB -c row_security=off -c jit=off";

const STAGING: &str = "pg_temp.xtask_staging";
const CHANGES: &str = "pg_temp.xtask_changes";

/// What a restore did, or would do, in the command contract's shape. Numbers are of rows.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Merged {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    /// In the table and not in the backup.
    pub(crate) kept_newer: u64,
    pub(crate) unchanged: u64,
    /// Written, removed or added by somebody between the comparison and the lock: left as they are.
    pub(crate) changed_meanwhile: u64,
    /// Columns of the backup that the table does not have, or computes itself.
    pub(crate) skipped_columns: Vec<String>,
    pub(crate) dry_run: bool,
}

/// Restores a backup.
///
/// # Errors
/// If the file is not what was written, belongs to another database, or does not fit the table;
/// [`Kind::Finding`] where a restored value must be unique and belongs to another row now;
/// [`Kind::Busy`] where the lock was not to be had. Nothing has changed then.
pub(crate) fn run(ctx: &Context, flags: &Restore) -> Result<Merged> {
    let started = Instant::now();
    let (file, manifest) = find(ctx, &flags.file)?;
    let mut db = ctx.connect()?;
    preflight::server(&db)?;
    db.wait_for_locks(flags.locks.lock_deadline)?;
    let table = backup::table(&mut db, &manifest.table)?;
    same_database(&mut db, &manifest, flags)?;
    if !flags.dry_run {
        let again = format!("cargo xtask db-restore {}", flags.file.display());
        lock::acquire(&mut db, flags.locks, &ctx.ui, &again)?;
    }
    let mut session = Session::open(ctx, &mut db)?;
    let plan = Plan::of(&mut session.client, &table, &manifest, flags)?;
    if !plan.skipped.is_empty() {
        ctx.ui.info(
            "Skipping",
            format_args!(
                "columns that `{}` does not have, or computes itself: {}",
                manifest.table,
                plan.skipped.join(", ")
            ),
        );
    }

    for (column, to) in plan.conversions.iter().map(|of| (&of.column, &of.to)) {
        ctx.ui
            .info("Converting", format_args!("{column} to {to}, as asked"));
    }
    stage(ctx, &mut session, &file, &manifest, &plan)?;
    interrupt::check()?;
    let Comparison {
        mut merged,
        replaced,
        storage,
        fixed,
    } = plan
        .compare(&mut session.client, manifest.rows)
        .with_context(|| format!("cannot compare `{}` with the backup", plan.table))?;
    merged.dry_run = flags.dry_run;
    for (column, rows) in &fixed {
        ctx.ui.info(
            "Skipping",
            format_args!(
                "column `{column}` of {} that exist already: it is GENERATED ALWAYS AS IDENTITY, which an UPDATE may not set",
                ui::plural(*rows, "row")
            ),
        );
    }
    ctx.ui.info("Compared", plan.tell(&merged, replaced));
    if flags.dry_run {
        let conflicts = plan.conflicts(&mut session.client)?;
        if !conflicts.is_empty() {
            return Err(conflict(&plan, conflicts).into());
        }
        ctx.ui.data(plan.tell(&merged, replaced));
        return Ok(merged);
    }
    if replaced > 0 {
        let question = format!(
            "Replace values in {} of `{}` in {}?",
            ui::plural(replaced, "row"),
            plan.table,
            db.server
        );
        let again = format!("cargo xtask db-restore {} --yes", flags.file.display());
        if !ctx.ui.confirm(&question, &again)? {
            return Err(Failure::failed("not restored")
                .cause("the answer was no")
                .state("nothing was changed")
                .hint(format!(
                    "cargo xtask db-restore {} --dry-run",
                    flags.file.display()
                ))
                .into());
        }
    }
    interrupt::check()?;
    let (updated, inserted) = merge(ctx, &mut db, &mut session, &plan, storage, flags)?;
    merged.changed_meanwhile =
        (merged.updated + merged.inserted).saturating_sub(updated + inserted);
    merged.updated = updated;
    merged.inserted = inserted;
    if merged.changed_meanwhile > 0 {
        ctx.ui.warn(format_args!(
            "{} changed between the comparison and the lock, and stay as they are; compare again: cargo xtask db-restore {} --dry-run",
            ui::plural(merged.changed_meanwhile, "row"),
            flags.file.display()
        ));
    }
    let summary = plan.tell(&merged, 0);
    ctx.ui.status(
        "Restored",
        format_args!("{summary}  {}", ui::time(started.elapsed())),
    );
    ctx.ui.data(summary);
    Ok(merged)
}

/// The session that merges; another one holds the migration lock and watches.
struct Session {
    client: Client,
    pid: i32,
    /// As it is configured, for the merge alone: what is temporary, also what the server drops when the
    /// session ends, waits for no standby.
    synchronous_commit: String,
    /// The user's; the session itself has our own.
    search_path: String,
}

impl Session {
    fn open(ctx: &Context, db: &mut Database) -> Result<Session> {
        let lock_timeout = db.lock_wait.as_millis();
        let options = format!("{SESSION_OPTIONS} {OPTIONS} -c lock_timeout={lock_timeout}");
        let connection = connect::connect(&db.target, &ctx.application_name, &options)?;
        let canceller = connection.canceller();
        interrupt::on_signal(move || {
            let _ = canceller.cancel();
        });
        let mut client = connection.client;
        let asked = own_session(
            &mut client,
            &ctx.application_name,
            &options,
            "pg_catalog.current_setting('search_path')",
        )?;
        let search_path = asked.get(0).unwrap_or_default().to_owned();
        let row = client.query_typed_one(
            "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('synchronous_commit')",
            &[],
        )?;
        let (pid, synchronous_commit) = (row.get(0), row.get(1));
        client.batch_execute("SET synchronous_commit = local")?;
        if pid == db.server.backend_pid {
            return Err(pooler::failure(db).into());
        }
        Ok(Session {
            client,
            pid,
            synchronous_commit,
            search_path,
        })
    }
}
