//! Tables and other relations: which there are, how they hang together, and what this role may do with them.

use postgres::Client;
use postgres::types::Type;

use crate::database::{Database, USERS_PATH};
use crate::error::Result;
use crate::migration::effects::ObjectName;
use crate::migration::quote::quote_identifier;

/// A relation by its name, and what this role may do with it.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `pg_class.relkind`: `r` table, `p` partitioned table, `v` view, `m` materialized view,
    /// `f` foreign table.
    pub(crate) kind: char,
    pub(crate) owner: String,
    /// Whether this role may alter it: PostgreSQL lets members of the owner and superusers.
    pub(crate) owned: bool,
    /// Whether this role may read its rows and its sequences, as pg_dump does.
    pub(crate) readable: bool,
    /// Bytes on disk, with TOAST and without indexes.
    pub(crate) bytes: u64,
    pub(crate) temporary: bool,
}

impl Relation {
    /// `public.users`, quoted where it must be: exactly one table, also for pg_dump's patterns.
    pub(crate) fn qualified(&self) -> String {
        ObjectName {
            schema: Some(self.schema.clone()),
            name: self.name.clone(),
        }
        .to_string()
    }

    /// Its kind in words.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            'r' => "table",
            'p' => "partitioned table",
            'v' => "view",
            'm' => "materialized view",
            'f' => "foreign table",
            'S' => "sequence",
            'i' | 'I' => "index",
            _ => "relation",
        }
    }
}

/// Finds a relation as a migration would: by its schema, or through the search path.
///
/// Without a lock: its size is measured only where nobody has locked it or waits to, since measuring
/// would wait too; otherwise it is what the last ANALYZE saw.
///
/// # Errors
/// If the query fails.
pub(crate) fn find(db: &mut Database, name: &ObjectName) -> Result<Option<Relation>> {
    Ok(existing(db, [name])?.pop())
}

/// Those of these relations that exist, in one round trip however many they are.
///
/// # Errors
/// If the query fails.
pub(crate) fn existing<'a>(
    db: &mut Database,
    names: impl IntoIterator<Item = &'a ObjectName>,
) -> Result<Vec<Relation>> {
    let names: Vec<String> = names.into_iter().map(ToString::to_string).collect();
    let rows = db.client.query_typed(
        &format!("{USERS_PATH}
         SELECT c.oid, n.nspname::text, c.relname::text, c.relkind,
                pg_catalog.pg_get_userbyid(c.relowner)::text,
                pg_catalog.pg_has_role(c.relowner, 'USAGE'),
                pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_depend AS d
                    JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.refobjid = c.oid AND d.deptype IN ('a', 'i')
                      AND NOT pg_catalog.has_table_privilege(s.oid, 'SELECT')),
                CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks AS l
                                  WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
                     THEN c.relpages * pg_catalog.current_setting('block_size')::bigint
                     ELSE pg_catalog.pg_table_size(c.oid) END,
                c.relpersistence = 't'
         FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid IN (SELECT pg_catalog.to_regclass(CASE WHEN path.was_set THEN name END) FROM path, unnest($2::text[]) AS name)"),
        &[(&db.server.search_path, Type::TEXT), (&names, Type::TEXT_ARRAY)],
    )?;
    let relation = |row: &postgres::Row| Relation {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        kind: row.get::<_, i8>(3) as u8 as char,
        owner: row.get(4),
        owned: row.get(5),
        readable: row.get(6),
        bytes: row.get::<_, Option<i64>>(7).unwrap_or(0).max(0) as u64,
        temporary: row.get(8),
    };
    Ok(rows.iter().map(relation).collect())
}

/// The tables of a schema that hold rows of their own.
///
/// # Errors
/// If the query fails.
pub(crate) fn tables_of(db: &mut Database, schema: &str) -> Result<Vec<Relation>> {
    let rows = db.client.query_typed(
        "SELECT c.relname::text FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = $1::text AND c.relkind = 'r' ORDER BY c.relname",
        &[(&schema, Type::TEXT)],
    )?;
    let names: Vec<ObjectName> = rows
        .iter()
        .map(|row| ObjectName {
            schema: Some(schema.to_owned()),
            name: row.get(0),
        })
        .collect();
    existing(db, &names)
}

