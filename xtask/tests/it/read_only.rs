//! Commands that only look, and every `--dry-run`, leave the database as it was: schema, rows and
//! history, compared by a dump of everything before and after.

use crate::common::{BASELINE, COLUMN, Project, until};

const LOOKS: [&[&str]; 14] = [
    &["db-status"],
    &["db-status", "--check"],
    &["db-status", "--format", "json"],
    &["db-verify"],
    &["db-doctor"],
    &["db-doctor", "--format", "json"],
    &["db-backups"],
    &["db-migrate", "--dry-run"],
    &["db-migrate", "--dry-run", "--format", "json"],
    &["db-migrate", "--dry-run", "--to", COLUMN],
    &["db-rollback", "--dry-run"],
    &["db-rollback", "--dry-run", "--all"],
    &["db-rollback", "--dry-run", "--to", "0"],
    &["db-baseline", "--dry-run"],
];

/// Runs each, which ends with this exit code of it.
#[track_caller]
fn nothing_changes(project: &Project, state: &str, codes: [i32; 14]) {
    let backups = || std::fs::read_dir(project.path("backups")).map_or(0, Iterator::count);
    let (before, backed_up) = (project.dump(), backups());
    for (arguments, code) in LOOKS.into_iter().zip(codes) {
        let run = project.xtask(arguments);
        assert_eq!(before, project.dump(), "{arguments:?} {state}");
        let run = run.exits(code);
        let failed = run.stderr.contains("error: ");
        assert_eq!(failed, code != 0, "{arguments:?}: {}", run.stderr);
    }
    assert_eq!(backups(), backed_up, "a dry run takes no backup");
}

#[test]
fn looking_changes_nothing() {
    let project = Project::new();
    nothing_changes(
        &project,
        "on an empty database",
        [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
    );
    assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");

    let adopted = Project::new();
    adopted.sql("CREATE TABLE users (id bigserial PRIMARY KEY, email text)");
    nothing_changes(
        &adopted,
        "with a table that was there before",
        [0, 3, 0, 0, 3, 3, 0, 1, 1, 1, 0, 0, 0, 3],
    );

    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    project.xtask(&["db-seed", "--users", "50"]).succeeds();
    nothing_changes(
        &project,
        "with migrations pending",
        [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );

    project.xtask(&["db-migrate"]).succeeds();
    nothing_changes(
        &project,
        "with everything applied",
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0],
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
        [0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0],
    );

    project.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'role_index'::regclass");
    nothing_changes(
        &project,
        "with an INVALID index",
        [0, 3, 0, 3, 3, 3, 0, 0, 0, 2, 0, 0, 0, 0],
    );
    until("its sessions have ended", || project.backends() == 0);
    assert_eq!(
        project.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'xtask%'"),
        "0"
    );
}
