//! The migrations folder, read once and checked completely: file names as in sqlx 0.9
//! (`sqlx-core/src/migrate/source.rs`), and our `verify/` folder. The only part of `migration` that reads
//! the disk.
//!
//! sqlx reads `<version>_<name>.up.sql`, `.down.sql` and the irreversible `<version>_<name>.sql`,
//! the name split at its first `_`, and ignores every other file. A `.sql` file that is never run is a
//! mistake that is hard to find, so here it is an error. Allowed are files with other endings, our own
//! `schema.sql`, folders, and names that begin with a dot (lock files of editors, `._` files of macOS).

mod file_name;
mod files;
mod migration;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use files::{Files, list};
pub(crate) use migration::{Direction, Migration};

use crate::error::{Failure, Result};
use crate::hint::Hint;

/// All migrations on disk; all of them can be run.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// Its path in messages.
    pub(crate) shown_as: PathBuf,
    /// Ascending by version; at least one.
    pub(crate) migrations: Vec<Migration>,
}

impl Folder {
    /// Reads the folder at `dir`, which messages call `shown_as`.
    ///
    /// # Errors
    /// A usage failure (exit 2) that lists everything wrong with the folder, each with its place:
    /// the folder itself, file names, pairs of files, and what [`Script::parse`] finds in each.
    pub(crate) fn load(dir: &Path, shown_as: &Path) -> Result<Folder> {
        let names = list(dir).map_err(|error| cannot_read(shown_as, &error))?;
        let mut files = Files::new(dir, shown_as);
        for name in names {
            files.add(name);
        }
        if files.versions.is_empty() && files.problems.is_empty() {
            return Err(no_migrations(shown_as).into());
        }
        let mut migrations = files.read_migrations();
        files.attach_verify(&mut migrations);
        if files.problems.is_empty() {
            Ok(Folder {
                shown_as: shown_as.to_owned(),
                migrations,
            })
        } else {
            Err(files.failure().into())
        }
    }

    /// The same, where everything up to this version is a baseline, as if each file said so.
    pub(crate) fn with_baseline(mut self, version: Option<i64>) -> Folder {
        for migration in &mut self.migrations {
            migration.up.directives.baseline |=
                version.is_some_and(|last| migration.version <= last);
        }
        self
    }

    pub(crate) fn get(&self, version: i64) -> Option<&Migration> {
        let index = self
            .migrations
            .binary_search_by_key(&version, |migration| migration.version);
        Some(&self.migrations[index.ok()?])
    }
}

fn cannot_read(shown_as: &Path, error: &io::Error) -> Failure {
    let failure = Failure::usage(format!(
        "cannot read the migrations folder `{}`",
        shown_as.display()
    ));
    match error.kind() {
        io::ErrorKind::NotFound => failure.cause("it does not exist"),
        io::ErrorKind::NotADirectory => failure.cause("it is a file"),
        _ => failure.cause(error.to_string()),
    }
    .hint(Hint::again_with(
        "name the folder that holds them",
        "--migrations DIR",
    ))
}

fn no_migrations(shown_as: &Path) -> Failure {
    Failure::usage(format!(
        "the migrations folder `{}` holds no migration",
        shown_as.display()
    ))
    .hint(Hint::again_with(
        "write the first one, `<version>_<name>.up.sql`, or name another folder",
        "--migrations DIR",
    ))
}
