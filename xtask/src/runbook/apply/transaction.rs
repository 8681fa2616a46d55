//! A migration in one transaction with its history row: tried as a whole until it gets its locks, and until
//! all that it destroys is kept.

use anyhow::Context as _;

use serde::Deserialize;

use super::session::CLEAN;
use super::{LockStats, Runner, announce, checks_failed};
use crate::database::activity::Waiting;
use crate::database::history;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::runbook::guard::{self, Changes, Verdict};
use crate::runbook::lock_wait::{Waiter, locked_by};
use crate::runbook::verify;
use crate::runbook::verify::in_psql::{Checks, Rows};
use crate::runbook::{excerpt, indexes};
use crate::tools::psql::{Chunk, SessionError};

/// How often a migration is rolled back to keep what it destroys.
const KEPT: u32 = 5;
/// How many migrations psql is fed ahead, and how large one may be: small ones, which take less time than
/// to be asked for the next.
const AHEAD: usize = 8;
const AHEAD_BYTES: usize = 4 * 1024;

/// What one try of a migration's transaction came to.
enum Try {
    Committed,
    /// It was rolled back: a lock could not be acquired.
    Locked(Box<SessionError>),
    /// It was rolled back; what it destroys is kept now.
    Kept,
}

/// What psql is asked before a transaction commits.
#[derive(Deserialize)]
struct Answer {
    checks: Vec<Rows>,
    /// None where the transaction is known to destroy nothing.
    changes: Option<Changes>,
}

