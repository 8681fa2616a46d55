//! What psql says on stderr, read by its structure: severity words and messages come in the
//! server's language, so only SQLSTATEs and psql's own labels (run under `LC_ALL=C`) are matched.

use crate::error::Failure;

use unicode_width::UnicodeWidthChar as _;

/// One message of the server, as `VERBOSITY=verbose` prints it.
///
/// The form is libpq's (`pqBuildErrorMessage3`): `SEVERITY:  SQLSTATE: message`, then `LINE n:` with a
/// caret line, then `DETAIL:`, `HINT:`, `QUERY:`, `CONTEXT:`, object names and `LOCATION:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerMessage {
    pub(crate) sqlstate: Option<String>,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) context: Option<String>,
    /// The query that a function or a `DO` block has put together, if the error is in that.
    pub(crate) query: Option<String>,
    /// The server's routine that raised it: its name is in no language.
    pub(crate) routine: Option<String>,
    /// The line of psql's input at which the failing statement ended, from 1.
    pub(crate) input_line: Option<usize>,
    /// Where in `query`, or else in the statement, if the server said so.
    pub(crate) position: Option<Position>,
}

/// `LINE n: text` and the caret below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Line within the statement, from 1.
    pub(crate) line: usize,
    /// The line as libpq shows it: tabs are spaces, and a long line is cut (`...` at the cut ends).
    pub(crate) text: String,
    /// Offset of the caret in `text`, in characters.
    pub(crate) caret: usize,
}

impl ServerMessage {
    /// It as a failure.
    pub(crate) fn failure(&self) -> Failure {
        let mut failure = Failure::failed(self.message.clone());
        failure
            .causes
            .extend(self.detail.iter().map(|text| format!("DETAIL: {text}")));
        failure
            .causes
            .extend(self.query.iter().map(|text| format!("QUERY: {text}")));
        failure
            .causes
            .extend(self.context.iter().map(|text| format!("CONTEXT: {text}")));
        failure.server_hint = self.hint.clone();
        failure.sqlstate = self.sqlstate.clone();
        failure
    }

    /// Whether a commit no longer waits for a synchronous standby, since it was cancelled: it stands all
    /// the same. 01000 is any warning.
    pub(crate) fn gave_up_standby(&self) -> bool {
        self.sqlstate.as_deref() == Some("01000")
            && self.routine.as_deref() == Some("SyncRepWaitForLSN")
    }
}

/// Splits psql's stderr into the messages it holds.
pub(crate) fn parse(stderr: &str) -> Vec<ServerMessage> {
    let mut messages: Vec<Vec<&str>> = Vec::new();
    for line in stderr.lines() {
        let starts = strip_psql_prefix(line).is_some();
        match messages.last_mut() {
            Some(message) if !starts => message.push(line),
            _ => messages.push(vec![line]),
        }
    }
    messages.iter().map(|lines| parse_one(lines)).collect()
}

/// `psql:<stdin>:12: rest` or `psql: rest`.
fn strip_psql_prefix(line: &str) -> Option<(Option<usize>, &str)> {
    if let Some(rest) = line.strip_prefix("psql:<stdin>:") {
        let (number, rest) = rest.split_once(": ")?;
        return Some((Some(number.parse().ok()?), rest));
    }
    line.strip_prefix("psql: ").map(|rest| (None, rest))
}

fn parse_one(lines: &[&str]) -> ServerMessage {
    let mut result = ServerMessage::default();
    let Some((&first, rest)) = lines.split_first() else {
        return result;
    };
    let (input_line, first) = strip_psql_prefix(first).unwrap_or((None, first));
    result.input_line = input_line;
    let (sqlstate, message) = split_sqlstate(first);
    result.sqlstate = sqlstate.map(str::to_owned);
    result.message = message.to_owned();

    let mut field = Field::Message;
    let mut rest = rest.iter().peekable();
    while let Some(&line) = rest.next() {
        if let Some((number, text)) = source_line(line) {
            let caret = rest.next_if(|line| line.trim() == "^");
            result.position = caret.map(|caret| position(number, line, text, caret));
        } else if let Some((label, text)) = labelled(line) {
            field = label;
            field.append(&mut result, text);
        } else {
            field.append(&mut result, line);
        }
    }
    result
}

/// The part of a message that a line without a label continues.
#[derive(Clone, Copy)]
enum Field {
    Message,
    Detail,
    Hint,
    Context,
    Query,
    Routine,
    Other,
}

impl Field {
    fn append(self, message: &mut ServerMessage, text: &str) {
        let slot = match self {
            Field::Message => {
                message.message.push('\n');
                message.message.push_str(text);
                return;
            }
            Field::Detail => &mut message.detail,
            Field::Hint => &mut message.hint,
            Field::Context => &mut message.context,
            Field::Query => &mut message.query,
            Field::Routine => {
                let name = text.split_once(", ").map_or(text, |(name, _)| name);
                message.routine = Some(name.to_owned());
                return;
            }
            Field::Other => return,
        };
        match slot {
            Some(so_far) => {
                so_far.push('\n');
                so_far.push_str(text);
            }
            None => *slot = Some(text.to_owned()),
        }
    }
}

