//! Backups' rows merged back into their live tables, in one transaction: what is missing returns, what
//! differs takes the backup's values, what is newer stays. Nothing is deleted.
//!
//! Of the file only the rows are used, through COPY into a temporary table: its SQL never runs. That,
//! and the comparison, happen before any lock; the lock on the live table lets readers through and is
//! held while what differs is written. A row that somebody writes between the comparison and the
//! lock is newer than the restore, and stays as it is; where the table itself was changed or swapped
//! meanwhile, nothing is restored.

mod compare;
mod file;
mod merge;
mod plan;
mod references;
mod types;
mod unique;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use postgres::Client;
use serde::Serialize;

use self::compare::{Comparison, conflict};
use self::file::{find, same_database, stage};
use self::merge::{Written, merge};
use self::plan::Plan;
use super::backup::Manifest;
use super::backup_tables;
use super::preflight::{self, Planned, When};
use crate::Context;
use crate::database::{Database, SESSION_OPTIONS, connect, lock, own_session, pooler};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::options::Locks;
use crate::shell::shell_word;
use crate::ui;

/// Settings of the session that merges: values are read as pg_dump writes them; a hash join of two
/// large tables is worth some memory; and where a policy hides rows that is an error.
const OPTIONS: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c array_nulls=on -c xmloption=content \
     -c work_mem=64MB -c row_security=off -c jit=off";

/// What a restore did to a table, or would do, in the command contract's shape. Numbers are of rows.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Merged {
    /// As it was given.
    pub(crate) file: PathBuf,
    /// Qualified name.
    pub(crate) table: String,
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

impl Merged {
    /// What was compared, after so many rows were written.
    fn written(self, written: &Written) -> Merged {
        let compared = self.updated + self.inserted;
        Merged {
            changed_meanwhile: compared.saturating_sub(written.updated + written.inserted),
            updated: written.updated,
            inserted: written.inserted,
            ..self
        }
    }
}

/// What to restore, and how.
pub(crate) struct Request {
    /// Backups, as they were given.
    pub(crate) files: Vec<PathBuf>,
    /// Compare only.
    pub(crate) dry_run: bool,
    /// Only these columns, of rows that are there; all if there are none.
    pub(crate) columns: Vec<String>,
    /// `COLUMN=EXPRESSION`.
    pub(crate) convert: Vec<String>,
    pub(crate) force_other_database: bool,
    pub(crate) locks: Locks,
}

impl Request {
    /// The arguments that restore these files as it is asked for.
    fn arguments_for(&self, files: &[PathBuf]) -> String {
        let mut words = vec!["db-restore".to_owned()];
        let shown = files.iter().map(|file| file.to_string_lossy());
        words.extend(shown.map(|file| shell_word(&file)));
        for column in &self.columns {
            words.push(format!("--column {}", shell_word(column)));
        }
        for convert in &self.convert {
            words.push(format!("--convert {}", shell_word(convert)));
        }
        if self.force_other_database {
            words.push("--force-other-database".to_owned());
        }
        words.join(" ")
    }
}

/// One backup's part in a restore: what goes where, and what differs.
struct Part {
    plan: Plan,
    compared: Comparison,
}

/// Restores backups, all in one transaction.
///
/// # Errors
/// If a file is not what was written, belongs to another database, or does not fit its table;
/// [`Kind::Finding`] where a restored value must be unique and belongs to another row now;
/// [`Kind::Busy`] where a lock could not be acquired. Nothing has changed then.
pub(crate) fn run(ctx: &Context, request: &Request) -> Result<Vec<Merged>> {
    let started = Instant::now();
    let found = request.files.iter().map(|given| find(ctx, given));
    let found = found.collect::<Result<Vec<_>>>()?;
    one_for_each_table(request, &found)?;
    let mut db = ctx.connect()?;
    preflight::before(When::Restore, ctx, &mut db, &Planned::default())?;
    db.wait_for_locks(request.locks.lock_deadline)?;
    let mut tables = Vec::new();
    for (_, manifest) in &found {
        tables.push(backup_tables::find(&mut db, &manifest.table)?);
        same_database(&mut db, manifest, request)?;
    }
    if !request.dry_run {
        lock::acquire(&mut db, request.locks, &ctx.ui)?;
    }
    let mut session = MergeSession::open(ctx, &mut db)?;
    let mut parts = Vec::new();
    for (given, ((file, manifest), table)) in request.files.iter().zip(found.iter().zip(&tables)) {
        let plan = Plan::of(&mut session.client, table, manifest, given, request)?;
        parts.push(compare(ctx, &mut session, plan, file, manifest)?);
    }
    if request.dry_run {
        stands_in_the_way(ctx, &parts, &mut session, request)?;
        for part in &parts {
            ctx.ui.data(
                part.plan
                    .summary_text(&part.compared.merged, part.compared.replaced),
            );
        }
        let merged = parts.into_iter().map(|part| part.compared.merged);
        return Ok(merged
            .map(|merged| Merged {
                dry_run: true,
                ..merged
            })
            .collect());
    }
    agree(ctx, &db, &parts)?;
    interrupt::check()?;
    let written = merge(ctx, &mut db, &mut session, &parts, request)?;
    let mut restored = Vec::new();
    for (Part { plan, compared }, written) in parts.into_iter().zip(written) {
        let merged = compared.merged.written(&written);
        if merged.changed_meanwhile > 0 {
            ctx.ui.warn(format_args!(
                "{} of `{}` changed between the comparison and the lock, and stay as they are; compare again with --dry-run",
                ui::plural(merged.changed_meanwhile, "row"),
                plan.table,
            ));
        }
        let summary = plan.summary_text(&merged, 0);
        ctx.ui.status(
            "Restored",
            format_args!("{summary}  {}", ui::time(started.elapsed())),
        );
        ctx.ui.data(summary);
        restored.push(merged);
    }
    Ok(restored)
}

