//! A command that must fail: the contract that every failure keeps, checked for each in one place.

use std::io::Write as _;
use std::process::Command;

use expect_test::Expect;
use private_server::Platform;
use serde_json::Value;

use crate::common::{Project, Run, dump};

/// What a failed command said, in both forms.
pub(crate) struct Failed {
    /// stderr from `error:` on, with what differs from run to run and from machine to machine
    /// replaced.
    pub(crate) report: String,
    /// The member `error` of the JSON document.
    pub(crate) error: Value,
    /// All of stderr, as it was.
    pub(crate) stderr: String,
}

impl Failed {
    /// What a person reads, and the SQLSTATE that a program reads; empty where there is none.
    #[track_caller]
    pub(crate) fn reads(&self, sqlstate: &str, report: Expect) {
        let said = self.error["sqlstate"].as_str().unwrap_or_default();
        assert_eq!(said, sqlstate, "{}", self.report);
        report.assert_eq(&self.report);
    }
}

impl Project {
    /// Runs a command that must fail with this exit code, for people and for programs, and change
    /// nothing in the database.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], status: i32) -> Failed {
        self.fails_with(status, || self.command(arguments))
    }

    /// As [`Project::fails`], with a command of the caller's making.
    #[track_caller]
    pub(crate) fn fails_with(&self, status: i32, command: impl Fn() -> Command) -> Failed {
        let before = self.dump();
        let failed = self.fails_elsewhere(status, command);
        assert_eq!(before, self.dump(), "the database was changed");
        failed
    }

    /// As [`Project::fails_with`], where the database of the command is none of the test server's.
    #[track_caller]
    pub(crate) fn fails_elsewhere(&self, status: i32, command: impl Fn() -> Command) -> Failed {
        let run = Run::of(&mut command()).exits(status);
        assert_eq!(run.stdout, "", "nothing is printed as data");
        let as_json = Run::of(command().args(["--format", "json"])).exits(status);
        let error = the_error(&as_json, status);
        let (_, report) = run
            .stderr
            .split_once("error: ")
            .unwrap_or_else(|| panic!("no error in\n{}", run.stderr));
        self.hints_can_be_run(report);
        Failed {
            report: self.portable(&format!("error: {report}")),
            error,
            stderr: run.stderr,
        }
    }

    /// The whole database as SQL.
    pub(crate) fn dump(&self) -> String {
        dump(&self.url, &[])
    }

    /// Without what differs from run to run, and the commands of this platform by their purpose.
    pub(crate) fn portable(&self, text: &str) -> String {
        let mut portable = String::new();
        for line in text.split_inclusive('\n') {
            // Source lines and the carets below them are as they are.
            let (number, _) = line.split_once('|').unwrap_or(("-", ""));
            let framed = number.chars().all(|c| c == ' ' || c.is_ascii_digit());
            match framed {
                true => portable.push_str(line),
                false => portable.push_str(&self.normalise(line)),
            }
        }
        for (commands, name) in platform_commands() {
            portable = portable.replace(&commands, name);
        }
        portable
    }

    /// A failure names at least one command, and each one it names is understood.
    #[track_caller]
    fn hints_can_be_run(&self, report: &str) {
        let (_, hints) = report
            .split_once("\n\nhint: ")
            .unwrap_or_else(|| panic!("no hint in\n{report}"));
        let of_others = platform_commands()
            .iter()
            .any(|(command, _)| hints.contains(command));
        let ours = commands_in(hints);
        assert!(
            of_others || !ours.is_empty(),
            "no command in the hints\n{hints}"
        );
        for words in ours {
            // clap reads all that stands before `--help`; psql's own arguments are not for clap.
            let for_clap = words.iter().take_while(|word| *word != "--");
            let mut arguments: Vec<&str> = for_clap.map(String::as_str).collect();
            arguments.push("--help");
            let run = Run::of(&mut self.unconfigured(&arguments));
            assert_eq!(run.status, 0, "`{}`: {}", words.join(" "), run.stderr);
        }
    }
}

/// Says loudly that a test cannot be run on this machine. CI must be able to run them all.
#[expect(clippy::disallowed_methods, reason = "CI is told by its environment")]
#[track_caller]
pub(crate) fn skipped(why: &str) {
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "cannot be skipped in CI: {why}");
    // Not through the test harness, which keeps to itself what a passing test prints.
    let place = std::panic::Location::caller();
    let _ = writeln!(std::io::stderr(), "SKIPPED {place}: {why}");
}

/// The contract's shape: one document with one member, and in it exactly these five.
#[track_caller]
fn the_error(run: &Run, status: i32) -> Value {
    let document = run.json();
    let error = &document["error"];
    let names = |value: &Value| -> Vec<String> {
        let object = value.as_object().expect("an object");
        object.keys().cloned().collect()
    };
    assert_eq!(names(&document), ["error"]);
    let mut members = names(error);
    members.sort();
    assert_eq!(members, ["causes", "code", "hint", "message", "sqlstate"]);
    assert_eq!(error["code"], status);
    assert!(error["message"].is_string() && error["causes"].is_array());
    assert!(error["hint"].is_string(), "{error}");
    let sqlstate = &error["sqlstate"];
    assert!(sqlstate.is_null() || sqlstate.as_str().is_some_and(|code| code.len() == 5));
    error.clone()
}

/// This platform's commands that hints may name, and what they are called in expectations.
fn platform_commands() -> Vec<(String, &'static str)> {
    let platform = Platform::detect();
    let install = platform.install_commands();
    let install: Vec<String> = install.iter().map(ToString::to_string).collect();
    let start = platform.start_command().map(|command| command.to_string());
    [
        (install.join(" && "), "[INSTALL]"),
        (start.unwrap_or_default(), "[START]"),
    ]
    .into_iter()
    .filter(|(command, _)| !command.is_empty())
    .collect()
}

/// The words of each `cargo xtask …` in a text, as a shell would split them.
fn commands_in(text: &str) -> Vec<Vec<String>> {
    text.split("cargo xtask ")
        .skip(1)
        .map(|rest| {
            let end = ["`", "; ", ", ", " (", "\n", " && "]
                .iter()
                .filter_map(|end| rest.find(end))
                .min()
                .unwrap_or(rest.len());
            words(&rest[..end])
        })
        .collect()
}

/// Splits at blanks outside of single quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in text.split('\'').enumerate() {
        let quoted = index % 2 == 1;
        for c in part.chars() {
            if c.is_whitespace() && !quoted {
                words.push(String::new());
            } else if let Some(word) = words.last_mut() {
                word.push(c);
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
