//! Where the statements of a file begin and end, as both psql and the server see it, and how the
//! text has to be fed to psql so that exactly this SQL arrives. What a statement does is told by
//! `effects`.
//!
//! Tokens come from `squawk-lexer`, which follows the server's `scan.l`. Which semicolon ends a
//! statement is psql's rule (`src/fe_utils/psqlscan.l`): one outside of quotes, comments,
//! parentheses and the `BEGIN … END` body of a SQL-standard function.

use std::borrow::Cow;
use std::ops::Range;

use squawk_lexer::{LiteralKind, TokenKind};

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

    /// The lowercase of an unquoted word, which may be a keyword or a name.
    pub(crate) fn word(&self, source: &str) -> Option<String> {
        (self.kind == TokenKind::Ident).then(|| self.text(source).to_ascii_lowercase())
    }
}

/// One statement of a file. There are no empty ones.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// The bytes from the first token to the last, without comments around it and without the `;`.
    pub(crate) range: Range<usize>,
    /// Where the query that psql sends begins: at the statement, or at a block comment before it.
    /// Positions in the server's error messages count from here.
    pub(crate) sent_from: usize,
    /// Whether a `;` follows. Only the last statement of a file may go without.
    pub(crate) terminated: bool,
    /// All tokens but whitespace and comments; never empty.
    pub(crate) tokens: Vec<Token>,
}

impl Statement {
    pub(crate) fn text<'a>(&self, source: &'a str) -> &'a str {
        &source[self.range.clone()]
    }

    /// Its unquoted words in lowercase, without what stands between them.
    pub(crate) fn words(&self, source: &str) -> Vec<String> {
        let tokens = self.tokens.iter();
        tokens.filter_map(|token| token.word(source)).collect()
    }

    /// Whether this unquoted word stands anywhere in it.
    pub(crate) fn has_word(&self, source: &str, word: &str) -> bool {
        self.tokens
            .iter()
            .any(|token| token.word(source).as_deref() == Some(word))
    }
}

/// Why a text cannot be split into statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The byte where it begins: for something left open, where it was opened.
    pub(crate) at: usize,
    pub(crate) what: String,
    pub(crate) hint: String,
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

/// The statements of a file.
///
/// # Errors
/// The first thing that psql would not send to the server as it stands: a backslash command, a
/// quote, comment, parenthesis or function body that is never closed, or a string that psql and
/// the server read differently.
pub(crate) fn split(text: &str) -> Result<Vec<Statement>, Fault> {
    let mut statements = Vec::new();
    let mut current = Unfinished::default();
    let mut continued = Continuation::default();
    for token in lex(text) {
        check_token(text, &token)?;
        check_number(text, &token)?;
        continued.check(text, &token)?;
        match token.kind {
            TokenKind::Semi if current.is_complete() => {
                statements.extend(std::mem::take(&mut current).finish(true));
            }
            _ => current.push(text, token),
        }
    }
    current.check_closed()?;
    statements.extend(current.finish(false));
    Ok(statements)
}

/// A statement whose end is not yet found.
#[derive(Default)]
struct Unfinished {
    tokens: Vec<Token>,
    sent_from: Option<usize>,
    /// Where each open parenthesis stands.
    parentheses: Vec<usize>,
    /// Where each open `BEGIN` or `CASE` of a function body stands.
    blocks: Vec<usize>,
    /// The first four unquoted words; psql decides by them whether this defines a routine.
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

