//! `db-backups`: list the backups, check that they are unchanged, delete old ones.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::args::{Output, duration};
use crate::Context;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::options::Proof;
use crate::runbook::backup::{self, Found, State};
use crate::ui;

#[derive(Serialize)]
struct Report {
    backups: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    file: PathBuf,
    table: String,
    rows: u64,
    bytes: u64,
    sha256: String,
    created_at: Timestamp,
    age_seconds: i64,
    proof: Proof,
    database: String,
    state: State,
}

#[derive(Serialize)]
struct Pruned {
    deleted: Vec<PathBuf>,
    kept: Vec<PathBuf>,
    dry_run: bool,
}

/// Arguments of `db-backups`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Backups {
    #[command(subcommand)]
    pub(super) action: Option<BackupsAction>,
    /// Read each backup and compare its checksum; exit 3 if one was changed
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(super) enum BackupsAction {
    /// Delete old backups, except those that are the only one with some table's or column's values
    Prune(Prune),
}

/// Arguments of `db-backups prune`.
#[derive(Args, Debug)]
pub(super) struct Prune {
    /// Delete backups that are at least this old
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    older_than: Duration,
    /// Print what would be deleted; delete nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Backups {
    pub(super) fn output(&self) -> &Output {
        match &self.action {
            Some(BackupsAction::Prune(flags)) => &flags.output,
            None => &self.output,
        }
    }
}

pub(crate) fn run(ctx: &Context, flags: &Backups) -> Result {
    match &flags.action {
        Some(BackupsAction::Prune(flags)) => prune(ctx, flags),
        None => list(ctx, flags.check),
    }
}

fn list(ctx: &Context, check: bool) -> Result {
    let mut found = backup::list(&ctx.config.backups, &ctx.ui)?;
    let mut strays = Vec::new();
    if check {
        let progress = ctx.ui.progress("Checking");
        let mut checked = Vec::new();
        for mut backup in found {
            progress.update(backup.file.display());
            backup.check()?;
            if !backup.was_deleted()? {
                checked.push(backup);
            }
        }
        found = checked;
        strays = backup::strays(&ctx.config.backups)?;
    }
    let now = Timestamp::now();
    let entry = |found: Found| Entry {
        file: ctx.config.shown(&found.file),
        table: found.manifest.table,
        rows: found.manifest.rows,
        bytes: found.manifest.bytes,
        sha256: found.manifest.sha256,
        created_at: found.manifest.created_at,
        age_seconds: now
            .duration_since(found.manifest.created_at)
            .as_secs()
            .max(0),
        proof: found.manifest.proof,
        database: found.manifest.database,
        state: found.state,
    };
    let report = Report {
        backups: found.into_iter().map(entry).collect(),
    };
    if report.backups.is_empty() {
        ctx.ui.data(format_args!(
            "No backups in {}.",
            ctx.config.shown(&ctx.config.backups).display()
        ));
    } else {
        let rows: Vec<Vec<String>> = report.backups.iter().map(row).collect();
        let header = [
            "File", "Table", "Database", "Rows", "Size", "Age", "Proof", "State",
        ];
        ctx.ui.data(ui::table(&header, &rows));
    }
    ctx.ui.json(&report)?;
    let bad: Vec<&Entry> = report
        .backups
        .iter()
        .filter(|entry| entry.state != State::Good)
        .collect();
    if !check || (bad.is_empty() && strays.is_empty()) {
        return Ok(());
    }
    let mut failure = Failure::finding("not every backup is intact");
    for entry in bad {
        failure = failure.cause(format!("{}: {}", entry.file.display(), entry.state.name()));
    }
    for stray in strays {
        let file = ctx.config.shown(&stray);
        failure = failure.cause(format!("{}: without a manifest", file.display()));
    }
    Err(failure.hint(Hint::run("db-backup")).into())
}

fn row(entry: &Entry) -> Vec<String> {
    vec![
        entry.file.display().to_string(),
        entry.table.clone(),
        entry.database.clone(),
        ui::count(entry.rows),
        ui::bytes(entry.bytes),
        age(entry.age_seconds),
        entry.proof.name().to_owned(),
        entry.state.name().to_owned(),
    ]
}

fn prune(ctx: &Context, flags: &Prune) -> Result {
    if !flags.dry_run {
        backup::clean(&ctx.config.backups, &ctx.ui)?;
    }
    let found = backup::list(&ctx.config.backups, &ctx.ui)?;
    let prunable = backup::prunable(found, flags.older_than, Timestamp::now(), Found::check)?;
    for backup in &prunable.keep {
        keeping(ctx, backup);
    }
    for backup in &prunable.delete {
        ctx.ui.info(
            if flags.dry_run {
                "Would delete"
            } else {
                "Will delete"
            },
            format_args!(
                "{}: {} of `{}`, {}",
                ctx.config.shown(&backup.file).display(),
                ui::plural(backup.manifest.rows, "row"),
                backup.manifest.table,
                ui::bytes(backup.manifest.bytes)
            ),
        );
    }
    let shown = |backups: &[Found]| {
        backups
            .iter()
            .map(|backup| ctx.config.shown(&backup.file))
            .collect()
    };
    let mut report = Pruned {
        deleted: shown(&prunable.delete),
        kept: shown(&prunable.keep),
        dry_run: flags.dry_run,
    };
    if prunable.delete.is_empty() {
        ctx.ui.status("Finished", "no backup is due");
    } else if !flags.dry_run {
        let number = ui::plural(prunable.delete.len() as u64, "backup");
        let question = format!("Delete {number}?");
        if !ctx.ui.confirm(&question)? {
            return Err(Failure::failed("not deleted")
                .cause("the answer was no")
                .state("nothing was changed")
                .hint(Hint::run("db-backups prune --dry-run"))
                .into());
        }
        let (deleted, kept) = delete(ctx, flags, &prunable.delete)?;
        report.deleted = deleted;
        report.kept.extend(kept);
        ctx.ui
            .status("Deleted", ui::plural(report.deleted.len() as u64, "backup"));
    }
    ctx.ui.json(&report)
}

/// Deletes the backups that were shown and may still be deleted: the folder may have changed while the
/// question waited for an answer. Returns what was deleted, and what was not.
fn delete(ctx: &Context, flags: &Prune, shown: &[Found]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let found = backup::list(&ctx.config.backups, &ctx.ui)?;
    let due = backup::prunable(found, flags.older_than, Timestamp::now(), Found::check)?.delete;
    let (mut deleted, mut kept) = (Vec::new(), Vec::new());
    for backup in shown {
        let still = due.iter().find(|due| {
            due.file == backup.file
                && due.state == backup.state
                && due.manifest.sha256 == backup.manifest.sha256
        });
        let file = ctx.config.shown(&backup.file);
        match still {
            Some(due) if backup::delete(due)? => deleted.push(file),
            _ => {
                ctx.ui.info(
                    "Keeping",
                    format_args!("{}: it has changed since it was shown", file.display()),
                );
                kept.push(file);
            }
        }
    }
    Ok((deleted, kept))
}

fn keeping(ctx: &Context, backup: &Found) {
    let file = ctx.config.shown(&backup.file);
    let (manifest, file) = (&backup.manifest, file.display());
    let why = match backup.state {
        _ if backup.was_renamed() => "it was renamed, so it is yours to delete".to_owned(),
        State::Good | State::Missing => format!(
            "no newer backup of `{}` that is proven and intact is known to hold all of its rows and values",
            manifest.table
        ),
        state => format!("it is {}, so it is yours to delete", state.name()),
    };
    ctx.ui.info("Keeping", format_args!("{file}: {why}"));
}

fn age(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
