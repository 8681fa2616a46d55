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
        (
            "an index of a partition, after a column was dropped",
            "CREATE TABLE t (k int, a int, b int) PARTITION BY RANGE (k); CREATE TABLE t1 PARTITION OF t DEFAULT; CREATE INDEX i ON t1 (a)",
            "ALTER TABLE t DROP COLUMN a; CREATE INDEX IF NOT EXISTS i ON t1 (b)",
        ),
        (
            "with its schema",
            "CREATE TABLE t (a int)",
            "CREATE SCHEMA s CREATE TABLE t (a int); ALTER TABLE s.t ADD b int",
        ),
        (
            "a condition that is always true",
            "CREATE TABLE t (a int)",
            "CREATE INDEX IF NOT EXISTS i ON t (a) WHERE true",
        ),
        (
            "partitions in place of those that go with their parent",
            "CREATE TABLE ev (a int) PARTITION BY RANGE (a); CREATE TABLE ev1 PARTITION OF ev DEFAULT",
            "DROP TABLE ev; CREATE TABLE ev (a int, b int) PARTITION BY RANGE (a); CREATE TABLE ev1 PARTITION OF ev DEFAULT",
        ),
        (
            "a schema made again",
            "CREATE SCHEMA s; CREATE TABLE s.t (a int)",
            "DROP SCHEMA s CASCADE; CREATE SCHEMA s; CREATE TABLE s.t (b int)",
        ),
        (
            "a table in place of a view",
            "CREATE VIEW v AS SELECT 1 AS a",
            "DROP VIEW v; CREATE TABLE v (b int)",
        ),
        (
            "on a function in another schema",
            "CREATE TABLE t (a text, b text); CREATE FUNCTION f(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'",
            "CREATE INDEX IF NOT EXISTS i ON t (public.f(a)); CREATE INDEX IF NOT EXISTS j ON t (b, pg_catalog.lower(a))",
        ),
        (
            "a function that gets another schema",
            "CREATE SCHEMA ext; CREATE TABLE t (a text); CREATE FUNCTION f(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'; CREATE INDEX i ON t (f(a))",
            "ALTER FUNCTION f SET SCHEMA ext; CREATE INDEX IF NOT EXISTS i ON t ((ext.f(a)))",
        ),
        (
            "a temporary table of the same name as a table",
            "CREATE TABLE t (a int, b int); CREATE INDEX i ON t (b)",
            "CREATE TEMPORARY TABLE t (a int); CREATE INDEX i ON t (a); DROP TABLE pg_temp.t",
        ),
        (
            "a condition that names its table",
            "CREATE TABLE t (a int, b int); CREATE INDEX i ON t (a) WHERE b > 0",
            "CREATE INDEX IF NOT EXISTS i ON t (a) WHERE t.b > 0",
        ),
        (
            "an index and a constraint renamed as tables are",
            "CREATE TABLE t (a int)",
            "CREATE INDEX idx_a ON t (a); ALTER TABLE idx_a RENAME TO idx_b; ALTER TABLE t ADD CONSTRAINT u2 UNIQUE (a); ALTER TABLE u2 RENAME TO u3",
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

/// What an interrupted build of the unique index `i` on `t` leaves.
fn unfinished(project: &Project, schema: &str) {
    project.sql(&format!(
        "CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.t (a int, b int);
         INSERT INTO {schema}.t VALUES (1), (1)"
    ));
    let build = format!("CREATE UNIQUE INDEX CONCURRENTLY i ON {schema}.t (a)");
    let failed = project.client().batch_execute(&build);
    failed.expect_err("there are duplicates");
}

fn invalid(project: &Project) -> String {
    project.value(
        "SELECT coalesce(string_agg(n.nspname, ',' ORDER BY n.nspname), '') FROM pg_index
         JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname = 'i' AND NOT indisvalid",
    )
}

/// Scripts that say themselves where their tables are looked up.
const PATHS: [&str; 5] = [
    "SET search_path = other;\n",
    "SET LOCAL search_path = other;\n",
    "SET search_path = other;\nDISCARD ALL;\n",
    "SET search_path TO \"$user\", public, other;\n",
    "DO $$ BEGIN PERFORM set_config('search_path', 'other', false); END $$;\n",
];

fn with_path(path: &str, column: &str) -> String {
    format!(
        "-- no-transaction\n-- xtask: lossless\n{path}CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t ({column});\n"
    )
}

#[test]
fn what_an_interrupted_build_has_left_is_repaired_where_there_is_one_table_of_that_name() {
    for path in [PATHS[0], PATHS[3], PATHS[4]] {
        let project = Project::empty();
        unfinished(&project, "other");
        project.write(UP, with_path(path, "a"));
        project
            .xtask(&["db-migrate"])
            .succeeds()
            .says("index `other.i` is INVALID, left by an interrupted build");
        assert_eq!(invalid(&project), "");
    }
}

/// Which of two tables a script means, only its own session knows: nobody's index is dropped, and none is
/// accepted that is not valid, or another one.
#[test]
fn where_a_script_may_mean_another_table_nothing_is_dropped_and_nothing_accepted() {
    for path in PATHS {
        let project = Project::empty();
        unfinished(&project, "other");
        unfinished(&project, "public");
        project.write(UP, with_path(path, "a"));
        project
            .xtask(&["db-migrate"])
            .exits(1)
            .says(".i` is INVALID")
            .says("REINDEX INDEX CONCURRENTLY");
        assert_eq!(invalid(&project), "other,public");
        assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "0");

        let project = Project::empty();
        project.sql(
            "CREATE SCHEMA other; CREATE TABLE other.t (a int, b int); CREATE INDEX i ON other.t (a);
             CREATE TABLE t (a int, b int); CREATE INDEX i ON t (a)",
        );
        project.write(UP, with_path(path, "b"));
        project
            .xtask(&["db-migrate"])
            .exits(3)
            .says("exists with a different definition");
    }
    let project = Project::empty();
    unfinished(&project, "a");
    project.sql("CREATE SCHEMA b; CREATE TABLE b.t (a int)");
    let index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);\n";
    project.write(
        UP,
        format!("-- no-transaction\nSET search_path = a;\n{index}SET search_path = b;\n{index}"),
    );
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("`a.i` is INVALID");
}

