//! Commands that only look, and every `--dry-run`, leave the database as it was: schema, rows and
//! history, compared by a dump of everything before and after.

use crate::common::{BASELINE, COLUMN, Project};

#[track_caller]
fn nothing_changes(project: &Project, state: &str) {
    for arguments in [
        &["db-status"][..],
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
    ] {
        let before = project.dump();
        let run = project.xtask(arguments);
        assert!(
            [0, 1, 2, 3].contains(&run.status),
            "{arguments:?}: {}",
            run.stderr
        );
        assert_eq!(before, project.dump(), "{arguments:?} {state}");
    }
}

#[test]
fn looking_changes_nothing() {
    let project = Project::new();
    nothing_changes(&project, "on an empty database");
    assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");

    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    project.xtask(&["db-seed", "--users", "50"]).succeeds();
    nothing_changes(&project, "with migrations pending");

    project.xtask(&["db-migrate"]).succeeds();
    nothing_changes(&project, "with everything applied");

    // Whether these two are the same, PostgreSQL itself has to be asked.
    project.sql("CREATE INDEX role_index ON users (lower(role))");
    project.write(
        "migrations/20260101000000_role.up.sql",
        "-- no-transaction\ncreate index concurrently if not exists role_index on users (LOWER(role));",
    );
    nothing_changes(&project, "with an index to compare");

    project.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'role_index'::regclass");
    nothing_changes(&project, "with an INVALID index");
    assert_eq!(
        project.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'xtask%'"),
        "0"
    );
}
