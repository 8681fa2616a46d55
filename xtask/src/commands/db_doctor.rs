//! `db-doctor`: every precondition as a list, with a remedy for each that does not hold.

use jiff::Timestamp;
use serde::Serialize;

use super::args::Output;
use crate::Context;
use crate::database::{Database, activity, catalog, history};
use crate::error::{Failure, Result, psql_command};
use crate::migration::affected_tables::AffectedTables;
use crate::migration::effects::ObjectName;
use crate::migration::plan;
use crate::migration::source::{Folder, Migration};
use crate::runbook::preflight;
use crate::runbook::{backup, failures, indexes};
use crate::ui;

/// Clocks that differ by more make dates in names and reports misleading.
const SKEW_SECONDS: i64 = 5;
/// A plain-text dump may be larger than its table: below this many times its size, say so.
const AMPLE: u64 = 2;

#[derive(Serialize)]
struct Report {
    checks: Vec<Check>,
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
struct Check {
    name: &'static str,
    status: Status,
    detail: String,
    hint: Option<String>,
}

pub(crate) fn run(ctx: &Context, _: &Output) -> Result {
    let mut checks = Checks(Vec::new());
    tools(ctx, &mut checks);
    let folder = checks.take("migrations", ctx.folder(), |folder| {
        format!(
            "{} in {}",
            ui::plural(folder.migrations.len() as u64, "migration"),
            folder.shown_as.display()
        )
    });
    let db = checks.take("connection", ctx.connect(), |db| {
        let encryption = if db.server.encrypted {
            "encrypted"
        } else {
            "not encrypted"
        };
        format!("{}, {encryption}", db.server)
    });
    if let Some(mut db) = db {
        server(ctx, &mut db, &mut checks);
        if let Some(folder) = folder {
            migrations(ctx, &mut db, &folder, &mut checks);
        }
        sessions(&mut db, &mut checks);
        invalid_indexes(&mut db, &mut checks);
    }

    let Checks(checks) = checks;
    let ok = checks.iter().all(|check| check.status != Status::Fail);
    let report = Report { checks, ok };
    print(ctx, &report);
    ctx.ui.json(&report)?;
    let failing = report
        .checks
        .iter()
        .filter(|check| check.status == Status::Fail);
    let names: Vec<&str> = failing.clone().map(|check| check.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::finding(format!("not ready: {}", names.join(", ")));
    for hint in failing.filter_map(|check| check.hint.clone()) {
        failure = failure.hint(hint);
    }
    Err(failure.into())
}

struct Checks(Vec<Check>);

impl Checks {
    fn add(
        &mut self,
        name: &'static str,
        status: Status,
        detail: impl Into<String>,
        hint: Option<String>,
    ) {
        self.0.push(Check {
            name,
            status,
            detail: detail.into(),
            hint,
        });
    }

    /// A check that is an operation: its error is the finding.
    fn take<T>(
        &mut self,
        name: &'static str,
        result: Result<T>,
        detail: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.add(name, Status::Ok, detail(&value), None);
                Some(value)
            }
            Err(error) => {
                let failure = failures::from_error(&error);
                let detail = [vec![failure.message], failure.causes].concat().join(": ");
                self.add(
                    name,
                    Status::Fail,
                    detail,
                    Some(failure.hints.join("; or: ")),
                );
                None
            }
        }
    }
}

fn tools(ctx: &Context, checks: &mut Checks) {
    let versions = || -> Result<String> {
        let psql = ctx.tools().psql()?;
        Ok(psql.display().to_string())
    };
    checks.take("psql", versions(), Clone::clone);
}

fn server(ctx: &Context, db: &mut Database, checks: &mut Checks) {
    checks.take("server", preflight::server(db), |()| {
        format!("PostgreSQL {}, primary", db.server.server_version)
    });
    checks.take(
        "pg_dump",
        ctx.tools().pg_dump(db.server.major()),
        |pg_dump| format!("{} ({})", pg_dump.program.display(), pg_dump.version),
    );
    checks.take("history", preflight::history_rights(db), |()| {
        format!("`{}` can be written", history::table(db))
    });
    let skew = Timestamp::now().duration_since(db.server.clock).as_secs();
    let (status, hint) = if skew.abs() > SKEW_SECONDS {
        (
            Status::Warn,
            Some("set the clock: timedatectl set-ntp true".to_owned()),
        )
    } else {
        (Status::Ok, None)
    };
    checks.add(
        "clock",
        status,
        format!("{} s apart from the server's", skew.abs()),
        hint,
    );
}

