//! One migration file as text: its head, its statements, and everything that is wrong with it
//! before it runs. Which files exist is told by `source`.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use squawk_lexer::TokenKind;

use super::effects::{self, Effect};
use super::sql::{self, Statement, Token};

/// The first line by which sqlx knows a file that must not run inside a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

/// What a directive may say.
const DIRECTIVES: [&str; 4] = ["backup", "baseline", "lossless", "next"];

/// A file that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// As shown to people, relative to where they are.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Whether it runs inside a transaction: no `-- no-transaction` in its first line.
    pub(crate) transactional: bool,
    pub(crate) directives: Directives,
    pub(crate) statements: Vec<Statement>,
}

/// What the comment lines `-- xtask: …` in a file's head ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    /// `backup users, audit.events`: the tables to back up first, as written.
    pub(crate) backup: Vec<String>,
    /// `baseline`: this is the schema as it stood when the tool was adopted.
    pub(crate) baseline: bool,
    /// `lossless`: outside a transaction, what cannot be read from the file destroys nothing.
    pub(crate) lossless: bool,
    /// `next deploy the application`: what is left for a person after this, in their words.
    pub(crate) next: Vec<String>,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Up,
    Down,
    Verify,
}

/// One thing wrong with the folder or a file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `path`, `path:line` or `path:line:column`.
    pub(crate) place: String,
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl Script {
    /// Reads a file's bytes; `path` is how people know it.
    ///
    /// # Errors
    /// All that can be found at once. For text in a wrong encoding that only; otherwise every
    /// comment that looks like a directive and is none, with either the first place where the SQL
    /// cannot be split or every statement that has no place in a file of this role.
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

    /// The text as psql has to be fed, see [`sql::for_psql`].
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

    /// Whether it can leave something behind in its session: a setting, a role, a temporary table.
    /// Plain changes of the schema and of rows cannot.
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

    /// Whether every statement is known to destroy nothing, see [`effects::destroys_nothing`].
    pub(crate) fn destroys_nothing(&self) -> bool {
        let mut statements = self.statements.iter();
        statements.all(|statement| effects::destroys_nothing(&self.text, statement))
    }

    /// The first statement of which the text does not say what it destroys, see [`effects::is_readable`].
    pub(crate) fn unreadable(&self) -> Option<&Statement> {
        let mut statements = self.statements.iter();
        statements.find(|statement| !effects::is_readable(&self.text, statement))
    }

    /// Each statement with what it does.
    pub(crate) fn effects(&self) -> impl Iterator<Item = (&Statement, Vec<effects::Effect>)> {
        self.statements
            .iter()
            .map(|statement| (statement, effects::of(&self.text, statement)))
    }
}

/// UTF-8 without a byte order mark or NUL, which neither the server nor psql would take.
fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Problem> {
    let at_line = |byte: usize, bytes: &[u8]| {
        let line = 1 + bytes[..byte].iter().filter(|&&b| b == b'\n').count();
        format!("{}:{line}", path.display())
    };
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Problem {
            place: at_line(0, &bytes),
            what: "begins with a byte order mark (BOM), which the server refuses as a syntax error"
                .to_owned(),
            hint: "save it as UTF-8 without BOM".to_owned(),
        });
    }
    if let Some(byte) = memchr::memchr(0, &bytes) {
        return Err(Problem {
            place: at_line(byte, &bytes),
            what: format!("holds a NUL byte at byte {byte}, which SQL text cannot"),
            hint: "remove it, or save the file as UTF-8 if it is UTF-16".to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Problem {
            place: at_line(byte, error.as_bytes()),
            what: format!("is not UTF-8: byte {byte} does not belong there"),
            hint: "save it as UTF-8".to_owned(),
        }
    })
}

