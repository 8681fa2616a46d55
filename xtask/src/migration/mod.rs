//! The migrations on disk, what the history says about them, and what a run or a rollback has to do.
//! Only `source` uses the disk; nothing here connects to a database, prints, or uses a module above
//! this one (only `error`, `hint`, `shell` and `hex`).

pub(crate) mod affected_tables;
pub(crate) mod effects;
pub(crate) mod foresight;
pub(crate) mod former_names;
pub(crate) mod history;
pub(crate) mod plan;
pub(crate) mod quote;
pub(crate) mod scaffold;
pub(crate) mod script;
pub(crate) mod source;
pub(crate) mod sql;
