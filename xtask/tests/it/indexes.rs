//! An index is judged by its definition and its state, not by its name; a column by its verify file.

use crate::common::{COLUMN, Project, SNAPSHOT, blocker, until};

const INDEX: &str = "idx_users_last_login_at";
const UP: &str = "migrations/20260101000000_more.up.sql";

/// A project whose index is pending.
fn pending() -> Project {
    let project = Project::seeded();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    project
}

fn is_valid(project: &Project) -> bool {
    project.state().contains(&format!("{INDEX} true true"))
}

/// An index build that was cancelled, as PostgreSQL leaves it.
fn cancelled_build(project: &Project, definition: &str) {
    let (_holder, _) = blocker(project, SNAPSHOT);
    let (mut builder, _) = blocker(project, "SET statement_timeout = '300ms'");
    let build = format!("CREATE INDEX CONCURRENTLY {INDEX} ON {definition}");
    builder.batch_execute(&build).expect_err("is cancelled");
    assert!(project.state().contains(&format!("{INDEX} false")));
}

/// All three commands that look see it.
fn is_seen(project: &Project, text: &str) {
    project.xtask(&["db-status", "--check"]).exits(3).says(text);
    project.xtask(&["db-doctor"]).exits(3).says(INDEX);
    project.xtask(&["db-verify"]).exits(3).says(INDEX);
}

#[test]
fn an_invalid_index_is_seen_dropped_and_built_again() {
    let project = pending();
    cancelled_build(&project, "users (last_login_at DESC NULLS LAST)");
    is_seen(&project, "INVALID");
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("left by an interrupted build");
    assert!(is_valid(&project));
    // Also where it is another one: what is INVALID is nobody's.
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    cancelled_build(&project, "users (created_at)");
    project.xtask(&["db-migrate"]).succeeds();
    assert!(is_valid(&project));
    project.xtask(&["db-verify"]).succeeds();
}

#[test]
fn an_index_that_is_not_ready_is_dropped_and_built_again() {
    let project = pending();
    project.sql(&format!(
        "CREATE INDEX {INDEX} ON users (last_login_at DESC NULLS LAST);
         UPDATE pg_index SET indisready = false WHERE indexrelid = '{INDEX}'::regclass"
    ));
    is_seen(&project, "INVALID");
    project.xtask(&["db-migrate"]).succeeds();
    assert!(is_valid(&project));
}

#[test]
fn an_invalid_index_is_not_accepted_inside_a_transaction_either() {
    let project = pending();
    cancelled_build(&project, "users (created_at)");
    std::fs::remove_file(
        project.path("migrations/20251231143100_index_users_last_login_at.up.sql"),
    )
    .expect("removes");
    std::fs::remove_file(
        project.path("migrations/20251231143100_index_users_last_login_at.down.sql"),
    )
    .expect("removes");
    std::fs::remove_file(
        project.path("migrations/verify/20251231143100_index_users_last_login_at.sql"),
    )
    .expect("removes");
    project.write(
        UP,
        format!("CREATE INDEX IF NOT EXISTS {INDEX} ON users (created_at);"),
    );
    project.xtask(&["db-migrate"]).succeeds();
    assert!(is_valid(&project));
}

