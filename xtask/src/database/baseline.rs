//! Comparing the schema that migration files make with the one that is there: the files run with
//! the session's temporary schema in front, so that what they create lands beside the live
//! tables; the two are compared in the catalog; and all of it is rolled back.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use postgres::Transaction;
use postgres::types::Type;

use super::Database;
use crate::error::{Failure, Result};
use crate::migration::script::Script;

/// How the live schema differs from what the files make.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// The files make it, and it is missing or different.
    pub(crate) missing: Vec<String>,
    /// It is there, and the files do not make it.
    pub(crate) extra: Vec<String>,
    /// How many tables were compared.
    pub(crate) tables: usize,
}

/// Runs the scripts beside the live schema, compares, and rolls back.
///
/// # Errors
/// If a script fails there; one that names its schema cannot be compared this way.
pub(crate) fn compare(db: &mut Database, scripts: &[&Script]) -> Result<Differences> {
    let live_schema = db
        .server
        .schema
        .clone()
        .unwrap_or_else(|| "public".to_owned());
    let mut transaction = db.client.transaction()?;
    let path: String = transaction
        .query_typed_one("SELECT pg_catalog.current_setting('search_path')", &[])?
        .get(0);
    let (beside, behind) = (format!("pg_temp, {path}"), format!("{path}, pg_temp"));
    search(&mut transaction, &beside)?;
    for script in scripts {
        transaction.batch_execute(&script.text).map_err(|error| {
            let failure = crate::runbook::failures::from_error(&anyhow::Error::from(error));
            Failure {
                message: format!("cannot compare `{}` with the live schema", script.path.display()),
                causes: [vec![failure.message], failure.causes].concat(),
                hints: vec![
                    "a file that names its schema (`CREATE TABLE public.…`) cannot run beside the live one: leave the schema to the search path, then: cargo xtask db-baseline".to_owned(),
                ],
                ..failure
            }
        })?;
    }
    let temp: Option<String> = transaction
        .query_typed_one(
            "SELECT (SELECT nspname::text FROM pg_catalog.pg_namespace
                     WHERE oid = pg_catalog.pg_my_temp_schema())",
            &[],
        )?
        .get(0);
    // The catalog names without its schema what the search path finds first: the same things are
    // described in the same words.
    search(&mut transaction, &beside)?;
    let wanted = match &temp {
        Some(temp) => describe(&mut transaction, temp)?,
        None => Schema::default(),
    };
    search(&mut transaction, &behind)?;
    let live = describe(&mut transaction, &live_schema)?;
    transaction.rollback()?;
    Ok(differences(&wanted, &live))
}

fn search(transaction: &mut Transaction<'_>, path: &str) -> Result {
    transaction.execute(
        "SELECT pg_catalog.set_config('search_path', $1, true)",
        &[&path],
    )?;
    Ok(())
}

/// Tables, each with its properties as text.
type Schema = BTreeMap<String, BTreeSet<String>>;

/// Columns, constraints and indexes of every table in a schema, as lines that are equal if they are.
fn describe(transaction: &mut Transaction<'_>, schema: &str) -> Result<Schema> {
    // Names of constraints and indexes are left out: what they do counts. NOT NULL, which newer
    // servers keep as a constraint too (18), is told by the column.
    let rows = transaction
        .query_typed(
            "WITH tables AS (
                 SELECT oid, relname FROM pg_catalog.pg_class
                 WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text)
                   AND relkind IN ('r', 'p'))
             SELECT t.relname::text, pg_catalog.format('column %s %s%s%s%s', a.attname,
                        pg_catalog.format_type(a.atttypid, a.atttypmod),
                        CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                        CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY' END,
                        coalesce(' DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''))
             FROM tables AS t
             JOIN pg_catalog.pg_attribute AS a
                  ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             UNION ALL
             SELECT t.relname::text, 'constraint ' || pg_catalog.pg_get_constraintdef(c.oid)
             FROM tables AS t
             JOIN pg_catalog.pg_constraint AS c ON c.conrelid = t.oid AND c.contype <> 'n'
             UNION ALL
             SELECT t.relname::text, pg_catalog.regexp_replace(
                        pg_catalog.pg_get_indexdef(i.indexrelid), ' INDEX .* USING ', ' INDEX USING ')
             FROM tables AS t
             JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS c WHERE c.conindid = i.indexrelid)
             UNION ALL
             SELECT t.relname::text, NULL FROM tables AS t",
            &[(&schema, Type::TEXT)],
        )
        .with_context(|| format!("cannot describe schema `{schema}`"))?;
    let mut tables = Schema::new();
    for row in rows {
        let properties = tables.entry(row.get(0)).or_default();
        if let Some(property) = row.get::<_, Option<String>>(1) {
            properties.insert(property);
        }
    }
    Ok(tables)
}

fn differences(wanted: &Schema, live: &Schema) -> Differences {
    let mut result = Differences {
        tables: wanted.len(),
        ..Differences::default()
    };
    for (table, properties) in wanted {
        let Some(there) = live.get(table) else {
            result.missing.push(format!("table `{table}`"));
            continue;
        };
        let missing = properties.difference(there);
        result
            .missing
            .extend(missing.map(|property| format!("`{table}`: {property}")));
        let extra = there.difference(properties);
        result
            .extra
            .extend(extra.map(|property| format!("`{table}`: {property}")));
    }
    result
}
