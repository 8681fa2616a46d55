//! New migrations: which version is free, and files that are all written or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::file_name::FileName;
use super::files::list;

const VERSION: &str = "%Y%m%d%H%M%S";

/// The names of migrations by version, as in `add users last login at`.
pub(crate) fn names_by_version(files: Vec<String>) -> BTreeMap<i64, String> {
    let names = files.iter().filter_map(|file| FileName::parse(file).ok());
    names
        .map(|file| (file.version, file.description()))
        .collect()
}

/// The names of the migrations in a folder, which need not exist.
///
/// # Errors
/// With the folder, if it cannot be read.
pub(crate) fn names_in(dir: &Path) -> Result<BTreeMap<i64, String>, (PathBuf, io::Error)> {
    match list(dir) {
        Ok(files) => Ok(names_by_version(files)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err((dir.to_owned(), error)),
    }
}

/// The version of a migration that is made at this time, or what follows the newest version: a second later, where
/// that is a time. `None` if no number is greater.
pub(crate) fn next_version(now: Timestamp, newest: Option<i64>) -> Option<i64> {
    let digits = |time: DateTime| time.strftime(VERSION).to_string().parse::<i64>().ok();
    let now = digits(now.to_zoned(TimeZone::UTC).datetime())?;
    let Some(newest) = newest.filter(|newest| *newest >= now) else {
        return Some(now);
    };
    let time = DateTime::strptime(VERSION, newest.to_string());
    let later = time.ok().and_then(|time| time.checked_add(1.second()).ok());
    later.map_or(newest.checked_add(1), digits)
}

/// Makes the folder and its `verify/` where they are missing, and waits for another command that adds files, as long
/// as what is returned is held.
///
/// # Errors
/// With the path that could not be made.
pub(crate) fn lock(dir: &Path) -> Result<Option<File>, (PathBuf, io::Error)> {
    let verify = dir.join("verify");
    fs::create_dir_all(&verify).map_err(|error| (verify, error))?;
    // Where a folder cannot be locked (Windows, some network file systems), two commands in one second may choose
    // the same version, which `db-migrate` refuses.
    Ok(File::open(dir).ok().filter(|folder| folder.lock().is_ok()))
}

/// Writes files that must not exist, in this order: all of them, or none.
///
/// # Errors
/// With the path that exists or could not be written.
pub(crate) fn write<'a>(
    files: impl Iterator<Item = &'a (PathBuf, String)>,
) -> Result<(), (PathBuf, io::Error)> {
    let mut made = Vec::new();
    for (path, text) in files {
        let written = File::create_new(path).and_then(|mut file| {
            made.push(path);
            file.write_all(text.as_bytes())
        });
        if let Err(error) = written {
            for path in made {
                let _ = fs::remove_file(path);
            }
            return Err((path.clone(), error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_is_always_greater() {
        let now: Timestamp = "2025-12-31T14:30:00Z".parse().expect("a time");
        for (newest, next) in [
            (None, Some(20_251_231_143_000)),
            (Some(7), Some(20_251_231_143_000)),
            (Some(20_251_231_143_000), Some(20_251_231_143_001)),
            (Some(20_251_231_235_959), Some(20_260_101_000_000)),
            (Some(20_280_228_235_959), Some(20_280_229_000_000)),
            (Some(20_251_399_000_000), Some(20_251_399_000_001)),
            (Some(99_991_231_235_959), Some(99_991_231_235_960)),
            (Some(i64::MAX), None),
        ] {
            assert_eq!(next_version(now, newest), next, "{newest:?}");
        }
    }

    #[test]
    fn files_are_all_written_or_none_is() {
        let place = tempfile::tempdir().expect("a folder");
        let dir = place.path().join("db/migrations");
        let _lock = lock(&dir).expect("makes the folders");
        let verify = dir.join("verify/1_a.sql");
        let down = dir.join("1_a.down.sql");
        fs::write(&down, "somebody's").expect("writes");
        let files = [&verify, &down].map(|path| (path.clone(), "ours".to_owned()));
        let (path, error) = write(files.iter()).expect_err("exists");
        assert_eq!((&path, error.kind()), (&down, io::ErrorKind::AlreadyExists));
        assert!(!verify.exists());
        assert_eq!(fs::read_to_string(&down).expect("reads"), "somebody's");
    }
}
