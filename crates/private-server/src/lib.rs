//! A private PostgreSQL server for development and tests: found, made, started, stopped, gone.
//!
//! Four modules, each of which can be read alone:
//!
//! - [`installation`]: which PostgreSQL programs this machine has, and where.
//! - [`platform`]: the commands that install PostgreSQL here, and that start the system's own server.
//! - [`cluster`]: one data folder and the server on it, kept in a workspace until it is destroyed.
//! - [`throwaway`]: a server for one test run, which goes away however that run ends.
//!
//! What is absent on purpose: SQL (nothing here connects to a database), printing, and any look at
//! the environment; a caller passes `PATH` in.

mod account;
pub mod cluster;
pub mod installation;
pub mod platform;
pub mod throwaway;

pub use cluster::{Cluster, NewCluster, Status, Stop};
pub use installation::{Installation, Version};
pub use platform::Platform;
pub use throwaway::ThrowawayServer;
