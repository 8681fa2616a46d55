//! Connecting as this tool does: under its own name, with its own settings, until somebody interrupts.
//! libpq's rules are in `pg_connect`.

use std::fmt;

pub(crate) use pg_connect::ErrorKind as ConnectProblem;
pub(crate) use pg_connect::blocking::{Canceller, Connection};
use pg_connect::{ConnInfo, Error, ErrorKind, SessionOptions};

use super::pooler;
use crate::error::{Failure, Kind};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;

/// No connection: the problem, and the failure to show for it.
///
/// Not an error of its own: `?` turns it into its [`Failure`].
#[derive(Debug)]
pub(crate) struct ConnectError {
    pub(crate) problem: ConnectProblem,
    pub(crate) failure: Box<Failure>,
}

impl ConnectError {
    /// A failed connection, with the platform's way to fix it.
    pub(crate) fn explained(&self) -> Failure {
        let failure = (*self.failure).clone();
        match self.problem {
            ConnectProblem::Refused => {
                let failure = match failures::start_hint() {
                    Some(start) => failure.hint(format!("start PostgreSQL: {start}")),
                    None => failure,
                };
                failure.hint(Hint::at_home(
                    "or use a private server for development: unset DATABASE_URL, remove it from `.env`, then",
                    "db-setup",
                ))
            }
            ConnectProblem::NoSuchDatabase => failure
                .hint(Hint::to("create it", "db-setup"))
                .hint("or name another with --database-url"),
            ConnectProblem::NoSuchRole | ConnectProblem::Authentication => failure.hint(Hint::to(
                "check user and password in DATABASE_URL or `~/.pgpass`, then",
                "db-doctor",
            )),
            ConnectProblem::NoSuchHost | ConnectProblem::Timeout => failure.hint(Hint::to(
                "check host and port in DATABASE_URL, then",
                "db-doctor",
            )),
            ConnectProblem::StartingUp => {
                failure.hint(Hint::to("wait a moment, then", "db-doctor"))
            }
            ConnectProblem::TooManyConnections => {
                failure.hint(Hint::to("close some connections, then", "db-doctor"))
            }
            ConnectProblem::Tls => failure.hint(Hint::to(
                "check sslmode and sslrootcert in DATABASE_URL, then",
                "db-doctor",
            )),
            // 08P01 protocol_violation: no server says that to us.
            ConnectProblem::Other if failure.sqlstate.as_deref() == Some("08P01") => failure
                .cause("a proxy is in between that does not pass on what a session starts with")
                .hint(pooler::directly()),
            _ => failure.hint(Hint::run("db-doctor")),
        }
    }
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

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            kind: match error.kind {
                ErrorKind::Invalid => Kind::Usage,
                _ => Kind::Failed,
            },
            message: error.message,
            causes: error.causes,
            hints: error.hints.into_iter().map(Hint::say).collect(),
            sqlstate: error.sqlstate,
            ..Failure::default()
        }
    }
}

/// Connects to the first server that answers and is what the address asks for.
///
/// `options` are more settings for the session, as `-c name=value`, after those of the user.
pub(crate) fn connect(
    info: &ConnInfo,
    application_name: &str,
    options: &str,
) -> Result<Connection, ConnectError> {
    let session = SessionOptions {
        application_name: Some(application_name),
        options,
    };
    pg_connect::blocking::connect(info, &session, &interrupt::requested).map_err(|error| {
        ConnectError {
            problem: error.kind,
            failure: Box::new(error.into()),
        }
    })
}
