//! The only printer. Data goes to stdout; steps, progress, warnings and hints to stderr.
//! Everything reads the same without colour.

mod failure;
mod format;
mod progress;
mod table;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

pub(crate) use self::format::{bytes, count, limit, plural, time};
pub(crate) use self::progress::Progress;
pub(crate) use self::table::table;
use crate::error::{Failure, Result};
use crate::hint::{Hint, Invocation};
use crate::interrupt;
use crate::options::{Color, Format};
use crate::redact::{visible, without_passwords};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const INFO: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Verbosity, format and colour, decided once.
pub(crate) struct Ui {
    quiet: bool,
    verbose: bool,
    assume_yes: bool,
    format: Format,
    live: bool,
    pub(crate) invocation: Invocation,
    /// Whether the one JSON document has been printed.
    json_printed: Cell<bool>,
    /// Why stdout did not take everything.
    stdout_error: RefCell<Option<io::Error>>,
}

impl Ui {
    pub(crate) fn new(
        quiet: bool,
        verbose: bool,
        yes: bool,
        color: Color,
        format: Format,
        invocation: Invocation,
    ) -> Self {
        let choice = match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::AlwaysAnsi,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let live = match color {
            Color::Never => false,
            Color::Auto | Color::Always => std::io::stderr().is_terminal(),
        };
        Ui {
            quiet,
            verbose,
            assume_yes: yes,
            format,
            live: live && !quiet,
            invocation,
            json_printed: Cell::new(false),
            stdout_error: RefCell::new(None),
        }
    }

    pub(crate) fn json_wanted(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether every question is answered with yes.
    pub(crate) fn assumes_yes(&self) -> bool {
        self.assume_yes
    }

    /// One line of progress: a right-justified verb and what it was done to.
    pub(crate) fn status(&self, verb: &str, what: impl Display) {
        self.line(GOOD, verb, what);
    }

    /// A line of progress about something that goes on now, or is only reported.
    pub(crate) fn info(&self, verb: &str, what: impl Display) {
        self.line(INFO, verb, what);
    }

    fn line(&self, style: Style, verb: &str, what: impl Display) {
        if !self.quiet {
            let what = what.to_string();
            let what = visible(&what);
            self.err(format_args!("{style}{verb:>12}{style:#} {what}"));
        }
    }

    /// The command that a person would have typed, below its step.
    pub(crate) fn command(&self, command: &str) {
        if !self.quiet {
            for line in visible(command).lines() {
                self.err(format_args!("{:>12} {DIM}$ {line}{DIM:#}", ""));
            }
        }
    }

    /// Something worth knowing with `--verbose` only.
    pub(crate) fn detail(&self, what: impl Display) {
        if self.verbose {
            let what = what.to_string();
            let what = visible(&what);
            self.err(format_args!("{:>12} {DIM}{what}{DIM:#}", ""));
        }
    }

    /// A continuation of the line above.
    pub(crate) fn more(&self, what: impl Display) {
        if !self.quiet {
            let what = what.to_string();
            self.err(format_args!("{:>12} {}", "", visible(&what)));
        }
    }

    /// Something is wrong, and the command goes on.
    pub(crate) fn warn(&self, what: impl Display) {
        let what = what.to_string();
        let what = visible(&what);
        self.err(format_args!("{WARN}warning{WARN:#}: {what}"));
    }

    /// What to do next, where nothing is wrong.
    pub(crate) fn hint(&self, hint: impl Into<Hint>) {
        if self.quiet {
            return;
        }
        let what = hint.into().shown(&self.invocation);
        let what = visible(&what);
        let what = without_passwords(&what);
        self.err(format_args!("{INFO}hint{INFO:#}: {what}"));
    }

    /// Data for people, on stdout; nothing with `--format json`, where [`Ui::json`] prints it.
    pub(crate) fn data(&self, text: impl Display) {
        if !self.json_wanted() {
            self.out(visible(&text.to_string()));
        }
    }

    fn out(&self, text: impl Display) {
        // It has no escape sequences: `visible` shows them, and JSON has none.
        match writeln!(io::stdout(), "{text}") {
            // Whoever reads no further has what they wanted.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.stdout_error.replace(Some(error));
            }
            _ => {}
        }
    }

    /// Whether stdout took all that was written.
    ///
    /// # Errors
    /// If it did not, as on a full disk: what a script finds there is not what was found.
    pub(crate) fn check_stdout(&self) -> Result {
        match self.stdout_error.take() {
            Some(error) => Err(Failure::failed("cannot write to stdout")
                .cause(error.to_string())
                .state("the command itself succeeded")
                .hint(Hint::run("db-status"))
                .into()),
            None => Ok(()),
        }
    }

    /// Data for programs: the one document on stdout, with `--format json` only.
    pub(crate) fn json(&self, document: &impl Serialize) -> Result {
        if self.json_wanted() {
            let text = serde_json::to_string(document)?;
            self.out(text);
            self.json_printed.set(true);
        }
        Ok(())
    }

    /// Prints a failure: for people on stderr; as the one JSON document on stdout if that is wanted,
    /// unless a report with what was found is there already.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json_wanted() && !self.json_printed.get() {
            let document = self.failure_json(failure).to_string();
            let _ = writeln!(anstream::stdout(), "{}", without_passwords(&document));
        }
        self.err(format_args!(
            "{}",
            without_passwords(&failure::as_text(failure, &self.invocation))
        ));
    }

    /// A failure as scripts read it.
    pub(crate) fn failure_json(&self, failure: &Failure) -> serde_json::Value {
        failure::as_json(failure, &self.invocation)
    }

    /// Asks a question whose answer defaults to no.
    ///
    /// # Errors
    /// Where there is no terminal to ask on and `--yes` was not given.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool> {
        if self.assume_yes {
            return Ok(true);
        }
        let cannot_ask = match (std::io::stdin().is_terminal(), self.json_wanted()) {
            (false, _) => Some("stdin is not a terminal"),
            (true, true) => Some("nothing is asked with --format json"),
            (true, false) => None,
        };
        if let Some(why) = cannot_ask {
            return Err(Failure::usage(format!("confirmation required, but {why}"))
                .cause(format!("the question is: {question}"))
                .hint(Hint::again_with("", "--yes"))
                .into());
        }
        // Before the question is there to be answered with Ctrl-C.
        let _prompt = interrupt::at_prompt();
        interrupt::check()?;
        let _ = write!(anstream::stderr(), "{WARN}{question}{WARN:#} [y/N] ");
        let _ = anstream::stderr().flush();
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.is_empty() {
            self.err(format_args!(""));
        }
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    fn err(&self, line: std::fmt::Arguments<'_>) {
        // In one write, not one for each piece: others write there too, and each costs time.
        let line = format!("{line}\n");
        let _ = match anstream::AutoStream::choice(&io::stderr()) {
            anstream::ColorChoice::Never => {
                let plain = anstream::adapter::strip_str(&line).to_string();
                io::stderr().write_all(plain.as_bytes())
            }
            _ => anstream::stderr().write_all(line.as_bytes()),
        };
    }
}
