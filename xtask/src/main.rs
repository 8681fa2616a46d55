//! `cargo xtask db-*`: the migration runbook that runs itself.

mod database;
mod error;
mod migration;

fn main() {}
