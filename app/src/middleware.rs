//! What happens to every request: a log line, headers, a time limit, a look at where it comes from,
//! and the form in which a problem is shown.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use crate::AppState;
use crate::error::{Error, Problem};
use crate::html;

/// How long a request may take in all. A query's own limit is shorter.
const TIME_LIMIT: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One line a request. The query is not in it: it may hold emails.
pub async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let id = request_id();
    let mut response = next.run(request).await;
    tracing::info!(
        %method,
        path,
        status = response.status().as_u16(),
        ms = format_args!("{:.1}", started.elapsed().as_secs_f64() * 1e3),
        id,
        "request"
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Not a secret, only hard to confuse.
fn request_id() -> String {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

/// Headers that keep browsers from helping an attacker.
pub async fn secure(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let https = is_https(&state, request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'",
    );
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "same-origin");
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    if https {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    // Pages show people's data; what may be kept says so itself.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Shows a [`Problem`] as the client prefers it.
pub async fn present(request: Request, next: Next) -> Response {
    let json = wants_json(request.uri(), request.headers());
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = if json {
        let error = json!({"message": problem.detail, "hint": problem.command});
        Json(json!({ "error": error })).into_response()
    } else if let Some(path) = problem.instead {
        return Redirect::to(path).into_response();
    } else {
        html::problem(&problem).into_response()
    };
    for (name, value) in body.headers() {
        parts.headers.insert(name.clone(), value.clone());
    }
    Response::from_parts(parts, body.into_body())
}

/// Gives up on what takes too long, a body that trickles in included.
pub async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::Busy("this takes too long").into_response(),
    }
}

/// Refuses what another site makes a browser send: with `SameSite=Lax` this is what guards the login
/// form, too. Programs that are no browsers send none of these headers.
pub async fn refuse_cross_site(request: Request, next: Next) -> Response {
    let is_safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if is_safe || is_same_origin(request.headers()) {
        next.run(request).await
    } else {
        Error::CrossSite.into_response()
    }
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let authority = origin.to_str().ok().and_then(|origin| {
        origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"))
    });
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    authority.is_some() && authority == host
}

/// Whether this is a program's request: by its path, by what it accepts, by what it sends.
pub(crate) fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    let begins = |name, value: &str| {
        let header = headers.get(name).and_then(|header| header.to_str().ok());
        header.is_some_and(|header| header.trim_start().starts_with(value))
    };
    uri.path().starts_with("/api/")
        || begins(header::ACCEPT, "application/json")
        || begins(header::CONTENT_TYPE, "application/json")
}

/// Whether the browser speaks TLS, with the proxy in front of us.
pub(crate) fn is_https(state: &AppState, headers: &HeaderMap) -> bool {
    state.trust_proxy
        && headers
            .get("x-forwarded-proto")
            .is_some_and(|proto| proto == "https")
}

/// Where the request comes from: its connection's other end, or who the proxy says is behind it.
pub struct ClientAddress(pub IpAddr);

impl FromRequestParts<AppState> for ClientAddress {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        // The last address is the one that our proxy added; a client can write any before it.
        let forwarded = parts
            .headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()
            .and_then(|list| list.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        if state.trust_proxy
            && let Some(address) = forwarded
        {
            return Ok(ClientAddress(address));
        }
        match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(peer)) => Ok(ClientAddress(peer.ip())),
            None => Err(Error::Invalid(
                StatusCode::BAD_REQUEST,
                "This request came over no connection.".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_says_where_a_form_was() {
        let table: [(&[(&'static str, &str)], bool); 8] = [
            (&[], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (
                &[("origin", "https://a.example"), ("host", "a.example")],
                true,
            ),
            (
                &[("origin", "https://b.example"), ("host", "a.example")],
                false,
            ),
            (&[("origin", "null"), ("host", "null")], false),
        ];
        for (given, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(is_same_origin(&headers), expected, "{given:?}");
        }
    }
}
