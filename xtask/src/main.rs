//! `cargo xtask db-*`: the migration runbook that runs itself.
//!
//! `main` parses, builds the context, dispatches to one file per command, and turns an error into
//! its message and exit code.

mod commands;
mod config;
mod database;
mod error;
mod flags;
mod interrupt;
mod migration;
mod runbook;
mod server;
mod tools;
mod ui;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use config::{Config, Origin};
use database::connect::{ConnectError, ConnectProblem};
use database::{Database, connect};
use error::{Failure, Kind, Result};
use flags::{Cli, Command, Format};
use migration::source::Folder;
use pg_connect::ConnInfo;
use runbook::failures;
use tools::Tools;
use ui::Ui;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let global = &cli.global;
    let ui = Ui::new(
        global.quiet,
        global.verbose,
        global.yes,
        global.color,
        cli.command.format(),
    );
    interrupt::install();
    let result = Context::new(&cli, ui).and_then(|ctx| {
        let mut ctx = ctx;
        let result = dispatch(&mut ctx, &cli.command).and_then(|()| ctx.ui.all_said());
        result.map_err(|error| {
            let failure = cli.global.recalled_by(failures::to_show(&error));
            ctx.ui.failure(&failure);
            Reported(failure.kind).into()
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(match error.downcast_ref::<Reported>() {
            Some(Reported(kind)) => kind.exit_code(),
            None => report_early(&cli, &error),
        }),
    }
}

/// An error that has been printed.
#[derive(Debug)]
struct Reported(Kind);

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reported")
    }
}

impl std::error::Error for Reported {}

/// An error from before there was a context.
fn report_early(cli: &Cli, error: &anyhow::Error) -> u8 {
    let failure = failures::to_show(error);
    Ui::new(false, false, false, cli.global.color, cli.command.format()).failure(&failure);
    failure.kind.exit_code()
}

fn dispatch(ctx: &mut Context, command: &Command) -> Result {
    match command {
        Command::DbSetup(flags) => commands::db_setup::run(ctx, flags),
        Command::DbStart => commands::db_start::run(ctx),
        Command::DbStop => commands::db_stop::run(ctx),
        Command::DbDestroy => commands::db_destroy::run(ctx),
        Command::DbDoctor(output) => commands::db_doctor::run(ctx, output),
        Command::DbStatus(flags) => commands::db_status::run(ctx, flags),
        Command::DbMigrate(flags) => commands::db_migrate::run(ctx, flags),
        Command::DbRollback(flags) => commands::db_rollback::run(ctx, flags),
        Command::DbRedo(flags) => commands::db_redo::run(ctx, flags),
        Command::DbVerify(flags) => commands::db_verify::run(ctx, flags),
        Command::DbBackup(flags) => commands::db_backup::run(ctx, flags),
        Command::DbBackups(flags) => commands::db_backups::run(ctx, flags),
        Command::DbRestore(flags) => commands::db_restore::run(ctx, flags),
        Command::DbBaseline(flags) => commands::db_baseline::run(ctx, flags),
        Command::DbSeed(flags) => commands::db_seed::run(ctx, flags),
        Command::DbPsql(flags) => commands::db_psql::run(ctx, flags),
    }
}

/// Where nobody says how long to wait for a server, libpq waits for ever: a command in a pipeline
/// must not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What every command works with.
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) config: Config,
    /// How our sessions call themselves on the server: `xtask db-migrate`.
    pub(crate) application_name: String,
    tools: OnceCell<Tools>,
    /// Where the private server was found running, or was started, by this command.
    pub(crate) private_server: OnceCell<ConnInfo>,
}

impl Context {
    fn new(cli: &Cli, ui: Ui) -> Result<Context> {
        Ok(Context {
            ui,
            config: Config::read(&cli.global)?,
            application_name: format!("xtask {}", cli.command.name()),
            tools: OnceCell::new(),
            private_server: OnceCell::new(),
        })
    }

    /// The PostgreSQL programs of this machine, looked for when they are first needed.
    pub(crate) fn tools(&self) -> &Tools {
        self.tools
            .get_or_init(|| Tools::find(self.config.path.as_ref(), self.config.pg_bin_dir()))
    }

    /// Looks again, after an installation.
    pub(crate) fn forget_tools(&mut self) {
        self.tools = OnceCell::new();
    }

