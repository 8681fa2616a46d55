//! What the system catalog says of tables, columns and indexes.

use postgres::GenericClient;
use postgres::types::Type;
use serde::Serialize;

use super::{Database, USERS_PATH, set_search_path};
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
        &[(&db.search_path, Type::TEXT), (&names, Type::TEXT_ARRAY)],
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
    db: &mut Database,
    oids: &[u32],
) -> Result<Vec<(String, String)>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db.client.query_typed(
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

/// The schemas, other than the system's, that hold a relation of this name.
///
/// # Errors
/// If the query fails.
pub(crate) fn schemas_with(db: &mut Database, name: &str) -> Result<Vec<String>> {
    let rows = db.client.query_typed(
        "SELECT n.nspname::text FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relname = $1::text AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
         ORDER BY 1",
        &[(&name, Type::TEXT)],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// An index that PostgreSQL does not use, or does not maintain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InvalidIndex {
    /// Qualified name.
    pub(crate) name: String,
    /// Qualified name of its table.
    pub(crate) table: String,
    /// What `pg_get_indexdef` says.
    pub(crate) definition: String,
}

/// Indexes of this database that are not valid or not ready, as an interrupted
/// CREATE INDEX CONCURRENTLY leaves them.
///
/// # Errors
/// If the query fails.
pub(crate) fn invalid_indexes(db: &mut Database) -> Result<Vec<InvalidIndex>> {
    Ok(look_at_indexes(db, &[])?.1)
}

/// What is there under an index's name.
#[derive(Clone, Debug)]
pub(crate) struct IndexState {
    pub(crate) name: ObjectName,
    /// Its table's oid and name; an index is in the schema of its table.
    pub(crate) table: u32,
    pub(crate) table_name: String,
    pub(crate) valid: bool,
    pub(crate) ready: bool,
    /// Whether it is that of a partitioned table, which holds no entries itself.
    pub(crate) partitioned: bool,
    /// What `pg_get_indexdef` says.
    pub(crate) definition: String,
}

impl IndexState {
    /// Whether PostgreSQL uses it for queries and keeps it up to date.
    pub(crate) fn usable(&self) -> bool {
        self.partitioned || (self.valid && self.ready)
    }

    /// A partitioned table's index is INVALID from `CREATE INDEX … ON ONLY` on until the index of every
    /// partition is attached to it: no build has failed there.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.partitioned && !self.valid
    }
}

/// Finds an index by its schema, or through the search path.
///
/// # Errors
/// If the query fails.
pub(crate) fn index_state(db: &mut Database, name: &ObjectName) -> Result<Option<IndexState>> {
    Ok(look_at_indexes(db, &[name])?.0.pop().flatten())
}

/// What is there under each of these names; and which indexes are INVALID, whatever their names: in one
/// round trip however many they are, and of the catalogs only two are joined, since a session that has
/// just begun must first learn what each looks like.
///
/// # Errors
/// If the query fails.
pub(crate) fn look_at_indexes(
    db: &mut Database,
    names: &[&ObjectName],
) -> Result<(Vec<Option<IndexState>>, Vec<InvalidIndex>)> {
    let written: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = db.client.query_typed(
        &format!(
            "{USERS_PATH}, wanted (oids) AS MATERIALIZED (
                 SELECT ARRAY(SELECT pg_catalog.to_regclass(CASE WHEN path.was_set THEN name END)::oid
                              FROM path CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS w (name, position)
                              ORDER BY position))
             SELECT array_positions(oids, i.indexrelid), {index}, i.indrelid, {table},
                    i.indisvalid, i.indisready, c.relkind = 'I',
                    c.relkind = 'i' AND c.relnamespace <> 'pg_toast'::pg_catalog.regnamespace,
                    i.indexrelid::pg_catalog.regclass::text, i.indrelid::pg_catalog.regclass::text,
                    pg_catalog.pg_get_indexdef(i.indexrelid)
             FROM wanted CROSS JOIN pg_catalog.pg_index AS i
             JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
             WHERE i.indexrelid = ANY (oids) OR NOT (i.indisvalid AND i.indisready)
             ORDER BY 9",
            index = names_of("i.indexrelid"),
            table = names_of("i.indrelid"),
        ),
        &[(&db.search_path, Type::TEXT), (&written, Type::TEXT_ARRAY)],
    )?;
    let mut states = vec![None; names.len()];
    let mut invalid = Vec::new();
    for row in rows {
        // Both are asked for by what is there now, not when the query began: somebody may have dropped it.
        let (Some([schema, name]), Some(definition)) = (schema_and_name(&row, 1), row.get(10))
        else {
            continue;
        };
        let state = IndexState {
            name: ObjectName {
                schema: Some(schema),
                name,
            },
            table: row.get(2),
            table_name: schema_and_name(&row, 3).map_or_else(String::new, |[_, name]| name),
            valid: row.get(4),
            ready: row.get(5),
            partitioned: row.get(6),
            definition,
        };
        let is_leftover: bool = row.get(7);
        if is_leftover && !(state.valid && state.ready) {
            invalid.push(InvalidIndex {
                name: row.get(8),
                table: row.get(9),
                definition: state.definition.clone(),
            });
        }
        for position in row.get::<_, Vec<i32>>(0) {
            states[position as usize - 1] = Some(state.clone());
        }
    }
    Ok((states, invalid))
}

