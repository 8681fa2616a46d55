//! What the comments of a file ask for: `-- no-transaction` and `-- xtask: …`.

use squawk_lexer::TokenKind;

use super::check::{Check, Role};
use crate::migration::effects;
use crate::migration::sql::{self, Token};

/// The first line by which sqlx knows a file that must not run inside a transaction.
pub(crate) const NO_TRANSACTION: &str = "-- no-transaction";

/// All directives.
const DIRECTIVES: [&str; 4] = ["backup", "baseline", "lossless", "next"];

/// The comment lines `-- xtask: …` at the top of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    /// `backup users, audit.events`: the tables to back up first, as written.
    pub(crate) backup: Vec<String>,
    /// `baseline`: this is the schema as it was when the tool was adopted.
    pub(crate) baseline: bool,
    /// `lossless`: outside a transaction, the statements whose text does not say what they destroy
    /// destroy nothing.
    pub(crate) lossless: bool,
    /// `next deploy the application`: what a person has to do after this, in their own words.
    pub(crate) next: Vec<String>,
}

impl Check<'_> {
    /// Whether the file runs inside a transaction. sqlx compares only the beginning of the file, so
    /// it accepts `-- no-transactions` too; here that is refused, because it may be a mistake.
    pub(super) fn first_line(&mut self) -> bool {
        let first = self.text.split('\n').next().unwrap_or_default();
        let first = first.strip_suffix('\r').unwrap_or(first);
        if self.role == Role::Verify || !first.starts_with(NO_TRANSACTION) {
            return true;
        }
        if first != NO_TRANSACTION {
            self.problem(
                0,
                format!("sqlx takes the first line `{first}` for `{NO_TRANSACTION}`"),
                format!("make the first line exactly `{NO_TRANSACTION}`, or word it differently"),
            );
        }
        false
    }

    /// Reads the directives, and reports the comments that look like one but are not.
    pub(super) fn comments(&mut self, transactional: bool) -> Directives {
        let mut directives = Directives::default();
        let mut in_head = true;
        for token in sql::lex(self.text) {
            let comment = match token.kind {
                TokenKind::LineComment => token.text(self.text).trim_start_matches('-').trim(),
                TokenKind::BlockComment { .. } => {
                    let inside = token.text(self.text).trim_start_matches("/*");
                    if starts_ignoring_case(inside.trim(), "xtask:") {
                        self.problem(
                            token.range.start,
                            "a directive in a block comment has no effect",
                            "write it as a line, `-- xtask: …`",
                        );
                    }
                    continue;
                }
                TokenKind::Whitespace => continue,
                _ => {
                    in_head = false;
                    continue;
                }
            };
            self.misplaced_no_transaction(&token, comment);
            if let Some(content) = self.directive(&token, comment) {
                if in_head {
                    self.read_directive(&token, content, transactional, &mut directives);
                } else {
                    self.problem(
                        token.range.start,
                        format!(
                            "the directive `{content}` stands after the first SQL, where it has \
                             no effect"
                        ),
                        "move it to the comment lines at the top of the file",
                    );
                }
            }
        }
        directives
    }

    /// `-- no-transaction` takes effect only at the very beginning of the file.
    fn misplaced_no_transaction(&mut self, token: &Token, comment: &str) {
        let meant = ["no-transaction", "no transaction", "no_transaction"]
            .iter()
            .any(|words| comment.eq_ignore_ascii_case(words));
        if !meant {
            return;
        }
        if self.role == Role::Verify {
            self.problem(
                token.range.start,
                format!(
                    "`{NO_TRANSACTION}` has no effect here: checks run in a read-only transaction"
                ),
                "remove the line",
            );
        } else if token.range.start != 0 || !token.text(self.text).starts_with(NO_TRANSACTION) {
            self.problem(
                token.range.start,
                format!(
                    "`{}` has no effect here: only a first line that is exactly \
                     `{NO_TRANSACTION}` counts",
                    token.text(self.text).trim_end()
                ),
                "move it to line 1, or remove it",
            );
        }
    }

    /// What follows `-- xtask:` in such a comment; reports a comment that only looks like one.
    fn directive<'c>(&mut self, token: &Token, comment: &'c str) -> Option<&'c str> {
        if let Some(content) = comment.strip_prefix("xtask:") {
            return Some(content.trim());
        }
        let almost = starts_ignoring_case(comment, "xtask:")
            || comment.split_whitespace().next() == Some("xtask")
                && comment
                    .split_whitespace()
                    .nth(1)
                    .is_some_and(|word| DIRECTIVES.contains(&word.trim_matches(':')));
        if almost {
            self.problem(
                token.range.start,
                format!("`-- {comment}` is not read as a directive"),
                "write it as `-- xtask: …`, in lowercase and with the colon",
            );
        }
        None
    }

    fn read_directive(
        &mut self,
        token: &Token,
        content: &str,
        transactional: bool,
        directives: &mut Directives,
    ) {
        let (name, argument) = match content.split_once(char::is_whitespace) {
            Some((name, argument)) => (name, argument.trim()),
            None => (content, ""),
        };
        let at = token.range.start;
        match (name, self.role) {
            _ if !DIRECTIVES.contains(&name) => {
                self.problem(at, format!("unknown directive `{name}`"), suggestion(name));
            }
            (_, Role::Verify) => self.problem(
                at,
                format!("a verify file takes no directives, and this is `{name}`"),
                "move it to the up or the down file, or remove it",
            ),
            ("backup", _) => match effects::split_names(argument) {
                Some(tables) if !tables.is_empty() => directives.backup.extend(tables),
                Some(_) => self.problem(
                    at,
                    "the directive `backup` names no table",
                    "name one or more, `-- xtask: backup users, audit.events`",
                ),
                None => self.problem(
                    at,
                    format!("`{argument}` is not a list of table names"),
                    "write names as in SQL, `-- xtask: backup users, audit.\"Events\"`",
                ),
            },
            ("next", _) if argument.is_empty() => self.problem(
                at,
                "the directive `next` has no text",
                "say what is left for a person to do, `-- xtask: next deploy the application`",
            ),
            ("next", _) => directives.next.push(argument.to_owned()),
            ("lossless", _) if transactional => self.problem(
                at,
                "the directive `lossless` has no effect in a file that runs in a transaction",
                "remove it: before its transaction commits, the server is asked what it has destroyed",
            ),
            ("lossless", _) if argument.is_empty() => directives.lossless = true,
            ("lossless", _) => self.problem(
                at,
                format!("the directive `lossless` takes nothing after it, and this has `{argument}`"),
                "write `-- xtask: lossless`, and remarks on a line of their own",
            ),
            (_, Role::Down) => self.problem(
                at,
                "a down file cannot be a baseline",
                "put `-- xtask: baseline` into the up file",
            ),
            _ if argument.is_empty() => directives.baseline = true,
            _ => self.problem(
                at,
                format!(
                    "the directive `baseline` takes nothing after it, and this has `{argument}`"
                ),
                "write `-- xtask: baseline`, and remarks on a line of their own",
            ),
        }
    }
}

fn starts_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

pub(super) fn suggestion(name: &str) -> String {
    let nearest = DIRECTIVES
        .into_iter()
        .map(|known| {
            (
                strsim::levenshtein(&name.to_ascii_lowercase(), known),
                known,
            )
        })
        .min()
        .filter(|&(edits, _)| edits <= 3);
    match nearest {
        Some((_, known)) => format!("did you mean `-- xtask: {known}`?"),
        None => "the directives are `-- xtask: backup TABLE, …`, `-- xtask: baseline`, \
             `-- xtask: lossless` and `-- xtask: next WHAT IS LEFT TO DO`"
            .to_owned(),
    }
}
