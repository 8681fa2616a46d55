//! Makes the plan: the preflight, what will be lost, what to back up. Nothing here writes.

use super::select::Selection;
use crate::Context;
use crate::database::catalog::{self, Relation};
use crate::database::{Database, Server};
use crate::error::{Failure, Result};
use crate::failures;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Folder, Migration};
use crate::options::RunOptions;
use crate::runbook::backup_tables;
use crate::runbook::losses::{self, Forecast};
use crate::runbook::plan::{Change, Plan};
use crate::runbook::preflight::{self, Planned, When};

/// Checks the preconditions, counts what will be lost, and decides what to back up.
pub(super) fn make_plan<'f>(
    ctx: &Context,
    folder: &'f Folder,
    db: &mut Database,
    selection: &Selection<'f>,
    direction: Direction,
    options: &RunOptions,
) -> Result<Plan<'f>> {
    let changes: Vec<Change<'f>> = selection
        .migrations
        .iter()
        .map(|migration| Change::of(migration, direction))
        .collect::<Result<_>>()?;
    let verify = match direction {
        Direction::Up => selection.migrations.clone(),
        Direction::Down => checkable(ctx, remaining(folder, selection)),
    };
    let scripts: Vec<&Script> = changes.iter().map(|change| change.script).collect();
    let mut planned = planned(&db.server, scripts, folder, selection, options);
    let (when, what) = match direction {
        Direction::Up => (When::Up, "pending"),
        Direction::Down => (When::Down, "to undo"),
    };
    preflight::before_change(when, ctx, db, &planned, what, options.dry_run)?;
    let forecast = show_losses(ctx, db, &planned.scripts, direction, options)?;
    Ok(Plan {
        direction,
        backups: tables_to_back_up(ctx, db, options, &mut planned, forecast)?,
        changes,
        verify,
    })
}

/// What the preflight looks at.
fn planned<'f>(
    server: &Server,
    scripts: Vec<&'f Script>,
    folder: &Folder,
    selection: &Selection<'_>,
    options: &RunOptions,
) -> Planned<'f> {
    let mut planned = Planned::of(server, scripts);
    planned.has_history = folder.shares_history || !selection.history.applied.is_empty();
    planned.no_backup = options.backup.no_backup;
    planned.show_queries = options.locks.show_queries;
    if planned.no_backup {
        planned.affected.backup.clear();
    }
    planned
}

/// Prints what will be destroyed, with the number of values. With `--no-backup` a person has to agree.
fn show_losses(
    ctx: &Context,
    db: &mut Database,
    scripts: &[&Script],
    direction: Direction,
    options: &RunOptions,
) -> Result<Forecast> {
    let no_backup = options.backup.no_backup;
    let forecast = losses::forecast(db, scripts.iter().copied(), direction)?;
    let verb = if no_backup { "Will lose" } else { "Will drop" };
    for line in &forecast.lines {
        ctx.ui.info(verb, line);
    }
    // A rollback asks in any case.
    if !no_backup || forecast.tables.is_empty() || options.dry_run || direction == Direction::Down {
        return Ok(forecast);
    }
    let names: Vec<String> = forecast.tables.iter().map(Relation::qualified).collect();
    let question = format!(
        "Destroy that in {}, and keep no backup of {}?",
        db.server,
        names.join(", ")
    );
    if !ctx.ui.confirm(&question)? {
        return Err(Failure::failed("not migrated")
            .cause("the answer was no")
            .state("nothing was changed")
            .hint("with a backup: run it again without --no-backup")
            .into());
    }
    Ok(forecast)
}

/// Which tables a run backs up before it changes anything: those that the directives name, and those
/// that hold what the scripts say they destroy.
///
/// # Errors
/// If one cannot be backed up, or there is no room for them.
fn tables_to_back_up(
    ctx: &Context,
    db: &mut Database,
    options: &RunOptions,
    planned: &mut Planned<'_>,
    forecast: Forecast,
) -> Result<Vec<Relation>> {
    if options.backup.no_backup {
        return Ok(Vec::new());
    }
    let affected = &planned.affected;
    let mut names: Vec<String> = affected.backup.iter().map(ToString::to_string).collect();
    for table in catalog::existing(db, &affected.backup_if_exists)? {
        names.push(table.qualified());
    }
    // The rows of a partitioned table are in its partitions; the guard finds which.
    let tables = forecast.tables.iter().filter(|table| table.kind == 'r');
    names.extend(tables.map(Relation::qualified));
    planned.backups = backup_tables::in_order_of_references(db, &names)?;
    if !planned.backups.is_empty() {
        preflight::before(When::Backup, ctx, db, planned)?;
    }
    Ok(std::mem::take(&mut planned.backups))
}

/// Those whose checks can be read. The others are named: they are no reason to keep what is to be undone.
fn checkable<'f>(ctx: &Context, remaining: Vec<&'f Migration>) -> Vec<&'f Migration> {
    let can_be_read = |migration: &&Migration| match migration.checks() {
        Ok(_) => true,
        Err(error) => {
            let why = failures::from_error(&error).one_line();
            ctx.ui.warn(format_args!(
                "the checks of `{}` are left out: {why}",
                migration.stem
            ));
            false
        }
    };
    remaining.into_iter().filter(can_be_read).collect()
}

/// The applied migrations that a rollback leaves, whose checks must hold after it.
fn remaining<'f>(folder: &'f Folder, undone: &Selection<'_>) -> Vec<&'f Migration> {
    let applied = &undone.history.applied;
    let is_applied = |version| applied.iter().any(|row| row.version == version);
    let is_undone = |version| undone.migrations.iter().any(|gone| gone.version == version);
    folder
        .migrations
        .iter()
        .filter(|migration| is_applied(migration.version) && !is_undone(migration.version))
        .collect()
}
