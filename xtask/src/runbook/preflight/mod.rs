//! What must hold before a change: one list of read-only checks. A run stops at the first that fails; the
//! doctor looks at all of them. A check is a constant in the file that fits it, and a line in [`CHECKS`].

mod check;
mod connection;
mod disk;
mod history;
mod indexes;
mod pooler;
mod scripts;
mod sessions;
mod tables;
mod tools;

pub(crate) use check::{Check, Found, Look, Planned, When};
pub(super) use scripts::{HISTORY_MOVED, moves_history};

use check::Notice;

use super::backup_tables;
use crate::Context;
use crate::database::{self, Database, LOOK_WAIT};
use crate::error::Result;
use crate::migration::plan;
use crate::migration::source::{Direction, Folder};
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
pub(crate) fn examine(
    ctx: &Context,
    folder: Option<&Folder>,
) -> Vec<(&'static str, Result<Found>)> {
    let (mut db, mut no_db) = split(ctx.connect_with(LOOK_WAIT));
    let planned = match (&mut db, folder) {
        (Some(db), Some(folder)) => Some(pending(db, folder)),
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

/// The run that `db-migrate` would be now.
fn pending<'f>(db: &mut Database, folder: &'f Folder) -> Result<Planned<'f>> {
    let mut applied = database::history::read_known(db)?.applied;
    let scripts_applied = plan::applied_scripts(folder, &applied);
    folder.leave_out_others(&mut applied);
    let pending = plan::up(folder, &applied, None, true)?;
    let scripts = folder.scripts(&pending, Direction::Up)?;
    let mut planned = Planned::of(&db.server, scripts);
    planned.has_history = folder.shares_history || !applied.is_empty();
    planned.applied = Some(scripts_applied);
    // One that is not there is found by the check of the tables.
    let names = backup_tables::default_names(db, folder, &planned.affected)?;
    planned.backups = backup_tables::find_all(db, &names).unwrap_or_default();
    Ok(planned)
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
