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
pub(crate) mod standby;

use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use connect::Connection;
use jiff::Timestamp;
use pg_connect::ConnInfo;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use serde::Serialize;

use crate::error::Result;
use crate::migration::quote::quote_literal;

/// What every session of ours has, whatever role, database, address or environment have set: no limit
/// of theirs may end a backup or leave an INVALID index, and a client that is gone or frozen lets go of
/// its locks. Given at the start, where RESET goes back to, behind the user's own; and looked at
/// afterwards, since a proxy may keep them to itself. A read-only default is a fence, and stays.
pub(crate) const SESSION_OPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 \
    -c idle_in_transaction_session_timeout=1min -c idle_session_timeout=0 \
    -c standard_conforming_strings=on -c client_min_messages=notice \
    -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 \
    -c tcp_keepalives_count=4 -c tcp_user_timeout=30000";

/// The limit on whole transactions, which servers before 17 do not know: who is asked has not said yet
/// which it is.
const NO_TRANSACTION_TIMEOUT: &str =
    "CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
     THEN pg_catalog.set_config('transaction_timeout', '0', false) END";

/// Where our own statements look for functions, operators and types: nobody else may make any there.
pub(crate) const OWN_SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// A transaction of ours that waits for something else is kept alive this often.
pub(crate) const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);

/// A client that has died (its machine too) is noticed within this time, also in the midst of an
/// index build, which ends then.
const DEAD_CLIENT_OPTION: &str = " -c client_connection_check_interval=2s";

/// How long a query of ours may wait for a lock, unless `--lock-deadline` says otherwise.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(600);

/// The same for what only looks: nobody waits long for an answer that a later look gives too.
pub(crate) const LOOK_WAIT: Duration = Duration::from_secs(10);

/// What the native session of a command starts with: it never waits for a lock without end.
pub(crate) fn native_options(lock_wait: Duration) -> String {
    format!(
        "{SESSION_OPTIONS} -c lock_timeout={}",
        lock_wait.as_millis()
    )
}

/// The oldest server that is supported, as a major version.
pub(crate) const OLDEST_SERVER: u32 = 14;

/// A connection, and what was learned when it was made. What is learned later (the history, when the lock
/// was acquired) is what the step that learns it returns.
pub(crate) struct Database {
    pub(crate) client: Client,
    /// Never cloned: an `Rc` lends nothing out to be changed, so that what was learned stays as it was.
    pub(crate) server: Rc<Server>,
}

/// The server, the database and the role, as they said themselves at connection, and the way to them.
#[derive(Debug, Serialize)]
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
    /// The user's `search_path`, by which the names in migrations are looked up. The native session
    /// itself has [`OWN_SEARCH_PATH`].
    #[serde(skip)]
    pub(crate) search_path: String,
    #[serde(skip)]
    pub(crate) clock: Timestamp,
    /// The server process behind the native connection.
    #[serde(skip)]
    pub(crate) backend_pid: i32,
    /// Where sqlx's history table was, if it was.
    #[serde(skip)]
    pub(crate) history_schema: Option<String>,
    /// Pinned to the host that answered, for psql to reach the same server.
    #[serde(skip)]
    pub(crate) target: ConnInfo,
    /// How long the native session, and whatever reads beside it, may wait for a lock.
    #[serde(skip)]
    pub(crate) lock_wait: Duration,
}

