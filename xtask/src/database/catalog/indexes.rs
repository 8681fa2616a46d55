//! Indexes by their definitions: what a name stands for, and which are INVALID.

use postgres::types::Type;
use serde::Serialize;

use crate::database::{Database, USERS_PATH, set_search_path};
use crate::error::Result;
use crate::migration::effects::ObjectName;
use crate::migration::quote::quote_identifier;

/// An index that PostgreSQL does not use, or does not maintain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InvalidIndex {
    /// Qualified name.
    pub(crate) name: String,
    /// Qualified name of its table.
    pub(crate) table: String,
    /// What `pg_get_indexdef` says, unless it would have to open the table for that: it would wait for
    /// whoever has it locked (`set_relation_column_names` in `ruleutils.c`).
    pub(crate) definition: Option<String>,
}

/// Indexes of this database that are not valid or not ready, as an interrupted
/// CREATE INDEX CONCURRENTLY leaves them.
///
/// # Errors
/// If the query fails.
pub(crate) fn invalid_indexes(db: &mut Database) -> Result<Vec<InvalidIndex>> {
    // Most databases have none, and so need not tell this session what more catalogs look like.
    let any = "SELECT 1 FROM pg_catalog.pg_index WHERE NOT (indisvalid AND indisready) LIMIT 1";
    if db.client.query_typed(any, &[])?.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db.client.query_typed(
        "SELECT i.indexrelid::pg_catalog.regclass::text, i.indrelid::pg_catalog.regclass::text,
                CASE WHEN i.indexprs IS NULL AND i.indpred IS NULL
                     THEN pg_catalog.pg_get_indexdef(i.indexrelid) END
         FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
         WHERE NOT (i.indisvalid AND i.indisready)
           AND c.relkind = 'i' AND c.relnamespace <> 'pg_toast'::pg_catalog.regnamespace
         ORDER BY 1",
        &[],
    )?;
    let invalid = rows.iter().map(|row| InvalidIndex {
        name: row.get(0),
        table: row.get(1),
        definition: row.get(2),
    });
    Ok(invalid.collect())
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
    Ok(index_states(db, &[name])?.pop().flatten())
}

/// The index of this name in the schema of a table, which is found by its schema or through the search path.
/// `None` if there is no such table.
///
/// # Errors
/// If the query fails.
pub(crate) fn index_on(
    db: &mut Database,
    table: &ObjectName,
    index: &str,
) -> Result<Option<Option<IndexState>>> {
    let row = db.client.query_typed(
        &format!(
            "{USERS_PATH}
             SELECT {STATE}
             FROM path CROSS JOIN pg_catalog.pg_class AS t
             LEFT JOIN (pg_catalog.pg_class AS c JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid)
               ON c.relnamespace = t.relnamespace AND c.relname = $3::text
             WHERE t.oid = pg_catalog.to_regclass(CASE WHEN path.was_set THEN $2::text END)"
        ),
        &[
            (&db.server.search_path, Type::TEXT),
            (&table.to_string(), Type::TEXT),
            (&index, Type::TEXT),
        ],
    )?;
    Ok(row.first().map(state_of))
}

/// The tables of this name that this role can use, in any schema but those of temporary ones.
///
/// # Errors
/// If the query fails.
pub(crate) fn tables_named(db: &mut Database, name: &str) -> Result<Vec<ObjectName>> {
    let rows = db.client.query_typed(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relname = $1::text AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
           AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')",
        &[(&name, Type::TEXT)],
    )?;
    let named = rows.iter().map(|row| ObjectName {
        schema: row.get(0),
        name: row.get(1),
    });
    Ok(named.collect())
}

