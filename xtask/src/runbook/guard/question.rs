//! What a transaction's own session is asked before it commits, and its answer.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Asks the transaction's own session; the answer, as JSON, is in the psql variable `changes`.
///
/// The counters may still hold what earlier transactions of this session did, until it reports them
/// (PostgreSQL manual, "Viewing Statistics"): those are in the variable `counted`, see [`BASELINE`].
/// They count what a foreign key's cascade deletes, and what a rolled-back savepoint did, which errs
/// on the safe side. Deferred constraints may change rows too, so they are checked first. 2995 is
/// `pg_largeobject_metadata`, 2613 `pg_largeobject`; tables of users have oids from 16384 on.
pub(in crate::runbook) const QUESTION: &str = "SET CONSTRAINTS ALL IMMEDIATE \\; SET LOCAL search_path = pg_catalog, pg_temp;
SELECT jsonb_build_object(
    'counted', current_setting('track_counts')::bool,
    'large_objects', pg_stat_get_xact_tuples_deleted(2995) + pg_stat_get_xact_tuples_updated(2613)
        - coalesce((:'counted'::jsonb -> '2995' ->> 2)::int8, 0)
        - coalesce((:'counted'::jsonb -> '2613' ->> 1)::int8, 0),
    'tables', coalesce(jsonb_agg(jsonb_build_object(
        'oid', l.oid::int8, 'filenode', c.relfilenode::int8,
        'inserted', pg_stat_get_xact_tuples_inserted(l.oid) - coalesce((earlier.counts ->> 0)::int8, 0),
        'updated', pg_stat_get_xact_tuples_updated(l.oid) - coalesce((earlier.counts ->> 1)::int8, 0),
        'deleted', pg_stat_get_xact_tuples_deleted(l.oid) - coalesce((earlier.counts ->> 2)::int8, 0),
        'columns', (SELECT coalesce(jsonb_agg(a.attnum), '[]') FROM pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))), '[]')) AS changes
FROM (SELECT DISTINCT relation AS oid FROM pg_locks
      WHERE pid = pg_backend_pid() AND granted AND locktype = 'relation' AND relation >= 16384
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode NOT IN ('AccessShareLock', 'RowShareLock')) AS l
LEFT JOIN pg_class AS c ON c.oid = l.oid
LEFT JOIN LATERAL (SELECT :'counted'::jsonb -> l.oid::text AS counts) AS earlier ON true \\gset
";

/// What the counters hold before the transaction has done anything.
pub(in crate::runbook) const BASELINE: &str = "SELECT coalesce(pg_catalog.jsonb_object_agg(relid::pg_catalog.int8, pg_catalog.jsonb_build_array(n_tup_ins, n_tup_upd, n_tup_del)), '{}') AS counted FROM pg_catalog.pg_stat_xact_all_tables WHERE n_tup_ins OPERATOR(pg_catalog.>) 0 OR n_tup_upd OPERATOR(pg_catalog.>) 0 OR n_tup_del OPERATOR(pg_catalog.>) 0 \\gset\n";

/// [`BASELINE`] of a session that has counted nothing yet.
pub(in crate::runbook) const NO_BASELINE: &str = "\\set counted '{}'\n";

/// The answer to [`QUESTION`].
#[derive(Debug, Deserialize)]
pub(in crate::runbook) struct Changes {
    /// Whether rows were counted at all: `track_counts` takes a superuser to turn on.
    pub(super) counted: bool,
    pub(super) large_objects: i64,
    pub(super) tables: Vec<ChangedTable>,
}

/// A table that the transaction has locked in order to change it.
#[derive(Debug, Deserialize)]
pub(super) struct ChangedTable {
    pub(super) oid: u32,
    /// None where the table is gone.
    pub(super) filenode: Option<u32>,
    pub(super) inserted: i64,
    pub(super) updated: i64,
    pub(super) deleted: i64,
    /// Their numbers.
    pub(super) columns: BTreeSet<i16>,
}
