//! One module a page. Which address leads to which is in [`crate::app`].

pub mod assets;
pub mod dashboard;
pub mod health;
pub mod home;
pub mod login;

use axum::http::StatusCode;

use crate::error::Error;

/// Everything else.
pub async fn not_found() -> Error {
    Error::NotFound
}

/// A page that is there, asked for in a way that it does not answer to.
pub async fn method_not_allowed() -> Error {
    Error::Invalid(
        StatusCode::METHOD_NOT_ALLOWED,
        "This address does not answer to this method.".to_owned(),
    )
}