/// The schema of each of these relations, `None` where there is none.
///
/// # Errors
/// If the query fails.
pub(crate) fn schemas_of(db: &mut Database, names: &[&ObjectName]) -> Result<Vec<Option<String>>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let written: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = db.client.query_typed(
        &format!(
            "{USERS_PATH}
             SELECT (SELECT n.nspname::text FROM pg_catalog.pg_class AS c
                     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                     WHERE c.oid = pg_catalog.to_regclass(CASE WHEN path.was_set THEN w.name END))
             FROM path CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS w (name, position)
             ORDER BY w.position"
        ),
        &[
            (&db.server.search_path, Type::TEXT),
            (&written, Type::TEXT_ARRAY),
        ],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What is there under each of these names, in one round trip however many they are. Of the catalogs only
/// two are joined, since a session that has just begun must first learn what each looks like.
///
/// # Errors
/// If the query fails.
pub(crate) fn index_states(
    db: &mut Database,
    names: &[&ObjectName],
) -> Result<Vec<Option<IndexState>>> {
    let mut states = vec![None; names.len()];
    if names.is_empty() {
        return Ok(states);
    }
    let written: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = db.client.query_typed(
        &format!(
            "{USERS_PATH}, wanted (oids) AS MATERIALIZED (
                 SELECT ARRAY(SELECT pg_catalog.to_regclass(CASE WHEN path.was_set THEN name END)::oid
                              FROM path CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS w (name, position)
                              ORDER BY position))
             SELECT {STATE}, array_positions(oids, i.indexrelid)
             FROM wanted CROSS JOIN pg_catalog.pg_index AS i
             JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
             WHERE i.indexrelid = ANY (oids)"
        ),
        &[
            (&db.server.search_path, Type::TEXT),
            (&written, Type::TEXT_ARRAY),
        ],
    )?;
    for row in rows {
        // Somebody may have dropped it since the query began.
        let Some(state) = state_of(&row) else {
            continue;
        };
        for position in row.get::<_, Vec<i32>>(COLUMNS) {
            states[position as usize - 1] = Some(state.clone());
        }
    }
    Ok(states)
}

/// What is known of an index `i` whose relation is `c`. Its names and its definition are asked for by what is
/// there now, not when the query began.
const STATE: &str = "
    (pg_catalog.pg_identify_object_as_address('pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, 0)).object_names,
    (pg_catalog.pg_identify_object_as_address('pg_catalog.pg_class'::pg_catalog.regclass, i.indrelid, 0)).object_names,
    i.indisvalid, i.indisready, c.relkind = 'I', pg_catalog.pg_get_indexdef(i.indexrelid), i.indrelid";
/// How many columns that is.
const COLUMNS: usize = 7;

fn state_of(row: &postgres::Row) -> Option<IndexState> {
    let names = |column: usize| -> Option<[String; 2]> {
        row.get::<_, Option<Vec<String>>>(column)?.try_into().ok()
    };
    let ([schema, name], [_, table_name]) = (names(0)?, names(1)?);
    Some(IndexState {
        name: ObjectName {
            schema: Some(schema),
            name,
        },
        table: row.get(6),
        table_name,
        valid: row.get(2),
        ready: row.get(3),
        partitioned: row.get(4),
        definition: row.get::<_, Option<String>>(5)?,
    })
}

/// The definition that PostgreSQL would give another index on the table of this one, without names: it is
/// made on an empty temporary table of the same name and columns, asked for, and rolled back.
///
/// # Errors
/// If the definition is not valid for this table.
pub(crate) fn index_definition(
    db: &mut Database,
    of_its_table: &IndexState,
    unique: bool,
    definition: &str,
) -> Result<String> {
    let like = ObjectName {
        schema: of_its_table.name.schema.clone(),
        name: of_its_table.table_name.clone(),
    };
    let name = quote_identifier(&of_its_table.table_name);
    let unique = if unique { "UNIQUE " } else { "" };
    let mut transaction = db.client.transaction()?;
    // The definition is the migration's, and means what it does there.
    transaction.batch_execute(&format!(
        "{};
         CREATE TEMPORARY TABLE {name} (LIKE {like});
         CREATE {unique}INDEX xtask_index ON pg_temp.{name} {definition}",
        set_search_path(&db.server.search_path),
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
