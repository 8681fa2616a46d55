//! `migrate` and `rollback` from the first look to the last check. Every command that changes the
//! schema goes through one of the two.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::apply::{Effort, Runner, announce, start_psql};
use super::backup::{self, Taken};
use super::guard::Guard;
use super::losses::{self, Forecast};
use super::preflight;
use super::steps::{self, Action, Step};
use super::verify::{self, Checked};
use super::{failures, indexes, report};
use crate::Context;
use crate::database::catalog::{self, Relation};
use crate::database::{Database, history, lock};
use crate::error::{Failure, Kind, Result};
use crate::interrupt;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::history::Applied;
use crate::migration::plan::{self, RollbackScope};
use crate::migration::script::Script;
use crate::migration::source::{Direction, Folder, Migration};
use crate::options::{BackupOptions, Locks};
use crate::ui;

const MIGRATE: &str = "cargo xtask db-migrate";
const ROLLBACK: &str = "cargo xtask db-rollback";

/// What a run was asked to do, beyond its direction.
pub(crate) struct Options<'a> {
    pub(crate) locks: Locks,
    pub(crate) backup: BackupOptions,
    pub(crate) dry_run: bool,
    pub(crate) reports: &'a crate::options::Reports,
}

/// What a run did, in the command contract's shape.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) run: RunFacts,
    pub(crate) backups: Vec<Taken>,
    pub(crate) steps: Vec<StepFacts>,
    pub(crate) verified: Vec<Checked>,
    /// Whether this was only a plan.
    pub(crate) dry_run: bool,
    #[serde(skip)]
    pub(crate) summary: Vec<report::Line>,
}

/// The run as a whole.
#[derive(Debug, Serialize)]
pub(crate) struct RunFacts {
    /// By the server's clock.
    pub(crate) started_at: Timestamp,
    /// `up` or `down`.
    pub(crate) direction: &'static str,
    pub(crate) duration_ms: f64,
    /// The most tries that a migration took.
    pub(crate) lock_attempts: u32,
    pub(crate) lock_wait_ms: f64,
}

/// One migration of the run.
#[derive(Debug, Serialize)]
pub(crate) struct StepFacts {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) duration_ms: f64,
    pub(crate) lock_attempts: u32,
}

/// Applies what is pending, up to and including `to`.
///
/// # Errors
/// Before anything changes: if the folder and the history disagree, a precondition does not hold,
/// or the backup cannot be proven. Later: with what was applied, what was undone and what is left.
pub(crate) fn migrate(
    ctx: &Context,
    folder: &Folder,
    mut db: Database,
    to: Option<i64>,
    allow_out_of_order: bool,
    options: &Options<'_>,
) -> Result<Outcome> {
    let started = Instant::now();
    let db = &mut db;
    report::check(options.reports)?;
    preflight::server(db)?;
    db.wait_for_locks(options.locks.lock_deadline)?;
    // Looked at before the history is read: a run that ends in between has written it by then.
    let at_work = !options.dry_run && lock::at_work(db)?;
    let mut applied = history::read_known(db)?;
    let mut pending = plan::up(folder, &applied, to, allow_out_of_order)?;
    if at_work || (!pending.is_empty() && !options.dry_run) {
        lock::acquire(db, options.locks, &ctx.ui, MIGRATE)?;
        // Another run may have been at it while this one waited.
        applied = history::read(db)?;
        pending = plan::up(folder, &applied, to, allow_out_of_order)?;
    }
    if pending.is_empty() {
        ctx.ui.status("Finished", nothing_pending(&applied));
        return nothing_done(ctx, db, Direction::Up, started, options);
    }

    let psql = match options.dry_run {
        true => None,
        false => Some(start_psql(ctx, db).map_err(unchanged)?),
    };
    let scripts: Vec<_> = pending.iter().map(|migration| &migration.up).collect();
    let mut affected =
        AffectedTables::from_scripts(scripts.iter().copied(), db.server.schema.as_deref());
    if options.backup.no_backup {
        affected.backup.clear();
    }
    preflight::history_rights(db)?;
    preflight::not_adopted(db, &affected, !applied.is_empty())?;
    preflight::tables(db, &affected)?;
    preflight::history_stays(pending.iter().map(|migration| &migration.up))?;
    indexes::foresee(db, pending.iter().map(|migration| &migration.up))?;
    ctx.ui.status(
        "Preflight",
        format_args!(
            "{} pending, {}",
            ui::plural(pending.len() as u64, "migration"),
            preflight::summary(&affected)
        ),
    );
    for line in preflight::in_the_way(db, options.locks.show_queries)? {
        ctx.ui.info("Notice", line);
    }

    let guard = Guard::new(options.backup);
    let forecast = show_losses(ctx, db, &scripts, Direction::Up, options)?;
    let backups = tables_to_back_up(ctx, db, options, &affected, forecast)?;
    let steps = steps::of_run(Direction::Up, backups, &pending, pending.clone())?;
    let Some(psql) = psql else {
        print_plan(ctx, db, &steps);
        return Ok(Outcome::planned(
            db,
            Direction::Up,
            &steps,
            started,
            options,
        ));
    };
    let runner = Runner::new(ctx, db, options.locks, guard).with_psql(psql);
    let outcome = run_steps(ctx, runner, Direction::Up, steps, options, started)?;
    report::finish(ctx, &pending, db, &outcome, options.reports)?;
    Ok(outcome)
}

