//! Connecting: which server of several, with or without TLS, and what it means when none answers.
//!
//! The order of attempts is libpq's (`PQconnectPoll`), so that a `psql` with the same settings ends
//! up at the same server; and the connection says which one that was, so that it does for sure.

#[cfg(feature = "blocking")]
pub mod blocking;
mod fault;
mod tokio;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{SslMode as Protocol, SslNegotiation};

use self::fault::{Fault, describe, is_untyped};
use crate::conninfo::{ConnInfo, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::tls::{LazyTls, SslMode};

pub use self::tokio::{Canceller, Connection, connect};

/// What a session starts with, beside what the connection string asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Session<'a> {
    /// Its name on the server, in place of [`ConnInfo::application_name`].
    pub application_name: Option<&'a str>,
    /// More settings, as `-c name=value -c …`. They stand after the user's `options`: of two values the
    /// last counts.
    pub options: &'a str,
}

/// What differs between the blocking client and the async one. The blocking one's futures are ready
/// when they are first polled, so that [`search`] and all below it are written once.
trait Driver {
    type Client;

    /// The addresses of a host name, in the resolver's order.
    async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>>;

    /// Opens a session, within this time where there is a limit.
    async fn open(
        &self,
        config: &Config,
        tls: &LazyTls,
        timeout: Option<Duration>,
    ) -> Result<Self::Client, Fault>;

    /// The row of a query without parameters.
    async fn row(
        &self,
        client: &mut Self::Client,
        query: &str,
    ) -> Result<tokio_postgres::Row, tokio_postgres::Error>;
}

/// An open session, whatever its client.
struct Opened<C> {
    client: C,
    /// Pinned to the host and the address that answered.
    info: ConnInfo,
    encrypted: bool,
    tls: LazyTls,
}

/// Connects to the first host that answers and is what `target_session_attrs` asks for.
async fn search<D: Driver>(
    driver: &D,
    info: &ConnInfo,
    session: &Session<'_>,
) -> Result<Opened<D::Client>> {
    // With `prefer-standby` a second pass takes any server.
    let passes: &[Target] = match &info.target {
        Target::PreferStandby => &[Target::Standby, Target::Any],
        target => std::slice::from_ref(target),
    };

    let mut failed = Vec::new();
    for wanted in passes {
        // What the pass before came to is no news.
        failed.clear();
        for host in info.hosts() {
            let addresses = match resolve(driver, host).await {
                Ok(addresses) => addresses,
                Err(fault) => {
                    failed.push((host.to_string(), fault));
                    continue;
                }
            };
            for host in addresses {
                let info = info.pinned_to(host);
                match attempt(driver, &info, session, *wanted).await {
                    Ok(opened) => return Ok(opened),
                    Err(fault) => {
                        let is_final = fault.is_final();
                        failed.push((place(&info.hosts()[0]), fault));
                        if is_final {
                            return Err(report(&info, &failed));
                        }
                    }
                }
            }
        }
    }
    Err(report(info, &failed))
}

/// The host once for each of its addresses, in the resolver's order.
///
/// The address goes into the pinned host, so that a name with several servers behind it (round
/// robin, a moving alias) means the same server for every later `psql`.
async fn resolve<D: Driver>(driver: &D, host: &Host) -> Result<Vec<Host>, Fault> {
    if host.is_socket() || host.address.is_some() || host.name.parse::<IpAddr>().is_ok() {
        return Ok(vec![host.clone()]);
    }
    let found = driver.addresses(&host.name, host.port).await;
    let with = |address| Host {
        address: Some(address),
        ..host.clone()
    };
    Ok(found
        .map_err(Fault::Resolve)?
        .into_iter()
        .map(with)
        .collect())
}

/// Tries one host, with TLS or without as `sslmode` and the server want it.
///
/// `prefer` and `allow` have a second way. libpq takes it after a failed handshake and after a
/// refused login, since `pg_hba.conf` may let in only the one (`hostssl`) or the other.
async fn attempt<D: Driver>(
    driver: &D,
    info: &ConnInfo,
    session: &Session<'_>,
    wanted: Target,
) -> Result<Opened<D::Client>, Fault> {
    let mode = match info.hosts()[0].is_socket() {
        true => SslMode::Disable,
        false => info.tls.mode,
    };
    let way = |protocol| open(driver, info, session, protocol);
    let mut opened = match mode {
        SslMode::Disable => way(Protocol::Disable).await,
        SslMode::Allow => match way(Protocol::Disable).await {
            Err(plain) if plain.is_refused_login() => way(Protocol::Require)
                .await
                .map_err(|with_tls| either(with_tls, plain)),
            outcome => outcome,
        },
        SslMode::Prefer => match way(Protocol::Prefer).await {
            Err(with_tls) if with_tls.may_be_due_to_tls() => way(Protocol::Disable)
                .await
                .map_err(|plain| either(with_tls, plain)),
            outcome => outcome,
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => way(Protocol::Require).await,
    }?;
    check_target(driver, &mut opened.client, wanted).await?;
    Ok(opened)
}

fn not_cancelled(error: &tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::Other, "cannot ask the server to cancel").cause(describe(error))
}

