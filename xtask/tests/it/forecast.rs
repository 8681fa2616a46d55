//! A forecast never refuses what the server would accept: what an earlier statement could have made true is
//! for the server to judge.

use crate::common::Project;

const UP: &str = "migrations/1_x.up.sql";

#[test]
fn what_earlier_statements_make_move_or_find_elsewhere_is_for_the_server_to_judge() {
    for (what, made, file) in [
        (
            "views and sequences as pg_dump 15 writes them",
            "CREATE ROLE forecast_owner",
            "CREATE VIEW v AS SELECT 1 AS a; ALTER TABLE public.v OWNER TO forecast_owner;
             CREATE SEQUENCE s; ALTER TABLE public.s OWNER TO forecast_owner;
             CREATE TABLE t (id serial PRIMARY KEY);
             ALTER TABLE public.t_id_seq OWNER TO CURRENT_USER; ALTER TABLE t_pkey RENAME TO t_key",
        ),
        (
            "a view, a sequence and an index that are there",
            "CREATE VIEW v AS SELECT 1 AS a; CREATE SEQUENCE s; CREATE TABLE t (a int); CREATE INDEX i ON t (a)",
            "ALTER TABLE v RENAME TO w; ALTER TABLE s RENAME TO r; ALTER TABLE i RENAME TO j",
        ),
        (
            "moved to another schema",
            "CREATE SCHEMA other; CREATE TABLE t (a int)",
            "ALTER TABLE t SET SCHEMA other; ALTER TABLE other.t ADD b int; CREATE INDEX i ON other.t (b)",
        ),
        (
            "in a schema that gets another name",
            "CREATE SCHEMA old; CREATE TABLE old.t (a int)",
            "ALTER SCHEMA old RENAME TO new; ALTER TABLE new.t ADD b int; CREATE INDEX i ON new.t (b)",
        ),
        (
            "found by a search path",
            "CREATE SCHEMA other; CREATE TABLE other.t (a int)",
            "SET LOCAL search_path = other; ALTER TABLE t ADD b int; CREATE INDEX i ON t (b)",
        ),
        (
            "new in another schema, by a search path",
            "CREATE SCHEMA other; CREATE TABLE t (a int)",
            "SET LOCAL search_path = other; CREATE TABLE t (b int); CREATE INDEX i ON t (b)",
        ),
        (
            "another index of that name, by a search path",
            "CREATE SCHEMA other; CREATE TABLE t (a int, b int); CREATE INDEX i ON t (a); CREATE TABLE other.t (b int)",
            "SET LOCAL search_path = other; CREATE INDEX IF NOT EXISTS i ON t (b)",
        ),
        (
            "another index of that name, by a function's search path",
            "CREATE SCHEMA other; CREATE TABLE t (a int, b int); CREATE INDEX i ON t (a); CREATE TABLE other.t (b int)",
            "SELECT set_config('search_path', 'other', true); CREATE INDEX IF NOT EXISTS i ON t (b)",
        ),
        (
            "made by a function",
            "CREATE FUNCTION make() RETURNS void LANGUAGE sql AS 'CREATE TABLE t (a int)'",
            "SELECT make(); ALTER TABLE t ADD b int; CREATE INDEX i ON t (b)",
        ),
        (
            "dropped in a block and made again",
            "CREATE TABLE t (a int)",
            "DO $$ BEGIN DROP TABLE t; END $$; CREATE TABLE t (b int)",
        ),
        (
            "an index of a partition, after its column was renamed",
            "CREATE TABLE t (a int, b int) PARTITION BY RANGE (a); CREATE TABLE t1 PARTITION OF t DEFAULT; CREATE INDEX i ON t1 (b)",
            "ALTER TABLE t RENAME COLUMN b TO c; CREATE INDEX IF NOT EXISTS i ON t1 (c)",
        ),
    ] {
        let project = Project::empty();
        project.sql(made);
        project.write(UP, format!("{};\n", file.replace("; ", ";\n")));
        println!("{what}");
        project
            .xtask(&["db-migrate", "--dry-run", "--no-backup"])
            .succeeds();
        project
            .xtask(&["db-migrate", "--no-backup", "--yes"])
            .succeeds();
        project.xtask(&["db-verify"]).succeeds();
        project.xtask(&["db-doctor"]).succeeds();
    }
}

