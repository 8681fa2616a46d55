//! Tokens, and positions in a text.

use std::ops::Range;

use squawk_lexer::TokenKind;

/// A token and its bytes in the file.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) range: Range<usize>,
}

impl Token {
    pub(crate) fn text<'a>(&self, source: &'a str) -> &'a str {
        &source[self.range.clone()]
    }

    /// Whitespace or a comment.
    pub(crate) fn is_trivia(&self) -> bool {
        use TokenKind::{BlockComment, LineComment, Whitespace};
        matches!(self.kind, Whitespace | LineComment | BlockComment { .. })
    }

    /// An unquoted word, in lowercase; it may be a keyword or a name.
    pub(crate) fn word(&self, source: &str) -> Option<String> {
        (self.kind == TokenKind::Ident).then(|| self.text(source).to_ascii_lowercase())
    }
}

/// Every token of `text`, whitespace and comments included.
pub(crate) fn lex(text: &str) -> impl Iterator<Item = Token> + '_ {
    let mut end = 0;
    squawk_lexer::tokenize(text).map(move |token| {
        let start = end;
        end += token.len as usize;
        Token {
            kind: token.kind,
            range: start..end,
        }
    })
}

/// The line and column of a byte, both counted from 1, the column in characters.
pub(crate) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}
