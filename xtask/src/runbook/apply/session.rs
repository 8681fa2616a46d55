//! The psql session of a run: opened, made clean between migrations, fed, watched while it works.

use std::time::Duration;

use super::Runner;
use crate::Context;
use crate::database::activity::{self};
use crate::database::lock::{self, Lock};
use crate::database::{Server, pooler, session_settings};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::runbook::stall::StallWatch;
use crate::tools::psql::{Chunk, PsqlSession, Reply, SessionError};
use crate::tools::sql_error::ServerMessage;

/// How often a statement that goes on is cancelled again after an interrupt.
pub(super) const CANCEL_EVERY: Duration = Duration::from_millis(100);
/// Undoes what a migration may have left behind for the rest of its session.
pub(super) const CLEAN: &str = "RESET SESSION AUTHORIZATION \\; RESET ROLE \\; RESET ALL";

impl Runner<'_> {
    /// Feeds a chunk and waits until it has run.
    pub(super) fn feed(
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
    pub(super) fn connect(&mut self) -> Result<Result<(), Box<SessionError>>> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                (self.used, self.prepared, self.counted) = (false, false, false);
                start_psql(self.ctx, &self.db.server, self.lock)?
            }
        };
        if session.backend_pid() == 0 {
            let name = lock::psql_name(&self.ctx.application_name);
            match session.greet(&name) {
                Ok(arrived) => self.options_lost = !arrived,
                Err(error) => return Ok(Err(error)),
            }
            if session.backend_pid() == self.db.server.backend_pid {
                return Err(pooler::failure(&mut self.db.client, &self.db.server).into());
            }
            pooler::refuse(&mut self.db.client, &self.db.server)?;
            if self.options_lost {
                let chunk = Chunk {
                    before: self.settings_by_statement(),
                    ..Chunk::default()
                };
                let set = session.run(&chunk, &mut |_| {});
                match set.and_then(|_| session.greet(&name)) {
                    Ok(true) => {}
                    Ok(false) => {
                        return Err(
                            Failure::failed("psql's session did not accept our settings")
                                .cause("its timeouts, encoding or name differ from what was set")
                                .state("nothing was changed")
                                .hint(pooler::directly())
                                .into(),
                        );
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
    pub(super) fn reset_session_sql(&mut self) -> String {
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
    pub(super) fn settings_by_statement(&self) -> String {
        let name = lock::psql_name(&self.ctx.application_name);
        match self.options_lost {
            true => format!("{};\n", session_settings(&self.lock.session_options, &name)),
            false => String::new(),
        }
    }

    /// Waits until the oldest chunk that was sent has run. While it runs, `look` may look at the
    /// server; an interrupt cancels the statement there.
    pub(super) fn receive(
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
            let _ = self.db.wait_for_locks_again();
        }
        match &outcome {
            Ok(reply) => {
                self.session = Some(session);
                self.warn_of_standby(reply);
            }
            // psql ends at the first error: what was fed behind it never runs.
            Err(_) => self.ahead.clear(),
        }
        outcome
    }

    /// A commit that waits for a synchronous standby holds its locks. Cancelled then, it ends with no more
    /// than a warning, and stands.
    fn warn_of_standby(&self, reply: &Reply) {
        if !reply.notices.iter().any(ServerMessage::gave_up_standby) {
            return;
        }
        let why = if self.stalled.is_some() {
            "others waited for its locks longer than the stall budget"
        } else if interrupt::requested() {
            "it was interrupted"
        } else {
            "somebody has cancelled it"
        };
        self.ui.warn(format_args!(
            "a commit did not wait for its synchronous standby to the end: {why}; it stands on this server, and \
             it may not be on any standby yet"
        ));
        self.ui.hint(Hint::to(
            "look whether it is",
            "db-verify --wait-standbys 60s",
        ));
    }

    /// Whether a try may be repeated: 55P03 is lock_not_available, 40P01 deadlock_detected.
    pub(super) fn is_lock_failure(&self, message: &ServerMessage) -> bool {
        matches!(message.sqlstate.as_deref(), Some("55P03" | "40P01"))
            && self.stalled.is_none()
            && !interrupt::requested()
    }

    /// Within a transaction: nothing is waited for longer than a try takes.
    pub(super) fn lock_timeout(&self) -> String {
        let milliseconds = self.locks.lock_timeout.as_millis();
        format!("SET LOCAL lock_timeout = {milliseconds}")
    }

    /// For the native session while psql's transaction is open.
    pub(super) fn short_wait(&self) -> String {
        format!("SET lock_timeout = {}", self.locks.lock_timeout.as_millis())
    }

    /// Where no strong lock is held: a wait that still ends.
    pub(super) fn patient(&self) -> String {
        let milliseconds = self.db.server.lock_wait.as_millis();
        format!("SET lock_timeout = {milliseconds};\n")
    }

    /// What the server had to say: that something was there already is worth knowing.
    pub(super) fn print_notices(&self, reply: &Reply) {
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

/// Starts the psql of a run.
///
/// # Errors
/// If there is no psql.
pub(crate) fn start_psql(ctx: &Context, server: &Server, lock: &Lock) -> Result<PsqlSession> {
    let name = lock::psql_name(&ctx.application_name);
    let psql = ctx.tools().psql()?;
    PsqlSession::start(&psql, &server.target, &name, &lock.session_options)
}
