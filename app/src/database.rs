//! Connections to the database: a small pool, TLS, time limits.
//!
//! A statement is one round trip. The few that every login or page runs are kept prepared
//! ([`query_prepared`]), and prepared again where an `ALTER TABLE` has overtaken them. All others go out
//! with their parameters' types (`query_typed`), and the server forgets them at once: they are planned
//! for the values that they have.

use std::time::Duration;

use anyhow::Context as _;
use deadpool::Runtime;
use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use pg_connect::{ConnInfo, SessionOptions};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{Error, causes};

/// A connection of the pool; dropping it gives it back.
pub type Connection = managed::Object<Manager>;

/// How long a request waits for a connection before it is told that we are busy.
const WAIT: Duration = Duration::from_secs(3);
/// How long a connection may take to be made, whichever server answers.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may leave unacknowledged what we send.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// Nothing that a page asks for may take longer; without this a query whose reader has gone away would
/// go on.
const SESSION_SETTINGS: &str = "SET statement_timeout = '5s'";

/// The pool. Nothing connects before the first request for a connection.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

impl Database {
    /// A pool of at most so many connections. The address's own `connect_timeout`, `tcp_user_timeout`
    /// and `application_name` go before ours.
    ///
    /// # Errors
    /// If the pool cannot be made.
    pub fn new(mut target: ConnInfo, connections: usize) -> anyhow::Result<Database> {
        for warning in target.warnings() {
            tracing::warn!("{warning}");
        }
        if target.setting("connect_timeout").is_none() {
            // So that behind a server that is silent there is time for the next.
            let servers = u32::try_from(target.hosts().len()).unwrap_or(u32::MAX);
            target.connect_timeout = Some(CONNECT / servers);
        }
        if target.setting("tcp_user_timeout").is_none() {
            target.tcp.tcp_user_timeout = Some(UNACKNOWLEDGED);
        }
        let pool = Pool::builder(Manager { target })
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(CONNECT))
            .build()
            .context("cannot make a pool of connections")?;
        Ok(Database { pool })
    }

    /// A connection. Do not wait for anything else while you hold one.
    ///
    /// # Errors
    /// If none is free in time, or the database cannot be reached.
    pub async fn connection(&self) -> Result<Connection, Error> {
        Ok(self.pool.get().await?)
    }
}

type Pool = managed::Pool<Manager>;

/// Makes the pool's connections.
pub struct Manager {
    target: ConnInfo,
}

impl managed::Manager for Manager {
    type Type = ClientWrapper;
    type Error = Error;

    async fn create(&self) -> Result<ClientWrapper, Error> {
        let session = SessionOptions {
            application_name: Some(self.target.application_name().unwrap_or("app")),
            options: "",
        };
        let connection = pg_connect::connect(&self.target, &session).await?;
        let watch = tokio::spawn(async move {
            if let Ok(Err(error)) = connection.task.await {
                tracing::warn!("a connection to the database was lost: {}", causes(&error));
            }
        });
        connection.client.batch_execute(SESSION_SETTINGS).await?;
        Ok(ClientWrapper::new(connection.client, watch))
    }

    async fn recycle(&self, client: &mut ClientWrapper, _: &Metrics) -> RecycleResult<Error> {
        match client.is_closed() {
            true => Err(RecycleError::message("it is closed")),
            false => Ok(()),
        }
    }
}

/// Runs a statement that is kept prepared on its connection, which halves what it costs the server.
/// Returns its row, if there is one.
///
/// # Errors
/// If the database says no.
pub async fn query_prepared(
    db: &Connection,
    sql: &str,
    types: &[Type],
    values: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, tokio_postgres::Error> {
    let statement = db.prepare_typed_cached(sql, types).await?;
    match db.query_opt(&statement, values).await {
        Err(error) if is_outdated(&error) => {
            db.statement_cache.remove(sql, types);
            let statement = db.prepare_typed_cached(sql, types).await?;
            db.query_opt(&statement, values).await
        }
        result => result,
    }
}

/// Whether it is the prepared statement that is wrong, in which case nothing was done: the type of a
/// column has changed since ("cached plan must not change result type"), or a pooler has lost it.
fn is_outdated(error: &tokio_postgres::Error) -> bool {
    let outdated = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    error.code().is_some_and(|code| outdated.contains(code))
}
