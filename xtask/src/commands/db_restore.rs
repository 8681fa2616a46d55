//! `db-restore`: backups' rows, merged back.

use serde_json::json;

use crate::Context;
use crate::error::Result;
use crate::flags::Restore;
use crate::runbook::restore;

pub(crate) fn run(ctx: &Context, flags: &Restore) -> Result {
    let restored = restore::run(ctx, flags)?;
    match &restored[..] {
        [one] => ctx.ui.json(one),
        several => ctx
            .ui
            .json(&json!({ "restored": several, "dry_run": flags.dry_run })),
    }
}
