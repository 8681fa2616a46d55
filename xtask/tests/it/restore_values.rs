//! Values that a restore must not change in meaning, and rows that it must find again.

use crate::common::Project;
use crate::proof::{back_up, edit_manifest};

fn table(project: &Project, table: &str) -> String {
    project.value(&format!(
        "SELECT string_agg(t::text, ' ' ORDER BY t.id) FROM {table} AS t"
    ))
}

#[test]
fn unique_values_that_moved_between_rows_come_back() {
    let project = Project::new();
    project.sql(
        "CREATE TABLE t (id int PRIMARY KEY, email text NOT NULL UNIQUE CHECK (email LIKE '%@%'),
                         place int NOT NULL UNIQUE, code varchar(6) NOT NULL, token uuid NOT NULL UNIQUE,
                         at timestamptz NOT NULL UNIQUE, nick text UNIQUE);
         CREATE UNIQUE INDEX by_code ON t (upper(code)) WHERE place > 0;
         INSERT INTO t SELECT n, 'user' || n || '@x', n, 'c' || n, md5(n::text)::uuid,
                              '2026-01-01'::timestamptz + n * interval '1 h', 'nick' || n
                       FROM generate_series(1, 9) AS n",
    );
    let file = back_up(&project, "t");
    let before = table(&project, "t");
    // Two are swapped in every column, a chain is passed on, and a value of a lost row was taken.
    project.sql(
        "CREATE TABLE was AS TABLE t; DELETE FROM t;
         INSERT INTO t SELECT w.id, o.email, o.place, o.code, o.token, o.at, o.nick
         FROM was AS w JOIN was AS o ON o.id = CASE w.id WHEN 1 THEN 2 WHEN 2 THEN 1 WHEN 3 THEN 4 WHEN 4 THEN 5 WHEN 5 THEN 6 ELSE w.id END
         WHERE w.id <> 6",
    );
    project
        .xtask(&["db-restore", &file, "--dry-run"])
        .succeeds();
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(table(&project, "t"), before);

    // What cannot be set aside is named, by the dry run as by the real one.
    project.sql(
        "CREATE TABLE b (id int PRIMARY KEY, flag boolean NOT NULL UNIQUE); INSERT INTO b VALUES (1, true), (2, false)",
    );
    let file = back_up(&project, "b");
    project.sql("DELETE FROM b; INSERT INTO b VALUES (1, false), (2, true)");
    for last in ["--dry-run", "--yes"] {
        project
            .xtask(&["db-restore", &file, last])
            .exits(3)
            .says("b_flag_key: the value of row (1) is to go to another row")
            .says("nothing was restored");
    }
    assert_eq!(table(&project, "b"), "(1,f) (2,t)");
}

#[test]
fn a_composite_value_with_a_null_field_is_not_replaced_unasked() {
    let project = Project::new();
    project.sql(
        "CREATE TYPE pair AS (a int, b int);
         CREATE TABLE t (id int PRIMARY KEY, p pair); INSERT INTO t VALUES (1, ROW(1, NULL)), (2, NULL)",
    );
    let file = back_up(&project, "t");
    project.sql("UPDATE t SET p = ROW(2, NULL)");
    project
        .xtask(&["db-restore", &file])
        .exits(2)
        .says("2 rows lose a value by it");
    assert_eq!(table(&project, "t"), "(1,\"(2,)\") (2,\"(2,)\")");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(table(&project, "t"), "(1,\"(1,)\") (2,)");
}

