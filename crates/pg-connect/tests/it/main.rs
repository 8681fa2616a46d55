//! The crate against real servers, which this test binary starts and stops itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connecting;
mod server;
