//! What to say of a migration that failed: where in its file, why, and what became of it.

use std::time::{Duration, Instant};

use super::runner::Runner;
use crate::database::{history, lock};
use crate::error::{Failure, Kind, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::runbook::watched_psql::CANCEL_EVERY;
use crate::runbook::{excerpt, preflight, stall};
use crate::tools::psql::SessionError;

/// How long the server may take to notice that psql is gone: somewhat more than
/// `client_connection_check_interval`.
const LOST_SESSION_ENDS: Duration = Duration::from_secs(5);
/// What is said where nobody has seen the end of it.
pub(super) const GOES_ON: &str =
    "the server may still be running it; the next run waits for that to end";

impl Runner<'_> {
    /// A failed transaction. Where the session was lost, it may have been committed all the same.
    pub(super) fn failed(
        &mut self,
        migration: &Migration,
        script: &Script,
        direction: Direction,
        error: &SessionError,
    ) -> Failure {
        let failure = self.explain(script, direction, error);
        let sqlstate = failure.sqlstate.as_deref().unwrap_or("08006");
        let is_lost = ["08", "57P"]
            .iter()
            .any(|class| sqlstate.starts_with(class));
        if !is_lost || matches!(failure.kind, Kind::Interrupted | Kind::Busy) {
            return failure;
        }
        let stem = &migration.stem;
        let state = match self.is_recorded(migration) {
            Ok(recorded) if recorded == (direction == Direction::Up) => {
                format!("`{stem}` was committed, as the history says: only the answer was lost")
            }
            Ok(_) => format!("`{stem}` was not committed: it has changed nothing"),
            Err(_) => {
                return failure.cause(GOES_ON).state(format!(
                    "whether `{stem}` was committed is not known here: the history on the server shows it"
                ));
            }
        };
        failure.state(state)
    }

    /// What the history says when the lost session's work on the server has ended.
    fn is_recorded(&mut self, migration: &Migration) -> Result<bool> {
        let lost = Instant::now();
        while lock::orphan(&mut self.psql.db.client)?.is_some() {
            anyhow::ensure!(lost.elapsed() < LOST_SESSION_ENDS, "it goes on");
            std::thread::sleep(CANCEL_EVERY);
        }
        let rows = history::read(self.psql.db)?.applied;
        Ok(rows.iter().any(|row| row.version == migration.version))
    }

    /// A failed statement of a migration: what was attempted, where in the file, and why.
    pub(super) fn explain(
        &self,
        script: &Script,
        direction: Direction,
        error: &SessionError,
    ) -> Failure {
        let path = script.path.display();
        if interrupt::requested() {
            return Failure::interrupted(format!("`{path}` was cancelled on the server"));
        }
        if let Some(stalled) = self.psql.stalled() {
            let statements = excerpt::failed_statements(script, error);
            let safe_form = statements
                .into_iter()
                .find_map(|statement| stall::safe_form(script, statement));
            let mut failure =
                stall::failure(&format!("`{path}` was cancelled"), stalled, safe_form);
            failure.excerpt = excerpt::of(script, error);
            return failure;
        }
        let of_history = error.statement.is_none() && error.body_line.is_none();
        if of_history && error.message.sqlstate.as_deref() == Some(history::NOT_ONE_ROW) {
            let table = &self.history.table.name;
            return Failure::failed(format!(
                "cannot write `{}` into the history table `{table}`",
                path
            ))
            .cause("not exactly one row was written: a trigger, a policy or another session interfered")
            .hint(Hint::psql("look at it", &format!("\\d {table}")))
            .hint(Hint::again("then"));
        }
        script_failure(script, direction, error)
    }
}

/// A failed statement of a migration: what was attempted, where in the file, and why.
fn script_failure(script: &Script, direction: Direction, error: &SessionError) -> Failure {
    let verb = match direction {
        Direction::Up => "apply",
        Direction::Down => "undo",
    };
    let attempted = format!("cannot {verb} `{}`", script.path.display());
    let mut failure = error.message.failure().attempted(attempted);
    failure.excerpt = excerpt::of(script, error);
    if failure.sqlstate.as_deref() == Some("42P01") && preflight::moves_history(script) {
        let file = script.path.display();
        failure = failure
            .cause(preflight::HISTORY_MOVED)
            .hint(Hint::again(format!("remove that from {file}, then")));
    }
    if failure.sqlstate.is_none() {
        // psql itself is gone, or its connection: the server may not know yet.
        failure = failure
            .hint(Hint::to("check the server and the tools", "db-doctor"))
            .hint(Hint::again("then go on"));
    }
    let affected = AffectedTables::from_scripts([script], None);
    let table = affected.tables().next().map(ToString::to_string);
    failures::explain_about(failure, table.as_deref())
}

/// What was attempted where the checks of a migration do not hold.
pub(super) fn checks_failed(migration: &Migration) -> String {
    format!("checks failed for `{}`", migration.stem)
}
