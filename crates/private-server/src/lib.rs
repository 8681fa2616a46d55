//! A private PostgreSQL server for development and tests.
//!
//! Four modules, which you can read separately:
//!
//! - [`installation`]: which PostgreSQL programs this machine has, and where.
//! - [`platform`]: the commands that install PostgreSQL here, and that start the system's own server.
//! - [`cluster`]: one data folder and the server on it, kept in a workspace until it is destroyed.
//! - [`throwaway`]: a server for one test run, which is removed however the run ends.
//!
//! This crate does not use SQL (it never connects to a database), does not print, and does not read the
//! environment; the caller passes `PATH`.

mod account;
pub mod cluster;
pub mod installation;
pub mod platform;
pub mod throwaway;

pub use cluster::{Cluster, NewCluster, Status, Stop};
pub use installation::{Installation, Version};
pub use platform::Platform;
pub use throwaway::ThrowawayServer;
