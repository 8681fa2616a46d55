//! What a restore was asked to do.

use std::path::PathBuf;

use crate::options::Locks;
use crate::shell::shell_word;

/// What to restore, and how.
pub(crate) struct Request {
    /// Backups, as they were given.
    pub(crate) files: Vec<PathBuf>,
    /// Compare only.
    pub(crate) dry_run: bool,
    /// Only these columns, of rows that are there; all if there are none.
    pub(crate) columns: Vec<String>,
    /// `COLUMN=EXPRESSION`.
    pub(crate) convert: Vec<String>,
    pub(crate) force_other_database: bool,
    pub(crate) locks: Locks,
}

impl Request {
    /// The arguments that restore these files as it is asked for.
    pub(super) fn arguments_for(&self, files: &[PathBuf]) -> String {
        let mut words = vec!["db-restore".to_owned()];
        let shown = files.iter().map(|file| file.to_string_lossy());
        words.extend(shown.map(|file| shell_word(&file)));
        for column in &self.columns {
            words.push(format!("--column {}", shell_word(column)));
        }
        for convert in &self.convert {
            words.push(format!("--convert {}", shell_word(convert)));
        }
        if self.force_other_database {
            words.push("--force-other-database".to_owned());
        }
        words.join(" ")
    }
}
