//! How one migration is applied or undone through psql: in one transaction with its history row
//! (`transaction`), or statement by statement where it must run outside of one (`statements`). The rules
//! about locks are decided here, per migration.

mod failure;
mod indexes;
mod runner;
mod settle;
mod statements;
mod transaction;

pub(crate) use runner::Runner;

use std::time::Instant;

use super::lock_wait::LockStats;
use super::{backup_tables, losses};
use crate::database::catalog;
use crate::error::Result;
use crate::migration::effects::ObjectName;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};

impl Runner<'_> {
    /// Applies or undoes one migration and writes the history.
    ///
    /// # Errors
    /// With the place in the file where a statement failed; with [`Kind::Busy`] where a lock could
    /// not be acquired within the deadline. A transactional migration has then changed nothing.
    ///
    /// psql may be fed some of those that are `upcoming` already; it gets to them only if this one
    /// succeeds.
    pub(super) fn run(
        &mut self,
        migration: &Migration,
        upcoming: &[&Migration],
        direction: Direction,
    ) -> Result<LockStats> {
        let script = migration.script(direction)?;
        let started = Instant::now();
        self.back_up_first(script, direction)?;
        let mut lock_stats = if script.transactional {
            self.in_transaction(migration, script, upcoming, direction)
        } else {
            self.outside_transaction(migration, script, direction)
        }?;
        lock_stats.duration = started.elapsed();
        Ok(lock_stats)
    }

    /// What a file asks to be backed up, at the moment when it runs; and what it destroys by its own
    /// words, where nobody can be asked before it takes effect.
    fn back_up_first(&mut self, script: &Script, direction: Direction) -> Result {
        if self.guard.no_backup() {
            return Ok(());
        }
        let mut tables = Vec::new();
        let db = &mut *self.psql.db;
        for written in &script.directives.backup {
            let Some(name) = ObjectName::parse(written) else {
                continue;
            };
            match catalog::find(db, &name)? {
                Some(table) => tables.push(table),
                None if script.may_have_dropped(&name) => {}
                None => return Err(backup_tables::names_no_table(db, script, &name)?.into()),
            }
        }
        if !script.transactional && !script.destroys_nothing() {
            let lost = losses::forecast(db, [script], direction)?.tables;
            let oids: Vec<u32> = lost.iter().map(|table| table.oid).collect();
            tables.extend(lost);
            tables.extend(catalog::changed_with(db, &oids)?);
        }
        for table in tables {
            if !self.guard.has_backup_of(&table) {
                backup_tables::can_be_backed_up(self.psql.db, &table)?;
                let ctx = self.ctx;
                self.back_up(&table)?.announce(&ctx.ui);
            }
        }
        Ok(())
    }
}
