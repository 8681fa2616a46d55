//! How far an index build is, and whose it is.

use postgres::Client;
use postgres::types::Type;

use super::session::{Backend, COLUMNS, sessions};
use crate::error::Result;
use crate::ui;

/// How far an index build is.
#[derive(Clone, Debug)]
pub(crate) struct IndexBuild {
    /// PostgreSQL's words for the phase, with the share that is done where it is known.
    pub(crate) phase: String,
    /// Whose transaction it waits for.
    pub(crate) waits_for: Option<Backend>,
}

/// How far a backend's index build is, if it builds one.
pub(crate) fn index_build(client: &mut Client, pid: i32) -> Result<Option<IndexBuild>> {
    let row = client.query_typed_opt(
        "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total, current_locker_pid::int4
         FROM pg_catalog.pg_stat_progress_create_index WHERE pid = $1",
        &[(&pid, Type::INT4)],
    )?;
    let Some(row) = row else { return Ok(None) };
    let mut phase: String = row.get(0);
    let (done, total, unit): (i64, i64, _) = if row.get::<_, i64>(4) > 0 {
        (row.get(3), row.get(4), "rows")
    } else {
        (row.get(1), row.get(2), "blocks")
    };
    if total > 0 {
        let percent = done as f64 / total as f64 * 100.0;
        let (done, total) = (ui::count(done as u64), ui::count(total as u64));
        phase.push_str(&format!(", {percent:.0} % ({done} of {total} {unit})"));
    }
    let locker: i32 = row.get(5);
    Ok(Some(IndexBuild {
        phase,
        waits_for: sessions(client, &[locker])?.pop(),
    }))
}

/// Who may be building this index right now: whoever holds the lock on its table that a concurrent
/// build holds from its beginning to its end. That is seen whosever the session is, while the view of
/// builds under way hides those of other roles. An autovacuum holds the same lock and builds nothing.
pub(crate) fn index_builder(client: &mut Client, table: u32) -> Result<Option<Backend>> {
    let row = client.query_typed_opt(
        &format!(
            "SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a
             WHERE a.pid <> pg_catalog.pg_backend_pid()
               AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
               AND a.pid IN (SELECT l.pid FROM pg_catalog.pg_locks AS l
                             WHERE l.granted AND l.relation = $1
                               AND l.mode = 'ShareUpdateExclusiveLock'
                               AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                 WHERE datname = pg_catalog.current_database()))
             ORDER BY a.pid LIMIT 1"
        ),
        &[(&table, Type::OID)],
    )?;
    Ok(row.as_ref().map(Backend::from_row))
}
