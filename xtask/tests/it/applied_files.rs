//! Applied files are history: whatever rule of ours they break, sqlx has run them once, and only their
//! names and checksums count.

use crate::common::Project;

/// Files that no pending migration may be like, with what they were when sqlx applied them.
const OLD: [(&str, &str); 6] = [
    ("0_first.sql", "CREATE TABLE first (a int);"),
    (
        "1_own_transaction.up.sql",
        "BEGIN; CREATE TABLE one (a int); COMMIT;",
    ),
    (
        "2_words.up.sql",
        "-- no-transaction, since it is large\nCREATE INDEX CONCURRENTLY two ON first (a);",
    ),
    (
        "3_second_line.up.sql",
        "-- as asked\n-- no-transaction\nSELECT 3;",
    ),
    ("4_bom.up.sql", "\u{feff}SELECT 4;"),
    ("5_unfinished.up.sql", "SELECT 'five;"),
];

/// A team's database and its folder: everything was applied by sqlx.
fn team() -> Project {
    let project = Project::empty();
    project.write("migrations/6_plain.up.sql", "CREATE TABLE six (a int);\n");
    project.write("migrations/6_plain.down.sql", "DROP TABLE six;\n");
    project.xtask(&["db-migrate"]).succeeds();
    for (name, text) in OLD {
        project.write(&format!("migrations/{name}"), text);
        let (version, rest) = name.split_once('_').expect("a version");
        let description = rest.split('.').next().expect("a name").replace('_', " ");
        project
            .client()
            .execute(
                "INSERT INTO _sqlx_migrations VALUES
                 ($1, $2, now() - interval '1 year', true, sha384(convert_to($3, 'UTF8')), 1000)",
                &[
                    &version.parse::<i64>().expect("a number"),
                    &description,
                    &text,
                ],
            )
            .expect("inserts");
    }
    // Nor do down files matter before they are to run.
    project.write(
        "migrations/1_own_transaction.down.sql",
        "BEGIN; DROP TABLE one; COMMIT;",
    );
    project.write("migrations/5_another_name.down.sql", "'");
    project
}

#[test]
fn a_team_with_applied_files_that_break_every_rule_can_come_in() {
    let project = team();
    for command in [
        &["db-status", "--check"][..],
        &["db-verify"],
        &["db-doctor"],
        &["db-migrate"],
        &["db-migrate", "--dry-run"],
        &["db-rollback", "--dry-run"],
    ] {
        project.xtask(command).succeeds();
    }
    project.write(
        "migrations/7_new.up.sql",
        "ALTER TABLE six ADD COLUMN b int;\n",
    );
    project.write(
        "migrations/7_new.down.sql",
        "ALTER TABLE six DROP COLUMN b;\n",
    );
    project.xtask(&["db-migrate"]).succeeds().says("7 new");
    project
        .xtask(&["db-rollback", "--yes"])
        .succeeds()
        .says("7 new");
    project
        .xtask(&["db-redo", "--yes"])
        .succeeds()
        .says("6 plain");
    // An edit of one is still seen.
    project.write("migrations/5_unfinished.up.sql", "SELECT 5;");
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says("5_unfinished.up.sql` was edited after it was applied");
}

#[test]
fn what_could_not_be_applied_again_is_not_undone_by_a_redo() {
    let project = team();
    project.write("migrations/7_new.up.sql", "CREATE TABLE seven (a int);\n");
    project.write("migrations/7_new.down.sql", "DROP TABLE seven;\n");
    project.xtask(&["db-migrate"]).succeeds();
    // As sqlx would have applied it.
    let text = "BEGIN; CREATE TABLE seven (a int); COMMIT;";
    project.write("migrations/7_new.up.sql", text);
    project.sql(&format!(
        "UPDATE _sqlx_migrations SET checksum = sha384(convert_to('{text}', 'UTF8')) WHERE version = 7"
    ));
    project
        .xtask(&["db-redo", "--yes"])
        .exits(2)
        .says("migrations/7_new.up.sql:1:1: `BEGIN` in a file that runs inside one transaction");
    assert_eq!(project.value("SELECT to_regclass('seven')"), "seven");
    project.xtask(&["db-rollback", "--yes"]).succeeds();
}

