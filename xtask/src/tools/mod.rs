//! psql and pg_dump: where they are, which version, how they are run, what their errors mean; and git.
//! The only place that starts database programs.

pub(crate) mod git;
pub(crate) mod pg_dump;
pub(crate) mod psql;
pub(crate) mod sql_error;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use private_server::platform::PlatformCommand;
use private_server::{Installation, Platform, Version, installation};
use xshell::{Shell, cmd};

use crate::error::{Failure, Result};
use crate::hint::Hint;
use pg_connect::{ConnInfo, libpq_variables, quote_value};

/// A pg_dump that can read the server.
pub(crate) struct PgDump {
    pub(crate) program: PathBuf,
    pub(crate) version: Version,
}

/// The PostgreSQL installations of this machine, newest first.
pub(crate) struct Tools {
    installations: Vec<Installation>,
    /// Where they were looked for, for the error that finds none.
    only_in: Option<PathBuf>,
}

impl Tools {
    /// Looks on PATH and in the platform's usual places, or only in `only_in` (`PG_BIN_DIR`).
    pub(crate) fn find(path: Option<&OsString>, only_in: Option<PathBuf>) -> Tools {
        let path = path.map(OsString::as_os_str);
        Tools {
            installations: installation::find_or_only_in(path, only_in.as_deref()),
            only_in,
        }
    }

    /// The newest psql.
    ///
    /// # Errors
    /// If there is none, with the platform's command to install it.
    pub(crate) fn psql(&self) -> Result<PathBuf> {
        self.installations
            .iter()
            .find(|installation| installation.has("psql"))
            .map(|installation| installation.program("psql"))
            .ok_or_else(|| self.missing("psql").into())
    }

    /// The newest pg_dump, which must not be older than the server: pg_dump refuses to dump from a
    /// server whose major version is newer than its own.
    ///
    /// # Errors
    /// If there is none, or none new enough; names those found.
    pub(crate) fn pg_dump(&self, server_major: u32) -> Result<PgDump> {
        let Some(newest) = self
            .installations
            .iter()
            .find(|installation| installation.has("pg_dump"))
        else {
            return Err(self.missing("pg_dump").into());
        };
        let version = newest.version_of("pg_dump")?;
        if version.major < server_major {
            let found: Vec<String> = self
                .installations
                .iter()
                .filter(|installation| installation.has("pg_dump"))
                .map(|installation| installation.program("pg_dump").display().to_string())
                .collect();
            return Err(Failure::failed(format!(
                "the newest `pg_dump` is {version}, the server is {server_major}"
            ))
            .cause("pg_dump cannot read a server newer than itself")
            .cause(format!("found: {}", found.join(", ")))
            .hint(format!(
                "install the client programs of PostgreSQL {server_major} or newer{}, or name their folder: export PG_BIN_DIR=/path/to/bin",
                install_hint().map(|command| format!(" ({command})")).unwrap_or_default(),
            ))
            .hint(Hint::again("then"))
            .into());
        }
        Ok(PgDump {
            program: newest.program("pg_dump"),
            version,
        })
    }

    /// An installation that can make and run a server.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn server(&self) -> Result<&Installation> {
        self.installations
            .iter()
            .find(|installation| installation.has_server())
            .ok_or_else(|| self.missing("initdb").into())
    }

    /// Every installation found, for the doctor.
    pub(crate) fn installations(&self) -> &[Installation] {
        &self.installations
    }

    fn missing(&self, program: &str) -> Failure {
        let looked = match &self.only_in {
            Some(folder) => format!("looked only in PG_BIN_DIR, `{}`", folder.display()),
            None => "looked on PATH and in this platform's usual places".to_owned(),
        };
        let failure = Failure::failed(format!("command not found: `{program}`")).cause(looked);
        let failure = match install_hint() {
            Some(command) => failure.hint(command),
            None => failure,
        };
        failure
            .hint(format!(
                "if it is installed, name the folder that holds `{program}`: export PG_BIN_DIR=/path/to/postgresql/bin"
            ))
            .hint(Hint::to("then", "db-doctor"))
    }
}

/// The platform's command that installs PostgreSQL, as a person would type it.
pub(crate) fn install_hint() -> Option<String> {
    let commands = Platform::detect().install_commands();
    let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
    (!commands.is_empty()).then(|| commands.join(" && "))
}

/// The connection string of a database program, without a password: what was resolved, and behind it what
/// our sessions have. Of two values of a keyword the last counts, and any beats the environment.
fn conninfo(target: &ConnInfo, application_name: &str, options: &str, encoding: &str) -> String {
    let options = format!("{} {options}", target.options());
    format!(
        "{} application_name={} client_encoding={} options={}",
        target.psql_conninfo(),
        quote_value(application_name),
        quote_value(encoding),
        quote_value(options.trim())
    )
}

/// What a database program finds in its environment: the password, none of the settings that its
/// connection string has, and messages of the program itself in English, whose labels we read (the
/// server's stay as they are).
fn with_target(mut command: Command, target: &ConnInfo) -> Command {
    for variable in libpq_variables() {
        command.env_remove(variable);
    }
    command.envs(target.psql_env()).env("LC_ALL", "C");
    command
}

/// Twelve random characters that no message will hold by chance.
pub(crate) fn nonce() -> Result<String> {
    let mut bytes = [0u8; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("cannot get random bytes: {error}"))?;
    Ok(crate::hex::encode(&bytes))
}

/// Runs a command of the platform's package manager, with this terminal.
///
/// # Errors
/// If it cannot be started or fails.
pub(crate) fn run_platform_command(command: &PlatformCommand) -> Result {
    let sh = Shell::new()?;
    let (program, arguments) = command.0.split_first().context("an empty command")?;
    let status = Command::from(cmd!(sh, "{program} {arguments...}"))
        .status()
        .with_context(|| format!("cannot start `{command}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!("`{command}` failed ({status})"))
        .hint(Hint::to(format!("{command}, then"), "db-setup"))
        .into())
}
