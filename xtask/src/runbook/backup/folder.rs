//! The folder of the backups: making it, writing files into it that are whole or absent, reading them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::shell::shell_word;
use crate::ui::Ui;

/// Ends the name of a file that is still being written. Its writer holds a lock on it.
const PARTIAL: &str = ".partial";

/// Creates the folder, readable by its owner only and ignored by git: backups hold password hashes.
pub(super) fn make_folder(folder: &Path, ui: &Ui) -> Result {
    let context = || format!("cannot make the backup folder `{}`", folder.display());
    if folder.is_file() {
        return Err(Failure::failed(context())
            .cause("it is a file")
            .hint(failures::other_folder())
            .into());
    }
    let found = std::fs::symlink_metadata(folder);
    if found.is_err() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(context)?;
        // The umask may have removed the owner's own permissions.
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).with_context(context)?;
        std::fs::write(folder.join(".gitignore"), "*\n").with_context(context)?;
    }
    let found = std::fs::symlink_metadata(folder).with_context(context)?;
    if found.is_symlink() {
        let itself =
            std::fs::canonicalize(folder).map_or("DIR".to_owned(), |at| shell_word(at.display()));
        return Err(Failure::failed(format!(
            "the backup folder `{}` is a symbolic link",
            folder.display()
        ))
        .cause("whoever can change the link decides where password hashes go")
        .hint(Hint::again_with(
            "name the folder itself",
            format!("--backups {itself}"),
        ))
        .into());
    }
    let owner = found.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        return Err(Failure::failed(format!(
            "the backup folder `{}` belongs to another user",
            folder.display()
        ))
        .cause(format!(
            "whoever owns it (uid {owner}) can read and replace what is in it"
        ))
        .hint(Hint::again_with(
            "choose a folder of your own",
            "--backups DIR",
        ))
        .into());
    }
    if found.mode() & 0o022 != 0 {
        return Err(Failure::failed(format!(
            "others may write into the backup folder `{}`",
            folder.display()
        ))
        .hint(Hint::to(
            format!("chmod 700 {}, then", shell_word(folder.display())),
            "db-backup",
        ))
        .into());
    }
    if found.mode() & 0o077 != 0 {
        ui.warn(format_args!(
            "others may look into the backup folder: chmod 700 {}",
            shell_word(folder.display())
        ));
    }
    Ok(())
}

/// A new file, readable by its owner only, which is deleted unless it is kept. It is locked until this
/// process ends, in whatever way.
pub(super) fn partial_file(folder: &Path, prefix: &str) -> Result<NamedTempFile> {
    let make = || -> Result<NamedTempFile> {
        loop {
            let file = tempfile::Builder::new()
                .prefix(prefix)
                .suffix(PARTIAL)
                .tempfile_in(folder)?;
            file.as_file()
                .set_permissions(Permissions::from_mode(0o600))?;
            file.as_file().lock()?;
            // Before it was locked, another run may have deleted it as a leftover.
            if file.as_file().metadata()?.nlink() > 0 {
                return Ok(file);
            }
        }
    };
    make().with_context(|| format!("cannot write into the backup folder `{}`", folder.display()))
}

/// Removes partial files of killed runs: those that no process has locked.
pub(crate) fn clean(folder: &Path, ui: &Ui) -> Result {
    for path in files(folder)? {
        if !path.to_string_lossy().ends_with(PARTIAL) {
            continue;
        }
        let Ok(file) = open(&path) else { continue };
        if file.try_lock().is_ok() {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove `{}`", path.display()))?;
            ui.status(
                "Cleaned",
                format_args!("{}, which a killed run has left", path.display()),
            );
        }
    }
    Ok(())
}

/// A table's name as a file name: without slashes and control characters, and not hidden.
pub(super) fn file_safe(table: &str) -> String {
    let name = table.replace(|c: char| c == '/' || c.is_control(), "_");
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

/// Opens a file, but not through a symbolic link.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// The SHA-256 of a file, in hex.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut opened =
        open(file).with_context(|| format!("cannot read the backup `{}`", file.display()))?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = opened
            .read(&mut buffer)
            .with_context(|| format!("cannot read the backup `{}`", file.display()))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(crate::hex::encode(&hash.finalize()))
}

pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let reading = || format!("cannot read the backup folder `{}`", folder.display());
            return Err(error).with_context(reading).map_err(in_the_folder);
        }
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Adds to an error of the disk how to choose another folder.
pub(super) fn in_the_folder(error: anyhow::Error) -> anyhow::Error {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let hint = match io.map(std::io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Hint::again_with("free space or choose another folder", "--backups DIR")
        }
        Some(
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory,
        ) => failures::other_folder(),
        _ => return error,
    };
    let mut failure = failures::from_error(&error);
    failure.hints = vec![hint];
    failure.into()
}
