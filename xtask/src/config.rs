//! The only reader of the environment and of `.env`: where things are, and which database is meant.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use pg_connect::Env;

use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::options::Locations;
use crate::settings::Settings;

/// The key in `.env` and the environment that names the database.
pub(crate) const DATABASE_URL: &str = "DATABASE_URL";
/// The key in `.env` that keeps the development users' password.
pub(crate) const DEV_PASSWORD: &str = "DEV_USERS_PASSWORD";

/// Settings of one invocation.
pub(crate) struct Config {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// The environment's variables that are valid UTF-8.
    pub(crate) env: Env,
    /// The name of the account that we run under, PostgreSQL's default user.
    pub(crate) os_user: Option<String>,
    /// PATH, as it is.
    pub(crate) path: Option<OsString>,
    pub(crate) migrations: PathBuf,
    pub(crate) backups: PathBuf,
    pub(crate) settings: Settings,
    flag_url: Option<String>,
}

/// Where the database's address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment,
    DotEnv,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Origin::Flag => "--database-url",
            Origin::Environment => "the environment's DATABASE_URL",
            Origin::DotEnv => "`.env`",
        })
    }
}

impl Config {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// If it is started outside of a workspace.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn read(locations: Locations) -> Result<Config> {
        let env = pg_connect::process_env();
        if std::env::var_os(DATABASE_URL).is_some() && !env.contains_key(DATABASE_URL) {
            return Err(Failure::usage(format!("{DATABASE_URL} is not UTF-8"))
                .hint("set it to the database's address, or remove it: unset DATABASE_URL")
                .into());
        }
        let current = std::env::current_dir()?;
        let (root, settings) = match workspace_root(&env, &current) {
            Some(root) => (root.clone(), Settings::read(&root)?),
            None => (current.clone(), without_workspace(&current, &locations)?),
        };
        let folder = |given: &Option<PathBuf>, default: &Path| match given {
            Some(path) => current.join(path),
            None => root.join(default),
        };
        Ok(Config {
            migrations: folder(&locations.migrations, &settings.migrations),
            backups: folder(&locations.backups, &settings.backups),
            path: std::env::var_os("PATH"),
            os_user: pg_connect::os_user(),
            flag_url: locations.database_url,
            settings,
            root,
            env,
        })
    }

    /// The folder that alone is searched for PostgreSQL's programs, if `PG_BIN_DIR` names one.
    pub(crate) fn pg_bin_dir(&self) -> Option<PathBuf> {
        self.env.get("PG_BIN_DIR").map(PathBuf::from)
    }

    pub(crate) fn dot_env(&self) -> PathBuf {
        self.root.join(".env")
    }

    /// The private server's home.
    pub(crate) fn server_home(&self) -> PathBuf {
        self.root.join(&self.settings.server)
    }

    /// The SQL that `db-seed` runs.
    pub(crate) fn seed(&self) -> PathBuf {
        self.root.join(&self.settings.seed)
    }

    /// The database's address, from the flag, the environment or `.env`, in this order.
    ///
    /// # Errors
    /// If `.env` cannot be read; if the first of them that is set is empty: whoever set it meant a
    /// database, and not whichever is found next.
    pub(crate) fn database_url(&self) -> Result<Option<(String, Origin)>> {
        let found = if let Some(url) = &self.flag_url {
            Some((url.clone(), Origin::Flag))
        } else if let Some(url) = self.env.get(DATABASE_URL) {
            Some((url.clone(), Origin::Environment))
        } else {
            let url = self.dot_env_value(DATABASE_URL)?;
            url.map(|url| (url, Origin::DotEnv))
        };
        match found {
            Some((url, origin)) if url.trim().is_empty() => {
                let (what, remove) = match origin {
                    Origin::Flag => ("--database-url is", "leave it out"),
                    Origin::Environment => {
                        ("DATABASE_URL is set, and", "remove it: unset DATABASE_URL")
                    }
                    Origin::DotEnv => ("DATABASE_URL in `.env` is", "remove the line"),
                };
                Err(Failure::usage(format!("{what} empty"))
                    .cause("that names no database, and no other is taken in its place")
                    .state("nothing was connected to")
                    .hint(Hint::to(
                        format!("set it to the database's address, or {remove}; then"),
                        "db-status",
                    ))
                    .into())
            }
            found => Ok(found),
        }
    }

    /// A value of `.env`; an empty one only where there is no other.
    ///
    /// # Errors
    /// If `.env` is there and cannot be read.
    pub(crate) fn dot_env_value(&self, key: &str) -> Result<Option<String>> {
        let path = self.dot_env();
        if !path.exists() {
            return Ok(None);
        }
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("cannot read `{}`", path.display()))
                .cause(error.to_string())
                .hint(format!("fix or remove {}", path.display()))
        };
        let lines = dotenvy::from_path_iter(&path).map_err(|error| unreadable(&error))?;
        let mut found = None;
        for line in lines {
            // A parse error of dotenvy quotes the line, which may hold the password.
            let (name, value) = line.map_err(|error| match error {
                dotenvy::Error::Io(error) => unreadable(&error),
                _ => unreadable(&"a line is not KEY=value"),
            })?;
            if name == key {
                found = Some(value);
            }
            if found.as_ref().is_some_and(|value| !value.is_empty()) {
                break;
            }
        }
        Ok(found)
    }

    /// Sets a key in `.env`, keeping every other line; the file is the owner's alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn set_dot_env(&self, key: &str, value: &str) -> Result {
        self.rewrite_dot_env(&self.lock_dot_env()?, key, Some(value))
    }

    /// As [`Config::set_dot_env`], unless the key has a value already: the one that it has from then on.
    ///
    /// # Errors
    /// If `.env` cannot be read or written.
    pub(crate) fn keep_in_dot_env(&self, key: &str, value: &str) -> Result<String> {
        let lock = self.lock_dot_env()?;
        let known = self.dot_env_value(key)?;
        if let Some(known) = known.filter(|known| !known.is_empty()) {
            return Ok(known);
        }
        self.rewrite_dot_env(&lock, key, Some(value))?;
        Ok(value.to_owned())
    }

    /// Removes a key from `.env`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn unset_dot_env(&self, key: &str) -> Result {
        self.rewrite_dot_env(&self.lock_dot_env()?, key, None)
    }

    /// Two commands at once, or the application beside one, must not forget each other's lines. The file
    /// itself is replaced, so its folder is locked.
    fn lock_dot_env(&self) -> Result<File> {
        let folder = File::open(&self.root)?;
        folder.lock()?;
        Ok(folder)
    }

    fn rewrite_dot_env(&self, _lock: &File, key: &str, value: Option<&str>) -> Result {
        use std::io::Write as _;
        let path = self.dot_env();
        let before = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let mut lines: Vec<String> = before
            .lines()
            .filter(|line| key_of(line) != Some(key))
            .map(str::to_owned)
            .collect();
        lines.extend(value.map(|value| format!("{key}={value}")));
        // Named temporary files are created 0600; renaming replaces the old one at once.
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        for line in &lines {
            writeln!(file, "{line}")?;
        }
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    }

    /// A path as people should see it: relative to the workspace where it lies inside.
    pub(crate) fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }
}

