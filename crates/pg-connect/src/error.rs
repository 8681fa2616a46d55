//! The error type of this crate.

use std::fmt;

/// The result of a function of this crate.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// The kind of an error, for programs.
///
/// The kind comes from the server's SQLSTATE (manual, *PostgreSQL Error Codes*), the operating system's
/// error or rustls' error, never from the text of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A connection string, service file or environment variable is invalid, or uses a keyword that is
    /// not supported. No connection was attempted.
    Invalid,
    /// No server listens there: the port is closed, or the socket does not exist.
    Refused,
    /// The host name has no address.
    NoSuchHost,
    /// The connection was not established within `connect_timeout`.
    Timeout,
    /// The login was refused, because of the password, the client certificate or `pg_hba.conf` (SQLSTATE
    /// class 28).
    Authentication,
    /// The database does not exist (SQLSTATE 3D000).
    NoSuchDatabase,
    /// The role does not exist (SQLSTATE 28000, from the server's `InitializeSessionUserId`).
    NoSuchRole,
    /// The server has no connection left (SQLSTATE 53300).
    TooManyConnections,
    /// The server is starting up, shutting down or in recovery (SQLSTATE 57P03). Try again later.
    StartingUp,
    /// TLS is required and the server does not support it, the server's certificate is not trusted, or a
    /// local certificate or key file cannot be used.
    Tls,
    /// Anything else.
    Other,
}

/// An error of this crate. No part of it contains a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// What failed or is wrong: a lowercase phrase, with names in backticks.
    pub message: String,
    /// Why it failed; with several hosts, one cause for each attempt.
    pub causes: Vec<String>,
    /// What the user can do about it.
    pub hints: Vec<String>,
    /// The SQLSTATE, if the error came from a server.
    pub sqlstate: Option<String>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            sqlstate: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Error {
        self.causes.push(cause.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// The same error with the place as its message; its own message becomes the first cause.
    pub(crate) fn within(mut self, place: impl Into<String>) -> Error {
        let message = std::mem::replace(&mut self.message, place.into());
        self.causes.insert(0, message);
        self
    }
}

/// The message and its causes in one line, without the hints.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.causes.is_empty() {
            write!(f, ": {}", self.causes.join("; "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
