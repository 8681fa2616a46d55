//! Who is connected and what they are doing: sessions in the way, old transactions, running dumps,
//! and how far an index build or a copy is.

use std::fmt;
use std::time::Duration;

use postgres::Client;

use crate::error::Result;
use crate::ui;

/// A session, as `pg_stat_activity` shows it to this role.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) application: String,
    /// `idle in transaction`, `active`, … in PostgreSQL's words.
    pub(crate) state: String,
    /// The age of its transaction.
    pub(crate) transaction_age: Option<Duration>,
    /// What it runs or ran last; may hold personal data.
    pub(crate) query: String,
}

impl Session {
    fn from_row(row: &postgres::Row) -> Session {
        Session {
            pid: row.get(0),
            user: row.get(1),
            application: row.get(2),
            state: row.get(3),
            transaction_age: row
                .get::<_, Option<f64>>(4)
                .map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
            query: row.get(5),
        }
    }

    /// Whether this is a pg_dump (it names itself so).
    pub(crate) fn is_dump(&self) -> bool {
        self.application == "pg_dump" || self.application.starts_with("pg_dump ")
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if self.is_dump() {
            f.write_str(", a running dump")?;
        }
        if !self.user.is_empty() {
            write!(f, ", user {}", self.user)?;
        }
        if !self.application.is_empty() {
            write!(f, ", application {}", self.application)?;
        }
        if !self.state.is_empty() {
            write!(f, ", {}", self.state)?;
        }
        if let Some(age) = self.transaction_age {
            write!(f, ", in its transaction for {}", ui::time(age))?;
        }
        Ok(())
    }
}

const COLUMNS: &str = "a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''),
    coalesce(a.state, a.backend_type, ''),
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8, coalesce(a.query, '')";

/// The sessions with these process ids that are still there.
pub(crate) fn sessions(client: &mut Client, pids: &[i32]) -> Result<Vec<Session>> {
    let rows = client.query(
        &format!("SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = ANY ($1)"),
        &[&pids],
    )?;
    Ok(rows.iter().map(Session::from_row).collect())
}

/// What a waiting backend waits for: the tables it stands in line for, and who blocks it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    /// Relations whose lock it has asked for and not got.
    pub(crate) relations: Vec<u32>,
    pub(crate) blockers: Vec<Session>,
}

/// Looks at a backend that may be waiting for a lock.
pub(crate) fn waiting(client: &mut Client, pid: i32) -> Result<Waiting> {
    let rows = client.query(
        "SELECT relation FROM pg_catalog.pg_locks
         WHERE pid = $1 AND NOT granted AND relation IS NOT NULL",
        &[&pid],
    )?;
    let relations = rows.iter().map(|row| row.get(0)).collect();
    let rows = client.query(
        &format!(
            "SELECT DISTINCT ON (a.pid) {COLUMNS}
             FROM unnest(pg_catalog.pg_blocking_pids($1)) AS b (pid)
             JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid"
        ),
        &[&pid],
    )?;
    Ok(Waiting {
        relations,
        blockers: rows.iter().map(Session::from_row).collect(),
    })
}

/// Sessions that hold a lock on one of these relations in a transaction older than `age`.
pub(crate) fn old_holders(
    client: &mut Client,
    relations: &[u32],
    age: Duration,
) -> Result<Vec<Session>> {
    let rows = client.query(
        &format!(
            "SELECT DISTINCT ON (a.pid) {COLUMNS}
             FROM pg_catalog.pg_locks AS l
             JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
             WHERE l.granted AND l.relation = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid()
               AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                 WHERE datname = pg_catalog.current_database())
               AND a.xact_start <= pg_catalog.clock_timestamp() - $2::float8 * interval '1 second'"
        ),
        &[&relations, &age.as_secs_f64()],
    )?;
    Ok(rows.iter().map(Session::from_row).collect())
}

/// Sessions of this database in a transaction older than `age`, oldest first, ourselves left out.
pub(crate) fn old_transactions(client: &mut Client, age: Duration) -> Result<Vec<Session>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a
             WHERE a.datname = pg_catalog.current_database()
               AND a.pid <> pg_catalog.pg_backend_pid()
               AND a.xact_start <= pg_catalog.clock_timestamp() - $1::float8 * interval '1 second'
             ORDER BY a.xact_start"
        ),
        &[&age.as_secs_f64()],
    )?;
    Ok(rows.iter().map(Session::from_row).collect())
}

/// Running pg_dumps of this database.
pub(crate) fn dumps(client: &mut Client) -> Result<Vec<Session>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a
             WHERE a.datname = pg_catalog.current_database() AND a.application_name LIKE 'pg\\_dump%'"
        ),
        &[],
    )?;
    Ok(rows.iter().map(Session::from_row).collect())
}

/// How far a backend's index build is, in words, if it builds one.
pub(crate) fn index_progress(client: &mut Client, pid: i32) -> Result<Option<String>> {
    let row = client.query_opt(
        "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total,
                lockers_done, lockers_total, current_locker_pid::int4
         FROM pg_catalog.pg_stat_progress_create_index WHERE pid = $1",
        &[&pid],
    )?;
    let Some(row) = row else { return Ok(None) };
    let phase: String = row.get(0);
    let (done, total, unit): (i64, i64, _) = if row.get::<_, i64>(4) > 0 {
        (row.get(3), row.get(4), "rows")
    } else {
        (row.get(1), row.get(2), "blocks")
    };
    let mut text = phase;
    if total > 0 {
        let percent = done as f64 / total as f64 * 100.0;
        let (done, total) = (ui::count(done as u64), ui::count(total as u64));
        text.push_str(&format!(", {percent:.0} % ({done} of {total} {unit})"));
    }
    let locker: i32 = row.get(7);
    if locker != 0 {
        match sessions(client, &[locker])?.first() {
            Some(session) => text.push_str(&format!("; waits for {session}")),
            None => text.push_str(&format!("; waits for pid {locker}")),
        }
    }
    Ok(Some(text))
}

/// Cancels what a backend runs now.
pub(crate) fn cancel(client: &mut Client, pid: i32) -> Result {
    client.query("SELECT pg_catalog.pg_cancel_backend($1)", &[&pid])?;
    Ok(())
}
