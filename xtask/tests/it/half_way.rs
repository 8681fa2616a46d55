//! When a run fails half way, the error says what was applied, what was rolled back, what is left and
//! what to run; after the file is mended, the same command goes on with nothing done by hand.

use crate::common::{Project, children_of, signal, until};

const FIRST: &str = "20260101000001_first";
const SECOND: &str = "20260101000002_second";
const THIRD: &str = "20260101000003_third";

/// Three migrations, of which the second is this.
fn three(second: &str, second_down: &str) -> Project {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    for (stem, table) in [(FIRST, "one"), (THIRD, "three")] {
        project.write(
            &format!("migrations/{stem}.up.sql"),
            format!("CREATE TABLE {table} (id int);"),
        );
        project.write(
            &format!("migrations/{stem}.down.sql"),
            format!("DROP TABLE {table};"),
        );
    }
    project.write(&format!("migrations/{SECOND}.up.sql"), second);
    project.write(&format!("migrations/{SECOND}.down.sql"), second_down);
    project
}

fn applied(project: &Project) -> String {
    project.value("SELECT string_agg(version::text, ' ' ORDER BY version) FROM _sqlx_migrations WHERE version > 20260101000000")
}

#[test]
fn a_failed_transaction_leaves_what_was_before_it_and_nothing_of_itself() {
    let project = three(
        "CREATE TABLE two (id int);\nSELECT 1 / 0;",
        "DROP TABLE two;",
    );
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("22012")
        .says(&format!("applied by this run: `{FIRST}`"))
        .says(&format!(
            "`{SECOND}` was rolled back: it has changed nothing"
        ))
        .says(&format!("not started: `{THIRD}`"))
        .says("then: cargo xtask db-migrate");
    assert_eq!(applied(&project), "20260101000001");
    assert_eq!(project.value("SELECT to_regclass('two')"), "");
    project.write(
        &format!("migrations/{SECOND}.up.sql"),
        "CREATE TABLE two (id int);",
    );
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
}

/// Kills psql where it waits for this statement, and returns what the run says of it.
fn psql_is_killed_at(project: &Project, statement: &str) -> String {
    let run = project.start(&["db-migrate"]);
    until("psql is at it", || {
        project.value(&format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'xtask %(psql)'
               AND wait_event = 'PgSleep' AND query LIKE '%{statement}%'"
        )) == "1"
    });
    for psql in children_of(run.id()) {
        signal("KILL", psql);
    }
    run.ends().exits(1).stderr
}

#[test]
fn where_psql_is_lost_in_a_statement_the_migration_was_not_committed() {
    let project = three("CREATE TABLE two (id int);\nSELECT pg_sleep(1);", "");
    let said = psql_is_killed_at(&project, "pg_sleep(1)");
    let state = format!("`{SECOND}` was not committed: it has changed nothing");
    assert!(said.contains(&state), "{said}");
    assert_eq!(applied(&project), "20260101000001");
    project.xtask(&["db-migrate"]).succeeds();
    assert!(applied(&project).contains("20260101000002"));
}

#[test]
fn where_psql_is_lost_in_a_commit_the_history_says_whether_it_was_one() {
    let project = three(
        "CREATE TABLE two (id int);
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON _sqlx_migrations DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.version = 20260101000002) EXECUTE FUNCTION slow();",
        "",
    );
    let said = psql_is_killed_at(&project, "COMMIT");
    let state = format!("`{SECOND}` was committed, as the history says");
    assert!(said.contains(&state), "{said}");
    assert!(said.contains(&format!("not started: `{THIRD}`")), "{said}");
    assert!(applied(&project).contains("20260101000002"));
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn a_failed_rollback_says_the_same_of_itself() {
    let project = three(
        "CREATE TABLE two (id int);",
        "DROP TABLE two;\nDROP TABLE nowhere;",
    );
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-rollback", "--yes"])
        .exits(1)
        .says("42P01")
        .says(&format!("undone by this run: `{THIRD}`"))
        .says(&format!(
            "`{SECOND}` was rolled back: it has changed nothing"
        ))
        .says(&format!("not started: `{FIRST}`"))
        .says("cargo xtask db-rollback");
    assert_eq!(applied(&project), "20260101000001 20260101000002");
    assert_eq!(project.value("SELECT to_regclass('two')"), "two");
    project.write(&format!("migrations/{SECOND}.down.sql"), "DROP TABLE two;");
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    assert_eq!(applied(&project), "");
    project.xtask(&["db-verify"]).succeeds();
}

