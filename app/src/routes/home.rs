//! Where members land: that they are signed in, and the way on.

use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use crate::html;
use crate::session::SignedIn;

/// `GET /`
pub async fn show(SignedIn(session): SignedIn) -> Response {
    let user = &session.user;
    if user.is_admin {
        return Redirect::to("/dashboard").into_response();
    }
    let main = html! {
        section.card.narrow {
            h1 { "Hello, " (user.display_name) }
            p { "You are signed in as " strong { (user.email) } "." }
        }
    };
    html::page("Home", Some(user), &main).into_response()
}
