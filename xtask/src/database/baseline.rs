//! Comparing the schema that migration files make with the one that is there: the files run in a
//! transaction, the two are compared in the catalog, and all of it is rolled back.
//!
//! Files that leave the schema to the search path run with the session's temporary schema in front,
//! so that what they create lands beside the live tables. For files that name a schema, as pg_dump
//! writes them, the live one is renamed while they run: a change of one catalog row that nobody else
//! ever sees, and for which nothing is locked (PostgreSQL's `schemacmds.c`, RenameSchema).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use postgres::Transaction;
use postgres::types::Type;

use super::{Database, OWN_SEARCH_PATH, USERS_PATH};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::Effect;
use crate::migration::quote::quote_if_needed;
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

/// How long a file may wait for the lock of something that is not its own.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// Runs the scripts, compares what they make with the live schema, and rolls back.
///
/// # Errors
/// If a script fails, or the role may not rename a schema that one names.
pub(crate) fn compare(db: &mut Database, scripts: &[&Script]) -> Result<Differences> {
    let live_schema = db.server.schema.as_deref().unwrap_or("public");
    let named = named_schemas(scripts);
    let path = &db.server.search_path;
    let mut transaction = db.client.transaction()?;
    transaction.batch_execute(LOCK_TIMEOUT)?;
    let (wanted, live) = match named.is_empty() {
        true => compare_in_temp_schema(&mut transaction, scripts, path, live_schema)?,
        false => compare_in_renamed_schema(&mut transaction, scripts, path, live_schema, named)?,
    };
    transaction.rollback()?;
    Ok(differences(&wanted, &live))
}

/// The schemas in which the scripts make tables by name.
fn named_schemas(scripts: &[&Script]) -> BTreeSet<String> {
    let effects = scripts.iter().flat_map(|script| script.effects());
    let names = effects.flat_map(|(_, effects)| effects);
    names
        .filter_map(|effect| match effect {
            Effect::CreateTable { table, .. } => table.schema,
            _ => None,
        })
        .collect()
}

/// What the scripts make in the temporary schema, and what the live schema holds.
fn compare_in_temp_schema(
    transaction: &mut Transaction<'_>,
    scripts: &[&Script],
    path: &str,
    live_schema: &str,
) -> Result<(Schema, Schema)> {
    let (beside, behind) = (format!("pg_temp, {path}"), format!("{path}, pg_temp"));
    set_search_path(transaction, &beside)?;
    run(transaction, scripts)?;
    set_search_path(transaction, OWN_SEARCH_PATH)?;
    let temp: Option<String> = transaction
        .query_typed_one(
            "SELECT (SELECT nspname::text FROM pg_catalog.pg_namespace
                     WHERE oid = pg_catalog.pg_my_temp_schema())",
            &[],
        )?
        .get(0);
    // The catalog names without its schema what the search path finds first: the same things are
    // described in the same words.
    let wanted = match &temp {
        Some(temp) => describe(transaction, &beside, [temp.as_str()], temp)?,
        None => Schema::default(),
    };
    let live = describe(transaction, &behind, [live_schema], live_schema)?;
    Ok((wanted, live))
}

/// What the scripts make in schemas of these names, and what the live ones hold.
fn compare_in_renamed_schema(
    transaction: &mut Transaction<'_>,
    scripts: &[&Script],
    path: &str,
    live_schema: &str,
    mut schemas: BTreeSet<String>,
) -> Result<(Schema, Schema)> {
    schemas.insert(live_schema.to_owned());
    let schemas: Vec<&str> = schemas.iter().map(String::as_str).collect();
    let live = describe(transaction, path, schemas.iter().copied(), live_schema)?;
    let mut path = path.to_owned();
    for (number, schema) in schemas.iter().enumerate() {
        let aside = format!("xtask_live_{number}");
        move_aside(transaction, schema, &aside)?;
        // Types and functions of the live schema stay within reach.
        path.push_str(&format!(", {aside}"));
    }
    // A file that makes one of its schemas makes them all; the first of the search path is there.
    if !scripts.iter().any(|script| creates_schema(script)) {
        for schema in schemas.iter().filter(|&&schema| schema != live_schema) {
            create_schema(transaction, schema)?;
        }
    }
    create_schema(transaction, live_schema)?;
    move_extensions(transaction, live_schema)?;
    set_search_path(transaction, &path)?;
    run(transaction, scripts)?;
    let wanted = describe(transaction, &path, schemas.iter().copied(), live_schema)?;
    Ok((wanted, live))
}

fn move_aside(transaction: &mut Transaction<'_>, schema: &str, aside: &str) -> Result {
    let row = transaction.query_typed_one(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)",
        &[(&schema, Type::TEXT)],
    )?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    let rename = format!("ALTER SCHEMA {} RENAME TO {aside}", quote_if_needed(schema));
    transaction.batch_execute(&rename).map_err(|error| {
        crate::failures::from_error(&anyhow::Error::from(error))
            .cause(format!("a file names the schema `{schema}`: to compare what it makes, the live schema is renamed in a transaction that is rolled back"))
            .hint(Hint::to("connect as the owner of the schema and of the database, or leave the schema to the search path, then", "db-baseline"))
    })?;
    Ok(())
}

