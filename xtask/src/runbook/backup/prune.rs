//! Which old backups may be deleted: those whose content is in a newer one.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use super::listing::{Found, State, lock_manifest, state_of};
use super::manifest::Manifest;
use crate::error::Result;
use crate::options::Proof;

/// Old backups, by whether they may be deleted.
pub(crate) struct Prunable {
    pub(crate) delete: Vec<Found>,
    /// Old ones that stay.
    pub(crate) keep: Vec<Found>,
}

/// Says which of the old backups may be deleted and which stay. One may be deleted if a newer one that stays
/// is proven, intact, and has everything that the old one may have ([`Manifest::covers`]); and only if the
/// old one is still as it was written. `check` says whether a backup is intact: [`Found::check`], or what
/// is already known.
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

/// Deletes a backup if it is still as it was listed. The file is deleted first, so that no file without a
/// manifest is left; and under a lock on the manifest, so that no other command reports it as missing.
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
