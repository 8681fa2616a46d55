//! The commit guard: what a migration destroys is in a proven backup of this run, or it is not committed.
//!
//! Before a transaction commits, its own session is asked what it has done to tables that were there
//! before, and only the catalog and the server's counters answer: renames, cascades, DO blocks and
//! typing errors in a file fool neither. The question is about the tables that the transaction has locked
//! in order to change them. Every other session still sees them as they were before.

mod question;
mod verdict;

pub(super) use question::{BASELINE, Changes, NO_BASELINE, QUESTION};
pub(super) use verdict::{Destroyed, Verdict};

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::Client;
use postgres::types::Type;
use verdict::{What, columns};

use super::backup::{self, CompletedBackup};
use super::backup_tables;
use crate::Context;
use crate::database::Database;
use crate::database::catalog::Relation;
use crate::error::{Failure, Result};
use crate::migration::quote::quote_identifier;
use crate::migration::script::Script;
use crate::options::BackupOptions;

/// What this run has backed up of what it destroys.
pub(crate) struct Guard<'a> {
    flags: BackupOptions,
    /// When the run began, by the server's clock.
    started_at: Timestamp,
    history_table: &'a str,
    /// Columns, by their numbers, of the tables that this run has backed up as they are now.
    backed_up: BTreeMap<u32, BTreeSet<i16>>,
    /// Tables without rows, and columns without values, by a look at them.
    empty: BTreeSet<(u32, Option<i16>)>,
    /// What a person has agreed to lose in the current migration, as it was shown to them.
    accepted_losses: BTreeSet<String>,
    /// The backups that were taken, in their order.
    pub(crate) backups: Vec<CompletedBackup>,
    /// Whether there are event triggers: then any DDL may change anything.
    event_triggers: bool,
    /// Whether triggers, rules or policies may change what is written into the history.
    history_may_be_changed: bool,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(
        flags: BackupOptions,
        started_at: Timestamp,
        history_table: &'a str,
    ) -> Guard<'a> {
        Guard {
            flags,
            started_at,
            history_table,
            backed_up: BTreeMap::new(),
            empty: BTreeSet::new(),
            accepted_losses: BTreeSet::new(),
            backups: Vec::new(),
            event_triggers: false,
            history_may_be_changed: true,
        }
    }

    /// Looks for code that runs beside harmless statements: event triggers, and triggers, rules or policies on
    /// the history table.
    pub(crate) fn inspect(&mut self, client: &mut Client) -> Result {
        let row = client.query_typed_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'),
                    (SELECT relhastriggers OR relhasrules OR relrowsecurity FROM pg_catalog.pg_class
                     WHERE oid = pg_catalog.to_regclass($1::text))",
            &[(&self.history_table, Type::TEXT)],
        )?;
        self.event_triggers = row.get(0);
        self.history_may_be_changed = row.get::<_, Option<bool>>(1).unwrap_or(true);
        Ok(())
    }

    /// Whether to count the rows that are written into the history: not needed if nothing can interfere.
    pub(super) fn must_count(&self, script: &Script) -> bool {
        self.history_may_be_changed || self.must_ask(script)
    }

    /// Whether a script's transaction has to be asked: not needed if every statement is known to destroy
    /// nothing.
    pub(super) fn must_ask(&self, script: &Script) -> bool {
        self.event_triggers || !script.destroys_nothing()
    }

    /// Whether a table is in a backup of this run as it is now.
    pub(super) fn has_backup_of(&self, table: &Relation) -> bool {
        self.backed_up.contains_key(&table.oid)
    }

    /// After a wait for another session, which may have filled an empty table or column.
    pub(super) fn forget_empty(&mut self) {
        self.empty.clear();
    }

    /// Backs up a table and proves the backup.
    pub(crate) fn back_up(
        &mut self,
        ctx: &Context,
        db: &mut Database,
        table: &Relation,
    ) -> Result<&CompletedBackup> {
        // A column keeps its number; one that is added meanwhile is not in the backup.
        let columns = columns(&mut db.client, &[table.oid])?.remove(&table.oid);
        let backup = backup::take(ctx, db, table, self.flags.proof, self.started_at)?;
        let numbers = columns.into_iter().flat_map(|table| table.columns);
        self.backed_up
            .insert(table.oid, numbers.map(|column| column.number).collect());
        self.backups.push(backup);
        Ok(&self.backups[self.backups.len() - 1])
    }

    /// Those that are in no backup of this run and may hold values.
    pub(super) fn not_backed_up<'d>(&self, destroyed: &'d [Destroyed]) -> Vec<&'d Destroyed> {
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
        if self.accepted_losses.contains(&destroyed.to_string()) {
            return true;
        }
        let backed_up = self.backed_up.get(table);
        let rows_changed = matches!(what, What::Deleted(_) | What::Updated(_) | What::Uncounted);
        let empty = |column: &i16| {
            !rows_changed
                && (self.empty.contains(&(*table, None))
                    || self.empty.contains(&(*table, Some(*column))))
        };
        match what {
            What::LargeObjects(_) => false,
            // A table without columns can have rows.
            _ if columns.is_empty() => backed_up.is_some() || self.empty.contains(&(*table, None)),
            _ => columns.iter().all(|column| {
                backed_up.is_some_and(|numbers| numbers.contains(column)) || empty(column)
            }),
        }
    }

    /// Notes that a person has agreed to lose these.
    pub(super) fn accept_loss(&mut self, not_backed_up: &[&Destroyed]) {
        let shown = not_backed_up.iter().map(ToString::to_string);
        self.accepted_losses.extend(shown);
    }

    pub(super) fn no_backup(&self) -> bool {
        self.flags.no_backup
    }

    /// After the transaction was rolled back: those that hold values. The others are noted as empty.
    pub(super) fn not_empty<'d>(
        &mut self,
        client: &mut Client,
        not_backed_up: Vec<&'d Destroyed>,
    ) -> Result<Vec<&'d Destroyed>> {
        let mut not_empty = Vec::new();
        for destroyed in not_backed_up {
            if !self.is_empty(client, destroyed)? {
                not_empty.push(destroyed);
            }
        }
        Ok(not_empty)
    }

    /// Backs up the tables that hold what a transaction destroys.
    ///
    /// # Errors
    /// If one cannot be backed up.
    pub(super) fn back_up_all(
        &mut self,
        ctx: &Context,
        db: &mut Database,
        not_backed_up: &[&Destroyed],
    ) -> Result<Vec<CompletedBackup>> {
        let first = self.backups.len();
        let mut names = Vec::new();
        for destroyed in not_backed_up {
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
        for table in backup_tables::in_order_of_references(db, &names)? {
            self.back_up(ctx, db, &table)?;
        }
        Ok(self.backups[first..].to_vec())
    }

    /// Whether it is empty, which is noted.
    fn is_empty(&mut self, client: &mut Client, destroyed: &Destroyed) -> Result<bool> {
        let (column, number) = match &destroyed.what {
            What::Table | What::Rewritten => (None, None),
            What::Column(name) => (Some(name.as_str()), destroyed.columns.first().copied()),
            _ => return Ok(false),
        };
        let nothing = !holds_any(client, &destroyed.name, column)?;
        if nothing {
            self.empty.insert((destroyed.table, number));
        }
        Ok(nothing)
    }

    /// After a commit: tables that it has written to no longer match their backups, and there may be new
    /// triggers.
    pub(super) fn after_commit(&mut self, client: &mut Client, verdict: &Verdict) -> Result {
        self.accepted_losses.clear();
        for table in &verdict.written {
            self.forget(|of| of == *table);
        }
        self.inspect(client)
    }

    /// After a script outside a transaction, which cannot be asked what it has done.
    pub(super) fn after_script_outside_transaction(&mut self, client: &mut Client) -> Result {
        self.forget(|_| true);
        self.inspect(client)
    }

    fn forget(&mut self, of: impl Fn(u32) -> bool) {
        self.backed_up.retain(|table, _| !of(*table));
        self.empty.retain(|(table, _)| !of(*table));
    }
}

/// Whether a table has a row, or a row with a value in this column.
pub(super) fn holds_any(client: &mut Client, table: &str, column: Option<&str>) -> Result<bool> {
    let with = column.map_or(String::new(), |column| {
        // Not `IS NOT NULL`, which is false for a composite value with a NULL in it.
        let column = quote_identifier(column);
        format!(" WHERE pg_catalog.num_nulls({column}) OPERATOR(pg_catalog.=) 0")
    });
    let mut look = || -> Result<bool> {
        let mut transaction = client.build_transaction().read_only(true).start()?;
        // If a policy hides rows, this makes an error of it.
        transaction.batch_execute("SET LOCAL row_security = off")?;
        let exists = format!("SELECT EXISTS (SELECT FROM ONLY {table}{with})");
        Ok(transaction.query_typed_one(&exists, &[])?.get(0))
    };
    look().with_context(|| format!("cannot check whether `{table}` holds any rows"))
}
