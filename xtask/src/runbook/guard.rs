//! The commit guard: what a migration destroys is in a proven backup of this run, or it is not committed.
//!
//! Before a transaction commits, its own session is asked what it has done to tables that were there
//! before, and only the catalog and the server's counters answer: renames, cascades, DO blocks and
//! typing errors in a file fool neither. Of interest are the tables that the transaction has locked
//! to change them. How they were before it is what every other session still sees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context as _;
use postgres::types::Type;
use serde::Deserialize;

use super::backup::{self, Taken};
use crate::Context;
use crate::database::Database;
use crate::database::catalog::{self, Relation};
use crate::database::history;
use crate::error::{Failure, Result};
use crate::migration::quote::quote_identifier;
use crate::migration::script::Script;
use crate::migration::source::Direction;
use crate::options::BackupOptions;
use crate::ui;

/// Asks the transaction's own session; the answer, as JSON, is in the psql variable `changes`.
///
/// The counters may still hold what earlier transactions of this session did, until it reports them
/// (PostgreSQL manual, "Viewing Statistics"): those are in the variable `counted`, see [`BASELINE`].
/// They count what a foreign key's cascade deletes, and what a rolled-back savepoint did, which errs
/// on the safe side. Deferred constraints may change rows too, and have their say first. 2995 is
/// `pg_largeobject_metadata`, 2613 `pg_largeobject`; tables of users have oids from 16384 on.
pub(super) const QUESTION: &str = "SET CONSTRAINTS ALL IMMEDIATE \\; SET LOCAL search_path = pg_catalog, pg_temp;
SELECT jsonb_build_object(
    'counted', current_setting('track_counts')::bool,
    'large_objects', pg_stat_get_xact_tuples_deleted(2995) + pg_stat_get_xact_tuples_updated(2613)
        - coalesce((:'counted'::jsonb -> '2995' ->> 2)::int8, 0)
        - coalesce((:'counted'::jsonb -> '2613' ->> 1)::int8, 0),
    'tables', coalesce(jsonb_agg(jsonb_build_object(
        'oid', l.oid::int8, 'filenode', c.relfilenode::int8,
        'inserted', pg_stat_get_xact_tuples_inserted(l.oid) - coalesce((earlier.counts ->> 0)::int8, 0),
        'updated', pg_stat_get_xact_tuples_updated(l.oid) - coalesce((earlier.counts ->> 1)::int8, 0),
        'deleted', pg_stat_get_xact_tuples_deleted(l.oid) - coalesce((earlier.counts ->> 2)::int8, 0),
        'columns', (SELECT coalesce(jsonb_agg(a.attnum), '[]') FROM pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))), '[]')) AS changes
FROM (SELECT DISTINCT relation AS oid FROM pg_locks
      WHERE pid = pg_backend_pid() AND granted AND locktype = 'relation' AND relation >= 16384
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode NOT IN ('AccessShareLock', 'RowShareLock')) AS l
LEFT JOIN pg_class AS c ON c.oid = l.oid
LEFT JOIN LATERAL (SELECT :'counted'::jsonb -> l.oid::text AS counts) AS earlier ON true \\gset
";

/// What the counters hold before the transaction has done anything.
pub(super) const BASELINE: &str = "SELECT coalesce(pg_catalog.jsonb_object_agg(relid::pg_catalog.int8, pg_catalog.jsonb_build_array(n_tup_ins, n_tup_upd, n_tup_del)), '{}') AS counted FROM pg_catalog.pg_stat_xact_all_tables WHERE n_tup_ins OPERATOR(pg_catalog.>) 0 OR n_tup_upd OPERATOR(pg_catalog.>) 0 OR n_tup_del OPERATOR(pg_catalog.>) 0 \\gset\n";

/// [`BASELINE`] of a session that has counted nothing yet.
pub(super) const NO_BASELINE: &str = "\\set counted '{}'\n";

/// The answer to [`QUESTION`].
#[derive(Debug, Deserialize)]
pub(super) struct Changes {
    /// Whether rows were counted at all: `track_counts` takes a superuser to turn on.
    counted: bool,
    large_objects: i64,
    tables: Vec<ChangedTable>,
}

