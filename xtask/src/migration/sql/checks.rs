//! Finds the tokens that psql would not send to the server as written.

use squawk_lexer::{LiteralKind, TokenKind};

use super::split::Statement;
use super::token::Token;

/// Why a text cannot be split into statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitError {
    /// The byte where the problem begins; for something that is never closed, where it was opened.
    pub(crate) at: usize,
    pub(crate) what: String,
    pub(crate) hint: String,
}

/// Refuses a token that is never closed, and a backslash command.
pub(super) fn check_token(text: &str, token: &Token) -> Result<(), SplitError> {
    let (what, wanted) = match token.kind {
        TokenKind::Unknown if token.text(text) == "\\" => return Err(backslash(text, token)),
        TokenKind::BlockComment { terminated: false } => ("block comment", "*/"),
        TokenKind::QuotedIdent {
            terminated: false, ..
        } => ("quoted identifier", "\""),
        TokenKind::Literal { kind } => match kind {
            LiteralKind::DollarQuotedString { terminated: false } => {
                let tag = token.text(text).split('$').nth(1).unwrap_or_default();
                return Err(never_closed(
                    "dollar-quoted string",
                    &format!("${tag}$"),
                    token,
                ));
            }
            LiteralKind::Str { terminated: false }
            | LiteralKind::NationalStr { terminated: false }
            | LiteralKind::ByteStr { terminated: false }
            | LiteralKind::BitStr { terminated: false }
            | LiteralKind::UnicodeEscStr { terminated: false }
            | LiteralKind::EscStr { terminated: false } => ("string", "'"),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    Err(never_closed(what, wanted, token))
}

/// Refuses `1e$$`, `0x1$a$` and similar: versions of psql and of the server differ about where the number
/// ends and whether a quote begins, and since version 15 it is an error anyway.
pub(super) fn check_number(text: &str, token: &Token) -> Result<(), SplitError> {
    let TokenKind::Literal {
        kind: LiteralKind::Int { .. } | LiteralKind::Numeric { .. },
    } = token.kind
    else {
        return Ok(());
    };
    let letters = token
        .text(text)
        .contains(|c: char| !c.is_ascii_digit() && c != '.');
    if letters && text[token.range.end..].starts_with('$') {
        return Err(SplitError {
            at: token.range.start,
            what: format!(
                "nothing separates the number `{}` from the `$` after it",
                token.text(text)
            ),
            hint: "put a space between them".to_owned(),
        });
    }
    Ok(())
}

/// Refuses `COPY … FROM STDIN`: psql would read the lines after it as rows; sqlx cannot run it at all.
pub(super) fn check_copy(text: &str, statement: Option<&Statement>) -> Result<(), SplitError> {
    let Some(statement) = statement else {
        return Ok(());
    };
    let words = statement.words(text);
    let from_stdin = words.windows(2).any(|pair| pair == ["from", "stdin"]);
    if words.first().is_none_or(|first| first != "copy") || !from_stdin {
        return Ok(());
    }
    Err(SplitError {
        at: statement.range.start,
        what: "`COPY … FROM STDIN` needs rows from outside the file".to_owned(),
        hint: "write the rows as `INSERT INTO … VALUES …`".to_owned(),
    })
}

fn never_closed(what: &str, wanted: &str, token: &Token) -> SplitError {
    SplitError {
        at: token.range.start,
        what: format!("the {what} opened here is never closed"),
        hint: format!("add the missing `{wanted}`"),
    }
}

fn backslash(text: &str, token: &Token) -> SplitError {
    let command: String = text[token.range.start..]
        .chars()
        .take_while(|c| !c.is_whitespace())
        .take(20)
        .collect();
    let hint = match command.as_str() {
        // pg_dump has written this pair around its output since August 2025 (CVE-2025-8714).
        r"\restrict" | r"\unrestrict" => {
            "remove the lines `\\restrict` and `\\unrestrict` that pg_dump wrote; psql is run \
             restricted anyway"
        }
        r"\i" | r"\ir" => "put the statements of that file here: one migration is one file",
        _ => "remove it: a migration holds only SQL, which sqlx can run too",
    };
    SplitError {
        at: token.range.start,
        what: format!("`{command}` is a command of psql, not SQL"),
        hint: hint.to_owned(),
    }
}

/// Finds an `E'…'` that is continued by `'…'` on a later line. The server reads backslash escapes in the
/// second part too, but psql, which scans line by line, takes it for a plain string: after `'it\'s'` the
/// two disagree about what is quoted (seen with psql 15.18).
#[derive(Default)]
pub(super) struct Continuation {
    escaped: bool,
    newline: bool,
}

impl Continuation {
    pub(super) fn check(&mut self, text: &str, token: &Token) -> Result<(), SplitError> {
        match token.kind {
            TokenKind::Whitespace => self.newline |= token.text(text).contains(['\n', '\r']),
            TokenKind::LineComment => {}
            TokenKind::Literal {
                kind: LiteralKind::Str { .. },
            } if self.escaped && self.newline => {
                if token.text(text).contains('\\') {
                    return Err(SplitError {
                        at: token.range.start,
                        what: "psql reads the backslash in this continued string differently from \
                               the server"
                            .to_owned(),
                        hint: "write the string in one piece, `E'…\\n…'`, or join the parts with \
                               `||`"
                            .to_owned(),
                    });
                }
                self.newline = false;
            }
            TokenKind::Literal {
                kind: LiteralKind::EscStr { .. },
            } => {
                *self = Continuation {
                    escaped: true,
                    newline: false,
                };
            }
            _ => *self = Continuation::default(),
        }
        Ok(())
    }
}
