//! Why a run or a rollback cannot go on.

use std::collections::BTreeSet;

use super::state::{State, state};
use crate::error::{Failure, Result};
use crate::hex;
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::source::{Folder, Migration};

/// Everything that prevents a run or a rollback, with a hint for each kind.
#[derive(Default)]
pub(super) struct Obstacles {
    causes: Vec<String>,
    hints: Vec<Hint>,
}

impl Obstacles {
    /// Notes what is wrong with an applied migration.
    pub(super) fn check_applied(&mut self, folder: &Folder, row: &Applied) {
        let version = row.version;
        let migration = folder.get(version);
        match (state(migration, Some(row)), migration) {
            (State::Failed, _) => self.note(
                format!("`{version}` ({}) is recorded as failed", row.description),
                Hint::psql(
                    format!("see how far `{version}` came, undo that by hand, then remove its row"),
                    &format!(
                        "DELETE FROM _sqlx_migrations WHERE version = {version} AND NOT success"
                    ),
                ),
            ),
            (State::Missing, _) => {
                self.note(
                    format!(
                        "`{version}` ({}) was applied on {} and its file is gone",
                        row.description, row.installed_on
                    ),
                    Hint::to("see which branch or commit has it", "db-repair"),
                );
                self.hint(Hint::again_with(
                    "or, if another folder with the same history has it",
                    "--ignore-missing",
                ));
            }
            (State::Divergent, Some(migration)) => self.note(
                format!(
                    "`{}` was edited after it was applied (SHA-384 {} in the history, {} now)",
                    migration.up.path.display(),
                    abbreviated(&row.checksum),
                    abbreviated(&migration.checksum)
                ),
                Hint::to(
                    "see what changed; only comments and white space can be recorded, any other change is a migration of its own",
                    "db-repair",
                ),
            ),
            _ => {}
        }
    }

    pub(super) fn out_of_order(&mut self, migration: &Migration, newest: i64) {
        self.note(
            format!(
                "`{}` is pending, yet older than the newest applied, `{newest}`",
                migration.up.path.display()
            ),
            Hint::to(
                format!(
                    "rename the pending files to versions above `{newest}`, or, if order does not matter"
                ),
                "db-migrate --allow-out-of-order",
            ),
        );
    }

    pub(super) fn irreversible(&mut self, migration: &Migration) {
        let up = &migration.up.path;
        let named = |ending: &str| up.with_file_name(format!("{}{ending}", migration.stem));
        let (reversible_up, down) = (named(".up.sql"), named(".down.sql"));
        let rename = if *up == reversible_up {
            String::new()
        } else {
            // The name alone makes it irreversible; the checksum does not cover the name.
            format!("rename it to `{}`, ", reversible_up.display())
        };
        self.note(
            format!("`{}` has no down file", up.display()),
            Hint::to(
                format!("{rename}write `{}`, or stop above it", down.display()),
                format!("db-rollback --to {}", migration.version),
            ),
        );
    }

    fn note(&mut self, cause: String, hint: impl Into<Hint>) {
        self.causes.push(cause);
        self.hint(hint);
    }

    fn hint(&mut self, hint: impl Into<Hint>) {
        let hint = hint.into();
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }

    pub(super) fn into_result(self, message: &str) -> Result {
        if self.causes.is_empty() {
            return Ok(());
        }
        Err(Failure {
            causes: self.causes,
            hints: self.hints,
            ..Failure::finding(message)
        }
        .into())
    }
}

/// Checks that this version is on disk or in the history.
pub(crate) fn check_known(version: i64, folder: &Folder, applied: &BTreeSet<i64>) -> Result {
    if folder.get(version).is_none() && !applied.contains(&version) {
        let nor = match folder.shares_history {
            true => "nor, with a file there, in the history",
            false => "nor in the history",
        };
        return Err(Failure::usage(format!(
            "there is no migration `{version}`, neither in `{}` {nor}",
            folder.shown_as.display()
        ))
        .hint(Hint::to("see the versions", "db-status"))
        .into());
    }
    Ok(())
}

/// The beginning of a checksum, enough to tell two apart.
fn abbreviated(checksum: &[u8]) -> String {
    format!("`{}…`", hex::encode(&checksum[..checksum.len().min(4)]))
}
