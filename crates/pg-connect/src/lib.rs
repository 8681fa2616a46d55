//! libpq's connection rules for the [`postgres`](https://docs.rs/postgres) and [`tokio_postgres`]
//! crates, with TLS by rustls: connection strings in both forms, the environment, service files,
//! password files, lists of hosts, `target_session_attrs`, every `sslmode`, channel binding.
//!
//! A program that also starts `psql` or `pg_dump` must connect to the same server as they do.
//! [`ConnInfo::resolve`] reads a connection string and its defaults as libpq does. [`connect`] and
//! `blocking::connect` (feature `blocking`) try the servers in libpq's order.
//! [`ConnInfo::psql_conninfo`] passes the resolved parameters to `psql` and `pg_dump`.
//!
//! ```no_run
//! # async fn example() -> pg_connect::Result {
//! let env = pg_connect::process_env();
//! let user = pg_connect::os_user();
//! let info = pg_connect::ConnInfo::resolve("service=app sslmode=verify-full", &env, user.as_deref())?;
//! let connection = pg_connect::connect(&info, &pg_connect::SessionOptions::default()).await?;
//! println!("connected to {}", connection.info.summary());
//! # Ok(())
//! # }
//! ```
//!
//! The crate's README lists what libpq supports and this crate does not. "Manual" means the libpq
//! chapter of PostgreSQL's manual
//! ([Database Connection Control Functions](https://www.postgresql.org/docs/current/libpq-connect.html)
//! and the sections after it), which is where the rules come from. Where the manual does not say, they
//! come from libpq's source, and the function is named.
//!
//! No error, warning or `Debug` output contains a password. [`Password::expose`] returns it.

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
pub use connect::{Canceller, Connection, SessionOptions, connect};
pub use conninfo::{ConnInfo, libpq_variables, quote_value};
pub use environment::{Env, os_user, process_env};
pub use error::{Error, ErrorKind, Result};
pub use host::Host;
pub use password::Password;
pub use settings::Origin;
pub use tcp::TcpSettings;
