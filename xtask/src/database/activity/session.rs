//! A session, as `pg_stat_activity` shows it; finding and ending one.

use std::fmt;
use std::time::Duration;

use postgres::Client;
use postgres::types::Type;

use crate::error::Result;
use crate::ui;

/// A session, as `pg_stat_activity` shows it to this role.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) application: String,
    /// `idle in transaction`, `active`, … in PostgreSQL's words.
    pub(crate) state: String,
    /// The age of its transaction.
    pub(crate) transaction_age: Option<Duration>,
    /// What it runs or ran last; may hold personal data.
    pub(crate) query: String,
    /// Its transaction's virtual id, which tells one transaction of a session from the next; known
    /// where locks were looked at.
    transaction: Option<String>,
    /// Whether it is no client's session.
    pub(crate) background: bool,
    /// `client backend`, `autovacuum worker`, …
    kind: String,
}

impl Backend {
    pub(super) fn from_row(row: &postgres::Row) -> Backend {
        Backend {
            pid: row.get(0),
            user: row.get(1),
            application: row.get(2),
            state: row.get(3),
            transaction_age: row
                .get::<_, Option<f64>>(4)
                .map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
            query: row.get(5),
            background: row.get(6),
            kind: row.get(7),
            transaction: row.try_get(8).ok(),
        }
    }

    /// Whether this is an autovacuum worker, which makes way when it is asked to.
    pub(crate) fn is_autovacuum(&self) -> bool {
        // One that prevents wraparound would only start again.
        self.background
            && (self.hidden() || self.query.starts_with("autovacuum: "))
            && !self.query.ends_with("(to prevent wraparound)")
    }

    /// Whether it belongs to another role and this one may not see what it does: its state and the
    /// age of its transaction take `pg_read_all_stats`.
    fn hidden(&self) -> bool {
        self.state.is_empty() && self.transaction_age.is_none()
    }

    /// Whether this is that very transaction.
    pub(crate) fn is_same(&self, other: &Backend) -> bool {
        self.pid == other.pid && self.transaction == other.transaction
    }

    /// Whether this is a pg_dump (it names itself so).
    pub(crate) fn is_dump(&self) -> bool {
        self.application == "pg_dump" || self.application.starts_with("pg_dump ")
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if self.background {
            write!(f, ", {}", self.kind)?;
        }
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
        if self.hidden() {
            f.write_str(", doing what this role may not see")?;
        }
        if let Some(age) = self.transaction_age {
            write!(f, ", in its transaction for {}", ui::time(age))?;
        }
        Ok(())
    }
}

/// The columns that [`Backend::from_row`] reads; of a transaction there may be one more.
pub(super) const COLUMNS: &str =
    "a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''),
    coalesce(a.state, a.backend_type, ''),
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8, coalesce(a.query, ''),
    coalesce(a.backend_type <> 'client backend', a.usesysid IS NULL),
    coalesce(a.backend_type, 'background process')";

/// The sessions with these process ids that are still there.
pub(crate) fn sessions(client: &mut Client, pids: &[i32]) -> Result<Vec<Backend>> {
    let rows = client.query_typed(
        &format!("SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = ANY ($1)"),
        &[(&pids, Type::INT4_ARRAY)],
    )?;
    Ok(rows.iter().map(Backend::from_row).collect())
}

/// Sessions of this database that call themselves so, ourselves left out.
pub(crate) fn named(client: &mut Client, pattern: &str) -> Result<Vec<Backend>> {
    let rows = client.query_typed(
        &format!(
            "SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a
             WHERE a.datname = pg_catalog.current_database()
               AND a.pid <> pg_catalog.pg_backend_pid() AND a.application_name LIKE $1::text
             ORDER BY a.pid"
        ),
        &[(&pattern, Type::TEXT)],
    )?;
    Ok(rows.iter().map(Backend::from_row).collect())
}

/// Running pg_dumps of this database.
pub(crate) fn dumps(client: &mut Client) -> Result<Vec<Backend>> {
    named(client, "pg\\_dump%")
}

/// Sessions of this database in a transaction older than `age`, oldest first, ourselves left out.
pub(crate) fn old_transactions(client: &mut Client, age: Duration) -> Result<Vec<Backend>> {
    let rows = client.query_typed(
        &format!(
            "SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a
             WHERE a.datname = pg_catalog.current_database()
               AND a.pid <> pg_catalog.pg_backend_pid()
               AND a.xact_start <= pg_catalog.clock_timestamp() - $1::float8 * interval '1 second'
             ORDER BY a.xact_start"
        ),
        &[(&age.as_secs_f64(), Type::FLOAT8)],
    )?;
    Ok(rows.iter().map(Backend::from_row).collect())
}

/// Cancels what a backend runs now.
pub(crate) fn cancel(client: &mut Client, pid: i32) -> Result {
    client.query_typed(
        "SELECT pg_catalog.pg_cancel_backend($1)",
        &[(&pid, Type::INT4)],
    )?;
    Ok(())
}

/// Ends a session.
pub(crate) fn terminate(client: &mut Client, pid: i32) -> Result {
    client.query_typed(
        "SELECT pg_catalog.pg_terminate_backend($1)",
        &[(&pid, Type::INT4)],
    )?;
    Ok(())
}
