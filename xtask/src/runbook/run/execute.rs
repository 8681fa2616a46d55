//! Executes a plan: backs up, runs each migration, verifies. If one fails, it says what was done and what
//! was not.

use std::time::{Duration, Instant};

use crate::Context;
use crate::database::Database;
use crate::error::{Failure, Kind, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::source::{Direction, Migration};
use crate::options::RunOptions;
use crate::runbook::apply::Runner;
use crate::runbook::outcome::{Line, Outcome, tries};
use crate::runbook::plan::{Change, Plan};
use crate::runbook::verify;
use crate::ui;

/// Backs up, runs each migration, verifies; stops at the first error.
pub(super) fn execute(
    ctx: &Context,
    mut runner: Runner<'_>,
    plan: &Plan<'_>,
    options: &RunOptions,
    started: Instant,
) -> Result<Outcome> {
    let mut outcome = Outcome::of(
        runner.psql.lock.acquired_at,
        plan.direction,
        started,
        options,
    );
    // psql connects before anything is written, because this shows whether a proxy makes the session lock
    // worthless.
    runner.psql.open().map_err(unchanged)?;
    // The backups come first, on the native connection; then psql takes over.
    for table in &plan.backups {
        interrupt::check()?;
        let backup = runner.back_up(table).map_err(unchanged)?;
        backup.announce(&ctx.ui);
        outcome.backed_up(backup, backup.took);
    }
    if plan.direction == Direction::Up {
        runner.ensure_history()?;
    }
    let client = &mut runner.psql.db.client;
    runner.guard.inspect(client).map_err(unchanged)?;
    change(ctx, &mut runner, plan, &mut outcome)?;
    outcome.backups = runner.finish();
    verify_all(ctx, runner.psql.db, plan, &mut outcome)?;
    Ok(outcome)
}

fn change(
    ctx: &Context,
    runner: &mut Runner<'_>,
    plan: &Plan<'_>,
    outcome: &mut Outcome,
) -> Result {
    let verb = match plan.direction {
        Direction::Up => "Applied",
        Direction::Down => "Reverted",
    };
    let migrations: Vec<&Migration> = plan.changes.iter().map(|of| of.migration).collect();
    for (done, change) in plan.changes.iter().enumerate() {
        let known = runner.guard.backups.len();
        let result = runner.run(change.migration, &migrations[done + 1..], plan.direction);
        for backup in &runner.guard.backups[known..] {
            // Its time is part of the migration's.
            outcome.backed_up(backup, Duration::ZERO);
        }
        let lock_stats =
            result.map_err(|error| half_way(failures::from_error(&error), plan, done))?;
        ctx.ui.status(
            verb,
            format_args!(
                "{} {}{}  {}",
                change.migration.version,
                change.migration.name,
                tries(lock_stats),
                ui::time(lock_stats.duration)
            ),
        );
        ctx.ui.command(&change.command());
        outcome.add(change.migration, lock_stats, verb);
    }
    Ok(())
}

fn verify_all(ctx: &Context, db: &mut Database, plan: &Plan<'_>, outcome: &mut Outcome) -> Result {
    let at = Instant::now();
    let state = format!(
        "every migration of this run is {} and in the history",
        done_word(plan.direction)
    );
    outcome.verified = verify::run(db, plan.verify.iter().copied())
        .map_err(|error| failures::from_error(&error).state(&state))?;
    if let Some(failure) = verify::failed("verification failed", &outcome.verified) {
        return Err(failure
            .state(state)
            .hint(Hint::run("db-verify"))
            .hint(match plan.direction {
                Direction::Up => Hint::to("undo this run", "db-rollback"),
                Direction::Down => Hint::to("apply it again", "db-migrate"),
            })
            .into());
    }
    let what = match outcome.verified.len() as u64 {
        0 => "no verify file has a check".to_owned(),
        checks => format!("{} hold", ui::plural(checks, "check")),
    };
    ctx.ui.status(
        "Verified",
        format_args!("{what}  {}", ui::time(at.elapsed())),
    );
    for checked in &outcome.verified {
        ctx.ui.detail(format_args!("ok: {}", checked.check));
    }
    outcome
        .summary
        .push(Line::new(format!("Verified: {what}"), at.elapsed()));
    Ok(())
}

fn done_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "applied",
        Direction::Down => "undone",
    }
}

/// After a partial failure: what is done, what is left, what to run.
fn half_way(mut failure: Failure, plan: &Plan<'_>, done: usize) -> Failure {
    let names = |changes: &[Change<'_>]| {
        let stem = |change: &Change<'_>| format!("`{}`", change.migration.stem);
        let names: Vec<String> = changes.iter().map(stem).collect();
        names.join(", ")
    };
    let changes = &plan.changes;
    let mut state = Vec::new();
    if done > 0 {
        let done_by = done_word(plan.direction);
        state.push(format!(
            "{done_by} by this run: {}",
            names(&changes[..done])
        ));
    }
    match changes.get(done) {
        Some(failed) if failure.state.is_empty() => {
            let stem = &failed.migration.stem;
            state.push(match failed.script.transactional {
                true => format!("`{stem}` was rolled back: it has changed nothing"),
                false => format!(
                    "`{stem}` runs outside a transaction: statements before the failing one took effect; it is not recorded"
                ),
            });
        }
        _ => state.append(&mut failure.state),
    }
    failure.state = state;
    let left = changes.get(done + 1..).unwrap_or_default();
    if !left.is_empty() {
        failure = failure.state(format!("not started: {}", names(left)));
    }
    if !failure.hints.iter().any(Hint::goes_on) {
        let kind = failure.kind;
        failure = failure.hint(match kind {
            Kind::Interrupted | Kind::Busy => Hint::again(""),
            _ => Hint::again("fix the file, then"),
        });
    }
    failure
}

/// Adds to an error that nothing was changed yet.
pub(super) fn unchanged(error: anyhow::Error) -> Failure {
    failures::from_error(&error).state("no migration has run; nothing was changed")
}
