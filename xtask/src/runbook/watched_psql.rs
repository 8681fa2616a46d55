//! The psql of a run, and the native connection that watches it: psql is opened when it is first needed, fed,
//! and cancelled after an interrupt or for whoever waits too long for its locks. What it is fed is decided in
//! `apply`.

use std::time::Duration;

use anyhow::Context as _;
use postgres::Client;

use super::stall::StallWatch;
use crate::Context;
use crate::database::activity::{self, Stalled};
use crate::database::lock::{self, Lock};
use crate::database::{Database, Server, pooler, session_settings};
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::options::Locks;
use crate::tools::psql::{Chunk, PsqlSession, Reply, SessionError, Starting};
use crate::tools::sql_error::ServerMessage;
use crate::ui::Ui;

/// How often a statement that goes on is cancelled again after an interrupt.
pub(super) const CANCEL_EVERY: Duration = Duration::from_millis(100);
/// Undoes what a file may have left behind for the rest of its session.
pub(super) const CLEAN: &str = "RESET SESSION AUTHORIZATION \\; RESET ROLE \\; RESET ALL";

/// What looks at the server while psql works: with the native connection, psql's server process, and the
/// time so far.
pub(super) type Look<'a> = &'a mut dyn FnMut(&mut Client, i32, Duration);

/// psql and the connection that watches it.
pub(crate) struct WatchedPsql<'a> {
    ctx: &'a Context,
    pub(super) db: &'a mut Database,
    pub(super) lock: &'a Lock,
    pub(super) ui: &'a Ui,
    pub(super) locks: Locks,
    state: State,
    /// What the session remembers of what it has run.
    pub(super) memory: Memory,
    /// Whether the server has said of something that it was there already, and was not made.
    pub(super) was_there: bool,
    /// Whether a proxy keeps startup options to itself, so that only statements set them.
    options_lost: bool,
    /// Who waited too long for the last statement, which was cancelled for it.
    stalled: Option<Stalled>,
    /// After an interrupt: what runs now repairs, and is not to be cancelled.
    cleaning: bool,
}

#[derive(Default)]
enum State {
    /// Not started yet, or ended: by an error, or by us.
    #[default]
    Ended,
    Starting(Starting),
    Open(PsqlSession),
}

/// What a session remembers of what it has run. A new one remembers nothing.
#[derive(Default)]
pub(super) struct Memory {
    /// Whether it has run a file that may have left something behind in it.
    pub(super) used: bool,
    /// Whether it has our prepared statement.
    pub(super) prepared: bool,
    /// Whether its counters may hold rows of an earlier transaction.
    pub(super) counted: bool,
}

/// Starts the psql of a run, which holds the migration lock.
///
/// # Errors
/// If there is no psql.
pub(super) fn start(ctx: &Context, server: &Server, lock: &Lock) -> Result<Starting> {
    let name = lock::psql_name(&ctx.application_name);
    let psql = ctx.tools().psql()?;
    Starting::start(&psql, &server.target, &name, &lock.session_options)
}

