//! Proof of a backup: what a table holds, counted and hashed, whatever the order of its rows. The rows of
//! the dump are loaded into a scratch table (see `scratch`) while they are written to the file, and what
//! arrived is compared with what the table held.
//!
//! Nobody's code runs: of a value of a type that is not PostgreSQL's own, only the type's output
//! function is called, as pg_dump does.

use postgres::GenericClient;

use pg_connect::ConnInfo;

use crate::Context;
use crate::database::catalog::Column;
use crate::database::connect::{ConnectProblem, Connection};
use crate::database::{SESSION_OPTIONS, connect, own_session};
use crate::error::Result;
use crate::hint::Hint;
use crate::migration::quote::{quote_identifier, quote_if_needed};

/// The settings that decide how a value is written as text, and read again. pg_dump has the same, or
/// the first three of a value that reads the same.
const TEXT_SETTINGS: [(&str, &str); 10] = [
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("TimeZone", "UTC"),
    // If it were off, `{NULL}` would be an array with the word NULL. And a column may hold XML that is no
    // whole document.
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("search_path", "pg_catalog"),
    // If a policy hides rows, this makes an error of it.
    ("row_security", "off"),
    // Compiling a query would take longer than it saves.
    ("jit", "off"),
];

/// The encoding of a database that does not check its text: the bytes are copied as they are.
const ANY_BYTES: &str = "SQL_ASCII";

/// The encoding of a dump, by the server's own.
pub(super) fn dump_encoding(of_server: &str) -> &'static str {
    match of_server {
        ANY_BYTES => ANY_BYTES,
        _ => "UTF8",
    }
}

/// What a table holds, whatever the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    /// The sum of the rows' 64-bit hashes, in decimal.
    pub(crate) hash: String,
    /// Of each column, how many rows have a value other than NULL.
    pub(crate) values: Vec<u64>,
}

/// `SET LOCAL` of what [`content`] needs.
pub(crate) fn set_text_settings() -> String {
    TEXT_SETTINGS
        .iter()
        .map(|(name, value)| format!("SET LOCAL {name} = '{value}';"))
        .collect()
}

/// The settings as options of a session.
pub(super) fn text_options() -> String {
    TEXT_SETTINGS
        .iter()
        .map(|(name, value)| format!(" -c {name}={value}"))
        .collect()
}

/// A session in which values are written as [`content`] needs them.
pub(super) fn connect(ctx: &Context, target: &ConnInfo) -> Result<Connection> {
    let options = format!("{SESSION_OPTIONS}{}", text_options());
    let mut connection = connect::connect(target, &ctx.application_name, &options).map_err(|error| {
        let mut failure = *error.failure;
        if error.problem == ConnectProblem::TooManyConnections {
            let role = quote_if_needed(target.user());
            failure = failure
                .cause("a backup takes three connections, a migration with one takes four")
                .hint(format!(
                    "if it is the role's limit: psql -U postgres -c 'ALTER ROLE {role} CONNECTION LIMIT 5'; else close some connections"
                ))
                .hint(Hint::again("then"));
        }
        anyhow::Error::from(failure)
    })?;
    own_session(
        &mut connection.client,
        &ctx.application_name,
        &options,
        "NULL",
    )?;
    Ok(connection)
}

/// Counts and hashes a table's rows under [`set_text_settings`].
///
/// A row's hash is made of its columns' texts, each seeded with the hash of the columns before it, so that
/// a value that moves from one column to the next is noticed. NULL is hashed as `\N`. The sum of the hashes
/// does not depend on the order of the rows. Different rows have the same sum by chance once in 2^64; the
/// hash (lookup3) does not protect against intent. It takes about 0.4 s per million rows, less than half of
/// hashing `row::text`.
pub(crate) fn content(
    client: &mut impl GenericClient,
    table: &str,
    columns: &[Column],
) -> Result<Content> {
    let hash = columns.iter().fold("0".to_owned(), |seed, column| {
        let name = quote_identifier(&column.name);
        // A user-defined type may have a cast to text that differs from its output function, which `format`
        // calls. And `IS NOT NULL` is false for a composite value with a NULL in it.
        let text = match column.portable {
            true => format!("{name}::text"),
            false => format!(
                "CASE WHEN pg_catalog.num_nulls({name}) = 0 THEN pg_catalog.format('%s', {name}) END"
            ),
        };
        format!("pg_catalog.hashtextextended(coalesce({text}, '\\N') COLLATE \"C\", {seed})")
    });
    tally(
        client,
        table,
        columns,
        &format!("coalesce(pg_catalog.sum({hash}), 0)::text"),
    )
}

/// Counts a table's rows and values.
pub(crate) fn count(
    client: &mut impl GenericClient,
    table: &str,
    columns: &[Column],
) -> Result<Content> {
    tally(client, table, columns, "''")
}

fn tally(
    client: &mut impl GenericClient,
    table: &str,
    columns: &[Column],
    hash: &str,
) -> Result<Content> {
    // Each count takes time. A column that is NOT NULL has as many values as there are rows.
    let counts: Vec<String> = columns
        .iter()
        .filter(|column| !column.not_null)
        .map(|column| format!("pg_catalog.count({})", quote_identifier(&column.name)))
        .collect();
    let row = client.query_typed_one(
        &format!(
            "SELECT pg_catalog.count(*), {hash}, ARRAY[{}]::pg_catalog.int8[] FROM ONLY {table}",
            counts.join(", ")
        ),
        &[],
    )?;
    let rows = row.get::<_, i64>(0) as u64;
    let mut counted = row.get::<_, Vec<i64>>(2).into_iter();
    let values = columns.iter().map(|column| match column.not_null {
        true => rows,
        false => counted.next().unwrap_or(0) as u64,
    });
    Ok(Content {
        rows,
        hash: row.get(1),
        values: values.collect(),
    })
}