/// Another index under the name, whatever stands around the statement that would make the right one.
#[test]
fn a_wrong_index_is_never_accepted_for_what_stands_around_it() {
    let index = "CREATE INDEX IF NOT EXISTS i ON t (b);";
    for text in [
        format!("SET CONSTRAINTS ALL IMMEDIATE;\n{index}\n"),
        format!("SET search_path = public;\n{index}\n"),
        format!("ALTER TABLE t DROP COLUMN z;\n{index}\nALTER TABLE t DROP COLUMN y;\n"),
        format!("DO $$ BEGIN END $$;\n{index}\nDO $$ BEGIN END $$;\n"),
        format!("{index}\nCOMMENT ON INDEX i IS 'x';\n"),
        format!("SET client_min_messages = warning;\nDO $$ BEGIN END $$;\n{index}\n"),
        format!(
            "ALTER TABLE t DROP COLUMN y, ALTER COLUMN a TYPE bigint;\n{index}\nALTER TABLE t DROP COLUMN z;\n"
        ),
        format!("ALTER TABLE t RENAME TO u;\nALTER TABLE u RENAME TO t;\n{index}\n"),
        format!(
            "ALTER INDEX i RENAME TO j;\nALTER INDEX j RENAME TO i;\n{index}\nCOMMENT ON INDEX i IS 'x';\n"
        ),
    ] {
        for head in ["", "-- no-transaction\n-- xtask: lossless\n"] {
            let project = Project::empty();
            project.sql("CREATE TABLE t (a int, b int, y int, z int); CREATE INDEX i ON t (a)");
            project.write(UP, format!("{head}{text}"));
            project
                .xtask(&["db-migrate", "--no-backup", "--yes"])
                .exits(3)
                .says("exists with a different definition");
        }
    }
}

