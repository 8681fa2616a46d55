//! Which database this is, and where its server is in its history.

use postgres::GenericClient;

use crate::error::Result;

/// Which database this is, however it is reached and whatever it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Of the cluster, given once by `initdb`; none where this role may not see it.
    pub(crate) system_identifier: Option<String>,
    pub(crate) oid: u32,
}

/// Asks the database which it is.
///
/// # Errors
/// If the query fails.
pub(crate) fn identity(client: &mut impl GenericClient) -> Result<Identity> {
    let row = client.query_typed_one(
        "SELECT oid, pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
         FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
        &[],
    )?;
    let (oid, allowed): (u32, bool) = (row.get(0), row.get(1));
    let system_identifier = match allowed {
        true => client
            .query_typed_one(
                "SELECT system_identifier::text FROM pg_catalog.pg_control_system()",
                &[],
            )?
            .get(0),
        false => None,
    };
    Ok(Identity {
        system_identifier,
        oid,
    })
}

/// Where a server is in its history. A copy of its files has the same [`Identity`], and another history
/// from then on: another timeline once it was promoted.
#[derive(Clone, Debug)]
pub(crate) struct WalPosition {
    /// As PostgreSQL writes it: `16/B374D848`.
    pub(crate) lsn: String,
    /// None on a standby.
    pub(crate) timeline: Option<u32>,
}

/// Asks the server where it is in its history.
///
/// # Errors
/// If the query fails.
pub(crate) fn wal_position(client: &mut impl GenericClient) -> Result<WalPosition> {
    // The first eight digits of a WAL file's name are its timeline.
    let row = client.query_typed_one(
        "SELECT (CASE WHEN standby THEN pg_catalog.pg_last_wal_replay_lsn()
                      ELSE pg_catalog.pg_current_wal_lsn() END)::text,
                CASE WHEN NOT standby
                     THEN pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END
         FROM pg_catalog.pg_is_in_recovery() AS standby",
        &[],
    )?;
    let timeline: Option<String> = row.get(1);
    Ok(WalPosition {
        lsn: row.get(0),
        timeline: timeline.and_then(|digits| u32::from_str_radix(&digits, 16).ok()),
    })
}
