//! The commands against a real PostgreSQL, which this test binary starts and stops itself.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measured and what they skipped"
)]

mod backup;
mod bad_input;
mod baseline;
mod common;
mod contract;
mod failing;
mod failures;
mod flow;
mod half_way;
mod indexes;
mod interrupt;
mod kill;
mod noon;
mod one_writer;
mod output;
mod proof;
mod read_only;
mod report;
mod restore;
mod restore_race;
mod restore_values;
mod seed;
mod setup;
mod terminal;
