//! The texts of the files. Each comment says why the form does not keep readers and writers waiting, and where
//! PostgreSQL's manual says so.

use super::Draft;
use super::constraint::Constraint;
use super::form::{Column, Form, Index, is_plain};
use super::input::quoted;
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
        Form::Columns { table, columns } => vec![add_columns(name, table, columns)],
        Form::Index(index) => vec![create_index(name, index)],
        Form::NotNull { table, column } => not_null(name, table, column),
        Form::Constraint(Constraint::Unique {
            table,
            name: key,
            columns,
        }) => unique(name, table, key, columns),
        Form::Constraint(constraint) => not_valid_then_validate(name, constraint),
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

fn add_columns(name: &str, table: &ObjectName, columns: &[Column]) -> Draft {
    let comment = match columns.iter().any(|column| column.default.is_some()) {
        true => CONSTANT_DEFAULT,
        false => NULLABLE,
    };
    let add = columns.iter().map(|column| {
        let default = column
            .default
            .as_ref()
            .map(|value| format!(" DEFAULT {value}"));
        let (name, kind) = (quote_if_needed(&column.name), &column.kind);
        format!(
            "ADD COLUMN IF NOT EXISTS {name} {kind}{}",
            default.unwrap_or_default()
        )
    });
    let drop = columns.iter().rev();
    let drop =
        drop.map(|column| format!("DROP COLUMN IF EXISTS {}", quote_if_needed(&column.name)));
    let checks: Vec<String> = columns.iter().flat_map(column_checks).collect();
    Draft {
        name: name.to_owned(),
        up: with_backup(table, comment, &[alter(table, add)]),
        down: with_backup(table, "", &[alter(table, drop)]),
        verify: checks.join("\n"),
    }
}

fn column_checks(column: &Column) -> Vec<String> {
    let Column { table, name, .. } = column;
    let shown = format!("{table}.{}", quote_if_needed(name));
    let kind = column.bare_kind();
    let default = if column.default.is_some() {
        " AND atthasdef"
    } else {
        ""
    };
    let with_default = if column.default.is_some() {
        ", with a default"
    } else {
        ""
    };
    let from = format!(
        "FROM pg_catalog.pg_attribute\n\
         WHERE attrelid = {} AND attname = {} AND NOT attisdropped",
        oid(table),
        quote_literal(name)
    );
    vec![
        check(
            &format!("column {shown} exists"),
            "pg_catalog.count(*) = 1",
            &from,
        ),
        check(
            &format!("{shown} is {kind}{with_default}"),
            &every(&[&format!(
                "atttypid = pg_catalog.to_regtype({})::oid{default}",
                quote_literal(&kind)
            )]),
            &from,
        ),
    ]
}

fn create_index(name: &str, index: &Index) -> Draft {
    let full_name = ObjectName {
        schema: index.table.schema.clone(),
        name: index.name.clone(),
    };
    let unique = if index.unique { "UNIQUE " } else { "" };
    let using = match index.method.as_str() {
        "btree" => String::new(),
        method => format!("USING {} ", quote_if_needed(method)),
    };
    let keys: Vec<&str> = index.keys.iter().map(|key| key.text.as_str()).collect();
    let on = format!(
        "ON {} {using}({}) {}",
        index.table,
        keys.join(", "),
        index.rest
    );
    let create = format!(
        "CREATE {unique}INDEX CONCURRENTLY IF NOT EXISTS {}\n    {};\n",
        quote_if_needed(&index.name),
        on.trim_end()
    );
    Draft {
        name: name.to_owned(),
        up: format!("{NO_TRANSACTION}\n\n{CONCURRENTLY}{create}"),
        down: format!("{NO_TRANSACTION}\n\nDROP INDEX CONCURRENTLY IF EXISTS {full_name};\n"),
        verify: index_checks(index, &full_name),
    }
}

