//! Tests with real servers. They run beside each other, as root and as an ordinary user, and leave
//! nothing behind.
#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests too, a failure is the test's failure"
)]

mod cluster;
mod common;
mod throwaway;
