//! A finished backup, as people and programs see it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::options::Proof;
use crate::shell::shell_word;
use crate::tools::pg_dump;
use crate::ui::{self, Ui};

/// A finished backup, as the command contract shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CompletedBackup {
    pub(crate) file: PathBuf,
    /// Qualified name.
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) proof: Proof,
    /// How long it took to take and prove it.
    #[serde(skip)]
    pub(crate) took: Duration,
}

impl CompletedBackup {
    /// What it holds, where it is and how it was proven, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}: {}, {} in {} ({})",
            self.table,
            ui::plural(self.rows, "row"),
            ui::bytes(self.bytes),
            self.file.display(),
            self.proven()
        )
    }

    /// Says that it was taken, and how a person would have taken it.
    pub(crate) fn announce(&self, ui: &Ui) {
        ui.status(
            "Backed up",
            format_args!("{}  {}", self.summary(), ui::time(self.took)),
        );
        ui.command(&command(&self.table, &self.file.display().to_string()));
    }

    /// How it was proven, for people.
    pub(crate) fn proven(&self) -> &'static str {
        match self.proof {
            Proof::Restore => "restored and compared",
            Proof::Rows => "row count compared",
            Proof::None => "not proven",
        }
    }
}

/// The command as a person would type it.
pub(crate) fn command(table: &str, file: &str) -> String {
    let arguments = pg_dump::arguments(table);
    let words: Vec<String> = arguments.iter().map(shell_word).collect();
    let words = words.join(" ");
    format!(
        "pg_dump \"$DATABASE_URL\" {words} --file={}",
        shell_word(file)
    )
}
