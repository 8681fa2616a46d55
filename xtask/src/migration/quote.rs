//! Quotes names and strings for SQL; nothing else does.

/// Quotes an identifier if necessary, by the rule of the server's `quote_ident`; that quotes a few keywords
/// that would be allowed without quotes in some places.
pub(crate) fn quote_if_needed(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !is_reserved(name) {
        name.to_owned()
    } else {
        quote_identifier(name)
    }
}

/// `"Weird ""name"""`, always quoted.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal under `standard_conforming_strings`, which every session here has on.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Like [`quote_literal`], with control characters escaped, for a hint that is pasted.
pub(crate) fn printable_literal(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return quote_literal(text);
    }
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            '\\' => escaped.push_str("\\\\"),
            '\'' => escaped.push_str("''"),
            c => escaped.push(c),
        }
    }
    format!("E'{escaped}'")
}

/// The keywords that cannot be the name of a table or a column without quotes, from
/// `src/include/parser/kwlist.h` of PostgreSQL 18 (RESERVED_KEYWORD and TYPE_FUNC_NAME_KEYWORD).
pub(crate) fn is_reserved(word: &str) -> bool {
    const RESERVED: &str = "\
        all analyse analyze and any array as asc asymmetric authorization binary both case cast \
        check collate collation column concurrently constraint create cross current_catalog \
        current_date current_role current_schema current_time current_timestamp current_user \
        default deferrable desc distinct do else end except false fetch for foreign freeze from \
        full grant group having ilike in initially inner intersect into is isnull join lateral \
        leading left like limit localtime localtimestamp natural not notnull null offset on only \
        or order outer overlaps placing primary references returning right select session_user \
        similar some symmetric system_user table tablesample then to trailing true union unique \
        user using variadic verbose when where window with";
    RESERVED.split(' ').any(|reserved| reserved == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_needed() {
        let table = [
            ("users", "users"),
            ("user", "\"user\""),
            ("_a1", "_a1"),
            ("1a", "\"1a\""),
            ("A", "\"A\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\"\"b\""),
            ("ä", "\"ä\""),
            ("", "\"\""),
        ];
        for (name, expected) in table {
            assert_eq!(quote_if_needed(name), expected, "{name}");
        }
    }

    #[test]
    fn a_literal_for_a_hint_stays_on_one_line() {
        assert_eq!(printable_literal(r"it's \d"), r"'it''s \d'");
        assert_eq!(printable_literal("a\n'\\"), r"E'a\u000a''\\'");
    }
}
