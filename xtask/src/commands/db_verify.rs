//! `db-verify`: every verify file of an applied migration, indexes, checksums, and standbys.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::args::{HistoryArgs, Output, duration};
use crate::Context;
use crate::database::catalog::{self, InvalidIndex};
use crate::database::standby::{self, Standby};
use crate::database::{Database, LOOK_WAIT, Server, history};
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::plan::{self, State};
use crate::migration::quote::quote_if_needed;
use crate::runbook::verify::{self, Checked};
use crate::runbook::{indexes, shared_history};
use crate::ui;

#[derive(Serialize)]
struct Report {
    checks: Vec<Checked>,
    standbys: Vec<Standby>,
    /// A standby is attached, and this role may not see its state.
    hidden_standbys: u64,
    ok: bool,
}

/// How often the state of the standbys is read.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `db-verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// Wait up to this long until every attached standby has replayed the migration
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    wait_standbys: Duration,
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Verify) -> Result {
    let (folder, mut db) = flags.history.open(ctx, LOOK_WAIT)?;
    let mut applied = history::read_known(&mut db)?.applied;
    let scripts = plan::applied_scripts(&folder, &applied);
    shared_history::leave_out_others(ctx, &folder, &mut applied);
    let states = plan::states(&folder, &applied);

    let mut checks = Vec::new();
    for entry in states.iter().filter(|entry| entry.state != State::Pending) {
        checks.push(Checked {
            version: entry.version,
            check: "recorded as applied, its file unedited".to_owned(),
            ok: entry.state == State::Applied,
        });
    }
    let in_place = folder.migrations.iter().filter(|migration| {
        states
            .iter()
            .any(|entry| entry.version == migration.version && entry.state == State::Applied)
    });
    checks.extend(verify::run(&mut db, in_place)?);
    let of_indexes = |check: String| Checked {
        version: 0,
        check,
        ok: false,
    };
    match indexes::differing(&mut db, scripts, []) {
        Ok(differing) => {
            checks.extend(differing.iter().map(|found| of_indexes(found.one_line())));
        }
        Err(error) if failures::sqlstate(&error).is_some() => {
            ctx.ui
                .warn(format_args!("indexes were not compared: {error:#}"));
        }
        Err(error) => return Err(error),
    }
    let invalid = catalog::invalid_indexes(&mut db)?;
    checks.extend(
        invalid
            .iter()
            .map(|index| of_indexes(format!("index {} on {} is valid", index.name, index.table))),
    );
    let standbys = wait_for_standbys(&mut db, flags.wait_standbys)?;
    let hidden_standbys = standby::hidden(&mut db.client)?;
    // With --wait-standbys, standbys whose state cannot be read are a finding, not a success.
    let asked = !flags.wait_standbys.is_zero();
    let unknown = match (asked, db.server.in_recovery) {
        (true, true) => Some(only_the_primary_knows(&db.server)),
        (_, false) if hidden_standbys > 0 => Some(not_for_this_role(&db.server, hidden_standbys)),
        _ => None,
    };
    let known = unknown.is_none() || !asked;
    let replayed = standbys.iter().all(|standby| standby.replayed);
    let ok = checks.iter().all(|check| check.ok) && replayed && known;
    let report = Report {
        checks,
        standbys,
        hidden_standbys,
        ok,
    };

    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|checked| {
            let mark = if checked.ok { "ok" } else { "FAILED" };
            let version = match checked.version {
                0 => String::new(),
                version => version.to_string(),
            };
            vec![mark.to_owned(), version, checked.check.clone()]
        })
        .collect();
    if rows.is_empty() {
        ctx.ui
            .data("Nothing is applied, so there is nothing to verify.");
    } else {
        ctx.ui.data(ui::table(&["", "Version", "Check"], &rows));
    }
    for standby in &report.standbys {
        let state = if standby.replayed {
            "has replayed everything"
        } else {
            "LAGS"
        };
        ctx.ui.data(format_args!(
            "standby {}: {state} ({} behind)",
            standby.name,
            ui::bytes(standby.lag_bytes)
        ));
    }
    ctx.ui.json(&report)?;
    let finding = finding(&report, &invalid);
    match (finding, unknown) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(failure)) if asked => Err(failure.into()),
        (None, Some(failure)) => {
            ctx.ui.warn(failure.one_line());
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn not_for_this_role(server: &Server, standbys: u64) -> Failure {
    let user = &server.user;
    Failure::finding(format!(
        "whether {} replayed the migration cannot be known",
        match standbys {
            1 => "the attached standby has".to_owned(),
            many => format!("the {} attached standbys have", ui::count(many)),
        }
    ))
    .cause(format!(
        "role `{user}` may not see how far they are: that needs pg_read_all_stats"
    ))
    .hint(Hint::psql(
        "as a superuser",
        &format!("GRANT pg_read_all_stats TO {}", quote_if_needed(user)),
    ))
    .hint(Hint::again("then"))
}

fn only_the_primary_knows(server: &Server) -> Failure {
    Failure::finding("whether every standby has replayed the migration cannot be known here")
        .cause(format!("{server} is a standby itself"))
        .hint(Hint::to("ask the primary", "db-verify --wait-standbys 60s --database-url 'postgres://HOST1,HOST2/DATABASE?target_session_attrs=read-write'"))
}

fn finding(report: &Report, invalid: &[InvalidIndex]) -> Option<Failure> {
    if let Some(failure) = verify::failed("verification failed", &report.checks) {
        let mut failure = failure.hint(Hint::run("db-status"));
        for index in invalid {
            failure = failure.hint(Hint::psql(
                "rebuild it without blocking writes",
                &format!("REINDEX INDEX CONCURRENTLY {}", index.name),
            ));
        }
        if report
            .checks
            .iter()
            .any(|check| !check.ok && check.version != 0)
        {
            failure = failure
                .hint("if a later migration changed this on purpose, correct the verify file: it is not part of the history")
                .hint(Hint::to("to roll it back and apply it again, with a backup first", "db-rollback"))
                .hint(Hint::to("then", "db-migrate"));
        }
        return Some(failure);
    }
    let lagging = report.standbys.iter().find(|standby| !standby.replayed)?;
    Some(
        Failure::finding(format!(
            "standby `{}` has not replayed the migration",
            lagging.name
        ))
        .cause(format!("it is {} behind", ui::bytes(lagging.lag_bytes)))
        .hint(Hint::run("db-verify --wait-standbys 10m")),
    )
}

/// Waits until every attached standby has replayed the WAL that the primary has written so far.
fn wait_for_standbys(db: &mut Database, at_most: Duration) -> Result<Vec<Standby>> {
    let target = standby::written(&mut db.client, &db.server)?;
    let started = Instant::now();
    loop {
        let standbys = standby::attached(&mut db.client, &target)?;
        if standbys.iter().all(|standby| standby.replayed) || started.elapsed() >= at_most {
            return Ok(standbys);
        }
        interrupt::check()?;
        std::thread::sleep(LOOK_EVERY);
    }
}
