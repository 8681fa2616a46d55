//! Whether two texts are the same SQL: the same tokens, however they are laid out and commented.

use squawk_lexer::TokenKind;

use super::token::{Token, lex, position};

/// What counts of a text: a token, or a directive of ours.
struct Piece<'a> {
    text: &'a str,
    /// An unquoted word, whose case does not count.
    is_word: bool,
    /// What separates it from the token before it, where that matters.
    gap: &'a str,
    at: usize,
}

impl Piece<'_> {
    fn is_same(&self, other: &Piece<'_>) -> bool {
        let are_words = self.is_word && other.is_word;
        self.text == other.text || are_words && self.text.eq_ignore_ascii_case(other.text)
    }
}

/// What makes two texts different SQL, and where in the second; nothing, if only comments, white space and
/// the case of unquoted words differ.
///
/// White space counts between two operators, which may be one (`< =`), between two string constants, which are
/// one if a new line is between them, and after a lone colon, which may begin a variable of psql. Directives
/// count like tokens: they change what this tool does.
pub(crate) fn difference(before: &str, after: &str) -> Option<(usize, String)> {
    let (old, new) = (pieces(before), pieces(after));
    let differs = |(old, new): (&Piece<'_>, &Piece<'_>)| !old.is_same(new) || old.gap != new.gap;
    let Some(first) = old.iter().zip(&new).position(differs) else {
        let common = old.len().min(new.len());
        return match (old.get(common), new.get(common)) {
            (None, None) => None,
            (Some(gone), _) => Some((after.len(), format!("{} is gone", shown(gone.text)))),
            (None, Some(added)) => Some((added.at, format!("{} was added", shown(added.text)))),
        };
    };
    let (old, new) = (&old[first], &new[first]);
    let what = match old.is_same(new) {
        true => format!(
            "the white space before {} changes what it means",
            shown(new.text)
        ),
        false => format!("{} was {}", shown(new.text), shown(old.text)),
    };
    Some((new.at, what))
}

/// The line and column of a byte, as `FILE:LINE:COLUMN` has them.
pub(crate) fn place(text: &str, byte: usize) -> String {
    let (line, column) = position(text, byte);
    format!("{line}:{column}")
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut last: Option<Token> = None;
    let (mut commented, mut colons) = (false, 0);
    for token in lex(text) {
        let at = token.range.start;
        if token.is_trivia() {
            commented |= token.kind != TokenKind::Whitespace;
            pieces.extend(directive(&token, text).map(|text| Piece {
                text,
                is_word: false,
                gap: "",
                at,
            }));
            continue;
        }
        let between = last.as_ref().map(|last| &text[last.range.end..at]);
        // `::` is a cast and `:=` an operator; a colon that is left over is the one before a variable.
        let adjacent = between == Some("");
        let after_colon = colons % 2 == 1;
        let gap = match (&last, between) {
            (Some(last), Some(between)) if is_string(last) && is_string(&token) => {
                match (commented, between) {
                    (true, between) => between,
                    (false, "") => "",
                    (false, between) if between.contains(['\n', '\r']) => "\n",
                    (false, _) => " ",
                }
            }
            (Some(last), Some(_)) if is_operator(last) && is_operator(&token) || after_colon => {
                match adjacent {
                    true => "",
                    false => " ",
                }
            }
            _ => "",
        };
        let is_word = token.kind == TokenKind::Ident && !after_colon;
        pieces.push(Piece {
            text: token.text(text),
            is_word,
            gap,
            at,
        });
        colons = match token.kind {
            TokenKind::Colon if adjacent => colons + 1,
            TokenKind::Colon => 1,
            _ => 0,
        };
        (last, commented) = (Some(token), false);
    }
    pieces
}

/// As `script` reads directives.
fn directive<'a>(token: &Token, text: &'a str) -> Option<&'a str> {
    let comment = token.text(text).trim_start_matches('-').trim();
    comment.starts_with("xtask:").then_some(comment)
}

fn is_string(token: &Token) -> bool {
    use squawk_lexer::LiteralKind::{Int, Numeric};
    let TokenKind::Literal { kind } = token.kind else {
        return false;
    };
    !matches!(kind, Int { .. } | Numeric { .. })
}

/// What may become another token beside its like: operators, and what is none of SQL's tokens.
fn is_operator(token: &Token) -> bool {
    use TokenKind::{
        CloseBracket, CloseParen, Comma, Ident, Literal, OpenBracket, OpenParen, PositionalParam,
        QuotedIdent, Semi,
    };
    !matches!(
        token.kind,
        CloseBracket
            | CloseParen
            | Comma
            | Ident
            | Literal { .. }
            | OpenBracket
            | OpenParen
            | PositionalParam { .. }
            | QuotedIdent { .. }
            | Semi
    )
}

