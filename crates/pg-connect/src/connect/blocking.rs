//! Connecting in blocking code, with the `postgres` crate (feature `blocking`).

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{CancelToken, Client, Row};
use tokio_postgres::Config;

use super::attempt_error::AttemptError;
use super::{Driver, Opened, SessionOptions, not_cancelled, try_hosts};
use crate::conninfo::ConnInfo;
use crate::error::Result;
use crate::tls::LazyTls;

/// An open session, and the server that it is connected to.
pub struct Connection {
    /// Dropping it ends the session.
    pub client: Client,
    /// Only the host and the address that the session is connected to.
    pub info: ConnInfo,
    /// Whether the session is encrypted.
    pub encrypted: bool,
    tls: LazyTls,
}

impl Connection {
    /// A handle with which another thread can cancel the session's current statement.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            token: self.client.cancel_token(),
            tls: self.tls.clone(),
        }
    }
}

/// Cancels a session's current statement, from any thread. What libpq calls `PGcancelConn`.
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
    pub fn cancel(&self) -> Result {
        let asked = self.token.cancel_query(self.tls.clone());
        asked.map_err(|error| not_cancelled(&error))
    }
}

/// Connects to the first host that accepts the connection and matches `target_session_attrs`, as
/// libpq's `PQconnectdb` does (manual, *Specifying Multiple Hosts*).
///
/// If there is a `connect_timeout`, `is_cancelled` is called every 50 ms. When it returns true, the
/// current attempt ends as if it had timed out.
///
/// # Errors
/// If no host accepts the connection. The kind is that of the last attempt; there is a cause for each
/// attempt.
///
/// # Panics
/// On a thread that runs a tokio runtime.
pub fn connect(
    info: &ConnInfo,
    session: &SessionOptions<'_>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Connection> {
    let Opened {
        client,
        info,
        encrypted,
        tls,
    } = ready(try_hosts(&Blocking { is_cancelled }, info, session))?;
    Ok(Connection {
        client,
        info,
        encrypted,
        tls,
    })
}

/// The result of a future that awaits only [`Blocking`], whose futures are always ready.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("a blocking driver has no pending futures"),
    }
}

struct Blocking<'a> {
    is_cancelled: &'a dyn Fn() -> bool,
}

/// How often an attempt checks whether it was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Driver for Blocking<'_> {
    type Client = Client;

    async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        let found = (name, port).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    }

    /// The client crate's own timeout covers the TCP connection only; libpq's covers the login too. The
    /// difference matters where a server is stopped (SIGSTOP) but its kernel still accepts. So the
    /// attempt runs in a thread of its own, which is abandoned after the timeout.
    async fn open(
        &self,
        config: &Config,
        tls: &LazyTls,
        timeout: Option<Duration>,
    ) -> Result<Client, AttemptError> {
        let config = postgres::Config::from(config.clone());
        let client_error = |error| AttemptError::Client {
            error,
            tls: tls.handshake_started(),
        };
        let Some(timeout) = timeout else {
            return config.connect(tls.clone()).map_err(client_error);
        };
        let (sender, receiver) = mpsc::channel();
        let own_tls = tls.clone();
        thread::Builder::new()
            .name("connect".to_owned())
            .spawn(move || {
                // After a timeout nobody receives: the client is dropped here, which ends its session.
                drop(sender.send(config.connect(own_tls)));
            })
            .map_err(|error| AttemptError::Local(format!("cannot start a thread: {error}")))?;
        let begin = Instant::now();
        loop {
            match receiver.recv_timeout(LOOK_EVERY.min(timeout)) {
                Ok(outcome) => return outcome.map_err(client_error),
                Err(RecvTimeoutError::Timeout)
                    if begin.elapsed() < timeout && !(self.is_cancelled)() => {}
                Err(_) => return Err(AttemptError::Timeout),
            }
        }
    }

    async fn row(&self, client: &mut Client, query: &str) -> Result<Row, tokio_postgres::Error> {
        client.query_typed_one(query, &[])
    }
}
