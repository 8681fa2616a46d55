//! Which old backups may be deleted: those of which a newer one has everything.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use super::listing::{Found, State, lock_manifest, state_of};
use super::manifest::Manifest;
use crate::error::Result;
use crate::options::Proof;

/// Old backups, sorted by whether they may go.
pub(crate) struct Prunable {
    pub(crate) delete: Vec<Found>,
    /// Old ones that stay.
    pub(crate) keep: Vec<Found>,
}

/// Sorts the old backups into those that may go and those that stay. One may go if a newer one, which
/// stays, is proven and unharmed and has everything that it may have ([`Manifest::covers`]); and if it
/// lies there as it was written. `check` says whether one is unharmed: [`Found::check`], or what is
/// known of it already.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn prunable(
    found: Vec<Found>,
    older_than: Duration,
    now: Timestamp,
    check: impl Fn(&mut Found) -> Result<State>,
) -> Result<Prunable> {
    let mut prunable = Prunable {
        delete: Vec::new(),
        keep: Vec::new(),
    };
    // Newest first.
    let mut safe: Vec<Manifest> = Vec::new();
    for mut backup in found {
        let manifest = &backup.manifest;
        let age = now.duration_since(manifest.created_at);
        let is_old = age.is_positive() && age.unsigned_abs() >= older_than;
        let is_covered = safe.iter().any(|newer| newer.covers(manifest));
        let is_ours = matches!(backup.state, State::Good | State::Missing) && !backup.was_renamed();
        if is_old && is_covered && is_ours {
            prunable.delete.push(backup);
            continue;
        }
        if !is_covered && manifest.proof != Proof::None && check(&mut backup)? == State::Good {
            safe.push(backup.manifest.clone());
        }
        if is_old {
            prunable.keep.push(backup);
        }
    }
    Ok(prunable)
}

/// Deletes a backup if it still lies there as it was found: the file first, so that no file without a
/// manifest is left, and under a lock on the manifest, so that nobody takes it for missing.
///
/// # Errors
/// If it cannot be deleted.
pub(crate) fn delete(backup: &Found) -> Result<bool> {
    let Some(_locked) = lock_manifest(&backup.file)? else {
        return Ok(false);
    };
    if state_of(&backup.file, &backup.manifest)? != backup.state {
        return Ok(false);
    }
    for path in [&backup.file, &Manifest::path(&backup.file)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete `{}`", path.display()));
            }
            _ => {}
        }
    }
    Ok(true)
}
