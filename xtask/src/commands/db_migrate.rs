//! `db-migrate`: the main job.

use crate::Context;
use crate::error::Result;
use crate::flags::Migrate;
use crate::runbook::{self, Options};

pub(crate) fn run(ctx: &Context, flags: &Migrate) -> Result {
    let folder = ctx.folder()?;
    let db = ctx.connect()?;
    let options = Options {
        locks: flags.locks,
        backup: flags.backup,
        dry_run: flags.dry_run,
        reports: &flags.reports,
    };
    let outcome = runbook::migrate(
        ctx,
        &folder,
        db,
        flags.to,
        flags.allow_out_of_order,
        &options,
    )?;
    ctx.ui.json(&outcome)
}
