//! `db-status`: what is applied, pending, missing or divergent, and what an interrupted run left.

use clap::Args;
use serde::Serialize;

use super::args::Output;
use crate::Context;
use crate::database::catalog::InvalidIndex;
use crate::database::{Server, history};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::plan::{self, Entry, State};
use crate::migration::source::Migration;
use crate::runbook::indexes;
use crate::ui;

#[derive(Serialize)]
struct Report<'a> {
    database: &'a Server,
    migrations: Vec<Entry>,
    applied: usize,
    pending: usize,
    missing: usize,
    divergent: usize,
    failed: usize,
    invalid_indexes: Vec<InvalidIndex>,
    /// Valid indexes whose definition is not the one in their migration.
    wrong_indexes: Vec<String>,
}

/// Arguments of `db-status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Exit 3 unless every migration is applied and unedited
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Status) -> Result {
    let folder = ctx.folder()?;
    let mut db = ctx.connect()?;
    let applied = history::read_known(&mut db)?.applied;
    let migrations = plan::states(&folder, &applied);
    let count = |state| {
        migrations
            .iter()
            .filter(|entry| entry.state == state)
            .count()
    };
    let is_applied = |migration: &Migration| {
        let version = migration.version;
        applied.iter().any(|row| row.version == version)
    };
    let found = indexes::findings(&mut db, &folder.migrations, is_applied)?;
    let wrong_indexes = found.differing.iter().map(Failure::one_line).collect();
    let report = Report {
        database: &db.server,
        applied: count(State::Applied),
        pending: count(State::Pending),
        missing: count(State::Missing),
        divergent: count(State::Divergent),
        failed: count(State::Failed),
        invalid_indexes: found.invalid,
        wrong_indexes,
        migrations,
    };
    print(ctx, &report);
    ctx.ui.json(&report)?;
    let clean = report.applied == report.migrations.len()
        && report.invalid_indexes.is_empty()
        && report.wrong_indexes.is_empty();
    if flags.check && !clean {
        return Err(finding(&report).into());
    }
    if let Some(hint) = next(&report) {
        ctx.ui.hint(hint);
    }
    Ok(())
}

fn print(ctx: &Context, report: &Report<'_>) {
    let rows: Vec<Vec<String>> = report
        .migrations
        .iter()
        .map(|entry| {
            vec![
                entry.version.to_string(),
                entry.name.clone(),
                state(entry.state).to_owned(),
                entry.installed_on.map_or(String::new(), |at| {
                    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
                }),
                entry.execution_time_ms.map_or(String::new(), |ms| {
                    ui::time(std::time::Duration::from_secs_f64(ms.max(0.0) / 1000.0))
                }),
            ]
        })
        .collect();
    ctx.ui.data(ui::table(
        &["Version", "Name", "State", "Installed", "Took"],
        &rows,
    ));
    for index in &report.invalid_indexes {
        ctx.ui.warn(format_args!(
            "index `{}` on `{}` is INVALID, left by an interrupted build",
            index.name, index.table
        ));
    }
    for wrong in &report.wrong_indexes {
        ctx.ui.warn(wrong);
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Applied => "applied",
        State::Pending => "pending",
        State::Missing => "missing: applied, and its file is gone",
        State::Divergent => "divergent: the file was edited after it was applied",
        State::Failed => "failed: recorded as not successful",
    }
}

fn next(report: &Report<'_>) -> Option<Hint> {
    if report.missing > 0 || report.divergent > 0 {
        Some(Hint::to(
            "see what was applied, and how to go on",
            "db-repair",
        ))
    } else if report.failed > 0 {
        Some(Hint::to("this says what to do", "db-migrate"))
    } else if report.pending > 0 {
        Some(Hint::run("db-migrate"))
    } else {
        None
    }
}

fn finding(report: &Report<'_>) -> Failure {
    let mut failure = Failure::finding("not every migration is applied as its file says");
    for (number, what) in [
        (report.pending, "pending"),
        (report.missing, "missing"),
        (report.divergent, "divergent"),
        (report.failed, "failed"),
    ] {
        if number > 0 {
            failure = failure.cause(format!("{number} {what}"));
        }
    }
    for index in &report.invalid_indexes {
        failure = failure.cause(format!("index `{}` is INVALID", index.name));
    }
    for wrong in &report.wrong_indexes {
        failure = failure.cause(wrong);
    }
    failure.hint(next(report).unwrap_or(Hint::run("db-migrate")))
}
