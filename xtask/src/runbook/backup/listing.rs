//! The backups in a folder, and whether each is as its manifest says.

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
use crate::runbook::failures;
use crate::ui::Ui;

/// A backup that is listed, and whether it looks as its manifest says.
pub(crate) struct Found {
    pub(crate) file: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) state: State,
}

/// A backup against its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Of the right size; with [`Found::check`], of the right checksum.
    Good,
    /// Shorter than it was.
    Cut,
    /// Other bytes than were written.
    Changed,
    /// The manifest is there and the file is not.
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
    /// A backup as it lies in its folder, by its size; none where there is no manifest, or where
    /// somebody is about to give the file its name, or to delete it.
    fn at(file: PathBuf) -> Result<Option<Found>> {
        let Some(manifest) = Manifest::of(&file)? else {
            return Ok(None);
        };
        let mut state = state_of(&file, &manifest)?;
        if state == State::Missing {
            if lock_manifest(&file)?.is_none() {
                return Ok(None);
            }
            // It may have got its name since.
            state = state_of(&file, &manifest)?;
        }
        Ok(Some(Found {
            file,
            manifest,
            state,
        }))
    }

    /// Reads the whole file and compares its checksum.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn check(&mut self) -> Result<State> {
        if self.state == State::Good {
            self.state = match sha256(&self.file) {
                Ok(sha256) if sha256 == self.manifest.sha256 => State::Good,
                Ok(_) => State::Changed,
                // Gone, or made a link, since it was listed.
                Err(error) => match state_of(&self.file, &self.manifest)? {
                    State::Good => return Err(error),
                    state => state,
                },
            };
        }
        Ok(self.state)
    }

    /// Whether somebody has given it another name.
    pub(crate) fn was_renamed(&self) -> bool {
        self.file.file_name() != Some(OsStr::new(&self.manifest.file))
    }

    /// Whether it was pruned since it was listed.
    ///
    /// # Errors
    /// If its manifest cannot be read.
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

/// Locks a manifest that nobody else has locked; none where somebody has, or it is gone.
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

/// The backups in a folder, newest first. A manifest that cannot be understood is warned of.
///
/// # Errors
/// If the folder is there and cannot be read.
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

/// Files that are named as backups and have no manifest that can be read: nothing tells what they
/// should hold.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn strays(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut strays = files(folder)?;
    strays.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("_backup_")
            && !name.starts_with('.')
            && name.ends_with(".sql")
            && !matches!(Manifest::of(path), Ok(Some(_)))
            // Of one that is pruned meanwhile the file goes first.
            && std::fs::symlink_metadata(path).is_ok()
    });
    strays.sort();
    Ok(strays)
}