#[test]
fn a_bad_down_file_keeps_nothing_from_being_applied_and_is_not_run() {
    let project = team();
    project.write("migrations/7_new.up.sql", "CREATE TABLE seven (a int);\n");
    project.write("migrations/7_new.down.sql", "BEGIN;\nDROP TABLE seven;\n");
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-rollback", "--yes"])
        .exits(2)
        .says("migrations/7_new.down.sql:1:1: `BEGIN` in a file that runs inside one transaction");
    assert_eq!(project.value("SELECT to_regclass('seven')"), "seven");
    assert_eq!(
        project.value("SELECT count(*) FROM _sqlx_migrations WHERE version = 7"),
        "1"
    );
    // What is asked to be undone is looked at whole before the first of it is undone.
    project.write("migrations/8_last.up.sql", "CREATE TABLE eight (a int);\n");
    project.write("migrations/8_last.down.sql", "DROP TABLE eight;\n");
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-rollback", "--yes", "--steps", "2"])
        .exits(2);
    assert_eq!(project.value("SELECT to_regclass('eight')"), "eight");
    project.xtask(&["db-rollback", "--yes"]).succeeds();
}

#[test]
fn a_baseline_is_known_by_its_head_whatever_the_rest_of_the_file_is() {
    let project = Project::empty();
    project.sql("CREATE TABLE users (id int)");
    project.write(
        "migrations/1_users.sql",
        "-- xtask: baseline\nCREATE TABLE users (id int);\n",
    );
    // It is pending, and cannot be run; its table's name is no directive.
    project.write(
        "migrations/2_later.up.sql",
        "-- no-transaction\nCREATE TABLE baseline_metrics (a text DEFAULT 'x);\n",
    );
    project
        .xtask(&["db-baseline"])
        .succeeds()
        .says("Recorded 1");
    assert_eq!(
        project.value("SELECT string_agg(version::text, ',') FROM _sqlx_migrations"),
        "1"
    );
    // What is named is recorded only if it can be read.
    for text in [
        "-- no-transaction\n-- xtask: baseline\nCREATE INDEX CONCURRENTLY i ON users (id); SELECT 'x;\n",
        "-- xtask: baseline\nCREATE TABLE more (a text DEFAULT 'x);\n",
    ] {
        project.write("migrations/2_later.up.sql", text);
        for command in [&["db-baseline"][..], &["db-baseline", "2"]] {
            project
                .xtask(command)
                .exits(2)
                .says("the string opened here is never closed");
        }
    }
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "1");
}

#[test]
fn a_word_in_an_applied_file_that_cannot_be_read_keeps_nothing_from_being_undone() {
    let project = team();
    project.write("migrations/7_new.up.sql", "CREATE TABLE seven (a int);\n");
    project.write("migrations/7_new.down.sql", "DROP TABLE seven;\n");
    project.xtask(&["db-migrate"]).succeeds();
    let text = "CREATE TABLE seven (a int); SELECT 'baseline;";
    project.write("migrations/7_new.up.sql", text);
    project.sql(&format!(
        "UPDATE _sqlx_migrations SET checksum = sha384(convert_to($${text}$$, 'UTF8')) WHERE version = 7"
    ));
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    assert_eq!(project.value("SELECT to_regclass('seven')"), "");
}

#[test]
fn a_redo_looks_at_everything_that_it_would_apply() {
    let project = team();
    project.write("migrations/9_new.up.sql", "CREATE TABLE nine (a int);\n");
    project.write("migrations/9_new.down.sql", "DROP TABLE nine;\n");
    project.xtask(&["db-migrate"]).succeeds();
    // Older than what is redone, and therefore applied with it.
    project.write(
        "migrations/8_bad.up.sql",
        "CREATE TABLE eight (a text DEFAULT 'x);\n",
    );
    project
        .xtask(&["db-redo", "--yes"])
        .exits(2)
        .says("8_bad.up.sql:1:36: the string opened here is never closed");
    assert_eq!(project.value("SELECT to_regclass('nine')"), "nine");
    assert_eq!(
        project.value("SELECT count(*) FROM _sqlx_migrations WHERE version = 9"),
        "1"
    );
}