fn labelled(line: &str) -> Option<(Field, &str)> {
    let (label, text) = line.split_once(":  ")?;
    let field = match label {
        "DETAIL" => Field::Detail,
        "HINT" => Field::Hint,
        "CONTEXT" => Field::Context,
        "QUERY" => Field::Query,
        "LOCATION" => Field::Routine,
        "SCHEMA NAME" | "TABLE NAME" | "COLUMN NAME" | "DATATYPE NAME" | "CONSTRAINT NAME" => {
            Field::Other
        }
        _ => return None,
    };
    Some((field, text))
}

/// `LINE 3: text`.
fn source_line(line: &str) -> Option<(usize, &str)> {
    let (number, text) = line.strip_prefix("LINE ")?.split_once(": ")?;
    Some((number.parse().ok()?, text))
}

fn position(number: usize, line: &str, text: &str, caret_line: &str) -> Position {
    let label = line.chars().count() - text.chars().count();
    let columns = caret_line.chars().count().saturating_sub(label + 1);
    Position {
        line: number,
        text: text.to_owned(),
        caret: characters_in(text, columns),
    }
}

/// How many characters fill so many columns of a screen. libpq counts two for a wide character and
/// one for any other, a combining one too (`reportErrorPosition`).
fn characters_in(text: &str, columns: usize) -> usize {
    let mut filled = 0;
    text.chars()
        .take_while(|c| {
            let fits = filled < columns;
            filled += c.width().unwrap_or(1).max(1);
            fits
        })
        .count()
}

/// `ERROR:  42P01: relation …` into its SQLSTATE and message, whatever the word for ERROR is.
fn split_sqlstate(text: &str) -> (Option<&str>, &str) {
    let Some((_, rest)) = text.split_once(":  ") else {
        return (None, text);
    };
    match rest.split_once(": ") {
        Some((code, message)) if is_sqlstate(code) => (Some(code), message),
        _ => (None, rest),
    }
}

fn is_sqlstate(code: &str) -> bool {
    code.len() == 5
        && code
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_in_any_language() {
        let stderr = "psql:<stdin>:9: NOTICE:  42701: column »x« exists, skipping\n\
            LOCATION:  check_for_column_name_collision, tablecmds.c:7182\n\
            psql:<stdin>:12: FEHLER:  42P01: Relation »usrs« existiert nicht\n\
            LINE 3: ALTER TABLE usrs ADD COLUMN a int\n        \
                                ^\n\
            HINT:  erste Zeile\nzweite Zeile\n\
            LOCATION:  RangeVarGetRelidExtended, namespace.c:433\n";
        let messages = parse(stderr);
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].sqlstate.as_deref(), Some("42701"));
        let error = &messages[1];
        assert_eq!(error.sqlstate.as_deref(), Some("42P01"));
        assert_eq!(error.message, "Relation »usrs« existiert nicht");
        assert_eq!(error.hint.as_deref(), Some("erste Zeile\nzweite Zeile"));
        assert_eq!(error.routine.as_deref(), Some("RangeVarGetRelidExtended"));
        assert_eq!(error.input_line, Some(12));
        let position = error.position.as_ref().expect("a position");
        assert_eq!((position.line, position.caret), (3, 0));
    }

    /// As psql 15.18 prints them, whose libpq cuts to 60 columns.
    #[test]
    fn the_caret_is_found_in_lines_that_are_cut_or_wide() {
        let table = [
            (format!("...{}', b, 'cccccc...", "a".repeat(47)), 61),
            (format!("...{}', b, 'üüüüüü...", "ä".repeat(47)), 61),
            (format!("...{}', b, '漢漢漢...", "漢".repeat(23)), 60),
            ("SELECT '...', b;".to_owned(), 22),
        ];
        for (line, column) in table {
            let stderr = format!(
                "psql:<stdin>:1: ERROR:  42703: column \"b\" does not exist\nLINE 1: {line}\n{}^\n",
                " ".repeat(column)
            );
            let message = &parse(&stderr)[0];
            let position = message.position.as_ref().expect("a position");
            assert_eq!(
                position.text.chars().nth(position.caret),
                Some('b'),
                "{line}"
            );
        }
    }

    #[test]
    fn a_query_inside_a_function_is_told_from_the_statement() {
        let stderr = "psql:<stdin>:4: ERROR:  42883: function nope() does not exist\n\
             LINE 1: SELECT nope()\n               ^\n\
             HINT:  No function matches.\n\
             QUERY:  SELECT nope()\n\
             CONTEXT:  PL/pgSQL function inline_code_block line 3 at PERFORM\n";
        let message = &parse(stderr)[0];
        assert_eq!(message.query.as_deref(), Some("SELECT nope()"));
        assert!(
            message
                .context
                .as_deref()
                .is_some_and(|text| text.contains("line 3"))
        );
    }

    #[test]
    fn what_psql_says_itself_has_no_sqlstate() {
        let messages =
            parse("psql:<stdin>:4: server closed the connection unexpectedly\n\tThis…\n");
        assert_eq!(messages[0].sqlstate, None);
        assert_eq!(messages[0].input_line, Some(4));
    }
}