#[test]
fn another_definition_under_the_right_name_is_an_error_that_shows_both() {
    let project = pending();
    project.sql("CREATE TABLE other (last_login_at timestamptz)");
    for (what, definition) in [
        ("columns", "INDEX {} ON users (created_at DESC NULLS LAST)"),
        (
            "more columns",
            "INDEX {} ON users (last_login_at DESC NULLS LAST, id)",
        ),
        (
            "included columns",
            "INDEX {} ON users (last_login_at DESC NULLS LAST) INCLUDE (id)",
        ),
        ("order", "INDEX {} ON users (last_login_at ASC NULLS LAST)"),
        (
            "nulls",
            "INDEX {} ON users (last_login_at DESC NULLS FIRST)",
        ),
        (
            "uniqueness",
            "UNIQUE INDEX {} ON users (last_login_at DESC NULLS LAST)",
        ),
        (
            "predicate",
            "INDEX {} ON users (last_login_at DESC NULLS LAST) WHERE last_login_at IS NOT NULL",
        ),
        ("method", "INDEX {} ON users USING brin (last_login_at)"),
        (
            "expression",
            "INDEX {} ON users ((last_login_at AT TIME ZONE 'UTC') DESC NULLS LAST)",
        ),
        (
            "parameters",
            "INDEX {} ON users (last_login_at DESC NULLS LAST) WITH (fillfactor = 50)",
        ),
        ("table", "INDEX {} ON other (last_login_at DESC NULLS LAST)"),
    ] {
        project.sql(&format!("CREATE {}", definition.replace("{}", INDEX)));
        let there = project.value(&format!("SELECT pg_get_indexdef('{INDEX}'::regclass)"));
        let before = project.dump();
        let run = project.xtask(&["db-migrate"]).exits(3);
        let run = run.says("exists with a different definition");
        let (_, using) = there.split_once(" USING ").expect("a definition");
        let run = run.says("found: ").says(using).says("expected: ");
        assert!(
            what == "table"
                || run
                    .stderr
                    .contains("btree (last_login_at DESC NULLS LAST)\n"),
            "{what}: {}",
            run.stderr
        );
        assert_eq!(before, project.dump(), "{what}");
        // Commands that only look create nothing, so they cannot compare parameters.
        if what != "parameters" {
            project
                .xtask(&["db-doctor"])
                .exits(3)
                .shows("exists with a different definition");
        }
        project.sql(&format!("DROP INDEX {INDEX}"));
    }
    project.xtask(&["db-migrate"]).succeeds();
    assert!(is_valid(&project));
    project.sql(&format!(
        "DROP INDEX {INDEX}; CREATE INDEX {INDEX} ON users (created_at)"
    ));
    for command in ["db-verify", "db-doctor"] {
        project
            .xtask(&[command])
            .exits(3)
            .shows("exists with a different definition");
    }
}

#[test]
fn an_index_of_that_name_in_another_schema_is_in_nobodys_way() {
    let project = pending();
    project.sql(&format!(
        "CREATE SCHEMA archive; CREATE TABLE archive.users (last_login_at timestamptz);
         CREATE INDEX {INDEX} ON archive.users (last_login_at);
         ALTER DATABASE {} SET search_path = public, archive",
        project.database
    ));
    project.xtask(&["db-migrate"]).succeeds();
    assert!(is_valid(&project));
    project.xtask(&["db-status", "--check"]).succeeds();
    project.xtask(&["db-doctor"]).succeeds();
}

#[test]
fn the_same_definition_written_differently_is_the_same() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    for (written, there) in [
        ("users USING BTREE (email)", "users (email)"),
        (
            "public.users using btree (email asc nulls last)",
            "users (email)",
        ),
        ("ONLY users (\"email\" text_ops)", "users (email)"),
        ("users (LOWER( email ))", "users (lower(email))"),
        (
            "users (role) WHERE role IN ('admin', 'member')",
            "users (role) WHERE role = ANY (ARRAY['admin'::text, 'member'::text])",
        ),
        (
            "users -- the newest first\n    (created_at  DESC  NULLS  FIRST, /* then */ id)",
            "users (created_at DESC, id)",
        ),
    ] {
        project.sql(&format!("CREATE INDEX same ON {there}"));
        project.write(
            UP,
            format!(
                "-- no-transaction\ncreate index concurrently if not exists same on {written};\n"
            ),
        );
        project.xtask(&["db-migrate"]).succeeds();
        project.xtask(&["db-verify"]).succeeds();
        project.xtask(&["db-status", "--check"]).succeeds();
        project.sql("DROP INDEX same; DELETE FROM _sqlx_migrations WHERE version = 20260101000000");
    }
}

#[test]
fn an_index_that_somebody_builds_right_now_is_waited_for() {
    let project = pending();
    let (holder, _) = blocker(&project, SNAPSHOT);
    let (mut builder, pid) = blocker(&project, "");
    std::thread::scope(|scope| {
        let build = scope.spawn(move || {
            builder.batch_execute(&format!(
                "CREATE INDEX CONCURRENTLY {INDEX} ON users (last_login_at DESC NULLS LAST)"
            ))
        });
        until("it is being built", || {
            project.state().contains(&format!("{INDEX} false"))
        });
        let oid = project.value(&format!("SELECT '{INDEX}'::regclass::oid"));
        let mut run = project.start(&["db-migrate"]);
        run.says(&format!(
            "is being built by pid {pid}, user admin, application blocker"
        ));
        drop(holder);
        build.join().expect("ends").expect("is built");
        let run = run.ends().succeeds();
        assert!(!run.stderr.contains("Repair"), "{}", run.stderr);
        assert_eq!(
            oid,
            project.value(&format!("SELECT '{INDEX}'::regclass::oid"))
        );
    });
}

