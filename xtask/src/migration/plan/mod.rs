//! Compares the folder with the history: which state each migration is in, which ones a run applies,
//! which ones a rollback undoes. Pure functions; the caller holds the migration lock.

mod down;
mod obstacles;
mod state;
mod up;

#[cfg(test)]
mod tests;

pub(crate) use down::{RollbackScope, check_unchanged, down, newest_not_run};
pub(crate) use obstacles::check_known;
pub(crate) use state::{Entry, State, applied_scripts, states};
pub(crate) use up::up;
