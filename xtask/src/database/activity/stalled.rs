//! Who has waited for a lock of ours, and for how long.

use std::time::Duration;

use postgres::Client;
use postgres::types::Type;

use super::session::{Backend, COLUMNS};
use crate::error::Result;

/// Somebody who waits for a lock that a session of ours holds, to read, to write, or because an
/// application locks so.
#[derive(Clone, Debug)]
pub(crate) struct Stalled {
    pub(crate) session: Backend,
    /// The table that the lock is on; of a row's lock where it can be told.
    relation: Option<u32>,
    /// Its qualified name, once it is asked for.
    pub(crate) table: Option<String>,
    /// The lock that it wants: `AccessShareLock` to read, `RowExclusiveLock` to write.
    pub(crate) mode: String,
    /// The key of an advisory lock, as it is written in SQL.
    pub(crate) advisory: Option<String>,
    pub(crate) waited: Duration,
    /// How many others wait for as long.
    pub(crate) others: u64,
}

impl Stalled {
    /// Asks for the table's name, which takes a lock on the catalog: ours may be the one on it before.
    pub(crate) fn named(mut self, client: &mut Client) -> Stalled {
        let row = client.query_typed_opt(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_class AS c
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE c.oid = $1",
            &[(&self.relation, Type::OID)],
        );
        self.table = row.ok().flatten().map(|row| row.get(0));
        self
    }
}

/// Whether the session `pid` waits for a lock itself, and who has waited `at_least` so long for one
/// that it holds, the longest if there are several. Those count who read or write: they ask for a
/// table's lock up to ROW EXCLUSIVE, or wait for the transaction that has changed their row, or in the
/// line for that row, whose first alone waits for the transaction; and those who wait for an advisory
/// lock that a migration took: the lock of the run is another session's. With `chains` those too who
/// wait behind somebody who waits for `pid`, such as somebody else's ALTER.
///
/// `pg_blocking_pids` is asked about those alone who have waited, or may be the first in such a line: it
/// stops the whole lock table for a moment.
pub(crate) fn stalled(
    client: &mut Client,
    pid: i32,
    at_least: Duration,
    chains: bool,
) -> Result<(bool, Option<Stalled>)> {
    let row = client.query_typed_one(
        &format!(
            "WITH RECURSIVE waits AS MATERIALIZED (
                 SELECT l.pid, l.locktype, l.relation, l.mode, l.classid, l.objid, l.objsubid,
                        pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - l.waitstart)
                            AS waited
                 FROM pg_catalog.pg_locks AS l
                 WHERE NOT l.granted),
             queue AS MATERIALIZED (
                 SELECT w.*, pg_catalog.pg_blocking_pids(w.pid) AS blockers
                 FROM waits AS w
                 WHERE w.waited >= $2
                    OR EXISTS (SELECT FROM waits WHERE locktype = 'tuple' AND waited >= $2)),
             behind AS (
                 SELECT pid FROM queue WHERE $1 = ANY (blockers)
                 UNION
                 SELECT q.pid FROM behind AS b
                 JOIN queue AS q ON b.pid = ANY (q.blockers) AND ($3 OR q.locktype = 'tuple')),
             stalled AS (
                 SELECT q.pid, q.locktype, q.relation, q.mode, q.classid, q.objid, q.objsubid, q.waited,
                        pg_catalog.count(*) OVER () - 1 AS others
                 FROM queue AS q JOIN behind AS b ON b.pid = q.pid
                 WHERE q.waited >= $2
                   AND (q.locktype IN ('transactionid', 'tuple', 'advisory')
                        OR q.mode IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
                 ORDER BY q.waited DESC LIMIT 1)
             SELECT {COLUMNS}, NULL::text,
                    coalesce(s.relation, (SELECT t.relation FROM pg_catalog.pg_locks AS t
                                          WHERE t.pid = s.pid AND t.locktype = 'tuple' LIMIT 1)),
                    s.mode, s.waited, s.others, queues.so, s.locktype = 'advisory', s.classid,
                    s.objid, s.objsubid
             FROM (SELECT EXISTS (SELECT FROM waits WHERE pid = $1) AS so) AS queues
             LEFT JOIN (stalled AS s JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.pid) ON true"
        ),
        &[
            (&pid, Type::INT4),
            (&at_least.as_secs_f64(), Type::FLOAT8),
            (&chains, Type::BOOL),
        ],
    )?;
    let stalled = row.get::<_, Option<i32>>(0).map(|_| Stalled {
        session: Backend::from_row(&row),
        relation: row.get(9),
        table: None,
        mode: row.get(10),
        advisory: row
            .get::<_, bool>(14)
            .then(|| advisory_key(row.get(15), row.get(16), row.get(17))),
        waited: Duration::from_secs_f64(row.get::<_, f64>(11).max(0.0)),
        others: row.get::<_, i64>(12).max(0) as u64,
    });
    Ok((row.get(13), stalled))
}

/// The key of an advisory lock as it is written in SQL, from what `pg_locks` shows: the halves of a
/// bigint with `objsubid` 1, two integers with 2 (PostgreSQL manual, `pg_locks`).
fn advisory_key(classid: u32, objid: u32, objsubid: i16) -> String {
    match objsubid {
        1 => ((u64::from(classid) << 32 | u64::from(objid)) as i64).to_string(),
        _ => format!("{}, {}", classid as i32, objid as i32),
    }
}
