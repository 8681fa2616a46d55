//! `db-restore`: a backup's rows, merged back.

use crate::Context;
use crate::error::Result;
use crate::flags::Restore;
use crate::runbook::restore;

pub(crate) fn run(ctx: &Context, flags: &Restore) -> Result {
    let merged = restore::run(ctx, flags)?;
    ctx.ui.json(&merged)
}
