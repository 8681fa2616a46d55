//! What to do next: a sentence, or one command that can be pasted. Which program that is, and which
//! database and folders the user has named, is added in one place, when it is shown.

use std::borrow::Cow;

use crate::redact;
use crate::shell::shell_word;

/// One step of what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// What to do; before a command, what it is for.
    text: Cow<'static, str>,
    command: Option<Command>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    /// Arguments of this tool, as one types them.
    Run(Cow<'static, str>),
    /// As `Run`, but on the workspace's own database.
    RunAtHome(&'static str),
    /// What was run, with these flags in place of those of the same name.
    Again(Cow<'static, str>),
}

impl Hint {
    /// A sentence.
    pub(crate) fn say(text: impl Into<Cow<'static, str>>) -> Hint {
        let text = text.into();
        debug_assert!(!text.contains(" xtask db-"), "a command: {text}");
        Hint {
            text,
            command: None,
        }
    }

    /// A command of this tool, by its arguments.
    pub(crate) fn run(arguments: impl Into<Cow<'static, str>>) -> Hint {
        Hint::to("", arguments)
    }

    /// As [`Hint::run`], and what it is for.
    pub(crate) fn to(
        purpose: impl Into<Cow<'static, str>>,
        arguments: impl Into<Cow<'static, str>>,
    ) -> Hint {
        Hint {
            text: purpose.into(),
            command: Some(Command::Run(arguments.into())),
        }
    }

    /// As [`Hint::to`], without the database and folders that were named: it is not meant there.
    pub(crate) fn at_home(purpose: &'static str, arguments: &'static str) -> Hint {
        Hint {
            text: purpose.into(),
            command: Some(Command::RunAtHome(arguments)),
        }
    }

    /// SQL, through psql.
    pub(crate) fn psql(purpose: impl Into<Cow<'static, str>>, sql: &str) -> Hint {
        Hint::to(purpose, format!("db-psql -- -c {}", shell_word(sql)))
    }

    /// The same command again.
    pub(crate) fn again(purpose: impl Into<Cow<'static, str>>) -> Hint {
        Hint::again_with(purpose, "")
    }

    /// The same command again, with these flags too.
    pub(crate) fn again_with(
        purpose: impl Into<Cow<'static, str>>,
        flags: impl Into<Cow<'static, str>>,
    ) -> Hint {
        Hint {
            text: purpose.into(),
            command: Some(Command::Again(flags.into())),
        }
    }

    /// Whether it is the same command again.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.command, Some(Command::Again(_)))
    }

    /// What it is about, before what it says.
    pub(crate) fn about(mut self, what: &str) -> Hint {
        self.text = match &*self.text {
            "" => what.to_owned(),
            text => format!("{what}: {text}"),
        }
        .into();
        self
    }

    /// As it is shown.
    pub(crate) fn shown(&self, invocation: &Invocation) -> String {
        let command = match &self.command {
            None => return self.text.clone().into_owned(),
            Some(Command::Run(arguments)) => invocation.command(arguments),
            Some(Command::RunAtHome(arguments)) => format!("{} {arguments}", invocation.program),
            Some(Command::Again(flags)) => invocation.again(flags),
        };
        match &*self.text {
            "" => command,
            purpose => format!("{purpose}: {command}"),
        }
    }
}

impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Hint {
        Hint::say(text)
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Hint {
        Hint::say(text)
    }
}

/// How this program was called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invocation {
    /// `cargo xtask`.
    pub(crate) program: String,
    /// Its arguments, as one types them.
    arguments: Vec<String>,
    /// The flags among them that every command takes and that say where: `--database-url URL`.
    locations: Vec<String>,
}

impl Invocation {
    /// `locations` are pairs of a flag and its value.
    pub(crate) fn new(
        program: &str,
        arguments: impl IntoIterator<Item = String>,
        locations: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Invocation {
        let shown = |flag: &str, value: &str| shell_word(redact::flag_value(flag, value));
        let locations = locations.into_iter();
        let mut words: Vec<String> = Vec::new();
        let mut flag = String::new();
        // What stands behind `--` is passed on to another program: only who gave it knows what it holds.
        for word in arguments.into_iter().take_while(|word| word != "--") {
            words.push(match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    format!("{name}={}", shown(name, value))
                }
                _ => shown(&flag, &word),
            });
            flag = word;
        }
        Invocation {
            program: program.to_owned(),
            arguments: words,
            locations: locations
                .map(|(flag, value)| format!("{flag} {}", shown(flag, &value)))
                .collect(),
        }
    }

    /// What "again" means for a command that only looks.
    pub(crate) fn continue_with(&mut self, name: &str) {
        self.arguments = vec![name.to_owned()];
        self.arguments.extend(self.locations.iter().cloned());
    }

    /// One of this tool's commands, where this one was.
    pub(crate) fn command(&self, arguments: &str) -> String {
        let (name, rest) = match arguments.split_once(' ') {
            Some((name, rest)) => (name, Some(rest)),
            None => (arguments, None),
        };
        let given = |flag: &&String| {
            let name = flag.split(' ').next().unwrap_or_default();
            !arguments.contains(name)
        };
        let mut words = vec![self.program.as_str(), name];
        words.extend(self.locations.iter().filter(given).map(String::as_str));
        words.extend(rest);
        words.join(" ")
    }

    /// This command, with these flags in place of those that it was given of the same name.
    pub(crate) fn again(&self, flags: &str) -> String {
        let replaced: Vec<&str> = flags
            .split(' ')
            .filter(|word| word.starts_with("--"))
            .collect();
        let mut words = vec![self.program.as_str()];
        let mut given = self.arguments.iter();
        while let Some(word) = given.next() {
            let name = word.split('=').next().unwrap_or_default();
            match replaced.contains(&name) {
                false => words.push(word),
                // Its value goes with it.
                true if name == word && takes_value(flags, name) => {
                    given.next();
                }
                true => {}
            }
        }
        words.extend((!flags.is_empty()).then_some(flags));
        words.join(" ")
    }
}

