//! Development rows: what a seed file of the workspace makes, run by psql in batches, all in one
//! transaction.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use postgres::Client;

use crate::Context;
use crate::config::{Config, DEV_PASSWORD};
use crate::database::{Database, activity};
use crate::error::{Failure, Kind, Result};
use crate::failures;
use crate::hint::Hint;
use crate::tools::psql::{Chunk, PsqlSession, SessionError, Starting};
use crate::ui;
use crate::{hex, interrupt};

/// Rows of a `db-seed` that asks for no number: as many as the guide's example has, rounded.
pub(crate) const DEFAULT_ROWS: u64 = 1_200;
/// Rows of one batch: progress is shown between two.
const BATCH: u64 = 50_000;
/// The advisory lock of whoever seeds: the letters `seed`.
const SEEDING: i64 = 0x7365_6564;
/// How a seed file says what to do with its rows.
const NEXT: &str = "-- xtask: next ";

/// The workspace's seed file.
pub(crate) struct SeedFile {
    path: PathBuf,
    text: String,
}

impl SeedFile {
    /// Reads it, where there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(config: &Config) -> Result<Option<SeedFile>> {
        let path = config.seed();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(SeedFile { path, text })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    /// What is left for a person to do, in the file's own words.
    pub(crate) fn next(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines();
        lines
            .filter_map(|line| line.strip_prefix(NEXT))
            .map(str::trim)
    }

    /// Adds rows, by a psql session with these options.
    ///
    /// # Errors
    /// If the server says no, or it is interrupted: nothing is added then.
    pub(crate) fn run(
        &self,
        ctx: &Context,
        db: &mut Database,
        session_options: &str,
        rows: u64,
        logins: bool,
    ) -> Result {
        let started = Instant::now();
        let Database { client, server } = db;
        let name = &ctx.application_name;
        let psql = ctx.tools().psql()?;
        let starting = Starting::start(&psql, &server.target, name, session_options)?;
        let mut psql = starting.greet(name).map_err(|error| self.failure(&error))?;
        let progress = ctx.ui.progress("Seeding");
        // Another db-seed would number its rows the same.
        let begin = format!(
            "BEGIN;\nSELECT pg_catalog.pg_advisory_xact_lock({SEEDING});\n\\set logins {logins}\n{}",
            self.password_hash(&ctx.config)?
        );
        self.feed(client, &mut psql, begin)?;
        let path = psql_word(&self.path);
        let mut done = 0;
        while done < rows {
            let batch = BATCH.min(rows - done);
            self.feed(
                client,
                &mut psql,
                format!("\\set rows {batch}\n\\i {path}\n"),
            )?;
            done += batch;
            progress.update(format_args!(
                "{} of {} rows, {:.0} %",
                ui::count(done),
                ui::count(rows),
                done as f64 / rows as f64 * 100.0
            ));
        }
        self.feed(client, &mut psql, "COMMIT;\nANALYZE;\n".to_owned())?;
        drop(psql);
        drop(progress);
        ctx.ui.status(
            "Seeded",
            format_args!(
                "{} by {}  {}",
                ui::plural(rows, "development row"),
                ctx.config.shown(&self.path).display(),
                ui::time(started.elapsed())
            ),
        );
        Ok(())
    }

    /// Sets psql's variable of that name, if the file wants it.
    fn password_hash(&self, config: &Config) -> Result<String> {
        if !self.text.contains("password_hash") {
            return Ok(String::new());
        }
        let hash = Argon2::default()
            .hash_password(development_password(config)?.as_bytes())
            .map_err(|error| anyhow::anyhow!("cannot hash the development password: {error}"))?;
        Ok(format!("\\set password_hash '{hash}'\n"))
    }

    fn feed(&self, client: &mut Client, psql: &mut PsqlSession, before: String) -> Result {
        interrupt::check()?;
        let pid = psql.backend_pid();
        let chunk = Chunk {
            before,
            ..Chunk::default()
        };
        let mut cancel = |_: Duration| {
            if interrupt::requested() {
                let _ = activity::cancel(client, pid);
            }
        };
        let outcome = psql.run(&chunk, &mut cancel);
        outcome.map_err(|error| self.failure(&error))?;
        Ok(())
    }

    fn failure(&self, error: &SessionError) -> anyhow::Error {
        let mut failure = failures::explain(error.message.failure());
        if interrupt::requested() {
            failure.kind = Kind::Interrupted;
        }
        failure = failure.attempted(format!(
            "cannot run the seed file `{}`",
            self.path.display()
        ));
        // A table or a column that a pending migration makes.
        if matches!(failure.sqlstate.as_deref(), Some("42P01" | "42703")) {
            failure.hints = vec![Hint::run("db-migrate"), Hint::again("then")];
        }
        failure.state("nothing was added").into()
    }
}

/// A path as one argument of a psql command (psql's manual, "Meta-Commands").
fn psql_word(path: &Path) -> String {
    let path = path.to_string_lossy();
    format!("'{}'", path.replace('\\', "\\\\").replace('\'', "''"))
}

/// The failure that there is no seed file.
pub(crate) fn missing(path: &Path) -> Failure {
    Failure::usage("there is nothing to seed with")
        .cause(format!("there is no `{}`", path.display()))
        .hint("write one, or name yours in `Cargo.toml`: docs/adopting.md shows both")
}

/// The development users' password: from `.env`, or generated and kept there.
fn development_password(config: &Config) -> Result<String> {
    let known = config.dot_env_value(DEV_PASSWORD)?;
    if let Some(password) = known.filter(|password| !password.is_empty()) {
        return Ok(password);
    }
    let mut bytes = [0u8; 9];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("cannot get random bytes: {error}"))?;
    config.keep_in_dot_env(DEV_PASSWORD, &hex::encode(&bytes))
}
