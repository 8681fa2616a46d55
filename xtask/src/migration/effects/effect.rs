//! What a statement can do.

use super::name::ObjectName;

/// One thing that a statement does. A statement may do several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// `CREATE TABLE`, `CREATE TABLE … AS` and `SELECT … INTO`.
    CreateTable {
        table: ObjectName,
        if_not_exists: bool,
    },
    /// Any `ALTER TABLE`, once per statement and before its actions; also the parent of a new
    /// partition, which gets the same lock.
    AlterTable {
        table: ObjectName,
        if_exists: bool,
    },
    AddColumn {
        table: ObjectName,
        column: String,
        if_not_exists: bool,
    },
    DropColumn {
        table: ObjectName,
        column: String,
        if_exists: bool,
    },
    /// `ALTER COLUMN … TYPE`: may rewrite the table and truncate its values.
    AlterColumnType {
        table: ObjectName,
        column: String,
    },
    /// `ALTER TABLE … RENAME TO`.
    RenameTable {
        table: ObjectName,
        to: ObjectName,
    },
    /// A foreign key that points to this table and locks it against writes.
    References {
        table: ObjectName,
    },
    DropTable {
        table: ObjectName,
        if_exists: bool,
    },
    /// With `cascade`, everything in it is dropped too.
    DropSchema {
        schema: String,
        cascade: bool,
    },
    CreateIndex {
        /// `None` where the server chooses one.
        name: Option<String>,
        table: ObjectName,
        unique: bool,
        concurrently: bool,
        if_not_exists: bool,
    },
    DropIndex {
        name: ObjectName,
        concurrently: bool,
        if_exists: bool,
    },
    Reindex {
        target: ReindexTarget,
        concurrently: bool,
    },
    /// Deletes all rows.
    Truncate {
        table: ObjectName,
    },
    /// May delete rows.
    Delete {
        table: ObjectName,
    },
    /// May change values: `UPDATE`, `MERGE`, `ON CONFLICT DO UPDATE`.
    Update {
        table: ObjectName,
    },
    /// `DROP` of anything but a table, an index or a schema: `view`, `type`, `function`, ….
    DropObject {
        kind: String,
        name: ObjectName,
    },
    /// May do anything: it runs code that is not in the statement (`DO`, `CALL`, a function in a
    /// `SELECT`, `CREATE EXTENSION`), it cascades, or it was not understood.
    Opaque,
    /// None of the above: comments, grants, settings, inserts, views, functions, types.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReindexTarget {
    Index(ObjectName),
    Table(ObjectName),
    /// A schema, or the whole database.
    Many,
}
