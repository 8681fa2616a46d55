//! The crate against real servers, which this test binary starts and stops itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod against_psql;
mod cases;
mod certificates;
mod connecting;
mod psql;
mod server;
mod tls;