impl Runner<'_> {
    /// `BEGIN`, the file, its history row, `COMMIT`: tried as a whole until it gets its locks.
    pub(super) fn in_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        upcoming: &[&Migration],
        direction: Direction,
    ) -> Result<LockStats> {
        let mut waiter = Waiter::new(self.locks, locked_by(script));
        let mut kept = 0;
        loop {
            let mut seen = Waiting::default();
            match self.try_transaction(migration, script, upcoming, direction, &mut seen)? {
                Try::Committed => break,
                // What it destroys is another thing each time.
                Try::Kept if kept == KEPT => {
                    return Err(Failure::failed(format!(
                        "cannot back up all that `{}` destroys",
                        migration.stem
                    ))
                    .cause(format!(
                        "after {KEPT} backups it still destroys something that is in none of them"
                    ))
                    .state(format!(
                        "`{}` was rolled back: it has changed nothing",
                        migration.stem
                    ))
                    .hint(Hint::again_with("", "--no-backup"))
                    .into());
                }
                Try::Kept => kept += 1,
                Try::Locked(error) => {
                    self.guard.forget_empty();
                    waiter.watch(self.db, self.ui, &seen, || excerpt::of(script, &error))?;
                }
            }
        }
        if indexes::accepts_any(script) {
            indexes::after(self, script).map_err(|error| committed(migration, &error))?;
        }
        Ok(waiter.lock_stats())
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
        self.print_notices(&reply);
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
            if let Some(failure) = verify::failed(&checks_failed(migration), &checked) {
                return Err(failure
                    .state(format!("`{}` was rolled back", migration.stem))
                    .hint(Hint::to(
                        format!(
                            "the existing object differs, or {} and its verify file disagree",
                            script.path.display()
                        ),
                        "db-psql",
                    ))
                    .into());
            }
        }
        let verdict = match &answer.changes {
            Some(changes) => {
                // Our own psql may hold what this reads: nobody waits for that for long.
                self.db.client.batch_execute(&self.short_wait())?;
                let verdict = Verdict::of(&mut self.db.client, changes, script, direction);
                self.db.wait_for_locks_again()?;
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
            self.guard
                .after_commit(&mut self.db.client, verdict)
                .map_err(|error| committed(migration, &error))?;
        }
        Ok(Try::Committed)
    }

    /// Whether all that a transaction has destroyed is kept, or not to be. If not, it was rolled back,
    /// what it destroys was backed up, and it may be tried again.
    ///
    /// # Errors
    /// If something cannot be backed up, or a person does not want to lose it.
    fn settles(&mut self, migration: &Migration, destroyed: &[guard::Destroyed]) -> Result<bool> {
        let not_backed_up = self.guard.not_backed_up(destroyed);
        if not_backed_up.is_empty() {
            return Ok(true);
        }
        let stem = &migration.stem;
        if self.guard.no_backup() && self.ui.assumes_yes() {
            for destroyed in &not_backed_up {
                self.ui.warn(format_args!(
                    "`{stem}` destroys what is in no backup: {destroyed}"
                ));
            }
            return Ok(true);
        }
        // Nobody waits for our locks while a backup is taken, or a person thinks.
        self.roll_back()?;
        let rolled_back = format!("`{stem}` was rolled back: it has changed nothing");
        let not_backed_up = match self.guard.not_empty(&mut self.db.client, not_backed_up) {
            Ok(not_backed_up) => not_backed_up,
            // A policy or a missing right is in the way of looking: it may hold anything.
            Err(_) if self.guard.no_backup() => self.guard.not_backed_up(destroyed),
            Err(error) => {
                let failure = failures::from_error(&error).state(rolled_back);
                return Err(failure
                    .hint(Hint::again_with("or accept the loss", "--no-backup"))
                    .into());
            }
        };
        if not_backed_up.is_empty() {
            return Ok(false);
        }
        for destroyed in &not_backed_up {
            self.ui
                .info("Guard", format_args!("`{stem}` destroys {destroyed}"));
        }
        if self.guard.no_backup() {
            self.ask_to_lose(stem, &rolled_back)?;
            self.guard.accept_loss(&not_backed_up);
            return Ok(false);
        }
        self.ui.more("it was rolled back, to back that up first");
        let taken = self
            .guard
            .back_up_all(self.ctx, self.db, &not_backed_up)
            .map_err(|error| {
                failures::from_error(
                    &error.context(format!("cannot back up what `{stem}` destroys")),
                )
                .state(rolled_back)
                .hint(Hint::again_with("or accept the loss", "--no-backup"))
            })?;
        for backup in &taken {
            announce(self.ui, backup);
        }
        Ok(false)
    }

    /// Ends the session's transaction; psql stays.
    pub(super) fn roll_back(&mut self) -> Result {
        let chunk = Chunk {
            before: "ROLLBACK;\n".to_owned(),
            ..Chunk::default()
        };
        self.feed(&chunk, &mut |_, _, _| {})?
            .map_err(|error| error.message.failure())
            .context("cannot roll back")?;
        Ok(())
    }

    /// Asks a person whether to lose for good what was just shown.
    ///
    /// # Errors
    /// If they do not want to, or nobody can be asked.
    fn ask_to_lose(&self, stem: &str, rolled_back: &str) -> Result {
        let question = format!("Apply `{stem}`, and lose that for good?");
        let agreed = self
            .ui
            .confirm(&question)
            .map_err(|error| failures::from_error(&error).state(rolled_back))?;
        if agreed {
            return Ok(());
        }
        Err(Failure::failed(format!("`{stem}` was not run"))
            .cause("the answer was no")
            .state(rolled_back)
            .hint("with a backup: run it again without --no-backup")
            .into())
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
        let mut before = self.reset_session_sql();
        let mut begin = format!("BEGIN \\; {lock_timeout}");
        // Its lock on the history is waited for no longer than any other, and before we have one.
        if self.is_prepared(script, direction) && !std::mem::replace(&mut self.prepared, true) {
            let prepare = history::prepare_sql(&self.history.table.name, self.installed_on);
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
            let script = next.script(direction)?;
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

    /// Whether the session's prepared statement records it: a script that may change its session may
    /// have removed that statement.
    fn is_prepared(&self, script: &Script, direction: Direction) -> bool {
        direction == Direction::Up && !script.may_change_session() && !self.guard.must_count(script)
    }
}

/// The checks that a migration must pass before it is recorded.
fn checks(migration: &Migration, direction: Direction) -> Option<Checks<'_>> {
    match direction {
        Direction::Up => migration.verify.as_ref().map(Checks::of),
        Direction::Down => None,
    }
}

/// A failure from after the commit, which stands.
fn committed(migration: &Migration, error: &anyhow::Error) -> Failure {
    failures::from_error(error).state(format!(
        "`{}` was committed and is in the history",
        migration.stem
    ))
}
