//! `/healthz`, `/readyz`, and what happens when the database is slow or away.

use std::time::{Duration, Instant};

use app::AppState;
use app::clock::Clock;
use app::session::Key;
use axum::http::StatusCode;

use crate::common::{ADMIN, Fixture, Migrated, PASSWORD, migrations, pool};

#[tokio::test]
async fn readiness_names_the_migrations() {
    let table = [
        (
            Migrated::Nothing,
            StatusCode::SERVICE_UNAVAILABLE,
            [false, false, false],
        ),
        (Migrated::Baseline, StatusCode::OK, [true, false, false]),
        (Migrated::Column, StatusCode::OK, [true, true, false]),
        (Migrated::All, StatusCode::OK, [true, true, true]),
    ];
    for (migrated, status, applied) in table {
        let app = Fixture::migrated(migrated).await;
        let answer = app.browser().get("/readyz").await;
        assert_eq!(answer.status, status, "{migrated:?}");
        let body = answer.json();
        for (at, expected) in applied.into_iter().enumerate() {
            assert_eq!(body["migrations"][at]["applied"], expected, "{migrated:?}");
        }
        assert_eq!(body["migrations"][1]["version"], 20251231143000_i64);
        assert_eq!(body["migrations"][1]["name"], "add users last login at");
        assert_eq!(app.browser().get("/healthz").await.body, "ok\n");
    }
}

#[test]
fn the_migrations_that_are_named_are_there() {
    use app::schema::{ADD_LAST_LOGIN_AT, CREATE_USERS, INDEX_LAST_LOGIN_AT};
    for migration in [CREATE_USERS, ADD_LAST_LOGIN_AT, INDEX_LAST_LOGIN_AT] {
        let file = migrations().join(format!("{}.up.sql", migration.file_stem));
        assert!(file.exists(), "{}", file.display());
    }
}

#[tokio::test]
async fn before_the_first_migration_everything_says_what_to_run() {
    let app = Fixture::migrated(Migrated::Nothing).await;
    for answer in [
        app.browser().login(ADMIN, PASSWORD).await,
        app.browser().login_json(ADMIN, PASSWORD).await,
    ] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body.contains("20251201000000_create_users"));
        assert!(answer.body.contains("cargo xtask db-migrate"));
    }
}

#[tokio::test]
async fn without_a_database_it_lives_and_is_not_ready() {
    // Nothing listens at port 1.
    let database = pool("postgresql://a:secret@127.0.0.1:1/b", 2);
    let state = AppState::new(database, Key::generate().unwrap(), Clock::system()).unwrap();
    let mut browser = Fixture::browser_on(&state);
    assert_eq!(browser.get("/healthz").await.status, StatusCode::OK);
    let answer = browser.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["database"], "unreachable");
    let answer = browser.login(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(answer.header("retry-after"), "");
    assert!(!answer.body.contains("secret"));
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name = 'app'",
        app.database
    );
    assert_ne!(app.value(&terminate).await, "0");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(admin.get("/dashboard").await.status, StatusCode::OK);
}

#[tokio::test]
async fn when_all_connections_are_in_use_it_says_so_and_recovers() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let database = pool(&app.url(), 2);
    let mut state = app.state.clone();
    state.database = database.clone();
    let held = [
        database.connection().await.unwrap(),
        database.connection().await.unwrap(),
    ];

    let mut browser = Fixture::browser_on(&state);
    let started = Instant::now();
    let answer = browser.login_json(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(held);
    assert_eq!(
        browser.login_json(ADMIN, PASSWORD).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_dashboard_needs_no_more_connections_than_there_are() {
    let app = Fixture::new().await;
    let admin = app.admin().await;
    let mut state = app.state.clone();
    state.database = pool(&app.url(), 1);
    let mut browser = Fixture::browser_on(&state);
    browser.cookie = admin.cookie.clone();
    let answers = (0..8).map(|_| {
        let mut browser = browser.clone();
        tokio::spawn(async move { browser.get("/dashboard").await.status })
    });
    for answer in answers.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_locked_table_ends_a_request_and_no_more() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    app.sql("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        .await;
    let answer = app.browser().login_json(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    app.sql("ROLLBACK").await;
    assert_eq!(
        app.browser().login_json(ADMIN, PASSWORD).await.status,
        StatusCode::OK
    );
}
