//! The columns of a table, and the sequences that belong to them.

use postgres::types::Type;
use postgres::{Client, GenericClient};

use crate::error::Result;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `pg_attribute.attnum`: never given twice in a table, so a column that was dropped and added again
    /// has another.
    pub(crate) number: i16,
    /// As `format_type` writes it: `character varying(80)`, `public.citext`.
    pub(crate) type_name: String,
    /// Whether each of its rows has a value, by a constraint that was checked.
    pub(crate) not_null: bool,
    /// Whether every database of this server's version has the type and writes its values alike.
    pub(crate) portable: bool,
    /// `GENERATED ALWAYS AS (…)`: computed, so neither dumped nor restored.
    pub(crate) generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: an UPDATE may not set it.
    pub(crate) always_identity: bool,
}

/// The columns of a table, in its order.
///
/// # Errors
/// If the query fails.
pub(crate) fn columns(client: &mut impl GenericClient, table: u32) -> Result<Vec<Column>> {
    // Money and names of objects are written differently from one database to the next.
    let rows = client.query_typed(
        "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
                t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
                    AND t.typname !~ '^_?(money|aclitem|reg.*)$',
                a.attgenerated <> '', a.attidentity = 'a', a.attnum,
                a.attnotnull AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_constraint AS n
                    WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND NOT n.convalidated
                      AND a.attnum = ANY (n.conkey))
         FROM pg_catalog.pg_attribute AS a
         JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
        &[(&table, Type::OID)],
    )?;
    Ok(rows
        .iter()
        .map(|row| Column {
            name: row.get(0),
            type_name: row.get(1),
            portable: row.get(2),
            generated: row.get(3),
            always_identity: row.get(4),
            number: row.get(5),
            not_null: row.get(6),
        })
        .collect())
}

/// The number of a table's column, which it keeps when it is renamed.
///
/// # Errors
/// If the query fails.
pub(crate) fn column_number(client: &mut Client, table: u32, column: &str) -> Result<Option<i16>> {
    let row = client.query_typed_opt(
        "SELECT attnum FROM pg_catalog.pg_attribute
         WHERE attrelid = $1 AND attname = $2::text AND NOT attisdropped",
        &[(&table, Type::OID), (&column, Type::TEXT)],
    )?;
    Ok(row.map(|row| row.get(0)))
}

/// The columns of a table whose type is a domain, and the type beneath, through domains over domains.
///
/// # Errors
/// If the query fails.
pub(crate) fn domain_columns(
    client: &mut impl GenericClient,
    table: u32,
) -> Result<Vec<(String, String)>> {
    let rows = client.query_typed(
        "WITH RECURSIVE beneath (name, type, modifier) AS (
             SELECT attname, atttypid, atttypmod FROM pg_catalog.pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
             UNION ALL
             SELECT b.name, t.typbasetype, t.typtypmod
             FROM beneath AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.type AND t.typtype = 'd')
         SELECT b.name::text, pg_catalog.format_type(b.type, b.modifier)
         FROM beneath AS b
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = $1 AND a.attname = b.name AND a.atttypid <> b.type
         JOIN pg_catalog.pg_type AS t ON t.oid = b.type AND t.typtype <> 'd'",
        &[(&table, Type::OID)],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A sequence that belongs to a column: `serial` or identity.
#[derive(Clone, Debug)]
pub(crate) struct OwnedSequence {
    pub(crate) oid: u32,
    pub(crate) column: String,
    /// Qualified and quoted.
    pub(crate) name: String,
    /// Whether it counts upwards.
    pub(crate) ascending: bool,
    /// The last value that it gave out; none where it gave none, or this role may not see it.
    pub(crate) last_value: Option<i64>,
}

/// The sequences that belong to a table's columns.
///
/// # Errors
/// If the query fails.
pub(crate) fn owned_sequences(
    client: &mut impl GenericClient,
    table: u32,
) -> Result<Vec<OwnedSequence>> {
    let rows = client.query_typed(
        "SELECT a.attname::text,
                pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
                q.seqincrement > 0,
                CASE WHEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE')
                     THEN pg_catalog.pg_sequence_last_value(c.oid) END,
                c.oid
         FROM pg_catalog.pg_depend AS d
         JOIN pg_catalog.pg_sequence AS q ON q.seqrelid = d.objid
         JOIN pg_catalog.pg_class AS c ON c.oid = d.objid
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.refobjid = $1 AND d.deptype IN ('a', 'i')
         ORDER BY a.attnum",
        &[(&table, Type::OID)],
    )?;
    Ok(rows
        .iter()
        .map(|row| OwnedSequence {
            column: row.get(0),
            name: row.get(1),
            ascending: row.get(2),
            last_value: row.get(3),
            oid: row.get(4),
        })
        .collect())
}
