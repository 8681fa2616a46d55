//! The one error type of this crate.

use std::fmt;

/// The result of whatever can fail here.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// What is wrong, for a caller that can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A connection string, a service file or a variable makes no sense, or asks for what this
    /// crate does not have. Nothing was connected to.
    Invalid,
    /// Nothing listens there: the port is closed, or the socket does not exist.
    Refused,
    /// The host name has no address.
    NoSuchHost,
    /// There was no answer within `connect_timeout`.
    Timeout,
    /// The password, the certificate or `pg_hba.conf` does not let this user in.
    Authentication,
    /// SQLSTATE 3D000.
    NoSuchDatabase,
    /// SQLSTATE 28000, raised where the server looks the role up.
    NoSuchRole,
    /// SQLSTATE 53300.
    TooManyConnections,
    /// Starting up, shutting down or recovering (SQLSTATE 57P03): it may work in a moment.
    StartingUp,
    /// No TLS where it is asked for, a certificate that is not trusted, or a file of ours that
    /// cannot be used.
    Tls,
    /// Anything else.
    Other,
}

/// Why there is no [`ConnInfo`](crate::ConnInfo), or no connection. No part of it holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// What was attempted or is wrong: a lowercase phrase, with objects in backticks.
    pub message: String,
    /// Why; with several hosts one for each attempt.
    pub causes: Vec<String>,
    /// What a person can do about it.
    pub hints: Vec<String>,
    /// The five characters of the server's error code, if a server has answered.
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

    /// The same under another message, which says where; its own becomes the first cause.
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
