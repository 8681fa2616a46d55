//! The only printer. Data goes to stdout; steps, progress, warnings and hints to stderr.
//! Everything reads the same without colour.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;

use crate::error::{Failure, Kind, Result};
use crate::hint::{Hint, Invocation};
use crate::interrupt;
use crate::options::{Color, Format};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const INFO: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Where a progress display has no terminal, one plain line this often.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Verbosity, format and colour, decided once.
pub(crate) struct Ui {
    quiet: bool,
    verbose: bool,
    assume_yes: bool,
    format: Format,
    live: bool,
    pub(crate) invocation: Invocation,
    /// Whether the one JSON document has been printed.
    answered: Cell<bool>,
    /// Why stdout did not take everything.
    unsaid: RefCell<Option<io::Error>>,
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
            answered: Cell::new(false),
            unsaid: RefCell::new(None),
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

    /// A line of progress about something that goes on now, or is only said.
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

    /// Something is not as it should be, and the command goes on.
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
        match writeln!(anstream::stdout(), "{text}") {
            // Whoever reads no further has what they wanted.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.unsaid.replace(Some(error));
            }
            _ => {}
        }
    }

    /// Whether stdout took all that was said.
    ///
    /// # Errors
    /// If it did not, as on a full disk: what a script finds there is not what was found.
    pub(crate) fn all_said(&self) -> Result {
        match self.unsaid.take() {
            Some(error) => Err(Failure::failed("cannot write to stdout")
                .cause(error.to_string())
                .state("the command itself has ended well")
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
            self.answered.set(true);
        }
        Ok(())
    }

    /// Prints a failure: for people on stderr; as the one JSON document on stdout if that is wanted,
    /// unless a report with what was found is there already.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json_wanted() && !self.answered.get() {
            let document = self.failure_json(failure).to_string();
            let _ = writeln!(anstream::stdout(), "{}", without_passwords(&document));
        }
        self.err(format_args!(
            "{}",
            without_passwords(&render_failure(failure, &self.invocation))
        ));
    }

    /// A failure as scripts read it.
    pub(crate) fn failure_json(&self, failure: &Failure) -> serde_json::Value {
        let mut causes = failure.causes.clone();
        causes.extend(failure.state.iter().cloned());
        let hints = failure
            .hints
            .iter()
            .map(|hint| hint.shown(&self.invocation));
        let hints: Vec<String> = hints.collect();
        json!({"error": {
            "message": failure.message,
            "causes": causes,
            "hint": (!hints.is_empty()).then(|| hints.join("\n")),
            "sqlstate": failure.sqlstate,
            "code": failure.kind.exit_code(),
        }})
    }

    /// Asks a question whose answer defaults to no.
    ///
    /// # Errors
    /// Where nobody can answer (no terminal) and `--yes` was not given.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool> {
        if self.assume_yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() || self.json_wanted() {
            return Err(Failure::usage(format!("nobody can answer: {question}"))
                .cause("stdin is not a terminal")
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

    /// A display of something that takes long: a live bar on a terminal, plain lines elsewhere.
    pub(crate) fn progress(&self, verb: &'static str) -> Progress<'_> {
        let bar = self.live.then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            if let Ok(style) =
                indicatif::ProgressStyle::with_template("{prefix:>12.cyan.bold} {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(verb);
            bar
        });
        Progress {
            ui: self,
            verb,
            bar,
            last_line: Cell::new(Instant::now()),
        }
    }

    fn err(&self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(anstream::stderr(), "{line}");
    }
}

/// Shows how far something is; gone when dropped.
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    verb: &'static str,
    bar: Option<indicatif::ProgressBar>,
    last_line: Cell<Instant>,
}

impl Progress<'_> {
    /// Says how far it is. Cheap to call often: `what` is only rendered when it is shown.
    pub(crate) fn update(&self, what: impl Display) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(visible(&what.to_string()).into_owned());
                bar.tick();
            }
            None if self.last_line.get().elapsed() >= PLAIN_PROGRESS_EVERY => {
                self.last_line.set(Instant::now());
                self.ui.info(self.verb, what);
            }
            None => {}
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Text that may quote a command line: the passwords of URLs and of `password=…` in it as `…`.
///
/// Our own messages hold none. This is for an address that was given in place of something else.
pub(crate) fn without_passwords(text: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '&');
    let mut secrets: Vec<Range<usize>> = Vec::new();
    for (at, mark) in text
        .match_indices("://")
        .chain(text.match_indices("password="))
    {
        let start = at + mark.len();
        let word = &text[start..];
        let word = &word[..word.find(ends).unwrap_or(word.len())];
        let secret = match mark {
            "://" => match (word.find(':'), word.rfind('@')) {
                (Some(colon), Some(at)) if colon < at => colon + 1..at,
                _ => continue,
            },
            _ => 0..word.len(),
        };
        secrets.push(start + secret.start..start + secret.end);
    }
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    secrets.sort_by_key(|secret| secret.start);
    let (mut shown, mut from) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        shown.push_str(text.get(from..secret.start).unwrap_or_default());
        shown.push('…');
        from = from.max(secret.end);
    }
    shown.push_str(&text[from..]);
    Cow::Owned(shown)
}

