//! For whoever watches the process: is it alive, and is it of use.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::AppState;
use crate::schema::Schema;

/// `GET /healthz`: alive; says nothing about the database.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether people can sign in, and which of the migrations that we know the database has.
///
/// Without `last_login_at` they can: a migration must not take us out of service.
pub async fn ready(State(state): State<AppState>) -> Response {
    let schema = match state.database.connection().await {
        Ok(db) => Schema::read(&db).await,
        Err(error) => Err(error),
    };
    let (ready, migrations) = match &schema {
        Ok(schema) => (schema.has_users, schema.migrations().map(describe).to_vec()),
        Err(_) => (false, Vec::new()),
    };
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "ready": ready,
        "database": if schema.is_ok() { "reachable" } else { "unreachable" },
        "migrations": migrations,
    });
    (status, Json(body)).into_response()
}

fn describe((migration, applied): (&crate::schema::Migration, bool)) -> Value {
    let (version, name) = migration.file_stem.split_once('_').unwrap_or_default();
    json!({
        "version": version.parse::<i64>().unwrap_or_default(),
        "name": name.replace('_', " "),
        "applied": applied,
    })
}
