//! The texts of the files. Each comment says why the form does not keep readers and writers waiting, and where
//! PostgreSQL's manual says so.

use super::Draft;
use super::form::{Column, Constraint, Form, Index};
use super::names::joined;
use crate::migration::effects::ObjectName;
use crate::migration::quote::{quote_if_needed, quote_literal};
use crate::migration::script::NO_TRANSACTION;

const NULLABLE: &str = "\
-- Existing rows keep NULL. Adding a nullable column without a default changes the catalog only: no row is
-- rewritten (PostgreSQL manual, ALTER TABLE, Notes).
";
const CONSTANT_DEFAULT: &str = "\
-- The catalog keeps a constant default for the rows that exist: they have it at once, and no row is
-- rewritten (PostgreSQL manual, ALTER TABLE, Notes).
";
const CONCURRENTLY: &str = "\
-- CONCURRENTLY lets reads and writes go on while the index is built. It cannot run in a transaction, so it is
-- alone in its file (PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently).
";
const NOT_VALID: &str = "\
-- NOT VALID checks new and changed rows from now on. It reads none of the rows that exist, so its lock is held
-- for a moment only; the next migration validates them (PostgreSQL manual, ALTER TABLE, Notes).
";
const VALIDATE: &str = "\
-- Reads every row under a SHARE UPDATE EXCLUSIVE lock, beside which reads and writes go on
-- (PostgreSQL manual, ALTER TABLE, VALIDATE CONSTRAINT).
";
const SET_NOT_NULL: &str = "\
-- VALIDATE reads every row while reads and writes go on. The valid CHECK proves to SET NOT NULL that no row
-- holds NULL, so nothing is read under its ACCESS EXCLUSIVE lock, and the CHECK has done its work
-- (PostgreSQL manual, ALTER TABLE, SET NOT NULL).
";
const USING_INDEX: &str = "\
-- The index is there: nothing is read under the ACCESS EXCLUSIVE lock. It now belongs to the constraint
-- (PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index).
";
const NOT_VALID_AGAIN: &str = "\
-- As the migration before this one left it: there, and not validated. No row is read.
";
const DROPS_ITS_INDEX: &str = "\
-- This drops the index too, which the migration before this one built. A rollback of the whole run takes both
-- back; after a rollback of this one alone, roll back that one as well before you migrate again.
";
const UNWRITTEN_VERIFY: &str = "\
-- Write what must be true after the migration, a SELECT for each check. Without one, the migration is not applied.
--
-- SELECT 'column users.last_login_at exists' AS check,
--        pg_catalog.count(*) = 1 AS ok
-- FROM pg_catalog.pg_attribute
-- WHERE attrelid = pg_catalog.to_regclass('users')::oid AND attname = 'last_login_at' AND NOT attisdropped;
";

/// The migrations of a form, in the order in which they run.
pub(super) fn of(name: &str, form: &Form) -> Vec<Draft> {
    match form {
        Form::Unwritten => vec![unwritten(name)],
        Form::Columns(columns) => vec![add_columns(name, columns)],
        Form::Index(index) => vec![create_index(name, index)],
        Form::Unique(index) => unique(name, index),
        Form::Constraint(constraint) => not_valid_then_validate(name, constraint),
        Form::NotNull { table, column } => not_null(name, table, column),
    }
}

fn unwritten(name: &str) -> Draft {
    let refusal = |comment: &str, file: &str| {
        format!(
            "-- {comment}\n-- The statement below keeps the file from being run before that: replace it.\n\
             DO $$ BEGIN RAISE EXCEPTION 'the {file} file of the migration {name} is not written yet'; END $$;\n"
        )
    };
    Draft {
        name: name.to_owned(),
        up: refusal("Write the change here.", "up"),
        down: refusal(
            "Write here what takes back exactly what the up file does.",
            "down",
        ),
        verify: UNWRITTEN_VERIFY.to_owned(),
    }
}

