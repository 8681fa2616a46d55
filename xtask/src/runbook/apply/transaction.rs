//! A migration in one transaction with its history row: tried as a whole until it gets its locks, and until
//! all that it destroys is kept.

use anyhow::Context as _;
use serde::Deserialize;

use super::failure::checks_failed;
use super::indexes;
use super::runner::Runner;
use crate::database::activity::Waiting;
use crate::database::history;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::runbook::guard::{self, Changes, Verdict};
use crate::runbook::lock_wait::{LockStats, Waiter, locked_by};
use crate::runbook::verify::in_psql::{Checks, Rows};
use crate::runbook::watched_psql::CLEAN;
use crate::runbook::{excerpt, verify};
use crate::tools::psql::{Chunk, Reply, SessionError};

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
        let mut waiter = Waiter::new(self.psql.locks, locked_by(script));
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
                    waiter.watch(self.psql.db, &self.ctx.ui, &seen, || {
                        excerpt::of(script, &error)
                    })?;
                }
            }
        }
        if indexes::accepts_any(script) {
            indexes::after(&mut self.psql, script).map_err(|error| committed(migration, &error))?;
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
                indexes::before(&mut self.psql, script)?;
            }
            if let Err(error) = self.send_transaction(migration, script, direction)? {
                return Err(self.failed(migration, script, direction, &error).into());
            }
        }
        let commits_by_itself = self.commits_by_itself(migration, script, direction);
        if commits_by_itself {
            self.feed_ahead(upcoming, direction)?;
        }
        let checks = checks(migration, direction)?;
        let reply = match self
            .psql
            .receive(&mut |client, pid, _| seen.update(client, pid))
        {
            Ok(reply) => reply,
            Err(error) => {
                // psql ends at the first error: what was fed behind it never runs.
                self.ahead.clear();
                if self.psql.is_lock_failure(&error.message) {
                    return Ok(Try::Locked(error));
                }
                let of_check = checks.as_ref().and_then(|checks| checks.failure(&error));
                return Err(of_check
                    .unwrap_or_else(|| self.failed(migration, script, direction, &error))
                    .into());
            }
        };
        self.psql.print_notices(&reply);
        if commits_by_itself {
            return Ok(Try::Committed);
        }
        if self.psql.stalled().is_some() {
            // The file has caught the cancel. Without its session its transaction is rolled back.
            self.psql.end();
            let error = SessionError::default();
            return Err(self.failed(migration, script, direction, &error).into());
        }
        let verdict = match self.judge(migration, script, direction, checks.as_ref(), &reply) {
            Ok(verdict) => verdict,
            Err(error) => {
                // This rolls the transaction back.
                self.psql.end();
                return Err(error);
            }
        };
        if let Some(verdict) = &verdict
            && !self.settles(migration, &verdict.destroyed)?
        {
            return Ok(Try::Kept);
        }
        let chunk = Chunk {
            before: self.commit(migration, script, direction),
            ..Chunk::default()
        };
        let outcome = self
            .psql
            .feed(&chunk, &mut |client, pid, _| seen.update(client, pid))?;
        if let Err(error) = outcome {
            return match self.psql.is_lock_failure(&error.message) {
                true => Ok(Try::Locked(error)),
                false => Err(self.failed(migration, script, direction, &error).into()),
            };
        }
        if let Some(verdict) = &verdict {
            for updated in &verdict.updated {
                self.ctx.ui.info("Updated", updated);
            }
            self.guard
                .after_commit(&mut self.psql.db.client, verdict)
                .map_err(|error| committed(migration, &error))?;
        }
        Ok(Try::Committed)
    }

    /// Judges a transaction before it commits, by what psql answers: whether its checks hold, and what it
    /// has destroyed, if it may have destroyed anything.
    ///
    /// # Errors
    /// If it must not commit.
    fn judge(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
        checks: Option<&Checks<'_>>,
        reply: &Reply,
    ) -> Result<Option<Verdict>> {
        let answer = reply.value.as_deref().unwrap_or_default();
        let answer: Answer =
            serde_json::from_str(answer).context("cannot read what psql answers")?;
        if let Some(checks) = checks {
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
                let short_wait = self.psql.short_wait();
                let db = &mut *self.psql.db;
                db.client.batch_execute(&short_wait)?;
                let verdict = Verdict::of(&mut db.client, changes, script, direction);
                db.wait_for_locks_again()?;
                Some(verdict?)
            }
            None => None,
        };
        interrupt::check()?;
        Ok(verdict)
    }

    /// Whether a transaction needs no look at it before it commits.
    fn commits_by_itself(
        &self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
    ) -> bool {
        let has_checks = direction == Direction::Up && migration.verify.is_some();
        !has_checks && !self.guard.must_ask(script)
    }

    /// Feeds psql one migration up to its commit, or, where it has checks, up to these.
    fn send_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
    ) -> Result<Result<(), Box<SessionError>>> {
        let lock_timeout = self.psql.lock_timeout();
        let text = script.for_psql();
        if let Err(error) = self.psql.connect()? {
            return Ok(Err(error));
        }
        let mut before = self.psql.reset_session_sql();
        let mut begin = format!("BEGIN \\; {lock_timeout}");
        // Its lock on the history is waited for no longer than any other, and before we have one.
        if self.is_prepared(script, direction)
            && !std::mem::replace(&mut self.psql.memory.prepared, true)
        {
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
            let checks = checks(migration, direction)?;
            // SET TRANSACTION must come before any query: without a baseline more is counted, not less.
            if asks && self.psql.memory.counted && !script.sets("transaction") {
                before.push_str(&format!("{begin};\n{}", guard::BASELINE));
            } else {
                before.push_str(guard::NO_BASELINE);
                chunk.lead = format!("{begin} \\;");
            }
            self.psql.memory.counted |= asks;
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
        self.psql.memory.used = script.may_change_session();
        self.psql.send(&chunk)
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
            false => self.row(migration, script, direction, history::SINCE_BEGIN),
        };
        // A migration may have left another role or search path behind. What RESET goes back to would
        // wait for the history without end, and with the migration's locks.
        format!(
            "{CLEAN} \\; {} \\; {row} \\; COMMIT;\n",
            self.psql.lock_timeout()
        )
    }

    /// Whether the session's prepared statement records it: a script that may change its session may
    /// have removed that statement.
    fn is_prepared(&self, script: &Script, direction: Direction) -> bool {
        direction == Direction::Up && !script.may_change_session() && !self.guard.must_count(script)
    }
}

/// The checks that a migration must pass before it is recorded, as psql runs them.
fn checks(migration: &Migration, direction: Direction) -> Result<Option<Checks<'_>>> {
    Ok(match direction {
        Direction::Up => migration.checks()?.map(Checks::of),
        Direction::Down => None,
    })
}

/// A failure from after the commit, which stands.
fn committed(migration: &Migration, error: &anyhow::Error) -> Failure {
    failures::from_error(error).state(format!(
        "`{}` was committed and is in the history",
        migration.stem
    ))
}
