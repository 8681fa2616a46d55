//! What only newer servers know must not weaken a promise. On an older server these tests have nothing
//! to do; CONTRIBUTING.md says how to run them on another one.

use std::time::Duration;

use crate::common::{Project, Run, blocker, since, url_as};
use crate::proof::{back_up, fake_pg_dump};

/// PostgreSQL 17: a limit on whole transactions, which a backup's snapshot and a restore are.
#[test]
fn a_roles_limit_on_transactions_ends_nothing_of_ours() {
    if !since(17) {
        return;
    }
    let project = Project::seeded();
    let role = format!("{}_hasty", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'hasty';
         ALTER ROLE {role} SET transaction_timeout = '500ms'"
    ));
    project.write(
        "migrations/20260101000000_slow.up.sql",
        "SELECT pg_sleep(1);\nCREATE TABLE slow ();\n",
    );
    project.write(
        "migrations/20260101000000_slow.down.sql",
        "DROP TABLE slow;\nSELECT pg_sleep(1);\n",
    );
    project.write(
        "migrations/verify/20260101000000_slow.sql",
        "SELECT 'it is slow', pg_sleep(1) IS NOT NULL;\n",
    );
    // As if the table were large.
    let slow = fake_pg_dump(&project, "sleep 1\nexec \"$REAL\" \"$@\"");
    let hasty = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        let url = url_as(&role, "hasty", &project.database);
        Run::of(command.env("DATABASE_URL", url).env("PG_BIN_DIR", &slow)).succeeds()
    };
    hasty(&["db-migrate"]);
    hasty(&["db-verify"]);
    hasty(&["db-rollback", "--yes"]);
    let file = hasty(&["db-backup", "users"]).stdout.trim().to_owned();
    project.sql("DELETE FROM users WHERE id = 7");
    let (mut writer, _) = blocker(&project, "BEGIN; LOCK users IN SHARE ROW EXCLUSIVE MODE");
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        writer.batch_execute("COMMIT").expect("lets go");
    });
    hasty(&["db-restore", &file, "--yes"]);
    release.join().expect("lets go");
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
    project.sql(&format!(
        "REASSIGN OWNED BY {role} TO admin; DROP ROLE {role}"
    ));
}

/// PostgreSQL 18: a generated column that is computed when it is read, so that it is in no dump.
#[test]
fn a_table_with_a_virtual_column_is_backed_up_and_restored() {
    if !since(18) {
        return;
    }
    let project = Project::empty();
    project.write(
        "migrations/1_t.up.sql",
        "CREATE TABLE t (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL);
         INSERT INTO t (id, a) SELECT n, n FROM generate_series(1, 100) AS n;",
    );
    project.write(
        "migrations/2_virtual.up.sql",
        "ALTER TABLE t DROP COLUMN twice;",
    );
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();

    let file = back_up(&project, "t");
    project.sql("DELETE FROM t WHERE id = 7; UPDATE t SET a = 0 WHERE id = 8");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    let sum = "SELECT count(*) || ' ' || sum(twice) FROM t";
    assert_eq!(project.value(sum), "100 10100");
    project.xtask(&["db-migrate"]).succeeds();
}

/// PostgreSQL 18: NOT NULL that no existing row was checked against.
#[test]
fn a_null_under_an_unchecked_not_null_comes_back_as_it_was() {
    if !since(18) {
        return;
    }
    let project = Project::empty();
    project.write(
        "migrations/1_t.up.sql",
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text);
         INSERT INTO t VALUES (1, NULL, 'x'), (2, 'y', 'y');
         ALTER TABLE t ADD CONSTRAINT a_is_there NOT NULL a NOT VALID;",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let file = back_up(&project, "t");
    project.sql("UPDATE t SET b = 'changed' WHERE id = 2");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(
        project.value("SELECT string_agg(t::text, ' ' ORDER BY id) FROM t"),
        "(1,,x) (2,y,y)"
    );
}

/// PostgreSQL 18: a NOT NULL may be unchecked, and a generated column computed when it is read.
#[test]
fn a_baseline_tells_an_unchecked_not_null_and_a_virtual_column_from_what_the_files_make() {
    if !since(18) {
        return;
    }
    let project = Project::empty();
    project.write(
        "migrations/1_t.up.sql",
        "CREATE TABLE t (a int NOT NULL, twice int GENERATED ALWAYS AS (2) STORED);",
    );
    project.sql(
        "CREATE TABLE t (a int, twice int GENERATED ALWAYS AS (2) VIRTUAL);
         INSERT INTO t VALUES (NULL);
         ALTER TABLE t ADD CONSTRAINT t_a_not_null NOT NULL a NOT VALID",
    );
    project
        .xtask(&["db-baseline", "1", "--dry-run"])
        .exits(3)
        .says("constraint NOT NULL a NOT VALID")
        .says("column twice integer STORED 2")
        .says("column twice integer VIRTUAL 2");
}

