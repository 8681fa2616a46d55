//! Before, during and after the migration, and after a rollback.

use axum::http::StatusCode;

use crate::common::{ADMIN, Fixture, Migrated, PASSWORD, migration, server};

const UP: &str = "20251231143000_add_users_last_login_at.up.sql";
const DOWN: &str = "20251231143000_add_users_last_login_at.down.sql";
const STAMPED: &str = "SELECT last_login_at IS NOT NULL FROM users";

#[tokio::test]
async fn a_login_succeeds_without_the_column_and_is_stamped_as_soon_as_it_is_there() {
    let app = Fixture::migrated(Migrated::Baseline).await;
    app.add_user(ADMIN, "admin").await;
    // Back and forth: what is remembered of the last state must never matter.
    for _ in 0..5 {
        for _ in 0..3 {
            app.signed_in(ADMIN).await;
        }
        app.sql(&migration(UP)).await;
        // The very first one.
        app.signed_in(ADMIN).await;
        assert_eq!(app.value(STAMPED).await, "true");
        app.sql("UPDATE users SET last_login_at = NULL").await;
        app.signed_in(ADMIN).await;
        assert_eq!(app.value(STAMPED).await, "true");
        app.sql(&migration(DOWN)).await;
    }
    app.signed_in(ADMIN).await;
}

#[tokio::test]
async fn what_is_missing_is_found_out_by_one_error() {
    let app = Fixture::migrated(Migrated::Baseline).await;
    app.add_user(ADMIN, "admin").await;
    for _ in 0..5 {
        app.signed_in(ADMIN).await;
    }
    // The server's own log has one line for all of them.
    let log = std::fs::read_to_string(server().cluster().log()).unwrap();
    let ours = format!("{} ERROR:", app.database);
    let errors: Vec<&str> = log.lines().filter(|line| line.starts_with(&ours)).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("last_login_at"));
}

#[tokio::test]
async fn sessions_outlive_migrations_on_the_same_connections() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    for _ in 0..3 {
        assert_eq!(admin.get("/dashboard").await.status, StatusCode::OK);
        app.sql(&migration(DOWN)).await;
        let answer = admin.get("/dashboard").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(admin.get("/login").await.header("location"), "/dashboard");
        app.sql(&migration(UP)).await;
        app.sql(&migration(
            "20251231143100_index_users_last_login_at.up.sql",
        ))
        .await;
        // What is prepared on each connection is outdated now: other columns, another type of result.
        for change in [
            "ADD COLUMN something int",
            "DROP COLUMN something",
            "ALTER display_name TYPE varchar(200)",
            "ALTER display_name TYPE text",
        ] {
            app.sql(&format!("ALTER TABLE users {change}")).await;
            for _ in 0..9 {
                assert_eq!(admin.get("/dashboard").await.status, StatusCode::OK);
                app.signed_in(ADMIN).await;
            }
        }
    }
    assert_eq!(admin.get("/dashboard").await.status, StatusCode::OK);
    assert_eq!(
        app.browser().login_json(ADMIN, PASSWORD).await.status,
        StatusCode::OK
    );
}
