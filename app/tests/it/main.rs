//! The application against a real PostgreSQL, which this test binary starts and stops itself.

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
