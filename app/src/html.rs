//! The frame of every page, and what pages have in common. `maud` escapes all that is put into them.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::error::Problem;
use crate::users::User;

/// A whole page.
pub fn page(title: &str, user: Option<&User>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · myapp" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" type="image/svg+xml" href="/favicon.svg";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "myapp" }
                    @if let Some(user) = user {
                        form method="post" action="/logout" {
                            span.who { (user.display_name) }
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                }
                main #main { (main) }
            }
        }
    }
}

/// A page that says what went wrong.
pub fn problem(problem: &Problem) -> Markup {
    let main = html! {
        section.card.narrow {
            h1 { (problem.title) }
            p { (problem.detail) }
            @if let Some(command) = problem.command {
                p.dim { "If you run this application:" }
                pre { code { (command) } }
            }
            p {
                // An empty address is that of the page itself.
                @if problem.may_pass { a href="" { "Try again" } }
                @else { a href="/" { "Back to the start" } }
            }
        }
    };
    page(problem.title, None, &main)
}

/// An instant in UTC, with its age in words beside it.
pub fn time(at: Timestamp, now: Timestamp) -> Markup {
    html! {
        time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) {
            span.age { (age(at, now)) }
            " "
            span.instant { (at.strftime("%Y-%m-%d %H:%M")) " UTC" }
        }
    }
}

/// How long ago, in words.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    const UNITS: [(&str, i64); 5] = [
        ("year", 365 * 86_400),
        ("month", 30 * 86_400),
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ];
    let seconds = now.duration_since(at).as_secs();
    for (unit, length) in UNITS {
        match seconds / length {
            ..=0 => {}
            1 => return format!("1 {unit} ago"),
            count => return format!("{count} {unit}s ago"),
        }
    }
    "just now".to_owned()
}

/// A number with its thousands set apart.
pub fn count(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_words() {
        let table = [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7_199, "1 hour ago"),
            (7_200, "2 hours ago"),
            (86_400 * 29, "29 days ago"),
            (86_400 * 364, "12 months ago"),
            (86_400 * 366, "1 year ago"),
        ];
        for (seconds, expected) in table {
            let now = Timestamp::from_second(seconds).unwrap();
            assert_eq!(age(Timestamp::UNIX_EPOCH, now), expected);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, expected) in table {
            assert_eq!(count(number), expected);
        }
    }
}
