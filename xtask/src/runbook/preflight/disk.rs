//! Room for the backups.

use std::path::Path;

use anyhow::Context as _;

use super::check::{Check, Found, Look, When};
use crate::database::catalog::Relation;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::ui;

/// A plain-text dump may be larger than its table: below this many times its size, say so.
const AMPLE: u64 = 2;

pub(super) const DISK: Check = Check {
    name: "disk",
    before: &[When::Backup],
    look: Look::Run(|ctx, _, planned| {
        let (free, needed) = room(&ctx.config.backups, &planned.backups)?;
        let detail = format!(
            "{} free for a backup of about {}",
            ui::bytes(free),
            ui::bytes(needed)
        );
        Ok(match free < needed * AMPLE {
            true => Found::warning(
                detail,
                Hint::again_with("a dump may be larger than its table", "--backups DIR"),
            ),
            false => Found::ok(detail),
        })
    }),
};

/// Free bytes of the file system that holds a folder or its nearest existing ancestor.
///
/// # Errors
/// If it cannot be asked.
fn free_bytes(folder: &Path) -> Result<u64> {
    let existing = folder
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(folder);
    let stats = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot ask for the free space of `{}`", existing.display()))?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// The file system has room for a backup of these tables. What a dump takes is not known before: a
/// row's text is about as long as the row, unless PostgreSQL has compressed it.
///
/// # Errors
/// If there is less room than the tables take.
fn room(folder: &Path, tables: &[Relation]) -> Result<(u64, u64)> {
    let needed = tables.iter().map(|table| table.bytes).sum();
    let free = free_bytes(folder)?;
    if free >= needed {
        return Ok((free, needed));
    }
    Err(Failure::failed("not enough disk space for the backup")
        .cause(format!(
            "{} free in `{}`, and the tables take {}",
            ui::bytes(free),
            folder.display(),
            ui::bytes(needed)
        ))
        .state("nothing was changed")
        .hint(Hint::again_with(
            "choose a folder with more space",
            "--backups DIR",
        ))
        .into())
}