fn index_checks(index: &Index, name: &ObjectName) -> String {
    let Index {
        table,
        method,
        keys,
        ..
    } = index;
    let from = format!("FROM pg_catalog.pg_index\nWHERE indexrelid = {}", oid(name));
    let (is_unique, unique) = match index.unique {
        true => ("unique, ", "indisunique"),
        false => ("", "NOT indisunique"),
    };
    let shown: Option<Vec<&str>> = keys.iter().map(|key| key.shown.as_deref()).collect();
    let (what, condition) = match shown.filter(|_| index.rest.is_empty() && method == "btree") {
        Some(shown) => {
            let what = format!("btree ({})", shown.join(", "));
            let is = without_quotes_like("indexdef(indexrelid)", &format!("%USING {what}"));
            (what, is)
        }
        // An expression can be written in many ways: it is not compared.
        None => {
            let (is_partial, not) = match index.partial {
                true => ("partial, ", "NOT "),
                false => ("", ""),
            };
            let number = keys.len();
            let using = quote_literal(&format!("% USING {method} (%"));
            let what = format!("{is_partial}{method}, with {number} keys");
            let is = format!(
                "pg_catalog.pg_get_indexdef(indexrelid) LIKE {using}\n           \
                 AND indnkeyatts = {number} AND {not}indpred IS NULL"
            );
            (what, is)
        }
    };
    [
        check(
            &format!("index {name} exists on {table}"),
            "pg_catalog.count(*) = 1",
            &format!("{from} AND indrelid = {}", oid(table)),
        ),
        check(
            &format!("{name} is valid and ready"),
            &every(&["indisvalid AND indisready"]),
            &from,
        ),
        check(
            &format!("{name} is {is_unique}{what}"),
            &every(&[&condition, unique]),
            &from,
        ),
    ]
    .join("\n")
}

/// A condition on what the server says of an object. Which words it quotes depends on its version.
fn without_quotes_like(object: &str, pattern: &str) -> String {
    format!(
        "pg_catalog.replace(pg_catalog.pg_get_{object}, '\"', '') LIKE {}",
        quote_literal(pattern)
    )
}

/// Adds a constraint in two migrations, so that the rows are read without a lock that keeps writers waiting.
fn not_valid_then_validate(name: &str, constraint: &Constraint) -> Vec<Draft> {
    let table = constraint.table();
    let its_name = quote_if_needed(constraint.name());
    let add = format!(
        "ADD CONSTRAINT {its_name} {} NOT VALID",
        constraint.definition()
    );
    let drop = format!("DROP CONSTRAINT IF EXISTS {its_name}");
    let from = constraint_row(table, constraint.name());
    let shown = format!("{}.{its_name}", table);
    let (kind, same) = same_constraint(constraint);
    vec![
        Draft {
            name: name.to_owned(),
            up: with_backup(table, NOT_VALID, &[alter(table, [add.clone()])]),
            down: with_backup(table, "", &[alter(table, [drop.clone()])]),
            verify: check(&format!("{kind} {shown} exists"), &all(&same), &from),
        },
        Draft {
            name: format!("{name}_validate"),
            up: with_backup(
                table,
                VALIDATE,
                &[alter(table, [format!("VALIDATE CONSTRAINT {its_name}")])],
            ),
            down: with_backup(table, NOT_VALID_AGAIN, &[alter(table, [drop, add])]),
            verify: check(
                &format!("{kind} {shown} is validated"),
                &every(&["convalidated"]),
                &from,
            ),
        },
    ]
}

/// What kind of constraint it is, and the conditions by which a row of `pg_constraint` is it.
fn same_constraint(constraint: &Constraint) -> (&'static str, Vec<String>) {
    let shown = |columns: &[String]| {
        let plain = columns.iter().all(|column| is_plain(column));
        plain.then(|| columns.join(", "))
    };
    let definition = |pattern: String| without_quotes_like("constraintdef(oid)", &pattern);
    match constraint {
        // A condition can be written in many ways: it is not compared.
        Constraint::Check { .. } => ("check", vec!["contype = 'c'".to_owned()]),
        Constraint::Unique { columns, .. } => {
            let columns = shown(columns).map(|columns| definition(format!("UNIQUE ({columns})")));
            let kind = ["contype = 'u'".to_owned()];
            (
                "unique constraint",
                kind.into_iter().chain(columns).collect(),
            )
        }
        Constraint::ForeignKey {
            columns,
            referenced,
            referenced_columns,
            ..
        } => {
            let to = match &referenced_columns[..] {
                [] => Some("%".to_owned()),
                columns => shown(columns).map(|columns| format!("%({columns})%")),
            };
            let keys = shown(columns).zip(to);
            let keys =
                keys.map(|(of, to)| definition(format!("FOREIGN KEY ({of}) REFERENCES {to}")));
            let kind = [format!("contype = 'f' AND confrelid = {}", oid(referenced))];
            ("foreign key", kind.into_iter().chain(keys).collect())
        }
    }
}

