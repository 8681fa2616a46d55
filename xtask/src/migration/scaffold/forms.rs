//! The forms of a change: how each is read, and the texts of its files. Each comment says why the form does not keep
//! readers and writers waiting, and where PostgreSQL's manual says so.

use super::change::{self, Change};
use super::{Form, Template};

/// The table is backed up first.
const BACKUP: &str = "-- xtask: backup {table}\n\n";

pub(crate) const COLUMN: Form = Form {
    flag: "--column",
    syntax: "TABLE.COLUMN:TYPE, without a default or a constraint: these are separate changes",
    example: "users.last_login_at:timestamptz",
    read: change::column,
    templates: &[Template {
        suffix: "",
        head: BACKUP,
        up: "\
-- Existing rows keep NULL. Adding a nullable column without a default changes the catalog only: no row is
-- rewritten (PostgreSQL manual, ALTER TABLE, Notes).
ALTER TABLE {table}
    ADD COLUMN IF NOT EXISTS {columns} {definition};
",
        down: "\
ALTER TABLE {table}
    DROP COLUMN IF EXISTS {columns};
",
        verify: "\
SELECT 'column {table}.{column} exists' AS check,
       pg_catalog.count(*) = 1 AS ok
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('{table}')::oid AND attname = '{column}' AND NOT attisdropped;

SELECT '{table}.{column} is {shown}' AS check,
       coalesce(pg_catalog.bool_and(atttypid = pg_catalog.to_regtype('{definition}')::oid), false) AS ok
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('{table}')::oid AND attname = '{column}' AND NOT attisdropped;
",
    }],
};

pub(crate) const INDEX: Form = Form {
    flag: "--index",
    syntax: "[UNIQUE] TABLE(COLUMNS)",
    example: "users(last_login_at DESC NULLS LAST)",
    read: change::index,
    templates: &[CONCURRENTLY],
};

pub(crate) const UNIQUE: Form = Form {
    flag: "--unique",
    syntax: "TABLE(COLUMNS), and for an expression --index 'UNIQUE TABLE(EXPRESSION)'",
    example: "users(email)",
    read: change::unique,
    templates: &[
        Template {
            suffix: "_index",
            ..CONCURRENTLY
        },
        Template {
            suffix: "",
            head: BACKUP,
            up: "\
-- The index is there: nothing is read under the ACCESS EXCLUSIVE lock. It now belongs to the constraint
-- (PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index).
ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name};
",
            down: "\
-- This drops the index too, which the migration before this one built. A rollback of the whole run takes both
-- back; after a rollback of this one alone, roll back that one as well before you migrate again.
ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name};
",
            verify: "\
SELECT 'constraint {name} of {table} is UNIQUE ({columns})' AS check,
       coalesce(pg_catalog.bool_and(
           pg_catalog.replace(pg_catalog.pg_get_constraintdef(oid), '\"', '') LIKE 'UNIQUE ({columns})'), false) AS ok
FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass('{table}')::oid AND conname = '{name}';
",
        },
    ],
};

pub(crate) const CHECK: Form = Form {
    flag: "--constraint",
    syntax: "TABLE CHECK (CONDITION)",
    example: "users CHECK (age >= 0)",
    read: change::check,
    templates: &[NOT_VALID, VALIDATE],
};

pub(crate) const FOREIGN_KEY: Form = Form {
    flag: "--foreign-key",
    syntax: "TABLE(COLUMNS) REFERENCES TABLE(COLUMNS)",
    example: "orders(user_id) REFERENCES users(id)",
    read: change::foreign_key,
    templates: &[
        Template {
            verify: "\
SELECT 'foreign key {name} of {table} points to {referenced}' AS check,
       coalesce(pg_catalog.bool_and(
           contype = 'f' AND confrelid = pg_catalog.to_regclass('{referenced}')::oid
           AND pg_catalog.replace(pg_catalog.pg_get_constraintdef(oid), '\"', '')
               LIKE '{shown}'), false) AS ok
FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass('{table}')::oid AND conname = '{name}';
",
            ..NOT_VALID
        },
        VALIDATE,
    ],
};

