//! One writer: sqlx's advisory lock, polled. A session that blocks in `pg_advisory_lock` holds a
//! snapshot that CREATE INDEX CONCURRENTLY waits for, so we never block in it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::Client;
use postgres::types::Type;

use super::activity::{self, Backend};
use super::{Database, Server, pooler, prepare_session};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::history::lock_id;
use crate::options::Locks;
use crate::ui::{self, Ui};

/// How often the lock is tried.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// What the psql sessions of a run add to the name of its native session. Only the holder of the
/// lock has one, so any that another holder meets is an orphan.
const PSQL: &str = " (psql)";

/// The name under which a run's psql shows itself on the server.
pub(crate) fn psql_name(application_name: &str) -> String {
    format!("{application_name}{PSQL}")
}

/// The lock of a database, which this run has.
pub(crate) struct Lock {
    /// By the server's clock. From then on this is the run: later than the one that it waited for.
    pub(crate) acquired_at: Timestamp,
    /// What the run's psql sessions start with.
    pub(crate) session_options: String,
}

/// Takes the lock of this database, which is held until the connection ends, and waits until what a
/// killed run has left on the server has ended.
///
/// # Errors
/// [`crate::error::Kind::Busy`] with the holder's or the orphan's name at the deadline; a failure where
/// a pooler is in between.
pub(crate) fn acquire(db: &mut Database, locks: Locks, ui: &Ui) -> Result<Lock> {
    let Database { client, server } = db;
    let session_options = prepare_session(client, server).context("cannot prepare the session")?;
    let mut wait = Wait::new(locks.lock_deadline, ui);
    let acquired_at = take(client, server, &mut wait)?;
    pooler::refuse(client, server)?;
    outlive_orphans(client, locks, &mut wait)?;
    Ok(Lock {
        acquired_at,
        session_options,
    })
}

/// Returns the server's clock when the lock was acquired.
fn take(client: &mut Client, server: &Server, wait: &mut Wait<'_>) -> Result<Timestamp> {
    let key = lock_id(&server.name);
    loop {
        let row = client
            .query_typed_one(
                "SELECT pg_catalog.pg_try_advisory_lock($1), pg_catalog.clock_timestamp()",
                &[(&key, Type::INT8)],
            )
            .context("cannot ask for the advisory lock")?;
        if row.get(0) {
            return Ok(row.get(1));
        }
        let holder = holder(client, key)?;
        wait.pause(
            "another run holds the migration lock",
            holder.as_ref(),
            || {
                Failure::busy(format!(
                    "another run holds the migration lock of `{}`",
                    server.name
                ))
                .hint(Hint::run("db-status"))
                .hint(Hint::again_with("wait longer", "--lock-deadline 1h"))
            },
        )?;
    }
}

/// Waits for psql sessions of a run that was killed: they end after the statement that they are at.
fn outlive_orphans(client: &mut Client, locks: Locks, wait: &mut Wait<'_>) -> Result {
    while let Some(orphan) = orphan(client)? {
        if locks.end_orphans {
            activity::terminate(client, orphan.pid).with_context(|| {
                format!("cannot end a session that a killed run left: {orphan}")
            })?;
        }
        wait.pause(
            "a killed run is still running on the server",
            Some(&orphan),
            || {
                Failure::busy("a session that a killed run left is still running on the server")
                    .hint(Hint::again_with("end it", "--end-orphans"))
            },
        )?;
    }
    Ok(())
}

/// Whether a run is at work on this database, or what a killed one has left: then what the history says
/// may be about to change.
///
/// # Errors
/// If the server cannot be asked.
pub(crate) fn at_work(client: &mut Client, server: &Server) -> Result<bool> {
    let (key, holder) = (lock_id(&server.name), holder_sql());
    let row = client.query_typed_one(
        &format!(
            "SELECT EXISTS ({holder}) OR EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(NULL)
                 WHERE datid = {OUR_DATABASE} AND application_name LIKE $3::text)"
        ),
        &[
            (&((key >> 32) as u32), Type::OID),
            (&(key as u32), Type::OID),
            (&format!("xtask %{PSQL}"), Type::TEXT),
        ],
    )?;
    Ok(row.get(0))
}

/// A psql session of a run, seen by the holder of the lock, who has none (any more).
///
/// # Errors
/// If the server cannot be asked.
pub(crate) fn orphan(client: &mut Client) -> Result<Option<Backend>> {
    let mut orphans = activity::named(client, &format!("xtask %{PSQL}"))?;
    orphans.truncate(1);
    Ok(orphans.pop())
}

/// The database's id, as this session's entry has it. Here the functions are asked, not the views
/// `pg_locks` and `pg_stat_activity` that join catalogs to them: in a session that has just begun, that
/// takes half the time.
const OUR_DATABASE: &str =
    "(SELECT datid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()))";

/// Finds the holder of the lock whose key has the halves `$1` and `$2`.
fn holder_sql() -> String {
    format!(
        "SELECT pid FROM pg_catalog.pg_lock_status()
         WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = $1 AND objid = $2
           AND database = {OUR_DATABASE}"
    )
}

/// Who holds it.
fn holder(client: &mut Client, key: i64) -> Result<Option<Backend>> {
    let rows = client.query_typed(
        &holder_sql(),
        &[
            (&((key >> 32) as u32), Type::OID),
            (&(key as u32), Type::OID),
        ],
    )?;
    match rows.first() {
        Some(row) => Ok(activity::sessions(client, &[row.get(0)])?.pop()),
        None => Ok(None),
    }
}

/// Polling for somebody to end, inside one deadline.
struct Wait<'a> {
    started: Instant,
    deadline: Duration,
    ui: &'a Ui,
    told: Option<i32>,
}

impl<'a> Wait<'a> {
    fn new(deadline: Duration, ui: &'a Ui) -> Wait<'a> {
        Wait {
            started: Instant::now(),
            deadline,
            ui,
            told: None,
        }
    }

    /// Names whoever is waited for, once, and sleeps; at the deadline an error.
    fn pause(
        &mut self,
        why: &str,
        whom: Option<&Backend>,
        failure: impl FnOnce() -> Failure,
    ) -> Result {
        if let Some(session) = whom
            && self.told != Some(session.pid)
        {
            self.told = Some(session.pid);
            self.ui.info("Waiting", format_args!("{why}: {session}"));
        }
        if self.started.elapsed() >= self.deadline {
            let whom = whom.map_or("somebody".to_owned(), ToString::to_string);
            return Err(failure()
                .cause(whom)
                .cause(format!("waited {}", ui::time(self.started.elapsed())))
                .state("nothing was changed")
                .into());
        }
        interrupt::check()?;
        std::thread::sleep(POLL_EVERY);
        Ok(())
    }
}