#[test]
fn another_object_under_the_name_is_no_index() {
    for before in [
        "ALTER TABLE t DROP COLUMN z",
        "DO $$ BEGIN END $$",
        "SELECT 1",
    ] {
        let project = Project::empty();
        project.sql("CREATE TABLE t (a int, z int); CREATE VIEW i AS SELECT 1");
        project.write(UP, with_path(&format!("{before};\n"), "a"));
        project
            .xtask(&["db-migrate", "--no-backup", "--yes"])
            .exits(1)
            .says("index `i` does not exist");
    }
}

/// Outside a transaction the forecast is the only guard: what it finds is backed up, whatever was said before.
#[test]
fn outside_a_transaction_no_earlier_statement_hides_a_loss() {
    for (made, file, saved) in [
        (
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE v (id int PRIMARY KEY, x text); INSERT INTO v VALUES (1, 'precious')",
            "ALTER TABLE t ADD COLUMN x text; ALTER TABLE t RENAME TO t_old; ALTER TABLE v RENAME TO t; ALTER TABLE t DROP COLUMN x",
            "v",
        ),
        (
            "CREATE TABLE t (x text); INSERT INTO t VALUES ('precious')",
            "DROP INDEX IF EXISTS nothing; CREATE TEMP TABLE t (id int); DELETE FROM public.t",
            "t",
        ),
    ] {
        let project = Project::empty();
        project.sql(made);
        project.write(
            UP,
            format!(
                "-- no-transaction\n-- xtask: lossless\n{};\n",
                file.replace("; ", ";\n")
            ),
        );
        project
            .xtask(&["db-migrate", "--yes"])
            .succeeds()
            .says(&format!("Backed up public.{saved}"));
    }
}

/// Its own search path is the session's alone: what is destroyed must say its schema.
#[test]
fn what_a_script_with_a_search_path_destroys_names_its_schema() {
    for file in [
        "SET search_path = s; CREATE TABLE t (id int); SET search_path = public; DROP TABLE t",
        "SET search_path = s; ALTER TABLE t RENAME TO u; SET search_path = public; DROP TABLE u",
        "SET search_path = s; DELETE FROM t",
        "SET search_path = s; ALTER TABLE t ADD COLUMN y text; ALTER TABLE t DROP COLUMN x",
    ] {
        for directive in ["lossless", "backup t"] {
            let project = Project::empty();
            project.sql(
                "CREATE SCHEMA s; CREATE TABLE s.w (a int); CREATE TABLE t (id int, x text);
                 INSERT INTO t VALUES (1, 'precious')",
            );
            project.write(
                UP,
                format!(
                    "-- no-transaction\n-- xtask: {directive}\n{};\n",
                    file.replace("; ", ";\n")
                ),
            );
            project
                .xtask(&["db-migrate", "--yes"])
                .exits(2)
                .says("names no schema")
                .says("write the schema before the name");
            assert_eq!(project.value("SELECT x FROM t"), "precious");
        }
    }
}

#[test]
fn each_file_begins_with_the_sessions_own_path_and_role() {
    for first in [
        "SET LOCAL search_path = public",
        "SET LOCAL ROLE CURRENT_USER",
    ] {
        let project = Project::empty();
        project.sql("CREATE TABLE users (id int)");
        project.write(UP, format!("{first};\nCREATE TABLE one (a int);\n"));
        for second in [
            "-- xtask: backup usres\nALTER TABLE users ADD a int;\n",
            "ALTER TABLE nowhere ADD a int;\n",
        ] {
            project.write("migrations/2_c.up.sql", second);
            for arguments in [&["db-migrate", "--dry-run"][..], &["db-migrate"]] {
                project.xtask(arguments).exits(1).says("there is no table");
            }
        }
        assert_eq!(project.value("SELECT to_regclass('one')"), "");
    }
}

