//! The commands against a real PostgreSQL, which this test binary starts and stops itself.

mod backup;
mod bad_input;
mod baseline;
mod common;
mod contract;
mod failing;
mod failures;
mod flow;
mod noon;
mod output;
mod proof;
mod report;
mod restore;
mod seed;
mod setup;
mod terminal;
