//! A backup: pg_dump of one table in an exported snapshot, proven by restoring it, with a manifest
//! beside it. Merging its rows into the table again is in `restore`.

mod completed;
mod dump;
mod folder;
mod job;
mod keep;
mod listing;
mod manifest;
mod proof;
mod prune;
mod scratch;
mod snapshot;
mod take;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use completed::{CompletedBackup, command};
pub(crate) use folder::{clean, open, sha256};
pub(crate) use listing::{Found, State, list, strays};
pub(crate) use manifest::Manifest;
pub(crate) use prune::{delete, prunable};
pub(crate) use scratch::{Loader, definition};
pub(crate) use take::take;
