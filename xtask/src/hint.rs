//! What to do next: a sentence, or one command that can be pasted. Which program that is, and which
//! database and folders the user has named, is added in one place, when it is shown.

use std::borrow::Cow;
use std::fmt;

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
        let locations = locations.into_iter().map(|(flag, value)| match flag {
            ADDRESS => format!("{flag} {}", shell_word(without_password(&value))),
            _ => format!("{flag} {}", shell_word(value)),
        });
        let mut words = Vec::new();
        let mut is_address = false;
        for word in arguments {
            let flag = word.split_once('=').filter(|(flag, _)| *flag == ADDRESS);
            words.push(match flag {
                Some((_, value)) => format!("{ADDRESS}={}", shell_word(without_password(value))),
                None if is_address => shell_word(without_password(&word)),
                None => shell_word(&word),
            });
            is_address = word == ADDRESS;
        }
        Invocation {
            program: program.to_owned(),
            arguments: words,
            locations: locations.collect(),
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
        let mut given = self.arguments.iter().peekable();
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

/// The flag whose value may hold a password.
const ADDRESS: &str = "--database-url";

/// A database's address without its password, or `URL` where it cannot be told what is one: that fails, and
/// does not go to another database.
fn without_password(address: &str) -> String {
    let unclear = address.contains("password") || address.contains(['\'', '"', '\\']);
    match address.split_once("://") {
        _ if unclear => "URL".to_owned(),
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, place)) => {
                let user = user.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}@{place}")
            }
            None => address.to_owned(),
        },
        None if address.contains(['@', ':']) => "URL".to_owned(),
        None => address.to_owned(),
    }
}

/// Whether a flag stands before a value here.
fn takes_value(flags: &str, name: &str) -> bool {
    let mut words = flags.split(' ').skip_while(|word| *word != name).skip(1);
    words.next().is_some_and(|word| !word.starts_with("--"))
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.again(""))
    }
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
    fn no_password_is_repeated() {
        for (address, shown) in [
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u:s3cr3t@h/d", "postgres://u@h/d"),
            ("postgres://u:s3c/r3t@h/d", "postgres://u@h/d"),
            ("postgres://u:s3c@r3t@h/d", "postgres://u@h/d"),
            ("postgres://h/d?user=u&password=s3cr3t", "URL"),
            ("host=h password=s3cr3t", "URL"),
            ("host=h password = 's3c r3t'", "URL"),
            ("u:s3cr3t@h/d", "URL"),
            ("host=h dbname=d", "'host=h dbname=d'"),
        ] {
            let words = [ADDRESS.to_owned(), address.to_owned()];
            let joined = [format!("{ADDRESS}={address}")];
            let there = || [(ADDRESS, address.to_owned())];
            let command = format!("x {ADDRESS} {shown}");
            assert_eq!(Invocation::new("x", words, []).again(""), command);
            let again = Invocation::new("x", joined, []).again("");
            assert_eq!(again, format!("x {ADDRESS}={shown}"));
            let status = Invocation::new("x", [], there()).command("db-status");
            assert_eq!(status, format!("x db-status {ADDRESS} {shown}"));
        }
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
