//! The session behind a dump: it holds the lock on the table and the exported snapshot while others read.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::Client;
use postgres::types::Type;

use super::job::Job;
use super::proof::{self, Content};
use crate::database::KEEP_ALIVE_EVERY;
use crate::database::activity;
use crate::database::catalog::{self, Column, Identity, OwnedSequence, WalPosition};
use crate::error::Result;

/// How often to check whether a session waits for our lock, until pg_dump has its own.
const MAKE_WAY_EVERY: Duration = Duration::from_millis(20);

/// The table and the server as the exported snapshot shows them.
pub(super) struct Snapshot {
    /// For pg_dump's `--snapshot`.
    pub(super) id: String,
    pub(super) at: Timestamp,
    /// By the server's statistics.
    pub(super) expected_rows: u64,
    /// Those that a dump holds: generated columns are not among them.
    pub(super) columns: Vec<Column>,
    pub(super) primary_key: Vec<String>,
    pub(super) sequences: Vec<OwnedSequence>,
    pub(super) wal: WalPosition,
    pub(super) identity: Identity,
}

/// Our session, in a transaction that locked the table before it took its snapshot.
pub(super) struct SnapshotSession<'a> {
    job: &'a Job<'a>,
    client: &'a mut Client,
    last_query: Instant,
}

impl<'a> SnapshotSession<'a> {
    pub(super) fn new(job: &'a Job<'a>, client: &'a mut Client) -> SnapshotSession<'a> {
        SnapshotSession {
            job,
            client,
            last_query: Instant::now(),
        }
    }

    /// Exports the snapshot, and reads what the manifest says of it.
    pub(super) fn export(&mut self) -> Result<Snapshot> {
        let (client, table) = (&mut *self.client, self.job.table);
        let row = client.query_typed_one(
            "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(),
                    pg_catalog.to_regclass($2::text)::oid IS NOT DISTINCT FROM $1,
                    (SELECT greatest(reltuples::int8, pg_catalog.pg_stat_get_live_tuples(oid), 0)
                     FROM pg_catalog.pg_class WHERE oid = $1)",
            &[(&table.oid, Type::OID), (&self.job.qualified, Type::TEXT)],
        )?;
        if !row.get::<_, bool>(2) {
            return Err(self.job.was_replaced().into());
        }
        Ok(Snapshot {
            id: row.get(0),
            at: row.get(1),
            expected_rows: row.get::<_, Option<i64>>(3).unwrap_or(0) as u64,
            wal: catalog::wal_position(client)?,
            identity: catalog::identity(client)?,
            sequences: catalog::owned_sequences(client, table.oid)?,
            primary_key: catalog::primary_key(client, table.oid)?,
            columns: dumped_columns(client, table.oid)?,
        })
    }

    /// Whether a session waits for our lock. Asks the server only every [`MAKE_WAY_EVERY`].
    pub(super) fn is_waited_for(&mut self) -> bool {
        if self.last_query.elapsed() < MAKE_WAY_EVERY {
            return false;
        }
        self.last_query = Instant::now();
        // If the query fails, the next attempt reports why.
        activity::somebody_waits_for_us(self.client, self.job.table.oid).unwrap_or(true)
    }

    /// The server ends a transaction that is idle for long, because its client may be gone.
    pub(super) fn keep_alive(&mut self) {
        if self.last_query.elapsed() >= KEEP_ALIVE_EVERY {
            self.last_query = Instant::now();
            let _ = self.client.batch_execute("");
        }
    }

    pub(super) fn count(&mut self, columns: &[Column]) -> Result<Content> {
        let counted = proof::count(self.client, &self.job.qualified, columns);
        self.last_query = Instant::now();
        counted.context("cannot read the table")
    }

    pub(super) fn content(&mut self, columns: &[Column]) -> Result<Content> {
        let content = proof::content(self.client, &self.job.qualified, columns);
        self.last_query = Instant::now();
        content.context("cannot read the table")
    }

    pub(super) fn check_readable(&mut self) -> Result {
        let read = format!("SELECT FROM ONLY {} LIMIT 0", self.job.qualified);
        let read = self.client.batch_execute(&read);
        read.context("cannot read the table")
    }
}

fn dumped_columns(client: &mut Client, table: u32) -> Result<Vec<Column>> {
    let mut columns = catalog::columns(client, table)?;
    columns.retain(|column| !column.generated);
    Ok(columns)
}
