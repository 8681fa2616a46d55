//! Connecting in async code, with the `tokio-postgres` crate.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Client, Config, Row};

use super::attempt_error::AttemptError;
use super::{Driver, Opened, SessionOptions, not_cancelled, try_hosts};
use crate::conninfo::ConnInfo;
use crate::error::Result;
use crate::tls::LazyTls;

/// An open session, and the server that it is connected to.
pub struct Connection {
    /// Dropping it ends the session.
    pub client: Client,
    /// The task that reads and writes the connection. It ends when the session ends, with an error if
    /// the client did not end it. You need not await it.
    pub task: JoinHandle<Result<(), tokio_postgres::Error>>,
    /// Only the host and the address that the session is connected to.
    pub info: ConnInfo,
    /// Whether the session is encrypted.
    pub encrypted: bool,
    tls: LazyTls,
}

impl Connection {
    /// A handle with which another task can cancel the session's current statement.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            token: self.client.cancel_token(),
            tls: self.tls.clone(),
        }
    }
}

/// Cancels a session's current statement, from any task. What libpq calls `PGcancelConn`.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    tls: LazyTls,
}

impl Canceller {
    /// Sends a cancel request, over TLS if the session uses TLS.
    ///
    /// As with libpq's `PQcancelBlocking`, success means that the request was sent, not that the
    /// statement was cancelled: it may have ended before.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn cancel(&self) -> Result {
        let asked = self.token.cancel_query(self.tls.clone()).await;
        asked.map_err(|error| not_cancelled(&error))
    }
}

/// Connects to the first host that accepts the connection and matches `target_session_attrs`, as
/// libpq's `PQconnectdb` does (manual, *Specifying Multiple Hosts*).
///
/// Certificate files are read in this task, for each connection that uses TLS: a few milliseconds if
/// they hold all root certificates of a system.
///
/// # Errors
/// If no host accepts the connection. The kind is that of the last attempt; there is a cause for each
/// attempt.
///
/// # Panics
/// Outside a tokio runtime, or in one without the I/O and time drivers (`enable_all`).
pub async fn connect(info: &ConnInfo, session: &SessionOptions<'_>) -> Result<Connection> {
    let Opened {
        client: (client, task),
        info,
        encrypted,
        tls,
    } = try_hosts(&Tokio, info, session).await?;
    Ok(Connection {
        client,
        task,
        info,
        encrypted,
        tls,
    })
}

struct Tokio;

impl Driver for Tokio {
    type Client = (Client, JoinHandle<Result<(), tokio_postgres::Error>>);

    async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, port)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }

    async fn open(
        &self,
        config: &Config,
        tls: &LazyTls,
        timeout: Option<Duration>,
    ) -> Result<Self::Client, AttemptError> {
        let opening = config.connect(tls.clone());
        let outcome = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, opening)
                .await
                .map_err(|_| AttemptError::Timeout)?,
            None => opening.await,
        };
        let (client, connection) = outcome.map_err(|error| AttemptError::Client {
            error,
            tls: tls.handshake_started(),
        })?;
        Ok((client, tokio::spawn(connection)))
    }

    async fn row(
        &self,
        (client, _): &mut Self::Client,
        query: &str,
    ) -> Result<Row, tokio_postgres::Error> {
        client.query_typed_one(query, &[]).await
    }
}
