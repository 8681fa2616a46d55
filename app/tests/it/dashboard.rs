//! The dashboard: who may see it, whether its figures are right, paging, search.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::common::{ADMIN, Fixture, Migrated, encode};

/// `count` members, each with a login so many minutes before the application's time.
async fn add_logins(app: &Fixture, count: i64, minutes: &str) {
    let now = app.now();
    app.sql(&format!(
        "INSERT INTO users (email, password_hash, display_name, last_login_at)
         SELECT 'user' || n || '@example.com', 'x', 'User ' || n,
                '{now}'::timestamptz - interval '1 minute' * ({minutes})
         FROM generate_series(1, {count}) AS n"
    ))
    .await;
}

#[tokio::test]
async fn only_administrators_see_it() {
    let app = Fixture::new().await;
    let answer = app.browser().get("/dashboard").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.header("location"), "/login");
    let answer = app.browser().get("/api/active-users").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);

    app.add_user("member@example.com", "member").await;
    let mut member = app.signed_in("member@example.com").await;
    let answer = member.get("/dashboard").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("For administrators"));
    let answer = member.get("/api/active-users").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.json()["error"]["message"].is_string());
}

#[tokio::test]
async fn one_sees_oneself_at_the_top() {
    let app = Fixture::new().await;
    add_logins(&app, 100, "n").await;
    let mut admin = app.admin().await;
    let answer = admin.get("/dashboard").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(
        answer
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
    assert_ne!(answer.header("x-request-id"), "");
    let (_, rows) = answer.body.split_once("<table class=\"logins\">").unwrap();
    let at = |text: &str| rows.find(text).unwrap();
    assert!(at(ADMIN) < at("user1@example.com"));
    assert!(at("user1@example.com") < at("user2@example.com"));
    assert!(rows.contains("just now") && rows.contains("20 minutes ago"));
    // Without scripts, and without styles that the policy would drop.
    assert!(!answer.body.contains("<script") && !answer.body.contains("style=\""));
}

#[tokio::test]
async fn its_figures_are_right_to_the_edge() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    app.set_now("2026-03-01T12:00:00Z");
    let logins = [
        ("2026-03-01T12:00:00Z", 1),
        // A clock ahead of ours.
        ("2026-03-01T12:00:01Z", 1),
        ("2026-03-01T00:00:00Z", 1),
        ("2026-02-28T23:59:59.999999Z", 1),
        ("2026-02-28T12:00:00Z", 1),
        ("2026-02-28T11:59:59.999999Z", 7),
        ("2026-02-22T12:00:00Z", 7),
        ("2026-02-22T11:59:59.999999Z", 30),
        ("2026-01-31T00:00:00Z", 30),
        ("2026-01-30T23:59:59Z", 30),
        ("2026-01-30T12:00:00Z", 30),
        ("2026-01-30T11:59:59.999999Z", i64::MAX),
    ];
    app.sql("UPDATE users SET last_login_at = NULL").await;
    for (at, _) in logins {
        app.sql(&format!(
            "INSERT INTO users (email, password_hash, display_name, last_login_at)
             VALUES ('{at}', 'x', 'x', '{at}')"
        ))
        .await;
    }
    let body = admin.get("/api/active-users").await.json();
    let within = |days| logins.iter().filter(|login| login.1 <= days).count();
    assert_eq!(body["users"], 13);
    assert_eq!(body["days"], 30);
    assert_eq!(body["active_users"], within(30));
    assert_eq!(
        body["active"],
        json!([
            {"days": 1, "users": within(1)},
            {"days": 7, "users": within(7)},
            {"days": 30, "users": within(30)},
        ])
    );
    let days = body["last_logins_per_day"].as_array().unwrap();
    assert_eq!(days.len(), 30);
    let day = |day: &str| {
        let found = days.iter().find(|entry| entry["day"] == day);
        found.map(|entry| entry["users"].as_i64().unwrap())
    };
    assert_eq!(day("2026-03-01"), Some(3));
    assert_eq!(day("2026-02-28"), Some(3));
    assert_eq!(day("2026-02-22"), Some(2));
    assert_eq!(day("2026-02-10"), Some(0));
    assert_eq!(day("2026-01-31"), Some(1));
    assert_eq!(day("2026-01-30"), None);
    assert_eq!(body["recent_logins"].as_array().unwrap().len(), 12);
    assert_eq!(body["next"], Value::Null);

    // Counted in another way, the figures are the same.
    app.sql("DROP INDEX idx_users_last_login_at").await;
    let without_index = admin.get("/api/active-users").await.json();
    assert_eq!(without_index, body);

    let body = admin.get("/api/active-users?days=2&limit=1").await.json();
    assert_eq!(body["active_users"], 6);
    assert_eq!(body["last_logins_per_day"].as_array().unwrap().len(), 2);
    assert_eq!(body["recent_logins"][0]["email"], "2026-03-01T12:00:01Z");
    assert_ne!(body["next"], Value::Null);

    let page = admin.get("/dashboard").await.body;
    assert!(page.contains("Active in 24 hours") && page.contains("84.6 %"));
    assert!(page.contains("<title>1 Mar: 3</title>"));
    assert!(page.contains("<th scope=\"row\">2026-02-28</th>"));
}

