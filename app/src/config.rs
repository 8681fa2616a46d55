//! Flags, environment and `.env`: the only reader of all three.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use pg_connect::ConnInfo;
use tracing_subscriber::filter::Targets;

use crate::session::Key;

/// The key in the environment and in `.env` that names the database.
const DATABASE_URL: &str = "DATABASE_URL";
/// The key in the environment and in `.env` that cookies are signed with.
const SESSION_KEY: &str = "SESSION_KEY";

/// The web application: its login stamps `users.last_login_at`, its dashboard reads it.
///
/// It never changes the schema. `cargo xtask db-setup` makes a database for it, with an administrator
/// who can sign in.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Flags {
    /// The database, as libpq takes it: a URL or key=value pairs; better in the environment or in `.env`, because
    /// everybody on this machine can read a command line
    #[arg(long, value_name = "URL", env = DATABASE_URL, hide_env_values = true)]
    database_url: Option<String>,

    /// Where to listen; with port 0 the system chooses one, which is printed
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "APP_ADDRESS",
        default_value = "127.0.0.1:3000"
    )]
    address: SocketAddr,

    /// Connections to the database, at most
    #[arg(
        long,
        value_name = "N",
        env = "APP_DATABASE_CONNECTIONS",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    database_connections: u16,

    /// Believe `X-Forwarded-For` and `X-Forwarded-Proto`: only behind a proxy that sets them
    #[arg(long, env = "APP_TRUST_PROXY")]
    trust_proxy: bool,

    /// What to log, such as `warn` or `info,app=debug`
    #[arg(long, value_name = "FILTER", env = "APP_LOG", default_value = "info")]
    log: Targets,
}

/// Settings of one run.
pub struct Config {
    /// The database.
    pub database: ConnInfo,
    /// Connections to the database, at most.
    pub database_connections: usize,
    /// Where to listen.
    pub address: SocketAddr,
    /// Whether the headers of a proxy are believed.
    pub trust_proxy: bool,
    /// What to log.
    pub log: Targets,
    /// What cookies are signed with.
    pub session_key: Key,
}

impl Config {
    /// Reads flags, environment and `.env`; ends the process for `--help` and for wrong usage.
    ///
    /// # Errors
    /// If no database is configured, or its address makes no sense; if there is no place to keep a new session key.
    pub fn read() -> anyhow::Result<Config> {
        let flags = Flags::parse();
        let dot_env = workspace_root().map(|root| root.join(".env"));
        let dot_env_value = |key| match &dot_env {
            Some(path) => read_dot_env(path, key),
            None => Ok(None),
        };

        let database_url = match flags.database_url {
            Some(url) => Some(url),
            None => dot_env_value(DATABASE_URL)?,
        };
        // Whose variable is empty meant a database, and not whichever is found next.
        if database_url
            .as_ref()
            .is_some_and(|url| url.trim().is_empty())
        {
            let message = format!(
                "{DATABASE_URL} is set, and empty\n\nhint: set it to the database's address, or remove it"
            );
            Flags::command()
                .error(ErrorKind::InvalidValue, message)
                .exit();
        }
        let Some(database_url) = database_url else {
            bail!(
                "no database is configured\n\n\
                 hint: `cargo xtask db-setup` makes one on this machine; for another, set {DATABASE_URL}"
            );
        };

        let env = pg_connect::process_env();
        let database = ConnInfo::resolve(&database_url, &env, pg_connect::os_user().as_deref())
            .map_err(no_address)?;

        let session_key = match environment(SESSION_KEY) {
            Some(key) => Some(key),
            None => dot_env_value(SESSION_KEY)?.filter(|key| !key.is_empty()),
        };
        let session_key = match (session_key, &dot_env) {
            (Some(key), _) => Key::from_hex(&key).with_context(|| {
                format!("{SESSION_KEY} must be 64 hexadecimal digits\n\nhint: openssl rand -hex 32")
            })?,
            (None, Some(path)) => keep_session_key(path).with_context(|| {
                format!("cannot keep a new {SESSION_KEY} in {}", path.display())
            })?,
            (None, None) => bail!(
                "{SESSION_KEY} is not set, and outside of a workspace there is no `.env` to keep one in\n\n\
                 hint: export {SESSION_KEY}=$(openssl rand -hex 32), the same for all instances"
            ),
        };

        Ok(Config {
            database,
            database_connections: flags.database_connections.into(),
            address: flags.address,
            trust_proxy: flags.trust_proxy,
            log: flags.log,
            session_key,
        })
    }
}

/// An address that makes no sense, with what to do about it.
fn no_address(error: pg_connect::Error) -> anyhow::Error {
    let hints: String = error
        .hints
        .iter()
        .map(|hint| format!("\nhint: {hint}"))
        .collect();
    match hints.is_empty() {
        true => error.into(),
        false => anyhow!("{error}\n{hints}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Under cargo the parent of this package; a program that is started directly looks upwards.
fn workspace_root() -> Option<PathBuf> {
    if let Some(package) = environment("CARGO_MANIFEST_DIR") {
        return Some(Path::new(&package).parent()?.to_owned());
    }
    std::env::current_dir()
        .ok()?
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").exists())
        .map(Path::to_owned)
}

/// A value of `.env`, if the file is there and has it; an empty one only where there is no other.
fn read_dot_env(path: &Path, key: &str) -> anyhow::Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let lines =
        dotenvy::from_path_iter(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found = None;
    for line in lines {
        // dotenvy's error quotes the line, which may hold a password.
        let Ok((name, value)) = line else {
            bail!("a line of {} is not KEY=value", path.display());
        };
        if name == key {
            found = Some(value);
        }
        if found.as_ref().is_some_and(|value| !value.is_empty()) {
            break;
        }
    }
    Ok(found)
}

/// Makes a session key, unless another instance of the application has just done so. The workspace is
/// locked, as by `cargo xtask`, which replaces `.env` where it changes a line.
fn keep_session_key(path: &Path) -> anyhow::Result<Key> {
    let folder = File::open(path.parent().unwrap_or(path))?;
    folder.lock()?;
    if let Some(key) = read_dot_env(path, SESSION_KEY)?.filter(|key| !key.is_empty()) {
        return Key::from_hex(&key).context("it has one that is no key: 64 hexadecimal digits");
    }
    let key = Key::generate()?;
    append_private(path, &format!("{SESSION_KEY}={}\n", key.to_hex()))?;
    Ok(key)
}

/// Adds a line to a file that is the owner's alone from then on.
fn append_private(path: &Path, line: &str) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    let before = std::fs::read(path)?;
    let separator = match before.last() {
        None | Some(b'\n') => "",
        Some(_) => "\n",
    };
    file.write_all(format!("{separator}{line}").as_bytes())?;
    file.sync_all()?;
    Ok(())
}