fn not_null(name: &str, table: &ObjectName, column: &str) -> Vec<Draft> {
    let check_name = joined(&[&table.name, column, "not_null_check"]);
    let (its_name, quoted_column) = (quote_if_needed(&check_name), quote_if_needed(column));
    let add = format!("ADD CONSTRAINT {its_name} CHECK ({quoted_column} IS NOT NULL) NOT VALID");
    let shown = format!("{table}.{quoted_column}");
    let from = format!(
        "FROM pg_catalog.pg_attribute\n\
         WHERE attrelid = {} AND attname = {} AND NOT attisdropped",
        oid(table),
        quote_literal(column)
    );
    let has_check = format!(
        "attnotnull\n           OR EXISTS (SELECT {} AND contype = 'c')",
        constraint_row(table, &check_name).replace('\n', "\n                      ")
    );
    vec![
        Draft {
            name: format!("{name}_check"),
            up: with_backup(table, NOT_VALID, &[alter(table, [add.clone()])]),
            down: with_backup(
                table,
                "",
                &[alter(
                    table,
                    [format!("DROP CONSTRAINT IF EXISTS {its_name}")],
                )],
            ),
            // Also once the CHECK has been replaced.
            verify: check(
                &format!("{shown} takes no NULL, by a CHECK or by NOT NULL"),
                &every(&[&has_check]),
                &from,
            ),
        },
        Draft {
            name: name.to_owned(),
            up: with_backup(
                table,
                SET_NOT_NULL,
                &[
                    alter(table, [format!("VALIDATE CONSTRAINT {its_name}")]),
                    alter(
                        table,
                        [format!("ALTER COLUMN {quoted_column} SET NOT NULL")],
                    ),
                    alter(table, [format!("DROP CONSTRAINT {its_name}")]),
                ],
            ),
            down: with_backup(
                table,
                NOT_VALID_AGAIN,
                &[alter(
                    table,
                    [add, format!("ALTER COLUMN {quoted_column} DROP NOT NULL")],
                )],
            ),
            verify: check(
                &format!("{shown} is NOT NULL"),
                &every(&["attnotnull"]),
                &from,
            ),
        },
    ]
}

fn unique(name: &str, table: &ObjectName, key: &str, columns: &[String]) -> Vec<Draft> {
    let index = Index::unique_columns(table, key, columns);
    let its_name = quote_if_needed(key);
    let constraint = Constraint::Unique {
        table: table.clone(),
        name: key.to_owned(),
        columns: columns.to_vec(),
    };
    let (kind, same) = same_constraint(&constraint);
    vec![
        create_index(&format!("{name}_index"), &index),
        Draft {
            name: name.to_owned(),
            up: with_backup(
                table,
                USING_INDEX,
                &[alter(
                    table,
                    [format!(
                        "ADD CONSTRAINT {its_name} UNIQUE USING INDEX {its_name}"
                    )],
                )],
            ),
            down: with_backup(
                table,
                DROPS_ITS_INDEX,
                &[alter(
                    table,
                    [format!("DROP CONSTRAINT IF EXISTS {its_name}")],
                )],
            ),
            verify: check(
                &format!("{kind} {table}.{its_name} is on ({})", quoted(columns)),
                &all(&same),
                &constraint_row(table, key),
            ),
        },
    ]
}

/// A file that alters a table, which is backed up first.
fn with_backup(table: &ObjectName, comment: &str, statements: &[String]) -> String {
    format!(
        "-- xtask: backup {table}\n\n{comment}{}",
        statements.concat()
    )
}

fn alter(table: &ObjectName, actions: impl IntoIterator<Item = String>) -> String {
    let actions: Vec<String> = actions.into_iter().collect();
    format!("ALTER TABLE {table}\n    {};\n", actions.join(",\n    "))
}

/// One check of a verify file.
fn check(what: &str, ok: &str, from: &str) -> String {
    format!(
        "SELECT {} AS check,\n       {ok} AS ok\n{from};\n",
        quote_literal(what)
    )
}

fn all(conditions: &[String]) -> String {
    let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
    every(&conditions)
}

/// These conditions hold for the row, and there is one.
fn every(conditions: &[&str]) -> String {
    match conditions {
        [condition] => format!("coalesce(pg_catalog.bool_and({condition}), false)"),
        conditions => format!(
            "coalesce(pg_catalog.bool_and(\n           {}), false)",
            conditions.join("\n           AND ")
        ),
    }
}

fn constraint_row(table: &ObjectName, name: &str) -> String {
    format!(
        "FROM pg_catalog.pg_constraint\nWHERE conrelid = {} AND conname = {}",
        oid(table),
        quote_literal(name)
    )
}

/// As in the search path of whoever asks; NULL if it is not there.
fn oid(name: &ObjectName) -> String {
    format!(
        "pg_catalog.to_regclass({})::oid",
        quote_literal(&name.to_string())
    )
}
