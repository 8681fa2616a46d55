//! Native queries, through which every decision and every check is made. Nothing here changes the
//! schema: psql does (see `tools`). Types of parameters are written down (`query_typed`), which makes a
//! query one round trip: nothing is prepared on the server first.

pub(crate) mod activity;
pub(crate) mod baseline;
pub(crate) mod catalog;
pub(crate) mod connect;
pub(crate) mod conninfo;
pub(crate) mod connstring;
pub(crate) mod history;
pub(crate) mod lock;
pub(crate) mod passfile;
pub(crate) mod pooler;
pub(crate) mod seed;
pub(crate) mod servicefile;
pub(crate) mod standby;
pub(crate) mod tls;

use std::time::Duration;

use anyhow::Context as _;
use connect::Connection;
use conninfo::ConnInfo;
use jiff::Timestamp;
use postgres::Client;
use serde::Serialize;

use crate::error::Result;

/// Settings that every session of a run starts with, whatever the role or database has set: no
/// limit of theirs may end a backup or leave an INVALID index. Options in the startup packet take
/// precedence over `ALTER ROLE … SET` and are what RESET goes back to.
pub(crate) const SESSION_OPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 \
    -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 \
    -c standard_conforming_strings=on -c default_transaction_read_only=off";

/// A client that has died (its machine too) is noticed within this time, also in the midst of an
/// index build, which ends then.
const DEAD_CLIENT_OPTION: &str = " -c client_connection_check_interval=2s";

/// How long a query of ours may wait for a lock, unless `--lock-deadline` says otherwise.
const LOCK_WAIT: Duration = Duration::from_secs(600);

/// What the native session of a command starts with: it never waits for a lock without end.
pub(crate) fn native_options() -> String {
    format!(
        "{SESSION_OPTIONS} -c lock_timeout={}",
        LOCK_WAIT.as_millis()
    )
}

/// The oldest server that is supported, as a major version.
pub(crate) const OLDEST_SERVER: u32 = 14;

/// A connected database and what was learned of it at once.
pub(crate) struct Database {
    pub(crate) client: Client,
    /// Pinned to the host that answered, for psql to reach the same server.
    pub(crate) target: ConnInfo,
    pub(crate) server: Server,
    /// How long the native session, and whatever reads beside it, may wait for a lock.
    pub(crate) lock_wait: Duration,
    /// What psql's sessions start with: [`SESSION_OPTIONS`], and more once [`Database::settle`] has
    /// asked the server what it knows.
    pub(crate) session_options: String,
    /// Whether a proxy keeps startup options to itself, so that only statements set them.
    pub(crate) options_lost: bool,
}

/// The server, the database and the role, as they say themselves.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Server {
    /// The database.
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    /// `15.18`.
    pub(crate) server_version: String,
    /// 150018.
    #[serde(skip)]
    pub(crate) version_number: u32,
    /// What it stores text in: `UTF8`.
    #[serde(skip)]
    pub(crate) encoding: String,
    /// Whether the connection is.
    #[serde(skip)]
    pub(crate) encrypted: bool,
    #[serde(skip)]
    pub(crate) in_recovery: bool,
    /// The first schema of the search path that exists.
    #[serde(skip)]
    pub(crate) schema: Option<String>,
    /// The server's clock at connection, or when the migration lock was taken.
    #[serde(skip)]
    pub(crate) clock: Timestamp,
    /// The server process behind the native connection.
    #[serde(skip)]
    pub(crate) backend_pid: i32,
    /// Where sqlx's history table is, if it is.
    #[serde(skip)]
    pub(crate) history_schema: Option<String>,
    /// The newest `installed_on` of the history, as it was read last.
    #[serde(skip)]
    pub(crate) newest_run: Option<Timestamp>,
}

impl Server {
    pub(crate) fn major(&self) -> u32 {
        self.version_number / 10_000
    }
}

impl Server {
    /// The database's address for another role, without a password, as a shell takes it unquoted.
    pub(crate) fn address(&self, user: &str) -> String {
        let encode = |text| percent_encoding::utf8_percent_encode(text, UNRESERVED);
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => encode(&self.host).to_string(),
        };
        let (user, name) = (encode(user), encode(&self.name));
        format!("postgres://{user}@{host}:{}/{name}", self.port)
    }
}