#[test]
fn a_value_is_never_read_as_another_type_unasked() {
    let project = Project::new();
    project.sql(
        "CREATE TABLE t (id int PRIMARY KEY, price int, at timestamp, name varchar(10));
         INSERT INTO t VALUES (1, 1999, '2026-01-01 12:00', 'one'), (2, 500, '2026-01-01 13:00', 'two')",
    );
    let file = back_up(&project, "t");
    project.sql(
        "ALTER TABLE t ALTER price TYPE numeric(10,2) USING price / 100.0,
                       ALTER at TYPE timestamptz USING at AT TIME ZONE 'UTC',
                       ALTER name TYPE text, ALTER id TYPE bigint;
         DELETE FROM t WHERE id = 2; SET timezone = 'UTC'",
    );
    for last in ["--dry-run", "--yes"] {
        project
            .xtask(&["db-restore", &file, last])
            .exits(3)
            .says("column `price`: it was integer, and is numeric(10,2)")
            .says(
                "column `at`: it was timestamp without time zone, and is timestamp with time zone",
            )
            .says("--convert 'price=price");
    }
    assert_eq!(project.value("SELECT count(*) FROM t"), "1");
    // A column whose type is as it was can be taken back all the same.
    project.sql("UPDATE t SET name = 'x'");
    project
        .xtask(&["db-restore", &file, "--column", "name", "--yes"])
        .succeeds();
    let convert = [
        "db-restore",
        &file,
        "--yes",
        "--convert",
        "price=price / 100.0",
        "--convert",
        "at=at AT TIME ZONE 'UTC'",
    ];
    project.xtask(&convert).succeeds();
    assert_eq!(
        project.value("SELECT string_agg(id || name || price || extract(epoch FROM at), ' ' ORDER BY id) FROM t"),
        "1one19.991767268800.000000 2two5.001767272400.000000"
    );
    for (wrong, status) in [
        ("price", 2),
        ("nosuch=1", 2),
        ("price=nosuch", 1),
        ("price=1); DROP TABLE t; --", 1),
    ] {
        project
            .xtask(&[
                "db-restore",
                &file,
                "--convert",
                "at=now()",
                "--convert",
                wrong,
            ])
            .exits(status);
    }
    assert_eq!(project.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn rows_are_told_apart_as_they_were_at_the_backup() {
    let project = Project::new();
    project.sql(
        "CREATE TABLE t (id int PRIMARY KEY, tenant int NOT NULL, name text);
         INSERT INTO t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
    );
    let file = back_up(&project, "t");
    project.sql(
        "DELETE FROM t WHERE id = 2; ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (tenant)",
    );
    let before = table(&project, "t");
    for last in ["--dry-run", "--yes"] {
        project
            .xtask(&["db-restore", &file, last])
            .exits(3)
            .says("it was (id), and is (tenant)");
    }
    // A manifest of an earlier version does not know.
    edit_manifest(&project, &file, |manifest| {
        manifest
            .as_object_mut()
            .expect("an object")
            .remove("primary_key");
    });
    for last in ["--dry-run", "--yes"] {
        project
            .xtask(&["db-restore", &file, last])
            .exits(3)
            .says("row (1): 2 times in the backup")
            .says("nothing was restored");
    }
    assert_eq!(table(&project, "t"), before);
    project.sql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM t"), "3");
}

#[test]
fn an_identity_that_an_update_may_not_set_is_named() {
    let project = Project::new();
    project.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, name text);
         INSERT INTO t (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    );
    let file = back_up(&project, "t");
    project.sql("DELETE FROM t WHERE id = 2; UPDATE t SET n = DEFAULT WHERE id = 3");
    for last in ["--dry-run", "--yes"] {
        let run = project
            .xtask(&["db-restore", &file, last, "--format", "json"])
            .succeeds()
            .says("column `n` of 1 row that exist");
        assert_eq!(run.json()["skipped_columns"], serde_json::json!(["n"]));
    }
    assert_eq!(table(&project, "t"), "(1,1,a) (2,2,b) (3,4,c)");
}

#[test]
fn what_stands_in_the_way_of_a_restore_has_a_way_on() {
    let project = Project::new();
    project.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, -1), (2, 2)");
    let file = back_up(&project, "t");
    project
        .sql("DELETE FROM t WHERE id = 1; CREATE RULE quiet AS ON INSERT TO t DO INSTEAD NOTHING");
    let run = project
        .xtask(&["db-restore", &file])
        .exits(1)
        .says("rules on INSERT or UPDATE: quiet");
    let off = "ALTER TABLE public.t DISABLE RULE quiet";
    assert!(run.stderr.contains(off), "{}", run.stderr);
    project.sql(off);
    project.sql("ALTER TABLE t ADD CONSTRAINT positive CHECK (n > 0) NOT VALID");
    let run = project
        .xtask(&["db-restore", &file])
        .exits(1)
        .says("positive")
        .says("drop the constraint");
    assert!(!run.stderr.contains("fix the rows"), "{}", run.stderr);
    project.sql("ALTER TABLE t DROP CONSTRAINT positive");
    project.xtask(&["db-restore", &file]).succeeds();
    assert_eq!(table(&project, "t"), "(1,-1) (2,2)");
}

#[test]
fn a_domains_check_does_not_run_where_rows_are_only_compared() {
    let project = Project::new();
    project.sql(
        "CREATE TABLE ran (by text);
         CREATE FUNCTION spring(v text) RETURNS boolean LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN v <> ''; END $$;
         CREATE DOMAIN word AS varchar(20) CHECK (spring(VALUE));
         CREATE DOMAIN name AS word;
         CREATE TABLE t (id int PRIMARY KEY, a word, b public.name UNIQUE);
         INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', 'y'), (3, NULL, NULL)",
    );
    let file = back_up(&project, "t");
    let before = table(&project, "t");
    project
        .sql("DELETE FROM t WHERE id = 1; UPDATE t SET a = 'other' WHERE id = 2; DELETE FROM ran");
    project
        .xtask(&["db-restore", &file, "--dry-run"])
        .succeeds();
    project.xtask(&["db-restore", &file]).exits(2);
    assert_eq!(project.value("SELECT count(*) FROM ran"), "0");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(table(&project, "t"), before);
    let run = project
        .xtask(&["db-restore", &file, "--format", "json"])
        .succeeds();
    assert_eq!(run.json()["unchanged"], 3);
}