#[test]
fn outside_a_transaction_the_statements_before_the_failed_one_are_named_as_done() {
    let second = "-- no-transaction\nCREATE TABLE IF NOT EXISTS two (id int);\nCREATE INDEX CONCURRENTLY IF NOT EXISTS two_id ON two (id);\nSELECT 1 / 0;\n";
    let project = three(second, "DROP TABLE two;");
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says(&format!("`{SECOND}`: the first 2 of 3 statements took effect, the rest did not; it is not recorded"))
        .says(&format!("applied by this run: `{FIRST}`"))
        .says(&format!("not started: `{THIRD}`"));
    assert_eq!(applied(&project), "20260101000001");
    project.write(
        &format!("migrations/{SECOND}.up.sql"),
        second.replace("SELECT 1 / 0;\n", ""),
    );
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("relation \"two_id\" already exists, skipping");
    project.xtask(&["db-status", "--check"]).succeeds();
}

/// A unique index over values that are there twice: its build fails and leaves an INVALID index.
#[test]
fn a_build_that_fails_says_what_it_leaves_and_is_repaired_by_the_next_run() {
    let build = "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_role ON users (role);\n";
    let project = three(
        build,
        "-- no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS one_role;\n",
    );
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("23505")
        .says("index `public.one_role` is INVALID: its build has not ended");
    project.write(
        &format!("migrations/{SECOND}.up.sql"),
        build.replace("UNIQUE ", ""),
    );
    project.xtask(&["db-migrate"]).succeeds().says("Repair");
    project.xtask(&["db-status", "--check"]).succeeds();
    project
        .xtask(&["db-rollback", "--steps", "3", "--yes"])
        .succeeds();
    assert_eq!(applied(&project), "");
}

/// The table that says what has run is a table like others to a migration.
#[test]
fn a_migration_that_moves_the_history_is_rolled_back_or_stopped_and_told() {
    for change in [
        "ALTER TABLE _sqlx_migrations SET SCHEMA other;\n",
        "ALTER TABLE _sqlx_migrations RENAME TO history;\n",
        "DROP TABLE _sqlx_migrations;\n",
    ] {
        for head in ["", "-- no-transaction\n"] {
            let project = Project::empty();
            project.sql("CREATE SCHEMA other");
            project.write("migrations/1_first.up.sql", "CREATE TABLE one (id int);\n");
            project.xtask(&["db-migrate"]).succeeds();
            project.write(
                "migrations/2_move.up.sql",
                format!("{head}CREATE TABLE IF NOT EXISTS two (id int);\n{change}"),
            );
            project.write(
                "migrations/3_third.up.sql",
                "CREATE TABLE three (id int);\n",
            );
            // In a transaction it is for the server to say.
            let doctor = project.xtask(&["db-doctor"]);
            match head {
                "" => doctor.succeeds(),
                _ => doctor.exits(3).says("error: not ready: history table"),
            };
            let before = project.dump();
            let refused = project.xtask(&["db-migrate", "--to", "2"]);
            let status = if head.is_empty() { 1 } else { 2 };
            refused
                .exits(status)
                .says("moves, renames or drops `_sqlx_migrations`")
                .says("remove that from migrations/2_move.up.sql, then: cargo xtask db-migrate")
                .says("changed");
            assert_eq!(project.dump(), before, "{head}{change}");
        }
    }
}
