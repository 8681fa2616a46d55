//! Which migrations a run applies.

use std::collections::BTreeSet;

use super::obstacles::{Obstacles, check_known};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::source::{Folder, Migration};

/// The migrations to apply, in order: all pending ones, or those up to the version `to`.
///
/// # Errors
/// - A usage failure if `to` is not a known version, or the database is already past it.
/// - A finding that lists every divergent, missing and failed migration, and, unless that is
///   allowed, every pending one that is older than the newest applied.
pub(crate) fn up<'f>(
    folder: &'f Folder,
    history: &[Applied],
    to: Option<i64>,
    allow_out_of_order: bool,
) -> Result<Vec<&'f Migration>> {
    let applied: BTreeSet<i64> = history.iter().map(|row| row.version).collect();
    let newest = applied.last().copied();
    if let Some(to) = to {
        check_known(to, folder, &applied)?;
        if let Some(newest) = newest.filter(|&newest| to < newest && applied.contains(&to)) {
            return Err(Failure::usage(format!(
                "cannot migrate to `{to}`: the database is already at `{newest}`"
            ))
            .hint(Hint::to("go back to it", format!("db-rollback --to {to}")))
            .into());
        }
    }
    let pending: Vec<&Migration> = folder
        .migrations
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .filter(|migration| to.is_none_or(|to| migration.version <= to))
        .collect();
    let mut obstacles = Obstacles::default();
    for row in history {
        obstacles.check_applied(folder, row);
    }
    for migration in &pending {
        if let Some(newest) = newest.filter(|&newest| migration.version < newest)
            && !allow_out_of_order
        {
            obstacles.out_of_order(migration, newest);
        }
    }
    obstacles.into_result("cannot migrate: the files and the history disagree")?;
    Ok(pending)
}
