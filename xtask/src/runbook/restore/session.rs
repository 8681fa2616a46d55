//! The session that merges.

use postgres::Client;

use crate::Context;
use crate::database::{Database, SESSION_OPTIONS, connect, own_session, pooler};
use crate::error::Result;
use crate::interrupt;

/// Settings of the session that merges: values are read as pg_dump writes them; a hash join of two
/// large tables is worth some memory; and where a policy hides rows that is an error.
const OPTIONS: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c array_nulls=on -c xmloption=content \
     -c work_mem=64MB -c row_security=off -c jit=off";

/// The session that merges; another one holds the migration lock and watches.
pub(super) struct MergeSession {
    pub(super) client: Client,
    pub(super) pid: i32,
    /// As it is configured, for the merge alone: what is temporary, also what the server drops when the
    /// session ends, waits for no standby.
    pub(super) synchronous_commit: String,
    /// The user's; the session itself has our own.
    pub(super) search_path: String,
}

impl MergeSession {
    pub(super) fn open(ctx: &Context, db: &mut Database) -> Result<MergeSession> {
        let lock_timeout = db.server.lock_wait.as_millis();
        let options = format!("{SESSION_OPTIONS} {OPTIONS} -c lock_timeout={lock_timeout}");
        let connection = connect::connect(&db.server.target, &ctx.application_name, &options)?;
        let canceller = connection.canceller();
        interrupt::on_signal(move || {
            let _ = canceller.cancel();
        });
        let mut client = connection.client;
        let asked = own_session(
            &mut client,
            &ctx.application_name,
            &options,
            "pg_catalog.current_setting('search_path')",
        )?;
        let search_path = asked.get(0).unwrap_or_default().to_owned();
        let row = client.query_typed_one(
            "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('synchronous_commit')",
            &[],
        )?;
        let (pid, synchronous_commit) = (row.get(0), row.get(1));
        client.batch_execute("SET synchronous_commit = local")?;
        if pid == db.server.backend_pid {
            return Err(pooler::failure(&mut db.client, &db.server).into());
        }
        Ok(MergeSession {
            client,
            pid,
            synchronous_commit,
            search_path,
        })
    }
}
