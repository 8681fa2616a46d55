//! `db-redo`: roll back the last run and apply it again.

use clap::Args;

use super::args::{BackupArgs, LockArgs, Output};
use crate::Context;
use crate::error::Result;
use crate::migration::plan::RollbackScope;
use crate::options::{Reports, RunOptions};
use crate::runbook;

/// Arguments of `db-redo`.
#[derive(Args, Debug)]
pub struct Redo {
    #[command(flatten)]
    locks: LockArgs,
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(crate) fn run(ctx: &Context, flags: &Redo) -> Result {
    let folder = ctx.folder()?;
    let options = RunOptions {
        locks: flags.locks.options(),
        backup: flags.backup.options(),
        dry_run: false,
        reports: Reports::default(),
    };
    let connect = || ctx.connect_with(options.locks.lock_deadline);
    let last_run = &RollbackScope::LastRun;
    let down = runbook::rollback(ctx, &folder, connect()?, last_run, &options)?;
    let newest = down.steps.iter().map(|step| step.version).max();
    let Some(newest) = newest else {
        return ctx.ui.json(&down);
    };
    let up = runbook::migrate(ctx, &folder, connect()?, Some(newest), false, &options)?;
    ctx.ui.json(&up)
}
