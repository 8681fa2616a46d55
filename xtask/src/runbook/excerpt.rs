//! Where in a migration file a statement failed: file, line, column, and a caret.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use squawk_lexer::TokenKind;

use crate::migration::script::Script;
use crate::migration::sql::{self, Statement, position};
use crate::tools::psql::SessionError;
use crate::tools::sql_error::Position;

/// A longer source line is cut.
const WIDTH: usize = 140;
/// More than can be shown to either side of a place, in bytes.
const NEAR: usize = 1000;

/// The place as a compiler shows it, if the error arose in the file.
///
/// psql says at which line of its input the statement ended, the server at which line of the
/// statement the fault is. Both lines are the file's own, because files are fed as they are.
pub(crate) fn of(script: &Script, error: &SessionError) -> Option<String> {
    let (statements, ended_at) = failed_of(script, error)?;
    let (&last, before) = statements.split_last()?;
    let message = &error.message;
    let byte = match (&message.position, &message.query) {
        (Some(fault), None) => statements.iter().find_map(|statement| {
            if error.has_lead && statement.range == script.statements[0].range {
                // Sent together with all that stands before it, below a line of ours.
                let line = fault.line.checked_sub(1)?;
                return byte_of(script, 0, line, fault);
            }
            // A statement that was fed alone was fed without a comment before it.
            let sent_from = error.statement.unwrap_or(statement.sent_from);
            byte_of(script, sent_from, fault.line, fault)
        }),
        // The position is one in a query that a function or a DO block has put together.
        (Some(fault), Some(_)) if before.is_empty() => only_mention(script, last, fault),
        _ => None,
    };
    Some(match byte {
        Some(byte) => pointer(script, byte),
        None if before.is_empty() => pointer(script, last.range.start),
        // Without a position nothing tells the statements of one line apart.
        None => any_of(script, ended_at, &statements),
    })
}

/// The statements of which one has failed: mostly a single one.
pub(crate) fn failed_statements<'s>(
    script: &'s Script,
    error: &SessionError,
) -> Vec<&'s Statement> {
    failed_of(script, error).map_or_else(Vec::new, |(statements, _)| statements)
}

/// Those of which one has failed, and the line on which they end.
fn failed_of<'s>(script: &'s Script, error: &SessionError) -> Option<(Vec<&'s Statement>, usize)> {
    Some(match (error.statement, error.body_line) {
        (Some(start), _) => {
            let mut statements = script.statements.iter();
            let alone = statements.find(|one| one.range.start == start)?;
            (vec![alone], end_line(script, alone))
        }
        (None, line) => (ending_on(script, line?), line?),
    })
}

/// The statements that end on this line; a last one without `;` ends where we have added that.
fn ending_on(script: &Script, line: usize) -> Vec<&Statement> {
    let ending: Vec<&Statement> = script
        .statements
        .iter()
        .filter(|statement| statement.terminated && end_line(script, statement) == line)
        .collect();
    if !ending.is_empty() {
        return ending;
    }
    let last = script.statements.last();
    last.into_iter()
        .filter(|last| !last.terminated && end_line(script, last) <= line)
        .collect()
}

/// The line of the `;`, which may stand below the last word; without one, that of the last word.
fn end_line(script: &Script, statement: &Statement) -> usize {
    let end = statement.range.end;
    let semicolon = sql::lex(&script.text[end..])
        .take_while(|_| statement.terminated)
        .find(|token| token.kind == TokenKind::Semi)
        .map_or(0, |token| token.range.start);
    position(&script.text, end + semicolon).0
}

/// The byte in the file that the caret stands below.
fn byte_of(script: &Script, sent_from: usize, line: usize, fault: &Position) -> Option<usize> {
    let (line_start, line) = lines(&script.text[sent_from..]).nth(line.checked_sub(1)?)?;
    let line_start = sent_from + line_start;
    // As libpq shows it; no byte moves.
    let line = line.replace('\t', " ");
    let caret = |shown: &str, characters: usize| -> usize {
        shown.chars().take(characters).map(char::len_utf8).sum()
    };
    let whole = fault.text.trim_end();
    if line.starts_with(whole) {
        return Some(line_start + caret(whole, fault.caret));
    }
    // libpq cuts a long line to what fits a screen and marks the cut ends with three dots.
    let right = whole.strip_suffix("...").unwrap_or(whole);
    let (shown, characters) = match right.strip_prefix("...") {
        Some(shown) => (shown, fault.caret.saturating_sub(3)),
        None => (right, fault.caret),
    };
    let at = line.find(shown)?;
    let byte = line_start + at + caret(shown, characters);
    script.text.is_char_boundary(byte).then_some(byte)
}

/// Each line with the byte where it begins; as libpq does, a carriage return ends one too.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let rest = &text[start..];
        let length = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let end = &rest[length..];
        let ending = if end.starts_with("\r\n") { 2 } else { 1 };
        next = (!end.is_empty()).then_some(start + length + ending);
        Some((start, &rest[..length]))
    })
}

