//! Who holds which lock, and who waits for it.

use postgres::Client;
use postgres::types::Type;

use super::session::{Backend, COLUMNS};
use crate::error::Result;

/// What a waiting backend waits for: the tables it stands in line for, and who blocks it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    /// Relations whose lock it has asked for and not got.
    pub(crate) relations: Vec<u32>,
    pub(crate) blockers: Vec<Backend>,
}

impl Waiting {
    /// Whether this very transaction was in the way.
    pub(crate) fn is_blocked_by(&self, session: &Backend) -> bool {
        self.blockers.iter().any(|blocker| blocker.is_same(session))
    }

    /// Looks again at a backend that may be waiting; what cannot be seen now is seen the next time.
    pub(crate) fn update(&mut self, client: &mut Client, pid: i32) {
        if let Ok(now) = waiting(client, pid)
            && !(now.blockers.is_empty() && now.relations.is_empty())
        {
            *self = now;
        }
    }
}

/// Looks at a backend that may be waiting for a lock.
pub(crate) fn waiting(client: &mut Client, pid: i32) -> Result<Waiting> {
    let row = client.query_typed_one(
        "SELECT pg_catalog.pg_blocking_pids($1),
                ARRAY(SELECT relation FROM pg_catalog.pg_locks
                      WHERE pid = $1 AND NOT granted AND relation IS NOT NULL)",
        &[(&pid, Type::INT4)],
    )?;
    let (pids, relations): (Vec<i32>, Vec<u32>) = (row.get(0), row.get(1));
    if pids.is_empty() {
        return Ok(Waiting {
            relations,
            blockers: Vec::new(),
        });
    }
    let prepared = pids.contains(&0);
    let mut blockers = holders(client, &relations, &pids)?;
    // Holders of weaker locks are not in the way now; a prepared transaction is nobody's process.
    blockers.retain(|holder| pids.contains(&holder.pid) || (prepared && holder.pid == 0));
    Ok(Waiting {
        relations,
        blockers,
    })
}

/// Transactions that hold a lock on one of these relations, those of these `pids` whatever they hold
/// (it may be a row), and prepared transactions, which belong to no session and have the pid 0.
///
/// Locks are everybody's to see; of other roles' sessions an ordinary role sees neither state nor age.
pub(crate) fn holders(
    client: &mut Client,
    relations: &[u32],
    pids: &[i32],
) -> Result<Vec<Backend>> {
    holders_of(client, relations, pids, "%")
}

/// Whoever keeps readers out of this relation: it takes the strongest lock.
pub(crate) fn exclusive_holders(client: &mut Client, relation: u32) -> Result<Vec<Backend>> {
    holders_of(client, &[relation], &[], "AccessExclusiveLock")
}

/// Whether somebody who wants a relation for himself alone stands in line behind this session.
pub(crate) fn somebody_waits_for_us(client: &mut Client, relation: u32) -> Result<bool> {
    let row = client.query_typed_one(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                        WHERE NOT granted AND relation = $1 AND mode = 'AccessExclusiveLock'
                          AND database = (SELECT oid FROM pg_catalog.pg_database
                                          WHERE datname = pg_catalog.current_database())
                          AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(pid)))",
        &[(&relation, Type::OID)],
    )?;
    Ok(row.get(0))
}

/// As [`holders`], of locks on the relations that are of this mode (a pattern).
fn holders_of(
    client: &mut Client,
    relations: &[u32],
    pids: &[i32],
    mode: &str,
) -> Result<Vec<Backend>> {
    let rows = client.query_typed(
        &format!(
            "WITH holding AS MATERIALIZED (
                 SELECT DISTINCT l.pid, l.virtualtransaction
                 FROM pg_catalog.pg_locks AS l
                 WHERE l.granted
                   AND (l.pid = ANY ($2)
                        OR l.relation = ANY ($1) AND l.mode LIKE $3::text
                       AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                         WHERE datname = pg_catalog.current_database()))
             )
             SELECT {COLUMNS}, h.virtualtransaction
             FROM holding AS h JOIN pg_catalog.pg_stat_activity AS a ON a.pid = h.pid
             WHERE a.pid <> pg_catalog.pg_backend_pid()
             UNION ALL
             SELECT 0, p.owner::text, p.gid, 'prepared',
                    extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::float8, '',
                    true, 'prepared transaction', h.virtualtransaction
             FROM holding AS h
             JOIN pg_catalog.pg_locks AS own ON own.virtualtransaction = h.virtualtransaction
                  AND own.pid IS NULL AND own.locktype = 'transactionid'
             JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = own.transactionid"
        ),
        &[
            (&relations, Type::OID_ARRAY),
            (&pids, Type::INT4_ARRAY),
            (&mode, Type::TEXT),
        ],
    )?;
    Ok(rows.iter().map(Backend::from_row).collect())
}

/// Who waits for a lock that the session `pid` holds, the longest first, and how many wait behind them.
pub(crate) fn waiting_for(client: &mut Client, pid: i32) -> Result<(Vec<Backend>, u64)> {
    let rows = client.query_typed(
        &format!(
            "WITH waits AS MATERIALIZED (
                 SELECT l.pid, l.waitstart, pg_catalog.pg_blocking_pids(l.pid) AS blockers
                 FROM pg_catalog.pg_locks AS l WHERE NOT l.granted),
             first AS MATERIALIZED (SELECT * FROM waits WHERE $1 = ANY (blockers))
             SELECT {COLUMNS}, NULL::text,
                    (SELECT pg_catalog.count(DISTINCT w.pid) FROM waits AS w
                     WHERE w.blockers && (SELECT pg_catalog.array_agg(pid) FROM first))
             FROM first AS f JOIN pg_catalog.pg_stat_activity AS a ON a.pid = f.pid
             ORDER BY f.waitstart"
        ),
        &[(&pid, Type::INT4)],
    )?;
    let behind = rows.first().map_or(0, |row| row.get::<_, i64>(9) as u64);
    Ok((rows.iter().map(Backend::from_row).collect(), behind))
}

/// Whether a session stands in line for this advisory lock. A bigint key stands in `pg_locks` as its
/// two halves, with `objsubid` 1 (PostgreSQL manual, `pg_locks`).
pub(crate) fn waits_for_advisory_lock(client: &mut Client, pid: i32, key: i64) -> Result<bool> {
    let row = client.query_typed_one(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                        WHERE pid = $1 AND NOT granted AND locktype = 'advisory' AND objsubid = 1
                          AND classid = $2 AND objid = $3)",
        &[
            (&pid, Type::INT4),
            (&((key >> 32) as u32), Type::OID),
            (&(key as u32), Type::OID),
        ],
    )?;
    Ok(row.get(0))
}

/// Asks an autovacuum of this table to make way as any role with rights on the table may: it is
/// cancelled by PostgreSQL when somebody has waited for its lock for `deadlock_timeout`. Neither
/// reading nor writing waits for the lock that is asked for here, nor behind it.
pub(crate) fn displace_autovacuum(client: &mut Client, table: &str) -> Result {
    client.batch_execute(&format!(
        "BEGIN; SET LOCAL lock_timeout = '3s'; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE; ROLLBACK"
    ))
    .or_else(|error| client.batch_execute("ROLLBACK").and(Err(error)))?;
    Ok(())
}