/// A table that the transaction has locked in order to change it.
#[derive(Debug, Deserialize)]
struct ChangedTable {
    oid: u32,
    /// None where the table is gone.
    filenode: Option<u32>,
    inserted: i64,
    updated: i64,
    deleted: i64,
    /// Their numbers.
    columns: BTreeSet<i16>,
}

/// A table, or a composite type, as it was before the transaction.
struct TableBefore {
    name: String,
    is_type: bool,
    filenode: u32,
    columns: Vec<ColumnBefore>,
}

struct ColumnBefore {
    number: i16,
    name: String,
}

impl TableBefore {
    fn loses_columns(&self, now: &ChangedTable) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|column| !now.columns.contains(&column.number))
    }
}

/// Something that was there before the transaction and is not now.
#[derive(Clone, Debug)]
pub(super) struct Destroyed {
    /// The table's oid; 0 for large objects.
    table: u32,
    /// Its qualified name before the transaction.
    name: String,
    /// The numbers of the columns that held it.
    columns: BTreeSet<i16>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Table,
    Column(String),
    /// Truncated or rewritten.
    File,
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
            What::File => write!(f, "the rows of `{name}`, truncated or rewritten"),
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
pub(super) struct Verdict {
    pub(super) destroyed: Vec<Destroyed>,
    /// What an up file has updated, for people: it is meant to, and is told.
    pub(super) updated: Vec<String>,
    /// Those whose rows are no longer the ones that an earlier backup holds.
    written: Vec<u32>,
}

/// What a run keeps of what it destroys.
pub(crate) struct Guard {
    flags: BackupOptions,
    /// Columns, by their numbers, of the tables that this run has backed up as they are now.
    kept: BTreeMap<u32, BTreeSet<i16>>,
    /// What was looked at and held nothing: a table's rows, or the values of a column.
    empty: BTreeSet<(u32, Option<i16>)>,
    /// What a person has agreed to lose by the migration at hand, in the words that were shown.
    given_up: BTreeSet<String>,
    /// The backups that were taken, in their order.
    pub(crate) backups: Vec<Taken>,
    /// Whether event triggers may do anything at any DDL, so that no statement is harmless.
    event_triggers: bool,
    /// Whether triggers, rules or policies may change what is written into the history.
    history_is_changed: bool,
}

impl Guard {
    pub(crate) fn new(flags: BackupOptions) -> Guard {
        Guard {
            flags,
            kept: BTreeMap::new(),
            empty: BTreeSet::new(),
            given_up: BTreeSet::new(),
            backups: Vec::new(),
            event_triggers: false,
            history_is_changed: true,
        }
    }

