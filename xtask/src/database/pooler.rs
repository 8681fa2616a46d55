//! Behind a transaction-pooling proxy a session lock means nothing: the next statement may run in
//! another session of the server. Such a proxy is found out by what it does, not by its name.

use postgres::Client;
use postgres::types::Type;

use super::Server;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::lock_id;

/// The way around a proxy.
pub(crate) fn directly() -> Hint {
    Hint::again_with(
        "connect to the server itself, or through a session-pooling port",
        "--database-url postgres://SERVER:5432/DATABASE",
    )
}

/// Whether a proxy is between this and the server, as far as two connections in turn show it: they have
/// one session, or this one has another than at the beginning. Takes no lock.
///
/// # Errors
/// If the server cannot be asked.
pub(crate) fn is_between(client: &mut Client, server: &Server, other: &mut Client) -> Result<bool> {
    let pid = |client: &mut Client| -> Result<i32> {
        let row = client.query_typed_one("SELECT pg_catalog.pg_backend_pid()", &[])?;
        Ok(row.get(0))
    };
    for _ in 0..3 {
        let (others, ours) = (pid(other)?, pid(client)?);
        if ours != server.backend_pid || ours == others {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that this connection is one session of the server: the same process serves it as at the
/// beginning, and that process holds the advisory lock that was just taken.
///
/// # Errors
/// If it is not.
pub(crate) fn refuse(client: &mut Client, server: &Server) -> Result {
    let key = lock_id(&server.name);
    for _ in 0..2 {
        let row = client.query_typed_one(
            "SELECT pg_catalog.pg_backend_pid(),
                    EXISTS (SELECT FROM pg_catalog.pg_locks
                            WHERE pid = pg_catalog.pg_backend_pid() AND granted
                              AND locktype = 'advisory' AND classid = $1 AND objid = $2)",
            &[
                (&((key >> 32) as u32), Type::OID),
                (&(key as u32), Type::OID),
            ],
        )?;
        let (pid, holds_lock): (i32, bool) = (row.get(0), row.get(1));
        if pid != server.backend_pid || !holds_lock {
            return Err(failure(client, server).into());
        }
    }
    Ok(())
}

/// What to say where two connections of ours turn out to be one session, or one to be two. The
/// proxy's session goes on, so the lock is given back, from whichever session gets this.
pub(crate) fn failure(client: &mut Client, server: &Server) -> Failure {
    let key = lock_id(&server.name);
    let unlock = "SELECT pg_catalog.pg_advisory_unlock_all(), pg_catalog.pg_try_advisory_lock($1), pg_catalog.pg_advisory_unlock($1)";
    for _ in 0..10 {
        // To have had it means that nobody else has it.
        match client.query_typed_one(unlock, &[(&key, Type::INT8)]) {
            Ok(row) if row.get(1) => break,
            _ => {}
        }
    }
    refusal().state("nothing was changed")
}

/// What is wrong with a proxy.
pub(crate) fn refusal() -> Failure {
    Failure::failed("a transaction-pooling proxy is between this and the server")
        .cause("the statements of one connection do not reach one session, so a session lock protects nothing")
        .hint(directly())
}
