//! What a transaction has destroyed: the answer of its session, compared with the tables as every other
//! session still sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context as _;
use postgres::Client;
use postgres::types::Type;

use super::question::{ChangedTable, Changes};
use crate::error::Result;
use crate::migration::script::Script;
use crate::migration::source::Direction;
use crate::ui;

/// Something that existed before the transaction and no longer does.
#[derive(Clone, Debug)]
pub(in crate::runbook) struct Destroyed {
    /// The table's oid; 0 for large objects.
    pub(super) table: u32,
    /// Its qualified name before the transaction.
    pub(super) name: String,
    /// The numbers of the columns that held it.
    pub(super) columns: BTreeSet<i16>,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Table,
    Column(String),
    /// Truncated or rewritten.
    Rewritten,
    Deleted(u64),
    Updated(u64),
    /// Rows were not counted.
    Uncounted,
    LargeObjects(u64),
}

impl fmt::Display for Destroyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let rows = |number: &u64| ui::plural(*number, "row");
        match &self.what {
            What::Table => write!(f, "table `{name}`"),
            What::Column(column) => write!(f, "column `{name}.{column}`"),
            What::Rewritten => write!(f, "the rows of `{name}`, truncated or rewritten"),
            What::Deleted(number) => write!(f, "{} of `{name}`, deleted", rows(number)),
            What::Updated(number) => write!(f, "{} of `{name}`, updated", rows(number)),
            What::Uncounted => write!(
                f,
                "rows of `{name}`: how many were changed is not known, as track_counts is off or was"
            ),
            What::LargeObjects(number) => {
                write!(
                    f,
                    "{}, or parts of them",
                    ui::plural(*number, "large object")
                )
            }
        }
    }
}

/// What a transaction did.
pub(in crate::runbook) struct Verdict {
    pub(in crate::runbook) destroyed: Vec<Destroyed>,
    /// What an up file has updated, for people: that is its purpose, so it is only reported.
    pub(in crate::runbook) updated: Vec<String>,
    /// Tables whose rows no longer match an earlier backup.
    pub(super) written: Vec<u32>,
}

impl Verdict {
    /// What a transaction that has not committed yet has done, by its own answer.
    ///
    /// # Errors
    /// If the other session, which sees the tables as they were, cannot be asked.
    pub(in crate::runbook) fn of(
        client: &mut Client,
        changes: &Changes,
        script: &Script,
        direction: Direction,
    ) -> Result<Verdict> {
        // A script that names the setting may have turned it off for a time.
        let names_it = script.text.to_ascii_lowercase().contains("track_counts");
        let counted = changes.counted && !names_it;
        let oids: Vec<u32> = changes.tables.iter().map(|table| table.oid).collect();
        let before =
            columns(client, &oids).context("cannot look up what a migration has changed")?;
        let mut verdict = Verdict {
            destroyed: Vec::new(),
            updated: Vec::new(),
            written: Vec::new(),
        };
        let mut lost_attributes = Vec::new();
        for now in &changes.tables {
            let Some(before) = before.get(&now.oid) else {
                continue;
            };
            if before.loses_columns(now) {
                lost_attributes.push(now.oid);
            }
            if !before.is_type {
                verdict.compare(before, now, counted, direction);
            }
        }
        verdict
            .destroyed
            .extend(attributes(client, &lost_attributes)?);
        if changes.large_objects > 0 {
            verdict.destroyed.push(Destroyed {
                table: 0,
                name: String::new(),
                columns: BTreeSet::new(),
                what: What::LargeObjects(changes.large_objects as u64),
            });
        }
        Ok(verdict)
    }