    /// Learns of code that runs beside harmless statements: event triggers, and what is on the history.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(crate) fn look(&mut self, db: &mut Database) -> Result {
        let table = history::table(db);
        let row = db.client.query_typed_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'),
                    (SELECT relhastriggers OR relhasrules OR relrowsecurity FROM pg_catalog.pg_class
                     WHERE oid = pg_catalog.to_regclass($1::text))",
            &[(&table, Type::TEXT)],
        )?;
        self.event_triggers = row.get(0);
        self.history_is_changed = row.get::<_, Option<bool>>(1).unwrap_or(true);
        Ok(())
    }

    /// Whether it has to be counted what a script's row in the history comes to: not where nothing can
    /// be in its way.
    pub(super) fn must_count(&self, script: &Script) -> bool {
        self.history_is_changed || self.must_ask(script)
    }

    /// Whether a script's transaction has to be asked: not where every statement is known to destroy
    /// nothing.
    pub(super) fn must_ask(&self, script: &Script) -> bool {
        self.event_triggers || !script.destroys_nothing()
    }

    /// Whether a table is in a backup of this run as it is now.
    pub(super) fn has_kept(&self, table: &Relation) -> bool {
        self.kept.contains_key(&table.oid)
    }

    /// Somebody was waited for, who may have filled what held nothing.
    pub(super) fn waited(&mut self) {
        self.empty.clear();
    }

    /// Backs up a table and proves the backup.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) fn back_up(
        &mut self,
        ctx: &Context,
        db: &mut Database,
        table: &Relation,
    ) -> Result<&Taken> {
        // Numbers of columns are for good; a column that is added meanwhile is not in the backup.
        let columns = columns(db, &[table.oid])?.remove(&table.oid);
        let backup = backup::take(ctx, db, table, self.flags.proof)?;
        let numbers = columns.into_iter().flat_map(|table| table.columns);
        self.kept
            .insert(table.oid, numbers.map(|column| column.number).collect());
        self.backups.push(backup);
        Ok(&self.backups[self.backups.len() - 1])
    }

    /// What a transaction that has not committed yet has destroyed, by its own answer.
    ///
    /// # Errors
    /// If the other session, which sees the tables as they were, cannot be asked.
    pub(super) fn judge(
        &self,
        db: &mut Database,
        changes: &Changes,
        script: &Script,
        direction: Direction,
    ) -> Result<Verdict> {
        // One that names the setting may have turned it off for a while.
        let names_it = script.text.to_ascii_lowercase().contains("track_counts");
        let counted = changes.counted && !names_it;
        let oids: Vec<u32> = changes.tables.iter().map(|table| table.oid).collect();
        let before = columns(db, &oids).context("cannot look up what a migration has changed")?;
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
        verdict.destroyed.extend(attributes(db, &lost_attributes)?);
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

    /// What of it is in no backup of this run, and was not found to hold nothing.
    pub(super) fn unkept<'d>(&self, destroyed: &'d [Destroyed]) -> Vec<&'d Destroyed> {
        destroyed
            .iter()
            .filter(|destroyed| !self.covers(destroyed))
            .collect()
    }

    fn covers(&self, destroyed: &Destroyed) -> bool {
        let Destroyed {
            table,
            columns,
            what,
            ..
        } = destroyed;
        if self.given_up.contains(&destroyed.to_string()) {
            return true;
        }
        let kept = self.kept.get(table);
        let rows_changed = matches!(what, What::Deleted(_) | What::Updated(_) | What::Uncounted);
        let empty = |column: &i16| {
            !rows_changed
                && (self.empty.contains(&(*table, None))
                    || self.empty.contains(&(*table, Some(*column))))
        };
        match what {
            What::LargeObjects(_) => false,
            // A table without a column has rows all the same.
            _ if columns.is_empty() => kept.is_some() || self.empty.contains(&(*table, None)),
            _ => columns
                .iter()
                .all(|column| kept.is_some_and(|kept| kept.contains(column)) || empty(column)),
        }
    }

    /// A person has agreed to lose it.
    pub(super) fn give_up(&mut self, unkept: &[&Destroyed]) {
        let shown = unkept.iter().map(ToString::to_string);
        self.given_up.extend(shown);
    }

    pub(super) fn no_backup(&self) -> bool {
        self.flags.no_backup
    }

    /// After the transaction was rolled back: what of it holds anything. The rest is noted, and need not be
    /// kept.
    ///
    /// # Errors
    /// If a table cannot be looked at.
    pub(super) fn holding<'d>(
        &mut self,
        db: &mut Database,
        unkept: Vec<&'d Destroyed>,
    ) -> Result<Vec<&'d Destroyed>> {
        let mut holding = Vec::new();
        for destroyed in unkept {
            if !self.holds_nothing(db, destroyed)? {
                holding.push(destroyed);
            }
        }
        Ok(holding)
    }

    /// Backs up the tables that hold what a transaction destroys.
    ///
    /// # Errors
    /// If one cannot be backed up: then its values cannot be kept.
    pub(super) fn keep(
        &mut self,
        ctx: &Context,
        db: &mut Database,
        unkept: &[&Destroyed],
    ) -> Result<Vec<Taken>> {
        let first = self.backups.len();
        let mut names = Vec::new();
        for destroyed in unkept {
            if matches!(destroyed.what, What::LargeObjects(_)) {
                return Err(
                    Failure::failed("large objects cannot be backed up by this tool")
                        .cause(destroyed.to_string())
                        .into(),
                );
            }
            if !names.contains(&destroyed.name) {
                names.push(destroyed.name.clone());
            }
        }
        for table in in_order_of_references(db, &names)? {
            self.back_up(ctx, db, &table)?;
        }
        Ok(self.backups[first..].to_vec())
    }

    /// Whether there is nothing to keep; notes it if so.
    fn holds_nothing(&mut self, db: &mut Database, destroyed: &Destroyed) -> Result<bool> {
        let (column, number) = match &destroyed.what {
            What::Table | What::File => (None, None),
            What::Column(name) => (Some(name.as_str()), destroyed.columns.first().copied()),
            _ => return Ok(false),
        };
        let nothing = !holds_any(db, &destroyed.name, column)?;
        if nothing {
            self.empty.insert((destroyed.table, number));
        }
        Ok(nothing)
    }

    /// The transaction was committed: what it has written is no longer what a backup holds, and it may
    /// have put something on the history.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(super) fn committed(&mut self, db: &mut Database, verdict: &Verdict) -> Result {
        self.given_up.clear();
        for table in &verdict.written {
            self.forget(|of| of == *table);
        }
        // What is on the history, or an event trigger, may be new.
        self.look(db)
    }

    /// A script ran outside a transaction, where nobody can be asked what it has done.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(super) fn ran_unasked(&mut self, db: &mut Database) -> Result {
        self.forget(|_| true);
        self.look(db)
    }

    fn forget(&mut self, of: impl Fn(u32) -> bool) {
        self.kept.retain(|table, _| !of(*table));
        self.empty.retain(|(table, _)| !of(*table));
    }
}

