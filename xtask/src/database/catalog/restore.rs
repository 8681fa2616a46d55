//! What a restore must know of a table before it writes to it: its keys and its triggers.

use postgres::GenericClient;
use postgres::types::Type;

use crate::error::Result;

/// The primary key's columns, in its order; none where there is none.
///
/// # Errors
/// If the query fails.
pub(crate) fn primary_key(client: &mut impl GenericClient, table: u32) -> Result<Vec<String>> {
    let rows = client.query_typed(
        "SELECT a.attname::text
         FROM pg_catalog.pg_index AS i
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = $1 AND i.indisprimary AND k.place <= i.indnkeyatts
         ORDER BY k.place",
        &[(&table, Type::OID)],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// By which operator each column of a key or index is equal, as SQL: that of its operator class, which
/// for a type of an extension's is not PostgreSQL's own. Only a B-tree's third operator is equality: of a
/// key WITHOUT OVERLAPS (18), which is a GiST index, it is that of the B-tree that the type has by default.
/// 403 is B-tree among the access methods.
const EQUALITY: &str = "ARRAY(
    SELECT coalesce(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname), '=')
    FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k (opclass, place)
    JOIN pg_catalog.pg_opclass AS own ON own.oid = k.opclass
    LEFT JOIN pg_catalog.pg_opclass AS c
         ON c.opcmethod = 403 AND CASE own.opcmethod WHEN 403 THEN c.oid = own.oid
                                  ELSE c.opcintype = own.opcintype AND c.opcdefault END
    LEFT JOIN pg_catalog.pg_amop AS a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
         AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
    LEFT JOIN pg_catalog.pg_operator AS o ON o.oid = a.amopopr
    LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
    ORDER BY k.place)";

/// By which operator each column of the primary key is equal, in its order.
///
/// # Errors
/// If the query fails.
pub(crate) fn primary_key_equality(
    client: &mut impl GenericClient,
    table: u32,
) -> Result<Vec<String>> {
    let row = client.query_typed_opt(
        &format!(
            "SELECT {EQUALITY} FROM pg_catalog.pg_index AS i WHERE i.indrelid = $1 AND i.indisprimary"
        ),
        &[(&table, Type::OID)],
    )?;
    Ok(row.map_or_else(Vec::new, |row| row.get(0)))
}

/// Triggers of users that fire in this session, and whether `ENABLE ALWAYS` says so.
///
/// # Errors
/// If the query fails.
pub(crate) fn firing_triggers(
    client: &mut impl GenericClient,
    table: u32,
) -> Result<Vec<(String, bool)>> {
    let rows = client.query_typed(
        "SELECT tgname::text, tgenabled = 'A' FROM pg_catalog.pg_trigger
         WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY tgname",
        &[(&table, Type::OID)],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A unique index that is not the primary key's.
#[derive(Clone, Debug)]
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    /// What must be unique, as SQL over the table's columns.
    pub(crate) expressions: Vec<String>,
    /// Of which rows, as SQL.
    pub(crate) predicate: Option<String>,
    pub(crate) nulls_not_distinct: bool,
    /// The columns that any of it reads.
    pub(crate) columns: Vec<String>,
    /// By which operator each expression is equal, as SQL.
    equality: Vec<String>,
}

impl UniqueIndex {
    /// Names for its expressions.
    pub(crate) fn names(&self) -> Vec<String> {
        (1..=self.expressions.len())
            .map(|n| format!("k{n}"))
            .collect()
    }

    /// That these two have the same value, by their [`UniqueIndex::names`].
    pub(crate) fn same(&self, left: &str, right: &str) -> String {
        let same = self
            .names()
            .into_iter()
            .zip(&self.equality)
            .map(|(name, equals)| {
                let same = format!("{left}.{name} {equals} {right}.{name}");
                match self.nulls_not_distinct {
                    true => format!("({same} OR {left}.{name} IS NULL AND {right}.{name} IS NULL)"),
                    false => same,
                }
            });
        same.collect::<Vec<_>>().join(" AND ")
    }
}

/// The unique indexes of a table, without its primary key's.
///
/// # Errors
/// If the query fails.
pub(crate) fn unique_indexes(
    client: &mut impl GenericClient,
    table: u32,
) -> Result<Vec<UniqueIndex>> {
    let rows = client.query_typed(
        &format!(
            "SELECT c.relname::text,
                ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k, true)
                      FROM pg_catalog.generate_series(1, i.indnkeyatts::int4) AS k ORDER BY k),
                pg_catalog.pg_get_expr(i.indpred, i.indrelid, true),
                coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
                ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                      WHERE a.attrelid = i.indrelid AND a.attnum > 0
                        AND (a.attnum = ANY (i.indkey)
                             OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                          AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
                                          AND d.refobjsubid = a.attnum))),
                {EQUALITY}
         FROM pg_catalog.pg_index AS i
         JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
         WHERE i.indrelid = $1 AND i.indisunique AND NOT i.indisprimary AND i.indislive
         ORDER BY 1"
        ),
        &[(&table, Type::OID)],
    )?;
    Ok(rows
        .iter()
        .map(|row| UniqueIndex {
            name: row.get(0),
            expressions: row.get(1),
            predicate: row.get(2),
            nulls_not_distinct: row.get(3),
            columns: row.get(4),
            equality: row.get(5),
        })
        .collect())
}