/// Whether a flag stands before a value here.
fn takes_value(flags: &str, name: &str) -> bool {
    let mut words = flags.split(' ').skip_while(|word| *word != name).skip(1);
    words.next().is_some_and(|word| !word.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(line: &str, locations: &[(&'static str, &str)]) -> Invocation {
        let words = line.split(' ').map(str::to_owned);
        let locations = locations
            .iter()
            .map(|(flag, value)| (*flag, (*value).to_owned()));
        Invocation::new("cargo xtask", words, locations)
    }

    #[test]
    fn a_command_goes_where_this_one_went() {
        let here = invocation("db-status", &[]);
        let there = invocation(
            "db-status --database-url postgres://h/d",
            &[
                ("--database-url", "postgres://h/d"),
                ("--backups", "my backups"),
            ],
        );
        for (hint, plain, located) in [
            (
                Hint::run("db-doctor"),
                "cargo xtask db-doctor",
                "cargo xtask db-doctor --database-url postgres://h/d --backups 'my backups'",
            ),
            (
                Hint::psql("look", "SELECT 1"),
                "look: cargo xtask db-psql -- -c 'SELECT 1'",
                "look: cargo xtask db-psql --database-url postgres://h/d --backups 'my backups' -- -c 'SELECT 1'",
            ),
            (
                Hint::run("db-migrate --database-url postgres://other/d"),
                "cargo xtask db-migrate --database-url postgres://other/d",
                "cargo xtask db-migrate --backups 'my backups' --database-url postgres://other/d",
            ),
            (Hint::say("wait"), "wait", "wait"),
            (
                Hint::at_home("start", "db-setup"),
                "start: cargo xtask db-setup",
                "start: cargo xtask db-setup",
            ),
        ] {
            assert_eq!(hint.shown(&here), plain);
            assert_eq!(hint.shown(&there), located);
        }
    }

    #[test]
    fn what_is_secret_is_not_repeated() {
        let flags = [
            (
                "--database-url",
                "postgres://u:s3cr3t@h/d",
                "postgres://u@h/d",
            ),
            ("--notify", "https://hooks.example.com/T0/s3cr3t", "URL"),
            ("--report", "my report.md", "'my report.md'"),
        ];
        for (flag, value, shown) in flags {
            let words = [flag.to_owned(), value.to_owned()];
            let again = Invocation::new("x", words, []).again("");
            assert_eq!(again, format!("x {flag} {shown}"));
            let joined = [format!("{flag}={value}")];
            let again = Invocation::new("x", joined, []).again("");
            assert_eq!(again, format!("x {flag}={shown}"));
            let located = Invocation::new("x", [], [(flag, value.to_owned())]);
            let command = located.command("db-status");
            assert_eq!(command, format!("x db-status {flag} {shown}"));
        }
        let passed_on = ["db-psql", "--", "-c", "ALTER ROLE r PASSWORD 's3cr3t'"];
        let again = Invocation::new("x", passed_on.map(str::to_owned), []).again("");
        assert_eq!(again, "x db-psql");
    }

    #[test]
    fn the_same_command_again_keeps_what_was_given() {
        for (line, flags, again) in [
            (
                "db-rollback --to 5",
                "--yes",
                "cargo xtask db-rollback --to 5 --yes",
            ),
            ("db-rollback --to 5", "", "cargo xtask db-rollback --to 5"),
            (
                "db-migrate --lock-deadline 1s --to 5",
                "--lock-deadline 1h",
                "cargo xtask db-migrate --to 5 --lock-deadline 1h",
            ),
            (
                "db-migrate --lock-deadline=1s",
                "--lock-deadline 1h",
                "cargo xtask db-migrate --lock-deadline 1h",
            ),
            (
                "db-migrate --yes --to 5",
                "--no-backup --yes",
                "cargo xtask db-migrate --to 5 --no-backup --yes",
            ),
            (
                "db-restore a.sql --column b",
                "--dry-run",
                "cargo xtask db-restore a.sql --column b --dry-run",
            ),
        ] {
            assert_eq!(invocation(line, &[]).again(flags), again);
        }
    }
}
