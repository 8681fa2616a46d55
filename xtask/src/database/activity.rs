//! Who is connected and what they are doing: sessions in the way, old transactions, running dumps,
//! and how far an index build or a copy is.

use std::fmt;
use std::time::Duration;

use postgres::Client;
use postgres::types::Type;

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
    /// Its transaction's virtual id, which tells one transaction of a session from the next; known
    /// where locks were looked at.
    transaction: Option<String>,
    /// Whether it is no client's session.
    pub(crate) background: bool,
    /// `client backend`, `autovacuum worker`, …
    kind: String,
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
    pub(crate) fn is_same(&self, other: &Session) -> bool {
        self.pid == other.pid && self.transaction == other.transaction
    }

    /// Whether this is a pg_dump (it names itself so).
    pub(crate) fn is_dump(&self) -> bool {
        self.application == "pg_dump" || self.application.starts_with("pg_dump ")
    }
}

impl fmt::Display for Session {
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

const COLUMNS: &str = "a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''),
    coalesce(a.state, a.backend_type, ''),
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8, coalesce(a.query, ''),
    coalesce(a.backend_type <> 'client backend', a.usesysid IS NULL),
    coalesce(a.backend_type, 'background process')";

/// The sessions with these process ids that are still there.
pub(crate) fn sessions(client: &mut Client, pids: &[i32]) -> Result<Vec<Session>> {
    let rows = client.query_typed(
        &format!("SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = ANY ($1)"),
        &[(&pids, Type::INT4_ARRAY)],
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

impl Waiting {
    /// Whether this very transaction was in the way.
    pub(crate) fn is_blocked_by(&self, session: &Session) -> bool {
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
) -> Result<Vec<Session>> {
    holders_of(client, relations, pids, "%")
}

/// Whoever keeps readers out of this relation: it takes the strongest lock.
pub(crate) fn exclusive_holders(client: &mut Client, relation: u32) -> Result<Vec<Session>> {
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
) -> Result<Vec<Session>> {
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
    Ok(rows.iter().map(Session::from_row).collect())
}

/// Somebody who waits for a lock that a session of ours holds, to read, to write, or because an
/// application locks so.
#[derive(Clone, Debug)]
pub(crate) struct Stalled {
    pub(crate) session: Session,
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
/// table's lock up to ROW EXCLUSIVE, or wait for the transaction that has changed their row; and those
/// who wait for an advisory lock that a migration took: the lock of the run is another session's. With
/// `chains` those too who wait behind somebody who waits for `pid`, such as somebody else's ALTER.
///
/// `pg_blocking_pids` is asked about those alone who have waited: it stops the whole lock table for a
/// moment.
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
             patient AS MATERIALIZED (
                 SELECT w.*, pg_catalog.pg_blocking_pids(w.pid) AS blockers
                 FROM waits AS w WHERE w.waited >= $2),
             behind AS (
                 SELECT pid FROM patient WHERE $1 = ANY (blockers)
                 UNION
                 SELECT p.pid FROM behind AS b JOIN patient AS p ON b.pid = ANY (p.blockers) AND $3),
             stalled AS (
                 SELECT p.pid, p.locktype, p.relation, p.mode, p.classid, p.objid, p.objsubid, p.waited,
                        pg_catalog.count(*) OVER () - 1 AS others
                 FROM patient AS p JOIN behind AS b ON b.pid = p.pid
                 WHERE p.locktype IN ('transactionid', 'advisory')
                    OR p.mode IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
                 ORDER BY p.waited DESC LIMIT 1)
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
        session: Session::from_row(&row),
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

/// Who waits for a lock that the session `pid` holds, the longest first, and how many wait behind them.
pub(crate) fn waiting_for(client: &mut Client, pid: i32) -> Result<(Vec<Session>, u64)> {
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
    Ok((rows.iter().map(Session::from_row).collect(), behind))
}

/// Sessions of this database in a transaction older than `age`, oldest first, ourselves left out.
pub(crate) fn old_transactions(client: &mut Client, age: Duration) -> Result<Vec<Session>> {
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
    Ok(rows.iter().map(Session::from_row).collect())
}

/// Running pg_dumps of this database.
pub(crate) fn dumps(client: &mut Client) -> Result<Vec<Session>> {
    named(client, "pg\\_dump%")
}

/// How far an index build is.
#[derive(Clone, Debug)]
pub(crate) struct IndexBuild {
    /// PostgreSQL's words for the phase, with the share that is done where it is known.
    pub(crate) phase: String,
    /// Whose transaction it waits for.
    pub(crate) waits_for: Option<Session>,
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
pub(crate) fn index_builder(client: &mut Client, table: u32) -> Result<Option<Session>> {
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
    Ok(row.as_ref().map(Session::from_row))
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

/// Sessions of this database that call themselves so, ourselves left out.
pub(crate) fn named(client: &mut Client, pattern: &str) -> Result<Vec<Session>> {
    let rows = client.query_typed(
        &format!(
            "SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity AS a
             WHERE a.datname = pg_catalog.current_database()
               AND a.pid <> pg_catalog.pg_backend_pid() AND a.application_name LIKE $1::text
             ORDER BY a.pid"
        ),
        &[(&pattern, Type::TEXT)],
    )?;
    Ok(rows.iter().map(Session::from_row).collect())
}

/// Ends a session.
pub(crate) fn terminate(client: &mut Client, pid: i32) -> Result {
    client.query_typed(
        "SELECT pg_catalog.pg_terminate_backend($1)",
        &[(&pid, Type::INT4)],
    )?;
    Ok(())
}

/// Cancels what a backend runs now.
pub(crate) fn cancel(client: &mut Client, pid: i32) -> Result {
    client.query_typed(
        "SELECT pg_catalog.pg_cancel_backend($1)",
        &[(&pid, Type::INT4)],
    )?;
    Ok(())
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