#[test]
fn a_column_of_another_type_is_an_error_before_the_migration_is_recorded() {
    let project = Project::seeded();
    for column in [
        "timestamp",
        "date",
        "text",
        "timestamptz NOT NULL DEFAULT now()",
    ] {
        project.sql(&format!(
            "ALTER TABLE users ADD COLUMN last_login_at {column}"
        ));
        let before = project.dump();
        project
            .xtask(&["db-migrate"])
            .exits(3)
            .says("is timestamp with time zone, nullable")
            .says("was rolled back");
        assert_eq!(before, project.dump(), "{column}");
        project.sql("ALTER TABLE users DROP COLUMN last_login_at");
    }
    project.sql("ALTER TABLE users ADD COLUMN last_login_at timestamptz");
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("already exists");
}

/// An index by hand on a partitioned table: each partition's beside its writers, then the parent's.
const BY_HAND: &str = "-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_1_at ON events_1 (at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_2_at ON events_2 (at);
CREATE INDEX IF NOT EXISTS events_at ON ONLY events (at);
";
const ATTACH: &str = "ALTER INDEX events_at ATTACH PARTITION events_1_at;
UPDATE gate SET open = true;
ALTER INDEX events_at ATTACH PARTITION events_2_at;
";

fn partitioned() -> Project {
    let project = Project::empty();
    project.sql(
        "CREATE TABLE events (id int, at int) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20);
         CREATE TABLE gate (open bool); INSERT INTO gate VALUES (false);",
    );
    project
}

fn valid(project: &Project, index: &str) -> String {
    project.value(&format!(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = '{index}'::regclass"
    ))
}

#[test]
fn an_index_on_partitions_by_hand_that_was_killed_in_between_goes_on() {
    for before_attach in [true, false] {
        let project = partitioned();
        let gate = "UPDATE gate SET open = true;\n";
        let text = match before_attach {
            true => format!("{BY_HAND}{gate}{}", ATTACH.replace(gate, "")),
            false => format!("{BY_HAND}{ATTACH}"),
        };
        project.write(UP, &text);
        let (holder, _) = blocker(&project, "BEGIN; UPDATE gate SET open = false");
        let mut run = project.start(&["db-migrate"]);
        run.says("Waiting");
        run.signal("KILL");
        run.ends();
        until("no session of ours is left", || project.backends() == 0);
        assert_eq!(valid(&project, "events_at"), "false");
        drop(holder);
        let run = project.xtask(&["db-migrate"]).succeeds();
        assert!(!run.stderr.contains("Repair"), "{}", run.stderr);
        assert_eq!(valid(&project, "events_at"), "true");
        assert_eq!(valid(&project, "events_2_at"), "true");
        project.xtask(&["db-status", "--check"]).succeeds();
        project.xtask(&["db-verify"]).succeeds();
    }
}

#[test]
fn a_partitioned_index_may_be_left_for_a_later_file_to_complete_and_that_is_said() {
    let project = partitioned();
    project.write(UP, BY_HAND);
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("index `public.events_at` stays INVALID until the index of every partition");
    project.write(
        "migrations/20260101000001_attach.up.sql",
        format!("-- no-transaction\n{ATTACH}"),
    );
    let run = project.xtask(&["db-migrate"]).succeeds();
    assert!(!run.stderr.contains("stays INVALID"), "{}", run.stderr);
    assert_eq!(valid(&project, "events_at"), "true");

    // Another definition is as wrong there as elsewhere.
    project.write(
        "migrations/20260101000002_other.up.sql",
        BY_HAND.replace("(at)", "(id)"),
    );
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says("exists with a different definition");
}

#[test]
fn an_interrupt_leaves_a_partitioned_index_for_the_same_command_to_complete() {
    let project = partitioned();
    project.write(UP, format!("{BY_HAND}{ATTACH}"));
    let (holder, _) = blocker(&project, "BEGIN; UPDATE gate SET open = false");
    let mut run = project.start(&["db-migrate"]);
    run.says("Waiting");
    run.signal("INT");
    run.ends()
        .exits(130)
        .says("is INVALID until the index of every partition is attached");
    drop(holder);
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(valid(&project, "events_at"), "true");
}

