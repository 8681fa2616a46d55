//! Connecting without a runtime of one's own, through the `postgres` crate (feature `blocking`).

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{CancelToken, Client, Row};
use tokio_postgres::Config;

use super::fault::Fault;
use super::{Driver, Opened, Session, not_cancelled, search};
use crate::conninfo::ConnInfo;
use crate::error::Result;
use crate::tls::LazyTls;

/// An open session, and the way to the server it is on.
pub struct Connection {
    /// Dropping it ends the session.
    pub client: Client,
    /// Pinned to the host and the address that answered.
    pub info: ConnInfo,
    /// Whether the session is encrypted.
    pub encrypted: bool,
    tls: LazyTls,
}

impl Connection {
    /// A handle for another thread that cancels what this session is doing.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            token: self.client.cancel_token(),
            tls: self.tls.clone(),
        }
    }
}

/// Cancels a session's current statement, from any thread.
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
    pub fn cancel(&self) -> Result {
        let asked = self.token.cancel_query(self.tls.clone());
        asked.map_err(|error| not_cancelled(&error))
    }
}

/// Connects to the first host that answers and is what `target_session_attrs` asks for.
///
/// Where there is a `connect_timeout`, `is_unwanted` is asked every 50 ms, and its yes ends the attempt
/// at hand as a timeout does.
///
/// # Errors
/// If no host lets us in, with the kind of the last attempt and a cause for each.
///
/// # Panics
/// On a thread that runs a tokio runtime.
pub fn connect(
    info: &ConnInfo,
    session: &Session<'_>,
    is_unwanted: &dyn Fn() -> bool,
) -> Result<Connection> {
    let Opened {
        client,
        info,
        encrypted,
        tls,
    } = ready(search(&Blocking { is_unwanted }, info, session))?;
    Ok(Connection {
        client,
        info,
        encrypted,
        tls,
    })
}

/// The result of a future that waits for nothing but [`Blocking`], which blocks instead.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("a blocking driver has no pending futures"),
    }
}

struct Blocking<'a> {
    is_unwanted: &'a dyn Fn() -> bool,
}

/// How often a connection under way looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Driver for Blocking<'_> {
    type Client = Client;

    async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        let found = (name, port).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    }

    /// The client's own timeout ends with the TCP connection, libpq's with the login: a server that is
    /// stopped still has its kernel accept. So the login is given a thread, which a timeout leaves
    /// behind.
    async fn open(
        &self,
        config: &Config,
        tls: &LazyTls,
        timeout: Option<Duration>,
    ) -> Result<Client, Fault> {
        let config = postgres::Config::from(config.clone());
        let fault = |error| Fault::Client {
            error,
            tls: tls.started(),
        };
        let Some(timeout) = timeout else {
            return config.connect(tls.clone()).map_err(fault);
        };
        let (sender, receiver) = mpsc::channel();
        let own_tls = tls.clone();
        thread::Builder::new()
            .name("connect".to_owned())
            .spawn(move || {
                // Too late, the client is dropped here, which ends its session.
                drop(sender.send(config.connect(own_tls)));
            })
            .map_err(|error| Fault::Local(format!("cannot start a thread: {error}")))?;
        let begin = Instant::now();
        loop {
            match receiver.recv_timeout(LOOK_EVERY.min(timeout)) {
                Ok(outcome) => return outcome.map_err(fault),
                Err(RecvTimeoutError::Timeout)
                    if begin.elapsed() < timeout && !(self.is_unwanted)() => {}
                Err(_) => return Err(Fault::Timeout),
            }
        }
    }

    async fn row(&self, client: &mut Client, query: &str) -> Result<Row, tokio_postgres::Error> {
        client.query_typed_one(query, &[])
    }
}
