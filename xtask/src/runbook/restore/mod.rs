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
mod part;
mod plan;
mod references;
mod request;
mod session;
mod types;
mod unique;

pub(crate) use self::request::Request;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;

use self::compare::Merged;
use self::file::{find, same_database, stage};
use self::merge::{Written, merge};
use self::part::{Part, conflicts, tables_of};
use self::plan::Plan;
use self::session::MergeSession;
use self::unique::conflict;
use super::backup::Manifest;
use super::backup_tables;
use super::preflight::{self, Planned, When};
use crate::Context;
use crate::database::{Server, lock};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::ui;

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
    let mut db = ctx.connect_with(request.locks.lock_deadline)?;
    preflight::before(When::Restore, ctx, &mut db, &Planned::default())?;
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
    agree(ctx, &db.server, &parts)?;
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

/// Asks before values are replaced.
fn agree(ctx: &Context, server: &Server, parts: &[Part]) -> Result {
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
    let question = format!("Replace values in {} in {server}?", rows.join(" and "));
    if ctx.ui.confirm(&question)? {
        return Ok(());
    }
    Err(Failure::failed("not restored")
        .cause("the answer was no")
        .state("nothing was changed")
        .hint(Hint::again_with("", "--dry-run"))
        .into())
}