/// The beginning of a token, for a message.
fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &line[..end]),
        None if line.len() < text.len() => format!("`{line}…`"),
        None => format!("`{line}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_comments_and_the_case_of_words_do_not_count() {
        for (before, after, why) in [
            (
                "SELECT 1;",
                "-- © 2026 Us\n/* MIT */\nSELECT 1;\n",
                "a licence header",
            ),
            (
                "SELECT 1;\nSELECT 2;\n",
                "SELECT 1;\r\nSELECT 2;\r\n",
                "line ends",
            ),
            (
                "select a from B where c=1",
                "SELECT a\n  FROM b\n WHERE C = 1",
                "a formatter",
            ),
            ("f (a,b)", "f(a, b)", "parentheses and commas stand alone"),
            ("a::INT", "a::int", "a cast is no variable"),
            (
                "a :: int",
                "a::int",
                "a cast may be written apart, but its two colons not",
            ),
            (
                "date'2026-01-01'",
                "date '2026-01-01'",
                "a type before a constant",
            ),
            (
                "'a'\n'b'",
                "'a'\r\n    'b'",
                "a constant that is continued stays so",
            ),
            ("'a'   'b'", "'a' 'b'", "an error stays one"),
            ("-1", "- 1", "the sign is an operator before the number"),
            (
                "a - -1",
                "a -/* twice */-1",
                "a comment separates as a space does",
            ),
            ("a/*x*/b", "a b", "words must be apart, by whatever"),
            ("x -- y\n", "x", "a comment at the end"),
            ("a.b", "a . b", "a qualified name"),
            (
                "-- xtask: backup t\nSELECT 1",
                "-- (c)\n--  xtask: backup t\n\nSELECT 1",
                "the same directive",
            ),
        ] {
            assert_eq!(
                difference(before, after),
                None,
                "{why}: {before:?} {after:?}"
            );
            assert_eq!(
                difference(after, before),
                None,
                "{why}: {after:?} {before:?}"
            );
        }
    }

    #[test]
    fn what_the_server_or_this_tool_could_read_differently_counts() {
        for (before, after, why) in [
            ("'a'\n'b'", "'a' 'b'", "one constant; an error"),
            (
                "'a'\n'b'",
                "'a' /* x */\n'b'",
                "a block comment ends the constant",
            ),
            (
                "'a' -- x\n'b'",
                "'a' /* x\n*/ 'b'",
                "a line comment does not",
            ),
            ("'a'\n'b'", "'ab'", "the same value, by other tokens"),
            ("'a''b'", "'a' 'b'", "a quote in a constant; two constants"),
            ("a < = b", "a <= b", "two operators, one"),
            ("- -1", "--1", "an operator; a comment"),
            ("a : : b", "a :: b", "two colons, a cast"),
            ("a : = b", "a := b", "a colon, an operator"),
            (
                "a = -1",
                "a =-1",
                "told apart by a rule that does not hold for every operator",
            ),
            ("a @ -1", "a @-1", "which is one operator"),
            ("1 .5", "1.5", "two numbers, one"),
            ("1 . 5", "1. 5", "the point is part of the number"),
            ("1e -5", "1e-5", "an exponent"),
            ("1 a", "1a", "servers since 15 refuse the second"),
            ("$1 a", "$1a", "a parameter"),
            ("a b", "ab", "words"),
            ("e 'a'", "e'a'", "a word; an escape string"),
            ("U& 'a'", "U&'a'", "an operator; Unicode escapes"),
            ("'a\nb'", "'a\r\nb'", "a line end inside a string"),
            (
                "$$a\nb$$",
                "$$a\r\nb$$",
                "a line end inside a function's body",
            ),
            (
                "$$ a $$",
                "$$ a -- comment\n $$",
                "a comment inside a body is its source",
            ),
            (
                "$a$x$a$",
                "$b$x$b$",
                "the tag is kept nowhere, but the token is another",
            ),
            ("\"A\"", "\"a\"", "a quoted name"),
            ("'A'", "'a'", "a value"),
            ("\"a\"", "a", "quoted or not"),
            ("É", "é", "case beyond ASCII depends on the server"),
            ("x[1:Foo]", "x[1:foo]", "a variable of psql"),
            ("x[1 : Foo]", "x[1 :Foo]", "a variable of psql, or none"),
            ("a::Foo:Bar", "a::foo:bar", "the colon that is left over"),
            ("SELECT 1;", "SELECT 1", "even what ends a statement"),
            ("SELECT 1", "SELECT 1; SELECT 2", "more"),
            ("SELECT 1; SELECT 2", "SELECT 1;", "less"),
            ("a,b", "a", "less, at the end"),
            ("a\u{a0}b", "a b", "a space that is none to the server"),
            (
                "SELECT 1",
                "-- xtask: lossless\nSELECT 1",
                "a directive is added",
            ),
            (
                "-- xtask: backup a\nSELECT 1",
                "-- xtask: backup b\nSELECT 1",
                "it changes",
            ),
            (
                "-- xtask: backup a\nSELECT 1",
                "SELECT 1\n-- xtask: backup a",
                "it no longer counts",
            ),
        ] {
            assert!(
                difference(before, after).is_some(),
                "{why}: {before:?} {after:?}"
            );
            assert!(
                difference(after, before).is_some(),
                "{why}: {after:?} {before:?}"
            );
        }
    }

    #[test]
    fn it_says_what_and_where() {
        for (before, after, at, what) in [
            ("a int", "/* */ a bigint", "1:9", "`bigint` was `int`"),
            ("a", "a\n, b", "2:1", "`,` was added"),
            ("a; b", "a\n", "2:1", "`;` is gone"),
            (
                "< =",
                "<=",
                "1:2",
                "the white space before `=` changes what it means",
            ),
            ("$$a\nb$$", "$$c\nb$$", "1:1", "`$$c…` was `$$a…`"),
        ] {
            let (byte, found) = difference(before, after).expect("they differ");
            assert_eq!((place(after, byte).as_str(), found.as_str()), (at, what));
        }
    }
}
