//! Signing in and out.

use axum::extract::{Form, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, RequestExt as _};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use crate::AppState;
use crate::error::Error;
use crate::html;
use crate::middleware::{ClientAddress, is_https, wants_json};
use crate::session::{self, LIFETIME};
use crate::users::{self, Account, User};

/// `GET /login`
pub async fn form(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, Error> {
    Ok(match session::find(&state, &headers).await {
        Ok(Some(session)) => Redirect::to(landing(&session.user)).into_response(),
        Ok(None) => login_page("", None).into_response(),
        Err(error) => return Err(error),
    })
}

/// `POST /login`
pub async fn submit(
    State(state): State<AppState>,
    client: ClientAddress,
    credentials: Credentials,
) -> Response {
    let Credentials {
        email,
        https,
        as_json,
        ..
    } = &credentials;
    match sign_in(&state, &client, &credentials).await {
        Ok(signed_in) => {
            let cookie = session::set_cookie(
                &state.session_key,
                &signed_in.session,
                signed_in.at,
                signed_in.expires_at,
                *https,
            );
            let body = if *as_json {
                let body = json!({"user": signed_in.user, "expires_at": signed_in.expires_at});
                Json(body).into_response()
            } else {
                Redirect::to(landing(&signed_in.user)).into_response()
            };
            ([(header::SET_COOKIE, cookie)], body).into_response()
        }
        // The form again, with what is wrong above it.
        Err(error @ (Error::WrongCredentials | Error::TooManyAttempts(_))) if !as_json => {
            let page = login_page(email, Some(&error.problem().detail));
            let mut response = (error.status(), page).into_response();
            if let Some(wait) = error.retry_after() {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

struct SignedIn {
    user: User,
    session: String,
    at: Timestamp,
    expires_at: Timestamp,
}

/// From an email and a password to a session and a stamp.
async fn sign_in(
    state: &AppState,
    ClientAddress(address): &ClientAddress,
    Credentials {
        email, password, ..
    }: &Credentials,
) -> Result<SignedIn, Error> {
    let attempt = state.limiter.attempt(email, *address);
    state.limiter.check(&attempt, state.clock.now())?;

    let account = users::find(&state.database.connection().await?, email).await?;

    // Here a login waits for a core. Others may have guessed meanwhile: only as many as there are
    // cores can be over the limit.
    let turn = state.passwords.turn().await?;
    state.limiter.check(&attempt, state.clock.now())?;
    let hash = account
        .as_ref()
        .map(|account| account.password_hash.as_str());
    let is_right = turn.verify(password.clone(), hash).await?;
    let now = state.clock.now();
    let Some(Account { user, .. }) = account.filter(|_| is_right) else {
        state.limiter.failed(&attempt, now);
        return Err(Error::WrongCredentials);
    };
    state.limiter.succeeded(&attempt);

    let expires_at = now + LIFETIME;
    let db = state.database.connection().await?;
    let session = state.sign_ins.sign_in(&db, &user, now, expires_at).await?;
    Ok(SignedIn {
        session: session.ok_or(Error::WrongCredentials)?,
        user,
        at: now,
        expires_at,
    })
}

/// `POST /logout`
pub async fn logout(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, Error> {
    if let Some(session) = session::find(&state, &headers).await? {
        session::end(&state.database.connection().await?, &session.id).await?;
    }
    let cookie = session::clear_cookie(is_https(&state, &headers));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// Where somebody goes who has signed in.
fn landing(user: &User) -> &'static str {
    if user.is_admin { "/dashboard" } else { "/" }
}

fn login_page(email: &str, problem: Option<&str>) -> Markup {
    let main = html! {
        section.card.narrow {
            h1 { "Sign in" }
            @if let Some(problem) = problem {
                p.problem role="alert" #problem { (problem) }
            }
            form.stack method="post" action="/login" {
                label for="email" { "Email" }
                input #email name="email" type="email" value=(email) required
                    autocomplete="username" autofocus[problem.is_none()]
                    aria-describedby=[problem.map(|_| "problem")];
                label for="password" { "Password" }
                input #password name="password" type="password" required
                    autocomplete="current-password" autofocus[problem.is_some()];
                button type="submit" { "Sign in" }
            }
        }
    };
    html::page("Sign in", None, &main)
}

/// What a login brings, as a form or as JSON.
pub struct Credentials {
    email: String,
    password: String,
    https: bool,
    as_json: bool,
}

impl FromRequest<AppState> for Credentials {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Credentials, Error> {
        #[derive(Deserialize)]
        struct Fields {
            email: String,
            password: String,
        }
        let https = is_https(state, request.headers());
        let as_json = wants_json(request.uri(), request.headers());
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        // What these rejections say of the body could quote it.
        let not_understood = |status: StatusCode| {
            let expected = "A login is an `email` and a `password`, as a form or as JSON.";
            Error::Invalid(status, expected.to_owned())
        };
        let fields = if is_json {
            let Json::<Fields>(fields) = request.extract().await.map_err(
                |rejection: axum::extract::rejection::JsonRejection| {
                    not_understood(rejection.status())
                },
            )?;
            fields
        } else {
            let Form::<Fields>(fields) = request.extract().await.map_err(
                |rejection: axum::extract::rejection::FormRejection| {
                    not_understood(rejection.status())
                },
            )?;
            fields
        };
        Ok(Credentials {
            email: fields.email.trim().to_owned(),
            password: fields.password,
            https,
            as_json,
        })
    }
}
