//! One writer: sqlx's advisory lock, polled. A session that blocks in `pg_advisory_lock` holds a
//! snapshot that CREATE INDEX CONCURRENTLY waits for, so we never block in it.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Database;
use super::activity::{self, Session};
use crate::error::{Failure, Result};
use crate::interrupt;
use crate::migration::history::lock_id;
use crate::ui::Ui;

/// How often the lock is tried.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Takes the lock of this database; it is held until the connection ends.
///
/// # Errors
/// [`crate::error::Kind::Busy`] with the holder's name, where it is not to be had in `deadline`.
pub(crate) fn acquire(db: &mut Database, deadline: Duration, ui: &Ui) -> Result {
    let key = lock_id(&db.server.name);
    let started = Instant::now();
    let mut told: Option<Session> = None;
    loop {
        let row = db
            .client
            .query_one(
                "SELECT pg_catalog.pg_try_advisory_lock($1), pg_catalog.clock_timestamp()",
                &[&key],
            )
            .context("cannot ask for the advisory lock")?;
        if row.get(0) {
            // From here on this is the run: later by the clock than the one it waited for.
            db.server.clock = row.get(1);
            return Ok(());
        }
        let holder = holder(db, key)?;
        if let Some(holder) = &holder
            && told.as_ref().map(|told| told.pid) != Some(holder.pid)
        {
            ui.info(
                "Waiting",
                format_args!("another run holds the migration lock: {holder}"),
            );
            told = Some(holder.clone());
        }
        if started.elapsed() >= deadline {
            let holder = told.map_or("somebody".to_owned(), |holder| holder.to_string());
            return Err(Failure::busy(format!(
                "another run holds the migration lock of `{}`",
                db.server.name
            ))
            .cause(format!("held by {holder}"))
            .cause(format!("waited {}", crate::ui::time(started.elapsed())))
            .state("nothing was changed")
            .hint("cargo xtask db-status")
            .hint("wait longer: cargo xtask db-migrate --lock-deadline 1h")
            .into());
        }
        interrupt::check()?;
        std::thread::sleep(POLL_EVERY);
    }
}

/// Who holds it. A bigint key stands in `pg_locks` as its two halves, with `objsubid` 1
/// (PostgreSQL manual, `pg_locks`).
fn holder(db: &mut Database, key: i64) -> Result<Option<Session>> {
    let high = (key >> 32) as u32;
    let low = key as u32;
    let rows = db.client.query(
        "SELECT pid FROM pg_catalog.pg_locks
         WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = $1 AND objid = $2
           AND database = (SELECT oid FROM pg_catalog.pg_database
                           WHERE datname = pg_catalog.current_database())",
        &[&high, &low],
    )?;
    match rows.first() {
        Some(row) => Ok(activity::sessions(&mut db.client, &[row.get(0)])?.pop()),
        None => Ok(None),
    }
}