pub(crate) const NOT_NULL: Form = Form {
    flag: "--not-null",
    syntax: "TABLE.COLUMN",
    example: "users.email",
    read: change::not_null,
    templates: &[
        Template {
            suffix: "_check",
            // The CHECK is replaced by the second migration.
            verify: "\
SELECT '{table}.{column} takes no NULL, by a CHECK or by NOT NULL' AS check,
       coalesce(pg_catalog.bool_and(
           attnotnull
           OR EXISTS (SELECT FROM pg_catalog.pg_constraint
                      WHERE conrelid = attrelid AND conname = '{name}' AND contype = 'c')), false) AS ok
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('{table}')::oid AND attname = '{column}' AND NOT attisdropped;
",
            ..NOT_VALID
        },
        Template {
            suffix: "",
            head: BACKUP,
            up: "\
-- VALIDATE reads every row while reads and writes go on. The valid CHECK proves to SET NOT NULL that no row
-- holds NULL, so nothing is read under its ACCESS EXCLUSIVE lock, and the CHECK has done its work
-- (PostgreSQL manual, ALTER TABLE, SET NOT NULL).
ALTER TABLE {table} VALIDATE CONSTRAINT {name};
ALTER TABLE {table} ALTER COLUMN {columns} SET NOT NULL;
ALTER TABLE {table} DROP CONSTRAINT {name};
",
            down: "\
-- As the migration before this one left it: there, and not validated. No row is read.
ALTER TABLE {table}
    ADD CONSTRAINT {name} {definition} NOT VALID;
ALTER TABLE {table} ALTER COLUMN {columns} DROP NOT NULL;
",
            verify: "\
SELECT '{table}.{column} is NOT NULL' AS check,
       coalesce(pg_catalog.bool_and(attnotnull), false) AS ok
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('{table}')::oid AND attname = '{column}' AND NOT attisdropped;
",
        },
    ],
};

/// An index, alone in its file.
const CONCURRENTLY: Template = Template {
    suffix: "",
    head: "-- no-transaction\n\n",
    up: "\
-- CONCURRENTLY lets reads and writes go on while the index is built. It cannot run in a transaction, so it is
-- alone in its file (PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently).
CREATE {unique}INDEX CONCURRENTLY IF NOT EXISTS {name}
    ON {table} {definition};
",
    down: "DROP INDEX CONCURRENTLY IF EXISTS {index};\n",
    verify: "\
SELECT 'index {index} exists on {table}' AS check,
       pg_catalog.count(*) = 1 AS ok
FROM pg_catalog.pg_index
WHERE indexrelid = pg_catalog.to_regclass('{index}')::oid AND indrelid = pg_catalog.to_regclass('{table}')::oid;

SELECT '{index} is valid and ready' AS check,
       coalesce(pg_catalog.bool_and(indisvalid AND indisready), false) AS ok
FROM pg_catalog.pg_index
WHERE indexrelid = pg_catalog.to_regclass('{index}')::oid;

SELECT '{index} is {unique}{shown}' AS check,
       coalesce(pg_catalog.bool_and(
           pg_catalog.replace(pg_catalog.pg_get_indexdef(indexrelid), '\"', '')
           LIKE 'CREATE {unique}INDEX % USING {shown}'), false) AS ok
FROM pg_catalog.pg_index
WHERE indexrelid = pg_catalog.to_regclass('{index}')::oid;
",
};

/// A constraint that is added without looking at the rows that exist.
const NOT_VALID: Template = Template {
    suffix: "",
    head: BACKUP,
    up: "\
-- NOT VALID checks new and changed rows from now on. It reads none of the rows that exist, so its lock is held
-- for a moment only; the next migration validates them (PostgreSQL manual, ALTER TABLE, Notes).
ALTER TABLE {table}
    ADD CONSTRAINT {name} {definition} NOT VALID;
",
    down: "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name};\n",
    // A condition can be written in many ways: it is not compared.
    verify: "\
SELECT 'check {name} of {table} exists' AS check,
       coalesce(pg_catalog.bool_and(contype = 'c'), false) AS ok
FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass('{table}')::oid AND conname = '{name}';
",
};

/// The second half of [`NOT_VALID`].
const VALIDATE: Template = Template {
    suffix: "_validate",
    head: BACKUP,
    up: "\
-- Reads every row under a SHARE UPDATE EXCLUSIVE lock, beside which reads and writes go on
-- (PostgreSQL manual, ALTER TABLE, VALIDATE CONSTRAINT).
ALTER TABLE {table} VALIDATE CONSTRAINT {name};
",
    down: "\
-- As the migration before this one left it: there, and not validated. No row is read.
ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name};
ALTER TABLE {table}
    ADD CONSTRAINT {name} {definition} NOT VALID;
",
    verify: "\
SELECT 'constraint {name} of {table} is validated' AS check,
       coalesce(pg_catalog.bool_and(convalidated), false) AS ok
FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass('{table}')::oid AND conname = '{name}';
",
};

/// Files that refuse to run until somebody has written them.
pub(crate) const UNWRITTEN: Form = Form {
    flag: "",
    syntax: "",
    example: "",
    read: |_| Some(Change::default()),
    templates: &[Template {
        suffix: "",
        head: "-- Replace the statement below, which keeps this file from being run as it is.\n",
        up: "DO $$ BEGIN RAISE EXCEPTION 'the up file is not written yet'; END $$;\n",
        down: "DO $$ BEGIN RAISE EXCEPTION 'the down file is not written yet'; END $$;\n",
        verify: "\
-- Write what must be true after the migration, a SELECT for each check. Without one, the migration is not applied.
-- SELECT 'table users exists' AS check, pg_catalog.to_regclass('users') IS NOT NULL AS ok;
",
    }],
};
