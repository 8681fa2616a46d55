//! sqlx's history table, `_sqlx_migrations`: read here, written by psql in the migration's own
//! transaction (see `runbook::apply`).

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use postgres::Client;
use postgres::types::Type;

use super::{Database, Server, USERS_PATH};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::quote::{quote_if_needed, quote_literal};
use crate::migration::source::Migration;

/// The table's name, unqualified, as sqlx has it.
pub(crate) const TABLE: &str = "_sqlx_migrations";

/// The history table.
pub(crate) struct Table {
    /// Its qualified name, where it is or where it is going to be: a migration that leaves another
    /// `search_path` behind must not hide it.
    pub(crate) name: String,
    pub(crate) exists: bool,
}

impl Table {
    fn of(server: &Server, found_in: Option<&str>) -> Table {
        let schema = found_in.or(server.schema.as_deref()).unwrap_or("public");
        Table {
            name: format!("{}.{TABLE}", quote_if_needed(schema)),
            exists: found_in.is_some(),
        }
    }

    fn read(self, client: &mut Client) -> Result<History> {
        let table = self;
        if !table.exists {
            let applied = Vec::new();
            return Ok(History { table, applied });
        }
        let rows = client
            .query_typed(
                &format!(
                    "SELECT version, description, installed_on, success, checksum, execution_time,
                            xmin::text
                     FROM {} ORDER BY version",
                    table.name
                ),
                &[],
            )
            .with_context(|| format!("cannot read the history table `{}`", table.name))?;
        let writers: Vec<String> = rows.iter().map(|row| row.get(6)).collect();
        let mut written: HashMap<&str, usize> = HashMap::new();
        for writer in &writers {
            *written.entry(writer).or_default() += 1;
        }
        let applied: Vec<Applied> = rows
            .iter()
            .zip(&writers)
            .map(|(row, writer)| Applied {
                version: row.get(0),
                description: row.get(1),
                installed_on: row.get(2),
                success: row.get(3),
                checksum: row.get(4),
                execution_time_ns: row.get(5),
                own_transaction: written[writer.as_str()] == 1,
            })
            .collect();
        Ok(History { table, applied })
    }
}

/// The history, as it was read.
pub(crate) struct History {
    pub(crate) table: Table,
    /// By version; none where the table does not exist.
    pub(crate) applied: Vec<Applied>,
}

impl History {
    /// The `installed_on` of a run that began at `clock`: later than all that the history has, also where
    /// the server's clock was set back since.
    pub(crate) fn next_installed_on(&self, clock: Timestamp) -> Timestamp {
        // The server counts microseconds.
        let after = |row: &Applied| row.installed_on + Duration::from_micros(1);
        let next = self.applied.iter().map(after).max();
        next.map_or(clock, |next| clock.max(next))
    }
}

/// Reads the history; makes no table.
///
/// # Errors
/// If the table cannot be read.
pub(crate) fn read(db: &mut Database) -> Result<History> {
    find(db)?.read(&mut db.client)
}

/// As [`read`], trusting what [`Database::inspect`] saw when it connected.
///
/// # Errors
/// If the table cannot be read.
pub(crate) fn read_known(db: &mut Database) -> Result<History> {
    let found_in = db.server.history_schema.as_deref();
    Table::of(&db.server, found_in).read(&mut db.client)
}

/// Looks where the table is now.
///
/// # Errors
/// If the server cannot be asked.
pub(crate) fn find(db: &mut Database) -> Result<Table> {
    let schema = schema_of("CASE WHEN path.was_set THEN '_sqlx_migrations' END");
    let found: Option<String> = db
        .client
        .query_typed_one(
            &format!("{USERS_PATH} SELECT {schema} FROM path"),
            &[(&db.server.search_path, Type::TEXT)],
        )?
        .get(0);
    Ok(Table::of(&db.server, found.as_deref()))
}

/// An expression for the schema in which this name (an expression, too) is found. It reads no table, and
/// takes the server a third of the time of a join that does.
pub(super) fn schema_of(name: &str) -> String {
    format!(
        "(pg_catalog.pg_identify_object_as_address(
             'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.to_regclass({name}), 0)).object_names[1]"
    )
}

/// The statement that makes the table, with sqlx's columns (sqlx-postgres, `migrate.rs`).
pub(crate) fn create_sql(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
    version bigint PRIMARY KEY,
    description text NOT NULL,
    installed_on timestamptz NOT NULL DEFAULT now(),
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
"
    )
}

