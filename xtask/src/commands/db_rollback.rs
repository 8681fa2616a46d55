//! `db-rollback`: the way back.

use clap::Args;

use super::args::RunArgs;
use crate::Context;
use crate::error::Result;
use crate::migration::plan::RollbackScope;
use crate::runbook;

/// Arguments of `db-rollback`.
#[derive(Args, Debug)]
pub struct Rollback {
    /// Undo this many migrations
    #[arg(long, value_name = "N", conflicts_with_all = ["to", "all", "only"])]
    steps: Option<usize>,
    /// Undo everything after this version and keep this version; 0 also undoes a baseline that was run
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["all", "only"])]
    to: Option<i64>,
    /// Undo every migration after the baseline
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Undo only this migration, even if it was recorded without being run; may be repeated
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    only: Vec<i64>,
    /// Print the plan and what would be lost; write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

pub(crate) fn run(ctx: &Context, flags: &Rollback) -> Result {
    let selection = match (flags.steps, flags.to, flags.all, &flags.only[..]) {
        (Some(steps), ..) => RollbackScope::Steps(steps),
        (_, Some(version), ..) => RollbackScope::To(version),
        (_, _, true, _) => RollbackScope::All,
        (None, None, false, []) => RollbackScope::LastRun,
        (None, None, false, versions) => RollbackScope::Only(versions.to_vec()),
    };
    let options = flags.run.options(flags.dry_run);
    let (folder, db) = flags.run.history.open(ctx, options.locks.lock_deadline)?;
    let outcome = runbook::rollback(ctx, &folder, db, &selection, &options)?;
    ctx.ui.json(&outcome)
}
