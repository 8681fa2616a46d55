//! What the system catalog says of tables, columns and indexes.

mod columns;
mod identity;
mod indexes;
mod restore;
mod tables;

pub(crate) use columns::{
    Column, OwnedSequence, column_number, columns, domain_columns, owned_sequences,
};
pub(crate) use identity::{Identity, WalPosition, identity, wal_position};
pub(crate) use indexes::{
    IndexState, InvalidIndex, index_definition, index_on, index_state, index_states,
    invalid_indexes, nameless, schemas_of, tables_named,
};
pub(crate) use restore::{
    UniqueIndex, firing_triggers, primary_key, primary_key_equality, unique_indexes,
};
pub(crate) use tables::{
    Relation, changed_with, count_values, existing, find, may_create_in, may_write,
    referenced_tables, schemas_with, table_with_rows, tables_of, uncovered_child_tables,
};
