//! A cursor over tokens: reads keywords and names one after the other.

use squawk_lexer::TokenKind;

use super::name::ObjectName;
use crate::migration::quote::is_reserved;
use crate::migration::sql::{self, Token};

impl ObjectName {
    /// Reads a name as written in SQL; `None` if it is anything but one name.
    pub(crate) fn parse(written: &str) -> Option<ObjectName> {
        let tokens = significant(written);
        let mut cursor = Cursor::new(written, &tokens);
        let name = cursor.name()?;
        cursor.at_end().then_some(name)
    }
}

/// The names in a list separated by commas or spaces, each as written; `None` if something in it
/// is not a name.
pub(crate) fn split_names(list: &str) -> Option<Vec<String>> {
    let tokens = significant(list);
    let mut cursor = Cursor::new(list, &tokens);
    let mut names = Vec::new();
    while let Some(first) = cursor.tokens.first() {
        let rest = cursor.tokens;
        cursor.name()?;
        let last = &rest[rest.len() - cursor.tokens.len() - 1];
        names.push(list[first.range.start..last.range.end].to_owned());
        if cursor.eat_kind(TokenKind::Comma) && cursor.at_end() {
            return None;
        }
    }
    Some(names)
}

/// Every name and keyword in a text, as the server would read it.
pub(crate) fn identifiers(text: &str) -> impl Iterator<Item = String> {
    sql::lex(text).filter_map(|token| identifier(text, &token))
}

fn identifier(text: &str, token: &Token) -> Option<String> {
    let written = token.text(text);
    let name = match token.kind {
        TokenKind::Ident => written.to_ascii_lowercase(),
        TokenKind::QuotedIdent {
            terminated: true,
            uescape: false,
        } => written[1..written.len() - 1].replace("\"\"", "\""),
        // U&"…" writes characters as numbers: too rare to support.
        _ => return None,
    };
    // The server truncates names to 63 bytes (NAMEDATALEN - 1).
    Some(name[..name.floor_char_boundary(63)].to_owned())
}

pub(crate) fn significant(text: &str) -> Vec<Token> {
    sql::lex(text).filter(|token| !token.is_trivia()).collect()
}

