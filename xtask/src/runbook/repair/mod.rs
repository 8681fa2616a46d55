//! Applied migrations whose file was edited, or is gone: what was applied is found by its checksum, never
//! guessed, and compared with the file token by token. Writes nothing.

mod search;
mod verdict;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use search::{Found, Looked};
use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::hex;
use crate::hint::Hint;
use crate::migration::history::{Applied, Checksum};
use crate::migration::plan::{self, State};
use crate::migration::source::Folder;
use crate::tools::git::Git;

/// What can be repaired, and what cannot.
#[derive(Default, Serialize)]
pub(crate) struct Findings {
    #[serde(rename = "repaired")]
    pub(crate) restamps: Vec<Restamp>,
    #[serde(rename = "refused")]
    pub(crate) refusals: Vec<Refusal>,
    /// Whether nothing is going to be recorded.
    pub(crate) dry_run: bool,
}

/// A migration whose file is the same SQL as what was applied.
#[derive(Serialize)]
pub(crate) struct Restamp {
    pub(crate) version: i64,
    /// The checksums in the history and of the file.
    #[serde(serialize_with = "in_hex")]
    pub(crate) from: Vec<u8>,
    #[serde(serialize_with = "in_hex")]
    pub(crate) to: Checksum,
    #[serde(skip)]
    pub(crate) path: PathBuf,
    /// Where what was applied was found.
    #[serde(skip)]
    pub(crate) found_in: String,
    #[serde(skip)]
    pub(crate) diff: String,
}

/// A migration that only a person can repair.
#[derive(Serialize)]
pub(crate) struct Refusal {
    pub(crate) version: i64,
    pub(crate) why: String,
    pub(crate) found_in: Option<String>,
    #[serde(skip)]
    pub(crate) diff: Option<String>,
    #[serde(skip)]
    pub(crate) hints: Vec<Hint>,
}

fn in_hex<S: Serializer>(checksum: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(checksum.as_ref()))
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
        found.extend(search::in_folder(folder, history, row).map(|found| (row.version, found)));
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
            (None, Some(found)) => verdict::missing(folder, row, found),
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
