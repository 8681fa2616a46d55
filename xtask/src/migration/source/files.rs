//! The folder while it is read: its files by version, and everything wrong with them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::file::{File, unreadable};
use super::file_name::{FileKind, FileName, Unusable};
use super::migration::Migration;
use crate::migration::history::checksum;
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
    pub(super) versions: BTreeMap<i64, VersionFiles>,
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
            versions: BTreeMap::new(),
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
            Ok(file) => {
                let version = self.versions.entry(file.version).or_default();
                match file.kind {
                    FileKind::Down => version.downs.push(file),
                    FileKind::Up | FileKind::Simple => version.ups.push(file),
                }
            }
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
        let mut migrations = Vec::new();
        for (version, VersionFiles { ups, downs }) in std::mem::take(&mut self.versions) {
            let Some(named) = ups.first() else {
                for down in downs {
                    let what = format!("is ignored: there is no `{}.up.sql`", down.stem);
                    let hint = "put the up file back, or remove this one";
                    let ignored = self.problem(&down.full, what, hint);
                    self.ignored.push(ignored);
                }
                continue;
            };
            if let [first, .., last] = &ups[..] {
                let problem = self.same_version(last, first);
                self.problems.push(problem);
            }
            let up = self.file(&named.full, Role::Up);
            let checksum = match up.bytes() {
                Ok(bytes) => checksum(bytes),
                Err(error) => {
                    self.problems.push(unreadable(&up.path, &error));
                    continue;
                }
            };
            migrations.push(Migration {
                version,
                name: named.description.clone(),
                stem: named.stem.clone(),
                checksum,
                up,
                down: downs.first().map(|down| self.file(&down.full, Role::Down)),
                verify: None,
                is_baseline_by_settings: false,
                misnamed_up: self.misnamed_up(version, named),
                misnamed_down: self.misnamed_down(version, named, &downs),
            });
        }
        migrations
    }

    fn same_version(&self, file: &FileName, other: &FileName) -> Problem {
        self.problem(
            &file.full,
            format!("has the version {}, as has `{}`", file.version, other.full),
            "give the younger one a version of its own: rename all of its files",
        )
    }

    /// `0` is where `--to` goes back to.
    fn misnamed_up(&self, version: i64, up: &FileName) -> Vec<Problem> {
        let what = || format!("the version `{version}` is not greater than zero");
        let problem = (version <= 0).then(|| self.problem(&up.full, what(), NAMING_HINT));
        problem.into_iter().collect()
    }

    /// sqlx pairs up and down by version alone, and so might run the down file of another migration.
    fn misnamed_down(&self, version: i64, up: &FileName, downs: &[FileName]) -> Vec<Problem> {
        let problem = match downs {
            [] => None,
            [first, .., last] => Some(self.same_version(last, first)),
            [down] if up.stem != down.stem => Some(self.problem(
                &down.full,
                format!("has the version {version}, as has `{}`", up.full),
                "give both files the same name, or each migration a version of its own",
            )),
            [down] if up.kind == FileKind::Simple => Some(self.problem(
                &up.full,
                format!("is irreversible by its name, but `{}` exists", down.full),
                format!(
                    "rename it to `{}.up.sql`; its checksum stays the same",
                    up.stem
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
                // It would be passed over, and the migration applied unchecked.
                Some(migration) => {
                    let what = format!(
                        "has the version {}, as has `{}`",
                        migration.version, migration.stem
                    );
                    let hint = format!("rename it to `verify/{}.sql`", migration.stem);
                    let problem = self.problem(&file, what, hint);
                    migration.misnamed_up.push(problem);
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

/// The files of one version.
#[derive(Default)]
pub(super) struct VersionFiles {
    /// `<version>_<name>.up.sql` or `<version>_<name>.sql`.
    ups: Vec<FileName>,
    downs: Vec<FileName>,
}

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
