//! Connecting: which of several servers, with or without TLS, and which error if all fail.
//!
//! The order of attempts is libpq's (`PQconnectPoll` in `fe-connect.c`), so a `psql` with the same
//! settings connects to the same server. The connection also says which server it is, so that a later
//! `psql` can be sent to exactly that one.

mod attempt_error;
#[cfg(feature = "blocking")]
pub mod blocking;
mod tokio;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{SslMode as ClientSslMode, SslNegotiation};

use self::attempt_error::{AttemptError, describe, is_untyped};
use crate::conninfo::{ConnInfo, TargetSessionAttrs};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::tls::{LazyTls, SslMode};

pub use self::tokio::{Canceller, Connection, connect};

/// What a program sets for its session, in addition to the connection string.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionOptions<'a> {
    /// The session's `application_name`, instead of [`ConnInfo::application_name`].
    pub application_name: Option<&'a str>,
    /// More server settings, in the form of libpq's `options` keyword: `-c name=value -c …`. They are
    /// sent after the user's `options`, so they win: the server uses the last value of a setting.
    pub options: &'a str,
}

/// What differs between the blocking client and the async one. The futures of the blocking one are
/// ready when they are first polled, so [`try_hosts`] and everything that it calls is written once.
trait Driver {
    type Client;

    /// The addresses of a host name, in the resolver's order.
    async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>>;

    /// Opens a session, within `timeout` if there is one.
    async fn open(
        &self,
        config: &Config,
        tls: &LazyTls,
        timeout: Option<Duration>,
    ) -> Result<Self::Client, AttemptError>;

    /// The row of a query without parameters.
    async fn row(
        &self,
        client: &mut Self::Client,
        query: &str,
    ) -> Result<tokio_postgres::Row, tokio_postgres::Error>;
}

/// An open session, of either client.
struct Opened<C> {
    client: C,
    /// Only the host and the address that the session is connected to.
    info: ConnInfo,
    encrypted: bool,
    tls: LazyTls,
}

/// Connects to the first host that answers and is what `target_session_attrs` asks for.
async fn try_hosts<D: Driver>(
    driver: &D,
    info: &ConnInfo,
    session: &SessionOptions<'_>,
) -> Result<Opened<D::Client>> {
    // With `prefer-standby` a second pass takes any server.
    let passes: &[TargetSessionAttrs] = match &info.target_session_attrs {
        TargetSessionAttrs::PreferStandby => {
            &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any]
        }
        target => std::slice::from_ref(target),
    };

    let mut failed = Vec::new();
    for target in passes {
        // The second pass tries the same hosts again: its errors replace those of the first.
        failed.clear();
        for host in info.hosts() {
            let addresses = match resolve_host(driver, host).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failed.push((host.to_string(), error));
                    continue;
                }
            };
            for host in addresses {
                let info = info.pinned_to(host);
                match try_host(driver, &info, session, *target).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => {
                        let is_final = error.is_final();
                        failed.push((host_and_address(&info.hosts()[0]), error));
                        if is_final {
                            return Err(all_attempts_failed(&info, &failed));
                        }
                    }
                }
            }
        }
    }
    Err(all_attempts_failed(info, &failed))
}

/// The host once for each of its addresses, in the resolver's order.
///
/// The address becomes a part of the host. If a name has several servers (round robin, an alias that
/// moves), every later `psql` then connects to the same one.
async fn resolve_host<D: Driver>(driver: &D, host: &Host) -> Result<Vec<Host>, AttemptError> {
    if host.is_socket() || host.address.is_some() || host.name.parse::<IpAddr>().is_ok() {
        return Ok(vec![host.clone()]);
    }
    let found = driver.addresses(&host.name, host.port).await;
    let with = |address| Host {
        address: Some(address),
        ..host.clone()
    };
    Ok(found
        .map_err(AttemptError::Resolve)?
        .into_iter()
        .map(with)
        .collect())
}

/// Tries one host, with TLS or without, by `sslmode` and by what the server supports.
///
/// `prefer` and `allow` may try twice. libpq makes the second attempt after a failed handshake and
/// after a refused login, since `pg_hba.conf` may allow only one of them (`hostssl`, `hostnossl`).
async fn try_host<D: Driver>(
    driver: &D,
    info: &ConnInfo,
    session: &SessionOptions<'_>,
    target: TargetSessionAttrs,
) -> Result<Opened<D::Client>, AttemptError> {
    let mode = match info.hosts()[0].is_socket() {
        true => SslMode::Disable,
        false => info.tls.mode,
    };
    let open_with = |ssl_mode| open_session(driver, info, session, ssl_mode);
    let mut opened = match mode {
        SslMode::Disable => open_with(ClientSslMode::Disable).await,
        SslMode::Allow => match open_with(ClientSslMode::Disable).await {
            Err(plain) if plain.is_refused_login() => open_with(ClientSslMode::Require)
                .await
                .map_err(|with_tls| both_failed(with_tls, plain)),
            outcome => outcome,
        },
        SslMode::Prefer => match open_with(ClientSslMode::Prefer).await {
            Err(with_tls) if with_tls.may_be_due_to_tls() => open_with(ClientSslMode::Disable)
                .await
                .map_err(|plain| both_failed(with_tls, plain)),
            outcome => outcome,
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            open_with(ClientSslMode::Require).await
        }
    }?;
    check_target(driver, &mut opened.client, target).await?;
    Ok(opened)
}

fn not_cancelled(error: &tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::Other, "cannot ask the server to cancel").cause(describe(error))
}

