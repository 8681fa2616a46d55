//! The folder while it is read: its files by version, and everything wrong with them.

use std::panic::resume_unwind;
use std::path::Path;
use std::{fs, io, thread};

use super::file::{File, unreadable};
use super::file_name::{FileKind, FileName, Unusable};
use super::migration::Migration;
use crate::migration::history::{Checksum, checksum};
use crate::migration::script::{Problem, Role};

/// The hint for a `.sql` file that is not a migration.
const NAMING_HINT: &str = "name it `<version>_<name>.up.sql`, the version a UTC timestamp such as \
                    `date -u +%Y%m%d%H%M%S` prints, or move it out of the folder";

/// A dump of the schema for people to read; not a migration.
const SCHEMA_FILE: &str = "schema.sql";
/// What makes development rows; not a migration.
const SEED_FILE: &str = "seed.sql";

/// The folder while it is read.
pub(super) struct Files<'a> {
    dir: &'a Path,
    shown_as: &'a Path,
    names: Vec<FileName>,
    /// What keeps the folder from being used at all.
    pub(super) problems: Vec<Problem>,
    /// What is not read, though a person may have meant it to be.
    pub(super) ignored: Vec<Problem>,
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a Path, shown_as: &'a Path) -> Self {
        Files {
            dir,
            shown_as,
            names: Vec::new(),
            problems: Vec::new(),
            ignored: Vec::new(),
        }
    }

    fn problem(&self, file: &str, what: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            place: self.shown_as.join(file).display().to_string(),
            what: what.into(),
            hint: hint.into(),
        }
    }

    fn file(&self, name: &str, role: Role) -> File {
        File::new(self.dir, self.shown_as, name, role)
    }

    pub(super) fn add(&mut self, name: String) {
        if !is_sql(&name) || name == SCHEMA_FILE || name == SEED_FILE {
            return;
        }
        match FileName::parse(&name) {
            Ok(file) => self.names.push(file),
            Err(Unusable::Ignored(what)) => {
                let ignored = self.problem(&name, format!("is ignored: {what}"), NAMING_HINT);
                self.ignored.push(ignored);
            }
            Err(Unusable::Refused(what)) => {
                let problem = self.problem(&name, what, NAMING_HINT);
                self.problems.push(problem);
            }
        }
    }

    pub(super) fn read_migrations(&mut self) -> Vec<Migration> {
        let mut names = std::mem::take(&mut self.names);
        // Of one version the down files last; the sort keeps the order of the names.
        names.sort_by_key(|name| (name.version, name.kind == FileKind::Down));
        let mut named = Vec::new();
        for files in names.chunk_by(|one, next| one.version == next.version) {
            let (ups, downs) =
                files.split_at(files.partition_point(|name| name.kind != FileKind::Down));
            if let [first, .., last] = ups {
                let problem = self.same_version(last, first);
                self.problems.push(problem);
            }
            match ups.first() {
                Some(up) => named.push((up, downs)),
                None => self.ignore_downs(downs),
            }
        }
        let ups = named.iter().map(|(up, _)| self.file(&up.full, Role::Up));
        let mut ups: Vec<File> = ups.collect();
        let checksums = checksums(&mut ups);
        let mut migrations = Vec::with_capacity(ups.len());
        for ((up, checksum), (name, downs)) in ups.into_iter().zip(checksums).zip(named) {
            let checksum = match checksum {
                Ok(checksum) => checksum,
                Err(error) => {
                    self.problems.push(unreadable(&up.path, &error));
                    continue;
                }
            };
            migrations.push(Migration {
                version: name.version,
                name: name.description(),
                stem: name.stem().to_owned(),
                checksum,
                up,
                down: downs.first().map(|down| self.file(&down.full, Role::Down)),
                verify: None,
                is_baseline_by_settings: false,
                misnamed_up: self.misnamed_up(name),
                misnamed_down: self.misnamed_down(name, downs),
            });
        }
        migrations
    }

    fn ignore_downs(&mut self, downs: &[FileName]) {
        for down in downs {
            let what = format!("is ignored: there is no `{}.up.sql`", down.stem());
            let hint = "put the up file back, or remove this one";
            let ignored = self.problem(&down.full, what, hint);
            self.ignored.push(ignored);
        }
    }

    fn same_version(&self, file: &FileName, other: &FileName) -> Problem {
        self.problem(
            &file.full,
            format!("has the version {}, as has `{}`", file.version, other.full),
            "give the younger one a version of its own: rename all of its files",
        )
    }

    /// `0` is where `--to` goes back to.
    fn misnamed_up(&self, up: &FileName) -> Vec<Problem> {
        let what = || format!("the version `{}` is not greater than zero", up.version);
        let problem = (up.version <= 0).then(|| self.problem(&up.full, what(), NAMING_HINT));
        problem.into_iter().collect()
    }

    /// sqlx pairs up and down by version alone, and so might run the down file of another migration.
    fn misnamed_down(&self, up: &FileName, downs: &[FileName]) -> Vec<Problem> {
        let problem = match downs {
            [] => None,
            [first, .., last] => Some(self.same_version(last, first)),
            [down] if up.stem() != down.stem() => Some(self.problem(
                &down.full,
                format!("has the version {}, as has `{}`", up.version, up.full),
                "give both files the same name, or each migration a version of its own",
            )),
            [down] if up.kind == FileKind::Simple => Some(self.problem(
                &up.full,
                format!("is irreversible by its name, but `{}` exists", down.full),
                format!(
                    "rename it to `{}.up.sql`; its checksum stays the same",
                    up.stem()
                ),
            )),
            [_] => None,
        };
        problem.into_iter().collect()
    }

    pub(super) fn attach_verify(&mut self, migrations: &mut [Migration]) {
        let names = match list(&self.dir.join("verify")) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let problem = unreadable(&self.shown_as.join("verify"), &error);
                return self.problems.push(problem);
            }
        };
        for name in names.into_iter().filter(|name| is_sql(name)) {
            let file = format!("verify/{name}");
            let stem = name.strip_suffix(".sql").unwrap_or(&name);
            let version = stem
                .split_once('_')
                .and_then(|(number, _)| number.parse::<i64>().ok());
            let place = version.and_then(|version| {
                migrations
                    .binary_search_by_key(&version, |migration| migration.version)
                    .ok()
            });
            match place.map(|at| &mut migrations[at]) {
                Some(migration) if migration.stem == stem => {
                    migration.verify = Some(self.file(&file, Role::Verify));
                }
                // It checks what was applied; before that, whose file it is must be clear.
                Some(migration) => {
                    let what = format!(
                        "has the version {}, as has `{}`",
                        migration.version, migration.stem
                    );
                    let hint = format!("rename it to `verify/{}.sql`", migration.stem);
                    let problem = self.problem(&file, what, hint);
                    migration.misnamed_up.push(problem);
                    let file = self.file(&file, Role::Verify);
                    migration.verify.get_or_insert(file);
                }
                None => {
                    let ignored = self.problem(
                        &file,
                        "is ignored: it belongs to no migration",
                        format!("give it the name of the migration that it checks, or write that migration: `{stem}.up.sql`"),
                    );
                    self.ignored.push(ignored);
                }
            }
        }
    }
}

/// Reads files, and computes the checksum of each: in years of migrations most of the time goes here.
fn checksums(files: &mut [File]) -> Vec<io::Result<Checksum>> {
    let read = |files: &mut [File]| -> Vec<io::Result<Checksum>> {
        let read = files.iter_mut().map(|file| file.bytes().map(checksum));
        read.collect()
    };
    if files.len() < MANY_FILES {
        return read(files);
    }
    let (first, second) = files.split_at_mut(files.len() / 2);
    thread::scope(|scope| {
        let second = scope.spawn(|| read(second));
        let mut checksums = read(first);
        checksums.extend(second.join().unwrap_or_else(|panic| resume_unwind(panic)));
        checksums
    })
}

/// From here on a second thread is worth its start.
const MANY_FILES: usize = 100;

/// The names of all files in a folder, sorted, so that messages have the same order everywhere.
/// A link is followed; a broken one counts as a file, so that the attempt to read it reports the reason.
pub(super) fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // A link has to be followed to tell.
        let is_dir = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
        if !is_dir {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a person would expect this file to be SQL.
fn is_sql(name: &str) -> bool {
    !name.starts_with('.') && name.to_ascii_lowercase().ends_with(".sql")
}
