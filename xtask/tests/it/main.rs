//! The commands against a real PostgreSQL, which this test binary starts and stops itself.

mod common;
mod failing;
mod failures;
mod flow;
mod setup;
