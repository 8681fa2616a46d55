//! `keyword = value …`

use crate::error::{Error, Result};
use crate::keywords::known_keyword;
use crate::settings::Settings;

/// Parses `keyword = value` pairs. A value ends at a space unless it is in `'…'`; a backslash escapes
/// the next character (`conninfo_parse` in `fe-connect.c`).
pub(super) fn parse(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| is_space(*c)).is_some() {}
        if chars.peek().is_none() {
            return Ok(settings);
        }

        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !is_space(*c)) {
            name.push(c);
        }
        while chars.next_if(|c| is_space(*c)).is_some() {}
        if chars.next_if_eq(&'=').is_none() {
            // An unknown word may be the second half of a password with a space, so it is not shown.
            let after = match known_keyword(&name, true) {
                Ok(keyword) => format!("after `{keyword}` "),
                Err(_) => String::new(),
            };
            return Err(
                Error::invalid(format!("`=` is missing {after}in the connection string"))
                    .hint("put a value with spaces in quotes, as in `password='two words'`"),
            );
        }
        let name = settings.keyword(&name)?;
        while chars.next_if(|c| is_space(*c)).is_some() {}

        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next_if(|c| quoted || !is_space(*c)) {
                Some('\'') if quoted => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
                None if quoted => {
                    return Err(Error::invalid(format!(
                        "the quoted value of `{name}` in the connection string has no end"
                    ))
                    .hint("write a `'` within the value as `\\'`"));
                }
                None => break,
            }
        }
        settings.set_from_string(name, value);
    }
}

/// C's `isspace`, which libpq uses.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
