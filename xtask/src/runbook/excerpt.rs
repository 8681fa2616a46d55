//! Where in a migration file a statement failed: file, line, column, and a caret.

use crate::migration::script::Script;
use crate::migration::sql::{Statement, position};
use crate::tools::psql::SessionError;
use crate::tools::sql_error::Position;

/// The place as a compiler shows it, if the error arose in the file.
///
/// psql says at which line of its input the statement ended, the server at which line of the
/// statement the fault is. Both lines are the file's own, because files are fed as they are.
pub(crate) fn of(script: &Script, error: &SessionError) -> Option<String> {
    let fault = error.message.position.as_ref();
    let statement = match error.statement {
        Some(start) => script
            .statements
            .iter()
            .find(|statement| statement.range.start == start)?,
        None => failing(script, error.body_line?, fault)?,
    };
    // A statement that was fed alone was fed without a comment before it.
    let sent_from = error.statement.unwrap_or(statement.sent_from);
    let byte = fault
        .and_then(|fault| byte_of(script, sent_from, statement, fault))
        .unwrap_or(statement.range.start);
    let (line, column) = position(&script.text, byte);
    let source = script.text.lines().nth(line - 1).unwrap_or_default();
    // Tabs keep their width before the caret.
    let indent: String = source
        .chars()
        .take(column - 1)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let gutter = line.to_string();
    let space = " ".repeat(gutter.len());
    Some(format!(
        "{space}--> {}:{line}:{column}\n{space} |\n{gutter} | {source}\n{space} | {indent}^",
        script.path.display()
    ))
}

/// The statement that ends on this line; where several do, the one that holds the faulty text.
fn failing<'a>(
    script: &'a Script,
    ended_at: usize,
    fault: Option<&Position>,
) -> Option<&'a Statement> {
    let mut candidates = script
        .statements
        .iter()
        .filter(|statement| end_line(script, statement) == ended_at);
    let first = candidates.clone().next();
    match fault {
        Some(fault) => candidates
            .find(|statement| byte_of(script, statement.sent_from, statement, fault).is_some())
            .or(first),
        None => first,
    }
    // A last statement without `;` ends where we added one: behind the file's end.
    .or_else(|| script.statements.last())
}

fn end_line(script: &Script, statement: &Statement) -> usize {
    // The `;` may stand on a later line than the last token.
    let rest = &script.text[statement.range.end..];
    let semicolon = if statement.terminated {
        rest.find(';').unwrap_or(0)
    } else {
        0
    };
    position(&script.text, statement.range.end + semicolon).0
}

/// The byte in the file that the caret stands below.
fn byte_of(
    script: &Script,
    sent_from: usize,
    statement: &Statement,
    fault: &Position,
) -> Option<usize> {
    let sent = &script.text[sent_from..statement.range.end];
    let mut line_start = sent_from;
    for _ in 1..fault.line {
        line_start += sent[line_start - sent_from..].find('\n')? + 1;
    }
    let rest = &script.text[line_start..statement.range.end.max(line_start)];
    let line = rest.split('\n').next().unwrap_or_default();
    let shown = fault.text.trim_end_matches("...").trim_end();
    let at = line.find(shown)?;
    let caret: usize = fault
        .text
        .chars()
        .take(fault.caret)
        .map(char::len_utf8)
        .sum();
    Some(line_start + at + caret)
}