impl Server {
    pub(crate) fn major(&self) -> u32 {
        self.version_number / 10_000
    }

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
    /// Makes the session ours, and asks the server who and what it is: one round trip more than the
    /// connection.
    ///
    /// # Errors
    /// If the server says no, or something that nobody can understand.
    pub(crate) fn inspect(
        connection: Connection,
        application_name: &str,
        lock_wait: Duration,
    ) -> Result<Database> {
        let encrypted = connection.encrypted;
        let (mut client, target) = (connection.client, connection.info);
        let questions = [
            "pg_catalog.current_setting('search_path')",
            "pg_catalog.current_schema()",
            "pg_catalog.current_database()",
            "current_user",
            "pg_catalog.current_setting('server_version')",
            "pg_catalog.current_setting('server_version_num')",
            "pg_catalog.current_setting('server_encoding')",
            "pg_catalog.pg_is_in_recovery()",
            "pg_catalog.current_setting('default_transaction_read_only')",
            "pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
            "pg_catalog.pg_backend_pid()",
            &history::schema_of("'_sqlx_migrations'"),
        ];
        let row = own_session(
            &mut client,
            application_name,
            &native_options(lock_wait),
            &questions.join(", "),
        )?;
        let [
            search_path,
            schema,
            name,
            user,
            version,
            number,
            encoding,
            in_recovery,
            read_only,
            clock,
            pid,
            history_schema,
        ] = std::array::from_fn(|column| row.get(column));
        let known = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let (host, port) = (target.hosts()[0].name_or_address(), target.hosts()[0].port);
        let server = Server {
            name: known(name),
            user: known(user),
            server_version: known(version)
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            version_number: known(number)
                .parse()
                .context("the server's version is not a number")?,
            in_recovery: in_recovery == Some("t"),
            read_only: read_only == Some("on"),
            schema: schema.map(str::to_owned),
            clock: known(clock)
                .parse()
                .context("the server's clock cannot be read")?,
            backend_pid: known(pid)
                .parse()
                .context("the server's process id is not a number")?,
            history_schema: history_schema.map(str::to_owned),
            encoding: known(encoding),
            search_path: known(search_path),
            host,
            port,
            encrypted,
            target,
            lock_wait,
        };
        Ok(Database {
            client,
            server: Rc::new(server),
        })
    }

    /// Looks at something for which no lock is worth waiting for: an error of class 55 after a second.
    ///
    /// # Errors
    /// Those of `look`, or if the server cannot be asked.
    pub(crate) fn without_waiting<T>(
        &mut self,
        look: impl FnOnce(&mut Database) -> Result<T>,
    ) -> Result<T> {
        self.client.batch_execute("SET lock_timeout = '1s'")?;
        let found = look(self);
        self.wait_for_locks_again()?;
        found
    }

    /// Goes back to the usual limit, after a shorter one.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(crate) fn wait_for_locks_again(&mut self) -> Result {
        let setting = format!("SET lock_timeout = {}", self.server.lock_wait.as_millis());
        self.client
            .batch_execute(&setting)
            .context("cannot limit the wait for locks")
    }
}

/// Before a run that writes: options that this server knows and others do not. The session has them then.
/// Returns what psql's sessions start with.
fn prepare_session(client: &mut Client, server: &Server) -> Result<String> {
    let mut options = SESSION_OPTIONS.to_owned();
    if server.major() >= 17 {
        options.push_str(" -c transaction_timeout=0");
    }
    // Refused where the server's platform cannot tell that a client is gone.
    let watched = client.batch_execute(&settings_of(DEAD_CLIENT_OPTION));
    if watched.is_ok() {
        options.push_str(DEAD_CLIENT_OPTION);
    }
    Ok(options)
}

/// The options of a psql session as a statement, for where RESET does not go back to them.
pub(crate) fn session_settings(options: &str, application_name: &str) -> String {
    format!(
        "{}, {}, {}",
        settings_of(options),
        call("client_encoding", "UTF8"),
        call("application_name", application_name)
    )
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
    let path = quote_literal(path);
    format!("SELECT pg_catalog.set_config('search_path', {path}, true)")
}

/// Makes a session that has just been opened ours, and answers `questions`: expressions that are
/// computed while the user's `search_path` still counts. So functions are named with their schema in
/// them, and have these very arguments, and there are no operators. `options` are those that the session
/// was opened with.
///
/// # Errors
/// If the server says no.
pub(crate) fn own_session(
    client: &mut Client,
    application_name: &str,
    options: &str,
    questions: &str,
) -> Result<SimpleQueryRow> {
    let ours = [
        ("application_name", application_name),
        // What is answered is in it.
        ("client_encoding", "UTF8"),
        ("quote_all_identifiers", "off"),
        // Where a policy hides rows, an error: not fewer rows.
        ("row_security", "off"),
    ];
    let ours: Vec<String> = ours.iter().map(|(name, value)| call(name, value)).collect();
    let messages = client
        .simple_query(&format!(
            "{}, {}, {NO_TRANSACTION_TIMEOUT}; SELECT {questions}; SELECT {}",
            settings_of(options),
            ours.join(", "),
            call("search_path", OWN_SEARCH_PATH)
        ))
        .context("cannot prepare the session")?;
    let mut rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.nth(1).context("the server did not answer")
}

fn call(name: &str, value: &str) -> String {
    format!(
        "pg_catalog.set_config('{name}', {}, false)",
        quote_literal(value)
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
