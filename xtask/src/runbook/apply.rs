//! How one migration is applied or undone through psql: in one transaction with its history row, or
//! statement by statement where it must run outside of one. The rules about locks are decided here,
//! per migration.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;

use serde::Deserialize;

use super::backup::Taken;
use super::build_watch::BuildWatch;
use super::checks::{self, Checks};
use super::guard::{self, Changes, Guard};
use super::lock_wait::{Waiter, locked_by};
use super::losses;
use super::preflight::{self, Touched};
use super::stall::{self, StallWatch};
use super::verify;
use super::{excerpt, failures, indexes};
use crate::Context;
use crate::database::activity::{self, Stalled, Waiting};
use crate::database::catalog::{self, Relation};
use crate::database::{Database, history, lock, pooler};
use crate::error::{Failure, Kind, Result};
use crate::flags::Locks;
use crate::interrupt;
use crate::migration::effects::{self, Effect, ObjectName};
use crate::migration::history::lock_id;
use crate::migration::script::Script;
use crate::migration::source::Migration;
use crate::migration::sql::{self, Statement};
use crate::tools::psql::{Chunk, Reply, Session, SessionError};
use crate::tools::sql_error::ServerMessage;
use crate::ui::Ui;

/// How often a statement that goes on is cancelled again after an interrupt.
const CANCEL_EVERY: Duration = Duration::from_millis(100);
/// How long an unfinished index may take to drop after an interrupt: a supervisor's patience ends too.
const CLEAN_UP_WITHIN: Duration = Duration::from_secs(5);
/// How long the server may take to notice that psql is gone: somewhat more than
/// `client_connection_check_interval`.
const LOST_SESSION_ENDS: Duration = Duration::from_secs(5);
/// What is said where nobody has seen the end of it.
const GOES_ON: &str = "the server may still be at it; the next run waits for that to end";
/// How often a concurrent build is begun anew after a deadlock.
const DEADLOCKS: u32 = 3;

/// How often a migration is rolled back to keep what it destroys.
const KEPT: u32 = 5;

/// How many migrations psql is fed ahead, and how large one may be: together they fit into a pipe,
/// of which Linux buffers 64 KiB (pipe(7)), so that feeding never waits.
const AHEAD: usize = 8;
const AHEAD_BYTES: usize = 4 * 1024;

/// The SQLSTATE of a statement that succeeded.
const SUCCESS: &str = "00000";

/// Up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What it took to run one migration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
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
    pub(crate) guard: Guard,
    /// The command to run again: `cargo xtask db-migrate`.
    again: String,
    /// When this run started, by the server's clock: every migration of a run has the same.
    pub(crate) installed_on: Timestamp,
    session: Option<Session>,
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
    /// After an interrupt: what runs now mends, and is not to be cancelled.
    cleaning: bool,
}

/// What one try of a migration's transaction came to.
enum Try {
    Committed,
    /// It was rolled back: a lock was not to be had.
    Locked(Box<SessionError>),
    /// It was rolled back; what it destroys is kept now.
    Kept,
}

