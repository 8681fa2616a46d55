//! Every query of the dashboard uses an index. The server says so itself: `auto_explain` writes the
//! plan of each statement that the application really sends into its log.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use crate::common::{ADMIN, Fixture, server};

/// Enough rows that a scan of the table is never the cheapest; the full million with
/// `DASHBOARD_ROWS=1000000`.
const ROWS: i64 = 120_000;

#[tokio::test]
async fn every_query_of_the_dashboard_uses_an_index() {
    let app = Fixture::new().await;
    let rows: i64 =
        crate::common::environment("DASHBOARD_ROWS").map_or(ROWS, |rows| rows.parse().unwrap());
    // One of five has signed in within 30 days.
    app.sql(&format!(
        "INSERT INTO users (email, password_hash, display_name, last_login_at)
         SELECT 'user' || n || '@example.com', repeat('x', 97), 'User ' || n,
                CASE WHEN n % 5 = 0 THEN now() - interval '30 days' * (n::float8 / {rows}) END
         FROM generate_series(1, {rows}) AS n"
    ))
    .await;
    app.client
        .batch_execute("VACUUM ANALYZE users")
        .await
        .unwrap();
    let mut admin = app.admin().await;
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
    ] {
        app.sql(&format!("ALTER DATABASE {} SET {setting}", app.database))
            .await;
    }
    // The pool's connections were made before that.
    app.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name = 'app'",
        app.database
    ))
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;

    let deep = admin.get("/api/active-users?limit=1000").await.json();
    let deep = deep["next"].as_str().unwrap().to_owned();
    for query in [
        String::new(),
        format!("?after={deep}"),
        "?email=user".to_owned(),
        "?email=user1".to_owned(),
        format!("?email=user1&after={deep}"),
        "?email=user119995".to_owned(),
        "?email=nobody".to_owned(),
    ] {
        let answer = admin.get(&format!("/dashboard{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
    }

    let log = std::fs::read_to_string(server().cluster().log()).unwrap();
    let plans = plans(&log, &app.database);
    let about = |text: &str| plans.keys().filter(|query| query.contains(text)).count();
    assert_eq!(about("WITH ORDINALITY"), 1, "{plans:#?}");
    assert_eq!(about("LIMIT $1"), 4, "{plans:#?}");
    assert_eq!(about("FROM sessions JOIN users"), 1, "{plans:#?}");
    for (query, plan) in &plans {
        // `sessions` has a handful of rows here, and the catalog is not ours.
        assert!(!plan.contains("Seq Scan on users"), "{query}\n{plan}");
        assert!(
            !query.contains("last_login_at")
                || plan.contains("idx_users_last_login_at")
                || plan.contains("users_email_key")
                || query.contains("pg_attribute"),
            "{query}\n{plan}"
        );
        // From the cursor on, not from the top.
        if query.contains("last_login_at <= $2") {
            assert!(plan.contains("Index Cond: "), "{query}\n{plan}");
        }
    }
    assert_eq!(
        app.value(&format!(
            "SELECT count(*) FROM users WHERE email = '{ADMIN}'"
        ))
        .await,
        "1"
    );
}

/// All plans of each statement that was run in a database.
fn plans(log: &str, database: &str) -> BTreeMap<String, String> {
    let mut plans: BTreeMap<String, String> = BTreeMap::new();
    let mut entry = String::new();
    let mut entries = Vec::new();
    for line in log.lines().chain(["end "]) {
        // What follows the first line of an entry is indented.
        if !line.starts_with('\t') && !entry.is_empty() {
            entries.push(std::mem::take(&mut entry));
        }
        entry += line;
        entry.push('\n');
    }
    for entry in entries {
        let Some((head, rest)) = entry.split_once("Query Text: ") else {
            continue;
        };
        if !head.starts_with(&format!("{database} ")) {
            continue;
        }
        // The plan begins with the line that has a cost.
        let at = rest
            .find("(cost=")
            .and_then(|cost| rest[..cost].rfind('\n'));
        let (query, plan) = rest.split_at(at.unwrap_or(rest.len()));
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        *plans.entry(query).or_default() += plan;
    }
    plans
}