#[test]
fn what_no_statement_could_have_made_true_is_refused_before_anything_runs() {
    for (made, file, says) in [
        (
            "",
            "CREATE TABLE other (a int); ALTER TABLE missing ADD b int",
            "there is no table `missing`",
        ),
        (
            "CREATE VIEW v AS SELECT 1 AS a",
            "CREATE INDEX i ON v (a)",
            "is a view, not a table",
        ),
        (
            "CREATE TABLE t (a int)",
            "CREATE TABLE t (a int)",
            "`public.t` exists already",
        ),
        (
            "CREATE TABLE t (a int)",
            "SELECT pg_catalog.set_config('search_path', '', true); CREATE TABLE public.t (a int)",
            "`public.t` exists already",
        ),
    ] {
        let project = Project::empty();
        project.sql(made);
        project.write(UP, format!("{file};\n"));
        project.xtask(&["db-migrate"]).exits(1).says(says);
        assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");
    }
}

#[test]
fn an_invalid_index_is_found_wherever_a_script_looks_for_its_table() {
    let project = Project::empty();
    project.sql(
        "CREATE SCHEMA other; CREATE TABLE other.t (a int); INSERT INTO other.t VALUES (1), (1)",
    );
    project
        .client()
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY i ON other.t (a)")
        .expect_err("there are duplicates");
    project.write(
        UP,
        "-- no-transaction\nSET search_path = other;\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);\n",
    );
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("index `other.i` is INVALID");
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "0");
}

#[test]
fn rows_in_a_file_are_refused_for_what_they_are() {
    let project = Project::empty();
    for rows in ["1\n\\.\n", "it's\n\\.\n", "(\n\\.\n", "$$\n"] {
        project.write(
            UP,
            format!("CREATE TABLE t (a text);\nCOPY public.t (a) FROM stdin;\n{rows}"),
        );
        project
            .xtask(&["db-migrate"])
            .exits(2)
            .says("1_x.up.sql:2:1: `COPY … FROM STDIN` needs rows from outside the file");
    }
}

