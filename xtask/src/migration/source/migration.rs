//! One migration on disk, and which of its files runs in which direction.

use super::cannot_use;
use super::file::File;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::Checksum;
use crate::migration::script::{Directives, NO_TRANSACTION, Problem, Script};

/// A migration's files, by their names. What is in them is checked when they are to run: once applied, a
/// migration is its version, its name and its checksum.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    pub(crate) version: i64,
    /// What sqlx stores as its description: `add users last login at`.
    pub(crate) name: String,
    /// `20251231143000_add_users_last_login_at`.
    pub(crate) stem: String,
    pub(crate) up: File,
    pub(crate) down: Option<File>,
    pub(crate) verify: Option<File>,
    /// Of the up file.
    pub(crate) checksum: Checksum,
    /// Whether the settings call it the baseline; its file may too.
    pub(crate) is_baseline_by_settings: bool,
    /// What is wrong with the names of its up and its verify file: it is not applied.
    pub(crate) misnamed_up: Vec<Problem>,
    /// What is wrong with the name of its down file: it is not undone.
    pub(crate) misnamed_down: Vec<Problem>,
}

/// Which way a migration runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Migration {
    /// Whether it is the schema as it was when the tool was adopted.
    pub(crate) fn is_baseline(&self) -> bool {
        self.is_baseline_by_settings || self.up.directives().baseline
    }

    /// Whether sqlx runs its up file in a transaction: it looks at the beginning of the file alone
    /// (`sqlx-core/src/migrate/migration.rs`).
    pub(crate) fn transactional(&self) -> bool {
        !self.up_bytes().starts_with(NO_TRANSACTION.as_bytes())
    }

    pub(crate) fn reversible(&self) -> bool {
        self.down.is_some()
    }

    /// The script that runs in this direction.
    ///
    /// # Errors
    /// A usage failure if there is no down file, or if the file cannot be run.
    pub(crate) fn script(&self, direction: Direction) -> Result<&Script> {
        match direction {
            Direction::Up => runnable(&self.up),
            Direction::Down => match &self.down {
                Some(down) => runnable(down),
                None => Err(Failure::usage(format!("`{}` has no down file", self.stem))
                    .hint(Hint::run("db-status"))
                    .into()),
            },
        }
    }

    /// What must be true once it is applied, if it has a verify file.
    ///
    /// # Errors
    /// A usage failure if the file cannot be run.
    pub(crate) fn checks(&self) -> Result<Option<&Script>> {
        self.verify.as_ref().map(runnable).transpose()
    }

    /// What its files ask for, up and down.
    pub(crate) fn directives(&self) -> impl Iterator<Item = Directives> {
        let files = std::iter::once(&self.up).chain(&self.down);
        files.map(File::directives)
    }

    /// Everything that keeps it from running in this direction.
    pub(super) fn problems(&self, direction: Direction) -> Vec<&Problem> {
        let (files, names) = match direction {
            Direction::Up => ([Some(&self.up), self.verify.as_ref()], &self.misnamed_up),
            Direction::Down => ([self.down.as_ref(), None], &self.misnamed_down),
        };
        let inside = files.into_iter().flatten().flat_map(File::problems);
        names.iter().chain(inside).collect()
    }

    /// Of the up file, as its checksum was computed.
    pub(crate) fn up_bytes(&self) -> &[u8] {
        // It was read to make the checksum.
        self.up.bytes().unwrap_or_default()
    }
}

fn runnable(file: &File) -> Result<&Script> {
    file.script()
        .map_err(|problems| cannot_use(&file.path, problems).into())
}
