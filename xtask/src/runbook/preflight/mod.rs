//! What must hold before a change: one list of read-only checks. A run stops at the first that fails; the
//! doctor looks at all of them. A check is a constant in the file that fits it, and a line in [`CHECKS`].

mod connection;
mod disk;
mod history;
mod indexes;
mod pooler;
mod scripts;
mod sessions;
mod tables;
mod tools;

pub(crate) use scripts::{HISTORY_MOVED, moves_history};
pub(super) use tables::names_no_table;
pub(crate) use tables::{can_be_backed_up, missing_table};

use super::backup;
use crate::Context;
use crate::database::catalog::Relation;
use crate::database::{self, Database, Server};
use crate::error::Result;
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::plan;
use crate::migration::script::Script;
use crate::migration::source::Folder;
use crate::ui;

/// Every check, in the order in which it is looked at: what a later one takes for granted comes first.
pub(crate) const CHECKS: &[Check] = &[
    tools::PSQL,
    scripts::MIGRATIONS,
    connection::CONNECTION,
    connection::SERVER,
    pooler::POOLER,
    tools::PG_DUMP,
    history::RIGHTS,
    connection::CLOCK,
    history::FILES,
    history::NEW_TABLES,
    tables::TABLES,
    scripts::HISTORY_STAYS,
    indexes::DEFINITIONS,
    scripts::READABLE,
    disk::DISK,
    sessions::TRANSACTIONS,
    sessions::DUMPS,
    indexes::VALID,
];

/// One precondition.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// The points at which a run makes this check; if it fails, the run stops. The doctor makes every check,
    /// also one that lists none.
    pub(crate) before: &'static [When],
    pub(crate) look: Look,
}

/// The points at which a command looks at what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A run has connected, and does not know yet what it will do.
    Run,
    /// A run knows which migrations it will apply.
    Up,
    /// A run knows which migrations it will undo.
    Down,
    /// As `Up` or `Down`, beside those, where only the plan is printed.
    DryRun,
    /// The tables that will be backed up are known: all those of a run, and each as its turn comes.
    Backup,
    /// A restore has connected.
    Restore,
    /// `db-baseline` has connected.
    Baseline,
}

/// How a check looks, by what it needs for that. An error is its finding: what is wrong, and what to do.
/// Where the server cannot be reached, or what is pending cannot be known, the error is that of the first
/// check that needs it.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// At this machine and what is configured.
    Machine(fn(&Context) -> Result<Found>),
    /// At the server and who is on it.
    Server(fn(&Context, &mut Database) -> Result<Found>),
    /// At what a run is about to change.
    Run(fn(&Context, &mut Database, &Planned<'_>) -> Result<Found>),
}

/// What a check has found that does not fail.
pub(crate) enum Found {
    /// It holds, and how.
    Ok(String),
    Warning(Warning),
}

/// What does not stop a run, and is worth knowing before it.
pub(crate) struct Warning {
    pub(crate) detail: String,
    pub(crate) remedy: Option<Hint>,
    /// How a run says it, where the detail is not enough.
    notices: Vec<Notice>,
}

struct Notice {
    line: String,
    /// What a session runs or ran last, if it is about one: shown only with `--show-queries`.
    query: String,
}

impl Found {
    fn ok(detail: impl Into<String>) -> Found {
        Found::Ok(detail.into())
    }

    fn warning(detail: impl Into<String>, remedy: impl Into<Hint>) -> Found {
        Found::Warning(Warning {
            detail: detail.into(),
            remedy: Some(remedy.into()),
            notices: Vec::new(),
        })
    }

    /// What is only good to know could not be asked.
    fn unknown(error: &anyhow::Error) -> Found {
        Found::Warning(Warning {
            detail: format!("{error:#}"),
            remedy: None,
            notices: Vec::new(),
        })
    }
}

/// What a run is about to change, as far as it is known; nothing, where it is not a run.
#[derive(Default)]
pub(crate) struct Planned<'f> {
    /// In the order in which they will run.
    pub(crate) scripts: Vec<&'f Script>,
    pub(crate) affected: AffectedTables,
    /// Whether any migration is in the history.
    pub(crate) has_history: bool,
    /// The tables that it will back up before it changes anything.
    pub(crate) backups: Vec<Relation>,
    pub(crate) no_backup: bool,
    pub(crate) show_queries: bool,
    /// For the doctor, who compares what applied migrations have made too.
    pub(crate) folder: Option<&'f Folder>,
}

