//! One migration on disk, and which of its files runs in which direction.

use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::history::Checksum;
use crate::migration::script::Script;

#[derive(Clone, Debug)]
pub(crate) struct Migration {
    /// Greater than zero, as sqlx documents; `--to 0` means before the first.
    pub(crate) version: i64,
    /// What sqlx stores as its description: `add users last login at`.
    pub(crate) name: String,
    /// `20251231143000_add_users_last_login_at`.
    pub(crate) stem: String,
    pub(crate) up: Script,
    pub(crate) down: Option<Script>,
    pub(crate) verify: Option<Script>,
    /// Of the up file.
    pub(crate) checksum: Checksum,
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
        self.up.directives.baseline
    }

    pub(crate) fn reversible(&self) -> bool {
        self.down.is_some()
    }

    /// Up and, if there is one, down.
    pub(crate) fn scripts(&self) -> impl Iterator<Item = &Script> {
        std::iter::once(&self.up).chain(&self.down)
    }

    /// The script that runs in this direction; a usage failure if there is no down file.
    pub(crate) fn script(&self, direction: Direction) -> Result<&Script> {
        match direction {
            Direction::Up => Ok(&self.up),
            Direction::Down => self.down.as_ref().ok_or_else(|| {
                Failure::usage(format!("`{}` has no down file", self.stem))
                    .hint(Hint::run("db-status"))
                    .into()
            }),
        }
    }
}