#[tokio::test]
async fn an_empty_database_has_an_empty_dashboard() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    app.sql("UPDATE users SET last_login_at = NULL").await;
    let answer = admin.get("/dashboard").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.contains("Nobody has signed in"));
    assert!(!answer.body.contains("NaN"));
}

#[tokio::test]
async fn paging_skips_and_repeats_nobody_while_people_sign_in() {
    let app = Fixture::new().await;
    // Many at the same instant, so that the id decides.
    add_logins(&app, 500, "10 + n / 60").await;
    let mut admin = app.admin().await;
    let order = "SELECT string_agg(email, ',' ORDER BY last_login_at DESC NULLS LAST, id)
                 FROM users WHERE last_login_at IS NOT NULL";
    let expected = app.value(order).await;
    let expected: Vec<&str> = expected.split(',').collect();

    let mut seen: Vec<String> = Vec::new();
    let mut moved = BTreeSet::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/active-users?limit=17&after={after}");
        let body = admin.get(&path).await.json();
        for login in body["recent_logins"].as_array().unwrap() {
            seen.push(login["email"].as_str().unwrap().to_owned());
        }
        let Some(next) = body["next"].as_str() else {
            break;
        };
        after = next.to_owned();
        // Two sign in: one who was seen already, one who was not yet.
        for email in [
            seen[seen.len() / 2].clone(),
            expected[expected.len() - 1 - moved.len()].to_owned(),
        ] {
            app.sql(&format!(
                "UPDATE users SET last_login_at = now() WHERE email = '{email}'"
            ))
            .await;
            moved.insert(email);
        }
    }
    let unmoved = |emails: &[&str]| -> Vec<String> {
        let kept = emails.iter().filter(|email| !moved.contains(**email));
        kept.map(|email| (*email).to_owned()).collect()
    };
    let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
    assert_eq!(unmoved(&seen), unmoved(&expected));
    assert_eq!(seen.len(), seen.iter().collect::<BTreeSet<_>>().len());
}

#[tokio::test]
async fn pages_link_to_each_other() {
    let app = Fixture::new().await;
    add_logins(&app, 60, "n").await;
    let mut admin = app.admin().await;
    let mut path = "/dashboard".to_owned();
    let mut emails = BTreeSet::new();
    for page in 1..=3 {
        let body = admin.get(&path).await.body;
        let rows = body.matches("class=\"email\"").count();
        assert_eq!(rows, [25, 25, 11][page - 1]);
        let (_, table) = body.split_once("class=\"logins\"").unwrap();
        emails.extend(
            table
                .split("class=\"email\">")
                .skip(1)
                .map(|rest| rest.split_once('<').unwrap().0.to_owned()),
        );
        assert_eq!(body.contains("← Newest"), page > 1);
        match body.split_once("rel=\"next\" href=\"") {
            Some((_, rest)) => path = rest.split_once('"').unwrap().0.replace("&amp;", "&"),
            None => assert_eq!(page, 3),
        }
    }
    assert_eq!(emails.len(), 61);
}