/// All but RFC 3986's unreserved characters.
const UNRESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Server {
            name,
            host,
            port,
            user,
            server_version,
            ..
        } = self;
        let place = if host.starts_with('/') {
            format!("{host}/.s.PGSQL.{port}")
        } else {
            format!("{host}:{port}")
        };
        write!(
            f,
            "`{name}` on {place} as {user} (PostgreSQL {server_version})"
        )
    }
}

impl Database {
    /// Asks the server who and what it is: one round trip more than the connection.
    ///
    /// # Errors
    /// If the query fails.
    pub(crate) fn learn(connection: Connection) -> Result<Database> {
        let encrypted = connection.encrypted;
        let (mut client, target) = (connection.client, connection.info);
        // Everything as text, so that no type has to be looked up first.
        let row = client
            .query_typed_one(
                "SELECT pg_catalog.current_database()::text, current_user::text,
                        pg_catalog.current_setting('server_version'),
                        pg_catalog.current_setting('server_version_num'),
                        pg_catalog.pg_is_in_recovery(),
                        pg_catalog.current_schema()::text,
                        pg_catalog.clock_timestamp(), pg_catalog.pg_backend_pid(),
                        (SELECT n.nspname::text
                         FROM pg_catalog.pg_class AS c
                         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE c.oid = pg_catalog.to_regclass('_sqlx_migrations')),
                        pg_catalog.current_setting('server_encoding')",
                &[],
            )
            .context("cannot ask the server what it is")?;
        let version: String = row.get(2);
        let number: String = row.get(3);
        let (host, port) = (target.hosts()[0].shown(), target.hosts()[0].port);
        let server = Server {
            name: row.get(0),
            user: row.get(1),
            server_version: version.split(' ').next().unwrap_or_default().to_owned(),
            version_number: number
                .parse()
                .context("the server's version is no number")?,
            in_recovery: row.get(4),
            schema: row.get(5),
            clock: row.get(6),
            backend_pid: row.get(7),
            history_schema: row.get(8),
            newest_run: None,
            encoding: row.get(9),
            host,
            port,
            encrypted,
        };
        Ok(Database {
            client,
            target,
            server,
            lock_wait: LOCK_WAIT,
            session_options: SESSION_OPTIONS.to_owned(),
            options_lost: false,
        })
    }

    /// Limits how long a check or a backup stands behind somebody who has locked a table.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(crate) fn wait_for_locks(&mut self, at_most: Duration) -> Result {
        // Zero would be without end; the server counts milliseconds in 31 bits.
        let milliseconds = at_most.as_millis().clamp(1, i32::MAX as u128);
        self.lock_wait = Duration::from_millis(milliseconds as u64);
        self.client
            .batch_execute(&self.lock_wait_setting())
            .context("cannot limit the wait for locks")?;
        Ok(())
    }

    fn lock_wait_setting(&self) -> String {
        format!("SET lock_timeout = {}", self.lock_wait.as_millis())
    }

    /// Before a run that writes: options that this server knows and others do not, and whether
    /// startup options have arrived at all.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(crate) fn settle(&mut self) -> Result {
        if self.server.major() >= 17 {
            self.session_options.push_str(" -c transaction_timeout=0");
        }
        let arrived = self.client.query_typed_one(
            "SELECT source = 'client' FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'",
            &[],
        )?;
        self.options_lost = !arrived.get::<_, bool>(0);
        if self.options_lost || self.server.major() >= 17 {
            let (settings, lock_wait) = (self.session_settings(), self.lock_wait_setting());
            self.client
                .batch_execute(&format!("{settings}; {lock_wait}"))?;
        }
        // Refused where the server's platform cannot tell that a client is gone.
        let watched = self.client.batch_execute(&settings_of(DEAD_CLIENT_OPTION));
        if watched.is_ok() {
            self.session_options.push_str(DEAD_CLIENT_OPTION);
        }
        Ok(())
    }

    /// The session options as a statement.
    pub(crate) fn session_settings(&self) -> String {
        settings_of(&self.session_options)
    }
}

/// `-c name=value -c …` as one statement.
fn settings_of(options: &str) -> String {
    let calls: Vec<String> = options
        .split("-c ")
        .filter_map(|option| option.trim().split_once('='))
        .map(|(name, value)| format!("pg_catalog.set_config('{name}', '{value}', false)"))
        .collect();
    format!("SELECT {}", calls.join(", "))
}
