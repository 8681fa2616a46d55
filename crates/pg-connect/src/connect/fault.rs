//! What came of an attempt that failed: what it means for the next one, its kind, its words.

use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use crate::conninfo::Target;
use crate::error::ErrorKind;
use crate::tls::{TlsError, explain, rustls_error};

/// Why one attempt came to nothing.
pub(super) enum Fault {
    /// The name has no address.
    Resolve(io::Error),
    /// Not within `connect_timeout`.
    Timeout,
    /// The server is not what `target_session_attrs` asks for.
    NotWanted(Target),
    /// `sslmode` asks for TLS, and the server said no.
    NoTls,
    /// Something on our own side, whatever the server.
    Local(String),
    /// The attempt itself failed, after or before the server agreed to TLS.
    Client {
        error: tokio_postgres::Error,
        tls: bool,
    },
    /// Both ways of `sslmode=prefer` or `allow` failed.
    EitherWay {
        with_tls: Box<Fault>,
        plain: Box<Fault>,
    },
}

impl Fault {
    /// Of two faults the one that says what is wrong: TLS', if the server spoke to us on it.
    pub(super) fn telling(&self) -> &Fault {
        match self {
            Fault::EitherWay { with_tls, plain } => match with_tls.as_ref() {
                Fault::Client { error, .. } if error.code().is_some() => with_tls,
                _ => plain,
            },
            only => only,
        }
    }

    /// The five characters of the server's error code.
    pub(super) fn sqlstate(&self) -> Option<&str> {
        match self.telling() {
            Fault::Client { error, .. } => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether the other hosts are not tried: a server that answers has the last word, unless it
    /// cannot serve anyone now (manual, *Specifying Multiple Hosts*). So has one that breaks off
    /// (`PQconnectPoll`).
    pub(super) fn is_final(&self) -> bool {
        match self.telling() {
            Fault::Client { error, .. } => match error.code() {
                Some(code) => *code != SqlState::CANNOT_CONNECT_NOW,
                None => io_error(error)
                    .is_none_or(|error| rustls_error(error).is_some() || has_broken_off(error)),
            },
            Fault::NoTls | Fault::Local(_) | Fault::EitherWay { .. } => true,
            Fault::Resolve(_) | Fault::Timeout | Fault::NotWanted(_) => false,
        }
    }

    /// Whether the server refused the login (class 28, *Invalid Authorization Specification*).
    pub(super) fn is_refused_login(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("28"))
    }

    /// Whether the same attempt without TLS could have another outcome.
    pub(super) fn may_be_due_to_tls(&self) -> bool {
        match self {
            Fault::Client { tls: true, .. } => {
                self.is_refused_login() || self.kind() == ErrorKind::Tls
            }
            _ => false,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self.telling() {
            Fault::Resolve(_) => ErrorKind::NoSuchHost,
            Fault::Timeout => ErrorKind::Timeout,
            Fault::NoTls | Fault::EitherWay { .. } => ErrorKind::Tls,
            Fault::NotWanted(_) | Fault::Local(_) => ErrorKind::Other,
            Fault::Client { error, .. } => client_kind(error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Resolve(error) => write!(f, "the host name has no address: {error}"),
            Fault::Timeout => f.write_str("no answer within `connect_timeout`"),
            Fault::NotWanted(target) => f.write_str(match target {
                Target::ReadWrite => "the session is read-only (`target_session_attrs`)",
                Target::ReadOnly => "the session is not read-only (`target_session_attrs`)",
                Target::Primary => "the server is a standby (`target_session_attrs`)",
                _ => "the server is not a standby (`target_session_attrs`)",
            }),
            Fault::NoTls => f.write_str("the server does not speak TLS (`sslmode`)"),
            Fault::Local(what) => f.write_str(what),
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

/// What kind of problem an error of the client is, by its SQLSTATE or its `io::ErrorKind`.
fn client_kind(error: &tokio_postgres::Error) -> ErrorKind {
    if let Some(server) = error.as_db_error() {
        return match server.code() {
            // 28000 stands for an unknown role and for a line of pg_hba.conf. The routine that
            // raised it is not translated, and tells the two apart.
            code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                match server.routine() {
                    Some("InitializeSessionUserId") => ErrorKind::NoSuchRole,
                    _ => ErrorKind::Authentication,
                }
            }
            code if code.code().starts_with("28") => ErrorKind::Authentication,
            code if *code == SqlState::INVALID_CATALOG_NAME => ErrorKind::NoSuchDatabase,
            code if *code == SqlState::TOO_MANY_CONNECTIONS => ErrorKind::TooManyConnections,
            code if *code == SqlState::CANNOT_CONNECT_NOW => ErrorKind::StartingUp,
            _ => ErrorKind::Other,
        };
    }
    if let Some(error) = io_error(error) {
        return match error.kind() {
            _ if rustls_error(error).is_some() => ErrorKind::Tls,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorKind::Refused,
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Other,
        };
    }
    match (tls_error(error), is_untyped(error)) {
        (Some(_), _) => ErrorKind::Tls,
        // What is left comes from the exchange about the password: there is none, the server's
        // answer is wrong, or its method is unknown.
        (None, true) => ErrorKind::Authentication,
        (None, false) => ErrorKind::Other,
    }
}

/// One line about an error of the client, in the server's words where it has said something.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
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

/// Whether there was a connection, which has ended. `Other` is what the client makes of an end in the
/// midst of a message; the system's errors never are.
fn has_broken_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Other, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | Other | UnexpectedEof
    )
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn tls_error(error: &tokio_postgres::Error) -> Option<&TlsError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Whether the client gave only a text for its reason.
pub(super) fn is_untyped(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some()
        && error.code().is_none()
        && io_error(error).is_none()
        && tls_error(error).is_none()
}
