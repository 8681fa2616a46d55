//! What is taken out of a text before it is shown: passwords, and what would steer a terminal.

use std::borrow::Cow;
use std::ops::Range;

/// Text that may quote a command line: the passwords of URLs and of `password=…` in it as `…`.
///
/// Our own messages hold none. This is for an address that was given in place of something else.
pub(crate) fn without_passwords(text: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '&');
    let mut secrets: Vec<Range<usize>> = Vec::new();
    for (at, mark) in text
        .match_indices("://")
        .chain(text.match_indices("password="))
    {
        let start = at + mark.len();
        let word = &text[start..];
        let word = &word[..word.find(ends).unwrap_or(word.len())];
        let secret = match mark {
            "://" => match (word.find(':'), word.rfind('@')) {
                (Some(colon), Some(at)) if colon < at => colon + 1..at,
                _ => continue,
            },
            _ => 0..word.len(),
        };
        secrets.push(start + secret.start..start + secret.end);
    }
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    secrets.sort_by_key(|secret| secret.start);
    let (mut shown, mut from) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        shown.push_str(text.get(from..secret.start).unwrap_or_default());
        shown.push('…');
        from = from.max(secret.end);
    }
    shown.push_str(&text[from..]);
    Cow::Owned(shown)
}

/// Text that may hold what somebody else wrote, such as the name of a session or a table: what would make
/// a terminal do something else than show it, as `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| match c {
        '\n' | '\t' => true,
        // Those that turn the direction of what follows.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        c => !c.is_control(),
    };
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_plain(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// The value of a flag, as it may be shown.
pub(crate) fn flag_value(flag: &str, value: &str) -> String {
    match flag {
        "--database-url" => without_password(value),
        // Whoever knows a webhook's address may post to it.
        "--notify" => "URL".to_owned(),
        _ => value.to_owned(),
    }
}

/// A database's address without its password, or `URL` where it cannot be told what is one: that fails, and
/// does not go to another database.
fn without_password(address: &str) -> String {
    let unclear = address.contains("password") || address.contains(['\'', '"', '\\']);
    match address.split_once("://") {
        _ if unclear => "URL".to_owned(),
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, place)) => {
                let user = user.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}@{place}")
            }
            None => address.to_owned(),
        },
        None if address.contains(['@', ':']) => "URL".to_owned(),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_taken_out_of_whatever_was_typed() {
        for (text, shown) in [
            ("no address", "no address"),
            ("'postgres://u:pw@h/d' found", "'postgres://u:…@h/d' found"),
            ("postgres://u:p/w@x@h/d", "postgres://u:…@h/d"),
            ("postgres://u@h:5432/d", "postgres://u@h:5432/d"),
            ("host=h password=pw user=u", "host=h password=… user=u"),
            (
                "a://u:1@h b://u:2@h?password=3",
                "a://u:…@h b://u:…@h?password=…",
            ),
        ] {
            assert_eq!(without_passwords(text), shown, "{text}");
        }
    }

    #[test]
    fn what_would_steer_a_terminal_is_shown_instead() {
        for (text, shown) in [
            ("plain text, Zoë, 数\n\tnext", "plain text, Zoë, 数\n\tnext"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\rb\u{7}\u{9b}1m\u{7f}", "a\\u{d}b\\u{7}\\u{9b}1m\\u{7f}"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password_or_not_at_all() {
        for (address, shown) in [
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u:s3cr3t@h/d", "postgres://u@h/d"),
            ("postgres://u:s3c/r3t@h/d", "postgres://u@h/d"),
            ("postgres://u:s3c@r3t@h/d", "postgres://u@h/d"),
            ("postgres://h/d?user=u&password=s3cr3t", "URL"),
            ("host=h password=s3cr3t", "URL"),
            ("host=h password = 's3c r3t'", "URL"),
            ("u:s3cr3t@h/d", "URL"),
            ("host=h dbname=d", "host=h dbname=d"),
        ] {
            assert_eq!(flag_value("--database-url", address), shown);
        }
    }
}