fn add_columns(name: &str, columns: &[Column]) -> Draft {
    let (mut add, mut drop, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    let mut comment = NULLABLE;
    for Column {
        table,
        name,
        kind,
        default,
    } in columns
    {
        let column = quote_if_needed(name);
        let (with, has, set) = match default {
            Some(value) => (
                ", with a default",
                " AND atthasdef",
                format!(" DEFAULT {value}"),
            ),
            None => ("", "", String::new()),
        };
        if default.is_some() {
            comment = CONSTANT_DEFAULT;
        }
        add.push(format!("ADD COLUMN IF NOT EXISTS {column} {kind}{set}"));
        drop.push(format!("DROP COLUMN IF EXISTS {column}"));
        let row = column_row(table, name);
        checks.push(check(
            &format!("column {table}.{column} exists"),
            "pg_catalog.count(*) = 1",
            &row,
        ));
        let type_oid = format!("pg_catalog.to_regtype({})::oid", quote_literal(kind));
        let of_any_size = if kind.contains('(') {
            ", size not compared"
        } else {
            ""
        };
        let same = every(&[format!("atttypid = {type_oid}{has}")]);
        checks.push(check(
            &format!("{table}.{column} is {kind}{of_any_size}{with}"),
            &same,
            &row,
        ));
    }
    Draft {
        name: name.to_owned(),
        up: alter(&columns[0].table, comment, &add),
        down: alter(&columns[0].table, "", &drop),
        verify: checks.join("\n"),
    }
}

fn create_index(name: &str, index: &Index) -> Draft {
    let Index {
        table,
        method,
        keys,
        rest,
        ..
    } = index;
    let its_name = ObjectName {
        schema: table.schema.clone(),
        name: index.name.clone(),
    };
    let (create, is_unique, unique) = match index.unique {
        true => ("CREATE UNIQUE INDEX", "unique, ", "indisunique"),
        false => ("CREATE INDEX", "", "NOT indisunique"),
    };
    let using = match method.as_str() {
        "btree" => String::new(),
        method => format!("USING {} ", quote_if_needed(method)),
    };
    let texts: Vec<&str> = keys.iter().map(|key| key.text.as_str()).collect();
    let on = format!("ON {table} {using}({}) {rest}", texts.join(", "));
    let (what, same) = index_shape(index);
    let row = format!(
        "FROM pg_catalog.pg_index\nWHERE indexrelid = {}",
        oid(&its_name)
    );
    let on_table = format!("{row} AND indrelid = {}", oid(table));
    let conditions: Vec<String> = same.into_iter().chain([unique.to_owned()]).collect();
    let checks = [
        check(
            &format!("index {its_name} exists on {table}"),
            "pg_catalog.count(*) = 1",
            &on_table,
        ),
        check(
            &format!("{its_name} is valid and ready"),
            &every(&["indisvalid AND indisready".to_owned()]),
            &row,
        ),
        check(
            &format!("{its_name} is {is_unique}{what}"),
            &every(&conditions),
            &row,
        ),
    ];
    Draft {
        name: name.to_owned(),
        up: format!(
            "{NO_TRANSACTION}\n\n{CONCURRENTLY}{create} CONCURRENTLY IF NOT EXISTS {}\n    {};\n",
            quote_if_needed(&index.name),
            on.trim_end()
        ),
        down: format!("{NO_TRANSACTION}\n\nDROP INDEX CONCURRENTLY IF EXISTS {its_name};\n"),
        verify: checks.join("\n"),
    }
}

/// What an index is, in words and as conditions on its row.
fn index_shape(index: &Index) -> (String, Vec<String>) {
    let Index { method, keys, .. } = index;
    let shown: Option<Vec<&str>> = keys.iter().map(|key| key.shown.as_deref()).collect();
    if let Some(shown) = shown.filter(|_| index.rest.is_empty() && method == "btree") {
        let what = format!("btree ({})", shown.join(", "));
        let same = definition_like("indexdef(indexrelid)", &format!("%USING {what}"));
        return (what, vec![same]);
    }
    // An expression can be written in many ways: it is not compared.
    let (is_partial, not) = if index.partial {
        ("partial, ", "NOT ")
    } else {
        ("", "")
    };
    let number = keys.len();
    let conditions = vec![
        definition_like("indexdef(indexrelid)", &format!("%USING {method} (%")),
        format!("indnkeyatts = {number} AND {not}indpred IS NULL"),
    ];
    (
        format!("{is_partial}{method}, with {number} keys"),
        conditions,
    )
}

fn unique(name: &str, index: &Index) -> Vec<Draft> {
    let table = &index.table;
    let its_name = quote_if_needed(&index.name);
    let shown: Vec<&str> = index
        .keys
        .iter()
        .filter_map(|key| key.shown.as_deref())
        .collect();
    let what = format!("UNIQUE ({})", shown.join(", "));
    let same = every(&[
        "contype = 'u'".to_owned(),
        definition_like("constraintdef(oid)", &what),
    ]);
    let add = format!("ADD CONSTRAINT {its_name} UNIQUE USING INDEX {its_name}");
    let drop = format!("DROP CONSTRAINT IF EXISTS {its_name}");
    vec![
        create_index(&format!("{name}_index"), index),
        Draft {
            name: name.to_owned(),
            up: alter(table, USING_INDEX, &[add]),
            down: alter(table, DROPS_ITS_INDEX, &[drop]),
            verify: check(
                &format!("constraint {its_name} of {table} is {what}"),
                &same,
                &constraint_row(table, &index.name),
            ),
        },
    ]
}

/// Adds a constraint in two migrations, so that the rows are read without a lock that keeps writers waiting.
fn not_valid_then_validate(name: &str, constraint: &Constraint) -> Vec<Draft> {
    let Constraint {
        table,
        name: own_name,
        kind,
        definition,
        conditions,
    } = constraint;
    let its_name = quote_if_needed(own_name);
    let add = format!("ADD CONSTRAINT {its_name} {definition} NOT VALID");
    let drop = format!("DROP CONSTRAINT IF EXISTS {its_name}");
    let validate = format!("VALIDATE CONSTRAINT {its_name}");
    let row = constraint_row(table, own_name);
    let validated = every(&["convalidated".to_owned()]);
    vec![
        Draft {
            name: name.to_owned(),
            up: alter(table, NOT_VALID, std::slice::from_ref(&add)),
            down: alter(table, "", std::slice::from_ref(&drop)),
            verify: check(
                &format!("{kind} {its_name} of {table} exists"),
                &every(conditions),
                &row,
            ),
        },
        Draft {
            name: format!("{name}_validate"),
            up: alter(table, VALIDATE, &[validate]),
            down: alter(table, NOT_VALID_AGAIN, &[drop, add]),
            verify: check(
                &format!("{kind} {its_name} of {table} is validated"),
                &validated,
                &row,
            ),
        },
    ]
}

fn not_null(name: &str, table: &ObjectName, column: &str) -> Vec<Draft> {
    let check_name = joined(table, &[column.to_owned()], "not_null_check");
    let (its_name, quoted) = (quote_if_needed(&check_name), quote_if_needed(column));
    let add = format!("ADD CONSTRAINT {its_name} CHECK ({quoted} IS NOT NULL) NOT VALID");
    let row = column_row(table, column);
    let check_row = constraint_row(table, &check_name).replace('\n', "\n                      ");
    // The CHECK is replaced by the second migration.
    let either = every(&[format!(
        "attnotnull\n           OR EXISTS (SELECT {check_row} AND contype = 'c')"
    )]);
    let always = every(&["attnotnull".to_owned()]);
    vec![
        Draft {
            name: format!("{name}_check"),
            up: alter(table, NOT_VALID, std::slice::from_ref(&add)),
            down: alter(
                table,
                "",
                &[format!("DROP CONSTRAINT IF EXISTS {its_name}")],
            ),
            verify: check(
                &format!("{table}.{quoted} takes no NULL, by a CHECK or by NOT NULL"),
                &either,
                &row,
            ),
        },
        Draft {
            name: name.to_owned(),
            up: alter(
                table,
                SET_NOT_NULL,
                &[
                    format!("VALIDATE CONSTRAINT {its_name}"),
                    format!("ALTER COLUMN {quoted} SET NOT NULL"),
                    format!("DROP CONSTRAINT {its_name}"),
                ],
            ),
            down: alter(
                table,
                NOT_VALID_AGAIN,
                &[add, format!("ALTER COLUMN {quoted} DROP NOT NULL")],
            ),
            verify: check(&format!("{table}.{quoted} is NOT NULL"), &always, &row),
        },
    ]
}

/// A file that alters a table, which is backed up first.
fn alter(table: &ObjectName, comment: &str, actions: &[String]) -> String {
    let statements = actions
        .iter()
        .map(|action| format!("ALTER TABLE {table}\n    {action};\n"));
    format!(
        "-- xtask: backup {table}\n\n{comment}{}",
        statements.collect::<String>()
    )
}

/// One check of a verify file.
fn check(what: &str, ok: &str, from: &str) -> String {
    format!(
        "SELECT {} AS check,\n       {ok} AS ok\n{from};\n",
        quote_literal(what)
    )
}

/// These conditions hold for the row, and there is one.
fn every(conditions: &[String]) -> String {
    match conditions {
        [condition] => format!("coalesce(pg_catalog.bool_and({condition}), false)"),
        conditions => format!(
            "coalesce(pg_catalog.bool_and(\n           {}), false)",
            conditions.join("\n           AND ")
        ),
    }
}

fn column_row(table: &ObjectName, column: &str) -> String {
    format!(
        "FROM pg_catalog.pg_attribute\nWHERE attrelid = {} AND attname = {} AND NOT attisdropped",
        oid(table),
        quote_literal(column)
    )
}

fn constraint_row(table: &ObjectName, name: &str) -> String {
    format!(
        "FROM pg_catalog.pg_constraint\nWHERE conrelid = {} AND conname = {}",
        oid(table),
        quote_literal(name)
    )
}

/// As in the search path of whoever asks; NULL if it is not there.
pub(super) fn oid(name: &ObjectName) -> String {
    format!(
        "pg_catalog.to_regclass({})::oid",
        quote_literal(&name.to_string())
    )
}

/// A condition on how the server shows an object, without quotes: which words it quotes depends on its version.
pub(super) fn definition_like(object: &str, pattern: &str) -> String {
    // A `_` in a pattern stands for itself too; these two need an escape, and are in few names.
    let pattern = pattern.replace('\\', "_").replace('"', "");
    format!(
        "pg_catalog.replace(pg_catalog.pg_get_{object}, '\"', '') LIKE {}",
        quote_literal(&pattern)
    )
}