/// Where the statement has the word under the caret, if it has it once.
fn only_mention(script: &Script, statement: &Statement, fault: &Position) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let word: String = fault
        .text
        .chars()
        .skip(fault.caret)
        .take_while(|&c| is_part(c))
        .collect();
    if word.is_empty() {
        return None;
    }
    let text = statement.text(&script.text);
    let mut mentions = text.match_indices(&word).filter(|(at, word)| {
        !text[..*at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    });
    let (at, _) = mentions.next()?;
    mentions
        .next()
        .is_none()
        .then_some(statement.range.start + at)
}

/// `file:line:column`, the line, and a caret below it.
fn pointer(script: &Script, byte: usize) -> String {
    let (line, column) = position(&script.text, byte);
    let place = format!("{}:{line}:{column}", script.path.display());
    drawn(script, &place, line, byte..byte, None)
}

/// `file:line` and the line, where it has several statements and any may be meant.
fn any_of(script: &Script, line: usize, statements: &[&Statement]) -> String {
    let place = format!("{}:{line}", script.path.display());
    let remark = format!(
        "one of the {} statements that end on this line",
        statements.len()
    );
    let start = statements.first().map_or(0, |first| first.range.start);
    let end = statements.last().map_or(0, |last| last.range.end);
    drawn(script, &place, line, start..end, Some(&remark))
}

/// The line with a mark below this part of it; a long line is cut to what fits a screen.
fn drawn(
    script: &Script,
    place: &str,
    line: usize,
    part: Range<usize>,
    remark: Option<&str>,
) -> String {
    let text = &script.text;
    let lines_before = text.split_inclusive('\n').take(line - 1);
    let before: usize = lines_before.map(str::len).sum();
    let end = before + text[before..].lines().next().map_or(0, str::len);
    let part = part.start.clamp(before, end)..part.end.clamp(before, end);
    // What is far from it is not shown anyway, and may be the whole of a large file.
    let from = text.floor_char_boundary(part.start.saturating_sub(NEAR).max(before));
    let to = text.ceil_char_boundary(part.start.saturating_add(NEAR).min(end));
    let part = part.start - from..part.end.min(to) - from;
    let mark = AnnotationKind::Primary.span(part).label(remark);
    let snippet = Snippet::source(&text[from..to])
        .line_start(line)
        .annotation(mark);
    let drawn = Renderer::plain()
        .term_width(WIDTH)
        .render(&[Group::with_level(Level::ERROR).element(snippet)]);
    let space = " ".repeat(line.to_string().len());
    format!("{space}--> {place}\n{drawn}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::migration::script::Role;
    use crate::tools::sql_error::ServerMessage;

    /// The excerpt of a file in which the statement that ends on a line failed.
    fn excerpt(text: &str, ended_at: usize, fault: Option<(usize, &str, usize)>) -> Option<String> {
        let script = Script::parse(Path::new("a.sql"), text.into(), Role::Up).expect("parses");
        let position = fault.map(|(line, text, caret)| Position {
            line,
            text: text.to_owned(),
            caret,
        });
        let error = SessionError {
            message: ServerMessage {
                position,
                ..ServerMessage::default()
            },
            statement: None,
            body_line: Some(ended_at),
            after_line: None,
            has_lead: false,
        };
        of(&script, &error)
    }

    #[test]
    fn a_comment_may_hold_a_semicolon() {
        let text = "SELECT 1 -- a;b\n/* ; */\n;\nSELECT 2;\n";
        let excerpt = excerpt(text, 3, None).expect("an excerpt");
        assert_eq!(excerpt, " --> a.sql:1:1\n  |\n1 | SELECT 1 -- a;b\n  | ^");
    }

    #[test]
    fn nothing_is_shown_for_a_line_where_no_statement_ends() {
        assert_eq!(excerpt("SELECT 1;\n\nSELECT 2;\n", 2, None), None);
        assert_eq!(excerpt("-- nothing\n", 1, None), None);
    }

    #[test]
    fn three_dots_in_the_file_are_not_taken_for_a_cut() {
        let text = "SELECT '\n...', b\n'...';\n";
        let excerpt = excerpt(text, 3, Some((2, "...', b", 6))).expect("an excerpt");
        assert_eq!(excerpt, " --> a.sql:2:7\n  |\n2 | ...', b\n  |       ^");
    }

    #[test]
    fn every_way_to_end_a_line_is_one() {
        let starts: Vec<_> = lines("a\nb\r\nc\rd\n\ne").collect();
        assert_eq!(
            starts,
            [(0, "a"), (2, "b"), (5, "c"), (7, "d"), (9, ""), (10, "e")]
        );
        assert_eq!(lines("").collect::<Vec<_>>(), [(0, "")]);
    }
}