    fn compare(
        &mut self,
        before: &TableBefore,
        now: &ChangedTable,
        counted: bool,
        direction: Direction,
    ) {
        let all: BTreeSet<i16> = before.columns.iter().map(|column| column.number).collect();
        let mut destroy = |columns: BTreeSet<i16>, what: What| {
            self.destroyed.push(Destroyed {
                table: now.oid,
                name: before.name.clone(),
                columns,
                what,
            });
        };
        let Some(filenode) = now.filenode else {
            return destroy(all, What::Table);
        };
        let rewritten = filenode != before.filenode;
        for column in &before.columns {
            let one = BTreeSet::from([column.number]);
            if !now.columns.contains(&column.number) {
                destroy(one, What::Column(column.name.clone()));
            }
        }
        // Also where a type was changed: without a rewrite every value is what it was, bit for bit.
        if rewritten {
            destroy(all.clone(), What::Rewritten);
        }
        if !counted {
            destroy(all, What::Uncounted);
        } else {
            if now.deleted > 0 {
                destroy(all.clone(), What::Deleted(now.deleted as u64));
            }
            if now.updated > 0 && direction == Direction::Down {
                destroy(all, What::Updated(now.updated as u64));
            }
        }
        if now.updated > 0 && direction == Direction::Up {
            self.updated.push(format!(
                "{} of `{}`",
                ui::plural(now.updated as u64, "row"),
                before.name
            ));
        }
        // After a mere DELETE, the rows that are left are in the backup as they are.
        if rewritten || !counted || now.inserted > 0 || now.updated > 0 {
            self.written.push(now.oid);
        }
    }
}

/// A table, or a composite type, as it was before the transaction.
pub(super) struct TableBefore {
    name: String,
    is_type: bool,
    filenode: u32,
    pub(super) columns: Vec<ColumnBefore>,
}

pub(super) struct ColumnBefore {
    pub(super) number: i16,
    name: String,
}

impl TableBefore {
    fn loses_columns(&self, now: &ChangedTable) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|column| !now.columns.contains(&column.number))
    }
}

/// The tables with these oids, and their columns, as this session sees them. Views and the like hold
/// nothing; a partitioned table's rows are in its partitions, which are locked with it.
pub(super) fn columns(client: &mut Client, oids: &[u32]) -> Result<BTreeMap<u32, TableBefore>> {
    let rows = client.query_typed(
        "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relfilenode,
                a.attnum, a.attname::text, c.relkind = 'c'
         FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         LEFT JOIN pg_catalog.pg_attribute AS a
              ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         WHERE c.oid = ANY ($1) AND c.relkind IN ('r', 'c') AND c.relpersistence <> 't'
         ORDER BY c.oid, a.attnum",
        &[(&oids, Type::OID_ARRAY)],
    )?;
    let mut tables = BTreeMap::new();
    for row in rows {
        let table = tables.entry(row.get(0)).or_insert_with(|| TableBefore {
            name: row.get(1),
            is_type: row.get(5),
            filenode: row.get(2),
            columns: Vec::new(),
        });
        if let Some(number) = row.get(3) {
            table.columns.push(ColumnBefore {
                number,
                name: row.get(4),
            });
        }
    }
    Ok(tables)
}

/// The columns whose values contain these composite types or rows of these tables, directly or not: if one
/// of those loses an attribute, each value loses a part, although its table is not touched.
fn attributes(client: &mut Client, oids: &[u32]) -> Result<Vec<Destroyed>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client.query_typed(
        "WITH RECURSIVE parts (part, whole) AS (
             SELECT typelem, oid FROM pg_catalog.pg_type WHERE typelem <> 0
             UNION ALL
             SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typbasetype <> 0
             UNION ALL
             SELECT rngsubtype, rngtypid FROM pg_catalog.pg_range
             UNION ALL
             SELECT a.atttypid, c.reltype FROM pg_catalog.pg_attribute AS a
             JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
             WHERE c.relkind IN ('r', 'c', 'p') AND a.attnum > 0 AND NOT a.attisdropped),
         made_of (type) AS (
             SELECT reltype FROM pg_catalog.pg_class WHERE oid = ANY ($1)
             UNION
             SELECT p.whole FROM made_of AS m JOIN parts AS p ON p.part = m.type)
         SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), a.attnum, a.attname::text
         FROM pg_catalog.pg_attribute AS a
         JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE a.atttypid IN (SELECT type FROM made_of) AND a.attnum > 0 AND NOT a.attisdropped
           AND c.relkind = 'r' AND c.relpersistence <> 't'
         ORDER BY c.oid, a.attnum",
        &[(&oids, Type::OID_ARRAY)],
    )?;
    let column = |row: &postgres::Row| Destroyed {
        table: row.get(0),
        name: row.get(1),
        columns: BTreeSet::from([row.get(2)]),
        what: What::Column(row.get(3)),
    };
    Ok(rows.iter().map(column).collect())
}