/// PostgreSQL 18: the operator by which a key of periods is unique says that two overlap, not that they
/// are the same.
#[test]
fn rows_of_a_key_without_overlaps_are_told_apart_by_the_whole_period() {
    if !since(18) {
        return;
    }
    let project = Project::empty();
    project.sql("CREATE EXTENSION btree_gist");
    project.write(
        "migrations/1_prices.up.sql",
        "CREATE TABLE items (id int, during int4range, PRIMARY KEY (id, during WITHOUT OVERLAPS));
         CREATE TABLE prices (id int, during int4range, price int,
             PRIMARY KEY (id, during WITHOUT OVERLAPS),
             FOREIGN KEY (id, PERIOD during) REFERENCES items (id, PERIOD during));
         INSERT INTO items VALUES (1, '[1,20)'), (2, '[1,20)');
         INSERT INTO prices VALUES (1, '[1,5)', 10), (1, '[5,9)', 20), (2, '[1,9)', 30);",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let all = "SELECT string_agg(p::text, ' ' ORDER BY id, during) FROM prices AS p";
    let before = project.value(all);
    let file = back_up(&project, "prices");
    project.sql("DELETE FROM prices WHERE price = 10; UPDATE prices SET price = 0 WHERE id = 2");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(project.value(all), before);

    // A period that has been cut in two since is no row of the backup, and what it costs is newer.
    project.sql(
        "UPDATE prices SET during = '[1,4)', price = 99 WHERE id = 2;
         INSERT INTO prices VALUES (2, '[4,9)', 98)",
    );
    let newer = project.value(all);
    project
        .xtask(&["db-restore", &file, "--yes"])
        .exits(3)
        .says("values that must be unique belong to other rows now");
    assert_eq!(project.value(all), newer);
}

/// PostgreSQL 15: a NULL that only one row may have, also on its way from one row to the other.
#[test]
fn nulls_that_are_not_distinct_change_places() {
    if !since(15) {
        return;
    }
    let project = Project::empty();
    project.write(
        "migrations/1_t.up.sql",
        "CREATE TABLE t (id int PRIMARY KEY, a text UNIQUE NULLS NOT DISTINCT, b int UNIQUE NULLS NOT DISTINCT,
                         c varchar(50) UNIQUE NULLS NOT DISTINCT, d date UNIQUE NULLS NOT DISTINCT);
         INSERT INTO t VALUES (1, NULL, NULL, NULL, NULL), (2, 'x', 2, 'x', '2020-02-02'), (3, 'y', 3, 'y', '2020-03-03');",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let all = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM t";
    let before = project.value(all);
    let file = back_up(&project, "t");
    project.sql(
        "CREATE TEMPORARY TABLE was AS TABLE t; DELETE FROM t WHERE id < 3;
         INSERT INTO t SELECT 3 - id, a, b, c, d FROM was WHERE id < 3",
    );
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(project.value(all), before);
}

/// MERGE (PostgreSQL 15) and what it returns (17): the server's counters say what it has deleted.
#[test]
fn rows_that_a_merge_deletes_are_backed_up() {
    if !since(15) {
        return;
    }
    let project = Project::empty();
    project.write(
        "migrations/1_t.up.sql",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);",
    );
    project.write(
        "migrations/2_merge.up.sql",
        "MERGE INTO t USING (VALUES (1)) AS v (id) ON t.id = v.id WHEN MATCHED THEN DELETE;",
    );
    let mut versions = vec!["2"];
    if since(17) {
        project.write(
            "migrations/3_returning.up.sql",
            "WITH gone AS (MERGE INTO t USING (VALUES (2)) AS v (id) ON t.id = v.id WHEN MATCHED THEN DELETE
                           RETURNING t.id) SELECT id FROM gone;",
        );
        versions.push("3");
    }
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();
    for version in versions {
        let run = project.xtask(&["db-migrate", "--to", version, "--format", "json"]);
        let backups = run.succeeds().json()["backups"].clone();
        assert_eq!(backups[0]["table"], "public.t", "{version}");
    }
}
