//! libpq's connection rules for the [`postgres`](https://docs.rs/postgres) and [`tokio_postgres`]
//! crates, with TLS by rustls: connection strings in both forms, the environment, service files,
//! password files, lists of hosts, `target_session_attrs`, every `sslmode`, channel binding.
//!
//! A program that also starts `psql` or `pg_dump` needs its own connection and theirs to be the same
//! one. [`ConnInfo::resolve`] reads what a person has given as libpq does; [`connect`] and
//! `blocking::connect` (feature `blocking`) try the servers in libpq's order; and
//! [`ConnInfo::psql_conninfo`] hands to libpq's programs what was resolved.
//!
//! ```no_run
//! # async fn example() -> pg_connect::Result {
//! let env = pg_connect::process_env();
//! let user = pg_connect::os_user();
//! let info = pg_connect::ConnInfo::resolve("service=app sslmode=verify-full", &env, user.as_deref())?;
//! let connection = pg_connect::connect(&info, &pg_connect::Session::default()).await?;
//! println!("connected to {}", connection.info.summary());
//! # Ok(())
//! # }
//! ```
//!
//! What libpq has and this has not stands in the crate's README. Facts come from the libpq chapter of
//! PostgreSQL's manual, and where it is silent from libpq's source, which is then named.
//!
//! Passwords: no error, warning or `Debug` output shows one; [`Password::expose`] does.

mod connect;
mod conninfo;
mod connstring;
mod environment;
mod error;
mod host;
mod keywords;
mod passfile;
mod password;
mod service;
mod settings;
mod tcp;
mod tls;
mod unsupported;

#[cfg(feature = "blocking")]
pub use connect::blocking;
pub use connect::{Canceller, Connection, Session, connect};
pub use conninfo::{ConnInfo, quoted, removed_variables};
pub use environment::{Env, os_user, process_env};
pub use error::{Error, ErrorKind, Result};
pub use host::Host;
pub use password::Password;
pub use settings::Origin;
pub use tcp::TcpSettings;
