//! Which state each migration is in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::migration::history::Applied;
use crate::migration::script::Script;
use crate::migration::source::{Folder, Migration};

/// A migration that is on disk, in the history, or both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) version: i64,
    /// From the file, or from the history if the file is missing.
    pub(crate) name: String,
    pub(crate) state: State,
    /// Whether there is a down file.
    pub(crate) reversible: bool,
    /// `None` if the file is missing.
    pub(crate) transactional: Option<bool>,
    /// `None` while it is pending.
    #[serde(serialize_with = "rfc_3339")]
    pub(crate) installed_on: Option<Timestamp>,
    /// `None` while it is pending, and if the history does not say (-1).
    pub(crate) execution_time_ms: Option<f64>,
}

fn rfc_3339<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Applied,
    Pending,
    /// In the history, but without a file.
    Missing,
    /// The up file has changed since it was applied.
    Divergent,
    /// `success = false`, whatever else is wrong with it.
    Failed,
}

/// Every migration on disk or in the history, by version.
pub(crate) fn states(folder: &Folder, history: &[Applied]) -> Vec<Entry> {
    let rows: BTreeMap<i64, &Applied> = history.iter().map(|row| (row.version, row)).collect();
    let on_disk = folder.migrations.iter().map(|migration| migration.version);
    let versions: BTreeSet<i64> = on_disk.chain(rows.keys().copied()).collect();
    versions
        .into_iter()
        .map(|version| entry(version, folder.get(version), rows.get(&version).copied()))
        .collect()
}

fn entry(version: i64, migration: Option<&Migration>, row: Option<&Applied>) -> Entry {
    let name = migration
        .map(|migration| &migration.name)
        .or(row.map(|row| &row.description));
    Entry {
        version,
        name: name.cloned().unwrap_or_default(),
        state: state(migration, row),
        reversible: migration.is_some_and(Migration::reversible),
        transactional: migration.map(Migration::transactional),
        installed_on: row.map(|row| row.installed_on),
        execution_time_ms: row
            .map(|row| row.execution_time_ns)
            .filter(|&nanoseconds| nanoseconds >= 0)
            .map(|nanoseconds| nanoseconds as f64 / 1e6),
    }
}

/// What the applied migrations ran, in the order in which they did; `None` where nobody knows: the file is
/// gone, was edited, or cannot be read.
pub(crate) fn applied_scripts<'f>(
    folder: &'f Folder,
    history: &[Applied],
) -> Vec<Option<&'f Script>> {
    let mut rows: Vec<&Applied> = history.iter().collect();
    rows.sort_by_key(|row| (row.installed_on, row.version));
    let script = |row: &Applied| {
        let migration = folder.get(row.version)?;
        let as_applied = state(Some(migration), Some(row)) == State::Applied;
        as_applied.then(|| migration.up.script().ok()).flatten()
    };
    rows.into_iter().map(script).collect()
}

pub(super) fn state(migration: Option<&Migration>, row: Option<&Applied>) -> State {
    match (migration, row) {
        (_, None) => State::Pending,
        (_, Some(row)) if !row.success => State::Failed,
        (None, Some(_)) => State::Missing,
        (Some(migration), Some(row)) if row.checksum != migration.checksum => State::Divergent,
        (Some(_), Some(_)) => State::Applied,
    }
}
