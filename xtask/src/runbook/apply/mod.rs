//! How one migration is applied or undone through psql: in one transaction with its history row
//! (`transaction`), or statement by statement where it must run outside of one (`statements`). The rules
//! about locks are decided here, per migration.

mod failure;
mod session;
mod statements;
mod transaction;

pub(crate) use session::start_psql;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;

use super::backup::{self, CompletedBackup};
use super::guard::Guard;
use super::{losses, preflight};
use crate::Context;
use crate::database::Database;
use crate::database::activity::Stalled;
use crate::database::catalog::{self, Relation};
use crate::database::history::{self, History};
use crate::database::lock::Lock;
use crate::error::Result;
use crate::failures;
use crate::migration::effects::ObjectName;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::options::{BackupOptions, Locks};
use crate::tools::psql::{Chunk, PsqlSession};
use crate::ui::Ui;

/// What it took to run one migration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LockStats {
    pub(crate) duration: Duration,
    /// Tries, counting the one that succeeded.
    pub(crate) lock_attempts: u32,
    /// Time from the first try that did not get its lock to the one that did.
    pub(crate) lock_wait: Duration,
}

/// Runs migrations through one psql session, which is opened when it is first needed.
pub(crate) struct Runner<'a> {
    ctx: &'a Context,
    pub(crate) db: &'a mut Database,
    pub(crate) ui: &'a Ui,
    pub(crate) locks: Locks,
    /// What is kept of what the run destroys.
    pub(crate) guard: Guard<'a>,
    pub(crate) lock: &'a Lock,
    /// As it was before the run.
    history: &'a History,
    /// When this run started, by the server's clock: every migration of a run has the same.
    pub(crate) installed_on: Timestamp,
    session: Option<PsqlSession>,
    /// Whether the session has run a migration that may have left something behind in it.
    used: bool,
    /// Whether the session has the prepared statement that records a migration.
    prepared: bool,
    /// Versions of the migrations that psql has been fed and not come to.
    ahead: VecDeque<i64>,
    /// Whether a proxy keeps startup options to itself, so that only statements set them.
    options_lost: bool,
    /// Whether the session has run a transaction whose rows were counted.
    counted: bool,
    /// Who waited too long for the last statement, which was cancelled for it.
    stalled: Option<Stalled>,
    /// Whether a statement runs that works concurrently.
    concurrent: bool,
    /// After an interrupt: what runs now repairs, and is not to be cancelled.
    cleaning: bool,
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
            db,
            ui: &ctx.ui,
            locks,
            guard: Guard::new(backup, lock.acquired_at, &history.table.name),
            lock,
            history,
            installed_on: history.next_installed_on(lock.acquired_at),
            session: None,
            used: false,
            prepared: false,
            ahead: VecDeque::new(),
            options_lost: false,
            counted: false,
            stalled: None,
            concurrent: false,
            cleaning: false,
        }
    }

    /// With a psql that was started ahead: it connects while native queries look around.
    pub(crate) fn with_psql(mut self, session: PsqlSession) -> Runner<'a> {
        self.session = Some(session);
        self
    }

    /// Makes sure of the psql session. From here on whoever takes the migration lock, should we lose
    /// it, sees by this session's name that a run is at work.
    ///
    /// # Errors
    /// If psql cannot be started or is not let in; if both our connections are one session, or the
    /// migration lock is no longer ours.
    pub(crate) fn open(&mut self) -> Result {
        self.connect()?.map_err(|error| {
            anyhow::Error::from(failures::explain(error.message.failure()))
                .context("cannot open a session with psql")
        })
    }

    /// Ends the psql session in order; returns what was kept.
    pub(crate) fn finish(&mut self) -> Vec<CompletedBackup> {
        if let Some(session) = self.session.take() {
            session.close();
        }
        std::mem::take(&mut self.guard.backups)
    }

    /// Backs up a table on the native connection.
    ///
    /// # Errors
    /// If it cannot be backed up, or the backup cannot be proven.
    pub(crate) fn back_up(&mut self, table: &Relation) -> Result<&CompletedBackup> {
        self.guard.back_up(self.ctx, self.db, table)
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
        let chunk = Chunk {
            before: format!("{}{}", self.patient(), history::create_sql(&table.name)),
            ..Chunk::default()
        };
        self.feed(&chunk, &mut |_, _, _| {})?
            .map_err(|error| error.message.failure())
            .with_context(|| format!("cannot create the history table `{}`", table.name))?;
        Ok(())
    }

    /// Records migrations as applied without running them, in one transaction.
    ///
    /// # Errors
    /// If psql or the server says no; nothing is recorded then.
    pub(crate) fn mark_applied(&mut self, migrations: &[&Migration]) -> Result {
        let rows: String = migrations
            .iter()
            .map(|migration| {
                format!(
                    "{} \\; ",
                    self.row(migration, Direction::Up, history::UNRUN)
                )
            })
            .collect();
        let chunk = Chunk {
            before: format!("{}BEGIN \\; {rows}COMMIT;\n", self.patient()),
            ..Chunk::default()
        };
        self.feed(&chunk, &mut |_, _, _| {})?
            .map_err(|error| error.message.failure())
            .context("cannot write the history")?;
        Ok(())
    }

    /// Applies or undoes one migration and writes the history.
    ///
    /// # Errors
    /// With the place in the file where a statement failed; with [`Kind::Busy`] where a lock could
    /// not be acquired within the deadline. A transactional migration has then changed nothing.
    ///
    /// psql may be fed some of those that are `upcoming` already; it gets to them only if this one
    /// succeeds.
    pub(crate) fn run(
        &mut self,
        migration: &Migration,
        upcoming: &[&Migration],
        direction: Direction,
    ) -> Result<LockStats> {
        let script = migration.script(direction)?;
        let started = Instant::now();
        self.prepare(script, direction)?;
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
    fn prepare(&mut self, script: &Script, direction: Direction) -> Result {
        if self.guard.no_backup() {
            return Ok(());
        }
        let mut tables = Vec::new();
        for written in &script.directives.backup {
            let Some(name) = ObjectName::parse(written) else {
                continue;
            };
            match catalog::find(self.db, &name)? {
                Some(table) => tables.push(table),
                None if script.may_have_dropped(&name) => {}
                None => return Err(preflight::names_no_table(self.db, script, &name)?.into()),
            }
        }
        if !script.transactional && !script.destroys_nothing() {
            let lost = losses::forecast(self.db, [script], direction)?.tables;
            let oids: Vec<u32> = lost.iter().map(|table| table.oid).collect();
            tables.extend(lost);
            tables.extend(catalog::changed_with(self.db, &oids)?);
        }
        for table in tables {
            if !self.guard.has_backup_of(&table) {
                preflight::can_be_backed_up(self.db, &table)?;
                let backup = self.back_up(&table)?.clone();
                announce(self.ui, &backup);
            }
        }
        Ok(())
    }

    /// The statement that writes the history row, or on the way down removes it: exactly one.
    fn row(&self, migration: &Migration, direction: Direction, execution_time: &str) -> String {
        let table = &self.history.table.name;
        match direction {
            Direction::Up => {
                let insert =
                    history::insert_sql(table, migration, self.installed_on, execution_time);
                match self.guard.must_count(&migration.up) {
                    true => history::exactly_one(&insert),
                    false => insert,
                }
            }
            Direction::Down => history::exactly_one(&history::delete_sql(table, migration.version)),
        }
    }
}

/// Says that a backup was taken in the midst of a run.
pub(crate) fn announce(ui: &Ui, backup: &CompletedBackup) {
    ui.status(
        "Backed up",
        format_args!("{}  {}", backup.summary(), crate::ui::time(backup.took)),
    );
    ui.command(&backup::command(
        &backup.table,
        &backup.file.display().to_string(),
    ));
}

fn checks_failed(migration: &Migration) -> String {
    format!("checks failed for `{}`", migration.stem)
}
