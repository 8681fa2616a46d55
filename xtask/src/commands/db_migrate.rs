//! `db-migrate`: the main job.

use clap::Args;

use super::args::RunArgs;
use crate::Context;
use crate::error::Result;
use crate::runbook;

/// Arguments of `db-migrate`.
#[derive(Args, Debug)]
pub struct Migrate {
    /// Apply up to and including this version
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    /// Print the plan; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Apply pending migrations that are older than the newest applied one
    #[arg(long)]
    allow_out_of_order: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

pub(crate) fn run(ctx: &Context, flags: &Migrate) -> Result {
    let options = flags.run.options(flags.dry_run);
    let (folder, db) = flags.run.history.open(ctx, options.locks.lock_deadline)?;
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
