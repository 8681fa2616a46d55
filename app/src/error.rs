//! What can go wrong with a request, and how a browser and a program are told.
//!
//! - [`Error`] is what handlers return, and everything below them that a request can fail by.
//! - `anyhow::Error` is for what is nobody's fault who asks: it ends in [`Error::Internal`], is
//!   logged, and shows nothing of itself.
//! - [`Problem`] is what the outside sees. It travels from the handler to
//!   [`crate::middleware::present`], which alone knows whether to write HTML or JSON.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool::managed::{PoolError, TimeoutType};
use jiff::SignedDuration;
use tokio_postgres::error::SqlState;

use crate::schema::{self, Migration};

/// Why a request was not done.
#[derive(Debug)]
pub enum Error {
    /// There is nothing here.
    NotFound,
    /// The request is not understood; what was expected.
    Invalid(StatusCode, String),
    /// Another site sent it.
    CrossSite,
    /// It needs a session. Browsers are led to the login page.
    SignInFirst,
    /// It needs an administrator's session.
    AdminsOnly,
    /// The password is wrong, or there is no such account: nobody is told which.
    WrongCredentials,
    /// Too many wrong passwords; for how long.
    TooManyAttempts(SignedDuration),
    /// There is more to do than can be done in time; what of.
    Busy(&'static str),
    /// The database cannot be reached.
    NoDatabase,
    /// The schema is older than this request needs.
    Waiting(&'static Migration),
    /// Nobody's fault who asked.
    Internal(anyhow::Error),
}

/// What the outside is told, and what to do about it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// A few words.
    pub title: &'static str,
    /// A sentence or two.
    pub detail: String,
    /// A command for whoever runs the application.
    pub command: Option<&'static str>,
    /// Where a browser is led instead of reading this.
    pub instead: Option<&'static str>,
    /// Whether the same request may succeed later.
    pub may_pass: bool,
}

impl Error {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::Invalid(status, _) => *status,
            Error::CrossSite | Error::AdminsOnly => StatusCode::FORBIDDEN,
            Error::SignInFirst | Error::WrongCredentials => StatusCode::UNAUTHORIZED,
            Error::TooManyAttempts(_) => StatusCode::TOO_MANY_REQUESTS,
            Error::Busy(_) | Error::NoDatabase | Error::Waiting(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// After how long it is worth another try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::TooManyAttempts(wait) => Some(Duration::from_secs(
                u64::try_from(wait.as_secs()).unwrap_or(0) + 1,
            )),
            Error::Busy(_) => Some(Duration::from_secs(1)),
            Error::NoDatabase => Some(Duration::from_secs(5)),
            Error::Waiting(_) => Some(Duration::from_secs(30)),
            _ => None,
        }
    }

    /// What the outside is told.
    pub fn problem(&self) -> Problem {
        let problem = |title, detail: &str| Problem {
            title,
            detail: detail.to_owned(),
            command: None,
            instead: None,
            may_pass: self.retry_after().is_some(),
        };
        match self {
            Error::NotFound => problem("Not found", "There is nothing at this address."),
            Error::Invalid(_, expected) => problem("Not understood", expected),
            Error::CrossSite => problem(
                "Not from here",
                "Another site sent this request. Open the page itself and try again.",
            ),
            Error::SignInFirst => Problem {
                instead: Some("/login"),
                ..problem("Sign in first", "This is for people who have signed in.")
            },
            Error::AdminsOnly => {
                problem("For administrators", "Your account may not see this page.")
            }
            Error::WrongCredentials => problem(
                "Not signed in",
                "This email and this password do not go together.",
            ),
            Error::TooManyAttempts(wait) => problem(
                "Too many attempts",
                &format!(
                    "There were too many wrong passwords. Try again in {}.",
                    minutes(*wait)
                ),
            ),
            Error::Busy(what) => problem("Busy", &format!("Just now {what}. Try again.")),
            Error::NoDatabase => Problem {
                command: Some("cargo xtask db-doctor"),
                ..problem(
                    "No database",
                    "The database cannot be reached. Try again in a moment.",
                )
            },
            Error::Waiting(migration) => Problem {
                command: Some("cargo xtask db-migrate"),
                ..problem(
                    "Waiting for a migration",
                    &format!(
                        "This needs the migration {}, which the database does not have yet.",
                        migration.file_stem
                    ),
                )
            },
            Error::Internal(_) => problem(
                "Something went wrong",
                "It is not your fault, and it was logged. Try again.",
            ),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Error::Internal(error) = &self {
            tracing::error!("{error:#}");
        }
        let mut response = self.status().into_response();
        if let Some(wait) = self.retry_after() {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response.extensions_mut().insert(self.problem());
        response
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Error {
        Error::Internal(error)
    }
}

/// By SQLSTATE only: a server speaks its user's language.
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        let Some(code) = error.code() else {
            tracing::warn!("no answer from the database: {}", causes(&error));
            return Error::NoDatabase;
        };
        match *code {
            SqlState::UNDEFINED_TABLE => Error::Waiting(&schema::CREATE_USERS),
            SqlState::UNDEFINED_COLUMN => Error::Waiting(&schema::ADD_LAST_LOGIN_AT),
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
                Error::Busy("the database takes too long")
            }
            // Operator intervention (a restart), insufficient resources (too many connections), and
            // who may connect to what.
            _ if ["57P", "53", "28", "3D"]
                .iter()
                .any(|class| code.code().starts_with(class)) =>
            {
                tracing::warn!("the database refuses: {}", causes(&error));
                Error::NoDatabase
            }
            _ => Error::Internal(error.into()),
        }
    }
}

impl From<pg_connect::Error> for Error {
    fn from(error: pg_connect::Error) -> Error {
        tracing::warn!("{error}");
        Error::NoDatabase
    }
}

impl From<PoolError<Error>> for Error {
    fn from(error: PoolError<Error>) -> Error {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => {
                Error::Busy("all connections to the database are in use")
            }
            PoolError::Backend(error) => error,
            PoolError::Timeout(_)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_) => {
                tracing::warn!("no connection to the database in time");
                Error::NoDatabase
            }
        }
    }
}

/// An error with all that led to it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += ": ";
        text += &cause.to_string();
        next = cause.source();
    }
    text
}

fn minutes(wait: SignedDuration) -> String {
    match wait.as_secs() / 60 + 1 {
        1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}
