//! Unique values: which would be there twice, and those that move between rows that are there (two emails
//! swapped, one passed on).
//!
//! An UPDATE checks a unique index row by row, so the row that still has a value that another one is to
//! take is parked first, in the same transaction: the column gets NULL, or a value that no row has.

use postgres::types::Type;
use postgres::{Client, GenericClient, Transaction};

use super::plan::{Plan, SHOWN};
use crate::database::catalog::{self, UniqueIndex};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::quote::quote_identifier;

impl Plan {
    /// Values that must be unique and would be there twice: index, value, the key of the row that
    /// would take it, and of the row that has it. Indexes on columns that the backup lacks are left
    /// to the server.
    pub(super) fn conflicts(&self, client: &mut Client) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for index in catalog::unique_indexes(client, self.oid)? {
            let needed: Vec<String> = index
                .columns
                .iter()
                .map(|name| quote_identifier(name))
                .collect();
            if !needed.iter().all(|name| self.common.contains(name)) {
                continue;
            }
            let keys = index.expressions.join(", ");
            let predicate = index.predicate.as_deref().unwrap_or("true");
            let names = index.names();
            let values: Vec<String> = names.iter().map(|name| format!("w.{name}")).collect();
            let aliases = names.join(", ");
            let rows = client.query_typed(
                &format!(
                    "WITH written AS MATERIALIZED ({written}),
                     final AS ({after}),
                     w (xtask_key, {aliases}) AS (SELECT xtask_key, {keys} FROM written WHERE {predicate}),
                     f (xtask_key, {aliases}) AS (SELECT xtask_key, {keys} FROM final WHERE {predicate})
                     SELECT ROW({values})::text, w.xtask_key, f.xtask_key FROM w JOIN f ON {same}
                     WHERE w.xtask_key <> f.xtask_key ORDER BY 2 LIMIT {SHOWN}",
                    written = self.written_sql(&needed),
                    after = self.final_sql(&needed),
                    values = values.join(", "),
                    same = index.same("w", "f"),
                ),
                &[],
            )?;
            for row in rows {
                let (value, wants, has): (String, String, String) =
                    (row.get(0), row.get(1), row.get(2));
                found.push(format!(
                    "{}: the backup's row {wants} has {value}, which belongs to row {has} now",
                    index.name
                ));
            }
        }
        found.extend(self.stuck(client)?);
        found.truncate(SHOWN);
        Ok(found)
    }

    /// Parks them. The rows are the comparison's afterwards as before.
    pub(super) fn park(&self, transaction: &mut Transaction<'_>) -> Result {
        for index in self.restorable_indexes(transaction)? {
            let Some((column, placeholder)) = self.placeholder(transaction, &index)? else {
                continue;
            };
            transaction.batch_execute(&format!(
                "WITH moving AS ({moving}), parked AS (
                     UPDATE ONLY {table} AS l SET {column} = {placeholder}
                     FROM {changes} AS c JOIN {staging} AS s ON s.ctid = c.at
                     JOIN moving AS m ON m.xtask_at = c.at
                     WHERE NOT c.missing AND {same_key} AND {unchanged}
                     RETURNING c.at, l.ctid AS seen_at, l.xmin AS seen_by)
                 UPDATE {changes} AS c SET seen_at = p.seen_at, seen_by = p.seen_by
                 FROM parked AS p WHERE p.at = c.at",
                moving = self.moving_sql(&index),
                changes = self.changes,
                staging = self.staging,
                table = self.table,
                same_key = self.same_key("l", "s"),
                unchanged = self.unchanged(),
            ))?;
        }
        Ok(())
    }

    /// Rows whose values move, and cannot be parked.
    pub(super) fn stuck(&self, client: &mut impl GenericClient) -> Result<Vec<String>> {
        let mut stuck = Vec::new();
        for index in self.restorable_indexes(client)? {
            if self.placeholder(client, &index)?.is_some() {
                continue;
            }
            let moving = self.moving_sql(&index);
            let rows = client.query_typed(
                &format!("SELECT xtask_key FROM ({moving}) AS m ORDER BY 1 LIMIT {SHOWN}"),
                &[],
            )?;
            stuck.extend(rows.iter().map(|row| {
                format!(
                    "{}: the value of row {} is to go to another row, and no column of the index can be set aside meanwhile",
                    index.name,
                    row.get::<_, String>(0)
                )
            }));
        }
        Ok(stuck)
    }

    /// The unique indexes whose columns the backup holds, of which one is written.
    fn restorable_indexes(&self, client: &mut impl GenericClient) -> Result<Vec<UniqueIndex>> {
        let mut indexes = catalog::unique_indexes(client, self.oid)?;
        indexes.retain(|index| {
            let mut needed = index.columns.iter().map(|name| quote_identifier(name));
            needed.clone().all(|name| self.common.contains(&name))
                && needed.any(|name| self.updated_columns.contains(&name))
        });
        Ok(indexes)
    }

    /// The rows that have a value now that another row is to have: `xtask_at` (in the staging table),
    /// `xtask_key` and a number of each.
    fn moving_sql(&self, index: &UniqueIndex) -> String {
        let needed: Vec<String> = index
            .columns
            .iter()
            .map(|name| quote_identifier(name))
            .collect();
        let live: Vec<String> = needed.iter().map(|name| format!("l.{name}")).collect();
        format!(
            "WITH old AS MATERIALIZED (
                 SELECT c.at AS xtask_at, {live_key} AS xtask_key, {live}
                 FROM {changes} AS c JOIN {staging} AS s ON s.ctid = c.at
                 JOIN ONLY {table} AS l ON {same_key}
                 WHERE NOT c.missing AND {unchanged}),
             new AS MATERIALIZED ({written}),
             o (xtask_at, xtask_key, {aliases}) AS (
                 SELECT xtask_at, xtask_key, {keys} FROM old WHERE {predicate}),
             w (xtask_key, {aliases}) AS (SELECT xtask_key, {keys} FROM new WHERE {predicate})
             SELECT xtask_at, xtask_key, pg_catalog.row_number() OVER () AS n
             FROM (SELECT DISTINCT o.xtask_at, o.xtask_key FROM o JOIN w ON {same}
                   WHERE o.xtask_key <> w.xtask_key) AS moving",
            live_key = self.key_text("l"),
            live = live.join(", "),
            changes = self.changes,
            staging = self.staging,
            written = self.written_sql(&needed),
            table = self.table,
            same_key = self.same_key("l", "s"),
            unchanged = self.unchanged(),
            aliases = index.names().join(", "),
            keys = index.expressions.join(", "),
            predicate = index.predicate.as_deref().unwrap_or("true"),
            same = index.same("w", "o"),
        )
    }

    /// A column of the index that can be set aside, and what to set it to, as SQL.
    fn placeholder(
        &self,
        client: &mut impl GenericClient,
        index: &UniqueIndex,
    ) -> Result<Option<(String, String)>> {
        let rows = client.query_typed(
            "SELECT a.attname::text, a.attnotnull OR t.typnotnull, t.typcategory::text,
                    t.typname::text, t.typtype::text,
                    CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4
                         THEN a.atttypmod - 4 END
             FROM pg_catalog.pg_attribute AS a
             JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
             WHERE a.attrelid = $1 AND a.attname::text = ANY ($2) ORDER BY a.attnum",
            &[(&self.oid, Type::OID), (&index.columns, Type::TEXT_ARRAY)],
        )?;
        let (table, staging) = (&self.table, &self.staging);
        for row in rows {
            let bare: String = row.get(0);
            let name = quote_identifier(&bare);
            // A column that only the predicate reads would leave the value where it is.
            let is_key = index.expressions.iter().any(|key| key.contains(&bare));
            if !is_key || !self.updated_columns.contains(&name) {
                continue;
            }
            let (not_null, category): (bool, String) = (row.get(1), row.get(2));
            let (type_name, kind): (String, String) = (row.get(3), row.get(4));
            let length: Option<i32> = row.get(5);
            // Only what the index reads as it is: an expression may make a value of NULL.
            if !not_null
                && !index.nulls_not_distinct
                && index
                    .expressions
                    .iter()
                    .any(|key| *key == bare || *key == name)
            {
                return Ok(Some((name, "NULL".to_owned())));
            }
            // Where NULLs are not distinct, it may be a NULL that has to make way.
            let farthest = |none: &str| {
                format!(
                    "coalesce(greatest((SELECT pg_catalog.max({name}) FROM ONLY {table}), (SELECT pg_catalog.max({name}) FROM {staging})), '{none}')"
                )
            };
            let unused = "pg_catalog.gen_random_uuid()";
            let placeholder = match (&*category, &*type_name, length) {
                _ if kind != "b" => continue,
                ("S", "char" | "name", _) => continue,
                // What it begins with stays: a check may want it so.
                ("S", _, None) => format!("pg_catalog.concat(l.{name}, {unused})"),
                ("S", _, Some(length)) if length > 40 => {
                    format!(
                        "pg_catalog.concat(pg_catalog.left(l.{name}::text, {}), {unused})",
                        length - 36
                    )
                }
                ("S", _, Some(length)) => {
                    format!("pg_catalog.left(pg_catalog.md5({unused}::text), {length})")
                }
                ("N", "int2" | "int4" | "int8" | "numeric" | "float8" | "float4", _) => {
                    format!("{} + m.n", farthest("0"))
                }
                ("D", "date" | "timestamp" | "timestamptz", _) => {
                    format!("{} + m.n * '1 day'::pg_catalog.interval", farthest("epoch"))
                }
                ("U", "uuid", _) => unused.to_owned(),
                _ => continue,
            };
            return Ok(Some((name, placeholder)));
        }
        Ok(None)
    }
}

/// Values that must be unique belong to other rows now.
pub(super) fn conflict(tables: &str, conflicts: Vec<String>) -> Failure {
    let mut failure = Failure::finding(format!(
        "the backup cannot be merged into {tables}: values that must be unique belong to other rows now"
    ))
    .sqlstate("23505");
    failure.causes = conflicts;
    failure.state("nothing was restored").hint(Hint::again_with(
        "change the rows that have these values now, then",
        "--dry-run",
    ))
}
