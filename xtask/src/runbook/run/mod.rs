//! `migrate` and `rollback` from the preflight to the last check: the same flow in two directions. Every
//! command that changes the schema goes through it.

mod execute;
mod prepare;
mod select;

use std::time::Instant;

use execute::{execute, unchanged};
use prepare::make_plan;
use select::{Goal, say_nothing_to_do, select_and_lock};

use super::apply::Runner;
use super::outcome::Outcome;
use super::plan::Plan;
use super::preflight::{self, Planned, When};
use super::{report, watched_psql};
use crate::Context;
use crate::database::{Database, Server};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::plan::RollbackScope;
use crate::migration::source::{Direction, Folder};
use crate::options::RunOptions;
use crate::ui;

/// Applies what is pending, up to and including `to`.
///
/// # Errors
/// As [`run`].
pub(crate) fn migrate(
    ctx: &Context,
    folder: &Folder,
    mut db: Database,
    to: Option<i64>,
    allow_out_of_order: bool,
    options: &RunOptions,
) -> Result<Outcome> {
    let goal = Goal::Up {
        to,
        allow_out_of_order,
    };
    run(ctx, folder, &mut db, &goal, options)
}

/// Undoes applied migrations, after showing what that drops.
///
/// # Errors
/// As [`run`]; if a down file is missing, before anything runs.
pub(crate) fn rollback(
    ctx: &Context,
    folder: &Folder,
    mut db: Database,
    scope: &RollbackScope,
    options: &RunOptions,
) -> Result<Outcome> {
    let goal = Goal::Down {
        scope,
        comes_back: false,
    };
    run(ctx, folder, &mut db, &goal, options)
}

/// Undoes the last run and applies it again, in a session of its own each time. Returns what was done last.
///
/// # Errors
/// As [`run`]; if an up file could not be applied again, before anything runs.
pub(crate) fn redo(ctx: &Context, folder: &Folder, options: &RunOptions) -> Result<Outcome> {
    let connect = || ctx.connect_with(options.locks.lock_deadline);
    let goal = Goal::Down {
        scope: &RollbackScope::LastRun,
        comes_back: true,
    };
    let undone = run(ctx, folder, &mut connect()?, &goal, options)?;
    match undone.steps.iter().map(|step| step.version).max() {
        Some(newest) => migrate(ctx, folder, connect()?, Some(newest), false, options),
        None => Ok(undone),
    }
}

/// # Errors
/// Before anything changes: if the folder and the history disagree, a precondition does not hold,
/// or the backup cannot be proven. Later: with what was done, what was undone and what is left.
fn run(
    ctx: &Context,
    folder: &Folder,
    db: &mut Database,
    goal: &Goal<'_>,
    options: &RunOptions,
) -> Result<Outcome> {
    let started = Instant::now();
    let direction = goal.direction();
    report::check(&options.reports)?;
    preflight::before(When::Run, ctx, db, &Planned::default())?;
    let (selection, lock) = select_and_lock(ctx, folder, db, goal, options)?;
    let started_at = lock.as_ref().map_or(db.server.clock, |of| of.acquired_at);
    if selection.migrations.is_empty() {
        say_nothing_to_do(ctx, &selection, direction);
        let outcome = Outcome::of(started_at, direction, started, options);
        if !options.dry_run {
            report::nothing_done(ctx, db, &outcome, &options.reports)?;
        }
        return Ok(outcome);
    }

    // psql connects while the preflight runs; a rollback first asks for confirmation.
    let early_psql = match (&lock, direction) {
        (Some(lock), Direction::Up) => {
            Some(watched_psql::start(ctx, &db.server, lock).map_err(unchanged)?)
        }
        _ => None,
    };
    let plan = make_plan(ctx, folder, db, &selection, direction, options)?;
    // Only a dry run has something to do and no lock.
    let Some(lock) = lock else {
        ctx.ui.data(plan.text(db, &ctx.ui.invocation));
        return Ok(Outcome::planned(started_at, &plan, started, options));
    };
    if direction == Direction::Down {
        ask_to_undo(ctx, &db.server, &plan)?;
    }
    let psql = match early_psql {
        Some(psql) => psql,
        None => watched_psql::start(ctx, &db.server, &lock).map_err(unchanged)?,
    };
    let (locks, backup, history) = (options.locks, options.backup, &selection.history);
    let runner = Runner::new(ctx, db, locks, backup, &lock, history).with_psql(psql);
    let mut outcome = execute(ctx, runner, &plan, options, started)?;
    outcome.run.duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    report::finish(ctx, db, &plan, &outcome, &options.reports)?;
    Ok(outcome)
}

fn ask_to_undo(ctx: &Context, server: &Server, plan: &Plan<'_>) -> Result {
    let question = format!(
        "Undo {} of {}?",
        ui::plural(plan.changes.len() as u64, "migration"),
        server
    );
    if ctx.ui.confirm(&question)? {
        return Ok(());
    }
    Err(Failure::failed("not rolled back")
        .cause("the answer was no")
        .state("nothing was changed")
        .hint(Hint::again_with("", "--dry-run"))
        .into())
}
