//! Native queries, through which every decision and every check is made. Nothing here changes the
//! schema: psql does (see `tools`). Types of parameters are written down (`query_typed`), which makes a
//! query one round trip: nothing is prepared on the server first.

pub(crate) mod activity;
pub(crate) mod baseline;
pub(crate) mod catalog;
pub(crate) mod connect;
pub(crate) mod history;
pub(crate) mod lock;
pub(crate) mod pooler;
pub(crate) mod seed;
pub(crate) mod standby;

use std::time::Duration;

use anyhow::Context as _;
use connect::Connection;
use jiff::Timestamp;
use pg_connect::ConnInfo;
use postgres::types::Type;
use postgres::{Client, SimpleQueryMessage};
use serde::Serialize;

use crate::error::Result;

/// What every session of ours has, whatever role, database, address or environment have set: no limit
/// of theirs may end a backup or leave an INVALID index, and a client that is gone or frozen lets go of
/// its locks. Given at the start, where RESET goes back to, behind the user's own; and looked at
/// afterwards, since a proxy may keep them to itself. A read-only default is a fence, and stays.
pub(crate) const SESSION_OPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 \
    -c idle_in_transaction_session_timeout=1min -c idle_session_timeout=0 \
    -c standard_conforming_strings=on -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 \
    -c tcp_keepalives_count=4 -c tcp_user_timeout=30000";

/// Where our own statements look for functions, operators and types: nobody else may make any there.
pub(crate) const OWN_SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// A transaction of ours that waits for something else is kept alive this often.
pub(crate) const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);

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
    /// The user's `search_path`, by which the names in migrations are looked up. The native session
    /// itself has [`OWN_SEARCH_PATH`].
    pub(crate) search_path: String,
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
    /// Whether transactions are read-only unless they say otherwise.
    #[serde(skip)]
    pub(crate) read_only: bool,
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
    /// Makes the session ours, and asks the server who and what it is: two round trips more than the
    /// connection.
    ///
    /// # Errors
    /// If a query fails.
    pub(crate) fn learn(connection: Connection, application_name: &str) -> Result<Database> {
        let encrypted = connection.encrypted;
        let (mut client, target) = (connection.client, connection.info);
        let (search_path, schema) = own_session(&mut client, application_name, &native_options())?;
        // Everything as text, so that no type has to be looked up first.
        let row = client
            .query_typed_one(
                &format!(
                    "{USERS_PATH}
                     SELECT pg_catalog.current_database()::text, current_user::text,
                        pg_catalog.current_setting('server_version'),
                        pg_catalog.current_setting('server_version_num'),
                        pg_catalog.pg_is_in_recovery(),
                        pg_catalog.current_setting('default_transaction_read_only')::bool,
                        pg_catalog.clock_timestamp(), pg_catalog.pg_backend_pid(),
                        (SELECT n.nspname::text
                         FROM path, pg_catalog.pg_class AS c
                         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE c.oid = pg_catalog.to_regclass(CASE WHEN path.was_set THEN '_sqlx_migrations' END)),
                        pg_catalog.current_setting('server_encoding')"
                ),
                &[(&search_path, Type::TEXT)],
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
            read_only: row.get(5),
            schema,
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
            search_path,
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

    /// Before a run that writes: options that this server knows and others do not.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(crate) fn settle(&mut self) -> Result {
        if self.server.major() >= 17 {
            let without = " -c transaction_timeout=0";
            self.session_options.push_str(without);
            self.client.batch_execute(&settings_of(without))?;
        }
        // Refused where the server's platform cannot tell that a client is gone.
        let watched = self.client.batch_execute(&settings_of(DEAD_CLIENT_OPTION));
        if watched.is_ok() {
            self.session_options.push_str(DEAD_CLIENT_OPTION);
        }
        Ok(())
    }

    /// The options of a psql session as a statement, for where RESET does not go back to them.
    pub(crate) fn session_settings(&self, application_name: &str) -> String {
        format!(
            "{}, {}, {}",
            settings_of(&self.session_options),
            call("client_encoding", "UTF8"),
            call("application_name", application_name)
        )
    }
}

/// A CTE, `path`, for a query that looks names up by the user's `search_path`, its first parameter. The
/// query's own functions and operators have been found by then, by ours. A name must depend on
/// `path.was_set`, lest it is looked up before. It ends with the transaction, which the query must be
/// itself, or which must set its search path again.
pub(crate) const USERS_PATH: &str = "WITH path (was_set) AS MATERIALIZED (
    SELECT pg_catalog.set_config('search_path', $1::text, true) IS NOT NULL)";

/// A statement that has names looked up by this `search_path` until the transaction ends. A setting's value
/// need not be what SET would take: it may be empty, or begin with an unquoted `$user`.
pub(crate) fn set_search_path(path: &str) -> String {
    let path = history::quote_literal(path);
    format!("SELECT pg_catalog.set_config('search_path', {path}, true)")
}

/// Makes a session that has just been opened ours; returns the user's `search_path`, and its first schema
/// that exists. `options` are those that it was opened with. Nothing here is looked up by the user's path: functions are named with their schema, and
/// have these very arguments.
///
/// # Errors
/// If the server says no.
pub(crate) fn own_session(
    client: &mut Client,
    application_name: &str,
    options: &str,
) -> Result<(String, Option<String>)> {
    let last = [
        ("application_name", application_name),
        ("client_encoding", "UTF8"),
        ("quote_all_identifiers", "off"),
        // Where a policy hides rows, an error: not fewer rows.
        ("row_security", "off"),
        ("search_path", OWN_SEARCH_PATH),
    ];
    let last: Vec<String> = last.iter().map(|(name, value)| call(name, value)).collect();
    let messages = client
        .simple_query(&format!(
            "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_schema(); {}; SELECT {}",
            settings_of(options),
            last.join(", ")
        ))
        .context("cannot prepare the session")?;
    let first = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = first.context("the server does not say its search path")?;
    let path = row.get(0).unwrap_or_default().to_owned();
    Ok((path, row.get(1).map(str::to_owned)))
}

fn call(name: &str, value: &str) -> String {
    format!(
        "pg_catalog.set_config('{name}', {}, false)",
        history::quote_literal(value)
    )
}

/// `-c name=value -c …` as one statement.
fn settings_of(options: &str) -> String {
    let calls: Vec<String> = options
        .split("-c ")
        .filter_map(|option| option.trim().split_once('='))
        .map(|(name, value)| call(name, value))
        .collect();
    format!("SELECT {}", calls.join(", "))
}
