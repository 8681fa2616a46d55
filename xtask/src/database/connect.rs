//! Connecting: which server of several, with or without TLS, and what it means when none answers.
//!
//! The order of attempts is libpq's (`PQconnectPoll`), so that a `psql` with the same settings ends
//! up at the same server; and the connection says which one that was, so that it does for sure.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use postgres::config::{SslMode as Protocol, SslNegotiation};
use postgres::error::SqlState;
use postgres::{CancelToken, Client, Config};

use super::conninfo::{ConnInfo, Host, Target};
use super::tls::{LazyTls, SslMode, TlsError, explain, rustls_error};
use crate::error::{Failure, Result};
use crate::interrupt;

/// An open session, and the way to the server it is on.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Pinned to the host and the address that answered.
    pub(crate) info: ConnInfo,
    /// Whether the session is encrypted.
    pub(crate) encrypted: bool,
    tls: LazyTls,
}

impl Connection {
    /// A handle for another thread that cancels what this session is doing.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller {
            token: self.client.cancel_token(),
            tls: self.tls.clone(),
        }
    }
}

/// Cancels a session's current statement, from any thread.
#[derive(Clone)]
pub(crate) struct Canceller {
    token: CancelToken,
    tls: LazyTls,
}

impl Canceller {
    /// Asks the server to cancel; without an error the request has arrived, not yet taken effect.
    pub(crate) fn cancel(&self) -> Result {
        self.token.cancel_query(self.tls.clone()).map_err(|error| {
            Failure::failed("cannot ask the server to cancel")
                .cause(describe(&error))
                .into()
        })
    }
}

/// What is wrong, for a caller that can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectProblem {
    /// Nothing listens there: the port is closed, or the socket does not exist.
    Refused,
    NoSuchHost,
    Timeout,
    /// The password, the certificate or `pg_hba.conf` does not let this user in.
    Authentication,
    NoSuchDatabase,
    NoSuchRole,
    TooManyConnections,
    /// Starting up, shutting down or recovering: it may work in a moment.
    StartingUp,
    Tls,
    Other,
}

/// No connection: the problem, and the failure to show for it.
///
/// Not an error of its own: `?` turns it into its [`Failure`].
#[derive(Debug)]
pub(crate) struct ConnectError {
    pub(crate) problem: ConnectProblem,
    pub(crate) failure: Box<Failure>,
}

impl From<ConnectError> for anyhow::Error {
    fn from(error: ConnectError) -> Self {
        (*error.failure).into()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

/// Connects to the first host that answers and is what `target_session_attrs` asks for.
///
/// `options` are more settings for the session, as `-c name=value`, after those of the user.
pub(crate) fn connect(
    info: &ConnInfo,
    application_name: &str,
    options: &str,
) -> std::result::Result<Connection, ConnectError> {
    let session = Session {
        application_name,
        options: format!("{} {options}", info.options()).trim().to_owned(),
    };
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
            let addresses = match resolve(host) {
                Ok(addresses) => addresses,
                Err(fault) => {
                    failed.push((host.to_string(), fault));
                    continue;
                }
            };
            for host in addresses {
                let info = info.pinned_to(host);
                match attempt(&info, &session, *wanted) {
                    Ok(connection) => return Ok(connection),
                    Err(fault) => {
                        let is_final = fault.is_final();
                        failed.push((place(&info.hosts()[0]), fault));
                        if is_final {
                            return Err(report(&info, failed));
                        }
                    }
                }
            }
        }
    }
    Err(report(info, failed))
}

/// What is asked of a session, whatever the server.
struct Session<'a> {
    application_name: &'a str,
    options: String,
}

/// Why one attempt came to nothing.
enum Fault {
    /// The name has no address.
    Resolve(io::Error),
    /// Not within `connect_timeout`.
    Timeout,
    /// The runtime's thread was not to be had.
    Thread(io::Error),
    /// The server is not what `target_session_attrs` asks for.
    NotWanted(Target),
    /// `sslmode` asks for TLS, and the server said no.
    NoTls,
    /// The client has no way to do what the settings ask for.
    Unsupported(&'static str),
    /// The attempt itself failed, after or before the server agreed to TLS.
    Client { error: postgres::Error, tls: bool },
    /// Both ways of `sslmode=prefer` or `allow` failed.
    EitherWay {
        with_tls: Box<Fault>,
        plain: Box<Fault>,
    },
}

impl Fault {
    /// Of two faults the one that says what is wrong: TLS', if the server spoke to us on it.
    fn telling(&self) -> &Fault {
        match self {
            Fault::EitherWay { with_tls, plain } => match with_tls.as_ref() {
                Fault::Client { error, .. } if error.code().is_some() => with_tls,
                _ => plain,
            },
            only => only,
        }
    }