/// What psql is asked before a transaction commits.
#[derive(Deserialize)]
struct Answer {
    checks: Vec<checks::Rows>,
    /// None where the transaction is known to destroy nothing.
    changes: Option<Changes>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(
        ctx: &'a Context,
        db: &'a mut Database,
        locks: Locks,
        guard: Guard,
    ) -> Runner<'a> {
        let installed_on = history::next_installed_on(db);
        Runner {
            ctx,
            db,
            ui: &ctx.ui,
            locks,
            guard,
            again: format!("cargo {}", ctx.application_name),
            installed_on,
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
    pub(crate) fn with_psql(mut self, session: Session) -> Runner<'a> {
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
            anyhow::Error::from(failures::explain(server_failure(&error.message)))
                .context("cannot open a session with psql")
        })
    }

    /// Ends the psql session in order; returns what was kept.
    pub(crate) fn finish(self) -> (&'a mut Database, Guard) {
        if let Some(session) = self.session {
            session.close();
        }
        (self.db, self.guard)
    }

    /// Backs up a table on the native connection.
    ///
    /// # Errors
    /// If it cannot be backed up, or the backup cannot be proven.
    pub(crate) fn back_up(&mut self, table: &Relation) -> Result<&Taken> {
        self.guard.back_up(self.ctx, self.db, table)
    }

    /// Makes the history table if it is not there.
    ///
    /// # Errors
    /// If psql or the server says no.
    pub(crate) fn ensure_history(&mut self) -> Result {
        if self.db.server.history_schema.is_some() {
            return Ok(());
        }
        let table = history::table(self.db);
        let chunk = Chunk {
            before: format!("{}{}", self.patient(), history::create_sql(&table)),
            ..Chunk::default()
        };
        self.feed(&chunk, &mut |_, _, _| {})?
            .map_err(|error| server_failure(&error.message))
            .with_context(|| format!("cannot create the history table `{table}`"))?;
        self.db.server.history_schema = self.db.server.schema.clone();
        Ok(())
    }

    /// Records migrations as applied without running them, in one transaction.
    ///
    /// # Errors
    /// If psql or the server says no; nothing is recorded then.
    pub(crate) fn record_unrun(&mut self, migrations: &[&Migration]) -> Result {
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
            .map_err(|error| server_failure(&error.message))
            .context("cannot write the history")?;
        Ok(())
    }

    /// Applies or undoes one migration and writes the history.
    ///
    /// # Errors
    /// With the place in the file where a statement failed; with [`Kind::Busy`] where a lock was not
    /// to be had within the deadline. A transactional migration has then changed nothing.
    ///
    /// psql may be fed some of those that are `upcoming` already; it gets to them only if this one
    /// succeeds.
    pub(crate) fn run(
        &mut self,
        migration: &Migration,
        upcoming: &[&Migration],
        direction: Direction,
    ) -> Result<Effort> {
        let script = script(migration, direction)?;
        let started = Instant::now();
        self.prepare(script, direction)?;
        let mut effort = if script.transactional {
            self.in_transaction(migration, script, upcoming, direction)
        } else {
            self.outside_transaction(migration, script, direction)
        }?;
        effort.duration = started.elapsed();
        Ok(effort)
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
                None if preflight::may_have_dropped(script, &name) => {}
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
            if !self.guard.has_kept(&table) {
                preflight::can_be_backed_up(self.db, &table)?;
                let backup = self.back_up(&table)?.clone();
                announce(self.ui, &backup);
            }
        }
        Ok(())
    }

    /// `BEGIN`, the file, its history row, `COMMIT`: tried as a whole until it gets its locks.
    fn in_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        upcoming: &[&Migration],
        direction: Direction,
    ) -> Result<Effort> {
        let again = self.again.clone();
        let mut waiter = Waiter::new(self.locks, locked_by(script), &again);
        let mut kept = 0;
        loop {
            let mut seen = Waiting::default();
            match self.try_transaction(migration, script, upcoming, direction, &mut seen)? {
                Try::Committed => break,
                // What it destroys is another thing each time.
                Try::Kept if kept == KEPT => {
                    return Err(Failure::failed(format!(
                        "cannot keep what `{}` destroys",
                        migration.stem
                    ))
                    .cause(format!(
                        "after {KEPT} backups it still destroys what is in none"
                    ))
                    .state(format!(
                        "`{}` was rolled back: it has changed nothing",
                        migration.stem
                    ))
                    .hint(format!("{again} --no-backup"))
                    .into());
                }
                Try::Kept => kept += 1,
                Try::Locked(error) => {
                    self.guard.waited();
                    waiter.watch(self.db, self.ui, &seen, || excerpt::of(script, &error))?;
                }
            }
        }
        if indexes::accepts_any(script) {
            indexes::after(self, script).map_err(|error| {
                failures::from_error(&error).state(format!(
                    "`{}` was committed and is in the history",
                    migration.stem
                ))
            })?;
        }
        Ok(waiter.effort())
    }

    fn try_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        upcoming: &[&Migration],
        direction: Direction,
        seen: &mut Waiting,
    ) -> Result<Try> {
        if self.ahead.pop_front() != Some(migration.version) {
            interrupt::check()?;
            if indexes::accepts_any(script) {
                indexes::before(self, script)?;
            }
            if let Err(error) = self.send_transaction(migration, script, direction)? {
                return Err(self.failed(migration, script, direction, &error).into());
            }
        }
        let commits_by_itself = self.commits_by_itself(migration, script, direction);
        if commits_by_itself {
            self.feed_ahead(upcoming, direction)?;
        }
        let checks = checks(migration, direction);
        let reply = match self.receive(&mut |client, pid, _| seen.update(client, pid)) {
            Ok(reply) => reply,
            Err(error) if self.is_lock_failure(&error.message) => return Ok(Try::Locked(error)),
            Err(error) => {
                let of_check = checks.as_ref().and_then(|checks| checks.failure(&error));
                return Err(of_check
                    .unwrap_or_else(|| self.failed(migration, script, direction, &error))
                    .into());
            }
        };
        self.tell(&reply);
        if commits_by_itself {
            return Ok(Try::Committed);
        }
        if self.stalled.is_some() {
            // The file has caught the cancel. Without its session its transaction is rolled back.
            self.session = None;
            let error = SessionError::default();
            return Err(self.failed(migration, script, direction, &error).into());
        }

        // Whatever ends this here drops the session, and that rolls the transaction back.
        let Some(session) = self.session.take() else {
            return Err(anyhow::anyhow!("psql is gone"));
        };
        let answer = reply.value.as_deref().unwrap_or_default();
        let answer: Answer =
            serde_json::from_str(answer).context("cannot read what psql answers")?;
        if let Some(checks) = &checks {
            let checked = checks.outcome(migration.version, answer.checks);
            if let Some(failure) = verify::failed(&not_as_it_should_be(migration), &checked) {
                return Err(failure
                    .state(format!("`{}` was rolled back", migration.stem))
                    .hint(format!(
                        "what is there was made otherwise, or {} and its verify file disagree: cargo xtask db-psql",
                        script.path.display()
                    ))
                    .into());
            }
        }
        let verdict = match &answer.changes {
            Some(changes) => {
                // Our own psql may hold what this reads: nobody waits for that for long.
                self.db.client.batch_execute(&self.short_wait())?;
                let verdict = self.guard.judge(self.db, changes, script, direction);
                self.db.wait_for_locks(self.locks.lock_deadline)?;
                Some(verdict?)
            }
            None => None,
        };
        interrupt::check()?;
        self.session = Some(session);
        if let Some(verdict) = &verdict
            && !self.settles(migration, &verdict.destroyed)?
        {
            return Ok(Try::Kept);
        }
        let chunk = Chunk {
            before: self.commit(migration, script, direction),
            ..Chunk::default()
        };
        if let Err(error) = self.feed(&chunk, &mut |client, pid, _| seen.update(client, pid))? {
            return match self.is_lock_failure(&error.message) {
                true => Ok(Try::Locked(error)),
                false => Err(self.failed(migration, script, direction, &error).into()),
            };
        }
        if let Some(verdict) = &verdict {
            for updated in &verdict.updated {
                self.ui.info("Updated", updated);
            }
            self.guard.committed(self.db, verdict)?;
        }
        Ok(Try::Committed)
    }

    /// Whether all that a transaction has destroyed is kept, or not to be. If not, it was rolled back,
    /// what it destroys was backed up, and it may be tried again.
    ///
    /// # Errors
    /// If something cannot be backed up, or a person does not want to lose it.
    fn settles(&mut self, migration: &Migration, destroyed: &[guard::Destroyed]) -> Result<bool> {
        let unkept = self.guard.unkept(destroyed);
        if unkept.is_empty() {
            return Ok(true);
        }
        let stem = &migration.stem;
        if self.guard.no_backup() && self.ui.assumes_yes() {
            for destroyed in &unkept {
                self.ui.warn(format_args!(
                    "`{stem}` destroys what is in no backup: {destroyed}"
                ));
            }
            return Ok(true);
        }
        // Nobody waits for our locks while a backup is taken, or a person thinks.
        let chunk = Chunk {
            before: "ROLLBACK;\n".to_owned(),
            ..Chunk::default()
        };
        self.feed(&chunk, &mut |_, _, _| {})?
            .map_err(|error| server_failure(&error.message))
            .context("cannot roll back")?;
        let rolled_back = format!("`{stem}` was rolled back: it has changed nothing");
        let unkept = match self.guard.holding(self.db, unkept) {
            Ok(unkept) => unkept,
            // A policy or a missing right is in the way of looking: it may hold anything.
            Err(_) if self.guard.no_backup() => self.guard.unkept(destroyed),
            Err(error) => {
                let failure = failures::from_error(&error).state(rolled_back);
                return Err(failure
                    .hint(format!("or lose it: {} --no-backup", self.again))
                    .into());
            }
        };
        if unkept.is_empty() {
            return Ok(false);
        }
        for destroyed in &unkept {
            self.ui
                .info("Guard", format_args!("`{stem}` destroys {destroyed}"));
        }
        if self.guard.no_backup() {
            let question = format!("Apply `{stem}`, and lose that for good?");
            let hint = format!("{} --no-backup --yes", self.again);
            let agreed = self
                .ui
                .confirm(&question, &hint)
                .map_err(|error| failures::from_error(&error).state(&rolled_back))?;
            if !agreed {
                return Err(Failure::failed(format!("`{stem}` was not run"))
                    .cause("the answer was no")
                    .state(rolled_back)
                    .hint(format!("with a backup: {}", self.again))
                    .into());
            }
            self.guard.give_up(&unkept);
            return Ok(false);
        }
        self.ui.more("it was rolled back, to back that up first");
        let taken = self
            .guard
            .keep(self.ctx, self.db, &unkept)
            .map_err(|error| {
                failures::from_error(&error.context(format!("cannot keep what `{stem}` destroys")))
                    .state(rolled_back)
                    .hint(format!("or lose it: {} --no-backup", self.again))
            })?;
        for backup in &taken {
            announce(self.ui, backup);
        }
        Ok(false)
    }

    /// Whether a transaction needs no look at it before it commits.
    fn commits_by_itself(
        &self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
    ) -> bool {
        checks(migration, direction).is_none() && !self.guard.must_ask(script)
    }

    /// A failed transaction. Where the session was lost, it may have been committed all the same.
    fn failed(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
        error: &SessionError,
    ) -> Failure {
        let failure = self.explain(script, direction, error);
        let sqlstate = failure.sqlstate.as_deref().unwrap_or("08006");
        let is_lost = ["08", "57P"]
            .iter()
            .any(|class| sqlstate.starts_with(class));
        if !is_lost || matches!(failure.kind, Kind::Interrupted | Kind::Busy) {
            return failure;
        }
        let stem = &migration.stem;
        let state = match self.is_recorded(migration) {
            Ok(recorded) if recorded == (direction == Direction::Up) => {
                format!("`{stem}` was committed, as the history says: only the answer was lost")
            }
            Ok(_) => format!("`{stem}` was not committed: it has changed nothing"),
            Err(_) => {
                return failure.cause(GOES_ON).state(format!(
                    "whether `{stem}` was committed, only the history on the server knows"
                ));
            }
        };
        failure.state(state)
    }

    /// What the history says when the lost session's work on the server has ended.
    fn is_recorded(&mut self, migration: &Migration) -> Result<bool> {
        let lost = Instant::now();
        while lock::orphan(self.db)?.is_some() {
            anyhow::ensure!(lost.elapsed() < LOST_SESSION_ENDS, "it goes on");
            std::thread::sleep(CANCEL_EVERY);
        }
        let rows = history::read(self.db)?;
        Ok(rows.iter().any(|row| row.version == migration.version))
    }

    /// Feeds psql one migration up to its commit, or, where it has checks, up to these.
    fn send_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
    ) -> Result<Result<(), Box<SessionError>>> {
        let lock_timeout = self.lock_timeout();
        let text = script.for_psql();
        if let Err(error) = self.connect()? {
            return Ok(Err(error));
        }
        let mut before = self.fresh();
        let mut begin = format!("BEGIN \\; {lock_timeout}");
        // Its lock on the history is waited for no longer than any other, and before we have one.
        if self.is_prepared(script, direction) && !std::mem::replace(&mut self.prepared, true) {
            let table = history::table(self.db);
            let prepare = history::prepare_sql(&table, self.installed_on);
            begin.push_str(&format!(" \\; {prepare}"));
        }
        let mut chunk = Chunk {
            body: Some(&text),
            ..Chunk::default()
        };
        if self.commits_by_itself(migration, script, direction) {
            chunk.lead = format!("{begin} \\;");
            chunk.after = self.commit(migration, script, direction);
        } else {
            let asks = self.guard.must_ask(script);
            let checks = checks(migration, direction);
            // SET TRANSACTION must come before any query: without a baseline more is counted, not less.
            if asks && self.counted && !script.sets("transaction") {
                before.push_str(&format!("{begin};\n{}", guard::BASELINE));
            } else {
                before.push_str(guard::NO_BASELINE);
                chunk.lead = format!("{begin} \\;");
            }
            self.counted |= asks;
            // Checks see what db-verify sees later: none of the migration's own settings.
            chunk.after = format!(
                "{CLEAN} \\; {lock_timeout};\n{}{}\\set answer '{{\"checks\":' {} ',\"changes\":' {} '}}'\n",
                checks.as_ref().map_or("", |checks| &checks.sql),
                if asks { guard::QUESTION } else { "" },
                if checks.is_some() { ":checks" } else { "'[]'" },
                if asks { ":changes" } else { "null" },
            );
            chunk.value = Some("answer");
        }
        chunk.before = before;
        self.used = script.may_change_session();
        if let Some(session) = &mut self.session {
            session.send(&chunk);
        }
        Ok(Ok(()))
    }

    /// Feeds psql small migrations that come next, so that it need not wait for us between them. Not
    /// those that are to be looked at first: they are decided here.
    fn feed_ahead(&mut self, upcoming: &[&Migration], direction: Direction) -> Result {
        while self.ahead.len() < AHEAD && !interrupt::requested() {
            let Some(next) = upcoming.get(self.ahead.len()) else {
                break;
            };
            let script = script(next, direction)?;
            let small = script.text.len() <= AHEAD_BYTES;
            let looks = indexes::accepts_any(script)
                || !script.directives.backup.is_empty()
                || !self.commits_by_itself(next, script, direction);
            if !script.transactional || !small || looks {
                break;
            }
            if self.send_transaction(next, script, direction)?.is_err() {
                break;
            }
            self.ahead.push_back(next.version);
        }
        Ok(())
    }

    /// Statement by statement, as PostgreSQL asks of CREATE INDEX CONCURRENTLY.
    fn outside_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
    ) -> Result<Effort> {
        let started = Instant::now();
        if self.used {
            let chunk = Chunk {
                before: self.fresh(),
                ..Chunk::default()
            };
            self.feed(&chunk, &mut |_, _, _| {})?
                .map_err(|error| server_failure(&error.message))
                .context("cannot clean the session")?;
        }
        self.used = script.may_change_session();
        self.counted |= !script.destroys_nothing();
        indexes::before(self, script).map_err(|error| {
            failures::from_error(&error).state(format!(
                "`{}` has not begun: it has changed nothing",
                migration.stem
            ))
        })?;
        let again = self.again.clone();
        let mut waiter = Waiter::new(self.locks, locked_by(script), &again);
        for (index, statement) in script.statements.iter().enumerate() {
            let result = interrupt::check()
                .and_then(|()| self.alone(script, statement, direction, &mut waiter));
            if let Err(error) = result {
                let failure = failures::from_error(&error);
                return Err(self.half_done(failure, migration, direction, index).into());
            }
        }
        indexes::after(self, script)?;
        if direction == Direction::Up {
            let state = format!("`{}` took effect and is not recorded", migration.stem);
            let checked = verify::run(self.db, [migration])
                .map_err(|error| failures::from_error(&error).state(&state))?;
            if let Some(failure) = verify::failed(&not_as_it_should_be(migration), &checked) {
                return Err(failure
                    .state(state)
                    .hint(format!("mend what the checks name, then: {}", self.again))
                    .into());
            }
        }
        let nanoseconds = started.elapsed().as_nanos().max(1);
        let row = self.row(migration, direction, &nanoseconds.to_string());
        let chunk = Chunk {
            // Also the setting that makes transactions read-only.
            before: format!("{CLEAN};\n{}BEGIN;\n{row} \\; COMMIT;\n", self.patient()),
            ..Chunk::default()
        };
        self.feed(&chunk, &mut |_, _, _| {})?
            .map_err(|error| self.explain(script, direction, &error))?;
        if !script.destroys_nothing() {
            self.guard.ran_unasked(self.db)?;
        }
        Ok(waiter.effort())
    }

    /// One statement outside of a transaction. One that works concurrently gets no short lock
    /// timeout, which would leave an INVALID index behind; any other is tried like a transaction.
    fn alone(
        &mut self,
        script: &Script,
        statement: &Statement,
        direction: Direction,
        waiter: &mut Waiter<'_>,
    ) -> Result {
        let text = format!(
            "{};\n",
            sql::for_psql(statement.text(&script.text), &[]).trim_end()
        );
        let concurrent = statement.has_word(&script.text, "concurrently");
        // A file that sets its own lock timeout knows what it does.
        let mut before = self.settings_by_statement();
        if !script.sets("lock_timeout") {
            let lock_timeout = match concurrent {
                true => 0,
                false => self.locks.lock_timeout.as_millis(),
            };
            before.push_str(&format!("SET lock_timeout = {lock_timeout};\n"));
        }
        let chunk = Chunk::one_statement(before, &text);
        let ui = self.ui;
        let mut deadlocks = 0;
        // A build that is given up is dropped again; a drop or a rebuild that was given up would leave
        // an index INVALID that was not.
        let mut patience = None;
        if concurrent {
            match &effects::of(&script.text, statement)[..] {
                [Effect::CreateIndex { .. }] => patience = Some(self.locks.lock_deadline),
                [Effect::DropIndex { name, .. }] => {
                    if let Some(index) = catalog::index_state(self.db, name)? {
                        waiter.watch_first(self.db, ui, index.table)?;
                    }
                }
                _ => {}
            }
        }
        loop {
            let lock = lock_id(&self.db.server.name);
            let mut watch = concurrent.then(|| BuildWatch::new(ui, lock, patience));
            let mut seen = Waiting::default();
            self.concurrent = concurrent;
            let outcome = self.feed(&chunk, &mut |client, pid, elapsed| match &mut watch {
                Some(watch) => watch.look(client, pid, elapsed),
                None => seen.update(client, pid),
            });
            self.concurrent = false;
            let outcome = outcome?;
            let gave_up = watch.and_then(|watch| watch.gave_up);
            let mut reply = outcome.map_err(|error| {
                let failure = self.explain(script, direction, &error);
                match failure.sqlstate {
                    None if failure.kind != Kind::Interrupted => failure.cause(GOES_ON),
                    _ => failure,
                }
            })?;
            let code = reply.value.take().unwrap_or_default();
            if code == SUCCESS {
                self.tell(&reply);
                return Ok(());
            }
            let error = SessionError {
                message: reply.error(&code),
                body_line: None,
                after_line: None,
                led: false,
                statement: Some(statement.range.start),
            };
            if let Some(session) = gave_up {
                return Err(waiter.gave_up(&session).into());
            }
            if !self.is_lock_failure(&error.message) {
                return Err(self.explain(script, direction, &error).into());
            }
            if concurrent {
                // Of two sessions that waited for each other the server ended this one's build: what
                // that has left goes, and it begins anew.
                deadlocks += 1;
                if deadlocks > DEADLOCKS {
                    return Err(self.explain(script, direction, &error).into());
                }
                indexes::before(self, script)?;
                continue;
            }
            waiter.watch(self.db, self.ui, &seen, || excerpt::of(script, &error))?;
        }
    }

    /// After a failure outside of a transaction: what took effect, and after an interrupt the
    /// unfinished index is dropped.
    fn half_done(
        &mut self,
        mut failure: Failure,
        migration: &Migration,
        direction: Direction,
        done: usize,
    ) -> Failure {
        let stem = &migration.stem;
        let Ok(script) = script(migration, direction) else {
            return failure;
        };
        let history = match direction {
            Direction::Up => "it is not recorded",
            Direction::Down => "the history still has it",
        };
        failure.state.push(match (done, script.statements.len()) {
            (0, 1) => format!("`{stem}` did not take effect; {history}"),
            (0, total) => format!("`{stem}`: none of its {total} statements took effect; {history}"),
            (1, total) => format!(
                "`{stem}`: the first of {total} statements took effect, the rest did not; {history}"
            ),
            (_, total) => format!(
                "`{stem}`: the first {done} of {total} statements took effect, the rest did not; {history}"
            ),
        });
        // Who stops it, or has no more patience, does not want to find half an index.
        if matches!(failure.kind, Kind::Interrupted | Kind::Busy) {
            self.cleaning = true;
            if let Err(error) = indexes::clean_up(self, script) {
                failure.causes.push(format!("{error:#}"));
            }
        }
        if failure.kind == Kind::Interrupted {
            failure.hints.push(self.again.clone());
        }
        failure.state.extend(indexes::leftovers(self.db, script));
        failure
    }

    /// The history row and the end of the transaction that the migration ran in.
    fn commit(&self, migration: &Migration, script: &Script, direction: Direction) -> String {
        let row = match self.is_prepared(script, direction) {
            true => history::execute_sql(migration),
            false => self.row(migration, direction, history::SINCE_BEGIN),
        };
        // A migration may have left another role or search path behind. What RESET goes back to would
        // wait for the history without end, and with the migration's locks.
        format!(
            "{CLEAN} \\; {} \\; {row} \\; COMMIT;\n",
            self.lock_timeout()
        )
    }

    /// Within a transaction: nothing is waited for longer than a try takes.
    fn lock_timeout(&self) -> String {
        let milliseconds = self.locks.lock_timeout.as_millis();
        format!("SET LOCAL lock_timeout = {milliseconds}")
    }

    /// For the native session while psql's transaction is open.
    fn short_wait(&self) -> String {
        format!("SET lock_timeout = {}", self.locks.lock_timeout.as_millis())
    }

    /// Where no strong lock is held: a wait that still ends.
    fn patient(&self) -> String {
        format!("SET lock_timeout = {};\n", self.db.lock_wait.as_millis())
    }

    /// The statement that writes the history row, or on the way down removes it: exactly one.
    fn row(&self, migration: &Migration, direction: Direction, execution_time: &str) -> String {
        let table = history::table(self.db);
        match direction {
            Direction::Up => {
                let insert =
                    history::insert_sql(&table, migration, self.installed_on, execution_time);
                match self.guard.must_count(&migration.up) {
                    true => history::exactly_one(&insert),
                    false => insert,
                }
            }
            Direction::Down => {
                history::exactly_one(&history::delete_sql(&table, migration.version))
            }
        }
    }

    /// Whether the session's prepared statement records it: a script that may change its session may
    /// have removed that statement.
    fn is_prepared(&self, script: &Script, direction: Direction) -> bool {
        direction == Direction::Up && !script.may_change_session() && !self.guard.must_count(script)
    }

    /// Drops what a build has left, saying whom that waits for. After an interrupt it may take
    /// [`CLEAN_UP_WITHIN`].
    ///
    /// # Errors
    /// If the server says no.
    pub(crate) fn drop_index(&mut self, index: &str) -> Result {
        let limit = match self.cleaning {
            true => CLEAN_UP_WITHIN.as_millis(),
            false => 0,
        };
        let chunk = Chunk {
            before: format!(
                "SET lock_timeout = 0;\nSET statement_timeout = {limit};\nDROP INDEX CONCURRENTLY IF EXISTS {index};\nSET statement_timeout = 0;\n"
            ),
            ..Chunk::default()
        };
        let mut watch = BuildWatch::new(self.ui, lock_id(&self.db.server.name), None);
        self.concurrent = true;
        let outcome = self.feed(&chunk, &mut |client, pid, elapsed| {
            watch.look(client, pid, elapsed);
        });
        self.concurrent = false;
        drop(watch);
        let outcome = outcome?;
        outcome
            .map_err(|error| failures::explain(server_failure(&error.message)))
            .with_context(|| format!("cannot drop the INVALID index `{index}`"))
            .map(|_| ())
    }

    /// Feeds a chunk and waits until it has run.
    fn feed(
        &mut self,
        chunk: &Chunk<'_>,
        look: &mut dyn FnMut(&mut postgres::Client, i32, Duration),
    ) -> Result<Result<Reply, Box<SessionError>>> {
        if let Err(error) = self.connect()? {
            return Ok(Err(error));
        }
        if let Some(session) = &mut self.session {
            session.send(chunk);
        }
        Ok(self.receive(look))
    }

    /// Makes sure that there is a session, and that it is one of its own.
    fn connect(&mut self) -> Result<Result<(), Box<SessionError>>> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                (self.used, self.prepared, self.counted) = (false, false, false);
                start_psql(self.ctx, self.db)?
            }
        };
        if session.backend_pid() == 0 {
            let name = lock::psql_name(&self.ctx.application_name);
            match session.greet(&name) {
                Ok(arrived) => self.options_lost = !arrived,
                Err(error) => return Ok(Err(error)),
            }
            if session.backend_pid() == self.db.server.backend_pid {
                return Err(pooler::failure(self.db).into());
            }
            pooler::refuse(self.db)?;
            if self.options_lost {
                let chunk = Chunk {
                    before: self.settings_by_statement(),
                    ..Chunk::default()
                };
                let set = session.run(&chunk, &mut |_| {});
                match set.and_then(|_| session.greet(&name)) {
                    Ok(true) => {}
                    Ok(false) => {
                        return Err(Failure::failed("psql's session does not take our settings")
                            .cause("its timeouts, encoding or name are others than were set")
                            .state("nothing was changed")
                            .hint(pooler::DIRECTLY)
                            .into());
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        self.session = Some(session);
        Ok(Ok(()))
    }

    /// Ends settings, temporary tables and roles that an earlier migration may have left, as
    /// `DISCARD ALL` does, which must stand alone (PostgreSQL manual, DISCARD).
    fn fresh(&mut self) -> String {
        let used = std::mem::take(&mut self.used);
        self.prepared &= !used;
        let discard = match used {
            true => format!(
                "{CLEAN} \\; CLOSE ALL \\; DEALLOCATE ALL \\; UNLISTEN * \\; \
                 SELECT pg_catalog.pg_advisory_unlock_all() \\; \
                 DISCARD PLANS \\; DISCARD TEMP \\; DISCARD SEQUENCES;\n"
            ),
            false => String::new(),
        };
        discard + &self.settings_by_statement()
    }

    /// The session's options, where RESET does not go back to them.
    fn settings_by_statement(&self) -> String {
        let name = lock::psql_name(&self.ctx.application_name);
        match self.options_lost {
            true => format!("{};\n", self.db.session_settings(&name)),
            false => String::new(),
        }
    }

    /// Waits until the oldest chunk that was sent has run. While it runs, `look` may look at the
    /// server; an interrupt cancels the statement there.
    fn receive(
        &mut self,
        look: &mut dyn FnMut(&mut postgres::Client, i32, Duration),
    ) -> Result<Reply, Box<SessionError>> {
        let Some(mut session) = self.session.take() else {
            return Err(Box::default());
        };
        let pid = session.backend_pid();
        let cleaning = self.cleaning;
        let mut cancelled: Option<Duration> = None;
        let mut stall = StallWatch::new(self.locks, !self.concurrent);
        let short_wait = self.short_wait();
        let mut looks = false;
        let client = &mut self.db.client;
        let outcome = session.receive(&mut |elapsed| {
            // psql may hold what a look reads.
            if !std::mem::replace(&mut looks, true) {
                let _ = client.batch_execute(&short_wait);
            }
            // Again and again: the first may have met the moment between two statements.
            let due = cancelled.is_none_or(|last| elapsed >= last + CANCEL_EVERY);
            if interrupt::requested() && due && !cleaning {
                cancelled = Some(elapsed);
                let _ = activity::cancel(client, pid);
            }
            if !cleaning {
                stall.look(client, pid, elapsed);
            }
            look(client, pid, elapsed);
        });
        self.stalled = stall.stalled(&mut self.db.client);
        if looks {
            // Where this fails, so does what comes next.
            let _ = self.db.wait_for_locks(self.locks.lock_deadline);
        }
        match outcome {
            Ok(_) => self.session = Some(session),
            // psql ends at the first error: what was fed behind it never runs.
            Err(_) => self.ahead.clear(),
        }
        outcome
    }

    /// Whether a try may be repeated: 55P03 is lock_not_available, 40P01 deadlock_detected.
    fn is_lock_failure(&self, message: &ServerMessage) -> bool {
        matches!(message.sqlstate.as_deref(), Some("55P03" | "40P01"))
            && self.stalled.is_none()
            && !interrupt::requested()
    }

    /// A failed statement of a migration: what was attempted, where in the file, and why.
    fn explain(&self, script: &Script, direction: Direction, error: &SessionError) -> Failure {
        let path = script.path.display();
        if interrupt::requested() {
            return Failure::interrupted(format!("`{path}` was cancelled on the server"));
        }
        if let Some(stalled) = &self.stalled {
            let statements = excerpt::failed_statements(script, error);
            let safe_form = statements
                .into_iter()
                .find_map(|statement| stall::safe_form(script, statement));
            let mut failure = stall::failure(
                &format!("`{path}` was cancelled"),
                stalled,
                safe_form,
                &self.again,
            );
            failure.excerpt = excerpt::of(script, error);
            return failure;
        }
        let of_history = error.statement.is_none() && error.body_line.is_none();
        if of_history && error.message.sqlstate.as_deref() == Some(history::NOT_ONE_ROW) {
            let table = history::table(self.db);
            return Failure::failed(format!(
                "cannot write `{}` into the history table `{table}`",
                path
            ))
            .cause("not exactly one row was written: a trigger, a policy or another session has changed what there is")
            .hint(format!("look at it: cargo xtask db-psql -- -c '\\d {table}', then: {}", self.again));
        }
        script_failure(script, direction, error)
    }

    /// What the server had to say: that something was there already is worth knowing.
    fn tell(&self, reply: &Reply) {
        for notice in &reply.notices {
            match notice.sqlstate.as_deref() {
                Some("42701" | "42P07" | "42P06") => {
                    self.ui.more(format_args!("note: {}", notice.message));
                }
                _ => self.ui.detail(&notice.message),
            }
        }
    }
}

/// The checks that a migration must pass before it is recorded.
fn checks(migration: &Migration, direction: Direction) -> Option<Checks<'_>> {
    match direction {
        Direction::Up => migration.verify.as_ref().map(Checks::of),
        Direction::Down => None,
    }
}

/// Says that a backup was taken in the midst of a run.
pub(crate) fn announce(ui: &Ui, taken: &Taken) {
    ui.status(
        "Backed up",
        format_args!("{}  {}", taken.summary(), crate::ui::time(taken.took)),
    );
    ui.command(&super::backup::command(
        &taken.table,
        &taken.file.display().to_string(),
    ));
}

fn not_as_it_should_be(migration: &Migration) -> String {
    format!("`{}` is not as it should be", migration.stem)
}

/// Starts the psql of a run, which must hold the migration lock.
///
/// # Errors
/// If there is no psql.
pub(crate) fn start_psql(ctx: &Context, db: &Database) -> Result<Session> {
    let name = lock::psql_name(&ctx.application_name);
    Session::start(&ctx.tools().psql()?, &db.target, &name, &db.session_options)
}

/// The script of this direction.
///
/// # Errors
/// If there is no down file.
pub(crate) fn script(migration: &Migration, direction: Direction) -> Result<&Script> {
    match direction {
        Direction::Up => Ok(&migration.up),
        Direction::Down => migration.down.as_ref().ok_or_else(|| {
            Failure::usage(format!("`{}` has no down file", migration.stem))
                .hint("cargo xtask db-status")
                .into()
        }),
    }
}

/// Undoes what a migration may have left behind for the rest of its session.
const CLEAN: &str = "RESET SESSION AUTHORIZATION \\; RESET ROLE \\; RESET ALL";

/// A message of the server as a failure.
pub(crate) fn server_failure(message: &ServerMessage) -> Failure {
    let mut failure = Failure::failed(message.message.clone());
    failure
        .causes
        .extend(message.detail.iter().map(|text| format!("DETAIL: {text}")));
    failure
        .causes
        .extend(message.hint.iter().map(|text| format!("HINT: {text}")));
    failure
        .causes
        .extend(message.query.iter().map(|text| format!("QUERY: {text}")));
    failure.causes.extend(
        message
            .context
            .iter()
            .map(|text| format!("CONTEXT: {text}")),
    );
    failure.sqlstate = message.sqlstate.clone();
    failure
}

/// A failed statement of a migration: what was attempted, where in the file, and why.
fn script_failure(script: &Script, direction: Direction, error: &SessionError) -> Failure {
    let verb = match direction {
        Direction::Up => "apply",
        Direction::Down => "undo",
    };
    let server = server_failure(&error.message);
    let mut failure = Failure {
        message: format!("cannot {verb} `{}`", script.path.display()),
        sqlstate: server.sqlstate.clone(),
        ..Failure::default()
    };
    failure.causes.push(server.message);
    failure.causes.extend(server.causes);
    failure.excerpt = excerpt::of(script, error);
    if failure.sqlstate.as_deref() == Some("42P01") && preflight::moves_history(script) {
        let file = script.path.display();
        failure = failure.cause(preflight::HISTORY_MOVED).hint(format!(
            "take that out of {file}, then: cargo xtask db-migrate"
        ));
    }
    if failure.sqlstate.is_none() {
        // psql itself is gone, or its connection: the server may not know yet.
        failure = failure
            .hint("look whether server and tools are well: cargo xtask db-doctor")
            .hint("then go on: cargo xtask db-migrate");
    }
    let touched = Touched::by([script], None);
    failures::explain_about(failure, touched.tables().next())
}
