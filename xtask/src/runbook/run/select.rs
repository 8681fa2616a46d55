//! Which migrations to run: decided before waiting for another run, and checked again afterwards.

use crate::Context;
use crate::database::Database;
use crate::database::history::{self, History};
use crate::database::lock::{self, Lock};
use crate::error::Result;
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::plan::{self, RollbackScope};
use crate::migration::source::{Direction, Folder, Migration};
use crate::options::RunOptions;
use crate::runbook::shared_history;
use crate::ui;

/// Which migrations to run.
pub(super) enum Goal<'a> {
    Up {
        to: Option<i64>,
        allow_out_of_order: bool,
    },
    Down {
        scope: &'a RollbackScope,
        /// Whether it is applied again afterwards.
        comes_back: bool,
    },
}

impl Goal<'_> {
    pub(super) fn direction(&self) -> Direction {
        match self {
            Goal::Up { .. } => Direction::Up,
            Goal::Down { .. } => Direction::Down,
        }
    }

    fn select<'f>(&self, folder: &'f Folder, history: History) -> Result<Selection<'f>> {
        let applied = &history.applied;
        let migrations = match *self {
            Goal::Up {
                to,
                allow_out_of_order,
            } => plan::up(folder, applied, to, allow_out_of_order)?,
            Goal::Down { scope, .. } => plan::down(folder, applied, scope)?,
        };
        folder.scripts(&migrations, self.direction())?;
        if let Goal::Down {
            comes_back: true, ..
        } = self
        {
            folder.scripts(&applied_again(folder, applied, &migrations)?, Direction::Up)?;
        }
        Ok(Selection {
            history,
            migrations,
        })
    }
}

/// What is applied once these are undone: they, and what else is pending below them.
fn applied_again<'f>(
    folder: &'f Folder,
    applied: &[Applied],
    undone: &[&Migration],
) -> Result<Vec<&'f Migration>> {
    let Some(newest) = undone.iter().map(|migration| migration.version).max() else {
        return Ok(Vec::new());
    };
    let is_undone = |version| undone.iter().any(|migration| migration.version == version);
    let mut left = applied.to_vec();
    left.retain(|row| !is_undone(row.version));
    plan::up(folder, &left, Some(newest), false)
}

/// The migrations to run, in their order, and the history they were selected by.
pub(super) struct Selection<'f> {
    pub(super) history: History,
    pub(super) migrations: Vec<&'f Migration>,
}

/// Selects the migrations to run. If there are any, or another run is at work, takes the migration lock and
/// selects again. Returns the lock, if it took it.
pub(super) fn select_and_lock<'f>(
    ctx: &Context,
    folder: &'f Folder,
    db: &mut Database,
    goal: &Goal<'_>,
    options: &RunOptions,
) -> Result<(Selection<'f>, Option<Lock>)> {
    // Before the history is read: if a run ends in between, its rows are already there.
    let at_work = !options.dry_run && lock::at_work(&mut db.client, &db.server)?;
    let mut history = match goal {
        Goal::Up { .. } => history::read_known(db)?,
        Goal::Down { .. } => history::read(db)?,
    };
    shared_history::leave_out_others(ctx, folder, &mut history.applied);
    let selection = goal.select(folder, history)?;
    if let Goal::Down { .. } = goal {
        for migration in &selection.migrations {
            ctx.ui.info("To undo", &migration.stem);
        }
    }
    if !at_work && (options.dry_run || selection.migrations.is_empty()) {
        return Ok((selection, None));
    }
    let lock = lock::acquire(db, options.locks, &ctx.ui)?;
    // Another run may have changed the history while this one waited.
    let mut history = history::read(db)?;
    folder.leave_out_others(&mut history.applied);
    let locked = goal.select(folder, history)?;
    if let Goal::Down { scope, .. } = goal {
        // What this rollback undoes was decided above, and shown.
        plan::check_unchanged(
            scope,
            &selection.migrations,
            &selection.history.applied,
            &locked.migrations,
            &locked.history.applied,
        )?;
    }
    Ok((locked, Some(lock)))
}

pub(super) fn say_nothing_to_do(ctx: &Context, selection: &Selection<'_>, direction: Direction) {
    let applied = &selection.history.applied;
    match direction {
        Direction::Up => ctx.ui.status(
            "Finished",
            format_args!(
                "nothing is pending: {} in the history",
                ui::plural(applied.len() as u64, "migration")
            ),
        ),
        Direction::Down => {
            ctx.ui.status("Finished", "nothing to roll back");
            if let Some(row) = plan::newest_not_run(applied) {
                let version = row.version;
                ctx.ui.hint(Hint::to(
                    format!("`{version}` was recorded without being run, so it stays; to undo it, name it"),
                    format!("db-rollback --only {version}"),
                ));
            }
        }
    }
}
