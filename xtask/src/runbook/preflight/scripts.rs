//! What can be told from the migrations' files alone.

use super::check::{Check, Found, Look, When};
use crate::database::history;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::Effect;
use crate::migration::script::Script;
use crate::runbook::losses;
use crate::ui;

pub(super) const MIGRATIONS: Check = Check {
    name: "migrations",
    // Every command has loaded the folder before it connects.
    before: &[],
    look: Look::Machine(|ctx| {
        let folder = ctx.load_folder()?;
        let migrations = ui::plural(folder.migrations.len() as u64, "migration");
        let place = folder.shown_as.display();
        Ok(Found::ok(format!("{migrations} in {place}")))
    }),
};

/// The history stays where it is. In a transaction the server sees to that; outside of one it is too late
/// when it says so.
pub(super) const HISTORY_STAYS: Check = Check {
    name: "history table",
    before: &[When::Up, When::Down],
    look: Look::Run(|_, _, planned| {
        history_stays(&planned.scripts)?;
        Ok(Found::ok("no pending migration moves, renames or drops it"))
    }),
};

/// A script that runs outside a transaction says by its text alone what it destroys: there is no moment
/// before it takes effect at which the server could be asked.
pub(super) const READABLE: Check = Check {
    name: "losses",
    before: &[When::Up, When::Down],
    look: Look::Run(|_, _, planned| {
        if planned.no_backup {
            return Ok(Found::ok("nothing is backed up"));
        }
        for script in &planned.scripts {
            readable(script)?;
            names_what_it_destroys(script)?;
        }
        Ok(Found::ok(
            "what pending migrations destroy is known before it takes effect",
        ))
    }),
};

/// Whether a script moves, renames or drops the table that says what has run: its own row would have no
/// place, and the next run would take the database for an empty one.
pub(crate) fn moves_history(script: &Script) -> bool {
    script.statements.iter().any(|statement| {
        let has_word = |word| statement.has_word(&script.text, word);
        has_word(history::TABLE) && ["drop", "rename", "schema"].into_iter().any(has_word)
    })
}

/// # Errors
/// If a script that runs outside a transaction moves it.
fn history_stays(scripts: &[&Script]) -> Result {
    match scripts
        .iter()
        .find(|script| !script.transactional && moves_history(script))
    {
        Some(script) => Err(
            Failure::usage(format!("cannot run `{}`", script.path.display()))
                .cause(HISTORY_MOVED)
                .state("no migration has run; nothing was changed")
                .hint(Hint::again(format!(
                    "remove that from {}, then",
                    script.path.display()
                )))
                .into(),
        ),
        None => Ok(()),
    }
}

/// # Errors
/// If a script that runs outside a transaction sets its search path, and then destroys something without naming
/// its schema: what is counted and backed up before it takes effect might be something else.
fn names_what_it_destroys(script: &Script) -> Result {
    if script.transactional {
        return Ok(());
    }
    let mut path_was_set = false;
    for (statement, effects) in script.effects() {
        path_was_set |= script.sets_search_path(statement);
        if !path_was_set || !effects.iter().any(destroys_without_schema) {
            continue;
        }
        let path = script.path.display();
        return Err(
            Failure::usage(format!("`{path}` may destroy what is in no backup"))
                .cause(format!(
                    "it runs outside a transaction, sets its search path, and {} names no schema",
                    losses::place(script, statement)
                ))
                .state("nothing was changed")
                .hint(Hint::again_with(
                    "write the schema before the name; then",
                    "--dry-run",
                ))
                .into(),
        );
    }
    Ok(())
}

fn destroys_without_schema(effect: &Effect) -> bool {
    match effect {
        Effect::DropTable { table, .. }
        | Effect::DropColumn { table, .. }
        | Effect::AlterColumnType { table, .. }
        | Effect::RenameTable { table, .. }
        | Effect::Truncate { table }
        | Effect::Delete { table }
        | Effect::Update { table } => table.schema.is_none(),
        _ => false,
    }
}

/// What is wrong with such a script.
pub(crate) const HISTORY_MOVED: &str = "it moves, renames or drops `_sqlx_migrations`, the table that says what has run: its own row would have no place";

/// # Errors
/// If a script has a statement that cannot be read, and does not say what to back up for it.
fn readable(script: &Script) -> Result {
    let Some(statement) = script.first_unclear() else {
        return Ok(());
    };
    if script.transactional || script.directives.lossless || !script.directives.backup.is_empty() {
        return Ok(());
    }
    let path = script.path.display();
    Err(Failure::usage(format!("`{path}` may destroy what is in no backup"))
        .cause(format!(
            "it runs outside a transaction, and what {} does cannot be read from it",
            losses::place(script, statement)
        ))
        .state("nothing was changed")
        .hint(Hint::again_with(format!("let {path} run in a transaction, where the server is asked what it destroys: remove its first line; then"), "--dry-run"))
        .hint(Hint::again_with("or say in its head what to back up, `-- xtask: backup TABLE`, or that it destroys nothing, `-- xtask: lossless`; then", "--dry-run"))
        .into())
}
