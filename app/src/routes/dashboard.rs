//! Who is active: as a page for administrators, and the same as JSON.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::AppState;
use crate::activity::{Activity, Cursor, Day, Page, Selection};
use crate::error::Error;
use crate::html::{self, count};
use crate::schema::{self, INDEX_LAST_LOGIN_AT, Schema};
use crate::session::Admin;
use crate::users::User;

const DAYS: i64 = 30;
const MOST_DAYS: i64 = 366;
const ROWS: i64 = 25;
const MOST_ROWS: i64 = 1_000;

/// What may be asked for in the address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Days to look back, the JSON's only; 30 unless given.
    days: Option<i64>,
    /// Only logins of emails that begin so.
    email: Option<String>,
    /// Where the page begins: the `next` of the one before.
    after: Option<String>,
    /// Logins a page, the JSON's only.
    limit: Option<i64>,
}

/// `GET /dashboard`
pub async fn show(
    State(state): State<AppState>,
    Admin(user): Admin,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Error> {
    let dashboard = Dashboard::read(&state, parameters).await?;
    Ok(dashboard_page(&user, &dashboard).into_response())
}

/// `GET /api/active-users`
pub async fn json(
    State(state): State<AppState>,
    _: Admin,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Error> {
    let Dashboard {
        now,
        days,
        activity,
        page,
        ..
    } = Dashboard::read(&state, parameters).await?;
    Ok(Json(json!({
        "generated_at": now,
        "days": days,
        "active_users": activity.window(days).map(|window| window.users),
        "users": activity.users,
        "active": activity.active,
        "last_logins_per_day": activity.last_logins_per_day,
        "recent_logins": page.logins,
        "next": page.next.map(|next| next.to_string()),
    })))
}

struct Dashboard {
    now: Timestamp,
    days: i64,
    activity: Activity,
    page: Page,
    /// The search.
    email: String,
    is_first_page: bool,
    has_index: bool,
}

impl Dashboard {
    async fn read(
        state: &AppState,
        parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
    ) -> Result<Dashboard, Error> {
        let invalid = |expected: &str| Error::Invalid(StatusCode::BAD_REQUEST, expected.to_owned());
        let Query(parameters) = parameters.map_err(|_| {
            invalid("The parameters are `days`, `email`, `after` and `limit`, each at most once.")
        })?;
        let days = parameters.days.unwrap_or(DAYS);
        if !(1..=MOST_DAYS).contains(&days) {
            return Err(invalid("`days` is a number from 1 to 366."));
        }
        let limit = parameters.limit.unwrap_or(ROWS);
        if !(1..=MOST_ROWS).contains(&limit) {
            return Err(invalid("`limit` is a number from 1 to 1000."));
        }
        let after: Option<Cursor> =
            match parameters.after.as_deref().filter(|text| !text.is_empty()) {
                None => None,
                Some(text) => Some(
                    text.parse()
                        .map_err(|()| invalid("`after` is what `next` was on the page before."))?,
                ),
            };
        let email = parameters.email.unwrap_or_default().trim().to_owned();
        if email.contains('\0') {
            return Err(invalid("`email` is the beginning of an email."));
        }

        let db = state.database.connection().await?;
        let schema = Schema::read(&db).await?;
        if !schema.has_users {
            return Err(Error::Waiting(&schema::CREATE_USERS));
        }
        if !schema.has_last_login_at {
            return Err(Error::Waiting(&schema::ADD_LAST_LOGIN_AT));
        }
        let now = state.clock.now();
        let selection = Selection {
            email: &email,
            after,
            limit,
        };
        let activity = Activity::read(&db, schema, now, days).await?;
        let page = Page::read(&db, selection).await?;
        Ok(Dashboard {
            now,
            days,
            activity,
            page,
            is_first_page: after.is_none(),
            email,
            has_index: schema.has_index,
        })
    }
}

fn dashboard_page(user: &User, dashboard: &Dashboard) -> Markup {
    let Dashboard { now, activity, .. } = dashboard;
    let main = html! {
        div.heading {
            h1 { "Active users" }
            p.dim { "As of " (now.strftime("%Y-%m-%d %H:%M:%S")) " UTC" }
        }
        @if !dashboard.has_index {
            p.notice role="status" {
                "This page is slow on a large table until the migration "
                code { (INDEX_LAST_LOGIN_AT.file_stem) }
                " has been made: " code { "cargo xtask db-migrate" }
            }
        }
        dl.tiles {
            div.tile {
                dt { "Users in all" }
                dd { (count(activity.users)) }
            }
            @for window in &activity.active {
                div.tile {
                    dt { "Active in " (window_name(window.days)) }
                    dd {
                        (count(window.users))
                        small { (share(window.users, activity.users)) }
                    }
                }
            }
        }
        (chart(&activity.last_logins_per_day))
        (recent_logins(dashboard))
    };
    html::page("Active users", Some(user), &main)
}

fn window_name(days: i64) -> String {
    match days {
        1 => "24 hours".to_owned(),
        days => format!("{days} days"),
    }
}

fn share(part: i64, all: i64) -> String {
    match all {
        0 => String::new(),
        all => format!("{:.1} %", part as f64 / all as f64 * 100.0),
    }
}

/// Bars, for those who see them; the same figures as a table, for everybody.
///
/// The picture has no units of its own, only percentages: it is as wide as the page, and its words are
/// as large as the page's.
fn chart(days: &[Day]) -> Markup {
    /// Where the bars stand; below are the days' names.
    const FLOOR: f64 = 88.0;
    let most = days.iter().map(|day| day.users).max().unwrap_or(0);
    let top = round_up(most);
    let height = |users: i64| users as f64 / top as f64 * FLOOR;
    let step = 100.0 / days.len().max(1) as f64;
    let name = |day: &Day| day.day.strftime("%-d %b").to_string();
    let described = format!(
        "Bar chart; the table below has its figures. The most on one day: {}.",
        count(most)
    );

    html! {
        section.card aria-labelledby="chart-title" {
            h2 #chart-title { "Last logins by day" }
            p.dim { "Each user counts once, on the day (UTC) of their most recent login." }
            div.chart {
                div.scale aria-hidden="true" {
                    @for line in [top, top / 2, 0] { span { (short(line)) } }
                }
                svg role="img" aria-label=(described) {
                    @for line in [top, top / 2, 0] {
                        line x1="0" x2="100%" y1=(percent(FLOOR - height(line))) y2=(percent(FLOOR - height(line))) {}
                    }
                    @for (at, day) in days.iter().enumerate() {
                        @let x = at as f64 * step;
                        @let height = if day.users > 0 { height(day.users).max(0.75) } else { 0.0 };
                        g.day {
                            title { (name(day)) ": " (count(day.users)) }
                            rect.area x=(percent(x)) y="0" width=(percent(step)) height=(percent(FLOOR)) {}
                            rect.bar rx="2" x=(percent(x + step * 0.14)) y=(percent(FLOOR - height))
                                width=(percent(step * 0.72)) height=(percent(height)) {}
                        }
                    }
                    // Counted from today, so that today has its name.
                    @for (at, day) in days.iter().rev().enumerate().step_by(7) {
                        @let right = 100.0 - at as f64 * step;
                        @if at == 0 {
                            text.last x="100%" y="100%" { (name(day)) }
                        } @else {
                            text.minor[at % 14 > 0] x=(percent(right - step / 2.0)) y="100%" { (name(day)) }
                        }
                    }
                }
            }
            details {
                summary { "The same as a table" }
                div.scroll tabindex="0" role="region" aria-label="Last logins by day" {
                    table.figures {
                        thead { tr { th scope="col" { "Day (UTC)" } th.number scope="col" { "Last logins" } } }
                        tbody {
                            @for day in days.iter().rev() {
                                tr { th scope="row" { (day.day) } td.number { (count(day.users)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The next round number with an even half: 2, 4, 6, 8, 10, 20, 40, …
fn round_up(number: i64) -> i64 {
    let mut unit = 1;
    loop {
        for digit in [2, 4, 6, 8] {
            if number <= digit * unit {
                return digit * unit;
            }
        }
        unit *= 10;
        if number <= unit {
            return unit;
        }
    }
}

/// A number as short as an axis wants it.
fn short(number: i64) -> String {
    match number {
        ..10_000 => count(number),
        10_000..1_000_000 => format!("{}k", number / 1_000),
        1_000_000.. => format!("{} M", number as f64 / 1e6),
    }
}

/// No more digits than a screen shows.
fn percent(number: f64) -> String {
    format!("{number:.2}%")
}

fn recent_logins(dashboard: &Dashboard) -> Markup {
    let Dashboard {
        now, page, email, ..
    } = dashboard;
    html! {
        section.card aria-labelledby="logins-title" {
            div.toolbar {
                h2 #logins-title { "Recent logins" }
                form.search role="search" method="get" action="/dashboard#logins-title" {
                    label.hidden for="search" { "Email begins with" }
                    input #search name="email" type="search" value=(email) placeholder="Email begins with…"
                        autocomplete="off" autocapitalize="none" spellcheck="false";
                    button type="submit" { "Search" }
                }
            }
            @if page.logins.is_empty() {
                p.empty {
                    @if !email.is_empty() {
                        "Nobody whose email begins with " strong { (email) } " has signed in"
                        @if !dashboard.is_first_page { " earlier" }
                        "."
                    } @else if dashboard.is_first_page {
                        "Nobody has signed in since last_login_at was added."
                    } @else {
                        "There are no earlier logins."
                    }
                }
            } @else {
                table.logins {
                    caption.hidden { "Users by their last login, newest first" }
                    thead {
                        tr { th scope="col" { "User" } th scope="col" { "Email" } th scope="col" { "Last login" } }
                    }
                    tbody {
                        @for login in &page.logins {
                            tr {
                                th scope="row" { (login.display_name) }
                                td.email { (login.email) }
                                td.when { (html::time(login.last_login_at, *now)) }
                            }
                        }
                    }
                }
            }
            @if !dashboard.is_first_page || page.next.is_some() || !email.is_empty() {
                nav.pages aria-label="Pages" {
                    @if !dashboard.is_first_page {
                        a href=(address(email, None)) { "← Newest" }
                    } @else if !email.is_empty() {
                        a href=(address("", None)) { "Show everybody" }
                    } @else {
                        span {}
                    }
                    @if let Some(next) = page.next {
                        a rel="next" href=(address(email, Some(next))) { "Older →" }
                    }
                }
            }
        }
    }
}

fn address(email: &str, after: Option<Cursor>) -> String {
    let mut parameters = Vec::new();
    if !email.is_empty() {
        let email = utf8_percent_encode(email, NON_ALPHANUMERIC);
        parameters.push(format!("email={email}"));
    }
    if let Some(after) = after {
        parameters.push(format!("after={after}"));
    }
    match parameters.as_slice() {
        [] => "/dashboard#logins-title".to_owned(),
        some => format!("/dashboard?{}#logins-title", some.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        let table = [
            (0, 2),
            (2, 2),
            (3, 4),
            (9, 10),
            (10, 10),
            (11, 20),
            (6_667, 8_000),
        ];
        for (most, top) in table {
            assert_eq!(round_up(most), top);
        }
    }

    #[test]
    fn an_address_holds_any_search() {
        assert_eq!(address("", None), "/dashboard#logins-title");
        let cursor = "5-7".parse().ok();
        assert_eq!(
            address("a&b=%", cursor),
            "/dashboard?email=a%26b%3D%25&after=5-7#logins-title"
        );
    }
}
