//! Cookies: forged, expired, copied, of somebody who was demoted or deleted.

use app::session::{Key, LIFETIME};
use axum::http::StatusCode;

use crate::common::{ADMIN, Fixture};

#[tokio::test]
async fn a_forged_cookie_is_nobodys() {
    let app = Fixture::new().await;
    let admin = app.admin().await;
    let cookie = admin.cookie.clone().unwrap();
    let (id, signature) = cookie.split_once('.').unwrap();
    let other = Key::generate().unwrap();
    let forged = [
        id.to_owned(),
        format!("{id}."),
        format!("{id}.{}", "0".repeat(64)),
        other.sign(id),
        format!("{}.{signature}", "00000000-0000-0000-0000-000000000000"),
        // Signed by us, but no session: not even a UUID may be trusted to be there.
        app.state
            .session_key
            .sign("00000000-0000-0000-0000-000000000000"),
        "é".to_owned(),
        "'; DROP TABLE sessions; --".to_owned(),
        String::new(),
    ];
    for cookie in forged {
        let mut browser = app.browser();
        browser.cookie = Some(cookie.clone());
        let answer = browser.get("/dashboard").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{cookie}");
        assert_eq!(answer.header("location"), "/login");
        let answer = browser.get("/api/active-users").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{cookie}");
    }
    assert_eq!(admin.clone().get("/dashboard").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_ends() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    app.advance(LIFETIME - jiff::SignedDuration::from_secs(1));
    assert_eq!(admin.get("/dashboard").await.status, StatusCode::OK);
    app.advance(jiff::SignedDuration::from_secs(1));
    assert_eq!(admin.get("/dashboard").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_demotion_counts_at_once() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    assert_eq!(admin.get("/dashboard").await.status, StatusCode::OK);
    app.sql("UPDATE users SET role = 'member'").await;
    assert_eq!(admin.get("/dashboard").await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        admin.get("/api/active-users").await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(admin.get("/").await.status, StatusCode::OK);
    app.sql("DELETE FROM users").await;
    assert_eq!(admin.get("/").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn after_signing_out_a_copy_of_the_cookie_is_worth_nothing() {
    let app = Fixture::new().await;
    let mut admin = app.admin().await;
    let mut copy = admin.clone();
    let mut elsewhere = app.signed_in(ADMIN).await;

    let answer = admin.post("/logout", "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.header("location"), "/login");
    assert!(
        answer
            .header("set-cookie")
            .starts_with("session=; Path=/; Max-Age=0;")
    );
    assert_eq!(copy.get("/dashboard").await.status, StatusCode::SEE_OTHER);
    assert_eq!(elsewhere.get("/dashboard").await.status, StatusCode::OK);
    // Once more does no harm, nor does it without a cookie.
    assert_eq!(copy.post("/logout", "").await.status, StatusCode::SEE_OTHER);
    // A link cannot sign anybody out.
    assert_eq!(
        elsewhere.get("/logout").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(elsewhere.get("/dashboard").await.status, StatusCode::OK);
}