/// The examination of one file's text.
struct Check<'a> {
    path: &'a Path,
    text: &'a str,
    role: Role,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, byte: usize, what: impl Into<String>, hint: impl Into<String>) {
        let (line, column) = sql::position(self.text, byte);
        self.problems.push(Problem {
            place: format!("{}:{line}:{column}", self.path.display()),
            what: what.into(),
            hint: hint.into(),
        });
    }

    /// Whether the file runs inside a transaction. sqlx compares the beginning of the file, so
    /// that `-- no-transactions` counts too: doubtful enough to ask.
    fn first_line(&mut self) -> bool {
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

    /// Reads the directives, and finds the comments that were meant to be one and are not.
    fn comments(&mut self, transactional: bool) -> Directives {
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

    /// `-- no-transaction` counts at the very beginning of the file and nowhere else.
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

    /// What follows `-- xtask:` in such a comment; for one that only looks like it, a problem.
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
                "the directive `next` says nothing",
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

    fn statements(&mut self, transactional: bool) -> Vec<Statement> {
        let statements = match sql::split(self.text) {
            Ok(statements) => statements,
            Err(fault) => {
                self.problem(fault.at, fault.what, fault.hint);
                return Vec::new();
            }
        };
        let mut open = None;
        for statement in &statements {
            let words = statement.words(self.text);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.copy_from_stdin(statement, &words);
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

    /// psql would read the following lines as rows; sqlx cannot run it at all.
    fn copy_from_stdin(&mut self, statement: &Statement, words: &[&str]) {
        let from_stdin = words.windows(2).any(|pair| pair == ["from", "stdin"]);
        if words.first() == Some(&"copy") && from_stdin {
            self.problem(
                statement.range.start,
                "`COPY … FROM STDIN` needs rows from outside the file",
                "write the rows as `INSERT INTO … VALUES …`",
            );
        }
    }

    /// Without `standard_conforming_strings` a backslash quotes, and the file means something else.
    fn quoting_changed(&mut self, statement: &Statement, words: &[&str]) {
        // Anywhere, also in a string: what is quoted by then, psql and we would read differently.
        let text = statement.text(self.text).to_ascii_lowercase();
        let kept_on = matches!(
            *words,
            ["set", "standard_conforming_strings", "on"]
                | ["set", "standard_conforming_strings", "to", "on"]
        );
        if text.contains("standard_conforming_strings") && !kept_on {
            self.problem(
                statement.range.start,
                "changes how quotes are read in the rest of the run",
                "leave `standard_conforming_strings` on and write `E'…'` where a backslash escapes",
            );
        }
    }

    /// The server would refuse to write in the read-only transaction; this says it earlier.
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

    /// A migration and its history row are one transaction, which the file must not end.
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

    /// The history row of a no-transaction file is written in the same session: in a transaction
    /// that the file left open, it would vanish with the connection.
    fn no_transaction_left_open(&mut self, statement: &Statement) {
        self.problem(
            statement.range.start,
            "the transaction begun here is never committed",
            "add the missing `COMMIT;`",
        );
    }
}

impl Script {
    /// Of a file that runs outside of a transaction: the statements of each transaction of its own, from
    /// its BEGIN up to what ends it.
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

/// A statement that begins or ends a transaction.
struct TransactionControl {
    words: &'static str,
    /// Whether a transaction is open after it.
    opens: bool,
}

/// The commands of `TransactionStmt` in PostgreSQL's grammar, but for savepoints, which neither
/// begin nor end a transaction.
fn transaction_control(words: &[&str]) -> Option<TransactionControl> {
    let (spelled, opens) = match *words {
        ["begin", ..] => ("BEGIN", true),
        ["start", "transaction", ..] => ("START TRANSACTION", true),
        ["rollback", "to", ..] | ["rollback", "work" | "transaction", "to", ..] => return None,
        ["commit", ..] => ("COMMIT", chains(words)),
        ["end", ..] => ("END", chains(words)),
        ["rollback", ..] => ("ROLLBACK", chains(words)),
        ["abort", ..] => ("ABORT", chains(words)),
        ["prepare", "transaction", ..] => ("PREPARE TRANSACTION", false),
        _ => return None,
    };
    Some(TransactionControl {
        words: spelled,
        opens,
    })
}

/// `COMMIT AND CHAIN` begins the next transaction at once; `AND NO CHAIN` is the default.
fn chains(words: &[&str]) -> bool {
    words.ends_with(&["and", "chain"])
}

fn starts_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn suggestion(name: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: impl AsRef<[u8]>, role: Role) -> Result<Script, Vec<String>> {
        Script::parse(Path::new("m/1_a.up.sql"), text.as_ref().to_vec(), role)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn problems(text: impl AsRef<[u8]>, role: Role) -> Vec<String> {
        parse(text, role).map(|_| ()).err().unwrap_or_default()
    }

    #[test]
    fn the_first_line_decides_about_the_transaction() {
        let table = [
            ("SELECT 1;", true),
            ("-- no-transaction\nSELECT 1;", false),
            ("-- no-transaction\r\nSELECT 1;", false),
            ("-- no-transaction", false),
            ("-- no-transaction needed? no.\n", false),
            ("-- about no-transaction\nSELECT 1;", true),
            (
                "\n-- why no-transaction would be wrong here\nSELECT 1;",
                true,
            ),
        ];
        for (text, transactional) in table {
            match parse(text, Role::Up) {
                Ok(script) => assert_eq!(script.transactional, transactional, "{text}"),
                Err(problems) => {
                    assert!(text.contains("needed?"), "{problems:?}");
                    assert_eq!(
                        problems,
                        [
                            "m/1_a.up.sql:1:1: sqlx takes the first line `-- no-transaction needed? no.` for `-- no-transaction`"
                        ]
                    );
                }
            }
        }
    }

    #[test]
    fn a_first_line_that_only_looks_like_it_is_refused() {
        let table = [
            ("-- no-transactions\n", "1:1: sqlx takes"),
            ("-- no-transaction \n", "1:1: sqlx takes"),
            (
                "\n-- no-transaction\nSELECT 1;",
                "2:1: `-- no-transaction` has no effect",
            ),
            (
                " -- no-transaction\nSELECT 1;",
                "1:2: `-- no-transaction` has no effect",
            ),
            (
                "--no-transaction\nSELECT 1;",
                "1:1: `--no-transaction` has no effect",
            ),
            (
                "-- No Transaction\nSELECT 1;",
                "1:1: `-- No Transaction` has no effect",
            ),
            (
                "SELECT 1;\n-- no-transaction\n",
                "2:1: `-- no-transaction` has no effect",
            ),
        ];
        for (text, expected) in table {
            let found = problems(text, Role::Up);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            let expected = format!("m/1_a.up.sql:{expected}");
            assert!(found[0].starts_with(&expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn directives_are_read_from_the_head() {
        let text = "-- no-transaction\n\n-- xtask: backup users, App.\"E v\"\n/* why */\n\
                    --xtask:backup sessions\r\n-- xtask: baseline\nSELECT 1;\n-- xtasks: prose\n";
        let script = parse(text, Role::Up).unwrap();
        assert_eq!(
            script.directives.backup,
            ["users", "App.\"E v\"", "sessions"]
        );
        assert!(script.directives.baseline);
        let lossless = "-- no-transaction\n-- xtask: lossless\nCALL p();";
        assert!(parse(lossless, Role::Down).unwrap().directives.lossless);
        let down = parse("-- xtask: backup users\n", Role::Down).unwrap();
        assert_eq!(down.directives.backup, ["users"]);
        let prose = parse("-- xtask makes a backup first\nSELECT 1;", Role::Up).unwrap();
        assert_eq!(prose.directives, Directives::default());
    }

    #[test]
    fn doubtful_directives_are_refused_with_their_place() {
        let table = [
            (
                Role::Up,
                "-- a\n-- xtask: bakcup users\n",
                "2:1: unknown directive `bakcup`",
            ),
            (
                Role::Up,
                "-- xtask: Backup users\n",
                "1:1: unknown directive `Backup`",
            ),
            (
                Role::Up,
                "-- xtask: baseline,\n",
                "1:1: unknown directive `baseline,`",
            ),
            (Role::Up, "-- xtask:\n", "1:1: unknown directive ``"),
            (
                Role::Up,
                "-- xtask: backup\n",
                "1:1: the directive `backup` names no table",
            ),
            (
                Role::Up,
                "-- xtask: backup users;\n",
                "1:1: `users;` is not a list of table names",
            ),
            (
                Role::Up,
                "-- xtask: baseline now\n",
                "1:1: the directive `baseline` takes nothing",
            ),
            (
                Role::Down,
                "-- xtask: lossless\nDO $$ $$;",
                "1:1: the directive `lossless` has no effect",
            ),
            (
                Role::Up,
                "-- no-transaction\n-- xtask: lossless, really\nCALL p();",
                "2:1: unknown directive `lossless,`",
            ),
            (
                Role::Down,
                "-- xtask: baseline\n",
                "1:1: a down file cannot be a baseline",
            ),
            (
                Role::Up,
                "-- Xtask: backup users\n",
                "1:1: `-- Xtask: backup users` is not read",
            ),
            (
                Role::Up,
                "-- xtask backup users\n",
                "1:1: `-- xtask backup users` is not read",
            ),
            (
                Role::Up,
                "/* xtask: backup users */\n",
                "1:1: a directive in a block comment",
            ),
            (
                Role::Up,
                "SELECT 1; -- xtask: backup users\n",
                "1:11: the directive `backup users` stands after the first SQL",
            ),
            (
                Role::Verify,
                "-- xtask: backup users\nSELECT 1;",
                "1:1: a verify file takes no",
            ),
            (
                Role::Verify,
                "-- no-transaction\nSELECT 1;",
                "1:1: `-- no-transaction` has no effect",
            ),
        ];
        for (role, text, expected) in table {
            let found = problems(text, role);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            let expected = format!("m/1_a.up.sql:{expected}");
            assert!(found[0].starts_with(&expected), "{text}: {found:?}");
        }
        assert_eq!(suggestion("bakcup"), "did you mean `-- xtask: backup`?");
        assert_eq!(suggestion("Baseline"), "did you mean `-- xtask: baseline`?");
        assert!(suggestion("wibble").starts_with("the directives are"));
    }

    #[test]
    fn encodings_that_cannot_run_are_named() {
        let table: &[(&[u8], &str)] = &[
            (
                b"\xEF\xBB\xBFSELECT 1;",
                "m/1_a.up.sql:1: begins with a byte order mark",
            ),
            (b"a\n\xFFb", "m/1_a.up.sql:2: is not UTF-8: byte 2"),
            (b"a\nb\n\0", "m/1_a.up.sql:3: holds a NUL byte at byte 4"),
            (
                b"\xFF\xFES\0E\0",
                "m/1_a.up.sql:1: holds a NUL byte at byte 3",
            ),
        ];
        for (bytes, expected) in table {
            let found = problems(bytes, Role::Up);
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with(expected), "{found:?}");
        }
        assert!(parse("SELECT 1;\r\nSELECT 'ü';\r\n", Role::Up).is_ok());
    }

    #[test]
    fn transactional_files_do_not_control_their_transaction() {
        let refused = [
            ("BEGIN", "BEGIN"),
            ("begin work", "BEGIN"),
            ("START TRANSACTION", "START TRANSACTION"),
            ("COMMIT", "COMMIT"),
            ("END", "END"),
            ("ROLLBACK", "ROLLBACK"),
            ("ROLLBACK WORK AND CHAIN", "ROLLBACK"),
            ("ABORT", "ABORT"),
            ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
        ];
        for (statement, verb) in refused {
            let text = format!("SELECT 1;\n  {statement};\n");
            let expected = format!("m/1_a.up.sql:2:3: `{verb}` in a file that runs inside one");
            let found = problems(&text, Role::Up);
            assert!(
                found.len() == 1 && found[0].starts_with(&expected),
                "{found:?}"
            );
            let found = problems(&text, Role::Down);
            assert_eq!(found.len(), 1, "{found:?}");
        }
        for allowed in [
            "SAVEPOINT a",
            "RELEASE a",
            "ROLLBACK TO a",
            "ROLLBACK WORK TO SAVEPOINT a",
            "PREPARE p AS SELECT 1",
            "CREATE INDEX CONCURRENTLY i ON t (a)",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
            "DO $$ BEGIN END $$",
        ] {
            assert!(parse(allowed, Role::Up).is_ok(), "{allowed}");
        }
    }

    #[test]
    fn a_files_own_transactions_are_known() {
        for (text, transactions) in [
            ("SELECT 1; SELECT 2", vec![]),
            ("SELECT 1; BEGIN; SELECT 2; COMMIT; SELECT 3", vec![1..=3]),
            (
                "START TRANSACTION; SAVEPOINT a; ROLLBACK TO a; END; BEGIN; ABORT",
                vec![0..=3, 4..=5],
            ),
            ("BEGIN; BEGIN; COMMIT; COMMIT", vec![0..=2]),
            ("BEGIN; COMMIT AND CHAIN; SELECT 1; COMMIT", vec![0..=3]),
        ] {
            let script = parse(format!("-- no-transaction\n{text}"), Role::Up).expect("parses");
            assert_eq!(script.own_transactions(), transactions, "{text}");
        }
    }

    #[test]
    fn no_transaction_files_close_what_they_open() {
        let table = [
            ("BEGIN; COMMIT;", None),
            ("BEGIN; ROLLBACK TO a; END;", None),
            ("BEGIN; COMMIT AND NO CHAIN;", None),
            ("BEGIN;", Some("2:1")),
            ("BEGIN; COMMIT; BEGIN;", Some("2:16")),
            ("BEGIN; COMMIT AND CHAIN;", Some("2:8")),
        ];
        for (text, place) in table {
            let found = problems(format!("-- no-transaction\n{text}"), Role::Up);
            let expected = place.map(|place| {
                format!("m/1_a.up.sql:{place}: the transaction begun here is never committed")
            });
            assert_eq!(found, Vec::from_iter(expected), "{text}");
        }
    }

    #[test]
    fn statements_that_need_psql_or_change_the_rules_are_refused() {
        let table = [
            (
                "COPY t FROM STDIN;",
                Some("1:1: `COPY … FROM STDIN` needs rows"),
            ),
            (
                "copy t (a, b) from stdin with csv;",
                Some("1:1: `COPY … FROM STDIN` needs rows"),
            ),
            ("COPY t FROM '/file';", None),
            ("COPY (SELECT 1) TO STDOUT;", None),
            (
                "SET standard_conforming_strings = off;",
                Some("1:1: changes how quotes are read"),
            ),
            ("SET standard_conforming_strings = on;", None),
            (
                "SELECT 1;\n\\i more.sql\n",
                Some("2:1: `\\i` is a command of psql"),
            ),
            (
                "SELECT 'ü' \\gset",
                Some("1:12: `\\gset` is a command of psql"),
            ),
        ];
        for (text, expected) in table {
            let found = problems(text, Role::Up);
            assert_eq!(
                found.len(),
                usize::from(expected.is_some()),
                "{text}: {found:?}"
            );
            if let Some(expected) = expected {
                assert!(
                    found[0].starts_with(&format!("m/1_a.up.sql:{expected}")),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn verify_files_hold_only_queries() {
        for text in [
            "SELECT 1;",
            "(SELECT 1)",
            "WITH a AS (SELECT 1) SELECT",
            "VALUES (1)",
            "TABLE t",
        ] {
            assert!(parse(text, Role::Verify).is_ok(), "{text}");
        }
        for (text, expected) in [
            (
                "SELECT 1; DROP TABLE t",
                "1:11: a verify file holds only queries, and this begins with `DROP`",
            ),
            ("DO $$ $$", "1:1: a verify file holds only queries"),
            ("BEGIN", "1:1: a verify file holds only queries"),
            ("-- later\n", "1:1: holds no check"),
        ] {
            let found = problems(text, Role::Verify);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].starts_with(&format!("m/1_a.up.sql:{expected}")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn everything_wrong_with_a_file_is_said_at_once() {
        let text = "-- no-transactions\n-- xtask: wibble\nCOPY a FROM STDIN;\nCOPY b FROM STDIN;\n";
        assert_eq!(problems(text, Role::Up).len(), 4);
    }
}
