use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::file_name::{FileKind, FileName};
use super::*;
use crate::migration::history::checksum;

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
    let script = column.script(Direction::Up).unwrap();
    assert_eq!(script.directives.backup, ["users"]);
    assert_eq!(
        column.up.path,
        Path::new("migrations/20251231143000_add_users_last_login_at.up.sql")
    );
    assert!(column.transactional() && !index.transactional());
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
        let name = FileName::parse(full).unwrap();
        let found = (name.version, &*name.description(), name.stem(), name.kind);
        assert_eq!(found, (version, description, stem, kind), "{full}");
    }
}

#[test]
fn migrations_come_by_version_with_the_checksum_of_their_up_file() {
    let dir = folder(&[
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
    ]);
    let folder = Folder::load(dir.path(), Path::new("migrations")).unwrap();
    let versions: Vec<i64> = folder.migrations.iter().map(|one| one.version).collect();
    assert_eq!(versions, [9, 10]);
    let [first, second] = &folder.migrations[..] else {
        unreachable!()
    };
    assert_eq!(first.checksum, checksum(b"abc"));
    assert!(first.transactional() && !first.script(Direction::Down).unwrap().transactional);
    assert_eq!(
        first.verify.as_ref().unwrap().path,
        Path::new("migrations/verify/9_a.sql")
    );
    assert_eq!(second.checksum, checksum(b"SELECT 1;\r\n"));
    assert!(!second.reversible());
}

/// What a run of everything in this direction is refused for.
fn refused(files: &[(&str, &str)], direction: Direction) -> Failure {
    let dir = folder(files);
    let folder = Folder::load(dir.path(), Path::new("migrations")).unwrap();
    let all: Vec<&Migration> = folder.migrations.iter().collect();
    let refused = folder.scripts(&all, direction).unwrap_err();
    refused.downcast().unwrap()
}

fn says(failure: &Failure, expected: &str) {
    assert_eq!(failure.kind, crate::error::Kind::Usage);
    assert_eq!(failure.message, "cannot use the migrations in `migrations`");
    assert_eq!(failure.causes.len(), 1, "{:?}", failure.causes);
    let cause = &failure.causes[0];
    assert!(cause.starts_with(expected), "{cause}");
    assert!(!failure.hints.is_empty());
}

const UP: (&str, &str) = ("1_a.up.sql", "");

#[test]
fn folders_that_sqlx_would_stop_at_are_refused() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (
            &[UP, ("x_b.sql", "")],
            "migrations/x_b.sql: the version `x` is not a 64-bit number",
        ),
        (
            &[UP, ("99999999999999999999_b.sql", "")],
            "migrations/99999999999999999999_b.sql: the version `99999999999999999999` is not a 64-bit number",
        ),
        (
            &[UP, ("1_b.up.sql", "")],
            "migrations/1_b.up.sql: has the version 1, as has `1_a.up.sql`",
        ),
        (
            &[UP, ("1_a.sql", "")],
            "migrations/1_a.up.sql: has the version 1, as has `1_a.sql`",
        ),
        (
            &[UP, ("01_a.up.sql", "")],
            "migrations/1_a.up.sql: has the version 1, as has `01_a.up.sql`",
        ),
    ];
    for (files, expected) in table {
        says(&failure(load(files)), expected);
    }
}

#[test]
fn what_sqlx_passes_over_is_named() {
    for (file, expected) in [
        ("2.sql", "migrations/2.sql: is ignored: no `_` separates"),
        (
            "2_b.SQL",
            "migrations/2_b.SQL: is ignored: sqlx knows only the lowercase ending",
        ),
        (
            "2_b.down.sql",
            "migrations/2_b.down.sql: is ignored: there is no `2_b.up.sql`",
        ),
        (
            "verify/2_b.sql",
            "migrations/verify/2_b.sql: is ignored: it belongs to no migration",
        ),
    ] {
        let folder = load(&[UP, (file, "")]).unwrap();
        assert_eq!(folder.migrations.len(), 1);
        let [ignored] = &folder.ignored[..] else {
            panic!("{file}: {:?}", folder.ignored);
        };
        assert!(ignored.to_string().starts_with(expected), "{ignored}");
        assert!(!ignored.hint.is_empty());
    }
}

