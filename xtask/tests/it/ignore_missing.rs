//! One history for several folders: what has no file here is another folder's, if one says so.

use crate::common::Project;

/// A main folder, and a deferred one whose migrations are in the same history.
fn two_folders() -> Project {
    let project = Project::empty();
    for (folder, version, table) in [
        ("migrations", 1, "one"),
        ("deferred", 2, "two"),
        ("migrations", 3, "three"),
    ] {
        let path = format!("{folder}/{version}_{table}");
        project.write(
            &format!("{path}.up.sql"),
            format!("CREATE TABLE {table} (a int);\n"),
        );
        project.write(
            &format!("{path}.down.sql"),
            format!("DROP TABLE {table};\n"),
        );
    }
    project
}

#[test]
fn two_folders_share_one_history() {
    let project = two_folders();
    let deferred = ["--migrations", "deferred", "--ignore-missing"];
    let with = |command: &[&'static str], rest: &[&'static str]| [command, rest].concat();
    project
        .xtask(&["db-migrate", "--ignore-missing", "--to", "1"])
        .succeeds();
    project
        .xtask(&with(&["db-migrate"], &deferred))
        .succeeds()
        .says("Ignored 1 migration in the history without a file in `deferred`: 1 to 1")
        .says("Applied 2 two");
    // Without the flag it is a finding, whose hint names it.
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says("`2` (two) was applied on")
        .says("--ignore-missing");
    project
        .xtask(&["db-migrate", "--ignore-missing"])
        .succeeds()
        .says("Applied 3 three");
    for command in [
        &["db-status", "--check"][..],
        &["db-verify"],
        &["db-doctor"],
    ] {
        project.xtask(command).exits(3);
        project
            .xtask(&with(command, &["--ignore-missing"]))
            .succeeds();
        project.xtask(&with(command, &deferred)).succeeds();
    }
    let status = project
        .xtask(&["db-status", "--ignore-missing", "--format", "json"])
        .succeeds()
        .json();
    assert_eq!(
        (&status["applied"], &status["missing"]),
        (&2.into(), &0.into())
    );
    // Each folder's way back is its own.
    project
        .xtask(&with(&["db-rollback", "--yes"], &deferred))
        .succeeds()
        .says("Reverted 2 two");
    project
        .xtask(&["db-redo", "--yes", "--ignore-missing"])
        .succeeds()
        .says("3 three");
    project
        .xtask(&["db-rollback", "--yes", "--ignore-missing", "--all"])
        .succeeds();
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "0");
}

#[test]
fn what_is_recorded_as_failed_stops_every_folder() {
    let project = two_folders();
    project
        .xtask(&["db-migrate", "--migrations", "deferred"])
        .succeeds();
    project.sql("UPDATE _sqlx_migrations SET success = false");
    project
        .xtask(&["db-migrate", "--ignore-missing"])
        .exits(3)
        .says("`2` (two) is recorded as failed");
}

#[test]
fn a_backup_is_taken_also_where_the_files_and_the_history_disagree() {
    let project = two_folders();
    project.sql("CREATE TABLE one ()");
    project.write(
        "migrations/1_one.up.sql",
        "-- xtask: backup one\nALTER TABLE one ADD a int;\n",
    );
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();
    project.write(
        "migrations/1_one.up.sql",
        "-- xtask: backup one\nALTER TABLE one ADD a bigint;\n",
    );
    project.xtask(&["db-migrate"]).exits(3);
    project
        .xtask(&["db-backup"])
        .succeeds()
        .shows("one_backup_");
}

#[test]
fn what_another_folder_has_is_told_as_that() {
    let project = two_folders();
    project
        .xtask(&["db-migrate", "--migrations", "deferred"])
        .succeeds();
    for command in [
        &["db-rollback", "--only", "2"][..],
        &["db-rollback", "--to", "2"],
        &["db-migrate", "--to", "2"],
    ] {
        project
            .xtask(&[command, &["--ignore-missing"]].concat())
            .exits(2)
            .says("there is no migration `2`, neither in `migrations` nor, with a file there, in the history");
    }
    project.sql("CREATE TABLE one (b int)");
    let run = project.xtask(&["db-migrate", "--ignore-missing"]).exits(1);
    assert!(
        !run.stderr.contains("no migration history"),
        "{}",
        run.stderr
    );
}

#[test]
fn what_another_folders_migration_may_have_changed_is_not_judged() {
    let project = two_folders();
    project.write(
        "migrations/1_one.up.sql",
        "CREATE TABLE one (a int, b int);\nCREATE INDEX i ON one (a);\n",
    );
    project.write(
        "deferred/2_two.up.sql",
        "DROP INDEX i;\nCREATE INDEX i ON one (b);\n",
    );
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();
    project
        .xtask(&["db-migrate", "--migrations", "deferred", "--ignore-missing"])
        .succeeds();
    for command in ["db-verify", "db-doctor"] {
        project.xtask(&[command, "--ignore-missing"]).succeeds();
    }
}
