//! The application against a real PostgreSQL, which this test binary starts and stops itself.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured"
)]

mod address;
mod browser;
mod common;
mod dashboard;
mod health;
mod http;
mod login;
mod migration;
mod plans;
mod process;
mod session;
mod traffic;
