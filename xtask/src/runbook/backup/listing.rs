//! Lists the backups in a folder, and compares each with its manifest.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::folder::{files, open, sha256};
use super::manifest::Manifest;
use crate::error::Result;
use crate::failures;
use crate::ui::Ui;

/// A backup in a folder, and whether it matches its manifest.
pub(crate) struct Found {
    pub(crate) file: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) state: State,
}

/// How a backup compares with its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Of the right size; with [`Found::check`], of the right checksum.
    Good,
    /// Shorter than it was.
    Cut,
    /// Not the bytes that were written.
    Changed,
    /// The manifest exists, the file does not.
    Missing,
    /// Something else has the file's name, or has made another file of it: a link, `FILE.gz`.
    Replaced,
}

impl State {
    /// By the size alone.
    pub(crate) fn by_size(actual: u64, manifest: &Manifest) -> State {
        match actual.cmp(&manifest.bytes) {
            std::cmp::Ordering::Less => State::Cut,
            std::cmp::Ordering::Equal => State::Good,
            std::cmp::Ordering::Greater => State::Changed,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Cut => "cut",
            State::Changed => "changed",
            State::Missing => "missing",
            State::Replaced => "replaced",
        }
    }
}

impl Found {
    /// Reads a backup's manifest and compares the size. Returns `None` if there is no manifest, or if another
    /// process is about to give the file its name, or to delete it.
    fn at(file: PathBuf) -> Result<Option<Found>> {
        let Some(manifest) = Manifest::of(&file)? else {
            return Ok(None);
        };
        let mut state = state_of(&file, &manifest)?;
        if state == State::Missing {
            if lock_manifest(&file)?.is_none() {
                return Ok(None);
            }
            // It may have been given its name since.
            state = state_of(&file, &manifest)?;
        }
        Ok(Some(Found {
            file,
            manifest,
            state,
        }))
    }

    /// Reads the whole file and compares its checksum.
    pub(crate) fn check(&mut self) -> Result<State> {
        if self.state == State::Good {
            self.state = match sha256(&self.file) {
                Ok(sha256) if sha256 == self.manifest.sha256 => State::Good,
                Ok(_) => State::Changed,
                // Since it was listed it was deleted, or replaced by a link.
                Err(error) => match state_of(&self.file, &self.manifest)? {
                    State::Good => return Err(error),
                    state => state,
                },
            };
        }
        Ok(self.state)
    }

    /// Whether the file has another name than the manifest says.
    pub(crate) fn was_renamed(&self) -> bool {
        self.file.file_name() != Some(OsStr::new(&self.manifest.file))
    }

    /// Whether it was pruned since it was listed.
    pub(crate) fn was_deleted(&self) -> Result<bool> {
        Ok(self.state == State::Missing && lock_manifest(&self.file)?.is_none())
    }
}

pub(super) fn state_of(file: &Path, manifest: &Manifest) -> Result<State> {
    match std::fs::symlink_metadata(file) {
        Ok(found) if found.is_file() => Ok(State::by_size(found.len(), manifest)),
        Ok(_) => Ok(State::Replaced),
        Err(_) => {
            let folder = file.parent().unwrap_or(Path::new("."));
            let (name, json) = (file.as_os_str(), Manifest::path(file));
            let made_of_it = files(folder)?.into_iter().any(|path| {
                path != json
                    && path
                        .as_os_str()
                        .as_encoded_bytes()
                        .strip_prefix(name.as_encoded_bytes())
                        .is_some_and(|rest| rest.starts_with(b"."))
            });
            Ok(match made_of_it {
                true => State::Replaced,
                false => State::Missing,
            })
        }
    }
}

/// Locks a manifest. Returns `None` if another process has locked it, or it no longer exists.
pub(super) fn lock_manifest(file: &Path) -> Result<Option<File>> {
    let path = Manifest::path(file);
    let locking = || format!("cannot lock `{}`", path.display());
    let manifest = match open(&path) {
        Ok(manifest) => manifest,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(locking),
    };
    match manifest.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error).with_context(locking),
    }
    let is_there = manifest.metadata().with_context(locking)?.nlink() > 0;
    Ok(is_there.then_some(manifest))
}

/// The backups in a folder, newest first. Warns of a manifest that cannot be parsed.
///
/// # Errors
/// If the folder exists and cannot be read.
pub(crate) fn list(folder: &Path, ui: &Ui) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for path in files(folder)? {
        if !path.to_string_lossy().ends_with(".sql.json") {
            continue;
        }
        match Found::at(path.with_extension("")) {
            Ok(backup) => found.extend(backup),
            Err(error) => ui.warn(failures::from_error(&error).one_line()),
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.manifest.created_at));
    Ok(found)
}

/// Files that are named like backups and have no readable manifest, so that it is not known what they
/// should contain.
pub(crate) fn strays(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut strays = files(folder)?;
    strays.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("_backup_")
            && !name.starts_with('.')
            && name.ends_with(".sql")
            && !matches!(Manifest::of(path), Ok(Some(_)))
            // If it is being pruned, the file is deleted before its manifest.
            && std::fs::symlink_metadata(path).is_ok()
    });
    strays.sort();
    Ok(strays)
}
