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