/// The key that a line of `.env` sets: `KEY=…`, also with `export` before it.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    Some(key.strip_prefix("export ").map_or(key, str::trim))
}

/// The workspace: the folder that holds `Cargo.lock`, above the package that cargo runs, or above where a
/// program is that was started directly.
fn workspace_root(env: &Env, current: &Path) -> Option<PathBuf> {
    let package = env.get("CARGO_MANIFEST_DIR").map(Path::new);
    let mut folders = package.unwrap_or(current).ancestors();
    let root = folders.find(|folder| folder.join("Cargo.lock").exists());
    root.map(Path::to_owned)
}

/// An image that deploys has the program and the migrations, and may have nothing else of a workspace.
fn without_workspace(current: &Path, locations: &Locations) -> Result<Settings> {
    let settings = Settings {
        command: "xtask".to_owned(),
        ..Settings::default()
    };
    if locations.migrations.is_some() || current.join(&settings.migrations).is_dir() {
        return Ok(settings);
    }
    Err(Failure::usage("not in a Cargo workspace")
        .cause(format!(
            "no `Cargo.lock` in `{0}` or above, and no `{1}` in it",
            current.display(),
            settings.migrations.display()
        ))
        .hint("run it inside the workspace, or name the folder: --migrations DIR")
        .into())
}
