//! `db-status`: what is applied, pending, missing or divergent, and what an interrupted run left.

use clap::Args;
use jiff::Timestamp;
use jiff::tz::Offset;
use serde::Serialize;

use super::args::{HistoryArgs, Output};
use crate::Context;
use crate::database::catalog::{self, InvalidIndex};
use crate::database::{LOOK_WAIT, Server, history};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::plan::{self, Entry, State};
use crate::runbook::shared_history;
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
}

/// Arguments of `db-status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Exit 3 unless every migration is applied and unedited
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Status) -> Result {
    let (folder, mut db) = flags.history.open(ctx, LOOK_WAIT)?;
    let mut applied = history::read_known(&mut db)?.applied;
    shared_history::leave_out_others(ctx, &folder, &mut applied);
    let migrations = plan::states(&folder, &applied);
    let count = |state| {
        migrations
            .iter()
            .filter(|entry| entry.state == state)
            .count()
    };
    let invalid_indexes = catalog::invalid_indexes(&mut db)?;
    let report = Report {
        database: &db.server,
        applied: count(State::Applied),
        pending: count(State::Pending),
        missing: count(State::Missing),
        divergent: count(State::Divergent),
        failed: count(State::Failed),
        invalid_indexes,
        migrations,
    };
    print(ctx, &report);
    ctx.ui.json(&report)?;
    let clean = report.applied == report.migrations.len() && report.invalid_indexes.is_empty();
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
                entry.installed_on.map_or(String::new(), moment),
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
}

/// By hand: a pattern would be read again for every row.
fn moment(at: Timestamp) -> String {
    let at = Offset::UTC.to_datetime(at);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
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
    failure.hint(next(report).unwrap_or(Hint::run("db-migrate")))
}