    /// The five characters of the server's error code.
    fn sqlstate(&self) -> Option<&str> {
        match self.telling() {
            Fault::Client { error, .. } => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether the other hosts are not tried: a server that answers has the last word, unless it
    /// cannot serve anyone now (manual, *Specifying Multiple Hosts*).
    fn is_final(&self) -> bool {
        match self.telling() {
            Fault::Client { error, .. } => match error.code() {
                Some(code) => *code != SqlState::CANNOT_CONNECT_NOW,
                None => io_error(error).is_none_or(|error| rustls_error(error).is_some()),
            },
            Fault::NoTls | Fault::Unsupported(_) | Fault::EitherWay { .. } => true,
            Fault::Resolve(_) | Fault::Timeout | Fault::Thread(_) | Fault::NotWanted(_) => false,
        }
    }

    /// Whether the server refused the login (class 28, *Invalid Authorization Specification*).
    fn is_refused_login(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("28"))
    }

    /// Whether the same attempt without TLS could have another outcome.
    fn may_be_due_to_tls(&self) -> bool {
        match self {
            Fault::Client { tls: true, .. } => {
                self.is_refused_login() || self.problem() == ConnectProblem::Tls
            }
            _ => false,
        }
    }

    fn problem(&self) -> ConnectProblem {
        match self.telling() {
            Fault::Resolve(_) => ConnectProblem::NoSuchHost,
            Fault::Timeout => ConnectProblem::Timeout,
            Fault::NoTls | Fault::EitherWay { .. } => ConnectProblem::Tls,
            Fault::Thread(_) | Fault::NotWanted(_) | Fault::Unsupported(_) => ConnectProblem::Other,
            Fault::Client { error, .. } => client_problem(error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Resolve(error) => write!(f, "the host name has no address: {error}"),
            Fault::Timeout => f.write_str("no answer within `connect_timeout`"),
            Fault::Thread(error) => write!(f, "cannot start a thread: {error}"),
            Fault::NotWanted(target) => f.write_str(match target {
                Target::ReadWrite => "the session is read-only (`target_session_attrs`)",
                Target::ReadOnly => "the session is not read-only (`target_session_attrs`)",
                Target::Primary => "the server is a standby (`target_session_attrs`)",
                _ => "the server is not a standby (`target_session_attrs`)",
            }),
            Fault::NoTls => f.write_str("the server does not speak TLS (`sslmode`)"),
            Fault::Unsupported(what) => write!(f, "{what} is not supported"),
            Fault::Client { error, .. } => f.write_str(&describe(error)),
            Fault::EitherWay { with_tls, plain } => {
                let (with_tls, plain) = (with_tls.to_string(), plain.to_string());
                match with_tls == plain {
                    true => f.write_str(&plain),
                    false => write!(f, "{plain}; with TLS: {with_tls}"),
                }
            }
        }
    }
}

/// The host once for each of its addresses, in the resolver's order.
///
/// The address goes into the pinned host, so that a name with several servers behind it (round
/// robin, a moving alias) means the same server for every later `psql`.
fn resolve(host: &Host) -> std::result::Result<Vec<Host>, Fault> {
    if host.is_socket() || host.address.is_some() || host.name.parse::<IpAddr>().is_ok() {
        return Ok(vec![host.clone()]);
    }
    let found = (host.name.as_str(), host.port).to_socket_addrs();
    let found: Vec<SocketAddr> = found.map_err(Fault::Resolve)?.collect();
    let with = |address: &SocketAddr| Host {
        address: Some(address.ip()),
        ..host.clone()
    };
    Ok(found.iter().map(with).collect())
}

/// Tries one host, with TLS or without as `sslmode` and the server want it.
///
/// `prefer` and `allow` have a second way. libpq takes it after a failed handshake and after a
/// refused login, since `pg_hba.conf` may let in only the one (`hostssl`) or the other.
fn attempt(
    info: &ConnInfo,
    session: &Session<'_>,
    wanted: Target,
) -> std::result::Result<Connection, Fault> {
    let mode = match info.hosts()[0].is_socket() {
        true => SslMode::Disable,
        false => info.tls.mode,
    };
    let way = |protocol| open(info, session, protocol);
    let mut connection = match mode {
        SslMode::Disable => way(Protocol::Disable),
        SslMode::Allow => match way(Protocol::Disable) {
            Err(plain) if plain.is_refused_login() => {
                way(Protocol::Require).map_err(|with_tls| either(with_tls, plain))
            }
            outcome => outcome,
        },
        SslMode::Prefer => match way(Protocol::Prefer) {
            Err(with_tls) if with_tls.may_be_due_to_tls() => {
                way(Protocol::Disable).map_err(|plain| either(with_tls, plain))
            }
            outcome => outcome,
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => way(Protocol::Require),
    }?;
    check_target(&mut connection.client, wanted)?;
    Ok(connection)
}

fn either(with_tls: Fault, plain: Fault) -> Fault {
    Fault::EitherWay {
        with_tls: Box::new(with_tls),
        plain: Box::new(plain),
    }
}

/// Opens one session one way.
fn open(
    info: &ConnInfo,
    session: &Session<'_>,
    protocol: Protocol,
) -> std::result::Result<Connection, Fault> {
    let tls = LazyTls::new(&info.tls, !info.hosts()[0].name.is_empty());
    let config = config(info, session, protocol)?;
    match connect_in_time(&config, &tls, info) {
        Ok(client) => Ok(Connection {
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
fn config(
    info: &ConnInfo,
    session: &Session<'_>,
    protocol: Protocol,
) -> std::result::Result<Config, Fault> {
    let host = &info.hosts()[0];
    let mut config = Config::new();
    match host.address {
        // The client knows the server's name only from `host`, and refuses TLS without one.
        Some(address) => config.host(&host.shown()).hostaddr(address),
        None if host.name.starts_with('@') => {
            return Err(Fault::Unsupported("an abstract Unix socket"));
        }
        None => config.host(&host.name),
    };
    config
        .port(host.port)
        .user(info.user())
        .dbname(info.dbname())
        .application_name(session.application_name)
        .ssl_mode(protocol)
        .channel_binding(info.channel_binding)
        .keepalives(info.tcp.keepalives);
    if !session.options.is_empty() {
        // A pooler may refuse a session that sets any.
        config.options(&session.options);
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

/// How often a connection under way looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Connects, within `connect_timeout` where there is one.
///
/// The client's own timeout ends with the TCP connection, libpq's with the login: a server that is
/// stopped still has its kernel accept. So the login is given a thread, which a timeout leaves behind.
fn connect_in_time(
    config: &Config,
    tls: &LazyTls,
    info: &ConnInfo,
) -> std::result::Result<Client, Fault> {
    let fault = |error| Fault::Client {
        error,
        tls: tls.started(),
    };
    let Some(timeout) = info.connect_timeout else {
        return config.connect(tls.clone()).map_err(fault);
    };
    let (sender, receiver) = mpsc::channel();
    let (own_config, own_tls) = (config.clone(), tls.clone());
    thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || {
            // Too late, the client is dropped here, which ends its session.
            drop(sender.send(own_config.connect(own_tls)));
        })
        .map_err(Fault::Thread)?;
    let begin = Instant::now();
    loop {
        match receiver.recv_timeout(LOOK_EVERY.min(timeout)) {
            Ok(outcome) => return outcome.map_err(fault),
            Err(RecvTimeoutError::Timeout)
                if begin.elapsed() < timeout && !interrupt::requested() => {}
            Err(_) => return Err(Fault::Timeout),
        }
    }
}

/// Whether the server is what was asked for, by the two settings that libpq looks at too.
fn check_target(client: &mut Client, wanted: Target) -> std::result::Result<(), Fault> {
    if matches!(wanted, Target::Any | Target::PreferStandby) {
        return Ok(());
    }
    let row = client
        .query_typed_one(
            "SELECT pg_catalog.pg_is_in_recovery(), \
             pg_catalog.current_setting('default_transaction_read_only')::pg_catalog.bool",
            &[],
        )
        .map_err(|error| Fault::Client { error, tls: false })?;
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

/// The failure of all attempts; the last one decides what the problem is.
fn report(info: &ConnInfo, failed: Vec<(String, Fault)>) -> ConnectError {
    let message = format!("cannot connect to {}", info.summary());
    let mut failure = Failure::failed(message);
    failure.causes = match failed.as_slice() {
        [(_, fault)] => vec![fault.to_string()],
        many => many
            .iter()
            .map(|(place, fault)| format!("`{place}`: {fault}"))
            .collect(),
    };
    let Some((_, last)) = failed.last() else {
        return ConnectError {
            problem: ConnectProblem::NoSuchHost,
            failure: Box::new(failure.cause("the host name has no address")),
        };
    };
    let problem = last.problem();
    failure.sqlstate = last.sqlstate().map(str::to_owned);
    // 28000 is about the user or a line of pg_hba.conf, whatever the password.
    let about_password = failure.sqlstate.as_deref() != Some("28000");
    if problem == ConnectProblem::Authentication && about_password {
        failure = match info.password() {
            Some((_, origin)) => failure.cause(format!("the password came from {origin}")),
            None => failure.hint(
                "no password was given: put one into the connection URL, `PGPASSWORD` or `~/.pgpass`",
            ),
        };
    }
    ConnectError {
        problem,
        failure: Box::new(failure),
    }
}

/// What kind of problem an error of the client is, by its SQLSTATE or its `io::ErrorKind`.
fn client_problem(error: &postgres::Error) -> ConnectProblem {
    use io::ErrorKind;
    if let Some(server) = error.as_db_error() {
        return match server.code() {
            // 28000 stands for an unknown role and for a line of pg_hba.conf. The routine that
            // raised it is not translated, and tells the two apart.
            code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                match server.routine() {
                    Some("InitializeSessionUserId") => ConnectProblem::NoSuchRole,
                    _ => ConnectProblem::Authentication,
                }
            }
            code if code.code().starts_with("28") => ConnectProblem::Authentication,
            code if *code == SqlState::INVALID_CATALOG_NAME => ConnectProblem::NoSuchDatabase,
            code if *code == SqlState::TOO_MANY_CONNECTIONS => ConnectProblem::TooManyConnections,
            code if *code == SqlState::CANNOT_CONNECT_NOW => ConnectProblem::StartingUp,
            _ => ConnectProblem::Other,
        };
    }
    if let Some(error) = io_error(error) {
        return match error.kind() {
            _ if rustls_error(error).is_some() => ConnectProblem::Tls,
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => ConnectProblem::Refused,
            ErrorKind::TimedOut => ConnectProblem::Timeout,
            _ => ConnectProblem::Other,
        };
    }
    match (tls_error(error), is_untyped(error)) {
        (Some(_), _) => ConnectProblem::Tls,
        // What is left comes from the exchange about the password: there is none, the server's
        // answer is wrong, or its method is unknown.
        (None, true) => ConnectProblem::Authentication,
        (None, false) => ConnectProblem::Other,
    }
}

/// One line about an error of the client, in the server's words where it has said something.
fn describe(error: &postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    if let Some(error) = io_error(error) {
        return match rustls_error(error) {
            Some(error) => explain(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the server closed the connection".to_owned()
            }
            None if error.kind() == io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            None => error.to_string(),
        };
    }
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

fn io_error(error: &postgres::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn tls_error(error: &postgres::Error) -> Option<&TlsError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Whether the client gave only a text for its reason.
fn is_untyped(error: &postgres::Error) -> bool {
    std::error::Error::source(error).is_some()
        && error.code().is_none()
        && io_error(error).is_none()
        && tls_error(error).is_none()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::{Duration, Instant};
    use std::{fs, thread};

    use postgres::error::SqlState;
    use tempfile::TempDir;

    use super::*;
    use crate::database::conninfo::Env;

    /// A PostgreSQL of its own in a temporary folder, without TLS, stopped when dropped.
    struct Server {
        folder: TempDir,
        programs: PathBuf,
        port: u16,
    }

    impl Server {
        fn start() -> Server {
            let server = Server {
                folder: tempfile::tempdir().unwrap(),
                programs: programs(),
                port: free_port(),
            };
            let path = server.folder.path();
            let data = path.join("data");
            if server.is_root() {
                // PostgreSQL refuses to run as root.
                run(Command::new("chown").arg("postgres").arg(path));
            }
            run(server
                .program("initdb")
                .args(["-A", "trust", "-U", "boss", "--no-sync", "-D"])
                .arg(&data));
            fs::write(data.join("pg_hba.conf"), HBA).unwrap();
            let settings = format!(
                "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n",
                server.port,
                path.display()
            );
            fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
            fs::set_permissions(
                data.join("postgresql.auto.conf"),
                PermissionsExt::from_mode(0o644),
            )
            .unwrap();
            let log = path.join("log");
            run(server
                .program("pg_ctl")
                .args(["-w", "start", "-D"])
                .arg(&data)
                .arg("-l")
                .arg(log));
            server
        }

        fn is_root(&self) -> bool {
            fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
        }

        fn program(&self, name: &str) -> Command {
            let program = self.programs.join(name);
            if !self.is_root() {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
            command
        }

        fn info(&self, given: &str) -> ConnInfo {
            let given = given
                .replace("PORT", &self.port.to_string())
                .replace("FOLDER", self.folder.path().to_str().unwrap());
            ConnInfo::resolve(&given, &Env::new(), None).unwrap()
        }

        fn connect(&self, given: &str) -> std::result::Result<Connection, ConnectError> {
            connect(&self.info(given), "test", "-c work_mem=5MB")
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let data = self.folder.path().join("data");
            let mut stop = self.program("pg_ctl");
            let _ = stop
                .args(["-m", "immediate", "stop", "-D"])
                .arg(data)
                .output();
        }
    }

    const HBA: &str = "\
local all all trust
host all trusted,nobody,full,boss 127.0.0.1/32 trust
host all known 127.0.0.1/32 scram-sha-256
";

    fn programs() -> PathBuf {
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let newest = debian.map(|entry| entry.unwrap().path().join("bin")).max();
        newest.unwrap_or_else(|| which::which("initdb").unwrap().parent().unwrap().to_owned())
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    fn run(command: &mut Command) {
        let output = command.current_dir("/").output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }

    fn setting(connection: &mut Connection, name: &str) -> String {
        let row = connection
            .client
            .query_typed_one(
                "SELECT current_setting($1)",
                &[(&name, postgres::types::Type::TEXT)],
            )
            .unwrap();
        row.get(0)
    }

    #[test]
    fn a_server_without_tls() {
        let server = Server::start();
        let mut boss = server
            .connect("postgres://boss@127.0.0.1:PORT/postgres")
            .unwrap()
            .client;
        boss.batch_execute(
            "CREATE ROLE trusted LOGIN; CREATE ROLE full LOGIN CONNECTION LIMIT 0;
             CREATE ROLE known LOGIN PASSWORD 's3cret'",
        )
        .unwrap();

        sessions_have_what_was_asked_for(&server);
        every_problem_has_its_kind(&server);
        hosts_are_tried_in_their_order(&server);
        a_statement_can_be_cancelled(&server);
    }

    fn sessions_have_what_was_asked_for(server: &Server) {
        let folder = server.folder.path();
        let mut by_name = server
            .connect("host=localhost port=PORT user=known password=s3cret dbname=postgres options='-c statement_timeout=7s'")
            .unwrap();
        assert_eq!(setting(&mut by_name, "application_name"), "test");
        assert_eq!(setting(&mut by_name, "work_mem"), "5MB");
        assert_eq!(setting(&mut by_name, "statement_timeout"), "7s");
        assert!(!by_name.encrypted);
        let pinned = &by_name.info.hosts()[0];
        assert_eq!(
            (pinned.name.as_str(), pinned.address),
            ("localhost", Some([127, 0, 0, 1].into()))
        );
        let for_psql = by_name.info.psql_conninfo();
        assert!(
            for_psql.contains("hostaddr='127.0.0.1'") && !for_psql.contains("work_mem"),
            "{for_psql}"
        );

        // A socket has no TLS, whatever is asked for.
        let by_socket = server
            .connect("host=FOLDER port=PORT user=trusted dbname=postgres sslmode=verify-full")
            .unwrap();
        assert_eq!(Path::new(&by_socket.info.hosts()[0].name), folder);

        let line = format!("127.0.0.1:{}:postgres:known:s3cret\n", server.port);
        let passfile = folder.join("pgpass");
        fs::write(&passfile, line).unwrap();
        fs::set_permissions(&passfile, PermissionsExt::from_mode(0o600)).unwrap();
        server
            .connect("host=127.0.0.1 port=PORT user=known dbname=postgres passfile=FOLDER/pgpass")
            .unwrap();
    }

    fn every_problem_has_its_kind(server: &Server) {
        use ConnectProblem::*;
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = silent.local_addr().unwrap().port();
        let table = [
            (Refused, "host=127.0.0.1 port=1 user=trusted", None),
            (Refused, "host=FOLDER port=1 user=trusted", None),
            (NoSuchHost, "host=nowhere.invalid user=trusted", None),
            (
                Authentication,
                "host=127.0.0.1 port=PORT user=known dbname=postgres password=wr0ng",
                Some("28P01"),
            ),
            (
                Authentication,
                "host=127.0.0.1 port=PORT user=known dbname=postgres",
                None,
            ),
            (
                Authentication,
                "host=127.0.0.1 port=PORT user=other dbname=postgres",
                Some("28000"),
            ),
            (
                NoSuchRole,
                "host=127.0.0.1 port=PORT user=nobody dbname=postgres",
                Some("28000"),
            ),
            (
                NoSuchDatabase,
                "host=127.0.0.1 port=PORT user=trusted dbname=none",
                Some("3D000"),
            ),
            (
                TooManyConnections,
                "host=127.0.0.1 port=PORT user=full dbname=postgres",
                Some("53300"),
            ),
            (
                Tls,
                "host=127.0.0.1 port=PORT user=trusted dbname=postgres sslmode=require",
                None,
            ),
            (
                Other,
                "host=127.0.0.1 port=PORT user=trusted dbname=postgres target_session_attrs=standby",
                None,
            ),
            (
                Timeout,
                &format!("host=127.0.0.1 port={silent} user=trusted connect_timeout=1"),
                None,
            ),
        ];
        for (problem, given, sqlstate) in table {
            let started = Instant::now();
            let Err(error) = server.connect(given) else {
                panic!("{given} connected");
            };
            assert_eq!(error.problem, problem, "{given}: {error:?}");
            assert_eq!(
                error.failure.sqlstate.as_deref(),
                sqlstate,
                "{given}: {error:?}"
            );
            assert!(!error.failure.causes.is_empty(), "{given}: {error:?}");
            assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");
            assert!(started.elapsed() < Duration::from_secs(5), "{given}");
        }
    }

    fn hosts_are_tried_in_their_order(server: &Server) {
        let common = "user=trusted dbname=postgres";
        let dead_first = format!("host=127.0.0.1,nowhere.invalid,FOLDER port=1,1,PORT {common}");
        let connection = server.connect(&dead_first).unwrap();
        assert_eq!(connection.info.hosts().len(), 1);
        assert!(connection.info.hosts()[0].is_socket());

        // One that is starting up is passed over, as one that is not there.
        let starting = format!(
            "127.0.0.1,FOLDER port={},PORT {common} sslmode=disable",
            starting_up()
        );
        assert!(server.connect(&format!("host={starting}")).is_ok());
        let alone = format!(
            "host=127.0.0.1 port={} {common} sslmode=disable",
            starting_up()
        );
        let error = server.connect(&alone).err().unwrap();
        assert_eq!(error.problem, ConnectProblem::StartingUp);
        assert_eq!(error.failure.sqlstate.as_deref(), Some("57P03"));

        // A server that refuses the user ends the search, one of the wrong kind does not.
        let refused = "host=127.0.0.1,FOLDER port=PORT user=known dbname=postgres password=wr0ng";
        assert_eq!(
            server.connect(refused).err().unwrap().problem,
            ConnectProblem::Authentication
        );
        let table = [
            ("any", true),
            ("read-write", true),
            ("primary", true),
            ("prefer-standby", true),
            ("read-only", false),
            ("standby", false),
        ];
        for (target, expected) in table {
            let given =
                format!("host=127.0.0.1,FOLDER port=PORT {common} target_session_attrs={target}");
            let outcome = server.connect(&given);
            assert_eq!(outcome.is_ok(), expected, "{target}");
            if let Err(error) = outcome {
                assert_eq!(error.failure.causes.len(), 2, "{error:?}");
            }
        }
    }

    /// The port of what answers one client as a server does that is starting up.
    fn starting_up() -> u16 {
        const FIELDS: &[u8] = b"SFATAL\0VFATAL\0C57P03\0Mstarting\0\0";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let length = u32::try_from(FIELDS.len() + 4).unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream
                .write_all(&[&b"E"[..], &length.to_be_bytes(), FIELDS].concat())
                .unwrap();
        });
        port
    }

    fn a_statement_can_be_cancelled(server: &Server) {
        let mut connection = server
            .connect("host=127.0.0.1 port=PORT user=trusted dbname=postgres")
            .unwrap();
        let canceller = connection.canceller();
        let cancelling = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            canceller.cancel().unwrap();
        });
        let error = connection
            .client
            .batch_execute("SELECT pg_sleep(20)")
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        cancelling.join().unwrap();
    }
}
