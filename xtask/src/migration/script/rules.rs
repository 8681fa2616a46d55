//! Which statements a file may contain.

use std::path::Path;

use squawk_lexer::TokenKind;

use super::check::{Check, Role, decode};
use super::directives::NO_TRANSACTION;
use super::transactions::{TransactionControl, transaction_control};
use crate::migration::sql::{self, Statement};

impl Check<'_> {
    pub(super) fn statements(&mut self, transactional: bool) -> Vec<Statement> {
        let statements = match sql::split(self.text) {
            Ok(statements) => statements,
            Err(error) => {
                self.problem(error.at, error.what, error.hint);
                return Vec::new();
            }
        };
        let mut open = None;
        for statement in &statements {
            let words = statement.words(self.text);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.quoting_changed(statement, &words);
            match (self.role, transaction_control(&words)) {
                (Role::Verify, _) => self.only_a_query(statement),
                (_, Some(verb)) if transactional => self.no_transaction_control(statement, &verb),
                (_, Some(verb)) => open = verb.opens.then_some(statement),
                (_, None) => {}
            }
        }
        if let Some(statement) = open {
            self.no_transaction_left_open(statement);
        }
        if self.role == Role::Verify && statements.is_empty() {
            self.problem(
                0,
                "holds no check",
                "write `SELECT '…' AS check, … AS ok;`, or remove the file",
            );
        }
        statements
    }

    /// Without `standard_conforming_strings` a backslash in a string is an escape, and the file means
    /// something else.
    fn quoting_changed(&mut self, statement: &Statement, words: &[&str]) {
        if changes_quoting(statement.text(self.text), words) {
            self.problem(
                statement.range.start,
                "changes how quotes are read in the rest of the run",
                "leave `standard_conforming_strings` on and write `E'…'` where a backslash escapes",
            );
        }
    }

    /// In its read-only transaction the server would refuse to write; this reports it earlier.
    fn only_a_query(&mut self, statement: &Statement) {
        let first = statement
            .tokens
            .iter()
            .find(|token| token.kind != TokenKind::OpenParen);
        let word = first.and_then(|token| token.word(self.text));
        if !matches!(
            word.as_deref(),
            Some("select" | "with" | "values" | "table")
        ) {
            self.problem(
                statement.range.start,
                format!(
                    "a verify file holds only queries, and this begins with `{}`",
                    first.map_or("", |token| token.text(self.text))
                ),
                "write a `SELECT` that returns `(check text, ok boolean)`",
            );
        }
    }

    /// A migration and its history row are written in one transaction, which the file must not end.
    fn no_transaction_control(&mut self, statement: &Statement, verb: &TransactionControl) {
        self.problem(
            statement.range.start,
            format!(
                "`{}` in a file that runs inside one transaction with its history row",
                verb.words
            ),
            format!(
                "remove it, or make the first line `{NO_TRANSACTION}` and the file safe to repeat"
            ),
        );
    }

    /// The history row of a no-transaction file is written in the same session: in a transaction that
    /// the file left open, it would be lost when the connection ends.
    fn no_transaction_left_open(&mut self, statement: &Statement) {
        self.problem(
            statement.range.start,
            "the transaction begun here is never committed",
            "add the missing `COMMIT;`",
        );
    }
}

/// Also in a string, for example in dynamic SQL: from then on psql and this tool would disagree about what
/// is quoted.
fn changes_quoting(statement: &str, words: &[&str]) -> bool {
    let kept_on = matches!(
        *words,
        ["set", "standard_conforming_strings", "on"]
            | ["set", "standard_conforming_strings", "to", "on"]
    );
    let text = statement.to_ascii_lowercase();
    text.contains("standard_conforming_strings") && !kept_on
}

/// A file's text, if it means what its tokens say: nothing in it is for psql, or changes what is quoted.
///
/// # Errors
/// Why not.
pub(crate) fn plain_sql(path: &Path, bytes: &[u8]) -> Result<String, String> {
    let text = decode(path, bytes.to_vec()).map_err(|problem| format!("it {}", problem.what))?;
    for statement in sql::split(&text).map_err(|error| error.what)? {
        let words = statement.words(&text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if changes_quoting(statement.text(&text), &words) {
            return Err(
                "it changes `standard_conforming_strings`, and so what is quoted".to_owned(),
            );
        }
    }
    Ok(text)
}
