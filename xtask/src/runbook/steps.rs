//! What a run is going to do, as steps: each with its title, why it is done, the command that a
//! person would type, and how it is verified.

use super::backup;
use crate::database::catalog::Relation;
use crate::error::{Result, shell_word};
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};

/// One step of a runbook.
pub(crate) struct Step<'a> {
    pub(crate) title: String,
    /// Why it is done; for a migration the comment at the head of its file.
    pub(crate) why: String,
    /// As a person would type it.
    pub(crate) command: String,
    /// How one can see that it worked.
    pub(crate) verification: String,
    pub(crate) action: Action<'a>,
}

/// What running a step means.
pub(crate) enum Action<'a> {
    Backup(Relation),
    Change(&'a Migration),
    Verify(Vec<&'a Migration>),
}

/// The steps of a run: back up the tables, run the migrations in this order, check.
///
/// # Errors
/// If a migration that is to be undone has no down file.
pub(crate) fn of_run<'a>(
    direction: Direction,
    backups: Vec<Relation>,
    migrations: &[&'a Migration],
    checked: Vec<&'a Migration>,
) -> Result<Vec<Step<'a>>> {
    let mut steps: Vec<Step<'a>> = backups.into_iter().map(backup_step).collect();
    for migration in migrations {
        steps.push(change_step(migration, direction)?);
    }
    steps.push(Step {
        title: "Verify".to_owned(),
        why: "What must be true now is checked, not assumed.".to_owned(),
        command: "cargo xtask db-verify".to_owned(),
        verification: "every check says ok".to_owned(),
        action: Action::Verify(checked),
    });
    Ok(steps)
}

fn backup_step<'a>(relation: Relation) -> Step<'a> {
    let table = relation.qualified();
    Step {
        title: format!("Back up `{table}`"),
        why: "If something goes wrong, every row can come back as it was.".to_owned(),
        command: backup::command(&table, &format!("backups/{}_backup_….sql", relation.name)),
        verification:
            "restored into a scratch table: the rows and the content of the dump's own snapshot"
                .to_owned(),
        action: Action::Backup(relation),
    }
}

fn change_step(migration: &Migration, direction: Direction) -> Result<Step<'_>> {
    let script = migration.script(direction)?;
    let verb = match direction {
        Direction::Up => "Apply",
        Direction::Down => "Undo",
    };
    Ok(Step {
        title: format!("{verb} {} {}", migration.version, migration.name),
        why: head_comment(script).unwrap_or_else(|| match direction {
            Direction::Up => "It is pending.".to_owned(),
            Direction::Down => "It was applied by the run that is undone.".to_owned(),
        }),
        command: command(script),
        verification: match &migration.verify {
            _ if direction == Direction::Down => {
                "it is pending again: cargo xtask db-status".to_owned()
            }
            Some(verify) => format!(
                "psql \"$DATABASE_URL\" -f {}",
                shell_word(verify.path.display())
            ),
            None => "it is in the history: cargo xtask db-status".to_owned(),
        },
        action: Action::Change(migration),
    })
}

/// psql's `-f` runs statement by statement; `-c` would make one transaction of several.
fn command(script: &Script) -> String {
    let transaction = if script.transactional {
        " --single-transaction"
    } else {
        ""
    };
    format!(
        "psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1{transaction} -f {}",
        shell_word(script.path.display())
    )
}

/// The first paragraph of comments at a file's head, directives left out.
fn head_comment(script: &Script) -> Option<String> {
    let lines: Vec<&str> = script
        .text
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .filter_map(|line| line.strip_prefix("--"))
        .map(str::trim)
        .filter(|line| !line.is_empty() && *line != "no-transaction" && !line.starts_with("xtask:"))
        .collect();
    (!lines.is_empty()).then(|| lines.join(" "))
}
