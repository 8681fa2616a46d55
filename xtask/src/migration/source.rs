//! The migrations folder, read once and checked whole: sqlx's file names (0.9,
//! `sqlx-core/src/migrate/source.rs`), our `verify/` beside them. The only place of this module
//! that touches the disk.
//!
//! sqlx reads `<version>_<name>.up.sql`, `.down.sql` and the irreversible `<version>_<name>.sql`,
//! the name split once at its first `_`, and passes over whatever does not fit. A `.sql` file that
//! nobody runs is a mistake somebody will search for, so here it is an error. Other files are not:
//! `README.md`, our own `schema.sql`, folders, and names that begin with a dot (editors' locks,
//! macOS's `._` companions).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::history::{Checksum, checksum};
use super::script::{Problem, Role, Script};
use crate::error::{Failure, Result};

/// What to do about a `.sql` file that is none.
const FORM: &str = "name it `<version>_<name>.up.sql`, the version a UTC timestamp such as \
                    `date -u +%Y%m%d%H%M%S` prints, or move it out of the folder";

/// A dump of the schema for people; not a migration.
const SCHEMA_FILE: &str = "schema.sql";

/// All migrations on disk, each of them fit to run.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// What messages call it.
    pub(crate) shown_as: PathBuf,
    /// Ascending by version; at least one.
    pub(crate) migrations: Vec<Migration>,
}

/// One migration on disk.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    /// Greater than zero, as sqlx documents; `0` stands for "before the first".
    pub(crate) version: i64,
    /// What sqlx stores as its description: `add users last login at`.
    pub(crate) name: String,
    /// `20251231143000_add_users_last_login_at`.
    pub(crate) stem: String,
    pub(crate) up: Script,
    pub(crate) down: Option<Script>,
    pub(crate) verify: Option<Script>,
    /// Of the up file.
    pub(crate) checksum: Checksum,
}

/// Which way a migration runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Migration {
    /// Whether it is the schema as it stood when the tool was adopted.
    pub(crate) fn is_baseline(&self) -> bool {
        self.up.directives.baseline
    }

    /// Whether it has a down file.
    pub(crate) fn reversible(&self) -> bool {
        self.down.is_some()
    }

    /// What runs in this direction; a usage failure where there is no down file.
    pub(crate) fn script(&self, direction: Direction) -> Result<&Script> {
        match direction {
            Direction::Up => Ok(&self.up),
            Direction::Down => self.down.as_ref().ok_or_else(|| {
                Failure::usage(format!("`{}` has no down file", self.stem))
                    .hint("cargo xtask db-status")
                    .into()
            }),
        }
    }
}

impl Folder {
    /// Reads the folder at `dir`, which messages call `shown_as`.
    ///
    /// # Errors
    /// A usage failure (exit 2) that lists everything wrong with the folder, each with its place:
    /// the folder itself, file names, pairs of files, and what [`Script::parse`] finds in each.
    pub(crate) fn load(dir: &Path, shown_as: &Path) -> Result<Folder> {
        let names = list(dir).map_err(|error| unreadable(shown_as, &error))?;
        let mut files = Files::new(dir, shown_as);
        for name in names {
            files.sort_in(name);
        }
        if files.versions.is_empty() && files.problems.is_empty() {
            return Err(nothing_there(shown_as).into());
        }
        let mut migrations = files.read_migrations();
        files.attach_verify(&mut migrations);
        if files.problems.is_empty() {
            Ok(Folder {
                shown_as: shown_as.to_owned(),
                migrations,
            })
        } else {
            Err(files.failure().into())
        }
    }

    /// The migration of this version.
    pub(crate) fn get(&self, version: i64) -> Option<&Migration> {
        let index = self
            .migrations
            .binary_search_by_key(&version, |migration| migration.version);
        Some(&self.migrations[index.ok()?])
    }
}

