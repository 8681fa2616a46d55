//! One migration file as text: its directives, its statements, and everything wrong with it that can be
//! found before it runs. Which files exist is in `source`.

mod check;
mod directives;
mod rules;
mod transactions;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use check::{Check, decode};
pub(crate) use check::{Problem, Role};
pub(crate) use directives::{Directives, NO_TRANSACTION};
pub(crate) use rules::plain_sql;
use transactions::{TransactionControl, transaction_control};

use super::effects::{self, Effect, ObjectName};
use super::sql::{self, Statement};

/// A file that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// As shown to people, relative to their working directory.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Whether it runs inside a transaction: its first line is not `-- no-transaction`.
    pub(crate) transactional: bool,
    pub(crate) directives: Directives,
    pub(crate) statements: Vec<Statement>,
}

impl Script {
    /// Reads a file's bytes; messages call the file `path`.
    ///
    /// # Errors
    /// Everything that can be found at once. If the text has a wrong encoding, only that; otherwise
    /// every comment that looks like a directive but is not, and either the first place where the SQL
    /// cannot be split or every statement that is not allowed in a file with this role.
    pub(crate) fn parse(path: &Path, bytes: Vec<u8>, role: Role) -> Result<Script, Vec<Problem>> {
        let text = decode(path, bytes).map_err(|problem| vec![problem])?;
        let mut check = Check {
            path,
            text: &text,
            role,
            problems: Vec::new(),
        };
        let transactional = check.first_line();
        let directives = check.comments(transactional);
        let statements = check.statements(transactional);
        if check.problems.is_empty() {
            Ok(Script {
                path: path.to_owned(),
                text,
                transactional,
                directives,
                statements,
            })
        } else {
            Err(check.problems)
        }
    }

    /// The directives at the head of a file, whatever else is in it: an applied file need not be one that
    /// could be run.
    pub(crate) fn directives_of(path: &Path, bytes: &[u8], role: Role) -> Directives {
        // A file without the word need not be taken apart to know.
        if memchr::memmem::find(bytes, b"xtask:").is_none() {
            return Directives::default();
        }
        let text = String::from_utf8_lossy(bytes);
        let mut check = Check {
            path,
            text: text.strip_prefix('\u{feff}').unwrap_or(&text),
            role,
            problems: Vec::new(),
        };
        let transactional = check.first_line();
        check.comments(transactional)
    }

    /// See [`sql::for_psql`].
    pub(crate) fn for_psql(&self) -> Cow<'_, str> {
        sql::for_psql(&self.text, &self.statements)
    }

    /// Whether a statement sets this configuration parameter.
    pub(crate) fn sets(&self, parameter: &str) -> bool {
        let sets = |statement: &&Statement| {
            let first = statement.tokens[0].word(&self.text);
            first.as_deref() == Some("set") && statement.has_word(&self.text, parameter)
        };
        self.statements.iter().any(|statement| sets(&statement))
    }

    /// Whether a statement may set where names without a schema are looked up, as far as its text says.
    pub(crate) fn sets_search_path(&self, statement: &Statement) -> bool {
        let words = statement.words(&self.text);
        let mut words = words.iter().map(String::as_str);
        match words.next() {
            Some("set" | "reset") => {
                let name = words.find(|word| !matches!(*word, "session" | "local"));
                matches!(
                    name,
                    Some("search_path" | "schema" | "all" | "role" | "authorization")
                )
            }
            Some("discard") => true,
            // A function that has a path of its own sets none here.
            Some("create" | "alter") => false,
            _ => {
                let text = statement.text(&self.text).to_ascii_lowercase();
                text.contains("search_path")
            }
        }
    }

    /// Whether it may leave something behind in its session: a setting, a role, a temporary table.
    /// Plain changes of the schema and of rows do not.
    pub(crate) fn may_change_session(&self) -> bool {
        let temporary = |statement: &Statement| {
            ["temp", "temporary"]
                .iter()
                .any(|word| statement.has_word(&self.text, word))
        };
        self.effects().any(|(statement, effects)| {
            temporary(statement)
                || effects
                    .iter()
                    .any(|effect| matches!(effect, Effect::Opaque | Effect::Other))
        })
    }

    /// Whether an earlier, interrupted run of this script may have dropped or renamed a table. A script
    /// that runs in a transaction has not: it was rolled back.
    pub(crate) fn may_have_dropped(&self, table: &ObjectName) -> bool {
        let mut effects = self.effects().flat_map(|(_, effects)| effects);
        !self.transactional
            && effects.any(|effect| match effect {
                Effect::DropTable { table: dropped, .. }
                | Effect::RenameTable { table: dropped, .. } => dropped == *table,
                Effect::DropSchema { schema, .. } => table.schema.as_ref() == Some(&schema),
                Effect::Opaque => true,
                _ => false,
            })
    }

    /// See [`effects::destroys_nothing`].
    pub(crate) fn destroys_nothing(&self) -> bool {
        let mut statements = self.statements.iter();
        statements.all(|statement| effects::destroys_nothing(&self.text, statement))
    }

    /// The first statement whose text does not say what it destroys, see [`effects::shows_what_it_destroys`].
    pub(crate) fn first_unclear(&self) -> Option<&Statement> {
        let mut statements = self.statements.iter();
        statements.find(|statement| !effects::shows_what_it_destroys(&self.text, statement))
    }

    /// Each statement with what it does.
    pub(crate) fn effects(&self) -> impl Iterator<Item = (&Statement, Vec<effects::Effect>)> {
        self.statements
            .iter()
            .map(|statement| (statement, effects::of(&self.text, statement)))
    }

    /// The transactions in a file that does not itself run inside one: the statements of each, from its
    /// BEGIN to the statement that ends it.
    pub(crate) fn own_transactions(&self) -> Vec<RangeInclusive<usize>> {
        let mut transactions = Vec::new();
        let mut begun = None;
        for (at, statement) in self.statements.iter().enumerate() {
            let words = statement.words(&self.text);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match (transaction_control(&words), begun) {
                (Some(TransactionControl { opens: true, .. }), None) => begun = Some(at),
                (Some(TransactionControl { opens: false, .. }), Some(first)) => {
                    transactions.push(first..=at);
                    begun = None;
                }
                _ => {}
            }
        }
        transactions
    }
}
