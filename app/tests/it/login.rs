//! Every outcome of `POST /login`.

use std::time::Instant;

use app::limiter::{PER_ACCOUNT, PER_ADDRESS, WINDOW};
use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::common::{ADMIN, Fixture, PASSWORD};

/// Everything that a login could change.
const EVERYTHING: &str = "SELECT md5(coalesce(string_agg(users::text, '|' ORDER BY id), ''))
    || (SELECT count(*) FROM sessions) FROM users";

#[tokio::test]
async fn the_right_password_stamps_the_user_and_opens_a_session() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    app.add_user("member@example.com", "member").await;

    let answer = app.browser().login(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.header("location"), "/dashboard");
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("session="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; Max-Age=1209600; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );

    let mut browser = app.browser();
    let answer = browser.login(" member@example.com ", PASSWORD).await;
    assert_eq!(answer.header("location"), "/");
    let home = browser.get("/").await;
    assert_eq!(home.status, StatusCode::OK);
    assert!(home.body.contains("member@example.com"));
    // Whoever is signed in already needs no form.
    assert_eq!(browser.get("/login").await.header("location"), "/");

    let stamped =
        "SELECT count(*) FROM users WHERE last_login_at BETWEEN now() - interval '1 min' AND now()";
    assert_eq!(app.value(stamped).await, "2");
    assert_eq!(app.value("SELECT count(*) FROM sessions").await, "2");
}

#[tokio::test]
async fn a_program_signs_in_with_json() {
    let app = Fixture::new().await;
    let id = app.add_user(ADMIN, "admin").await;
    let answer = app.browser().login_json(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!answer.body.contains("argon2"));
    let body = answer.json();
    assert_eq!(body["user"]["id"], id);
    assert_eq!(body["user"]["is_admin"], true);
    assert!(answer.header("set-cookie").starts_with("session="));

    let answer = app.browser().login_json(ADMIN, "wrong").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.json()["error"]["message"].is_string());
}

