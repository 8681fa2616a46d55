//! A migration statement by statement, outside of a transaction, as PostgreSQL asks of CREATE INDEX
//! CONCURRENTLY.

use std::time::Instant;

use anyhow::Context as _;

use super::failure::{GOES_ON, checks_failed};
use super::indexes;
use super::runner::Runner;
use crate::database::activity::Waiting;
use crate::database::catalog;
use crate::error::{Failure, Kind, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::effects::{self, Effect};
use crate::migration::history::lock_id;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::migration::sql::{self, Statement};
use crate::runbook::build_watch::BuildWatch;
use crate::runbook::lock_wait::{LockStats, Waiter, locked_by};
use crate::runbook::watched_psql::CLEAN;
use crate::runbook::{excerpt, verify};
use crate::tools::psql::{Chunk, SessionError};

/// How often a concurrent build is begun anew after a deadlock.
const DEADLOCKS: u32 = 3;
/// The SQLSTATE of a statement that succeeded.
const SUCCESS: &str = "00000";

/// What one statement came to.
enum Alone {
    Done,
    /// A lock could not be acquired: it did nothing, and a transaction of the file's own that it is part of
    /// is aborted.
    Locked(Waiting, Box<SessionError>),
}

impl Runner<'_> {
    /// Statement by statement, as PostgreSQL asks of CREATE INDEX CONCURRENTLY.
    pub(super) fn outside_transaction(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
    ) -> Result<LockStats> {
        let started = Instant::now();
        if self.psql.memory.used {
            let reset = self.psql.reset_session_sql();
            self.psql
                .execute(reset)?
                .map_err(|error| error.message.failure())
                .context("cannot clean the session")?;
        }
        self.psql.memory.used = script.may_change_session();
        self.psql.memory.counted |= !script.destroys_nothing();
        indexes::before(&mut self.psql, script).map_err(|error| {
            failures::from_error(&error).state(format!(
                "`{}` has not begun: it has changed nothing",
                migration.stem
            ))
        })?;
        let mut waiter = Waiter::new(self.psql.locks, locked_by(script));
        let transactions = script.own_transactions();
        let mut next = 0;
        while let Some(statement) = script.statements.get(next) {
            let within = transactions.iter().find(|of| of.contains(&next));
            let begun = within.map_or(next, |of| *of.start());
            let result = interrupt::check()
                .and_then(|()| self.run_statement(script, statement, direction, &mut waiter));
            next = match result {
                Ok(Alone::Done) => next + 1,
                Ok(Alone::Locked(seen, error)) => {
                    if within.is_some() {
                        self.psql.roll_back()?;
                    }
                    waiter
                        .watch(self.psql.db, &self.ctx.ui, &seen, || {
                            excerpt::of(script, &error)
                        })
                        .map_err(|error| {
                            let failure = failures::from_error(&error);
                            self.half_done(failure, migration, direction, begun)
                        })?;
                    begun
                }
                Err(error) => {
                    let failure = failures::from_error(&error);
                    return Err(self.half_done(failure, migration, direction, begun).into());
                }
            };
        }
        indexes::after(&mut self.psql, script)?;
        if direction == Direction::Up {
            let state = format!("`{}` took effect and is not recorded", migration.stem);
            let checked = verify::run(self.psql.db, [migration])
                .map_err(|error| failures::from_error(&error).state(&state))?;
            if let Some(failure) = verify::failed(&checks_failed(migration), &checked) {
                return Err(failure
                    .state(state)
                    .hint(Hint::again("fix what the checks name, then"))
                    .into());
            }
        }
        let nanoseconds = started.elapsed().as_nanos().max(1);
        let row = self.row(migration, script, direction, &nanoseconds.to_string());
        // CLEAN also undoes a setting that makes transactions read-only.
        let record = format!(
            "{CLEAN};\n{}BEGIN;\n{row} \\; COMMIT;\n",
            self.psql.patient()
        );
        self.psql
            .execute(record)?
            .map_err(|error| self.explain(script, direction, &error))?;
        if !script.destroys_nothing() {
            self.guard
                .after_script_outside_transaction(&mut self.psql.db.client)
                .map_err(|error| {
                    let state = format!("`{}` took effect and is recorded", migration.stem);
                    failures::from_error(&error).state(state)
                })?;
        }
        Ok(waiter.lock_stats())
    }

    /// One statement outside of a transaction. One that works concurrently gets no short lock
    /// timeout, which would leave an INVALID index behind; any other may be tried again.
    fn run_statement(
        &mut self,
        script: &Script,
        statement: &Statement,
        direction: Direction,
        waiter: &mut Waiter,
    ) -> Result<Alone> {
        let text = format!(
            "{};\n",
            sql::for_psql(statement.text(&script.text), &[]).trim_end()
        );
        let concurrent = statement.has_word(&script.text, "concurrently");
        // A file that sets its own lock timeout knows what it does.
        let mut before = self.psql.settings_by_statement();
        if !script.sets("lock_timeout") {
            let lock_timeout = match concurrent {
                true => 0,
                false => self.psql.locks.lock_timeout.as_millis(),
            };
            before.push_str(&format!("SET lock_timeout = {lock_timeout};\n"));
        }
        let chunk = Chunk::one_statement(before, &text);
        let ui = &self.ctx.ui;
        let mut deadlocks = 0;
        // A build that is given up is dropped again; a drop or a rebuild that was given up would leave
        // an index INVALID that was not.
        let mut patience = None;
        if concurrent {
            match &effects::of(&script.text, statement)[..] {
                [Effect::CreateIndex { .. }] => patience = Some(self.psql.locks.lock_deadline),
                [Effect::DropIndex { name, .. }] => {
                    if let Some(index) = catalog::index_state(self.psql.db, name)? {
                        waiter.watch_first(self.psql.db, ui, index.table)?;
                    }
                }
                _ => {}
            }
        }
        loop {
            let mut seen = Waiting::default();
            let mut gave_up = None;
            let outcome = if concurrent {
                let lock = lock_id(&self.psql.db.server.name);
                let mut watch = BuildWatch::new(ui, lock, patience);
                let mut look = |client: &mut _, pid, elapsed| watch.look(client, pid, elapsed);
                let outcome = self.psql.feed_concurrent(&chunk, &mut look)?;
                gave_up = watch.gave_up;
                outcome
            } else {
                let mut look = |client: &mut _, pid, _| seen.update(client, pid);
                self.psql.feed(&chunk, &mut look)?
            };
            let mut reply = outcome.map_err(|error| {
                let failure = self.explain(script, direction, &error);
                match failure.sqlstate {
                    None if failure.kind != Kind::Interrupted => failure.cause(GOES_ON),
                    _ => failure,
                }
            })?;
            let code = reply.value.take().unwrap_or_default();
            if code == SUCCESS {
                self.psql.print_notices(&reply);
                return Ok(Alone::Done);
            }
            let error = SessionError {
                message: reply.error(&code),
                body_line: None,
                after_line: None,
                has_lead: false,
                statement: Some(statement.range.start),
            };
            if let Some(session) = gave_up {
                return Err(waiter.gave_up(&session).into());
            }
            if !self.psql.is_lock_failure(&error.message) {
                return Err(self.explain(script, direction, &error).into());
            }
            if concurrent {
                // Of two sessions that waited for each other the server ended this one's build: what
                // that has left goes, and it begins anew.
                deadlocks += 1;
                if deadlocks > DEADLOCKS {
                    return Err(self.explain(script, direction, &error).into());
                }
                indexes::before(&mut self.psql, script)?;
                continue;
            }
            return Ok(Alone::Locked(seen, Box::new(error)));
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
        let Ok(script) = migration.script(direction) else {
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
        if matches!(failure.kind, Kind::Interrupted | Kind::Busy)
            && let Err(error) = indexes::clean_up(&mut self.psql, script)
        {
            failure.causes.push(format!("{error:#}"));
        }
        if failure.kind == Kind::Interrupted {
            failure.hints.push(Hint::again(""));
        }
        failure
            .state
            .extend(indexes::leftovers(self.psql.db, script));
        failure
    }
}
