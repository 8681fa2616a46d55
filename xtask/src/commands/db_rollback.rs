//! `db-rollback`: the way back.

use crate::Context;
use crate::error::Result;
use crate::flags::Rollback;
use crate::migration::plan::Down;
use crate::runbook::{self, Options};

pub(crate) fn run(ctx: &Context, flags: &Rollback) -> Result {
    let folder = ctx.folder()?;
    let selection = match (flags.steps, flags.to, flags.all) {
        (Some(steps), _, _) => Down::Steps(steps),
        (_, Some(version), _) => Down::To(version),
        (_, _, true) => Down::All,
        (None, None, false) => Down::LastRun,
    };
    let db = ctx.connect()?;
    let options = Options {
        locks: flags.locks,
        backup: flags.backup,
        dry_run: flags.dry_run,
        reports: &flags.reports,
    };
    let outcome = runbook::rollback(ctx, &folder, db, selection, &options)?;
    ctx.ui.json(&outcome)
}
