//! The migrations folder: file names as in sqlx 0.9 (`sqlx-core/src/migrate/source.rs`), and our `verify/`
//! folder. The only part of `migration` that uses the disk.
//!
//! sqlx reads `<version>_<name>.up.sql`, `.down.sql` and the irreversible `<version>_<name>.sql`,
//! the name split at its first `_`, and ignores every other file. A `.sql` file that is never run is a
//! mistake that is hard to find, so here it is named. Nothing is said of files with other endings, our own
//! `schema.sql`, folders, and names that begin with a dot (lock files of editors, `._` files of macOS).
//!
//! Applied files are history: what is in them is not looked at, whatever rule of ours they would break.
//! [`Folder::scripts`] has the rules for those that are to run.

mod file;
mod file_name;
mod files;
mod migration;
pub(crate) mod new_files;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use file::File;
use file_name::{FileKind, FileName};
use files::{Files, list};
pub(crate) use migration::{Direction, Migration};

use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::script::{Problem, Script};

/// All migrations on disk.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// Its path in messages.
    pub(crate) shown_as: PathBuf,
    /// Ascending by version; at least one.
    pub(crate) migrations: Vec<Migration>,
    /// Files that are not read, though a person may have meant them to be.
    pub(crate) ignored: Vec<Problem>,
    /// Whether the history may have migrations of other folders too.
    pub(crate) shares_history: bool,
}

impl Folder {
    /// Reads the folder at `dir`, which messages call `shown_as`.
    ///
    /// # Errors
    /// A usage failure (exit 2) that lists everything that keeps the folder from being used, each with its
    /// place. What is wrong inside of a file, [`Folder::scripts`] says before it runs.
    pub(crate) fn load(dir: &Path, shown_as: &Path) -> Result<Folder> {
        let names = list(dir).map_err(|error| cannot_read(shown_as, &error))?;
        let mut files = Files::new(dir, shown_as);
        for name in names {
            files.add(name);
        }
        let mut migrations = files.read_migrations();
        files.attach_verify(&mut migrations);
        if !files.problems.is_empty() {
            return Err(cannot_use(shown_as, &files.problems).into());
        }
        if migrations.is_empty() {
            return Err(no_migrations(shown_as, &files.ignored).into());
        }
        Ok(Folder {
            shown_as: shown_as.to_owned(),
            migrations,
            ignored: files.ignored,
            shares_history: false,
        })
    }

    /// What these migrations run in this direction.
    ///
    /// # Errors
    /// A usage failure (exit 2) that lists everything wrong with their files, each with its place.
    pub(crate) fn scripts<'m>(
        &self,
        migrations: &[&'m Migration],
        direction: Direction,
    ) -> Result<Vec<&'m Script>> {
        let problems = migrations
            .iter()
            .flat_map(|migration| migration.problems(direction));
        let problems: Vec<&Problem> = problems.collect();
        if !problems.is_empty() {
            return Err(cannot_use(&self.shown_as, problems).into());
        }
        let scripts = migrations
            .iter()
            .map(|migration| migration.script(direction));
        scripts.collect()
    }

    /// The same, where everything up to this version is a baseline, as if each file said so.
    pub(crate) fn with_baseline(mut self, version: Option<i64>) -> Folder {
        for migration in &mut self.migrations {
            migration.is_baseline_by_settings =
                version.is_some_and(|last| migration.version <= last);
        }
        self
    }

    /// The same, where other folders' migrations may be in the history too: as sqlx's `--ignore-missing`.
    pub(crate) fn sharing_history(mut self, shares_history: bool) -> Folder {
        self.shares_history = shares_history;
        self
    }

    /// Leaves the rows of other folders' migrations out of the history, if it is shared; returns their versions.
    /// What is recorded as failed stays: it stops every run.
    pub(crate) fn leave_out_others(&self, history: &mut Vec<Applied>) -> Vec<i64> {
        let mut left_out = Vec::new();
        if self.shares_history {
            history.retain(|row| {
                let stays = !row.success || self.get(row.version).is_some();
                if !stays {
                    left_out.push(row.version);
                }
                stays
            });
        }
        left_out
    }

    pub(crate) fn get(&self, version: i64) -> Option<&Migration> {
        let index = self
            .migrations
            .binary_search_by_key(&version, |migration| migration.version);
        Some(&self.migrations[index.ok()?])
    }
}

/// The version that a file of this name would apply, if it is one that is applied.
pub(crate) fn version_of(file_name: &str) -> Option<i64> {
    let name = FileName::parse(file_name).ok()?;
    (name.kind != FileKind::Down).then_some(name.version)
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

fn no_migrations(shown_as: &Path, ignored: &[Problem]) -> Failure {
    let mut failure = Failure::usage(format!(
        "the migrations folder `{}` holds no migration",
        shown_as.display()
    ));
    for problem in ignored {
        failure = failure.cause(problem.to_string());
    }
    failure
        .hint(Hint::again_with("name another folder", "--migrations DIR"))
        .hint(Hint::to("or write the first one", "db-new NAME"))
}

/// The failure that these problems are in the way, each with its hint.
fn cannot_use<'p>(
    shown_as: &Path,
    problems: impl IntoIterator<Item = &'p Problem, IntoIter: ExactSizeIterator>,
) -> Failure {
    let problems = problems.into_iter();
    // If there are several problems, each hint has to say which one it is for.
    let several = problems.len() > 1;
    let count = match several {
        true => format!(": {} problems", problems.len()),
        false => String::new(),
    };
    let mut failure = Failure::usage(format!(
        "cannot use the migrations in `{}`{count}",
        shown_as.display()
    ));
    for problem in problems {
        failure = failure.cause(problem.to_string()).hint(match several {
            true => format!("{}: {}", problem.place, problem.hint),
            false => problem.hint.clone(),
        });
    }
    failure.hint(Hint::to("then look again", "db-migrate --dry-run"))
}
