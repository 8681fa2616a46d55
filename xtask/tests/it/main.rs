//! The commands against a real PostgreSQL, which this test binary starts and stops itself.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measured and what they skipped"
)]

mod adopting;
mod applied_files;
mod backup;
mod bad_input;
mod baseline;
mod common;
mod contract;
mod docs;
mod failing;
mod failures;
mod flow;
mod forecast;
mod guard;
mod half_way;
mod hard_values;
mod ignore_missing;
mod indexes;
mod interrupt;
mod kill;
mod lock_then_look;
mod new;
mod newer_servers;
mod noon;
mod one_writer;
mod output;
mod proof;
mod proxy;
mod prune;
mod read_only;
mod repair;
mod report;
mod restore;
mod restore_race;
mod restore_several;
mod restore_values;
mod seed;
mod sessions;
mod setup;
mod shell;
mod stall;
mod standbys;
mod terminal;
mod way_back;
