//! psql: a session that is fed chunk by chunk ([`Starting`], [`PsqlSession`]), and one for a person.
//!
//! psql runs what it is fed statement by statement and ends at the first error
//! (`ON_ERROR_STOP`), so nothing after an error ever runs. Killed with us or left alone, it reads
//! the end of its input and disconnects; the server then rolls back what was not committed.

mod chunk;
mod process;
mod session;

pub(crate) use chunk::{Chunk, Reply, SessionError};
pub(crate) use session::{PsqlSession, Starting};

use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::error::Result;
use crate::interrupt;
use crate::tools::{conninfo, with_target};
use pg_connect::ConnInfo;

/// psql on this database with nothing of the environment left to chance, and no password in argv.
///
/// # Errors
/// If the shell has no current folder.
fn command(
    psql: &Path,
    target: &ConnInfo,
    application_name: &str,
    options: &str,
) -> Result<Command> {
    let sh = Shell::new()?;
    let conninfo = conninfo(target, application_name, options, "UTF8");
    let command = cmd!(sh, "{psql} --no-psqlrc --no-password --dbname={conninfo}").into();
    Ok(with_target(command, target))
}

/// Runs psql for a person, with their own settings and terminal.
///
/// # Errors
/// If psql cannot be started.
pub(crate) fn interactive(
    psql: &Path,
    target: &ConnInfo,
    arguments: &[String],
) -> Result<ExitStatus> {
    let sh = Shell::new()?;
    let conninfo = target.psql_conninfo();
    let command: Command = cmd!(sh, "{psql} --dbname={conninfo} {arguments...}").into();
    interrupt::leave_to_child();
    // A person's psql speaks the person's language.
    with_target(command, target)
        .env_remove("LC_ALL")
        .status()
        .with_context(|| format!("cannot start `{}`", psql.display()))
}
