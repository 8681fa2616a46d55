//! A run: preflight, backup, apply or undo, verify, report. One `Plan` serves the run, `--dry-run` and
//! the summary.

pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod backup_tables;
mod build_watch;
mod excerpt;
pub(crate) mod guard;
pub(crate) mod indexes;
mod lock_wait;
mod losses;
mod outcome;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod restore;
mod run;
pub(crate) mod shared_history;
mod stall;
pub(crate) mod verify;
mod watched_psql;

pub(crate) use run::{migrate, redo, rollback};
