//! The error of one attempt to connect: whether the next host is tried, its kind, its message.

use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use crate::conninfo::TargetSessionAttrs;
use crate::error::ErrorKind;
use crate::tls::{TlsError, explain, rustls_error};

/// Why one attempt to connect failed.
pub(super) enum AttemptError {
    /// The name has no address.
    Resolve(io::Error),
    /// Not within `connect_timeout`.
    Timeout,
    /// The server is not what `target_session_attrs` asks for.
    WrongTarget(TargetSessionAttrs),
    /// `sslmode` requires TLS, and the server does not support it.
    NoTls,
    /// Something on the client's side that has nothing to do with the server.
    Local(String),
    /// An error of the client crate. `tls`: whether the server had agreed to TLS before it.
    Client {
        error: tokio_postgres::Error,
        tls: bool,
    },
    /// `sslmode=prefer` or `allow`: both the attempt with TLS and the one without failed.
    BothFailed {
        with_tls: Box<AttemptError>,
        plain: Box<AttemptError>,
    },
}

impl AttemptError {
    /// Of two errors, the one that explains more: the one with TLS if the server sent it, else the
    /// one without TLS.
    pub(super) fn most_informative(&self) -> &AttemptError {
        match self {
            AttemptError::BothFailed { with_tls, plain } => match with_tls.as_ref() {
                AttemptError::Client { error, .. } if error.code().is_some() => with_tls,
                _ => plain,
            },
            only => only,
        }
    }

    /// The server's SQLSTATE.
    pub(super) fn sqlstate(&self) -> Option<&str> {
        match self.most_informative() {
            AttemptError::Client { error, .. } => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether the remaining hosts are not tried. An error that a server sends is final, unless it is
    /// `cannot_connect_now` (manual, *Specifying Multiple Hosts*). A connection that is lost during the
    /// login is final too (`PQconnectPoll` in `fe-connect.c`).
    pub(super) fn is_final(&self) -> bool {
        match self.most_informative() {
            AttemptError::Client { error, .. } => match error.code() {
                Some(code) => *code != SqlState::CANNOT_CONNECT_NOW,
                None => io_error(error)
                    .is_none_or(|error| rustls_error(error).is_some() || is_lost_connection(error)),
            },
            AttemptError::NoTls | AttemptError::Local(_) | AttemptError::BothFailed { .. } => true,
            AttemptError::Resolve(_) | AttemptError::Timeout | AttemptError::WrongTarget(_) => {
                false
            }
        }
    }

    /// Whether the server refused the login (class 28, *Invalid Authorization Specification*).
    pub(super) fn is_refused_login(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("28"))
    }

    /// Whether the same attempt without TLS could have another outcome.
    pub(super) fn may_be_due_to_tls(&self) -> bool {
        match self {
            AttemptError::Client { tls: true, .. } => {
                self.is_refused_login() || self.kind() == ErrorKind::Tls
            }
            _ => false,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self.most_informative() {
            AttemptError::Resolve(_) => ErrorKind::NoSuchHost,
            AttemptError::Timeout => ErrorKind::Timeout,
            AttemptError::NoTls | AttemptError::BothFailed { .. } => ErrorKind::Tls,
            AttemptError::WrongTarget(_) | AttemptError::Local(_) => ErrorKind::Other,
            AttemptError::Client { error, .. } => client_kind(error),
        }
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptError::Resolve(error) => write!(f, "the host name has no address: {error}"),
            AttemptError::Timeout => f.write_str("no answer within `connect_timeout`"),
            AttemptError::WrongTarget(target) => f.write_str(match target {
                TargetSessionAttrs::ReadWrite => {
                    "the session is read-only (`target_session_attrs`)"
                }
                TargetSessionAttrs::ReadOnly => {
                    "the session is not read-only (`target_session_attrs`)"
                }
                TargetSessionAttrs::Primary => "the server is a standby (`target_session_attrs`)",
                _ => "the server is not a standby (`target_session_attrs`)",
            }),
            AttemptError::NoTls => f.write_str("the server does not speak TLS (`sslmode`)"),
            AttemptError::Local(what) => f.write_str(what),
            AttemptError::Client { error, .. } => f.write_str(&describe(error)),
            AttemptError::BothFailed { with_tls, plain } => {
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
        // The client's only other untyped errors are about authentication: no password, a wrong
        // answer of the server, or a method that the client does not know.
        (None, true) => ErrorKind::Authentication,
        (None, false) => ErrorKind::Other,
    }
}

/// One line about an error of the client crate; the server's own message if it sent one.
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

/// Whether there was a connection and it has ended. The client reports an end in the middle of a
/// message as `Other`; errors of the operating system never have that kind.
fn is_lost_connection(error: &io::Error) -> bool {
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

/// Whether the client crate gives only a text as the reason.
pub(super) fn is_untyped(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some()
        && error.code().is_none()
        && io_error(error).is_none()
        && tls_error(error).is_none()
}
