//! A file's text as psql's input.

use std::borrow::Cow;

use squawk_lexer::TokenKind;

use super::split::Statement;
use super::token::lex;

/// The input for psql with which the server gets exactly this SQL, line for line.
///
/// - A lone `:` before a name or a quote would be a psql variable (`[1:two]`); `\:` sends a colon.
/// - psql drops empty lines inside a statement, so that the line numbers in error messages are wrong; a
///   space keeps the line.
/// - A last statement without `;`, or a last comment without a line end, must not swallow what
///   follows in the same session.
///
/// Nothing moves to another line, and only the backslashes shift columns.
pub(crate) fn for_psql<'a>(text: &'a str, statements: &[Statement]) -> Cow<'a, str> {
    let open_end = statements.last().is_some_and(|last| !last.terminated);
    let insertions = insertions_for_psql(text);
    if insertions.is_empty() && !open_end && (text.is_empty() || text.ends_with('\n')) {
        return Cow::Borrowed(text);
    }
    let mut fed = String::with_capacity(text.len() + insertions.len() + 3);
    let mut copied = 0;
    for (at, inserted) in insertions {
        fed.push_str(&text[copied..at]);
        fed.push(inserted);
        copied = at;
    }
    fed.push_str(&text[copied..]);
    if !fed.ends_with('\n') {
        fed.push('\n');
    }
    if open_end {
        fed.push_str(";\n");
    }
    Cow::Owned(fed)
}

fn starts_line(text: &str, at: usize) -> bool {
    at == 0 || text.as_bytes()[at - 1] == b'\n'
}

/// The characters to insert, each before the byte at an offset.
fn insertions_for_psql(text: &str) -> Vec<(usize, char)> {
    let mut insertions = Vec::new();
    let mut tokens = lex(text).peekable();
    while let Some(token) = tokens.next() {
        match token.kind {
            TokenKind::Colon => {
                let operator =
                    tokens.next_if(|next| matches!(next.kind, TokenKind::Colon | TokenKind::Eq));
                if operator.is_none() && starts_variable(&text[token.range.end..]) {
                    insertions.push((token.range.start, '\\'));
                }
            }
            TokenKind::Whitespace => {
                let bytes = token.text(text).as_bytes();
                insertions.extend(
                    (0..bytes.len())
                        .filter(|&i| bytes[i] == b'\n' && starts_line(text, token.range.start + i))
                        .map(|i| (token.range.start + i, ' ')),
                );
            }
            _ => {}
        }
    }
    insertions
}

/// Whether what follows a colon makes it `:name`, `:'name'`, `:"name"` or `:{?name}` to psql,
/// whose names, unlike SQL's, may begin with a digit.
fn starts_variable(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "_'\"{".contains(c))
}
