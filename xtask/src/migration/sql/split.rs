//! Splits a text into its statements.

use std::ops::Range;

use squawk_lexer::TokenKind;

use super::checks::{Continuation, SplitError, check_copy, check_number, check_token};
use super::token::{Token, lex};

/// One statement of a file; it is never empty.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// The bytes from its first token to its last, without the comments around it and without the `;`.
    pub(crate) range: Range<usize>,
    /// Where the query that psql sends begins: at the statement, or at a block comment before it.
    /// Positions in the server's error messages count from here.
    pub(crate) sent_from: usize,
    /// Whether a `;` follows. Only the last statement of a file may be without one.
    pub(crate) terminated: bool,
    /// All tokens but whitespace and comments; never empty.
    pub(crate) tokens: Vec<Token>,
}

impl Statement {
    pub(crate) fn text<'a>(&self, source: &'a str) -> &'a str {
        &source[self.range.clone()]
    }

    /// Its unquoted words in lowercase.
    pub(crate) fn words(&self, source: &str) -> Vec<String> {
        let tokens = self.tokens.iter();
        tokens.filter_map(|token| token.word(source)).collect()
    }

    /// Whether it contains this unquoted word.
    pub(crate) fn has_word(&self, source: &str, word: &str) -> bool {
        self.tokens
            .iter()
            .any(|token| token.word(source).as_deref() == Some(word))
    }
}

/// The statements of a file.
///
/// # Errors
/// The first thing that psql would not send to the server as written: a backslash command, a
/// quote, comment, parenthesis or function body that is never closed, a string that psql and
/// the server read differently, or a `COPY` whose rows would be part of the file.
pub(crate) fn split(text: &str) -> Result<Vec<Statement>, SplitError> {
    let mut statements = Vec::new();
    let mut current = Unfinished::default();
    let mut continued = Continuation::default();
    for token in lex(text) {
        check_token(text, &token)?;
        check_number(text, &token)?;
        continued.check(text, &token)?;
        match token.kind {
            TokenKind::Semi if current.is_complete() => {
                let statement = std::mem::take(&mut current).finish(true);
                // Before what follows is taken for SQL.
                check_copy(text, statement.as_ref())?;
                statements.extend(statement);
            }
            _ => current.push(text, token),
        }
    }
    current.check_closed()?;
    let last = current.finish(false);
    check_copy(text, last.as_ref())?;
    statements.extend(last);
    Ok(statements)
}

/// A statement whose end has not been found yet.
#[derive(Default)]
struct Unfinished {
    tokens: Vec<Token>,
    sent_from: Option<usize>,
    /// The bytes at which parentheses were opened that are still open.
    parentheses: Vec<usize>,
    /// Likewise for `BEGIN` and `CASE` in the body of a function.
    blocks: Vec<usize>,
    /// The first four unquoted words, by which psql decides whether this defines a routine.
    head: Vec<String>,
}

impl Unfinished {
    fn push(&mut self, text: &str, token: Token) {
        let start = token.range.start;
        match token.kind {
            TokenKind::Whitespace | TokenKind::LineComment => return,
            TokenKind::OpenParen => self.parentheses.push(start),
            TokenKind::CloseParen => drop(self.parentheses.pop()),
            TokenKind::Ident => self.count_blocks(token.text(text).to_ascii_lowercase(), start),
            _ => {}
        }
        self.sent_from.get_or_insert(start);
        if !token.is_trivia() {
            self.tokens.push(token);
        }
    }

    fn count_blocks(&mut self, word: String, start: usize) {
        if self.defines_routine() && self.parentheses.is_empty() {
            match word.as_str() {
                "begin" => self.blocks.push(start),
                "case" if !self.blocks.is_empty() => self.blocks.push(start),
                "end" => drop(self.blocks.pop()),
                _ => {}
            }
        }
        if self.head.len() < 4 {
            self.head.push(word);
        }
    }

    fn defines_routine(&self) -> bool {
        let head: Vec<&str> = self.head.iter().map(String::as_str).collect();
        matches!(
            head[..],
            ["create", "function" | "procedure", ..]
                | ["create", "or", "replace", "function" | "procedure"]
        )
    }

    fn is_complete(&self) -> bool {
        self.parentheses.is_empty() && self.blocks.is_empty()
    }

    fn check_closed(&self) -> Result<(), SplitError> {
        let parenthesis = self.parentheses.first().map(|at| (at, "`(`", "`)`"));
        let block = self.blocks.first().map(|at| (at, "`BEGIN`", "`END`"));
        match parenthesis.or(block) {
            Some((&at, opened, wanted)) => Err(SplitError {
                at,
                what: format!("the {opened} opened here is never closed"),
                hint: format!("add the missing {wanted}"),
            }),
            None => Ok(()),
        }
    }

    fn finish(self, terminated: bool) -> Option<Statement> {
        let range = self.tokens.first()?.range.start..self.tokens.last()?.range.end;
        Some(Statement {
            sent_from: self.sent_from.unwrap_or(range.start),
            range,
            terminated,
            tokens: self.tokens,
        })
    }
}
