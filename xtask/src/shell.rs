//! Text for a shell.

use std::fmt;

/// Text as one word for a shell, which expands nothing in it; in quotes where it needs them.
pub(crate) fn shell_word(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let plain =
        |of: char| !of.is_ascii() || of.is_ascii_alphanumeric() || "/._-+=,:@%".contains(of);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", in_quotes(&text)),
    }
}

/// Text for between a shell's single quotes.
pub(crate) fn in_quotes(text: &str) -> String {
    text.replace('\'', r"'\''")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_path_holds_is_one_word_for_a_shell() {
        for (path, word) in [
            ("backups/users-1.sql", "backups/users-1.sql"),
            ("/var/größe/a.sql", "/var/größe/a.sql"),
            ("my backups/a.sql", "'my backups/a.sql'"),
            ("o'clock", r"'o'\''clock'"),
            ("$(id)", "'$(id)'"),
            ("a;b", "'a;b'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(path), word);
        }
    }
}