/// The tokens still to be read.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Cursor { text, tokens }
    }

    pub(crate) fn at_end(&self) -> bool {
        self.tokens.is_empty()
    }

    /// What is still to be read, as it is written.
    pub(crate) fn rest(&self) -> &'a str {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => &self.text[first.range.start..last.range.end],
            _ => "",
        }
    }

    /// Skips one token; `false` at the end.
    pub(crate) fn skip(&mut self) -> bool {
        let any = !self.at_end();
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        any
    }

    /// The next token in lowercase, if it is an unquoted word.
    pub(crate) fn word(&self) -> Option<String> {
        self.tokens.first()?.word(self.text)
    }

    pub(crate) fn next_word(&mut self) -> Option<String> {
        let word = self.word()?;
        self.skip();
        Some(word)
    }

    pub(crate) fn eat(&mut self, word: &str) -> bool {
        self.eat_all(&[word])
    }

    pub(crate) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    /// Skips these words if all of them come next; otherwise skips nothing.
    pub(crate) fn eat_all(&mut self, words: &[&str]) -> bool {
        let matches = words.len() <= self.tokens.len()
            && words.iter().zip(self.tokens).all(|(word, token)| {
                token.kind == TokenKind::Ident && token.text(self.text).eq_ignore_ascii_case(word)
            });
        if matches {
            self.tokens = &self.tokens[words.len()..];
        }
        matches
    }

    pub(crate) fn eat_kind(&mut self, kind: TokenKind) -> bool {
        let matches = self.at_kind(kind);
        if matches {
            self.skip();
        }
        matches
    }

    /// Whether this unquoted word occurs anywhere.
    pub(crate) fn contains(&self, word: &str) -> bool {
        let mut words = self.tokens.iter().filter_map(|token| token.word(self.text));
        words.any(|found| found == word)
    }

    /// Whether these unquoted words occur anywhere, one directly after the other.
    pub(crate) fn contains_phrase(&self, words: &[&str]) -> bool {
        let mut ahead = self.clone();
        while !ahead.at_end() {
            if ahead.eat_all(words) {
                return true;
            }
            ahead.skip();
        }
        false
    }

    /// Whether a table constraint comes next, in a place where a column could be defined.
    pub(crate) fn at_constraint(&self) -> bool {
        let mut ahead = self.clone();
        match ahead.next_word().as_deref() {
            Some("constraint" | "check" | "unique" | "primary" | "foreign" | "not") => true,
            // `exclude` can also be the name of a column.
            Some("exclude") => ahead.eat("using") || ahead.eat_kind(TokenKind::OpenParen),
            _ => false,
        }
    }

    /// Whether a function is called: a name that is not a keyword, directly before a parenthesis.
    pub(crate) fn calls_function(&self) -> bool {
        self.tokens.windows(2).any(|pair| {
            let name = &pair[0];
            let callable = match name.kind {
                TokenKind::QuotedIdent { .. } => true,
                TokenKind::Ident => {
                    let word = name.text(self.text).to_ascii_lowercase();
                    // EXISTS (…), VALUES (…) and ROW (…) are syntax, though not reserved.
                    !is_reserved(&word) && !["exists", "row", "values"].contains(&word.as_str())
                }
                _ => false,
            };
            callable && pair[1].kind == TokenKind::OpenParen
        })
    }

    pub(crate) fn at_kind(&self, kind: TokenKind) -> bool {
        self.tokens.first().is_some_and(|token| token.kind == kind)
    }

    /// Takes what is in the parentheses that come next, and skips these.
    pub(crate) fn take_parenthesized(&mut self) -> Option<Cursor<'a>> {
        let mut depth = 0_usize;
        let end = self.tokens.iter().position(|token| {
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })?;
        let inside = self.tokens.get(1..end)?;
        self.tokens = &self.tokens[end + 1..];
        Some(Cursor::new(self.text, inside))
    }

    /// Takes everything up to the next comma outside parentheses, and skips the comma.
    pub(crate) fn take_list_item(&mut self) -> Cursor<'a> {
        let mut depth = 0_usize;
        let end = self.tokens.iter().position(|token| {
            match token.kind {
                TokenKind::OpenParen | TokenKind::OpenBracket => depth += 1,
                TokenKind::CloseParen | TokenKind::CloseBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.kind == TokenKind::Comma
        });
        let (item, rest) = match end {
            Some(comma) => (&self.tokens[..comma], &self.tokens[comma + 1..]),
            None => (self.tokens, &self.tokens[..0]),
        };
        self.tokens = rest;
        Cursor::new(self.text, item)
    }

    /// A name without a schema.
    pub(crate) fn identifier(&mut self) -> Option<String> {
        let name = identifier(self.text, self.tokens.first()?)?;
        self.skip();
        Some(name)
    }

    /// A column, which `ALTER INDEX` and similar statements may give by its number.
    pub(crate) fn identifier_or_number(&mut self) -> Option<String> {
        if let Some(Token {
            kind: TokenKind::Literal { .. },
            ..
        }) = self.tokens.first()
        {
            let number = self.tokens[0].text(self.text).to_owned();
            self.skip();
            return Some(number);
        }
        self.identifier()
    }

    /// `name`, `schema.name`, or `database.schema.name`, where the database can only be the current one.
    pub(crate) fn name(&mut self) -> Option<ObjectName> {
        let mut name = ObjectName {
            schema: None,
            name: self.identifier()?,
        };
        while self.eat_kind(TokenKind::Dot) {
            let next = self.identifier()?;
            name.schema = Some(std::mem::replace(&mut name.name, next));
        }
        Some(name)
    }

    /// A table, with or without its child tables: `name`, `ONLY name`, `ONLY (name)`, `name *`.
    pub(crate) fn relation(&mut self) -> Option<ObjectName> {
        let only = self.eat("only");
        let parenthesis = only && self.eat_kind(TokenKind::OpenParen);
        let name = self.name()?;
        if parenthesis {
            self.eat_kind(TokenKind::CloseParen).then_some(())?;
        }
        self.eat_kind(TokenKind::Star);
        Some(name)
    }

    /// `a, b.c, ONLY d`.
    pub(crate) fn names(&mut self) -> Option<Vec<ObjectName>> {
        let mut names = vec![self.relation()?];
        while self.eat_kind(TokenKind::Comma) {
            names.push(self.relation()?);
        }
        Some(names)
    }
}