    fn check_closed(&self) -> Result<(), Fault> {
        let parenthesis = self.parentheses.first().map(|at| (at, "`(`", "`)`"));
        let block = self.blocks.first().map(|at| (at, "`BEGIN`", "`END`"));
        match parenthesis.or(block) {
            Some((&at, opened, wanted)) => Err(Fault {
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

/// Refuses a token that never ends, and a backslash.
fn check_token(text: &str, token: &Token) -> Result<(), Fault> {
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

/// Refuses `1e$$`, `0x1$a$` and the like: where the number ends and whether a quote begins differs
/// between versions of psql and the server, and all since 15 call it an error anyway.
fn check_number(text: &str, token: &Token) -> Result<(), Fault> {
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
        return Err(Fault {
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

fn never_closed(what: &str, wanted: &str, token: &Token) -> Fault {
    Fault {
        at: token.range.start,
        what: format!("the {what} opened here is never closed"),
        hint: format!("add the missing `{wanted}`"),
    }
}

fn backslash(text: &str, token: &Token) -> Fault {
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
    Fault {
        at: token.range.start,
        what: format!("`{command}` is a command of psql, not SQL"),
        hint: hint.to_owned(),
    }
}

/// Watches for `E'…'` continued by `'…'` on a later line. There the server still reads backslash
/// escapes, but psql, which scans line by line, takes the second part for a plain string: after
/// `'it\'s'` the two disagree about what is quoted (seen with psql 15.18).
#[derive(Default)]
struct Continuation {
    escaped: bool,
    newline: bool,
}

impl Continuation {
    fn check(&mut self, text: &str, token: &Token) -> Result<(), Fault> {
        match token.kind {
            TokenKind::Whitespace => self.newline |= token.text(text).contains(['\n', '\r']),
            TokenKind::LineComment => {}
            TokenKind::Literal {
                kind: LiteralKind::Str { .. },
            } if self.escaped && self.newline => {
                if token.text(text).contains('\\') {
                    return Err(Fault {
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

/// The text as psql has to be fed so that the server gets this SQL, line for line.
///
/// - A lone `:` before a name or a quote would be a psql variable (`[1:two]`); `\:` sends a colon.
/// - psql drops empty lines inside a statement, and the lines in error messages no longer count; a
///   space keeps them.
/// - What follows in the same session must not run into a last statement without `;` or into a
///   comment without a line end.
///
/// Nothing moves to another line, and columns move only by the backslashes.
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

/// What to insert before which byte.
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

/// The line and column of a byte, both from 1, the column in characters.
pub(crate) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str) -> Vec<&str> {
        let statements = split(text).unwrap();
        statements.iter().map(|one| one.text(text)).collect()
    }

    fn fed(text: &str) -> Cow<'_, str> {
        for_psql(text, &split(text).unwrap())
    }

    #[test]
    fn splits_where_psql_does() {
        let atomic = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql \
                      BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END";
        let schema = "CREATE TABLE t (a int DEFAULT (1), CHECK (a > ';'::text::int))";
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("-- nothing\n/* at all */ ;;\n", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; ; SELECT 2 ;", &["SELECT 1", "SELECT 2"]),
            ("a; -- b; c\n/* ; /* ; */ ; */ d;", &["a", "d"]),
            ("/* x */ a /* y */ -- z\n;", &["a"]),
            (
                "SELECT ';', E'\\';', U&';', \";\", B'0', X'0'; b",
                &["SELECT ';', E'\\';', U&';', \";\", B'0', X'0'", "b"],
            ),
            ("SELECT 'it''s;'; b", &["SELECT 'it''s;'", "b"]),
            ("SELECT '\\'; b", &["SELECT '\\'", "b"]),
            ("DO $$ a; $x$ ; $$; b", &["DO $$ a; $x$ ; $$", "b"]),
            ("DO $é$ $é ; $$ $é$; b", &["DO $é$ $é ; $$ $é$", "b"]),
            ("SELECT a$b$;c$b$", &["SELECT a$b$", "c$b$"]),
            ("SELECT $1; b", &["SELECT $1", "b"]),
            (
                "CREATE RULE r AS ON INSERT TO t DO (a; b); c",
                &["CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"],
            ),
            ("a); b", &["a)", "b"]),
            (atomic, &[atomic]),
            (schema, &[schema]),
            (
                "CREATE TABLE begin (a int); b",
                &["CREATE TABLE begin (a int)", "b"],
            ),
            (
                "BEGIN; END; BEGIN; COMMIT",
                &["BEGIN", "END", "BEGIN", "COMMIT"],
            ),
            ("SELECT E'a'\n'b;'; c", &["SELECT E'a'\n'b;'", "c"]),
            ("a;\r\nb;\r\n", &["a", "b"]),
        ];
        for (text, expected) in table {
            assert_eq!(statements(text), *expected, "{text}");
        }
        let both = format!("{atomic};\nSELECT 1;");
        assert_eq!(statements(&both), [atomic, "SELECT 1"]);
    }

    #[test]
    fn knows_where_a_statement_stands() {
        let text = "-- a\n/* b */ c /* d */;\n-- e\nf";
        let statements = split(text).unwrap();
        let facts: Vec<_> = statements
            .iter()
            .map(|one| (one.range.clone(), one.sent_from, one.terminated))
            .collect();
        assert_eq!(facts, [(13..14, 5, true), (29..30, 29, false)]);
    }

    #[test]
    fn refuses_what_psql_would_not_send() {
        let table = [
            (r"\echo hi", 0, r"`\echo` is a command of psql"),
            ("SELECT 1 \\gexec\n", 9, r"`\gexec` is a command of psql"),
            ("SELECT 1\\;SELECT 2;", 8, "`\\;SELECT` is a command"),
            ("COPY t FROM STDIN;\n1\n\\.\n", 21, r"`\.` is a command"),
            ("\\restrict abc\n", 0, r"`\restrict` is a command"),
            ("a; SELECT 'x;\n", 10, "the string opened here"),
            ("a; SELECT E'x\\'", 10, "the string opened here"),
            ("a; SELECT U&'x", 10, "the string opened here"),
            ("a; SELECT N'x", 10, "the string opened here"),
            ("a; SELECT B'x", 10, "the string opened here"),
            ("a; SELECT \"x", 10, "the quoted identifier opened here"),
            ("DO $do$ x $$", 3, "the dollar-quoted string opened here"),
            ("a /* /* */", 2, "the block comment opened here"),
            ("a; f((1); b;", 4, "the `(` opened here"),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; ",
                32,
                "the `BEGIN` opened here",
            ),
            ("a; SELECT 1e$$ $$", 10, "nothing separates the number `1e`"),
            ("SELECT 0x1$a$ $a$", 7, "nothing separates the number `0x1`"),
            ("SELECT E'a' -- b\n 'c\\'d'", 18, "psql reads the backslash"),
            ("SELECT E'a'\n'b'\n'c\\'d'", 16, "psql reads the backslash"),
        ];
        for (text, at, what) in table {
            let fault = split(text).unwrap_err();
            assert_eq!(fault.at, at, "{text}: {}", fault.what);
            assert!(fault.what.starts_with(what), "{text}: {}", fault.what);
            assert!(!fault.hint.is_empty(), "{text}");
        }
        let hint = split("DO $do$ x").unwrap_err().hint;
        assert_eq!(hint, "add the missing `$do$`");
    }

    #[test]
    fn leaves_backslashes_inside_quotes_alone() {
        for text in [
            r"SELECT '\echo'",
            r"SELECT E'\n', E'a' '\'",
            r#"SELECT "\x", $$\d$$ -- \i"#,
            r"/* \q */ SELECT 1",
            "SELECT E'a', b\n'\\'",
        ] {
            assert!(split(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn feeds_psql_the_same_sql() {
        let table = [
            ("SELECT 1;\n", "SELECT 1;\n"),
            ("", ""),
            ("-- only a comment", "-- only a comment\n"),
            ("SELECT 1;", "SELECT 1;\n"),
            ("SELECT 1", "SELECT 1\n;\n"),
            ("SELECT 1 -- end", "SELECT 1 -- end\n;\n"),
            ("SELECT 1\n", "SELECT 1\n;\n"),
            ("SELECT a[1:two];\n", "SELECT a[1\\:two];\n"),
            ("SELECT a[1:2];\n", "SELECT a[1\\:2];\n"),
            ("SELECT a[1 : two];\n", "SELECT a[1 : two];\n"),
            (
                "SELECT a[x:'1'], b[x:\"y\"], c:{d;\n",
                "SELECT a[x\\:'1'], b[x\\:\"y\"], c\\:{d;\n",
            ),
            ("SELECT a[:é];\n", "SELECT a[\\:é];\n"),
            (
                "SELECT a::int, f(b := 1), f(b:=c);\n",
                "SELECT a::int, f(b := 1), f(b:=c);\n",
            ),
            ("SELECT a:::b, a::::b;\n", "SELECT a::\\:b, a::::b;\n"),
            (
                "SELECT ':a', \":b\", $$:c$$ -- :d\n/* :e */;\n",
                "SELECT ':a', \":b\", $$:c$$ -- :d\n/* :e */;\n",
            ),
            ("a\n\n\nb;\n", "a\n \n \nb;\n"),
            ("'\n\n' $$\n\n$$ /*\n\n*/;\n", "'\n\n' $$\n\n$$ /*\n\n*/;\n"),
            ("a\r\n\r\nb;\r\n", "a\r\n\r\nb;\r\n"),
        ];
        for (text, expected) in table {
            assert_eq!(fed(text), expected, "{text}");
        }
        assert!(matches!(fed("SELECT a::int;\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn position_counts_characters_from_one() {
        let text = "aé\nüb\r\nc";
        let table = [
            (0, (1, 1)),
            (1, (1, 2)),
            (2, (1, 2)),
            (3, (1, 3)),
            (4, (2, 1)),
            (6, (2, 2)),
        ];
        for (byte, expected) in table {
            assert_eq!(position(text, byte), expected, "{byte}");
        }
        assert_eq!(position(text, text.len()), (3, 2));
        assert_eq!(position(text, 1000), (3, 2));
    }
}
