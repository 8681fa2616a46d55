//! The web application's routes.

use axum::Router;
use axum::routing::get;

/// Every route.
pub fn router() -> Router {
    Router::new().route("/healthz", get(healthz))
}

/// Alive; says nothing about the database.
async fn healthz() -> &'static str {
    "ok\n"
}
