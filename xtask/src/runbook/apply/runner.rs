//! What runs the migrations of a run: psql, what is backed up, and how the history is written.

use std::collections::VecDeque;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::Context;
use crate::database::Database;
use crate::database::catalog::Relation;
use crate::database::history::{self, History};
use crate::database::lock::Lock;
use crate::error::Result;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::options::{BackupOptions, Locks};
use crate::runbook::backup::CompletedBackup;
use crate::runbook::guard::Guard;
use crate::runbook::watched_psql::WatchedPsql;
use crate::tools::psql::Starting;

/// Runs migrations through one psql session, which is opened when it is first needed.
pub(crate) struct Runner<'a> {
    pub(super) ctx: &'a Context,
    /// With the native connection.
    pub(in crate::runbook) psql: WatchedPsql<'a>,
    /// What is kept of what the run destroys.
    pub(in crate::runbook) guard: Guard<'a>,
    /// As it was before the run.
    pub(super) history: &'a History,
    /// When this run started, by the server's clock: every migration of a run has the same.
    pub(super) installed_on: Timestamp,
    /// Versions of the migrations that psql has been fed and not come to.
    pub(super) ahead: VecDeque<i64>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(
        ctx: &'a Context,
        db: &'a mut Database,
        locks: Locks,
        backup: BackupOptions,
        lock: &'a Lock,
        history: &'a History,
    ) -> Runner<'a> {
        Runner {
            ctx,
            installed_on: history.next_installed_on(lock.acquired_at),
            psql: WatchedPsql::new(ctx, db, lock, locks),
            guard: Guard::new(backup, lock.acquired_at, &history.table.name),
            history,
            ahead: VecDeque::new(),
        }
    }

    /// With a psql that was started ahead.
    pub(in crate::runbook) fn with_psql(mut self, starting: Starting) -> Runner<'a> {
        self.psql = self.psql.with(starting);
        self
    }

    /// Ends the psql session in order; returns what was kept.
    pub(crate) fn finish(&mut self) -> Vec<CompletedBackup> {
        self.psql.end();
        std::mem::take(&mut self.guard.backups)
    }

    /// Backs up a table on the native connection.
    ///
    /// # Errors
    /// If it cannot be backed up, or the backup cannot be proven.
    pub(in crate::runbook) fn back_up(&mut self, table: &Relation) -> Result<&CompletedBackup> {
        self.guard.back_up(self.ctx, self.psql.db, table)
    }

    /// Makes the history table if it is not there.
    ///
    /// # Errors
    /// If psql or the server says no.
    pub(crate) fn ensure_history(&mut self) -> Result {
        let table = &self.history.table;
        if table.exists {
            return Ok(());
        }
        let psql = &mut self.psql;
        let create = format!("{}{}", psql.patient(), history::create_sql(&table.name));
        psql.execute(create)?
            .map_err(|error| error.message.failure())
            .with_context(|| format!("cannot create the history table `{}`", table.name))?;
        Ok(())
    }

    /// Records migrations as applied without running them, in one transaction.
    ///
    /// # Errors
    /// If psql or the server says no; nothing is recorded then.
    pub(crate) fn mark_applied(&mut self, migrations: &[&Migration]) -> Result {
        let table = &self.history.table.name;
        let rows: String = migrations
            .iter()
            .map(|migration| {
                let insert =
                    history::insert_sql(table, migration, self.installed_on, history::UNRUN);
                format!("{} \\; ", history::exactly_one(&insert))
            })
            .collect();
        let record = format!("{}BEGIN \\; {rows}COMMIT;\n", self.psql.patient());
        self.psql
            .execute(record)?
            .map_err(|error| error.message.failure())
            .context("cannot write the history")?;
        Ok(())
    }

    /// The statement that writes the history row, or on the way down removes it: exactly one.
    pub(super) fn row(
        &self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
        execution_time: &str,
    ) -> String {
        let table = &self.history.table.name;
        match direction {
            Direction::Up => {
                let insert =
                    history::insert_sql(table, migration, self.installed_on, execution_time);
                match self.guard.must_count(script) {
                    true => history::exactly_one(&insert),
                    false => insert,
                }
            }
            Direction::Down => history::exactly_one(&history::delete_sql(table, migration.version)),
        }
    }
}