impl<'f> Planned<'f> {
    pub(crate) fn of(server: &Server, scripts: Vec<&'f Script>) -> Planned<'f> {
        let schema = server.schema.as_deref();
        Planned {
            affected: AffectedTables::from_scripts(scripts.iter().copied(), schema),
            scripts,
            ..Planned::default()
        }
    }

    /// The run that `db-migrate` would be now.
    fn pending(db: &mut Database, folder: &'f Folder) -> Result<Planned<'f>> {
        let applied = database::history::read_known(db)?.applied;
        let pending = plan::up(folder, &applied, None, true)?;
        let scripts = pending.iter().map(|migration| &migration.up).collect();
        let mut planned = Planned::of(&db.server, scripts);
        planned.has_history = !applied.is_empty();
        planned.folder = Some(folder);
        // One that is not there is found by the check of the tables.
        let names = backup::default_tables(db, folder, &planned.affected)?;
        planned.backups = backup::tables(db, &names).unwrap_or_default();
        Ok(planned)
    }
}

/// Looks at what comes `when` it does, and names what is worth knowing.
///
/// # Errors
/// For the first check that fails.
pub(crate) fn before(
    when: When,
    ctx: &Context,
    db: &mut Database,
    planned: &Planned<'_>,
) -> Result {
    let notices = look(when, ctx, db, planned)?;
    announce(ctx, planned, notices);
    Ok(())
}

/// As [`before`], for a run that knows which migrations it will apply or undo (`what`).
///
/// # Errors
/// For the first check that fails.
pub(crate) fn before_change(
    when: When,
    ctx: &Context,
    db: &mut Database,
    planned: &Planned<'_>,
    what: &str,
    dry_run: bool,
) -> Result {
    let mut notices = look(when, ctx, db, planned)?;
    if dry_run {
        notices.extend(look(When::DryRun, ctx, db, planned)?);
    }
    let migrations = ui::plural(planned.scripts.len() as u64, "migration");
    let tables = tables::summary(&planned.affected);
    ctx.ui
        .status("Preflight", format_args!("{migrations} {what}, {tables}"));
    announce(ctx, planned, notices);
    Ok(())
}

fn look(
    when: When,
    ctx: &Context,
    db: &mut Database,
    planned: &Planned<'_>,
) -> Result<Vec<Notice>> {
    let mut notices = Vec::new();
    for check in CHECKS.iter().filter(|check| check.before.contains(&when)) {
        let found = match check.look {
            Look::Machine(look) => look(ctx)?,
            Look::Server(look) => look(ctx, db)?,
            Look::Run(look) => look(ctx, db, planned)?,
        };
        match found {
            Found::Ok(_) => {}
            Found::Warning(warning) if warning.notices.is_empty() => notices.push(Notice {
                line: warning.detail,
                query: String::new(),
            }),
            Found::Warning(warning) => notices.extend(warning.notices),
        }
    }
    Ok(notices)
}

fn announce(ctx: &Context, planned: &Planned<'_>, notices: Vec<Notice>) {
    for Notice { line, query } in notices {
        match planned.show_queries && !query.is_empty() {
            true => ctx.ui.info("Notice", format_args!("{line}\n  {query}")),
            false => ctx.ui.info("Notice", line),
        }
    }
}

/// Looks at every check, whatever fails. Those that cannot be looked at because an earlier one has failed
/// are left out.
pub(crate) fn examine(ctx: &Context) -> Vec<(&'static str, Result<Found>)> {
    let (mut db, mut no_db) = split(ctx.connect());
    let folder = ctx.folder().ok();
    let planned = match (&mut db, &folder) {
        (Some(db), Some(folder)) => Some(Planned::pending(db, folder)),
        // Which of them is missing, and why, is the finding of another check.
        _ => None,
    };
    let (planned, mut no_plan) = planned.map_or((None, None), split);
    let mut findings = Vec::new();
    for check in CHECKS {
        let found = match (check.look, &mut db, &planned) {
            (Look::Machine(look), ..) => Some(look(ctx)),
            (Look::Server(look), Some(db), _) => Some(look(ctx, db)),
            (Look::Run(look), Some(db), Some(planned)) => Some(look(ctx, db, planned)),
            (Look::Server(_), None, _) => no_db.take().map(Err),
            (Look::Run(_), ..) => no_plan.take().map(Err),
        };
        findings.extend(found.map(|found| (check.name, found)));
    }
    findings
}

fn split<T>(result: Result<T>) -> (Option<T>, Option<anyhow::Error>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_reached_is_found_by_the_check_that_is_named_after_it() {
        let first = |is: fn(&Look) -> bool| CHECKS.iter().find(|check| is(&check.look));
        let name = |check: Option<&Check>| check.expect("there is one").name;
        assert_eq!(
            name(first(|look| matches!(look, Look::Server(_)))),
            "connection"
        );
        assert_eq!(
            name(first(|look| matches!(look, Look::Run(_)))),
            "files and history"
        );
    }

    #[test]
    fn each_check_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> =
            CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
    }
}