/// The time since `BEGIN` in nanoseconds, as SQL; at least 1, also where the clock is set back meanwhile:
/// what is not positive was not run. date_part, because extract computes in numeric, which takes longer
/// than the INSERT.
pub(crate) const SINCE_BEGIN: &str = "greatest(1, (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.now()) OPERATOR(pg_catalog.*) 1000000000)::bigint)";

/// The `execution_time` of what is recorded without being run.
pub(crate) const UNRUN: &str = "0";

/// The prepared statement by which a session records the migration whose transaction it is in.
const RECORD: &str = "\"xtask: record\"";

/// What the statements that write the history fail with where they did not write exactly one row: a
/// policy, a trigger or a row that is there twice made them. 22012 is division_by_zero; one statement
/// that fails by itself costs no round trip, and the migration is rolled back with it.
pub(crate) const NOT_ONE_ROW: &str = "22012";

/// One row written, or an error, see [`NOT_ONE_ROW`]. It takes half as long again as the row itself.
pub(crate) fn exactly_one(write: &str) -> String {
    format!(
        "WITH written AS ({write} RETURNING 1) SELECT 1 OPERATOR(pg_catalog./) CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 THEN 1 ELSE 0 END FROM written"
    )
}

/// The statement that records a migration. `execution_time` is an SQL expression, in nanoseconds.
pub(crate) fn insert_sql(
    table: &str,
    migration: &Migration,
    installed_on: Timestamp,
    execution_time: &str,
) -> String {
    insert(table, installed_on, &key(migration), execution_time)
}

/// Prepares [`execute_sql`]: to parse and plan the INSERT takes the server longer than to run it
/// (0.1 ms for each migration, PostgreSQL 15).
pub(crate) fn prepare_sql(table: &str, installed_on: Timestamp) -> String {
    let insert = insert(table, installed_on, "$1, $2, $3", SINCE_BEGIN);
    format!("PREPARE {RECORD} AS {insert}")
}

/// Records a migration as [`insert_sql`] does with [`SINCE_BEGIN`], where the session has
/// [`prepare_sql`] behind it.
pub(crate) fn execute_sql(migration: &Migration) -> String {
    format!("EXECUTE {RECORD} ({})", key(migration))
}

fn insert(table: &str, installed_on: Timestamp, key: &str, execution_time: &str) -> String {
    format!(
        "INSERT INTO {table} (version, description, checksum, installed_on, success, execution_time) \
         VALUES ({key}, '{installed_on}', true, {execution_time})"
    )
}

/// Version, description and checksum.
fn key(migration: &Migration) -> String {
    format!(
        "{}, {}, '\\x{}'",
        migration.version,
        quote_literal(&migration.name),
        crate::hex::encode(&migration.checksum),
    )
}

/// Gives applied migrations other checksums, (version, old, new), in one transaction.
///
/// # Errors
/// If a row is not there exactly once with the old one, or the server says no; nothing is changed then.
pub(crate) fn restamp(
    client: &mut Client,
    table: &str,
    checksums: &[(i64, &[u8], &[u8])],
) -> Result {
    let mut transaction = client.transaction()?;
    for (version, old, new) in checksums {
        let rows = transaction
            .query_typed(
                &format!(
                    "UPDATE {table} SET checksum = $3
                     WHERE version = $1 AND checksum = $2 AND success RETURNING version"
                ),
                &[
                    (version, Type::INT8),
                    (old, Type::BYTEA),
                    (new, Type::BYTEA),
                ],
            )
            .with_context(|| format!("cannot write the history table `{table}`"))?;
        if rows.len() != 1 {
            return Err(Failure::finding(format!(
                "the history of `{version}` is not what it was when the files were compared"
            ))
            .cause(format!(
                "{} rows have this version and checksum and would be changed, not one",
                rows.len()
            ))
            .state("nothing was changed")
            .hint(Hint::run("db-status"))
            .hint(Hint::again("then"))
            .into());
        }
    }
    Ok(transaction.commit()?)
}

/// The statement that forgets a migration.
pub(crate) fn delete_sql(table: &str, version: i64) -> String {
    format!("DELETE FROM {table} WHERE version OPERATOR(pg_catalog.=) {version}")
}
