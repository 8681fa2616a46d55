//! What a statement does to tables and indexes, read from its tokens: for the preflight checks, the
//! preview of a rollback and the rules about locks. This is not a parser: a statement that it does not
//! understand is [`Effect::Opaque`], never harmless.

mod cursor;
mod destructive;
mod effect;
mod index_shape;
mod name;
mod read;

#[cfg(test)]
mod tests;

pub(crate) use cursor::{Cursor, identifiers, significant, split_names};
pub(crate) use destructive::{destroys_nothing, shows_what_it_destroys};
pub(crate) use effect::Effect;
pub(crate) use index_shape::IndexShape;
pub(crate) use name::ObjectName;
pub(crate) use read::{index_definition, of};