#[tokio::test]
async fn a_search_finds_a_prefix_and_nothing_else() {
    let app = Fixture::new().await;
    let emails = [
        "ann@example.com",
        "anna@example.com",
        "Ann@example.com",
        "bann@example.com",
        "a_n@example.com",
        "a%n@example.com",
        "a\\n@example.com",
        "änn@example.com",
        "x'; DROP TABLE users; --@example.com",
        "<script>alert(1)</script>@example.com",
        "a&b=c@example.com",
    ];
    // In any collation: in this one, ignoring case and punctuation comes first.
    for collation in ["C", "und-x-icu"] {
        app.sql(&format!(
            "TRUNCATE users CASCADE; ALTER TABLE users ALTER email TYPE text COLLATE \"{collation}\""
        ))
        .await;
        for email in emails {
            app.add_user(email, "member").await;
        }
        app.sql("UPDATE users SET last_login_at = now() - interval '1 min'")
            .await;
        let mut admin = app.admin().await;
        let prefixes = [
            "ann",
            "an",
            "a",
            "a_",
            "a%",
            "a\\",
            "%",
            "_",
            "ä",
            "x'; DROP",
            "<script>",
            "a&b=",
            "zz",
            "anna@example.com",
            "A",
        ];
        for prefix in prefixes {
            let path = format!("/api/active-users?email={}", encode(prefix));
            let body = admin.get(&path).await.json();
            let found: BTreeSet<&str> = body["recent_logins"]
                .as_array()
                .unwrap()
                .iter()
                .map(|login| login["email"].as_str().unwrap())
                .collect();
            let expected: BTreeSet<&str> = emails
                .into_iter()
                .chain([ADMIN])
                .filter(|email| email.starts_with(prefix))
                .collect();
            assert_eq!(found, expected, "{prefix} in {collation}");

            let page = admin
                .get(&format!("/dashboard?email={}", encode(prefix)))
                .await;
            assert_eq!(page.status, StatusCode::OK);
            assert!(!page.body.contains("<script"), "{prefix}");
        }
    }
    assert_eq!(app.value("SELECT count(*) FROM users").await, "12");
}

#[tokio::test]
async fn a_search_is_kept_from_page_to_page() {
    let app = Fixture::new().await;
    add_logins(&app, 60, "n").await;
    let mut admin = app.admin().await;
    // user1, user10 … user19: 11; all but the first page of user: 60.
    let page = admin.get("/dashboard?email=user1").await.body;
    assert_eq!(page.matches("class=\"email\"").count(), 11);
    assert!(page.contains("value=\"user1\""));
    assert!(page.contains("Show everybody"));
    let page = admin.get("/dashboard?email=user").await.body;
    assert!(page.contains("href=\"/dashboard?email=user&amp;after="));
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_refused() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    for query in [
        "days=0",
        "days=367",
        "days=x",
        "days=1&days=2",
        "limit=0",
        "limit=1001",
        "after=x",
        "after=1-x",
        "email=%00",
        "unknown=1",
    ] {
        let answer = admin.get(&format!("/api/active-users?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    assert_eq!(
        admin.get("/dashboard?email=&after=").await.status,
        StatusCode::OK
    );
    let answer = admin.get("/nowhere").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.body.contains("nothing at this address"));
}

#[tokio::test]
async fn without_the_column_it_says_what_it_waits_for() {
    let app = Fixture::migrated(Migrated::Baseline).await;
    let mut admin = app.admin().await;
    let answer = admin.get("/dashboard").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "30");
    assert!(
        answer
            .body
            .contains("20251231143000_add_users_last_login_at")
    );
    assert!(answer.body.contains("cargo xtask db-migrate"));
    let answer = admin.get("/api/active-users").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"]["hint"], "cargo xtask db-migrate");
}

#[tokio::test]
async fn without_the_index_it_works_and_says_so() {
    let app = Fixture::migrated(Migrated::Column).await;
    add_logins(&app, 100, "n").await;
    let mut admin = app.admin().await;
    let answer = admin.get("/dashboard").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer
            .body
            .contains("20251231143100_index_users_last_login_at")
    );
    assert!(answer.body.contains("user1@example.com"));
}