#[test]
fn what_inherits_is_asked_for_whatever_was_granted_before() {
    for (first, head) in [
        ("GRANT SELECT ON t TO PUBLIC", "-- no-transaction\n"),
        ("CREATE VIEW w AS SELECT 1", ""),
        ("DO $$ BEGIN END $$", "-- no-transaction\n"),
        ("UPDATE t SET a = a", ""),
    ] {
        let project = Project::empty();
        project.sql(
            "CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE c () INHERITS (t);
             INSERT INTO t VALUES (1, 'precious'); INSERT INTO c VALUES (2, 'gold')",
        );
        project.write(UP, format!("{first};\n"));
        project.write(
            "migrations/2_c.up.sql",
            format!("{head}-- xtask: backup t\nUPDATE t SET a = 'x';\n"),
        );
        project
            .xtask(&["db-migrate", "--yes"])
            .exits(1)
            .says("tables inherit from `public.t` and are not backed up with it");
        assert_eq!(project.value("SELECT a FROM c"), "gold");
    }
}

#[test]
fn a_grant_or_a_view_makes_no_table_and_hides_no_missing_one() {
    for first in [
        "GRANT SELECT ON users TO PUBLIC",
        "CREATE VIEW w AS SELECT 1",
    ] {
        for second in [
            "-- xtask: backup usres\nALTER TABLE users ADD a int;\n",
            "ALTER TABLE nowhere ADD a int;\n",
        ] {
            let project = Project::empty();
            project.sql("CREATE TABLE users (id int)");
            project.write(UP, format!("{first};\n"));
            project.write("migrations/2_c.up.sql", second);
            for arguments in [&["db-migrate", "--dry-run"][..], &["db-migrate"]] {
                project.xtask(arguments).exits(1).says("there is no table");
            }
            assert_eq!(project.value("SELECT to_regclass('w')"), "");
        }
    }
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
    project.sql("CREATE TABLE t (a text); CREATE INDEX i2 ON t (upper(a))");
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
    project.write(
        "migrations/2_y.up.sql",
        "CREATE INDEX IF NOT EXISTS i2 ON t (upper(a));\n",
    );
    let started = std::time::Instant::now();
    project
        .xtask(&["db-status"])
        .succeeds()
        .says("index `public.i` on `public.t` is INVALID");
    project
        .xtask(&["db-verify"])
        .exits(3)
        .says("indexes were not compared");
    project.xtask(&["db-doctor"]).exits(3);
    project.xtask(&["db-migrate", "--dry-run"]).succeeds();
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
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

/// What the definition that is there says for certain.
#[test]
fn another_definition_is_seen_without_asking_the_server_where_the_text_says_so() {
    for (written, there) in [
        ("(a)", "(a COLLATE \"C\")"),
        ("(a)", "(a text_pattern_ops)"),
        ("((a))", "(b)"),
        ("(a)", "(a) WHERE b IS NOT NULL"),
        ("(a)", "(lower(a))"),
    ] {
        let project = Project::empty();
        project.sql("CREATE TABLE t (a text, b text)");
        project.write(UP, format!("CREATE INDEX i ON t {written};\n"));
        project.xtask(&["db-migrate"]).succeeds();
        project.xtask(&["db-verify"]).succeeds();
        project.sql(&format!("DROP INDEX i; CREATE INDEX i ON t {there}"));
        project
            .xtask(&["db-verify"])
            .exits(3)
            .says("exists with a different definition");
    }
}

#[test]
fn a_table_that_went_with_another_and_came_back_is_judged_no_more() {
    let project = Project::empty();
    for (file, text) in [
        (
            UP,
            "CREATE TABLE p (k int, a int, b int) PARTITION BY RANGE (k);
             CREATE TABLE p1 PARTITION OF p DEFAULT; CREATE INDEX i ON p1 (a);",
        ),
        ("migrations/2_y.up.sql", "DROP TABLE p;"),
        (
            "migrations/3_z.up.sql",
            "CREATE TABLE p1 (k int, b int, CONSTRAINT i UNIQUE (b));",
        ),
    ] {
        project.write(file, text);
        project.xtask(&["db-migrate", "--yes"]).succeeds();
    }
    project.xtask(&["db-verify"]).succeeds();
    project.xtask(&["db-doctor"]).succeeds();
}
