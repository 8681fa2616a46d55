//! Connecting on a tokio runtime.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Client, Config, Row};

use super::fault::Fault;
use super::{Driver, Opened, Session, not_cancelled, search};
use crate::conninfo::ConnInfo;
use crate::error::Result;
use crate::tls::LazyTls;

/// An open session, and the way to the server it is on.
pub struct Connection {
    /// Dropping it ends the session.
    pub client: Client,
    /// What moves bytes between the client and the server. It ends with the session, with the reason if
    /// that was not the client's doing; nobody needs to wait for it.
    pub task: JoinHandle<Result<(), tokio_postgres::Error>>,
    /// Pinned to the host and the address that answered.
    pub info: ConnInfo,
    /// Whether the session is encrypted.
    pub encrypted: bool,
    tls: LazyTls,
}

impl Connection {
    /// A handle for another task that cancels what this session is doing.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            token: self.client.cancel_token(),
            tls: self.tls.clone(),
        }
    }
}

/// Cancels a session's current statement, from any task.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    tls: LazyTls,
}

impl Canceller {
    /// Asks the server to cancel; without an error the request has arrived, not yet taken effect.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn cancel(&self) -> Result {
        let asked = self.token.cancel_query(self.tls.clone()).await;
        asked.map_err(|error| not_cancelled(&error))
    }
}

/// Connects to the first host that answers and is what `target_session_attrs` asks for.
///
/// The files that TLS needs are read by this task, as each connection begins: a few milliseconds where
/// they hold all of a system's root certificates.
///
/// # Errors
/// If no host lets us in, with the kind of the last attempt and a cause for each.
///
/// # Panics
/// Outside of a tokio runtime with its `net` and `time` drivers enabled.
pub async fn connect(info: &ConnInfo, session: &Session<'_>) -> Result<Connection> {
    let Opened {
        client: (client, task),
        info,
        encrypted,
        tls,
    } = search(&Tokio, info, session).await?;
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
    ) -> Result<Self::Client, Fault> {
        let opening = config.connect(tls.clone());
        let outcome = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, opening)
                .await
                .map_err(|_| Fault::Timeout)?,
            None => opening.await,
        };
        let (client, connection) = outcome.map_err(|error| Fault::Client {
            error,
            tls: tls.started(),
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
