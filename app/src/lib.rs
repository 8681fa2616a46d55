//! The web application. Its login stamps `users.last_login_at`, its dashboard reads it, and neither
//! notices the migration that brings the column, or the rollback that takes it away.
//!
//! The path of a login: [`routes::login::submit`] reads it from top to bottom; [`users::SignIns`] is
//! where the stamp is set. The path of the dashboard: [`routes::dashboard::show`], whose queries are
//! in [`activity`].
//!
//! What is absent on purpose: anything that changes the schema (that is `cargo xtask db-migrate`), and
//! scripts in the browser.

pub mod activity;
pub mod clock;
pub mod config;
pub mod database;
pub mod error;
pub mod html;
pub mod limiter;
pub mod middleware;
pub mod password;
pub mod routes;
pub mod schema;
pub mod server;
pub mod session;
pub mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use clock::Clock;
use database::Database;
use limiter::Limiter;
use password::Passwords;
use session::Key;
use users::SignIns;

/// The largest request body: an email and a password.
const BODY_LIMIT: usize = 16 * 1024;

/// What all requests share.
#[derive(Clone)]
pub struct AppState {
    /// Connections.
    pub database: Database,
    /// The bound on password hashing.
    pub passwords: Passwords,
    /// Who failed to sign in of late.
    pub limiter: Arc<Limiter>,
    /// What the last login learned about the schema.
    pub sign_ins: Arc<SignIns>,
    /// What cookies are signed with.
    pub session_key: Key,
    /// What time it is.
    pub clock: Clock,
    /// Whether the headers of a proxy are believed.
    pub trust_proxy: bool,
}

impl AppState {
    /// A state in which nobody has failed yet.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(database: Database, session_key: Key, clock: Clock) -> anyhow::Result<AppState> {
        Ok(AppState {
            database,
            passwords: Passwords::new()?,
            limiter: Arc::default(),
            sign_ins: Arc::default(),
            session_key,
            clock,
            trust_proxy: false,
        })
    }
}

/// Every route, and what happens to every request on its way to one.
pub fn app(state: AppState) -> Router {
    use routes::{assets, dashboard, health, home, login};
    Router::new()
        .route("/", get(home::show))
        .route("/login", get(login::form).post(login::submit))
        .route("/logout", post(login::logout))
        .route("/dashboard", get(dashboard::show))
        .route("/api/active-users", get(dashboard::json))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/style.css", get(assets::style))
        .route("/favicon.svg", get(assets::icon))
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        // From the inside out: what is last here sees a request first.
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn(middleware::refuse_cross_site))
        .layer(from_fn(middleware::limit_time))
        .layer(from_fn(middleware::present))
        .layer(from_fn_with_state(state.clone(), middleware::secure))
        .layer(from_fn(middleware::log))
        .with_state(state)
}
