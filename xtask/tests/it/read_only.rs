//! Commands that only look, and every `--dry-run`, leave the database as it was: schema, rows and
//! history, compared by a dump of everything before and after.

use std::collections::BTreeSet;

use crate::common::{BASELINE, Project, commands, until};

/// A command as it is typed, and the exit code that it must have.
type Expected<'a> = (&'a str, i32);

/// The commands that these tests do not run: they write, or do not connect. A command that is not in
/// this list must have a reading form in [`READERS`].
const OTHERS: [&str; 11] = [
    "db-backup",
    "db-completions",
    "db-destroy",
    "db-man",
    "db-psql",
    "db-redo",
    "db-restore",
    "db-seed",
    "db-setup",
    "db-start",
    "db-stop",
];

/// What must not change anything.
const READERS: [&str; 17] = [
    "db-status",
    "db-status --check",
    "db-status --format json",
    "db-verify",
    "db-doctor",
    "db-doctor --format json",
    "db-backups",
    "db-migrate --dry-run",
    "db-migrate --dry-run --format json",
    "db-migrate --dry-run --to 20251231143000",
    "db-rollback --dry-run",
    "db-rollback --dry-run --all",
    "db-rollback --dry-run --to 0",
    "db-baseline --dry-run",
    "db-new change_it --dry-run --column users.phone:text",
    "db-new change_it --dry-run --unique users(email)",
    "db-repair --dry-run",
];

/// Runs each reader and compares everything before and after. Each exits with 0, but for those that are
/// named with the code that they must have in this state.
#[track_caller]
fn nothing_changes(project: &Project, state: &str, exits: &[Expected<'_>]) {
    let code_of = |command: &str| {
        exits
            .iter()
            .find(|(named, _)| *named == command)
            .map_or(0, |of| of.1)
    };
    for (named, _) in exits {
        assert!(READERS.contains(named), "`{named}` is no reader");
    }
    let backups = || std::fs::read_dir(project.path("backups")).map_or(0, Iterator::count);
    let (before, backed_up) = (project.dump(), backups());
    for command in READERS {
        let code = code_of(command);
        let arguments: Vec<&str> = command.split(' ').collect();
        let run = project.xtask(&arguments);
        assert_eq!(before, project.dump(), "`{command}` {state}");
        let run = run.exits(code);
        let failed = run.stderr.contains("error: ");
        assert_eq!(failed, code != 0, "`{command}` {state}: {}", run.stderr);
    }
    assert_eq!(backups(), backed_up, "a dry run takes no backup");
}

#[test]
fn every_command_is_known_to_read_or_to_write() {
    let name = |command: &str| command.split(' ').next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = READERS.iter().chain(&OTHERS).map(|c| name(c)).collect();
    assert_eq!(known, commands().into_iter().collect());
    for command in OTHERS {
        let read = READERS.iter().any(|reader| name(reader) == command);
        assert!(!read, "{command} is in both lists");
    }
}

#[test]
fn looking_changes_nothing() {
    let project = Project::new();
    nothing_changes(
        &project,
        "on an empty database",
        &[("db-status --check", 3), ("db-baseline --dry-run", 3)],
    );
    assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");

    let adopted = Project::new();
    adopted.sql("CREATE TABLE users (id bigserial PRIMARY KEY, email text)");
    nothing_changes(
        &adopted,
        "with a table that was there before",
        &[
            ("db-status --check", 3),
            ("db-doctor", 3),
            ("db-doctor --format json", 3),
            ("db-migrate --dry-run", 1),
            ("db-migrate --dry-run --format json", 1),
            ("db-migrate --dry-run --to 20251231143000", 1),
            ("db-baseline --dry-run", 3),
        ],
    );

    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    project.xtask(&["db-seed", "--users", "50"]).succeeds();
    nothing_changes(
        &project,
        "with migrations pending",
        &[("db-status --check", 3)],
    );

    project.xtask(&["db-migrate"]).succeeds();
    nothing_changes(
        &project,
        "with everything applied",
        &[("db-migrate --dry-run --to 20251231143000", 2)],
    );

    // Whether these two are the same, PostgreSQL itself has to be asked.
    project.sql("CREATE INDEX role_index ON users (lower(role))");
    project.write(
        "migrations/20260101000000_role.up.sql",
        "-- no-transaction\ncreate index concurrently if not exists role_index on users (LOWER(role));",
    );
    nothing_changes(
        &project,
        "with an index to compare",
        &[
            ("db-status --check", 3),
            ("db-migrate --dry-run --to 20251231143000", 2),
        ],
    );

    project.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'role_index'::regclass");
    nothing_changes(
        &project,
        "with an INVALID index",
        &[
            ("db-status --check", 3),
            ("db-verify", 3),
            ("db-doctor", 3),
            ("db-doctor --format json", 3),
            ("db-migrate --dry-run --to 20251231143000", 2),
        ],
    );
    until("its sessions have ended", || project.backends() == 0);
    assert_eq!(
        project.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'xtask%'"),
        "0"
    );
}
