//! A backup: pg_dump of one table in an exported snapshot, proven by restoring it, with a manifest
//! beside it. Merging its rows into the table again is in `restore`.

mod dump;
mod folder;
mod listing;
mod manifest;
mod proof;
mod prune;
mod scratch;
mod snapshot;
mod take;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use folder::{clean, open, sha256};
pub(crate) use listing::{Found, State, list, strays};
pub(crate) use manifest::Manifest;
pub(crate) use prune::{delete, prunable};
pub(crate) use scratch::{Loader, definition};
pub(crate) use take::take;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::preflight;
use crate::database::Database;
use crate::database::catalog::{self, Relation};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::effects::ObjectName;
use crate::migration::source::{Folder, Migration};
use crate::options::Proof;
use crate::shell::shell_word;
use crate::tools::pg_dump;
use crate::ui;

/// A finished backup, as the command contract shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CompletedBackup {
    pub(crate) file: PathBuf,
    /// Qualified name.
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) proof: Proof,
    /// How long it took to take and prove it.
    #[serde(skip)]
    pub(crate) took: Duration,
}

impl CompletedBackup {
    /// What it holds, where it is and how it was proven, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}: {}, {} in {} ({})",
            self.table,
            ui::plural(self.rows, "row"),
            ui::bytes(self.bytes),
            self.file.display(),
            self.proven()
        )
    }

    /// How it was proven, for people.
    pub(crate) fn proven(&self) -> &'static str {
        match self.proof {
            Proof::Restore => "restored and compared",
            Proof::Rows => "row count compared",
            Proof::None => "not proven",
        }
    }
}

/// The command as a person would type it.
pub(crate) fn command(table: &str, file: &str) -> String {
    let arguments = pg_dump::arguments(table);
    let words: Vec<String> = arguments.iter().map(shell_word).collect();
    let words = words.join(" ");
    format!(
        "pg_dump \"$DATABASE_URL\" {words} --file={}",
        shell_word(file)
    )
}

/// The tables of these names, each once: `users` and `public.users` are one.
///
/// # Errors
/// As [`table`], for the first that cannot be backed up.
pub(crate) fn tables(db: &mut Database, names: &[String]) -> Result<Vec<Relation>> {
    let mut tables: Vec<Relation> = Vec::new();
    for name in names {
        let table = table(db, name)?;
        if tables.iter().all(|other| other.oid != table.oid) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// Finds a table that can be backed up.
///
/// # Errors
/// If it does not exist, is no table, or may not be read.
pub(crate) fn table(db: &mut Database, name: &str) -> Result<Relation> {
    let parsed = ObjectName::parse(name).ok_or_else(|| {
        Failure::usage(format!("not a table's name: `{name}`")).hint(Hint::run("db-backup TABLE"))
    })?;
    let Some(relation) = catalog::find(db, &parsed)? else {
        let elsewhere = catalog::schemas_with(&mut db.client, &parsed.name)?;
        return Err(preflight::missing_table(&db.server, &parsed, &elsewhere).into());
    };
    preflight::can_be_backed_up(db, &relation)?;
    Ok(relation)
}

/// What a backup is of where nobody names tables: those that `pending` migrations ask to back up, or else
/// those that any migration does, as far as they exist.
///
/// # Errors
/// If the catalog cannot be asked.
pub(crate) fn default_tables(
    db: &mut Database,
    folder: &Folder,
    pending: &AffectedTables,
) -> Result<Vec<String>> {
    if !pending.backup.is_empty() {
        return Ok(pending.backup.iter().map(ToString::to_string).collect());
    }
    let scripts = folder.migrations.iter().flat_map(Migration::scripts);
    let written = scripts.flat_map(|script| &script.directives.backup);
    let names: Vec<ObjectName> = written.filter_map(|name| ObjectName::parse(name)).collect();
    let tables = catalog::existing(db, &names)?;
    Ok(tables.iter().map(Relation::qualified).collect())
}

/// The tables of these names, each once. A table that a foreign key refers to comes before the one that
/// refers to it, because they are restored in this order.
///
/// # Errors
/// If one is no table, or may not be read.
pub(crate) fn in_order_of_references(db: &mut Database, names: &[String]) -> Result<Vec<Relation>> {
    let mut waiting = Vec::new();
    for table in tables(db, names)? {
        let referenced = catalog::referenced_tables(&mut db.client, table.oid)?;
        waiting.push((table, referenced));
    }
    let mut ordered: Vec<Relation> = Vec::new();
    while !waiting.is_empty() {
        let is_waiting = |oid: &u32| waiting.iter().any(|(table, _)| table.oid == *oid);
        // If they refer to each other in a circle, any may be first.
        let next = waiting
            .iter()
            .position(|(_, referenced)| !referenced.iter().any(is_waiting))
            .unwrap_or(0);
        ordered.push(waiting.remove(next).0);
    }
    Ok(ordered)
}
