//! Applied migrations whose file was edited, or is gone: what was applied is found by its checksum, never
//! guessed, and compared with the file token by token. Writes nothing.

mod search;
mod verdict;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use search::{Found, Looked};

use crate::error::Result;
use crate::hint::Hint;
use crate::migration::history::{Applied, Checksum};
use crate::migration::plan::{self, State};
use crate::migration::source::Folder;
use crate::tools::git::Git;

/// What can be repaired, and what cannot.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) restamps: Vec<Restamp>,
    pub(crate) refusals: Vec<Refusal>,
}

/// A migration whose file is the same SQL as what was applied.
pub(crate) struct Restamp {
    pub(crate) version: i64,
    pub(crate) path: PathBuf,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Checksum,
    /// Where what was applied was found.
    pub(crate) found_in: String,
    pub(crate) diff: String,
}

/// A migration that only a person can repair.
pub(crate) struct Refusal {
    pub(crate) version: i64,
    pub(crate) why: String,
    pub(crate) found_in: Option<String>,
    pub(crate) diff: Option<String>,
    pub(crate) hints: Vec<Hint>,
}

/// Looks at these rows of the history; those that agree with their file, or failed, are passed over.
///
/// # Errors
/// If git is needed, and cannot be asked.
pub(crate) fn examine(
    folder: &Folder,
    dir: &Path,
    history: &[Applied],
    only: Option<i64>,
) -> Result<Findings> {
    let states = plan::states(folder, history);
    let wrong = states
        .iter()
        .filter(|entry| matches!(entry.state, State::Divergent | State::Missing));
    let wrong: HashSet<i64> = wrong.map(|entry| entry.version).collect();
    let chosen = |row: &&Applied| {
        wrong.contains(&row.version) && only.is_none_or(|only| row.version == only)
    };
    let rows: Vec<&Applied> = history.iter().filter(chosen).collect();
    let mut found: HashMap<i64, Found> = HashMap::new();
    for &row in &rows {
        found.extend(search::in_folder(folder, row).map(|found| (row.version, found)));
    }
    let others: Vec<&Applied> = rows
        .iter()
        .copied()
        .filter(|row| !found.contains_key(&row.version))
        .collect();
    let mut looked = Looked::default();
    if !others.is_empty() {
        let git = Git::open(&std::fs::canonicalize(dir)?)?;
        looked = search::in_git(&git, &others, &mut found)?;
    }
    let mut findings = Findings::default();
    for row in rows {
        let refusal = match (folder.get(row.version), found.get(&row.version)) {
            (migration, None) => verdict::not_found(migration, row, &looked),
            (None, Some(found)) => verdict::missing(folder, history, row, found),
            (Some(migration), Some(found)) => {
                match verdict::compare(folder, migration, row, found)? {
                    Ok(restamp) => {
                        findings.restamps.push(restamp);
                        continue;
                    }
                    Err(refusal) => refusal,
                }
            }
        };
        findings.refusals.push(refusal);
    }
    Ok(findings)
}