fn migrations(ctx: &Context, db: &mut Database, folder: &Folder, checks: &mut Checks) {
    let pending = history::read_known(db).and_then(|applied| {
        let pending = plan::up(folder, &applied, None, true)?;
        Ok((pending, !applied.is_empty()))
    });
    let pending = checks.take("files and history", pending, |(pending, _)| {
        format!("they agree; {} pending", ui::count(pending.len() as u64))
    });
    let Some((pending, has_history)) = pending else {
        return;
    };
    let affected = AffectedTables::from_scripts(
        pending.iter().map(|migration| &migration.up),
        db.server.schema.as_deref(),
    );
    checks.take(
        "new tables",
        preflight::not_adopted(db, &affected, has_history),
        |()| "what pending migrations create is not there yet".to_owned(),
    );
    let is_applied = |migration: &Migration| {
        let version = migration.version;
        pending.iter().all(|pending| pending.version != version)
    };
    let found = indexes::findings(db, &folder.migrations, is_applied);
    match found.as_ref().map(|found| found.differing.as_slice()) {
        Err(error) => checks.add("definitions", Status::Warn, format!("{error:#}"), None),
        Ok([]) => checks.add(
            "definitions",
            Status::Ok,
            "every index is the one that its migration builds",
            None,
        ),
        Ok([first, ..]) => {
            checks.add(
                "definitions",
                Status::Fail,
                first.one_line(),
                first.hints.first().cloned(),
            );
        }
    }
    let tables = preflight::tables(db, &affected);
    checks.take("tables", tables, |()| preflight::summary(&affected));
    // With nothing pending, the next backup is that of db-backup's default.
    let mut names: Vec<ObjectName> = affected.backup.into_iter().collect();
    if names.is_empty() {
        names.extend(ObjectName::parse(backup::DEFAULT_TABLE));
    }
    room(ctx, db, &names, checks);
}

fn room(ctx: &Context, db: &mut Database, names: &[ObjectName], checks: &mut Checks) {
    let tables: Vec<_> = names
        .iter()
        .filter_map(|name| catalog::find(db, name).ok().flatten())
        .collect();
    let room = preflight::room(&ctx.config.backups, &tables);
    let Some((free, needed)) = checks.take("disk", room, |(free, needed)| {
        format!(
            "{} free for a backup of about {}",
            ui::bytes(*free),
            ui::bytes(*needed)
        )
    }) else {
        return;
    };
    if free < needed * AMPLE
        && let Some(check) = checks.0.last_mut()
    {
        check.status = Status::Warn;
        check.hint = Some(
            "a dump may be larger than its table: cargo xtask db-migrate --backups DIR".to_owned(),
        );
    }
}

fn sessions(db: &mut Database, checks: &mut Checks) {
    let long = activity::old_transactions(&mut db.client, preflight::LONG_TRANSACTION);
    match long {
        Err(error) => checks.add("transactions", Status::Warn, format!("{error:#}"), None),
        Ok(long) => match long.first() {
            None => checks.add("transactions", Status::Ok, "no long transaction", None),
            Some(oldest) => checks.add(
                "transactions",
                Status::Warn,
                format!("{} open for long, the oldest: {oldest}", ui::count(long.len() as u64)),
                Some(format!(
                    "db-migrate waits for it; or end it: cargo xtask db-psql -- -c 'SELECT pg_terminate_backend({})'",
                    oldest.pid
                )),
            ),
        },
    }
    match activity::dumps(&mut db.client) {
        Err(error) => checks.add("dumps", Status::Warn, format!("{error:#}"), None),
        Ok(dumps) => match dumps.first() {
            None => checks.add("dumps", Status::Ok, "no pg_dump is running", None),
            Some(dump) => checks.add(
                "dumps",
                Status::Warn,
                format!("a pg_dump is running: {dump}"),
                Some("db-migrate waits for it to end".to_owned()),
            ),
        },
    }
}

fn invalid_indexes(db: &mut Database, checks: &mut Checks) {
    let invalid = catalog::invalid_indexes(db);
    match invalid.as_deref() {
        Err(error) => checks.add("indexes", Status::Warn, format!("{error:#}"), None),
        Ok([]) => checks.add("indexes", Status::Ok, "every index is valid", None),
        Ok(invalid) => {
            let names: Vec<&str> = invalid.iter().map(|index| index.name.as_str()).collect();
            checks.add(
                "indexes",
                Status::Fail,
                format!("INVALID: {}", names.join(", ")),
                Some(format!(
                    "if a pending migration builds it: cargo xtask db-migrate; else: {}",
                    psql_command(&format!("REINDEX INDEX CONCURRENTLY {}", names[0]))
                )),
            );
        }
    }
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
        if let (Status::Warn, Some(hint)) = (check.status, &check.hint) {
            ctx.ui.hint(format_args!("{}: {hint}", check.name));
        }
    }
}