impl<'a> WatchedPsql<'a> {
    pub(super) fn new(
        ctx: &'a Context,
        db: &'a mut Database,
        lock: &'a Lock,
        locks: Locks,
    ) -> WatchedPsql<'a> {
        WatchedPsql {
            ctx,
            db,
            lock,
            ui: &ctx.ui,
            locks,
            state: State::Ended,
            memory: Memory::default(),
            was_there: false,
            options_lost: false,
            stalled: None,
            cleaning: false,
        }
    }

    /// With a psql that was started ahead: it connects while native queries look around.
    pub(super) fn with(mut self, starting: Starting) -> WatchedPsql<'a> {
        self.state = State::Starting(starting);
        self
    }

    /// Makes sure of the session. From here on whoever takes the migration lock, should we lose
    /// it, sees by this session's name that a run is at work.
    ///
    /// # Errors
    /// If psql cannot be started or is not let in; if both our connections are one session, or the
    /// migration lock is no longer ours.
    pub(super) fn open(&mut self) -> Result {
        self.connect()?.map_err(|error| {
            anyhow::Error::from(failures::explain(error.message.failure()))
                .context("cannot open a session with psql")
        })
    }

    /// Makes sure that there is a session, and that it is one of its own.
    pub(super) fn connect(&mut self) -> Result<Result<(), Box<SessionError>>> {
        let starting = match std::mem::take(&mut self.state) {
            State::Open(session) => {
                self.state = State::Open(session);
                return Ok(Ok(()));
            }
            State::Starting(starting) => starting,
            State::Ended => start(self.ctx, &self.db.server, self.lock)?,
        };
        self.memory = Memory::default();
        let name = lock::psql_name(&self.ctx.application_name);
        let mut session = match starting.greet(&name) {
            Ok(session) => session,
            Err(error) => return Ok(Err(error)),
        };
        self.options_lost = !session.has_our_settings();
        let Database { client, server } = &mut *self.db;
        if session.backend_pid() == server.backend_pid {
            return Err(pooler::failure(client, server).into());
        }
        pooler::refuse(client, server)?;
        if self.options_lost {
            let set = session.run(&sql(self.settings_by_statement()), &mut |_| {});
            session = match set.and_then(|_| session.greet_again(&name)) {
                Ok(session) => session,
                Err(error) => return Ok(Err(error)),
            };
            if !session.has_our_settings() {
                return Err(
                    Failure::failed("psql's session did not accept our settings")
                        .cause("its timeouts, encoding or name differ from what was set")
                        .state("nothing was changed")
                        .hint(pooler::directly())
                        .into(),
                );
            }
        }
        self.state = State::Open(session);
        Ok(Ok(()))
    }

    /// Ends the session: what it has not committed is rolled back. The native connection stays.
    pub(super) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Feeds our own SQL and waits until it has run.
    pub(super) fn execute(&mut self, text: String) -> Result<Result<Reply, Box<SessionError>>> {
        self.feed(&sql(text), &mut |_, _, _| {})
    }

    /// Ends the session's transaction; psql stays.
    pub(super) fn roll_back(&mut self) -> Result {
        self.execute("ROLLBACK;\n".to_owned())?
            .map_err(|error| error.message.failure())
            .context("cannot roll back")?;
        Ok(())
    }

    /// Feeds a chunk and waits until it has run.
    pub(super) fn feed(
        &mut self,
        chunk: &Chunk<'_>,
        look: Look<'_>,
    ) -> Result<Result<Reply, Box<SessionError>>> {
        Ok(match self.send(chunk)? {
            Ok(()) => self.receive(look),
            Err(error) => Err(error),
        })
    }

    /// As [`WatchedPsql::feed`], for a statement that works concurrently: whoever queues behind somebody
    /// else that waits for it does not make it be cancelled.
    pub(super) fn feed_concurrent(
        &mut self,
        chunk: &Chunk<'_>,
        look: Look<'_>,
    ) -> Result<Result<Reply, Box<SessionError>>> {
        Ok(match self.send(chunk)? {
            Ok(()) => self.receive_within(StallWatch::new(self.locks, false), look),
            Err(error) => Err(error),
        })
    }

    /// Feeds a chunk, behind those that psql has not come to yet.
    pub(super) fn send(&mut self, chunk: &Chunk<'_>) -> Result<Result<(), Box<SessionError>>> {
        if let Err(error) = self.connect()? {
            return Ok(Err(error));
        }
        if let State::Open(session) = &mut self.state {
            session.send(chunk);
        }
        Ok(Ok(()))
    }

    /// Waits until the oldest chunk that was sent has run. While it runs, `look` may look at the
    /// server; an interrupt cancels the statement there. After an error the session is over, and what was
    /// sent behind it never runs.
    pub(super) fn receive(&mut self, look: Look<'_>) -> Result<Reply, Box<SessionError>> {
        self.receive_within(StallWatch::new(self.locks, true), look)
    }

    fn receive_within(
        &mut self,
        mut stall: StallWatch,
        look: Look<'_>,
    ) -> Result<Reply, Box<SessionError>> {
        let State::Open(mut session) = std::mem::take(&mut self.state) else {
            return Err(Box::default());
        };
        let pid = session.backend_pid();
        let cleaning = self.cleaning;
        let mut cancelled: Option<Duration> = None;
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
        if let Ok(reply) = &outcome {
            let mut notices = reply.notices.iter();
            self.was_there |= notices.any(|notice| notice.sqlstate.as_deref() == Some("42P07"));
            self.state = State::Open(session);
            self.warn_of_standby(reply);
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

    /// Who waited too long for the last statement, which was cancelled for it.
    pub(super) fn stalled(&self) -> Option<&Stalled> {
        self.stalled.as_ref()
    }

    /// Whether a try may be repeated: 55P03 is lock_not_available, 40P01 deadlock_detected.
    pub(super) fn is_lock_failure(&self, message: &ServerMessage) -> bool {
        matches!(message.sqlstate.as_deref(), Some("55P03" | "40P01"))
            && self.stalled.is_none()
            && !interrupt::requested()
    }

    /// From here on what runs repairs, and nothing cancels it.
    pub(super) fn begin_cleaning(&mut self) {
        self.cleaning = true;
    }

    pub(super) fn is_cleaning(&self) -> bool {
        self.cleaning
    }

    /// Ends settings, temporary tables and roles that an earlier file may have left, as
    /// `DISCARD ALL` does, which must stand alone (PostgreSQL manual, DISCARD).
    pub(super) fn reset_session_sql(&mut self) -> String {
        let used = std::mem::take(&mut self.memory.used);
        self.memory.prepared &= !used;
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
            true => {
                let options = &self.lock.session_options;
                format!("{};\n", session_settings(options, &name))
            }
            false => String::new(),
        }
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
        format!(
            "SET lock_timeout = {};\n",
            self.db.server.lock_wait.as_millis()
        )
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

/// Our own SQL alone.
fn sql(text: String) -> Chunk<'static> {
    Chunk {
        before: text,
        ..Chunk::default()
    }
}
