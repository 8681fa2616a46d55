//! `db-rollback`: the way back.

use crate::Context;
use crate::error::Result;
use crate::flags::Rollback;
use crate::migration::plan::RollbackScope;
use crate::runbook::{self, Options};

pub(crate) fn run(ctx: &Context, flags: &Rollback) -> Result {
    let folder = ctx.folder()?;
    let selection = match (flags.steps, flags.to, flags.all, &flags.only[..]) {
        (Some(steps), ..) => RollbackScope::Steps(steps),
        (_, Some(version), ..) => RollbackScope::To(version),
        (_, _, true, _) => RollbackScope::All,
        (None, None, false, []) => RollbackScope::LastRun,
        (None, None, false, versions) => RollbackScope::Only(versions.to_vec()),
    };
    let db = ctx.connect()?;
    let options = Options {
        locks: flags.locks,
        backup: flags.backup,
        dry_run: flags.dry_run,
        reports: &flags.reports,
    };
    let outcome = runbook::rollback(ctx, &folder, db, &selection, &options)?;
    ctx.ui.json(&outcome)
}