/// Undoes applied migrations, after showing what that drops.
///
/// # Errors
/// As [`migrate`]; if a down file is missing, before anything runs.
pub(crate) fn rollback(
    ctx: &Context,
    folder: &Folder,
    mut db: Database,
    selection: &RollbackScope,
    options: &Options<'_>,
) -> Result<Outcome> {
    let started = Instant::now();
    let db = &mut db;
    report::check(options.reports)?;
    preflight::server(db)?;
    db.wait_for_locks(options.locks.lock_deadline)?;
    let at_work = !options.dry_run && lock::at_work(db)?;
    let mut applied = history::read(db)?;
    let mut undone = plan::down(folder, &applied, selection)?;
    for migration in &undone {
        ctx.ui.info("To undo", &migration.stem);
    }
    if at_work || (!undone.is_empty() && !options.dry_run) {
        lock::acquire(db, options.locks, &ctx.ui, ROLLBACK)?;
        // What this command means was settled above: another run may have been at it since.
        let (shown, before) = (undone, applied);
        applied = history::read(db)?;
        undone = plan::down(folder, &applied, selection)?;
        plan::check_unchanged(selection, &shown, &before, &undone, &applied)?;
    }
    if undone.is_empty() {
        ctx.ui.status("Finished", "nothing to roll back");
        if let Some(row) = plan::newest_not_run(&applied) {
            let version = row.version;
            ctx.ui.hint(format_args!("`{version}` was recorded without being run, so it stays; to undo it, name it: cargo xtask db-rollback --only {version}"));
        }
        return nothing_done(ctx, db, Direction::Down, started, options);
    }

    let scripts: Vec<_> = undone
        .iter()
        .map(|migration| migration.script(Direction::Down))
        .collect::<Result<_>>()?;
    let mut affected =
        AffectedTables::from_scripts(scripts.iter().copied(), db.server.schema.as_deref());
    if options.backup.no_backup {
        affected.backup.clear();
    }
    preflight::history_rights(db)?;
    preflight::tables(db, &affected)?;
    preflight::history_stays(scripts.iter().copied())?;
    indexes::foresee(db, scripts.iter().copied())?;
    ctx.ui.status(
        "Preflight",
        format_args!(
            "{} to undo, {}",
            ui::plural(undone.len() as u64, "migration"),
            preflight::summary(&affected)
        ),
    );
    let guard = Guard::new(options.backup);
    let forecast = show_losses(ctx, db, &scripts, Direction::Down, options)?;
    let backups = tables_to_back_up(ctx, db, options, &affected, forecast)?;
    let remaining = remaining(folder, &applied, &undone);
    let steps = steps::of_run(Direction::Down, backups, &undone, remaining)?;
    if options.dry_run {
        print_plan(ctx, db, &steps);
        return Ok(Outcome::planned(
            db,
            Direction::Down,
            &steps,
            started,
            options,
        ));
    }
    let question = format!(
        "Undo {} of {}?",
        ui::plural(undone.len() as u64, "migration"),
        db.server
    );
    if !ctx.ui.confirm(&question, "cargo xtask db-rollback --yes")? {
        return Err(Failure::failed("not rolled back")
            .cause("the answer was no")
            .state("nothing was changed")
            .hint("cargo xtask db-rollback --dry-run")
            .into());
    }
    let psql = start_psql(ctx, db).map_err(unchanged)?;
    let runner = Runner::new(ctx, db, options.locks, guard).with_psql(psql);
    let outcome = run_steps(ctx, runner, Direction::Down, steps, options, started)?;
    report::finish_rollback(ctx, db, &outcome, options.reports)?;
    Ok(outcome)
}

