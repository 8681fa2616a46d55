//! The end of a backup: it and its manifest get their names, or neither does.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::NamedTempFile;

use super::folder::{file_safe, partial_file};
use super::manifest::Manifest;
use crate::error::Result;
use crate::migration::effects::ObjectName;

/// Gives the file its name, `<table>_backup_<YYYYmmdd_HHMMSS>.sql` in UTC: the first free second. The
/// manifest is put in place first, so every backup has one.
pub(super) fn keep(
    mut partial: NamedTempFile,
    folder: &Path,
    manifest: &mut Manifest,
) -> Result<PathBuf> {
    let table = ObjectName::parse(&manifest.table).map_or_else(String::new, |name| name.name);
    let mut second = manifest.created_at;
    loop {
        manifest.file = format!(
            "{}_backup_{}.sql",
            file_safe(&table),
            second.strftime("%Y%m%d_%H%M%S")
        );
        second += Duration::from_secs(1);
        let file = folder.join(&manifest.file);
        let naming = || format!("cannot name the backup `{}`", file.display());
        if std::fs::symlink_metadata(&file).is_ok() {
            continue;
        }
        let mut beside = partial_file(folder, ".manifest_")?;
        serde_json::to_writer_pretty(&mut beside, manifest)?;
        writeln!(beside)?;
        beside.as_file().sync_all().with_context(naming)?;
        // While the manifest is locked, others know that the backup is about to get its name.
        let _locked = match beside.persist_noclobber(Manifest::path(&file)) {
            Ok(locked) => locked,
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error.error).with_context(naming),
        };
        match partial.persist_noclobber(&file) {
            Ok(_) => {
                // The names themselves must survive a crash too.
                File::open(folder)?.sync_all()?;
                return Ok(file);
            }
            Err(error) => {
                let _ = std::fs::remove_file(Manifest::path(&file));
                if error.error.kind() != ErrorKind::AlreadyExists {
                    return Err(error.error).with_context(naming);
                }
                partial = error.file;
            }
        }
    }
}
