//! The folder while it is read: its files by version, and everything wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::file_name::{FileKind, FileName};
use super::migration::Migration;
use crate::error::Failure;
use crate::hint::Hint;
use crate::migration::history::checksum;
use crate::migration::script::{Problem, Role, Script};

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
    /// The stem of every file in `versions`.
    stems: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a Path, shown_as: &'a Path) -> Self {
        Files {
            dir,
            shown_as,
            versions: BTreeMap::new(),
            stems: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, file: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem {
            place: self.shown_as.join(file).display().to_string(),
            what: what.into(),
            hint: hint.into(),
        });
    }

    pub(super) fn add(&mut self, name: String) {
        if !is_sql(&name) || name == SCHEMA_FILE || name == SEED_FILE {
            return;
        }
        match FileName::parse(&name) {
            Ok(file) => {
                self.stems.insert(file.stem.clone());
                let version = self.versions.entry(file.version).or_default();
                match file.kind {
                    FileKind::Down => version.downs.push(file),
                    FileKind::Up | FileKind::Simple => version.ups.push(file),
                }
            }
            Err(what) => self.problem(&name, what, NAMING_HINT),
        }
    }

    pub(super) fn read_migrations(&mut self) -> Vec<Migration> {
        let mut migrations = Vec::new();
        for (version, VersionFiles { ups, downs }) in std::mem::take(&mut self.versions) {
            self.check_pair(version, &ups, &downs);
            // Also those that cannot be paired, so that everything wrong inside them is reported too.
            let ups: Vec<_> = ups
                .into_iter()
                .filter_map(|file| Some((self.read(&file.full, Role::Up)?, file)))
                .collect();
            let downs: Vec<_> = downs
                .iter()
                .filter_map(|file| self.read(&file.full, Role::Down))
                .collect();
            if let Some((up, file)) = ups.into_iter().next() {
                migrations.push(Migration {
                    version,
                    name: file.description,
                    stem: file.stem,
                    checksum: checksum(up.text.as_bytes()),
                    up,
                    down: downs.into_iter().next(),
                    verify: None,
                });
            }
        }
        migrations
    }

    /// sqlx pairs files by version alone, and so might run the down file of another migration.
    fn check_pair(&mut self, version: i64, ups: &[FileName], downs: &[FileName]) {
        for files in [ups, downs] {
            if let [first, .., last] = files {
                self.problem(
                    &last.full,
                    format!("has the version {version}, as has `{}`", first.full),
                    "give the younger one a version of its own: rename all of its files",
                );
            }
        }
        let Some(down) = downs.first() else { return };
        match ups.first() {
            None => self.problem(
                &down.full,
                format!("is a down file without its `{}.up.sql`", down.stem),
                "put the up file back, or remove this one",
            ),
            Some(up) if up.stem != down.stem => self.problem(
                &down.full,
                format!("has the version {version}, as has `{}`", up.full),
                "give both files the same name, or each migration a version of its own",
            ),
            Some(up) if up.kind == FileKind::Simple => self.problem(
                &up.full,
                format!("is irreversible by its name, but `{}` exists", down.full),
                format!(
                    "rename it to `{}.up.sql`; its checksum stays the same",
                    up.stem
                ),
            ),
            Some(_) => {}
        }
    }

    /// The script in `file`, a path relative to the folder; notes its problems if it cannot be used.
    fn read(&mut self, file: &str, role: Role) -> Option<Script> {
        let bytes = match fs::read(self.dir.join(file)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let hint = "check who may read it, or where the link points";
                self.problem(file, format!("cannot be read: {error}"), hint);
                return None;
            }
        };
        Script::parse(&self.shown_as.join(file), bytes, role)
            .map_err(|problems| self.problems.extend(problems))
            .ok()
    }

    pub(super) fn attach_verify(&mut self, migrations: &mut [Migration]) {
        let names = match list(&self.dir.join("verify")) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let hint = "make it a folder that you may read, or remove it";
                return self.problem("verify", format!("cannot be read: {error}"), hint);
            }
        };
        for name in names.into_iter().filter(|name| is_sql(name)) {
            let file = format!("verify/{name}");
            let script = self.read(&file, Role::Verify);
            let stem = name.strip_suffix(".sql").unwrap_or(&name);
            match migrations
                .iter_mut()
                .find(|migration| migration.stem == stem)
            {
                Some(migration) => migration.verify = script,
                // The up file is there but could not be read, which has been reported already.
                None if self.stems.contains(stem) => {}
                None => self.problem(
                    &file,
                    "belongs to no migration",
                    format!("give it the name of the migration that it checks, or write that migration: `{stem}.up.sql`"),
                ),
            }
        }
    }

    pub(super) fn failure(self) -> Failure {
        let count = match self.problems.len() {
            1 => String::new(),
            many => format!(": {many} problems"),
        };
        let mut failure = Failure::usage(format!(
            "cannot use the migrations in `{}`{count}",
            self.shown_as.display()
        ));
        // If there are several problems, each hint has to say which one it is for.
        let several = self.problems.len() > 1;
        for Problem { place, what, hint } in self.problems {
            failure = failure.cause(format!("{place}: {what}"));
            failure = failure.hint(match several {
                true => format!("{place}: {hint}"),
                false => hint,
            });
        }
        failure.hint(Hint::to("then look again", "db-migrate --dry-run"))
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
        if !entry.path().is_dir() {
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
