//! What is on disk, what the history says, and what follows from the two. Only `source` reads the
//! disk; nothing here talks to a database or prints.

pub(crate) mod affected_tables;
pub(crate) mod effects;
pub(crate) mod history;
pub(crate) mod names;
pub(crate) mod plan;
pub(crate) mod quote;
pub(crate) mod script;
pub(crate) mod source;
pub(crate) mod sql;