#[test]
fn a_rollback_does_not_count_what_its_own_earlier_steps_bring_back() {
    let project = Project::empty();
    project.write("migrations/1_a.up.sql", "CREATE TABLE t (id int, a int);\n");
    project.write("migrations/1_a.down.sql", "DROP TABLE t;\n");
    project.write("migrations/2_b.up.sql", "ALTER TABLE t ADD COLUMN b int;\n");
    project.write("migrations/2_b.down.sql", "ALTER TABLE t DROP COLUMN b;\n");
    project.write(
        "migrations/3_no_b.up.sql",
        "ALTER TABLE t DROP COLUMN b, DROP COLUMN a;\n",
    );
    project.write(
        "migrations/3_no_b.down.sql",
        "ALTER TABLE t ADD COLUMN b int, ADD COLUMN a int;\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let run = project
        .xtask(&["db-rollback", "--all", "--dry-run"])
        .succeeds()
        .says("Will drop table `public.t` with 0 rows");
    assert!(!run.stderr.contains("not there now"), "{}", run.stderr);
    project.xtask(&["db-rollback", "--all", "--yes"]).succeeds();
}

/// Statements that later migrations run, and whether the index is judged after them.
#[test]
fn an_index_is_judged_unless_a_later_migration_touched_it() {
    for (later, judged) in [
        ("UPDATE t SET a = 1", true),
        ("CREATE TABLE type (a int)", true),
        ("ALTER TABLE t ADD COLUMN c int, ADD CHECK (a > 0)", true),
        (
            "ALTER TABLE t ADD COLUMN c int REFERENCES u (id) ON DELETE SET NULL",
            true,
        ),
        ("SET LOCAL lock_timeout = '1s'", true),
        ("ALTER TABLE u DROP COLUMN x", true),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'glad'", true),
        ("ALTER FUNCTION f RENAME TO g", true),
        ("DROP VIEW w", true),
        ("ALTER TABLE t RENAME COLUMN b TO d", false),
        ("ALTER TABLE p RENAME COLUMN b TO d", false),
        ("DROP INDEX i; CREATE INDEX j ON t (b)", false),
        ("ALTER INDEX i RENAME TO j", false),
        ("DO $$ BEGIN DROP INDEX i; END $$", false),
        ("ALTER TABLE t DROP COLUMN a", false),
    ] {
        let project = Project::empty();
        project.sql(
            "CREATE TABLE t (a int, b int); CREATE TABLE u (id int PRIMARY KEY, x int);
             CREATE TABLE p (b int); CREATE VIEW w AS SELECT 1;
             CREATE TYPE mood AS ENUM ('sad');
             CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        );
        project.write("migrations/1_i.up.sql", "CREATE INDEX i ON public.t (b);\n");
        project.xtask(&["db-migrate"]).succeeds();
        project.write("migrations/2_later.up.sql", format!("{later};\n"));
        project
            .xtask(&["db-migrate", "--no-backup", "--yes"])
            .succeeds();
        println!("{later}");
        project.xtask(&["db-verify"]).succeeds();
        project.xtask(&["db-doctor"]).succeeds();
        project.sql("DROP INDEX IF EXISTS i, j; CREATE INDEX i ON t ((1))");
        let run = project.xtask(&["db-verify"]);
        match judged {
            true => run.exits(3).says("exists with a different definition"),
            false => run.succeeds(),
        };
        // The status does not look into files.
        project.xtask(&["db-status", "--check"]).succeeds();
    }
}

/// What looks, only looks: no catalog row is written, by any role, and nobody is waited for.
#[test]
fn what_only_looks_writes_nothing_and_waits_for_nobody() {
    let project = Project::empty();
    project.sql("CREATE TABLE t (a text)");
    project.write(
        UP,
        "CREATE INDEX i ON t (lower( a )) WHERE a IS NOT NULL;\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass");
    // Where a temporary table would leave its rows.
    let written = "SELECT sum(n_tup_ins + n_tup_del) FROM pg_stat_sys_tables
                   WHERE relname IN ('pg_type', 'pg_depend')";
    let before = project.value(written);
    let (mut holder, _) = crate::common::blocker(&project, "BEGIN; LOCK TABLE t");
    let started = std::time::Instant::now();
    project
        .xtask(&["db-status"])
        .succeeds()
        .says("index `public.i` on `public.t` is INVALID");
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    holder.batch_execute("ROLLBACK").expect("lets go");
    for command in ["db-status", "db-verify", "db-doctor"] {
        project.xtask(&[command]);
    }
    assert_eq!(project.value(written), before);
}

#[test]
fn a_role_that_may_make_no_temporary_table_can_look_and_migrate() {
    let project = Project::empty();
    project.sql("CREATE TABLE t (a text)");
    project.write(UP, "CREATE INDEX IF NOT EXISTS i ON t (lower( a ));\n");
    project.sql(&format!(
        "CREATE INDEX i ON t (lower(a)); REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC;
         CREATE ROLE no_temporary LOGIN PASSWORD 'x'; GRANT CREATE, USAGE ON SCHEMA public TO no_temporary;
         ALTER TABLE t OWNER TO no_temporary",
        project.database
    ));
    let url = crate::common::url_as("no_temporary", "x", &project.database);
    for command in [
        &["db-status"][..],
        &["db-verify"],
        &["db-doctor"],
        &["db-migrate", "--dry-run"],
    ] {
        project
            .xtask(&[command, &["--database-url", &url]].concat())
            .succeeds();
    }
}