/// An expression for the schema and the name of the relation with this id.
fn names_of(oid: &str) -> String {
    format!(
        "(pg_catalog.pg_identify_object_as_address('pg_catalog.pg_class'::pg_catalog.regclass, {oid}, 0)).object_names"
    )
}

fn schema_and_name(row: &postgres::Row, column: usize) -> Option<[String; 2]> {
    row.get::<_, Option<Vec<String>>>(column)?.try_into().ok()
}

/// The definition that PostgreSQL would give an index, without names: the index is made on an empty
/// temporary table of the same columns, asked for, and rolled back.
///
/// # Errors
/// If the definition is not valid for this table.
pub(crate) fn index_definition(
    db: &mut Database,
    table: &Relation,
    unique: bool,
    definition: &str,
) -> Result<String> {
    let unique = if unique { "UNIQUE " } else { "" };
    let mut transaction = db.client.transaction()?;
    // The definition is the migration's, and means what it does there.
    transaction.batch_execute(&format!(
        "{};
         CREATE TEMPORARY TABLE xtask_like (LIKE {});
         CREATE {unique}INDEX xtask_index ON pg_temp.xtask_like {definition}",
        set_search_path(&db.search_path),
        table.qualified()
    ))?;
    let row = transaction.query_typed_one(
        "SELECT pg_catalog.pg_get_indexdef('pg_temp.xtask_index'::pg_catalog.regclass)",
        &[],
    )?;
    transaction.rollback()?;
    Ok(nameless(&row.get::<_, String>(0)))
}

/// `CREATE UNIQUE INDEX name ON schema.table USING …` as `CREATE UNIQUE INDEX USING …`.
pub(crate) fn nameless(definition: &str) -> String {
    // Neither name can hold this word unquoted, and a quoted one would need both its spaces.
    match (definition.find(" INDEX "), definition.find(" USING ")) {
        (Some(index), Some(using)) if index < using => {
            format!("{} INDEX{}", &definition[..index], &definition[using..])
        }
        _ => definition.to_owned(),
    }
}

/// How many rows a table has, and how many of them have a value in a column.
///
/// A table of the application's that has a row; none where all are empty.
///
/// # Errors
/// If a query fails.
pub(crate) fn table_with_rows(db: &mut Database) -> Result<Option<String>> {
    let rows = db.client.query_typed(
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
        if db.client.query_typed_one(&sql, &[])?.get(0) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// # Errors
/// If it cannot be counted.
pub(crate) fn count_values(
    db: &mut Database,
    table: &str,
    column: Option<&str>,
) -> Result<(u64, u64)> {
    let what = column.map_or("*".to_owned(), quote_identifier);
    let row = db.client.query_typed_one(
        &format!("SELECT pg_catalog.count(*), pg_catalog.count({what}) FROM {table}"),
        &[],
    )?;
    Ok((row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
}

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
/// for a type of an extension's is not PostgreSQL's own.
const EQUALITY: &str = "ARRAY(
    SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
    FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k (opclass, place)
    JOIN pg_catalog.pg_opclass AS c ON c.oid = k.opclass
    JOIN pg_catalog.pg_amop AS a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
         AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
    JOIN pg_catalog.pg_operator AS o ON o.oid = a.amopopr
    JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
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

/// The other tables that a table's foreign keys refer to.
///
/// # Errors
/// If the query fails.
pub(crate) fn referenced_tables(db: &mut Database, table: u32) -> Result<Vec<u32>> {
    let rows = db.client.query_typed(
        "SELECT DISTINCT confrelid FROM pg_catalog.pg_constraint
         WHERE contype = 'f' AND conrelid = $1 AND confrelid <> $1",
        &[(&table, Type::OID)],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
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

/// The number of a table's column, which it keeps when it is renamed.
///
/// # Errors
/// If the query fails.
pub(crate) fn column_number(db: &mut Database, table: u32, column: &str) -> Result<Option<i16>> {
    let row = db.client.query_typed_opt(
        "SELECT attnum FROM pg_catalog.pg_attribute
         WHERE attrelid = $1 AND attname = $2::text AND NOT attisdropped",
        &[(&table, Type::OID), (&column, Type::TEXT)],
    )?;
    Ok(row.map(|row| row.get(0)))
}

/// Whether this role may create a table in a schema.
///
/// # Errors
/// If the query fails.
pub(crate) fn may_create_in(db: &mut Database, schema: &str) -> Result<bool> {
    let row = db.client.query_typed_one(
        "SELECT pg_catalog.has_schema_privilege($1, 'CREATE')",
        &[(&schema, Type::TEXT)],
    )?;
    Ok(row.get(0))
}

/// Whether this role may write the history table.
///
/// # Errors
/// If the query fails.
pub(crate) fn may_write(db: &mut Database, table: &str) -> Result<bool> {
    let row = db.client.query_typed_one(
        "SELECT pg_catalog.has_table_privilege($1, 'INSERT')
            AND pg_catalog.has_table_privilege($1, 'DELETE')",
        &[(&table, Type::TEXT)],
    )?;
    Ok(row.get(0))
}
