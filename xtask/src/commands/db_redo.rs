//! `db-redo`: roll back the last run and apply it again.

use crate::Context;
use crate::error::Result;
use crate::flags::{Redo, Reports};
use crate::migration::plan::RollbackScope;
use crate::runbook::{self, Options};

pub(crate) fn run(ctx: &Context, flags: &Redo) -> Result {
    let folder = ctx.folder()?;
    let reports = Reports::default();
    let options = Options {
        locks: flags.locks,
        backup: flags.backup,
        dry_run: false,
        reports: &reports,
    };
    let down = runbook::rollback(
        ctx,
        &folder,
        ctx.connect()?,
        &RollbackScope::LastRun,
        &options,
    )?;
    let newest = down.steps.iter().map(|step| step.version).max();
    let Some(newest) = newest else {
        return ctx.ui.json(&down);
    };
    let up = runbook::migrate(ctx, &folder, ctx.connect()?, Some(newest), false, &options)?;
    ctx.ui.json(&up)
}