fn both_failed(with_tls: AttemptError, plain: AttemptError) -> AttemptError {
    AttemptError::BothFailed {
        with_tls: Box::new(with_tls),
        plain: Box::new(plain),
    }
}

/// Opens a session on one host, with this one SSL mode of the client crate.
async fn open_session<D: Driver>(
    driver: &D,
    info: &ConnInfo,
    session: &SessionOptions<'_>,
    ssl_mode: ClientSslMode,
) -> Result<Opened<D::Client>, AttemptError> {
    let tls = LazyTls::new(&info.tls, info.hosts()[0].has_name());
    let config = config(info, session, ssl_mode)?;
    match driver.open(&config, &tls, info.connect_timeout).await {
        Ok(client) => Ok(Opened {
            client,
            info: info.clone(),
            encrypted: tls.handshake_started(),
            tls,
        }),
        // The client has no type for a server without TLS; but then no handshake was started.
        Err(AttemptError::Client { error, tls: false })
            if ssl_mode == ClientSslMode::Require && is_untyped(&error) =>
        {
            Err(AttemptError::NoTls)
        }
        Err(error) => Err(error),
    }
}

/// The client crate's configuration for one host.
fn config(
    info: &ConnInfo,
    session: &SessionOptions<'_>,
    ssl_mode: ClientSslMode,
) -> Result<Config, AttemptError> {
    let host = &info.hosts()[0];
    let mut config = Config::new();
    match host.address {
        // The client takes the server's name from `host` alone, and refuses TLS without a name.
        Some(address) if host.has_name() => config.host(&host.name).hostaddr(address),
        Some(address) => config.host(address.to_string()).hostaddr(address),
        None if host.name.starts_with('@') => {
            return Err(AttemptError::Local(
                "an abstract Unix socket is not supported".to_owned(),
            ));
        }
        None => config.host(&host.name),
    };
    config
        .port(host.port)
        .user(info.user())
        .dbname(info.dbname())
        .ssl_mode(ssl_mode)
        .channel_binding(info.channel_binding)
        .keepalives(info.tcp.keepalives);
    let name = session.application_name.or(info.application_name());
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        config.application_name(name);
    }
    let options = format!("{} {}", info.options(), session.options);
    if !options.trim().is_empty() {
        // Set only if there are any: a pooler may refuse `options`.
        config.options(options.trim());
    }
    if info.tls.direct && ssl_mode == ClientSslMode::Require {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    if let Some((password, _)) = info.password() {
        config.password(password.expose());
    }
    if let Some(timeout) = info.connect_timeout {
        config.connect_timeout(timeout);
    }
    if let Some(idle) = info.tcp.keepalives_idle {
        config.keepalives_idle(idle);
    }
    if let Some(interval) = info.tcp.keepalives_interval {
        config.keepalives_interval(interval);
    }
    if let Some(count) = info.tcp.keepalives_count {
        config.keepalives_retries(count);
    }
    if let Some(timeout) = info.tcp.tcp_user_timeout {
        config.tcp_user_timeout(timeout);
    }
    Ok(config)
}

/// Checks that the server matches `target_session_attrs`, by the two settings that libpq reads too
/// (`CONNECTION_CHECK_TARGET` in `fe-connect.c`).
async fn check_target<D: Driver>(
    driver: &D,
    client: &mut D::Client,
    target: TargetSessionAttrs,
) -> Result<(), AttemptError> {
    if matches!(
        target,
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby
    ) {
        return Ok(());
    }
    let query = "SELECT pg_catalog.pg_is_in_recovery(), \
         pg_catalog.current_setting('default_transaction_read_only')::pg_catalog.bool";
    let row = driver.row(client, query).await;
    let row = row.map_err(|error| AttemptError::Client { error, tls: false })?;
    let (standby, read_only_by_default): (bool, bool) = (row.get(0), row.get(1));
    let read_only = standby || read_only_by_default;
    let is_wanted = match target {
        TargetSessionAttrs::ReadWrite => !read_only,
        TargetSessionAttrs::ReadOnly => read_only,
        TargetSessionAttrs::Primary => !standby,
        TargetSessionAttrs::Standby => standby,
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
    };
    match is_wanted {
        true => Ok(()),
        false => Err(AttemptError::WrongTarget(target)),
    }
}

/// The host of an attempt, with the address that its name resolved to.
fn host_and_address(host: &Host) -> String {
    match host.address {
        Some(address) if !host.name.is_empty() => format!("{host} ({address})"),
        _ => host.to_string(),
    }
}

/// One error for all attempts. Its kind is that of the last one.
fn all_attempts_failed(info: &ConnInfo, failed: &[(String, AttemptError)]) -> Error {
    let message = format!("cannot connect to {}", info.summary());
    let Some((_, last)) = failed.last() else {
        return Error::new(ErrorKind::NoSuchHost, message).cause("the host name has no address");
    };
    let mut error = Error::new(last.kind(), message);
    error.causes = match failed {
        [(_, error)] => vec![error.to_string()],
        many => many
            .iter()
            .map(|(place, error)| format!("`{place}`: {error}"))
            .collect(),
    };
    error.sqlstate = last.sqlstate().map(str::to_owned);
    // 28000 is about the role or a line of pg_hba.conf, not about the password.
    let about_password = error.sqlstate.as_deref() != Some("28000");
    if error.kind == ErrorKind::Authentication && about_password {
        error = match info.password() {
            Some((_, origin)) => error.cause(format!("the password came from {origin}")),
            None => error.hint(
                "no password was given: put one into the connection URL, `PGPASSWORD` or `~/.pgpass`",
            ),
        };
    }
    error
}
