//! Standbys attached to this primary, and how far each has replayed.

use postgres::Client;
use postgres::types::Type;
use serde::Serialize;

use super::Server;
use crate::error::Result;

/// One standby, as `pg_stat_replication` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Standby {
    pub(crate) name: String,
    pub(crate) replayed: bool,
    /// Bytes of WAL that it has still to replay.
    pub(crate) lag_bytes: u64,
}

/// The primary's WAL position now, as text; `None` on a standby.
///
/// # Errors
/// If the query fails.
pub(crate) fn written(client: &mut Client, server: &Server) -> Result<Option<String>> {
    if server.in_recovery {
        return Ok(None);
    }
    let row = client.query_typed_one("SELECT pg_catalog.pg_current_wal_lsn()::text", &[])?;
    Ok(Some(row.get(0)))
}

/// How many are attached of which this role sees no more than that: `pg_stat_replication` shows them to
/// superusers and to members of `pg_read_all_stats`. What it hides may be a base backup, too.
///
/// # Errors
/// If the query fails.
pub(crate) fn hidden(client: &mut Client) -> Result<u64> {
    let row = client.query_typed_one(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication WHERE state IS NULL",
        &[],
    )?;
    Ok(row.get::<_, i64>(0).max(0) as u64)
}

/// Who is attached, and whether each has replayed up to `target`. Base backups and the like, which
/// replay nothing, are left out; so is what this role may not see: see [`hidden`].
///
/// # Errors
/// If the query fails.
pub(crate) fn attached(client: &mut Client, target: &Option<String>) -> Result<Vec<Standby>> {
    let Some(target) = target else {
        return Ok(Vec::new());
    };
    let rows = client.query_typed(
        "SELECT coalesce(nullif(application_name, ''), client_addr::text, pid::text),
                coalesce(replay_lsn >= $1::text::pg_catalog.pg_lsn, false),
                greatest(pg_catalog.pg_wal_lsn_diff($1::text::pg_catalog.pg_lsn,
                                                    coalesce(replay_lsn, sent_lsn, '0/0')), 0)::int8
         FROM pg_catalog.pg_stat_replication
         WHERE replay_lsn IS NOT NULL
               -- Attached just now: it has not said yet how far it is.
               OR (write_lsn IS NULL AND state IN ('startup', 'catchup', 'streaming'))
         ORDER BY 1",
        &[(target, Type::TEXT)],
    )?;
    Ok(rows
        .iter()
        .map(|row| Standby {
            name: row.get(0),
            replayed: row.get(1),
            lag_bytes: row.get::<_, i64>(2).max(0) as u64,
        })
        .collect())
}