#[tokio::test]
async fn a_failed_login_changes_nothing_and_tells_nothing() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let before = app.value(EVERYTHING).await;

    let mut bodies = Vec::new();
    let attempts = [
        (ADMIN, "wrong"),
        (ADMIN, ""),
        (ADMIN, &PASSWORD[1..]),
        ("nobody@example.com", PASSWORD),
        ("", ""),
        ("ADMIN@example.com", PASSWORD),
        ("' OR '1'='1", "' OR '1'='1"),
        ("x'; DROP TABLE users; --", PASSWORD),
        ("admin@example.com\0", PASSWORD),
        ("%", PASSWORD),
    ];
    for (email, password) in attempts {
        let answer = app.browser().login(email, password).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{email:?}");
        assert_eq!(answer.header("set-cookie"), "");
        let json = app.browser().login_json(email, password).await;
        assert_eq!(json.status, StatusCode::UNAUTHORIZED, "{email:?}");
        bodies.push(json.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one answer to all: {bodies:?}");
    assert_eq!(app.value(EVERYTHING).await, before);
}

#[tokio::test]
async fn what_is_no_login_is_refused_with_what_is_expected() {
    let app = Fixture::new().await;
    let mut browser = app.browser();
    let answer = browser.post("/login", "email=a").await;
    assert!(answer.status.is_client_error());
    assert!(answer.body.contains("A login is an"), "{}", answer.body);
    let answer = browser.post("/login", &"a".repeat(20_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);

    let json = |body: &'static str| {
        Request::post("/login")
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    for body in ["", "{", "[]", r#"{"email": 1, "password": 2}"#] {
        let answer = browser.send(json(body)).await;
        assert!(answer.status.is_client_error(), "{body}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    let answer = browser
        .send(Request::post("/login").body(Body::from("secret")).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(!answer.body.contains("secret"));
}

#[tokio::test]
async fn the_form_shows_what_was_typed_as_text() {
    let app = Fixture::new().await;
    let email = r#""><script>alert(1)</script>"#;
    let answer = app.browser().login(email, "wrong").await;
    assert!(!answer.body.contains("<script"));
    assert!(answer.body.contains("&lt;script&gt;"));
    assert!(answer.body.contains("role=\"alert\""));
    // A password is never written back.
    let answer = app.browser().login("a", "a secret thing").await;
    assert!(!answer.body.contains("a secret thing"));
}

#[tokio::test]
async fn an_account_is_closed_after_too_many_wrong_passwords() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    app.add_user("other@example.com", "member").await;
    for _ in 0..PER_ACCOUNT {
        let answer = app.browser().login(ADMIN, "wrong").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    // From anywhere, in any spelling, even with the right password.
    let before = app.value(EVERYTHING).await;
    let mut elsewhere = app.browser();
    elsewhere.address = [198, 51, 100, 7].into();
    let answer = elsewhere.login("Admin@Example.com", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let answer = elsewhere.login(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: i64 = answer.header("retry-after").parse().unwrap();
    assert!((890..=901).contains(&wait), "{wait}");
    assert!(answer.body.contains("Try again in"), "{}", answer.body);
    assert_eq!(app.value(EVERYTHING).await, before);

    // Nobody else is.
    app.signed_in("other@example.com").await;
    // An account that does not exist is closed in the same way.
    for _ in 0..PER_ACCOUNT {
        app.browser().login("nobody@example.com", "wrong").await;
    }
    let answer = app.browser().login("nobody@example.com", "wrong").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);

    app.advance(WINDOW);
    app.signed_in(ADMIN).await;
}

#[tokio::test]
async fn an_address_is_closed_after_too_many_wrong_passwords() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let mut browser = app.browser();
    for n in 0..PER_ADDRESS {
        let attempt = app.state.limiter.attempt(&n.to_string(), browser.address);
        app.state.limiter.failed(&attempt, app.now());
    }
    let answer = browser.login_json(ADMIN, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_ne!(answer.header("retry-after"), "");

    // A header that anybody can send opens nothing, unless it comes from our proxy.
    let request = || {
        let body = format!(r#"{{"email": "{ADMIN}", "password": "{PASSWORD}"}}"#);
        Request::post("/login")
            .header("content-type", "application/json")
            .header("x-forwarded-for", "203.0.113.9, 198.51.100.1")
            .header("x-forwarded-proto", "https")
            .body(Body::from(body))
            .unwrap()
    };
    let answer = browser.send(request()).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);

    let mut state = app.state.clone();
    state.trust_proxy = true;
    let behind_proxy = Fixture::browser_on(&state);
    let answer = behind_proxy.clone().send(request()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.header("set-cookie").ends_with("; Secure"));
    assert_ne!(answer.header("strict-transport-security"), "");
}

#[tokio::test]
async fn another_site_cannot_sign_anybody_in_or_out() {
    let app = Fixture::new().await;
    let mut browser = app.admin().await;
    for (path, header, value) in [
        ("/login", "sec-fetch-site", "cross-site"),
        ("/login", "origin", "https://evil.example"),
        ("/login", "origin", "null"),
        ("/logout", "sec-fetch-site", "same-site"),
    ] {
        let request = Request::post(path)
            .header("host", "app.example")
            .header(header, value)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("email={ADMIN}&password=wrong")))
            .unwrap();
        let answer = browser.send(request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{header}: {value}");
    }
    assert_eq!(browser.get("/dashboard").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_email_takes_as_long_as_a_known_one() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let hash = app::password::hash(b"something else").unwrap();
    app.sql(&format!("UPDATE users SET password_hash = '{hash}'"))
        .await;
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..9 {
        for (kind, email) in [ADMIN.to_owned(), format!("nobody{n}@example.com")]
            .iter()
            .enumerate()
        {
            let started = Instant::now();
            app.browser().login_json(email, PASSWORD).await;
            times[kind].push(started.elapsed());
        }
    }
    for times in &mut times {
        times.sort();
    }
    let (known, unknown) = (times[0][4].as_secs_f64(), times[1][4].as_secs_f64());
    assert!(
        (0.6..1.6).contains(&(known / unknown)),
        "{known} s for a known email, {unknown} s for an unknown one"
    );
}

#[tokio::test]
async fn old_sessions_are_cleared_away_by_the_next_login() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    app.add_user("other@example.com", "member").await;
    app.signed_in(ADMIN).await;
    app.signed_in("other@example.com").await;
    app.advance(app::session::LIFETIME);
    app.signed_in(ADMIN).await;
    let left = "SELECT string_agg(email, ',' ORDER BY email) FROM sessions JOIN users ON users.id = user_id";
    assert_eq!(app.value(left).await, "admin@example.com,other@example.com");
}