#[test]
fn what_is_to_run_is_checked() {
    use Direction::{Down, Up};
    type Case<'a> = (Direction, &'a [(&'a str, &'a str)], &'a str);
    let table: &[Case<'_>] = &[
        (
            Up,
            &[("0_b.sql", "")],
            "migrations/0_b.sql: the version `0` is not greater",
        ),
        (
            Up,
            &[("-3_b.sql", "")],
            "migrations/-3_b.sql: the version `-3` is not greater",
        ),
        (
            Down,
            &[UP, ("1_b.down.sql", "")],
            "migrations/1_b.down.sql: has the version 1, as has `1_a.up.sql`",
        ),
        (
            Down,
            &[("1_a.sql", ""), ("1_a.down.sql", "")],
            "migrations/1_a.sql: is irreversible by its name",
        ),
        (
            Up,
            &[UP, ("verify/1_b.sql", "SELECT 1")],
            "migrations/verify/1_b.sql: has the version 1, as has `1_a`",
        ),
        (
            Up,
            &[UP, ("verify/1_a.sql", "DROP x")],
            "migrations/verify/1_a.sql:1:1: a verify file holds only",
        ),
        (
            Up,
            &[("1_a.up.sql", "\\q"), ("verify/1_a.sql", "SELECT 1")],
            "migrations/1_a.up.sql:1:1: `\\q` is a command",
        ),
        (
            Down,
            &[UP, ("1_a.down.sql", "BEGIN;")],
            "migrations/1_a.down.sql:1:1: `BEGIN` in a file",
        ),
    ];
    for (direction, files, expected) in table {
        says(&refused(files, *direction), expected);
    }
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let files = [
        ("1_a.up.sql", "BEGIN;"),
        ("1_a.down.sql", "also;\u{feff}"),
        ("2_b.up.sql", "\u{feff}"),
        ("verify/2_b.sql", ""),
    ];
    let failure = refused(&files, Direction::Up);
    assert_eq!(
        failure.message,
        "cannot use the migrations in `migrations`: 3 problems"
    );
    assert_eq!(failure.causes.len(), 3);
    assert_eq!(failure.hints.len(), 4);
}

/// An applied file is its name and its checksum. Whatever else is in it, somebody once ran it.
#[test]
fn a_file_is_not_looked_at_before_it_is_to_run() {
    let dir = folder(&[
        ("0_first.sql", ""),
        ("1_a.up.sql", "BEGIN; CREATE TABLE a (); COMMIT;"),
        ("1_other.down.sql", "'"),
        ("2_b.sql", "-- no-transaction because\nSELECT '"),
        ("3_c.up.sql", "\u{feff}-- xtask: next\n"),
        ("4_d.up.sql", "-- xtask: baseline\nSELECT '"),
        ("5_e.up.sql", "SELECT 1"),
        ("5_e.down.sql", "$$"),
    ]);
    let folder = Folder::load(dir.path(), Path::new("migrations")).unwrap();
    let transactional: Vec<bool> = folder
        .migrations
        .iter()
        .map(Migration::transactional)
        .collect();
    assert_eq!(transactional, [true, true, false, true, true, true]);
    // What says that it is the baseline, and cannot be read, stays where it is.
    let baseline: Vec<i64> = folder
        .migrations
        .iter()
        .filter(|migration| migration.is_baseline())
        .map(|migration| migration.version)
        .collect();
    assert_eq!(baseline, [4]);
    // A bad down file keeps no up file from running.
    let last = folder.get(5).unwrap();
    let scripts = folder.scripts(&[last], Direction::Up).unwrap();
    assert_eq!(scripts.len(), 1);
    assert!(folder.scripts(&[last], Direction::Down).is_err());
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
    assert!(
        empty.hints[0]
            .shown(&crate::hint::Invocation::default())
            .contains("--migrations DIR")
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_a_broken_one_is_reported() {
    let real = folder(&[("a.sql", "SELECT 1;")]);
    let dir = folder(&[]);
    let link = |to: &Path, name: &str| {
        std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
    };
    link(&real.path().join("a.sql"), "1_a.sql");
    let folder = Folder::load(dir.path(), Path::new("m")).unwrap();
    assert_eq!(
        folder.migrations[0].script(Direction::Up).unwrap().text,
        "SELECT 1;"
    );
    link(Path::new("nowhere"), "2_b.sql");
    let failure = failure(Folder::load(dir.path(), Path::new("m")));
    assert!(failure.causes[0].starts_with("m/2_b.sql: cannot be read"));
}