    /// The migrations on disk.
    ///
    /// # Errors
    /// If the folder cannot be understood.
    pub(crate) fn folder(&self) -> Result<Folder> {
        Folder::load(
            &self.config.migrations,
            &self.config.shown(&self.config.migrations),
        )
    }

    /// The configured database, before it is connected to.
    ///
    /// # Errors
    /// If none is configured, or the address is malformed.
    pub(crate) fn target(&self) -> Result<(ConnInfo, Origin)> {
        let Some((url, origin)) = self.config.database_url()? else {
            return Err(Failure::usage("no database is configured")
                .cause("there is no --database-url, no DATABASE_URL in the environment, and none in `.env`")
                .hint("name your database: export DATABASE_URL=postgres://USER@HOST:5432/DATABASE")
                .hint("or make a private one for development: cargo xtask db-setup")
                .into());
        };
        Ok((self.resolve(&url)?, origin))
    }

    /// Reads a connection string as libpq would.
    ///
    /// # Errors
    /// If it is malformed.
    pub(crate) fn resolve(&self, url: &str) -> Result<ConnInfo> {
        let mut info = ConnInfo::resolve(url, &self.config.env, self.config.os_user.as_deref())
            .map_err(|error| {
                Failure::from(error).hint("then look whether it works: cargo xtask db-doctor")
            })?;
        if info.setting("connect_timeout").is_none() {
            info.connect_timeout = Some(CONNECT_TIMEOUT);
        }
        for warning in info.warnings() {
            self.ui.warn(warning);
        }
        Ok(info)
    }

    /// Connects to the configured database and says which it is. A stopped private server is started.
    ///
    /// # Errors
    /// If there is none, or it does not let us in.
    pub(crate) fn connect(&self) -> Result<Database> {
        let (target, _) = self.target()?;
        let target = server::route(self, target)?;
        let refused = match self.connect_to(&target) {
            Ok(db) => return Ok(self.connected(db)),
            Err(refused) => refused,
        };
        let db = match server::start_for(self, &target)? {
            Some(target) => self.connect_to(&target),
            None => Err(refused),
        };
        match db {
            Ok(db) => Ok(self.connected(db)),
            Err(error) => Err(failures::connect_failure(&error).into()),
        }
    }

    fn connected(&self, db: Database) -> Database {
        self.ui.status("Database", &db.server);
        db
    }

    /// Connects to a database.
    ///
    /// # Errors
    /// If it does not let us in.
    pub(crate) fn connect_to(&self, target: &ConnInfo) -> Result<Database, ConnectError> {
        let connection =
            connect::connect(target, &self.application_name, &database::native_options())
                .map_err(interrupted_or)?;
        let canceller = connection.canceller();
        interrupt::on_signal(move || {
            // A server that does not hear it is asked again by whoever waits for it.
            let _ = canceller.cancel();
        });
        Database::learn(connection, &self.application_name).map_err(|error| ConnectError {
            problem: ConnectProblem::Other,
            failure: Box::new(failures::from_error(&error)),
        })
    }
}

/// After a signal, that is why there is no connection.
fn interrupted_or(error: ConnectError) -> ConnectError {
    if !interrupt::requested() {
        return error;
    }
    let failure = Failure::interrupted("stopped while connecting");
    ConnectError {
        problem: ConnectProblem::Other,
        failure: Box::new(failure),
    }
}

/// clap prints its own help and usage errors; with `--format json` an error is a document too.
fn usage_error(error: &clap::Error) -> ExitCode {
    let arguments: Vec<OsString> = raw_arguments();
    let wants_json = arguments
        .windows(2)
        .any(|pair| pair[0] == "--format" && pair[1] == "json")
        || arguments.iter().any(|argument| argument == "--format=json");
    if wants_json && error.use_stderr() {
        let ui = Ui::new(false, false, false, flags::Color::Auto, Format::Json);
        ui.failure(&usage_failure(&error.render().to_string()));
    } else if error.use_stderr() {
        // clap quotes what it did not expect, and that may be an address with a password.
        let text = error.render().ansi().to_string();
        let _ = write!(anstream::stderr(), "{}", ui::without_passwords(&text));
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
                Some(tip) => failure = failure.hint(tip),
                None => failure = failure.cause(line),
            },
        }
    }
    failure.hint("cargo xtask --help")
}

fn raw_arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}
