//! `cargo xtask db-*`: the migration runbook that runs itself, as a library for a workspace's own xtask.
//!
//! A program that has nothing of its own is `fn main() -> ExitCode { xtask_db::main() }`. One that has
//! tasks flattens [`Global`] into its arguments and [`Command`] into its subcommands, and calls [`run`].

mod access;
mod commands;
mod config;
mod context;
mod database;
mod dev;
mod error;
mod failures;
mod hex;
mod hint;
mod interrupt;
mod migration;
mod options;
mod redact;
mod runbook;
mod settings;
mod shell;
mod tools;
mod ui;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use commands::Cli;
pub use commands::{Command, Global};
use config::Config;
pub(crate) use context::Context;
use error::{Failure, Kind};
use hint::{Hint, Invocation};
use options::{Color, Format};
use ui::Ui;

/// The whole program: reads the arguments, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(&cli.command, &cli.global),
        Err(error) => usage_error(&error),
    }
}

/// Runs a command and prints its outcome. The exit code is part of the command contract: 0 for
/// success, 1 failed, 2 wrong usage, 3 a finding, 4 busy, 130 interrupted.
pub fn run(command: &Command, global: &Global) -> ExitCode {
    let mut invocation = invocation(global.named_locations());
    if matches!(command, Command::DbDoctor(_)) {
        invocation.continue_with("db-migrate");
    }
    let ui = Ui::new(
        global.quiet,
        global.verbose,
        global.yes,
        global.color(),
        command.format(),
        invocation,
    );
    interrupt::install();
    let config = match Config::read(global.locations()) {
        Ok(config) => config,
        Err(error) => return failed(&ui, &error),
    };
    let mut ctx = Context::new(ui, config, command.name());
    match command.run(&mut ctx).and_then(|()| ctx.ui.check_stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&ctx.ui, &error),
    }
}

fn failed(ui: &Ui, error: &anyhow::Error) -> ExitCode {
    let failure = failures::to_show(error);
    ui.failure(&failure);
    ExitCode::from(failure.kind.exit_code())
}

/// clap prints its own help and usage errors; with `--format json` an error is a document too.
fn usage_error(error: &clap::Error) -> ExitCode {
    let arguments: Vec<OsString> = raw_arguments();
    let wants_json = arguments
        .windows(2)
        .any(|pair| pair[0] == "--format" && pair[1] == "json")
        || arguments.iter().any(|argument| argument == "--format=json");
    if wants_json && error.use_stderr() {
        let invocation = invocation(Vec::new());
        let ui = Ui::new(false, false, false, Color::Auto, Format::Json, invocation);
        ui.failure(&usage_failure(&error.render().to_string()));
    } else if error.use_stderr() {
        // clap quotes what it did not expect, and that may be an address with a password.
        let text = error.render().ansi().to_string();
        let _ = write!(anstream::stderr(), "{}", redact::without_passwords(&text));
    } else {
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() {
        Kind::Usage.exit_code()
    } else {
        0
    })
}

/// clap's text as a failure: `error:` with indented lines below it, tips, and the usage.
fn usage_failure(text: &str) -> Failure {
    let mut lines = text.lines();
    let message = lines.next().unwrap_or_default();
    let mut failure = Failure::usage(message.trim_start_matches("error: "));
    for line in lines.take_while(|line| !line.starts_with("Usage:")) {
        match line.trim() {
            "" => {}
            line => match line.strip_prefix("tip: ") {
                Some(tip) => failure = failure.hint(tip.to_owned()),
                None => failure = failure.cause(line),
            },
        }
    }
    failure.hint(Hint::run("--help"))
}

/// How this program was called, as far as is known before the workspace's settings are read.
fn invocation(locations: Vec<(&'static str, String)>) -> Invocation {
    let arguments = raw_arguments().into_iter().skip(1);
    let arguments = arguments.map(|word| word.to_string_lossy().into_owned());
    Invocation::new(settings::DEFAULT_COMMAND, arguments, locations)
}

fn raw_arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}