/// The names of all files in a folder, sorted, so that messages come in the same order everywhere.
/// A link counts as what it points to; one that points nowhere counts as a file, so that reading
/// it says why not.
fn list(dir: &Path) -> io::Result<Vec<String>> {
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

fn unreadable(shown_as: &Path, error: &io::Error) -> Failure {
    let failure = Failure::usage(format!(
        "cannot read the migrations folder `{}`",
        shown_as.display()
    ));
    match error.kind() {
        io::ErrorKind::NotFound => failure.cause("it does not exist"),
        io::ErrorKind::NotADirectory => failure.cause("it is a file"),
        _ => failure.cause(error.to_string()),
    }
    .hint("name the folder that holds them: cargo xtask db-migrate --migrations DIR")
}

fn nothing_there(shown_as: &Path) -> Failure {
    Failure::usage(format!(
        "the migrations folder `{}` holds no migration",
        shown_as.display()
    ))
    .hint(
        "write the first one, `<version>_<name>.up.sql`, or name another folder: \
         cargo xtask db-migrate --migrations DIR",
    )
}

/// The files of one version.
#[derive(Default)]
struct Version {
    /// `<version>_<name>.up.sql` or `<version>_<name>.sql`.
    ups: Vec<FileName>,
    downs: Vec<FileName>,
}

/// A file name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileName {
    full: String,
    version: i64,
    description: String,
    stem: String,
    kind: FileKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Up,
    Down,
    Simple,
}

impl FileKind {
    fn suffix(self) -> &'static str {
        match self {
            FileKind::Up => ".up.sql",
            FileKind::Down => ".down.sql",
            FileKind::Simple => ".sql",
        }
    }
}

impl FileName {
    /// Takes a name apart as sqlx does.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(full: &str) -> std::result::Result<FileName, String> {
        if !full.ends_with(".sql") {
            return Err("sqlx knows only the lowercase ending `.sql`".to_owned());
        }
        let Some((number, rest)) = full.split_once('_') else {
            return Err(
                "is no migration: nothing separates a version from a name by `_`".to_owned(),
            );
        };
        let version = match number.parse::<i64>() {
            Ok(version) if version > 0 => version,
            Ok(_) => {
                return Err(format!("the version `{number}` is not greater than zero"));
            }
            Err(_) => {
                return Err(format!("the version `{number}` is no number (of 64 bits)"));
            }
        };
        let kind = [FileKind::Up, FileKind::Down]
            .into_iter()
            .find(|kind| rest.ends_with(kind.suffix()))
            .unwrap_or(FileKind::Simple);
        // sqlx strips the ending as often as it occurs.
        let name = rest.trim_end_matches(kind.suffix());
        Ok(FileName {
            full: full.to_owned(),
            version,
            description: name.replace('_', " "),
            stem: format!("{number}_{name}"),
            kind,
        })
    }
}

/// The folder while it is read.
struct Files<'a> {
    dir: &'a Path,
    shown_as: &'a Path,
    versions: BTreeMap<i64, Version>,
    /// Of every file in `versions`.
    stems: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Files<'a> {
    fn new(dir: &'a Path, shown_as: &'a Path) -> Self {
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

    fn sort_in(&mut self, name: String) {
        if !is_sql(&name) || name == SCHEMA_FILE {
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
            Err(what) => self.problem(&name, what, FORM),
        }
    }

    fn read_migrations(&mut self) -> Vec<Migration> {
        let mut migrations = Vec::new();
        for (version, Version { ups, downs }) in std::mem::take(&mut self.versions) {
            self.check_pair(version, &ups, &downs);
            // Read all of them, so that what is wrong inside is said as well.
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

    /// sqlx pairs files by version alone, and so would run the down of one migration for another.
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
                format!("is irreversible by its name, yet there is `{}`", down.full),
                format!(
                    "rename it to `{}.up.sql`; its checksum stays the same",
                    up.stem
                ),
            ),
            Some(_) => {}
        }
    }

    /// The script in `file`, a path below the folder, or `None` and its problems noted.
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

    fn attach_verify(&mut self, migrations: &mut [Migration]) {
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
                // An up file that could not be read has been reported; its verify file is fine.
                None if self.stems.contains(stem) => {}
                None => self.problem(
                    &file,
                    "belongs to no migration",
                    format!("name it as the migration it checks, or write that: `{stem}.up.sql`"),
                ),
            }
        }
    }

    fn failure(self) -> Failure {
        let count = match self.problems.len() {
            1 => String::new(),
            many => format!(": {many} problems"),
        };
        let mut failure = Failure::usage(format!(
            "cannot use the migrations in `{}`{count}",
            self.shown_as.display()
        ));
        // Of several problems, each hint has to say which it is about.
        let several = self.problems.len() > 1;
        for Problem { place, what, hint } in self.problems {
            failure = failure.cause(format!("{place}: {what}"));
            failure = failure.hint(match several {
                true => format!("{place}: {hint}"),
                false => hint,
            });
        }
        failure.hint("then look again: cargo xtask db-migrate --dry-run")
    }
}

