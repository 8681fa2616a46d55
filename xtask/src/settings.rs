//! A workspace's settings: `[workspace.metadata.xtask-db]` in its `Cargo.toml`, which cargo leaves to tools
//! (The Cargo Book, "The metadata table"). Each has a default; a flag of the command line wins.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Failure, Result};

/// How this tool is called where no setting says so.
pub(crate) const DEFAULT_COMMAND: &str = "cargo xtask";

/// The table, relative paths as they are written.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The folder of migrations.
    pub(crate) migrations: PathBuf,
    /// The folder for backups.
    pub(crate) backups: PathBuf,
    /// The SQL that `db-seed` runs.
    pub(crate) seed: PathBuf,
    /// The home of the private server.
    pub(crate) server: PathBuf,
    /// The database that `db-setup` creates on it.
    pub(crate) database: String,
    /// How this tool is called here.
    pub(crate) command: String,
    /// Migrations up to this version are a baseline, as if each said so.
    pub(crate) baseline: Option<i64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            migrations: "migrations".into(),
            backups: "backups".into(),
            seed: "migrations/seed.sql".into(),
            server: ".postgres".into(),
            database: "dev".to_owned(),
            command: DEFAULT_COMMAND.to_owned(),
            baseline: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    workspace: Table,
    package: Table,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(rename = "xtask-db")]
    settings: Option<Settings>,
}

impl Settings {
    /// Those of the workspace in this folder; of a single package, its `[package.metadata.xtask-db]`.
    ///
    /// # Errors
    /// If `Cargo.toml` cannot be read, or names a setting that there is not.
    pub(crate) fn read(root: &Path) -> Result<Settings> {
        let path = root.join("Cargo.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Settings::default()),
            Err(error) => return Err(unreadable(&path, &error.to_string()).into()),
        };
        let manifest: Manifest =
            toml::from_str(&text).map_err(|error| unreadable(&path, error.to_string().trim()))?;
        let settings = manifest.workspace.metadata.settings;
        Ok(settings
            .or(manifest.package.metadata.settings)
            .unwrap_or_default())
    }
}

fn unreadable(path: &Path, cause: &str) -> Failure {
    Failure::usage(format!(
        "cannot read `[workspace.metadata.xtask-db]` in `{}`",
        path.display()
    ))
    .cause(cause)
    .hint("docs/adopting.md lists the settings; correct that file and run the command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(manifest: &str) -> Result<Settings> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("writes");
        Settings::read(folder.path())
    }

    #[test]
    fn each_setting_has_a_default() {
        let folder = tempfile::tempdir().expect("a folder");
        for settings in [
            Settings::read(folder.path()),
            of("[workspace]\nmembers = ['a']\n[workspace.metadata.other]\nx = 1\n"),
            of("[workspace.metadata.xtask-db]\n"),
        ] {
            let settings = settings.expect("reads");
            assert_eq!(settings.migrations, Path::new("migrations"));
            assert_eq!(settings.command, "cargo xtask");
            assert_eq!(settings.baseline, None);
        }
    }

    #[test]
    fn a_workspace_says_otherwise() {
        let written =
            "migrations = 'db/migrations'\ncommand = 'cargo x'\nbaseline = 20240101000000\n";
        for table in ["workspace", "package"] {
            let settings = of(&format!("[{table}.metadata.xtask-db]\n{written}")).expect("reads");
            assert_eq!(settings.migrations, Path::new("db/migrations"));
            assert_eq!(settings.command, "cargo x");
            assert_eq!(settings.baseline, Some(20_240_101_000_000));
        }
    }

    #[test]
    fn a_setting_that_there_is_not_is_an_error_that_lists_those_that_there_are() {
        let error = of("[workspace.metadata.xtask-db]\nmigration = 'm'\n").expect_err("unknown");
        let failure = error.downcast_ref::<Failure>().expect("a failure");
        let cause = failure.causes.concat();
        assert!(
            cause.contains("unknown field `migration`") && cause.contains("`migrations`"),
            "{cause}"
        );
    }
}
