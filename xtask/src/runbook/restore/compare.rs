//! What differs between a backup and the live table, and what the table will hold when that is written.

use std::path::PathBuf;

use postgres::{Client, IsolationLevel};
use serde::Serialize;

use super::plan::Plan;
use crate::error::Result;
use crate::migration::quote::quote_identifier;
use crate::ui;

/// What a restore did to a table, or would do, in the command contract's shape. Numbers are of rows.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Merged {
    /// As it was given.
    pub(crate) file: PathBuf,
    /// Qualified name.
    pub(crate) table: String,
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    /// In the table and not in the backup.
    pub(crate) kept_newer: u64,
    pub(crate) unchanged: u64,
    /// Written, removed or added by somebody between the comparison and the lock: left as they are.
    pub(crate) changed_meanwhile: u64,
    /// Columns of the backup that the table does not have, or computes itself.
    pub(crate) skipped_columns: Vec<String>,
    pub(crate) dry_run: bool,
}

/// What a comparison found.
pub(super) struct Comparison {
    pub(super) merged: Merged,
    /// In how many rows a value, other than NULL, would be replaced by another.
    pub(super) replaced: u64,
    /// Where the table's rows were then.
    pub(super) storage: u32,
    /// Columns that cannot be set, and in how many rows they differ.
    pub(super) fixed: Vec<(String, u64)>,
}

impl Plan {
    /// A cast to the type beneath a domain, for two values to be of one type.
    fn beneath(&self, quoted: &str) -> String {
        let of = |(name, _): &&(String, String)| quote_identifier(name) == quoted;
        let found = self.domains.iter().find(of);
        found.map_or(String::new(), |(_, beneath)| format!("::{beneath}"))
    }

