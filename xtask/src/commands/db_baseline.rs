//! `db-baseline`: adopt a database that existed before this tool.

use clap::Args;

use super::args::LockArgs;
use crate::Context;
use crate::database::baseline::{self, Differences};
use crate::database::{Database, history, lock};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::source::{Direction, Folder, Migration};
use crate::options::BackupOptions;
use crate::runbook::apply::Runner;
use crate::runbook::preflight::{self, Planned, When};
use crate::runbook::verify;
use crate::ui;

/// Arguments of `db-baseline`.
#[derive(Args, Debug)]
pub struct Baseline {
    /// Record every migration up to and including this version [default: those marked as baseline]
    #[arg(value_name = "VERSION")]
    version: Option<i64>,
    /// Compare; record nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    locks: LockArgs,
}

pub(crate) fn run(ctx: &Context, flags: &Baseline) -> Result {
    let folder = ctx.folder()?;
    let chosen = chosen(&folder, flags.version)?;
    let mut db = ctx.connect()?;
    preflight::before(When::Baseline, ctx, &mut db, &Planned::default())?;
    let lock = match flags.dry_run {
        true => None,
        false => Some(lock::acquire(&mut db, flags.locks.options(), &ctx.ui)?),
    };
    let history = history::read(&mut db)?;
    let recorded = &history.applied;
    let wanted: Vec<&Migration> = chosen
        .into_iter()
        .filter(|migration| recorded.iter().all(|row| row.version != migration.version))
        .collect();
    if wanted.is_empty() {
        ctx.ui
            .status("Finished", "nothing to record: the history has it already");
        return Ok(());
    }

    compare(ctx, &folder, &mut db, &wanted)?;
    let Some(lock) = lock else {
        ctx.ui
            .status("Finished", "the live schema agrees; nothing was recorded");
        return Ok(());
    };
    let (locks, backup) = (flags.locks.options(), BackupOptions::default());
    let mut runner = Runner::new(ctx, &mut db, locks, backup, &lock, &history);
    runner.ensure_history()?;
    runner.mark_applied(&wanted)?;
    runner.finish();
    for migration in &wanted {
        ctx.ui.status(
            "Recorded",
            format_args!("{} {}", migration.version, migration.name),
        );
    }
    ctx.ui.hint(Hint::run("db-status"));
    Ok(())
}

/// Every migration up to the version, or up to the newest that is marked as baseline.
fn chosen(folder: &Folder, version: Option<i64>) -> Result<Vec<&Migration>> {
    let marked = || {
        let marked = folder
            .migrations
            .iter()
            .filter(|migration| migration.is_baseline());
        marked.map(|migration| migration.version).max()
    };
    let Some(last) = version.or_else(marked) else {
        return Err(Failure::usage("no migration is marked as baseline")
            .cause("none has the line `-- xtask: baseline` at its head")
            .hint(Hint::to(
                "name the version up to which the schema exists",
                "db-baseline VERSION",
            ))
            .into());
    };
    if folder.get(last).is_none() {
        return Err(Failure::usage(format!("there is no migration `{last}`"))
            .hint(Hint::run("db-status"))
            .into());
    }
    let up_to = folder
        .migrations
        .iter()
        .filter(|migration| migration.version <= last);
    Ok(up_to.collect())
}

/// Compares the live schema with what the files make. Transactional files run in a temporary schema. Files
/// that run outside a transaction cannot: only their verify files check them.
fn compare(ctx: &Context, folder: &Folder, db: &mut Database, wanted: &[&Migration]) -> Result {
    let scripts = folder.scripts(wanted, Direction::Up)?;
    let transactional = scripts.into_iter().filter(|script| script.transactional);
    let mut differences = baseline::compare(db, &transactional.collect::<Vec<_>>())?;
    let others = wanted.iter().filter(|migration| !migration.transactional());
    for migration in others {
        if migration.verify.is_none() {
            ctx.ui.warn(format_args!(
                "`{}` runs outside a transaction and has no verify file: not compared",
                migration.stem
            ));
        }
        // To the comparison above, an index made by such a file looks like an extra one.
        differences
            .extra
            .retain(|line| !line.contains(" INDEX USING "));
    }
    let checked = verify::run(db, wanted.iter().copied())?;
    report(ctx, &differences);
    if !differences.missing.is_empty() {
        let mut failure = Failure::finding(format!(
            "the live schema of `{}` differs from what the baseline creates",
            db.server.name
        ));
        for line in differences.missing {
            failure = failure.cause(format!("missing or different: {line}"));
        }
        return Err(failure
            .state("nothing was recorded")
            .hint(Hint::to(
                "change the baseline file to match the live schema, then",
                "db-baseline",
            ))
            .hint(Hint::psql("look at the live tables", "\\d"))
            .into());
    }
    if let Some(failure) = verify::failed(
        "the live schema differs from what the baseline creates",
        &checked,
    ) {
        return Err(failure
            .state("nothing was recorded")
            .hint(Hint::run("db-verify"))
            .into());
    }
    ctx.ui.status(
        "Compared",
        format_args!(
            "{} and {} agree with the live schema",
            ui::plural(differences.tables as u64, "table"),
            ui::plural(checked.len() as u64, "check")
        ),
    );
    Ok(())
}

fn report(ctx: &Context, differences: &Differences) {
    for line in &differences.extra {
        ctx.ui.warn(format_args!(
            "the live schema has what the baseline does not create: {line}"
        ));
    }
}
