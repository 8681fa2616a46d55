//! What a run is going to do: one definition, which `--dry-run` prints and the run executes.

use super::backup;
use crate::database::Database;
use crate::database::catalog::Relation;
use crate::error::Result;
use crate::hint::Invocation;
use crate::migration::script::Script;
use crate::migration::source::{Direction, Migration};
use crate::shell::shell_word;

/// Back up these tables, run these migrations in this order, check.
pub(crate) struct Plan<'a> {
    pub(crate) direction: Direction,
    pub(crate) backups: Vec<Relation>,
    pub(crate) changes: Vec<Change<'a>>,
    /// The migrations whose checks must hold afterwards.
    pub(crate) verify: Vec<&'a Migration>,
}

/// A migration, and the file of it that runs.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) migration: &'a Migration,
    pub(crate) script: &'a Script,
    direction: Direction,
}

/// One step of a plan, for people.
struct Step {
    title: String,
    /// Why it is done; for a migration the comment at the head of its file.
    why: String,
    /// As a person would type it.
    command: String,
    /// How to see that it worked.
    verification: String,
}

impl Plan<'_> {
    /// What `--dry-run` prints.
    pub(crate) fn text(&self, db: &Database, invocation: &Invocation) -> String {
        let mut lines = vec![format!("Plan for {}; nothing was written.", db.server)];
        for (index, step) in self.steps(invocation).iter().enumerate() {
            lines.push(String::new());
            lines.push(format!("{}. {}", index + 1, step.title));
            lines.push(format!("   why     {}", step.why));
            lines.push(format!("   command {}", step.command));
            lines.push(format!("   check   {}", step.verification));
        }
        lines.join("\n")
    }

    fn steps(&self, invocation: &Invocation) -> Vec<Step> {
        let mut steps: Vec<Step> = self.backups.iter().map(backup_step).collect();
        steps.extend(self.changes.iter().map(|change| change.step(invocation)));
        steps.push(Step {
            title: "Verify".to_owned(),
            why: "What must be true now is checked, not assumed.".to_owned(),
            command: invocation.command("db-verify"),
            verification: "every check says ok".to_owned(),
        });
        steps
    }
}

fn backup_step(relation: &Relation) -> Step {
    let table = relation.qualified();
    Step {
        title: format!("Back up `{table}`"),
        why: "If something goes wrong, every row can come back as it was.".to_owned(),
        command: backup::command(&table, &format!("backups/{}_backup_….sql", relation.name)),
        verification:
            "restored into a scratch table: the rows and the content of the dump's own snapshot"
                .to_owned(),
    }
}

impl<'a> Change<'a> {
    /// # Errors
    /// If a migration that is to be undone has no down file.
    pub(crate) fn of(migration: &'a Migration, direction: Direction) -> Result<Change<'a>> {
        Ok(Change {
            migration,
            script: migration.script(direction)?,
            direction,
        })
    }

    fn step(&self, invocation: &Invocation) -> Step {
        let status = invocation.command("db-status");
        let Change {
            migration, script, ..
        } = self;
        let (verb, why, verification) = match (self.direction, &migration.verify) {
            (Direction::Up, Some(verify)) => (
                "Apply",
                "It is pending.",
                format!(
                    "psql \"$DATABASE_URL\" -f {}",
                    shell_word(verify.path.display())
                ),
            ),
            (Direction::Up, None) => (
                "Apply",
                "It is pending.",
                format!("it is in the history: {status}"),
            ),
            (Direction::Down, _) => (
                "Undo",
                "It was applied by the run that is undone.",
                format!("it is pending again: {status}"),
            ),
        };
        Step {
            title: format!("{verb} {} {}", migration.version, migration.name),
            why: head_comment(script).unwrap_or_else(|| why.to_owned()),
            command: self.command(),
            verification,
        }
    }

    /// As a person would type it. psql's `-f` runs statement by statement; `-c` would make one
    /// transaction of several.
    pub(crate) fn command(&self) -> String {
        let transaction = match self.script.transactional {
            true => " --single-transaction",
            false => "",
        };
        format!(
            "psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1{transaction} -f {}",
            shell_word(self.script.path.display())
        )
    }
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
