//! The style sheet and the icon, which are part of the program.

use axum::http::header;
use axum::response::IntoResponse;

/// `GET /style.css`
pub async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, include_str!("../../assets/style.css"))
}

/// `GET /favicon.svg`
pub async fn icon() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
    ];
    (headers, include_str!("../../assets/favicon.svg"))
}