/// Tables that inherit from one of these, directly or not, and are not among them: the parent's and the
/// child's qualified names.
///
/// # Errors
/// If the query fails.
pub(crate) fn uncovered_child_tables(
    client: &mut Client,
    oids: &[u32],
) -> Result<Vec<(String, String)>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client.query_typed(
        "WITH RECURSIVE heirs AS (
             SELECT inhparent AS ancestor, inhrelid AS heir
             FROM pg_catalog.pg_inherits WHERE inhparent = ANY ($1)
             UNION
             SELECT h.ancestor, i.inhrelid
             FROM heirs AS h JOIN pg_catalog.pg_inherits AS i ON i.inhparent = h.heir)
         SELECT pg_catalog.format('%I.%I', na.nspname, a.relname),
                pg_catalog.format('%I.%I', nh.nspname, h.relname)
         FROM heirs
         JOIN pg_catalog.pg_class AS a ON a.oid = heirs.ancestor
         JOIN pg_catalog.pg_namespace AS na ON na.oid = a.relnamespace
         JOIN pg_catalog.pg_class AS h ON h.oid = heirs.heir
         JOIN pg_catalog.pg_namespace AS nh ON nh.oid = h.relnamespace
         WHERE heirs.heir <> ALL ($1) ORDER BY 1, 2",
        &[(&oids, Type::OID_ARRAY)],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The tables whose rows may change with those of these tables: they inherit from them, or refer to them
/// by a foreign key that deletes or sets values, near or far.
///
/// # Errors
/// If the query fails.
pub(crate) fn changed_with(db: &mut Database, oids: &[u32]) -> Result<Vec<Relation>> {
    let rows = db.client.query_typed(
        "WITH RECURSIVE edges (of, changed) AS (
             SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
             UNION ALL
             SELECT confrelid, conrelid FROM pg_catalog.pg_constraint
             WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))),
         reached (oid) AS (
             SELECT changed FROM edges WHERE of = ANY ($1)
             UNION
             SELECT e.changed FROM reached AS r JOIN edges AS e ON e.of = r.oid)
         SELECT n.nspname::text, c.relname::text
         FROM reached AS r
         JOIN pg_catalog.pg_class AS c ON c.oid = r.oid AND c.relkind = 'r'
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid <> ALL ($1) ORDER BY 1, 2",
        &[(&oids, Type::OID_ARRAY)],
    )?;
    let names: Vec<ObjectName> = rows
        .iter()
        .map(|row| ObjectName {
            schema: Some(row.get(0)),
            name: row.get(1),
        })
        .collect();
    existing(db, &names)
}

/// The other tables that a table's foreign keys refer to.
///
/// # Errors
/// If the query fails.
pub(crate) fn referenced_tables(client: &mut Client, table: u32) -> Result<Vec<u32>> {
    let rows = client.query_typed(
        "SELECT DISTINCT confrelid FROM pg_catalog.pg_constraint
         WHERE contype = 'f' AND conrelid = $1 AND confrelid <> $1",
        &[(&table, Type::OID)],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The schemas, other than the system's, that hold a relation of this name.
///
/// # Errors
/// If the query fails.
pub(crate) fn schemas_with(client: &mut Client, name: &str) -> Result<Vec<String>> {
    let rows = client.query_typed(
        "SELECT n.nspname::text FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relname = $1::text AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
         ORDER BY 1",
        &[(&name, Type::TEXT)],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A table of the application's that has a row; none where all are empty.
///
/// # Errors
/// If a query fails.
pub(crate) fn table_with_rows(client: &mut Client) -> Result<Option<String>> {
    let rows = client.query_typed(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
         FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND c.relname <> '_sqlx_migrations'
           AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                           WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                             AND d.objid = c.oid AND d.deptype = 'e')
         ORDER BY 1",
        &[],
    )?;
    for table in rows.iter().map(|row| row.get::<_, String>(0)) {
        let sql = format!("SELECT EXISTS (SELECT FROM ONLY {table})");
        if client.query_typed_one(&sql, &[])?.get(0) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// How many rows a table has, and how many of them have a value in a column.
///
/// # Errors
/// If it cannot be counted.
pub(crate) fn count_values(
    client: &mut Client,
    table: &str,
    column: Option<&str>,
) -> Result<(u64, u64)> {
    let what = column.map_or("*".to_owned(), quote_identifier);
    let row = client.query_typed_one(
        &format!("SELECT pg_catalog.count(*), pg_catalog.count({what}) FROM {table}"),
        &[],
    )?;
    Ok((row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
}

/// Whether this role may create a table in a schema.
///
/// # Errors
/// If the query fails.
pub(crate) fn may_create_in(client: &mut Client, schema: &str) -> Result<bool> {
    let row = client.query_typed_one(
        "SELECT pg_catalog.has_schema_privilege($1, 'CREATE')",
        &[(&schema, Type::TEXT)],
    )?;
    Ok(row.get(0))
}

/// Whether this role may write the history table.
///
/// # Errors
/// If the query fails.
pub(crate) fn may_write(client: &mut Client, table: &str) -> Result<bool> {
    let row = client.query_typed_one(
        "SELECT pg_catalog.has_table_privilege($1, 'INSERT')
            AND pg_catalog.has_table_privilege($1, 'DELETE')",
        &[(&table, Type::TEXT)],
    )?;
    Ok(row.get(0))
}