/// Two backups of one table would have the last word in turn, and a column is one table's.
fn one_for_each_table(request: &Request, found: &[(PathBuf, Manifest)]) -> Result {
    if found.len() > 1 && !(request.columns.is_empty() && request.convert.is_empty()) {
        return Err(
            Failure::usage("--column and --convert are for one backup at a time")
                .hint(Hint::run(request.arguments_for(&request.files[..1])))
                .into(),
        );
    }
    for (at, (_, manifest)) in found.iter().enumerate() {
        if let Some(first) = found[..at]
            .iter()
            .position(|(_, of)| of.table == manifest.table)
        {
            let (one, another) = (&request.files[first], &request.files[at]);
            return Err(Failure::usage(format!(
                "`{}` and `{}` are both backups of `{}`",
                one.display(),
                another.display(),
                manifest.table
            ))
            .cause("a row takes its values from one backup")
            .hint(Hint::to(
                "one after the other",
                request.arguments_for(&request.files[first..=first]),
            ))
            .into());
        }
    }
    Ok(())
}

/// Reads the backup beside the table, and says what differs.
fn compare(
    ctx: &Context,
    session: &mut MergeSession,
    plan: Plan,
    file: &Path,
    manifest: &Manifest,
) -> Result<Part> {
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
    stage(ctx, session, file, manifest, &plan)?;
    interrupt::check()?;
    let compared = plan
        .compare(&mut session.client, manifest.rows)
        .with_context(|| format!("cannot compare `{}` with the backup", plan.table))?;
    for (column, rows) in &compared.fixed {
        ctx.ui.info(
            "Skipping",
            format_args!(
                "column `{column}` of {} that exist already: it is GENERATED ALWAYS AS IDENTITY, which an UPDATE may not set",
                ui::plural(*rows, "row")
            ),
        );
    }
    ctx.ui.info(
        "Compared",
        plan.summary_text(&compared.merged, compared.replaced),
    );
    Ok(Part { plan, compared })
}

/// What the write would fail on, as far as it can be told without it.
fn stands_in_the_way(
    ctx: &Context,
    parts: &[Part],
    session: &mut MergeSession,
    request: &Request,
) -> Result {
    let conflicts = conflicts(parts, session)?;
    if !conflicts.is_empty() {
        return Err(conflict(&tables_of(parts), conflicts).into());
    }
    let dangling = references::dangling(parts, &mut session.client)?;
    if !dangling.is_empty() {
        let failure = Failure::failed(format!("cannot restore {}", tables_of(parts)));
        let failure = failure.sqlstate("23503");
        return Err(references::explain(ctx, failure, &dangling, request).into());
    }
    Ok(())
}

/// The values that must be unique and would be there twice, of all tables.
fn conflicts(parts: &[Part], session: &mut MergeSession) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in parts {
        found.extend(part.plan.conflicts(&mut session.client)?);
    }
    Ok(found)
}

/// Asks before values are replaced.
fn agree(ctx: &Context, db: &Database, parts: &[Part]) -> Result {
    let replaced = parts.iter().filter(|part| part.compared.replaced > 0);
    let rows: Vec<String> = replaced
        .map(|Part { plan, compared }| {
            format!(
                "{} of `{}`",
                ui::plural(compared.replaced, "row"),
                plan.table
            )
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let question = format!("Replace values in {} in {}?", rows.join(" and "), db.server);
    if ctx.ui.confirm(&question)? {
        return Ok(());
    }
    Err(Failure::failed("not restored")
        .cause("the answer was no")
        .state("nothing was changed")
        .hint(Hint::again_with("", "--dry-run"))
        .into())
}

/// `a` and `b`, to name them in a sentence.
fn tables_of(parts: &[Part]) -> String {
    let names = parts.iter().map(|part| format!("`{}`", part.plan.table));
    names.collect::<Vec<_>>().join(" and ")
}

/// The session that merges; another one holds the migration lock and watches.
struct MergeSession {
    client: Client,
    pid: i32,
    /// As it is configured, for the merge alone: what is temporary, also what the server drops when the
    /// session ends, waits for no standby.
    synchronous_commit: String,
    /// The user's; the session itself has our own.
    search_path: String,
}

impl MergeSession {
    fn open(ctx: &Context, db: &mut Database) -> Result<MergeSession> {
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
        Ok(MergeSession {
            client,
            pid,
            synchronous_commit,
            search_path,
        })
    }
}