#[test]
fn a_backup_takes_the_tables_of_applied_files_that_cannot_be_run() {
    let project = team();
    project.sql("INSERT INTO six VALUES (1)");
    project.write(
        "migrations/5_unfinished.up.sql",
        "-- xtask: backup six\nSELECT 'five;",
    );
    project
        .xtask(&["db-backup"])
        .succeeds()
        .shows("backups/six_backup_");
}

#[test]
fn an_applied_migrations_checks_that_cannot_be_made_are_a_finding_and_in_nobodys_way() {
    let project = team();
    project.write("migrations/7_new.up.sql", "CREATE TABLE seven (a int);\n");
    project.write("migrations/7_new.down.sql", "DROP TABLE seven;\n");
    project.write(
        "migrations/verify/7_new.sql",
        "SELECT 'seven is there' AS check, to_regclass('seven') IS NOT NULL AS ok;\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    for (text, finding) in [
        (
            "SELECT 'six;",
            "its checks can be read: migrations/verify/6_plain.sql:1:8",
        ),
        (
            "SELECT 'six' AS check, b > 1 AS ok FROM six;",
            "the check at migrations/verify/6_plain.sql:1:1 can be run: column \"b\" does not exist",
        ),
    ] {
        project.write("migrations/verify/6_plain.sql", text);
        let run = project.xtask(&["db-verify"]).exits(3).says(finding);
        assert!(run.stdout.contains("seven is there"), "{}", run.stdout);
        project.xtask(&["db-migrate"]).succeeds();
        let undone = project.xtask(&["db-rollback", "--yes"]);
        assert_eq!(
            project.value("SELECT to_regclass('seven')"),
            "",
            "{}",
            undone.stderr
        );
        project.xtask(&["db-migrate"]);
    }
}

#[test]
fn a_verify_file_without_its_migration_is_named_and_not_in_the_way() {
    let project = team();
    project.write(
        "migrations/verify/7_gone.sql",
        "SELECT 'x' AS check, true AS ok;\n",
    );
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("warning: migrations/verify/7_gone.sql: is ignored: it belongs to no migration");
}

#[test]
fn a_misnamed_verify_file_does_not_let_its_migration_run_unchecked() {
    let project = team();
    project.write(
        "migrations/7_add_it.up.sql",
        "CREATE TABLE seven (a int);\n",
    );
    project.write(
        "migrations/verify/7_addit.sql",
        "SELECT 'it is there' AS check, false AS ok;\n",
    );
    project
        .xtask(&["db-migrate"])
        .exits(2)
        .says("migrations/verify/7_addit.sql: has the version 7, as has `7_add_it`")
        .says("rename it to `verify/7_add_it.sql`");
    assert_eq!(project.value("SELECT to_regclass('seven')"), "");
    // Once it is applied, its checks are made under whatever name.
    project.write(
        "migrations/verify/6_other.sql",
        "SELECT 'six' AS check, false AS ok;\n",
    );
    std::fs::remove_file(project.path("migrations/7_add_it.up.sql")).expect("removes");
    project.xtask(&["db-verify"]).exits(3).shows("six");
}

#[test]
fn what_has_the_version_zero_can_be_undone() {
    let project = team();
    project.sql("CREATE TABLE first (a int)");
    project.write("migrations/0_first.up.sql", OLD[0].1);
    std::fs::remove_file(project.path("migrations/0_first.sql")).expect("removes");
    project.write("migrations/0_first.down.sql", "DROP TABLE first;\n");
    project
        .xtask(&["db-rollback", "--yes", "--only", "0"])
        .succeeds();
    assert_eq!(project.value("SELECT to_regclass('first')"), "");
    // And is not applied again.
    project
        .xtask(&["db-migrate", "--allow-out-of-order"])
        .exits(2)
        .says("0_first.up.sql: the version `0` is not greater than zero");
}

#[test]
fn what_is_ignored_is_named_once() {
    let project = team();
    project.write("migrations/7.sql", "SELECT 1;\n");
    for command in ["db-status", "db-doctor"] {
        let run = project.xtask(&[command]).succeeds();
        assert_eq!(
            run.stderr.matches("7.sql: is ignored").count(),
            1,
            "{}",
            run.stderr
        );
    }
}