fn either(with_tls: Fault, plain: Fault) -> Fault {
    Fault::EitherWay {
        with_tls: Box::new(with_tls),
        plain: Box::new(plain),
    }
}

/// Opens one session one way.
async fn open<D: Driver>(
    driver: &D,
    info: &ConnInfo,
    session: &Session<'_>,
    protocol: Protocol,
) -> Result<Opened<D::Client>, Fault> {
    let tls = LazyTls::new(&info.tls, info.hosts()[0].has_name());
    let config = config(info, session, protocol)?;
    match driver.open(&config, &tls, info.connect_timeout).await {
        Ok(client) => Ok(Opened {
            client,
            info: info.clone(),
            encrypted: tls.started(),
            tls,
        }),
        // The client has no type for a server that says no, but then there is no handshake.
        Err(Fault::Client { error, tls: false })
            if protocol == Protocol::Require && is_untyped(&error) =>
        {
            Err(Fault::NoTls)
        }
        Err(fault) => Err(fault),
    }
}

/// The client's configuration for exactly one host.
fn config(info: &ConnInfo, session: &Session<'_>, protocol: Protocol) -> Result<Config, Fault> {
    let host = &info.hosts()[0];
    let mut config = Config::new();
    match host.address {
        // The client knows the server's name only from `host`, and refuses TLS without one.
        Some(address) if host.has_name() => config.host(&host.name).hostaddr(address),
        Some(address) => config.host(address.to_string()).hostaddr(address),
        None if host.name.starts_with('@') => {
            return Err(Fault::Local(
                "an abstract Unix socket is not supported".to_owned(),
            ));
        }
        None => config.host(&host.name),
    };
    config
        .port(host.port)
        .user(info.user())
        .dbname(info.dbname())
        .ssl_mode(protocol)
        .channel_binding(info.channel_binding)
        .keepalives(info.tcp.keepalives);
    let name = session.application_name.or(info.application_name());
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        config.application_name(name);
    }
    let options = format!("{} {}", info.options(), session.options);
    if !options.trim().is_empty() {
        // A pooler may refuse a session that sets any.
        config.options(options.trim());
    }
    if info.tls.direct && protocol == Protocol::Require {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    if let Some((password, _)) = info.password() {
        config.password(password.expose());
    }
    if let Some(timeout) = info.connect_timeout {
        config.connect_timeout(timeout);
    }
    if let Some(idle) = info.tcp.idle {
        config.keepalives_idle(idle);
    }
    if let Some(interval) = info.tcp.interval {
        config.keepalives_interval(interval);
    }
    if let Some(count) = info.tcp.count {
        config.keepalives_retries(count);
    }
    if let Some(timeout) = info.tcp.user_timeout {
        config.tcp_user_timeout(timeout);
    }
    Ok(config)
}

/// Whether the server is what was asked for, by the two settings that libpq looks at too.
async fn check_target<D: Driver>(
    driver: &D,
    client: &mut D::Client,
    wanted: Target,
) -> Result<(), Fault> {
    if matches!(wanted, Target::Any | Target::PreferStandby) {
        return Ok(());
    }
    let query = "SELECT pg_catalog.pg_is_in_recovery(), \
         pg_catalog.current_setting('default_transaction_read_only')::pg_catalog.bool";
    let row = driver.row(client, query).await;
    let row = row.map_err(|error| Fault::Client { error, tls: false })?;
    let (standby, read_only_by_default): (bool, bool) = (row.get(0), row.get(1));
    let read_only = standby || read_only_by_default;
    let is_wanted = match wanted {
        Target::ReadWrite => !read_only,
        Target::ReadOnly => read_only,
        Target::Primary => !standby,
        Target::Standby => standby,
        Target::Any | Target::PreferStandby => true,
    };
    match is_wanted {
        true => Ok(()),
        false => Err(Fault::NotWanted(wanted)),
    }
}

/// Where an attempt was made: the host, and the address behind its name.
fn place(host: &Host) -> String {
    match host.address {
        Some(address) if !host.name.is_empty() => format!("{host} ({address})"),
        _ => host.to_string(),
    }
}

/// The error of all attempts; the last one decides what kind it is.
fn report(info: &ConnInfo, failed: &[(String, Fault)]) -> Error {
    let message = format!("cannot connect to {}", info.summary());
    let Some((_, last)) = failed.last() else {
        return Error::new(ErrorKind::NoSuchHost, message).cause("the host name has no address");
    };
    let mut error = Error::new(last.kind(), message);
    error.causes = match failed {
        [(_, fault)] => vec![fault.to_string()],
        many => many
            .iter()
            .map(|(place, fault)| format!("`{place}`: {fault}"))
            .collect(),
    };
    error.sqlstate = last.sqlstate().map(str::to_owned);
    // 28000 is about the user or a line of pg_hba.conf, whatever the password.
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