fn create_schema(transaction: &mut Transaction<'_>, schema: &str) -> Result {
    Ok(transaction.batch_execute(&format!("CREATE SCHEMA {}", quote_if_needed(schema)))?)
}

fn creates_schema(script: &Script) -> bool {
    let mut statements = script.statements.iter();
    statements.any(|statement| {
        let words = statement.words(&script.text);
        words.starts_with(&["create".to_owned(), "schema".to_owned()])
    })
}

/// A dump names the types and functions of extensions by the live schema too. Those that cannot be
/// moved, or belong to somebody else, stay behind.
fn move_extensions(transaction: &mut Transaction<'_>, live_schema: &str) -> Result {
    let rows = transaction.query_typed(
        "SELECT e.extname::text FROM pg_catalog.pg_extension AS e
         JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
         WHERE e.extrelocatable AND n.nspname LIKE 'xtask\\_live\\_%'
           AND pg_catalog.pg_has_role(e.extowner, 'USAGE')",
        &[],
    )?;
    for row in rows {
        let (extension, schema) = (
            quote_if_needed(&row.get::<_, String>(0)),
            quote_if_needed(live_schema),
        );
        transaction.batch_execute(&format!("ALTER EXTENSION {extension} SET SCHEMA {schema}"))?;
    }
    Ok(())
}

fn run(transaction: &mut Transaction<'_>, scripts: &[&Script]) -> Result {
    for script in scripts {
        transaction.batch_execute(&script.text).map_err(|error| {
            let failure = crate::failures::from_error(&anyhow::Error::from(error));
            let attempted = format!(
                "cannot compare `{}` with the live schema",
                script.path.display()
            );
            Failure {
                hints: vec![Hint::to("fix the file, then", "db-baseline --dry-run")],
                ..failure.attempted(attempted)
            }
        })?;
    }
    Ok(())
}

fn set_search_path(transaction: &mut Transaction<'_>, path: &str) -> Result {
    Ok(transaction.batch_execute(&super::set_search_path(path))?)
}

/// Tables, each with its properties as text.
type Schema = BTreeMap<String, BTreeSet<String>>;

/// Columns, constraints and indexes of every table in these schemas, as lines that are equal if they
/// are. Tables of `own` are named without it, and everything as this search path finds it.
fn describe<'a>(
    transaction: &mut Transaction<'_>,
    path: &str,
    schemas: impl IntoIterator<Item = &'a str>,
    own: &str,
) -> Result<Schema> {
    let schemas: Vec<&str> = schemas.into_iter().collect();
    // Names of constraints and indexes are left out: what they do counts. NOT NULL, which newer
    // servers keep as a constraint too (18), is told by the column unless rows may break it.
    set_search_path(transaction, OWN_SEARCH_PATH)?;
    let rows = transaction
        .query_typed(
            &format!("{USERS_PATH}, tables AS MATERIALIZED (
                 SELECT c.oid, CASE n.nspname WHEN $3::text THEN c.relname::text
                                    ELSE n.nspname || '.' || c.relname END AS relname
                 FROM path, pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE path.was_set AND n.nspname = ANY ($2::text[]) AND c.relkind IN ('r', 'p'))
             SELECT t.relname, pg_catalog.format('column %s %s%s%s%s', a.attname,
                        pg_catalog.format_type(a.atttypid, a.atttypmod),
                        CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                        CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY' END,
                        coalesce(CASE a.attgenerated WHEN '' THEN ' DEFAULT ' WHEN 's' THEN ' STORED '
                                                     ELSE ' VIRTUAL ' END
                                 || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''))
             FROM tables AS t
             JOIN pg_catalog.pg_attribute AS a
                  ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             UNION ALL
             SELECT t.relname, 'constraint ' || pg_catalog.pg_get_constraintdef(c.oid)
             FROM tables AS t
             JOIN pg_catalog.pg_constraint AS c ON c.conrelid = t.oid
                  AND (c.contype <> 'n' OR NOT c.convalidated)
             UNION ALL
             SELECT t.relname, pg_catalog.regexp_replace(
                        pg_catalog.pg_get_indexdef(i.indexrelid), ' INDEX .* USING ', ' INDEX USING ')
             FROM tables AS t
             JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS c WHERE c.conindid = i.indexrelid)
             UNION ALL
             SELECT t.relname, NULL FROM tables AS t"),
            &[
                (&path, Type::TEXT),
                (&schemas, Type::TEXT_ARRAY),
                (&own, Type::TEXT),
            ],
        )
        .context("cannot describe the schema")?;
    set_search_path(transaction, OWN_SEARCH_PATH)?;
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