/// `error:` with its causes, the excerpt, the state, and after a blank line the hints.
fn render_failure(failure: &Failure, invocation: &Invocation) -> String {
    let label = if failure.kind == Kind::Interrupted {
        "interrupted"
    } else {
        "error"
    };
    let mut text = format!("{BAD}{label}{BAD:#}: {}", visible(&failure.message));
    if let Some(code) = &failure.sqlstate {
        text.push_str(&format!(" (SQLSTATE {code})"));
    }
    for cause in &failure.causes {
        text.push_str(&format!("\n{BAD}caused by{BAD:#}: {}", indent(cause)));
    }
    if let Some(excerpt) = &failure.excerpt {
        text.push_str(&format!("\n{}", visible(excerpt)));
    }
    for state in &failure.state {
        text.push_str(&format!("\n{INFO}state{INFO:#}: {}", indent(state)));
    }
    if !failure.hints.is_empty() {
        text.push('\n');
    }
    for hint in &failure.hints {
        text.push_str(&format!(
            "\n{INFO}hint{INFO:#}: {}",
            indent(&hint.shown(invocation))
        ));
    }
    text
}

fn indent(text: &str) -> String {
    visible(text).replace('\n', "\n  ")
}

/// Text that may hold what somebody else wrote, such as the name of a session or a table: what would make
/// a terminal do something else than show it, as `\u{1b}`.
fn visible(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| match c {
        '\n' | '\t' => true,
        // Those that turn the direction of what follows.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        c => !c.is_control(),
    };
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_plain(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// Rows under a header, columns as wide as they need to be.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![
        line(&mut header.iter().copied()),
        widths
            .iter()
            .map(|&w| "─".repeat(w))
            .collect::<Vec<_>>()
            .join("  "),
    ];
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}

/// `1200` as `1,200`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `1,200 rows`.
pub(crate) fn plural(number: u64, noun: &str) -> String {
    let ending = match (number, noun.ends_with('x')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {noun}{ending}", count(number))
}

/// Bytes in decimal units: `68.4 kB`.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let precision = usize::from(unit != "B");
            return format!("{value:.precision$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A duration with three digits or so: `4.1 ms`, `1.34 s`, `2 min 5 s`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.0995 {
        format!("{:.1} ms", seconds * 1000.0)
    } else if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else if seconds < 3600.0 {
        let whole = duration.as_secs();
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        let minutes = duration.as_secs() / 60;
        format!("{} h {} min", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_200, "1,200"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(count(number), expected);
        }
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(plural(2, "index"), "2 indexes");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(68_374), "68.4 kB");
        assert_eq!(time(Duration::from_micros(4_120)), "4.1 ms");
        assert_eq!(time(Duration::from_millis(1_340)), "1.34 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn a_failure_says_attempt_cause_state_and_hint_in_that_order() {
        let failure = Failure::failed("cannot apply `x`")
            .cause("no space")
            .state("nothing changed")
            .hint(Hint::run("db-doctor"));
        let here = Invocation::new("cargo xtask", [], []);
        let text = anstream::adapter::strip_str(&render_failure(&failure, &here)).to_string();
        assert_eq!(
            text,
            "error: cannot apply `x`\ncaused by: no space\nstate: nothing changed\n\nhint: cargo xtask db-doctor"
        );
    }

    #[test]
    fn what_would_steer_a_terminal_is_shown_instead() {
        for (text, shown) in [
            ("plain text, Zoë, 数\n\tnext", "plain text, Zoë, 数\n\tnext"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\rb\u{7}\u{9b}1m\u{7f}", "a\\u{d}b\\u{7}\\u{9b}1m\\u{7f}"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn passwords_are_taken_out_of_whatever_was_typed() {
        for (text, shown) in [
            ("no address", "no address"),
            ("'postgres://u:pw@h/d' found", "'postgres://u:…@h/d' found"),
            ("postgres://u:p/w@x@h/d", "postgres://u:…@h/d"),
            ("postgres://u@h:5432/d", "postgres://u@h:5432/d"),
            ("host=h password=pw user=u", "host=h password=… user=u"),
            (
                "a://u:1@h b://u:2@h?password=3",
                "a://u:…@h b://u:…@h?password=…",
            ),
        ] {
            assert_eq!(without_passwords(text), shown, "{text}");
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell() {
        let rows = vec![vec!["1".to_owned(), "backed up".to_owned()]];
        assert_eq!(
            table(&["Step", "What"], &rows),
            "Step  What\n────  ─────────\n1     backed up"
        );
    }
}