/// A file that changes what its index's name means, before it makes the index.
#[test]
fn an_index_is_judged_at_its_moment() {
    for (what, made, file) in [
        (
            "replaced",
            "CREATE INDEX i ON t (a)",
            "DROP INDEX IF EXISTS i; CREATE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "replaced, by its schema",
            "CREATE INDEX i ON t (a)",
            "DROP INDEX IF EXISTS public.i; CREATE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "on a column added with it",
            "CREATE INDEX i ON t (a)",
            "ALTER TABLE t ADD COLUMN c int; DROP INDEX i; CREATE INDEX IF NOT EXISTS i ON t (c);",
        ),
        (
            "in place of a constraint",
            "ALTER TABLE t ADD CONSTRAINT i UNIQUE (a)",
            "ALTER TABLE t DROP CONSTRAINT IF EXISTS i; CREATE UNIQUE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "out of the way",
            "CREATE INDEX i ON t (a)",
            "ALTER INDEX i RENAME TO j; CREATE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "gone with its table",
            "CREATE INDEX i ON t (a)",
            "DROP TABLE t; CREATE TABLE t (a int, b int); CREATE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "gone with its column",
            "CREATE INDEX i ON t (a)",
            "ALTER TABLE t DROP COLUMN a; CREATE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "dropped in a block",
            "CREATE INDEX i ON t (a)",
            "DO $$ BEGIN DROP INDEX IF EXISTS i; END $$; CREATE INDEX IF NOT EXISTS i ON t (b);",
        ),
        (
            "on a materialized view",
            "CREATE MATERIALIZED VIEW v AS SELECT a AS x FROM t; CREATE INDEX i ON v (x)",
            "DROP MATERIALIZED VIEW v; CREATE MATERIALIZED VIEW v AS SELECT b AS y FROM t; CREATE UNIQUE INDEX IF NOT EXISTS i ON v (y);",
        ),
        (
            "on a materialized view that is there",
            "CREATE MATERIALIZED VIEW v AS SELECT a AS x FROM t",
            "CREATE UNIQUE INDEX IF NOT EXISTS i ON v (x);",
        ),
        (
            "on a materialized view that is new",
            "CREATE TABLE other (a int)",
            "CREATE MATERIALIZED VIEW v AS SELECT a AS x FROM t; CREATE UNIQUE INDEX IF NOT EXISTS i ON v (x);",
        ),
        (
            "of a temporary table",
            "CREATE TABLE other (a int)",
            "CREATE TEMPORARY TABLE scratch (a int); CREATE INDEX IF NOT EXISTS i ON scratch (a);",
        ),
        (
            "dropped again with its table",
            "CREATE TABLE other (a int)",
            "CREATE INDEX IF NOT EXISTS i ON other (a); DROP TABLE other;",
        ),
    ] {
        let project = Project::empty();
        project.sql(&format!("CREATE TABLE t (a int, b int); {made}"));
        project.write(UP, "CREATE TABLE before (id int);\n");
        project.write(
            "migrations/20260101000001_x.up.sql",
            file.replace("; ", ";\n"),
        );
        println!("{what}");
        project.xtask(&["db-status"]).succeeds();
        project.xtask(&["db-migrate", "--dry-run"]).succeeds();
        project.xtask(&["db-migrate", "--no-backup"]).succeeds();
        project.xtask(&["db-verify"]).succeeds();
        project.xtask(&["db-status", "--check"]).succeeds();
    }
}

#[test]
fn another_index_stops_a_run_before_it_begins_and_the_dry_run_says_so() {
    for file in [
        "CREATE INDEX IF NOT EXISTS i ON t (b);\n",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (b);\n",
        "ALTER TABLE t ADD COLUMN c int;\nCREATE INDEX IF NOT EXISTS i ON t (c);\n",
    ] {
        let project = Project::empty();
        project.sql("CREATE TABLE t (a int, b int); CREATE INDEX i ON t (a)");
        project.write(UP, "CREATE TABLE before (id int);\n");
        project.write("migrations/20260101000001_x.up.sql", file);
        for arguments in [&["db-migrate", "--dry-run"][..], &["db-migrate"]] {
            project
                .xtask(arguments)
                .exits(3)
                .says("exists with a different definition")
                .says("nothing was changed");
            assert_eq!(project.value("SELECT to_regclass('before')"), "");
        }
    }
    // What only its moment tells is told then, and not taken for the wanted one.
    let project = Project::empty();
    project.sql("CREATE TABLE t (a int, b int); CREATE INDEX i ON t (a)");
    project.write(
        UP,
        "ALTER TABLE t DROP COLUMN IF EXISTS c;\nCREATE INDEX IF NOT EXISTS i ON t (b);\n",
    );
    project.xtask(&["db-migrate", "--dry-run"]).succeeds();
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says("exists with a different definition")
        .says("was committed and is in the history");
}
