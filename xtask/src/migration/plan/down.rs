//! Which migrations a rollback undoes.

use super::obstacles::{Obstacles, check_known};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::source::{Folder, Migration};

/// Which migrations a rollback is asked to undo. A migration that was recorded without being run is undone
/// only by `--only`, a baseline that was run also by `--to 0`: the other forms stop above such a migration,
/// and a `--to` below it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RollbackScope {
    /// The migrations of the newest run, which all have the same `installed_on`. If sqlx wrote the rows,
    /// each with its own, or if they were inserted together, only the last migration.
    LastRun,
    /// This many, from the newest version down; all if there are fewer.
    Steps(usize),
    /// Every version above this one, which stays; 0 undoes everything.
    To(i64),
    All,
    /// Exactly these versions.
    Only(Vec<i64>),
}

/// The migrations to undo, the newest version first; see [`RollbackScope`] for those that are never undone.
///
/// # Errors
/// - A usage failure if the version to go back to, or one that is to be undone, is unknown or not applied,
///   or if one that is never undone is above it.
/// - A finding if it is not clear which run was the last.
/// - A finding that lists, of the migrations to undo, every one without a down file, and every
///   divergent, missing and failed one.
pub(crate) fn down<'f>(
    folder: &'f Folder,
    history: &[Applied],
    selection: &RollbackScope,
) -> Result<Vec<&'f Migration>> {
    let rows = select(folder, history, selection)?;
    let mut obstacles = Obstacles::default();
    let mut migrations = Vec::new();
    for row in rows {
        obstacles.check_applied(folder, row);
        if let Some(migration) = folder.get(row.version) {
            if !migration.reversible() {
                obstacles.irreversible(migration);
            }
            migrations.push(migration);
        }
    }
    obstacles.into_result("cannot roll back: nothing was undone")?;
    Ok(migrations)
}

/// Checks that a rollback still undoes what was shown before it waited for the lock, or what is left of
/// that; a finding if another run has changed it in the meantime.
pub(crate) fn check_unchanged(
    selection: &RollbackScope,
    shown: &[&Migration],
    before: &[Applied],
    undone: &[&Migration],
    now: &[Applied],
) -> Result {
    fn row(rows: &[Applied], version: i64) -> Option<&Applied> {
        rows.iter().find(|row| row.version == version)
    }
    let unchanged = undone.iter().all(|migration| {
        let version = migration.version;
        shown.iter().any(|shown| shown.version == version)
            && row(before, version) == row(now, version)
    });
    // If what was shown is already undone, "the last run" would now mean another one.
    let is_relative = matches!(selection, RollbackScope::LastRun | RollbackScope::Steps(_));
    let gone = is_relative && undone.is_empty() && !shown.is_empty();
    if unchanged && !gone {
        return Ok(());
    }
    let names = |migrations: &[&Migration]| match migrations {
        [] => "nothing".to_owned(),
        some => {
            let stems: Vec<String> = some.iter().map(|one| format!("`{}`", one.stem)).collect();
            stems.join(", ")
        }
    };
    Err(
        Failure::finding("the history has changed while this rollback waited")
            .cause(format!("it was to undo: {}", names(shown)))
            .cause(format!("it would undo now: {}", names(undone)))
            .state("nothing was changed by this command")
            .hint(Hint::run("db-status"))
            .hint(Hint::again("then, if you still want it"))
            .into(),
    )
}

/// The newest migration, if it is one that only `--only` undoes.
pub(crate) fn newest_not_run(history: &[Applied]) -> Option<&Applied> {
    let newest = history.iter().max_by_key(|row| row.version);
    newest.filter(|row| row.was_not_run())
}

/// The history rows of the migrations to undo, the newest version first.
fn select<'h>(
    folder: &Folder,
    history: &'h [Applied],
    selection: &RollbackScope,
) -> Result<Vec<&'h Applied>> {
    let mut rows: Vec<&Applied> = history.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.version));
    let is_baseline = |row: &Applied| folder.get(row.version).is_some_and(Migration::is_baseline);
    let stays = |row: &&Applied| {
        row.was_not_run() || (is_baseline(row) && *selection != RollbackScope::To(0))
    };
    let above = |rows: Vec<&'h Applied>| rows.into_iter().take_while(|row| !stays(row));
    Ok(match selection {
        RollbackScope::LastRun => last_run(above(rows).collect())?,
        RollbackScope::Steps(count) => above(rows).take(*count).collect(),
        RollbackScope::All => above(rows).collect(),
        RollbackScope::To(to) => {
            if *to != 0 {
                check_applied(*to, folder, history)?;
            }
            rows.retain(|row| row.version > *to);
            if let Some(row) = rows.iter().find(|row| stays(row)) {
                return Err(blocked(*to, row, &rows).into());
            }
            rows
        }
        RollbackScope::Only(versions) => {
            for version in versions {
                check_applied(*version, folder, history)?;
            }
            rows.retain(|row| versions.contains(&row.version));
            rows
        }
    })
}

/// The rows of the last run, from rows that are sorted from the newest version down.
fn last_run(mut rows: Vec<&Applied>) -> Result<Vec<&Applied>> {
    let Some(&newest) = rows.first() else {
        return Ok(rows);
    };
    if let Some(later) = rows
        .iter()
        .find(|row| row.installed_on > newest.installed_on)
    {
        let (later, newest) = (later.version, newest.version);
        return Err(Failure::finding("cannot tell which run was the last")
            .cause(format!(
                "`{later}` was applied after the newer `{newest}`, or the server's clock was set back in between"
            ))
            .state("nothing was changed")
            .hint(Hint::to("undo the newest version", format!("db-rollback --only {newest}")))
            .hint(Hint::to("or the latest by the clock", format!("db-rollback --only {later}")))
            .into());
    }
    rows.retain(|row| {
        let together = row.installed_on == newest.installed_on;
        row.version == newest.version || (together && row.own_transaction && newest.own_transaction)
    });
    Ok(rows)
}

/// Why a rollback to `to` is refused: `stays` is above it and is not undone.
fn blocked(to: i64, stays: &Applied, above: &[&Applied]) -> Failure {
    let each = above.iter().map(|row| format!(" --only {}", row.version));
    let version = stays.version;
    let keep = Hint::to("keep it", format!("db-rollback --to {version}"));
    match stays.was_not_run() {
        true => Failure::usage(format!(
            "cannot roll back to `{to}`: `{version}` was recorded without being run"
        ))
        .cause("its objects existed before, and a rollback does not drop those")
        .hint(keep)
        .hint(Hint::to(
            "to undo it anyway, name each migration",
            format!("db-rollback{}", each.collect::<String>()),
        )),
        false => Failure::usage(format!(
            "cannot roll back to `{to}`: the baseline `{version}` lies above it"
        ))
        .hint(keep)
        .hint(Hint::to(
            "or undo everything, the baseline too",
            "db-rollback --to 0",
        )),
    }
}

/// Checks that this version is in the history, so that it can be the target or be undone.
fn check_applied(version: i64, folder: &Folder, history: &[Applied]) -> Result {
    let versions = history.iter().map(|row| row.version).collect();
    check_known(version, folder, &versions)?;
    if !versions.contains(&version) {
        return Err(
            Failure::usage(format!("cannot roll back: `{version}` is not applied"))
                .hint(Hint::to("see which migrations are applied", "db-status"))
                .into(),
        );
    }
    Ok(())
}
