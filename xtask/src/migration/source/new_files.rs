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

/// The names of migrations by version, each as in its file names: `add_users_last_login_at`.
pub(crate) fn names_by_version(files: impl IntoIterator<Item = String>) -> BTreeMap<i64, String> {
    let names = files
        .into_iter()
        .filter_map(|file| FileName::parse(&file).ok());
    names
        .map(|file| (file.version, file.description.replace(' ', "_")))
        .collect()
}

/// The names of the migrations in a folder, which need not exist.
pub(crate) fn names_in(dir: &Path) -> io::Result<BTreeMap<i64, String>> {
    match list(dir) {
        Ok(files) => Ok(names_by_version(files)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// The version of a migration that is made at this time.
pub(crate) fn version_at(time: Timestamp) -> i64 {
    let digits = time.to_zoned(TimeZone::UTC).strftime(VERSION).to_string();
    digits.parse().unwrap_or_default()
}

/// The version after this one: a second later, where it is a time.
pub(crate) fn version_after(version: i64) -> Option<i64> {
    let time = DateTime::strptime(VERSION, version.to_string());
    let later = time.ok().and_then(|time| time.checked_add(1.second()).ok());
    match later {
        Some(later) => later.strftime(VERSION).to_string().parse().ok(),
        None => version.checked_add(1),
    }
}

/// Files that are being added to the folder. Unless they are kept, they are removed again.
pub(crate) struct NewFiles {
    dir: PathBuf,
    /// Held so that two commands do not choose the same version.
    _lock: Option<File>,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl NewFiles {
    /// Makes the folder and its `verify/` if they are missing, and waits for another command that adds files.
    ///
    /// # Errors
    /// With the path that could not be made.
    pub(crate) fn begin(dir: &Path) -> Result<NewFiles, (PathBuf, io::Error)> {
        let verify = dir.join("verify");
        let missing = verify.ancestors().take_while(|folder| !folder.exists());
        let folders: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        if let Err(error) = fs::create_dir_all(&verify) {
            remove(&[], &folders);
            return Err((verify, error));
        }
        // Where a folder cannot be locked (Windows, some network file systems), two commands in one second may choose
        // the same version, which `db-migrate` refuses.
        let lock = File::open(dir).ok().filter(|folder| folder.lock().is_ok());
        Ok(NewFiles {
            dir: dir.to_owned(),
            _lock: lock,
            folders,
            files: Vec::new(),
        })
    }

    /// Writes a file, which must not exist.
    ///
    /// # Errors
    /// If it exists or cannot be written.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> Result<(), (PathBuf, io::Error)> {
        let path = self.dir.join(name);
        let mut file = File::create_new(&path).map_err(|error| (path.clone(), error))?;
        self.files.push(path.clone());
        file.write_all(text.as_bytes())
            .map_err(|error| (path, error))
    }

    /// All of them are there.
    pub(crate) fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        remove(&self.files, &self.folders);
    }
}

fn remove(files: &[PathBuf], folders: &[PathBuf]) {
    for file in files {
        let _ = fs::remove_file(file);
    }
    // A folder in which somebody else has put something stays.
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_is_always_greater() {
        for (version, next) in [
            (20_251_231_143_000, 20_251_231_143_001),
            (20_251_231_235_959, 20_260_101_000_000),
            (20_240_228_235_959, 20_240_229_000_000),
            (7, 8),
            (20_251_399_000_000, 20_251_399_000_001),
            (99_991_231_235_959, 99_991_231_235_960),
        ] {
            assert_eq!(version_after(version), Some(next), "{version}");
        }
        assert_eq!(version_after(i64::MAX), None);
        let time: Timestamp = "2025-12-31T14:30:00Z".parse().expect("a time");
        assert_eq!(version_at(time), 20_251_231_143_000);
    }

    #[test]
    fn files_are_all_written_or_none_is() {
        let place = tempfile::tempdir().expect("a folder");
        let dir = place.path().join("db/migrations");
        let mut files = NewFiles::begin(&dir).expect("begins");
        files.add("verify/1_a.sql", "a").expect("writes");
        drop(files);
        assert!(!place.path().join("db").exists());

        fs::create_dir_all(dir.join("verify")).expect("makes a folder");
        fs::write(dir.join("1_a.down.sql"), "somebody's").expect("writes");
        let mut files = NewFiles::begin(&dir).expect("begins");
        files.add("verify/1_a.sql", "a").expect("writes");
        let (path, error) = files.add("1_a.down.sql", "ours").expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(path, dir.join("1_a.down.sql"));
        drop(files);
        assert_eq!(
            list(&dir.join("verify")).expect("lists"),
            Vec::<String>::new()
        );
        let kept = fs::read_to_string(dir.join("1_a.down.sql")).expect("reads");
        assert_eq!(kept, "somebody's");
    }
}