/// Whether a file would be taken for SQL by a person.
fn is_sql(name: &str) -> bool {
    !name.starts_with('.') && name.to_ascii_lowercase().ends_with(".sql")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn load(files: &[(&str, &str)]) -> Result<Folder> {
        Folder::load(folder(files).path(), Path::new("migrations"))
    }

    fn failure(result: Result<Folder>) -> Failure {
        result.unwrap_err().downcast().unwrap()
    }

    #[test]
    fn the_shipped_folder_loads() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let folder = Folder::load(&dir, Path::new("migrations")).unwrap();
        let [users, column, index] = &folder.migrations[..] else {
            panic!("{:?}", folder.migrations);
        };
        assert!(users.is_baseline() && !column.is_baseline() && !index.is_baseline());
        assert_eq!(column.version, 20251231143000);
        assert_eq!(column.name, "add users last login at");
        assert_eq!(column.stem, "20251231143000_add_users_last_login_at");
        assert_eq!(column.up.directives.backup, ["users"]);
        assert_eq!(
            column.up.path,
            Path::new("migrations/20251231143000_add_users_last_login_at.up.sql")
        );
        assert!(column.up.transactional && !index.up.transactional);
        for migration in &folder.migrations {
            assert!(migration.reversible() && migration.verify.is_some());
        }
        assert_eq!(folder.get(column.version).unwrap().stem, column.stem);
        assert!(folder.get(1).is_none());
    }

    #[test]
    fn names_are_taken_apart_as_sqlx_does() {
        use FileKind::{Down, Simple, Up};
        let table = [
            ("1_a.up.sql", 1, "a", "1_a", Up),
            ("007_a_b.c.down.sql", 7, "a b.c", "007_a_b.c", Down),
            (
                "20251231143000_a.sql",
                20251231143000,
                "a",
                "20251231143000_a",
                Simple,
            ),
            ("1_.sql", 1, "", "1_", Simple),
            ("1_a__b.sql", 1, "a  b", "1_a__b", Simple),
            ("1_a.up.up.sql", 1, "a.up", "1_a.up", Up),
            ("1_a.sql.sql", 1, "a", "1_a", Simple),
        ];
        for (full, version, description, stem, kind) in table {
            let expected = FileName {
                full: full.to_owned(),
                version,
                description: description.to_owned(),
                stem: stem.to_owned(),
                kind,
            };
            assert_eq!(FileName::parse(full), Ok(expected), "{full}");
        }
    }

    #[test]
    fn migrations_come_by_version_with_the_checksum_of_their_up_file() {
        let folder = load(&[
            ("10_b.sql", "SELECT 1;\r\n"),
            ("9_a.up.sql", "abc"),
            ("9_a.down.sql", "-- no-transaction\n"),
            ("verify/9_a.sql", "SELECT 'x', true;"),
            ("verify/README.md", ""),
            ("more/x.sql", "not ours"),
            ("README.md", "text"),
            ("schema.sql", "\\restrict x"),
            (".#9_a.up.sql", "an editor's"),
            (".gitkeep", ""),
        ])
        .unwrap();
        let versions: Vec<i64> = folder.migrations.iter().map(|one| one.version).collect();
        assert_eq!(versions, [9, 10]);
        let [first, second] = &folder.migrations[..] else {
            unreachable!()
        };
        assert_eq!(first.checksum, checksum(b"abc"));
        assert!(first.up.transactional && !first.down.as_ref().unwrap().transactional);
        assert_eq!(
            first.verify.as_ref().unwrap().path,
            Path::new("migrations/verify/9_a.sql")
        );
        assert_eq!(second.checksum, checksum(b"SELECT 1;\r\n"));
        assert!(!second.reversible());
    }

    #[test]
    fn doubtful_folders_are_refused() {
        let up = ("1_a.up.sql", "");
        let table: &[(&[(&str, &str)], &str)] = &[
            (
                &[up, ("2.sql", "")],
                "migrations/2.sql: is no migration: nothing separates",
            ),
            (
                &[up, ("x_b.sql", "")],
                "migrations/x_b.sql: the version `x` is no number",
            ),
            (
                &[up, ("0_b.sql", "")],
                "migrations/0_b.sql: the version `0` is not greater",
            ),
            (
                &[up, ("-3_b.sql", "")],
                "migrations/-3_b.sql: the version `-3` is not greater",
            ),
            (
                &[up, ("99999999999999999999_b.sql", "")],
                "migrations/99999999999999999999_b.sql: the version `99999999999999999999` is no number",
            ),
            (
                &[up, ("2_b.SQL", "")],
                "migrations/2_b.SQL: sqlx knows only the lowercase ending",
            ),
            (
                &[up, ("1_b.up.sql", "")],
                "migrations/1_b.up.sql: has the version 1, as has `1_a.up.sql`",
            ),
            (
                &[up, ("1_a.sql", "")],
                "migrations/1_a.up.sql: has the version 1, as has `1_a.sql`",
            ),
            (
                &[up, ("01_a.up.sql", "")],
                "migrations/1_a.up.sql: has the version 1, as has `01_a.up.sql`",
            ),
            (
                &[up, ("1_b.down.sql", "")],
                "migrations/1_b.down.sql: has the version 1, as has `1_a.up.sql`",
            ),
            (
                &[up, ("2_b.down.sql", "")],
                "migrations/2_b.down.sql: is a down file without its `2_b.up.sql`",
            ),
            (
                &[("1_a.sql", ""), ("1_a.down.sql", "")],
                "migrations/1_a.sql: is irreversible by its name",
            ),
            (
                &[up, ("verify/1_b.sql", "SELECT 1")],
                "migrations/verify/1_b.sql: belongs to no migration",
            ),
            (
                &[up, ("verify/1_a.up.sql", "SELECT 1")],
                "migrations/verify/1_a.up.sql: belongs to no migration",
            ),
            (
                &[up, ("verify/1_a.sql", "DROP x")],
                "migrations/verify/1_a.sql:1:1: a verify file holds only",
            ),
            (
                &[("1_a.up.sql", "\\q"), ("verify/1_a.sql", "SELECT 1")],
                "migrations/1_a.up.sql:1:1: `\\q` is a command",
            ),
        ];
        for (files, expected) in table {
            let failure = failure(load(files));
            assert_eq!(failure.kind, crate::error::Kind::Usage);
            assert_eq!(failure.message, "cannot use the migrations in `migrations`");
            assert_eq!(failure.causes.len(), 1, "{:?}", failure.causes);
            assert!(
                failure.causes[0].starts_with(expected),
                "{:?}",
                failure.causes
            );
            assert!(!failure.hints.is_empty());
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let failure = failure(load(&[
            ("1_a.up.sql", "BEGIN;"),
            ("2_b.down.sql", "\u{feff}"),
            ("x.sql", ""),
        ]));
        assert_eq!(
            failure.message,
            "cannot use the migrations in `migrations`: 4 problems"
        );
        assert_eq!(failure.causes.len(), 4);
    }

    #[test]
    fn a_missing_or_empty_folder_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let missing = failure(Folder::load(&dir.path().join("x"), Path::new("migrations")));
        assert_eq!(
            missing.message,
            "cannot read the migrations folder `migrations`"
        );
        assert_eq!(missing.causes, ["it does not exist"]);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(failure(Folder::load(&file, &file)).causes, ["it is a file"]);
        let empty = failure(load(&[("README.md", ""), ("schema.sql", "")]));
        assert_eq!(
            empty.message,
            "the migrations folder `migrations` holds no migration"
        );
        assert!(empty.hints[0].contains("--migrations DIR"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_a_broken_one_is_said() {
        let real = folder(&[("a.sql", "SELECT 1;")]);
        let dir = folder(&[]);
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        };
        link(&real.path().join("a.sql"), "1_a.sql");
        let folder = Folder::load(dir.path(), Path::new("m")).unwrap();
        assert_eq!(folder.migrations[0].up.text, "SELECT 1;");
        link(Path::new("nowhere"), "2_b.sql");
        let failure = failure(Folder::load(dir.path(), Path::new("m")));
        assert!(failure.causes[0].starts_with("m/2_b.sql: cannot be read"));
    }
}