impl Verdict {
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
            destroy(all.clone(), What::File);
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
        // What is left where rows were deleted is in the backup as it was.
        if rewritten || !counted || now.inserted > 0 || now.updated > 0 {
            self.written.push(now.oid);
        }
    }
}

/// Whether a table has a row, or a row with a value in this column.
///
/// # Errors
/// If it cannot be read.
pub(super) fn holds_any(db: &mut Database, table: &str, column: Option<&str>) -> Result<bool> {
    let with = column.map_or(String::new(), |column| {
        // Not `IS NOT NULL`, which is false for a composite value with a NULL in it.
        let column = quote_identifier(column);
        format!(" WHERE pg_catalog.num_nulls({column}) OPERATOR(pg_catalog.=) 0")
    });
    let mut look = || -> Result<bool> {
        let mut transaction = db.client.build_transaction().read_only(true).start()?;
        // An error where a policy hides rows: not none.
        transaction.batch_execute("SET LOCAL row_security = off")?;
        let exists = format!("SELECT EXISTS (SELECT FROM ONLY {table}{with})");
        Ok(transaction.query_typed_one(&exists, &[])?.get(0))
    };
    look().with_context(|| format!("cannot look whether `{table}` holds anything"))
}

/// The tables of these names, each once; what a foreign key refers to comes first, as it must when they
/// are restored.
///
/// # Errors
/// If one is no table, or may not be read.
pub(crate) fn in_order_of_references(db: &mut Database, names: &[String]) -> Result<Vec<Relation>> {
    let mut waiting = Vec::new();
    for table in backup::tables(db, names)? {
        let referenced = catalog::referenced_tables(db, table.oid)?;
        waiting.push((table, referenced));
    }
    let mut tables: Vec<Relation> = Vec::new();
    while !waiting.is_empty() {
        let is_waiting = |oid: &u32| waiting.iter().any(|(table, _)| table.oid == *oid);
        // In a circle any may be the first.
        let next = waiting
            .iter()
            .position(|(_, referenced)| !referenced.iter().any(is_waiting))
            .unwrap_or(0);
        tables.push(waiting.remove(next).0);
    }
    Ok(tables)
}

/// The tables with these oids, and their columns, as this session sees them. Views and the like hold
/// nothing; a partitioned table's rows are in its partitions, which are locked with it.
fn columns(db: &mut Database, oids: &[u32]) -> Result<BTreeMap<u32, TableBefore>> {
    let rows = db.client.query_typed(
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

/// The columns whose values are made of these composite types or of rows of these tables, near or far:
/// when one of those loses an attribute, they lose a part of each value, though nobody touches their table.
fn attributes(db: &mut Database, oids: &[u32]) -> Result<Vec<Destroyed>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db.client.query_typed(
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