    /// Whether a row is still the version that the comparison saw.
    pub(super) fn unchanged(&self) -> &'static str {
        "l.ctid OPERATOR(pg_catalog.=) c.seen_at AND l.xmin OPERATOR(pg_catalog.=) c.seen_by"
    }

    /// Writes down which staged rows are missing from the table or differ from it; returns what a
    /// merge would do, and in how many rows it would replace a value, other than NULL, by another.
    ///
    /// `*<>` compares images of values (PostgreSQL manual, "Composite Type Comparison"): also those of types without
    /// equality, such as json, and `1.0` differs from `1.00`.
    pub(super) fn compare(&self, client: &mut Client, staged: u64) -> Result<Comparison> {
        let (table, staging, changes) = (&self.table, &self.staging, &self.changes);
        let columns = |of: &str| {
            let columns: Vec<String> = self
                .updated_columns
                .iter()
                .map(|name| format!("{of}.{name}{}", self.beneath(name)))
                .collect();
            format!("ROW({})::record", columns.join(", "))
        };
        let differs = format!("{} OPERATOR(pg_catalog.*<>) {}", columns("l"), columns("s"));
        let replaces: Vec<String> = self
            .updated_columns
            .iter()
            .map(|name| {
                format!("pg_catalog.num_nulls(l.{name}) = 0 AND ROW(l.{name}{beneath})::record OPERATOR(pg_catalog.*<>) ROW(s.{name})::record", beneath = self.beneath(name))
            })
            .chain(["false".to_owned()])
            .collect();
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()?;
        // The lock comes first: a snapshot that is older than a TRUNCATE or a rewrite sees no row.
        let storage = self.lock(&mut transaction, "ACCESS SHARE")?;
        transaction.batch_execute(&format!(
            "CREATE TABLE {changes} AS
             SELECT s.ctid AS at, l.ctid IS NULL AS missing, l.ctid AS seen_at, l.xmin AS seen_by,
                    {} AS replaces
             FROM {staging} AS s LEFT JOIN ONLY {table} AS l ON {}
             WHERE l.ctid IS NULL OR {differs};
             ANALYZE {changes}",
            replaces.join(" OR "),
            self.same_key("l", "s"),
        ))?;
        let row = transaction.query_typed_one(
            &format!(
                "SELECT pg_catalog.count(*) FILTER (WHERE missing),
                        pg_catalog.count(*) FILTER (WHERE NOT missing),
                        pg_catalog.count(*) FILTER (WHERE replaces AND NOT missing),
                        (SELECT pg_catalog.count(*) FROM ONLY {table})
                 FROM {changes}"
            ),
            &[],
        )?;
        let mut fixed = Vec::new();
        for name in &self.fixed {
            let column = quote_identifier(name);
            let row = transaction.query_typed_one(
                &format!(
                    "SELECT pg_catalog.count(*) FROM {staging} AS s JOIN ONLY {table} AS l ON {}
                     WHERE l.{column} <> s.{column}",
                    self.same_key("l", "s")
                ),
                &[],
            )?;
            match row.get::<_, i64>(0) as u64 {
                0 => {}
                rows => fixed.push((name.clone(), rows)),
            }
        }
        transaction.commit()?;
        let number = |column| row.get::<_, i64>(column) as u64;
        let (missing, differing, replaced, live) = (number(0), number(1), number(2), number(3));
        let merged = Merged {
            file: self.file.clone(),
            table: table.clone(),
            inserted: if self.inserts { missing } else { 0 },
            updated: differing,
            kept_newer: live.saturating_sub(staged - missing),
            unchanged: staged - missing - differing,
            skipped_columns: self
                .skipped
                .iter()
                .chain(fixed.iter().map(|(column, _)| column))
                .cloned()
                .collect(),
            changed_meanwhile: 0,
            dry_run: false,
        };
        Ok(Comparison {
            merged,
            replaced,
            storage,
            fixed,
        })
    }

    pub(super) fn summary_text(&self, merged: &Merged, replaced: u64) -> String {
        let mut text = format!(
            "{}: {} to return, {} to take the backup's values, {} unchanged, {} newer than the backup",
            self.table,
            ui::plural(merged.inserted, "row"),
            ui::count(merged.updated),
            ui::count(merged.unchanged),
            ui::count(merged.kept_newer),
        );
        if replaced > 0 {
            text.push_str(&format!(
                "; {} lose a value by it",
                ui::plural(replaced, "row")
            ));
        }
        if merged.changed_meanwhile > 0 {
            text.push_str(&format!(
                "; {} changed since the comparison and left as they are",
                ui::plural(merged.changed_meanwhile, "row")
            ));
        }
        text
    }

    /// The rows that are written, as they will be: `xtask_key`, and these columns.
    pub(super) fn written_sql(&self, columns: &[String]) -> String {
        let written: Vec<String> = columns.iter().map(|name| self.written(name)).collect();
        format!(
            "SELECT {row_key} AS xtask_key, {written}
             FROM {changes} AS c JOIN {staging} AS s ON s.ctid = c.at
             LEFT JOIN ONLY {table} AS l ON {same_key}
             WHERE {inserts} OR NOT c.missing",
            row_key = self.key_text("s"),
            written = written.join(", "),
            changes = self.changes,
            staging = self.staging,
            table = self.table,
            same_key = self.same_key("l", "s"),
            inserts = self.inserts,
        )
    }

    /// All rows of the table as they will be, where `written` names those that are written.
    pub(super) fn final_sql(&self, columns: &[String]) -> String {
        let live: Vec<String> = columns.iter().map(|name| format!("l.{name}")).collect();
        format!(
            "SELECT * FROM written
             UNION ALL
             SELECT {key}, {live} FROM ONLY {table} AS l
             WHERE NOT EXISTS (SELECT FROM written WHERE xtask_key = {key})",
            key = self.key_text("l"),
            live = live.join(", "),
            table = self.table,
        )
    }

    /// What a column of a row that is written will hold.
    fn written(&self, name: &String) -> String {
        match self.updated_columns.contains(name) {
            true => format!("s.{name}"),
            false => format!("CASE WHEN c.missing THEN s.{name} ELSE l.{name} END AS {name}"),
        }
    }

    /// A row's key, to show it.
    pub(super) fn key_text(&self, of: &str) -> String {
        let columns: Vec<String> = self.key.iter().map(|name| format!("{of}.{name}")).collect();
        format!("ROW({})::text", columns.join(", "))
    }
}
