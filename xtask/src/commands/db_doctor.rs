//! `db-doctor`: every check of the preflight's list, with a remedy for each that fails.

use clap::Args;
use serde::Serialize;

use super::args::{HistoryArgs, Output};
use crate::Context;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::migration::source::Folder;
use crate::runbook::preflight::{self, Found};
use crate::ui;

#[derive(Serialize)]
struct Report {
    checks: Vec<Finding>,
    ok: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Finding {
    name: &'static str,
    status: Status,
    detail: String,
    hint: Option<String>,
    #[serde(skip)]
    remedies: Vec<Hint>,
}

impl Finding {
    fn of(ctx: &Context, name: &'static str, found: Result<Found>) -> Finding {
        let (status, detail, remedies) = match found {
            Ok(Found::Ok(detail)) => (Status::Ok, detail, Vec::new()),
            Ok(Found::Warning(warning)) => {
                let remedies = Vec::from_iter(warning.remedy);
                (Status::Warn, warning.detail, remedies)
            }
            Err(error) => {
                let failure = failures::from_error(&error);
                (Status::Fail, failure.one_line(), failure.hints)
            }
        };
        let shown = remedies.iter().map(|hint| hint.shown(&ctx.ui.invocation));
        let shown: Vec<String> = shown.collect();
        Finding {
            name,
            status,
            detail,
            hint: (!shown.is_empty()).then(|| shown.join("; or: ")),
            remedies,
        }
    }
}

impl Report {
    fn of(ctx: &Context, folder: Option<&Folder>) -> Report {
        let checks: Vec<Finding> = preflight::examine(ctx, folder)
            .into_iter()
            .map(|(name, found)| Finding::of(ctx, name, found))
            .collect();
        let ok = checks.iter().all(|check| check.status != Status::Fail);
        Report { checks, ok }
    }
}

/// Arguments of `db-doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Doctor) -> Result {
    // What is wrong with it is the finding of a check.
    let folder = flags.history.folder(ctx).ok();
    let report = Report::of(ctx, folder.as_ref());
    print(ctx, &report);
    ctx.ui.json(&report)?;
    if report.ok {
        return Ok(());
    }
    let failing = report
        .checks
        .iter()
        .filter(|check| check.status == Status::Fail);
    let names: Vec<&str> = failing.clone().map(|check| check.name).collect();
    let mut failure = Failure::finding(format!("not ready: {}", names.join(", ")));
    failure.hints = failing.flat_map(|check| check.remedies.clone()).collect();
    Err(failure.into())
}

fn print(ctx: &Context, report: &Report) {
    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|check| {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            vec![
                status.to_owned(),
                check.name.to_owned(),
                check.detail.clone(),
            ]
        })
        .collect();
    ctx.ui.data(ui::table(&["", "Check", "Found"], &rows));
    for check in &report.checks {
        for remedy in check
            .remedies
            .iter()
            .filter(|_| check.status == Status::Warn)
        {
            ctx.ui.hint(remedy.clone().about(check.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::hint::Invocation;
    use private_server::ThrowawayServer;

    use super::*;
    use crate::options::{Color, Format, Locations};
    use crate::ui::Ui;

    fn context(locations: Locations) -> Context {
        let ui = Ui::new(
            true,
            false,
            false,
            Color::Never,
            Format::Json,
            Invocation::default(),
        );
        let config = Config::read(locations).expect("a configuration");
        Context::new(ui, config, "db-doctor")
    }

    #[test]
    fn every_check_of_the_preflight_is_in_the_doctors_json() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("1_one.sql"), "SELECT 1;\n").expect("writes a file");
        let machine = context(Locations::default());
        let installation = machine.tools().server().expect("PostgreSQL is installed");
        let server = ThrowawayServer::start(installation, &[]).expect("a server starts");
        let ctx = context(Locations {
            database_url: Some(server.url("postgres")),
            migrations: Some(folder.path().to_owned()),
            backups: Some(folder.path().to_owned()),
        });
        let report =
            serde_json::to_value(Report::of(&ctx, ctx.folder().ok().as_ref())).expect("JSON");
        let checks = report["checks"].as_array().expect("a list");
        let reported: Vec<&str> = checks
            .iter()
            .map(|check| check["name"].as_str().expect("a name"))
            .collect();
        let listed: Vec<&str> = preflight::CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(reported, listed);
    }
}