/// Backs up, runs each migration, verifies. The first error ends it, with where things stand.
fn run_steps(
    ctx: &Context,
    mut runner: Runner<'_>,
    direction: Direction,
    steps: Vec<Step<'_>>,
    options: &Options<'_>,
    started: Instant,
) -> Result<Outcome> {
    let mut outcome = Outcome::of(runner.db, direction, started, options);
    let (verb_done, verb_now) = match direction {
        Direction::Up => ("Applied", "applied"),
        Direction::Down => ("Undid", "undone"),
    };
    let changes: Vec<&Migration> = steps
        .iter()
        .filter_map(|step| match step.action {
            Action::Change(migration) => Some(migration),
            _ => None,
        })
        .collect();
    // psql connects before anything is written: where a proxy makes a session lock worthless, that
    // is found out now.
    runner.open().map_err(unchanged)?;
    // The backups come first, on the native connection; then psql takes over.
    let (before, rest): (Vec<_>, Vec<_>) = steps
        .iter()
        .partition(|step| matches!(step.action, Action::Backup(_)));
    for step in before {
        interrupt::check()?;
        let Action::Backup(relation) = &step.action else {
            continue;
        };
        let taken = runner.back_up(relation).map_err(unchanged)?;
        announce(&ctx.ui, taken);
        outcome.summary.push(backed_up(taken));
    }
    if direction == Direction::Up {
        runner.ensure_history()?;
    }
    runner.guard.look(runner.db).map_err(unchanged)?;
    for step in &rest {
        let Action::Change(migration) = step.action else {
            continue;
        };
        let upcoming = &changes[outcome.steps.len() + 1..];
        let known = runner.guard.backups.len();
        let result = runner.run(migration, upcoming, direction);
        for taken in &runner.guard.backups[known..] {
            let what = format!("Backed up {}", taken.summary());
            // Its time is part of the migration's.
            outcome
                .summary
                .push(report::Line::new(what, Duration::ZERO));
        }
        let effort = result.map_err(|error| {
            let failure = failures::from_error(&error);
            half_way(failure, verb_now, &changes, outcome.steps.len(), direction)
        })?;
        ctx.ui.status(
            verb_done,
            format_args!(
                "{} {}{}  {}",
                migration.version,
                migration.name,
                tries(effort),
                ui::time(effort.duration)
            ),
        );
        ctx.ui.command(&step.command);
        outcome.add(migration, effort, verb_done);
    }
    let (db, guard) = runner.finish();
    outcome.backups = guard.backups;

    for step in &rest {
        let Action::Verify(migrations) = &step.action else {
            continue;
        };
        let at = Instant::now();
        let state = format!("every migration of this run is {verb_now} and in the history");
        outcome.verified = verify::run(db, migrations.iter().copied())
            .map_err(|error| failures::from_error(&error).state(&state))?;
        if let Some(failure) = verify::failed("verification failed", &outcome.verified) {
            return Err(failure
                .state(state)
                .hint("cargo xtask db-verify")
                .hint(match direction {
                    Direction::Up => "undo this run: cargo xtask db-rollback",
                    Direction::Down => "apply it again: cargo xtask db-migrate",
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
            .push(report::Line::new(format!("Verified: {what}"), at.elapsed()));
    }
    outcome.run.duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    Ok(outcome)
}

fn backed_up(taken: &Taken) -> report::Line {
    report::Line::new(format!("Backed up {}", taken.summary()), taken.took)
}

/// Which tables a run backs up before it changes anything: those that the directives name, and those
/// that hold what the scripts say they destroy.
///
/// # Errors
/// If one cannot be backed up, or there is no room for them.
fn tables_to_back_up(
    ctx: &Context,
    db: &mut Database,
    options: &Options<'_>,
    affected: &AffectedTables,
    forecast: Forecast,
) -> Result<Vec<Relation>> {
    if options.backup.no_backup {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = affected.backup.iter().map(ToString::to_string).collect();
    for table in catalog::existing(db, &affected.backup_if_exists)? {
        names.push(table.qualified());
    }
    // The rows of a partitioned table are its partitions': the guard finds which.
    let tables = forecast.tables.iter().filter(|table| table.kind == 'r');
    names.extend(tables.map(Relation::qualified));
    let tables = backup::in_order_of_references(db, &names)?;
    if !tables.is_empty() {
        preflight::room(&ctx.config.backups, &tables)?;
    }
    Ok(tables)
}

/// The applied migrations that a rollback leaves, whose checks must hold after it.
fn remaining<'f>(
    folder: &'f Folder,
    applied: &[Applied],
    undone: &[&Migration],
) -> Vec<&'f Migration> {
    folder
        .migrations
        .iter()
        .filter(|migration| applied.iter().any(|row| row.version == migration.version))
        .filter(|migration| undone.iter().all(|gone| gone.version != migration.version))
        .collect()
}

/// Says what will be destroyed, and how many values that is. Where nothing of it is to be kept, a
/// person has to agree.
fn show_losses(
    ctx: &Context,
    db: &mut Database,
    scripts: &[&Script],
    direction: Direction,
    options: &Options<'_>,
) -> Result<Forecast> {
    let no_backup = options.backup.no_backup;
    if !no_backup {
        for script in scripts {
            preflight::readable(script)?;
        }
    }
    let forecast = losses::forecast(db, scripts.iter().copied(), direction)?;
    let verb = if no_backup { "Will lose" } else { "Will drop" };
    for line in &forecast.lines {
        ctx.ui.info(verb, line);
    }
    // A rollback asks anyway.
    if !no_backup || forecast.tables.is_empty() || options.dry_run || direction == Direction::Down {
        return Ok(forecast);
    }
    let names: Vec<String> = forecast.tables.iter().map(Relation::qualified).collect();
    let question = format!(
        "Destroy that in {}, and keep no backup of {}?",
        db.server,
        names.join(", ")
    );
    if !ctx
        .ui
        .confirm(&question, "cargo xtask db-migrate --no-backup --yes")?
    {
        return Err(Failure::failed("not migrated")
            .cause("the answer was no")
            .state("nothing was changed")
            .hint("with a backup: cargo xtask db-migrate")
            .into());
    }
    Ok(forecast)
}

fn print_plan(ctx: &Context, db: &Database, steps: &[Step<'_>]) {
    let mut lines = vec![format!("Plan for {}; nothing was written.", db.server)];
    for (index, step) in steps.iter().enumerate() {
        lines.push(String::new());
        lines.push(format!("{}. {}", index + 1, step.title));
        lines.push(format!("   why     {}", step.why));
        lines.push(format!("   command {}", step.command));
        lines.push(format!("   check   {}", step.verification));
    }
    ctx.ui.data(lines.join("\n"));
}

/// An error from before the first change.
fn unchanged(error: anyhow::Error) -> Failure {
    failures::from_error(&error).state("no migration has run; nothing was changed")
}

/// After a partial failure: what is done, what is left, what to run.
fn half_way(
    mut failure: Failure,
    verb: &str,
    changes: &[&Migration],
    done: usize,
    direction: Direction,
) -> Failure {
    let names = |migrations: &[&Migration]| {
        let names: Vec<String> = migrations.iter().map(|m| format!("`{}`", m.stem)).collect();
        names.join(", ")
    };
    let mut state = Vec::new();
    if done > 0 {
        state.push(format!("{verb} by this run: {}", names(&changes[..done])));
    }
    match changes.get(done) {
        Some(failed) if failure.state.is_empty() => {
            let transactional = failed
                .script(direction)
                .is_ok_and(|script| script.transactional);
            state.push(if transactional {
                format!("`{}` was rolled back: it has changed nothing", failed.stem)
            } else {
                format!(
                    "`{}` runs outside a transaction: statements before the failing one took effect; it is not recorded",
                    failed.stem
                )
            });
        }
        _ => state.append(&mut failure.state),
    }
    failure.state = state;
    let left = changes.get(done + 1..).unwrap_or_default();
    if !left.is_empty() {
        failure = failure.state(format!("not started: {}", names(left)));
    }
    // The failure table speaks of the usual direction.
    if direction == Direction::Down {
        for hint in &mut failure.hints {
            *hint = hint.replace(MIGRATE, ROLLBACK);
        }
    }
    let command = match direction {
        Direction::Up => MIGRATE,
        Direction::Down => ROLLBACK,
    };
    if !failure.hints.iter().any(|hint| hint.contains(command)) {
        let hint = match failure.kind {
            Kind::Interrupted | Kind::Busy => command.to_owned(),
            _ => format!("mend the file, then: {command}"),
        };
        failure = failure.hint(hint);
    }
    failure
}

fn tries(effort: Effort) -> String {
    match effort.lock_attempts {
        0 | 1 => String::new(),
        tries => format!(
            " ({tries} tries, {} for the lock)",
            ui::time(effort.lock_wait)
        ),
    }
}

fn nothing_done(
    ctx: &Context,
    db: &Database,
    direction: Direction,
    started: Instant,
    options: &Options<'_>,
) -> Result<Outcome> {
    let outcome = Outcome::of(db, direction, started, options);
    if !options.dry_run {
        report::nothing_done(ctx, db, &outcome, options.reports)?;
    }
    Ok(outcome)
}

fn nothing_pending(applied: &[Applied]) -> String {
    format!(
        "nothing is pending: {} in the history",
        ui::plural(applied.len() as u64, "migration")
    )
}

impl Outcome {
    fn of(db: &Database, direction: Direction, started: Instant, options: &Options<'_>) -> Outcome {
        Outcome {
            run: RunFacts {
                started_at: db.server.clock,
                direction: match direction {
                    Direction::Up => "up",
                    Direction::Down => "down",
                },
                duration_ms: milliseconds(started.elapsed()),
                lock_attempts: 0,
                lock_wait_ms: 0.0,
            },
            backups: Vec::new(),
            steps: Vec::new(),
            verified: Vec::new(),
            dry_run: options.dry_run,
            summary: Vec::new(),
        }
    }

    /// What a run would do: its steps, none of which took any time.
    fn planned(
        db: &Database,
        direction: Direction,
        steps: &[Step<'_>],
        started: Instant,
        options: &Options<'_>,
    ) -> Outcome {
        let mut outcome = Outcome::of(db, direction, started, options);
        for step in steps {
            if let Action::Change(migration) = step.action {
                outcome.add(migration, Effort::default(), "Planned");
            }
        }
        outcome
    }

    fn add(&mut self, migration: &Migration, effort: Effort, verb: &str) {
        self.run.lock_attempts = self.run.lock_attempts.max(effort.lock_attempts);
        self.run.lock_wait_ms += milliseconds(effort.lock_wait);
        self.steps.push(StepFacts {
            version: migration.version,
            name: migration.name.clone(),
            duration_ms: milliseconds(effort.duration),
            lock_attempts: effort.lock_attempts,
        });
        self.summary.push(report::Line::new(
            format!(
                "{verb} {} {}{}",
                migration.version,
                migration.name,
                tries(effort)
            ),
            effort.duration,
        ));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
