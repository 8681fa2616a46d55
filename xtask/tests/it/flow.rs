//! The main job and its way back: which migrations a run takes, what it records, what it leaves
//! untouched, and that no migration's session harms another.

use sha2::{Digest, Sha384};

use crate::common::{Project, Run, admin, server, url_as};

const INDEX: &str = "idx_users_last_login_at";

/// Versions of the migrations that [`chain`] writes.
const CHAIN: [i64; 4] = [
    20260101000001,
    20260101000002,
    20260101000003,
    20260101000004,
];

/// A baseline that makes table `t1`, and three migrations that make `t2`, `t3` and `t4`.
fn chain() -> Project {
    let project = Project::empty();
    for (index, version) in CHAIN.iter().enumerate() {
        let number = index + 1;
        let head = if number == 1 {
            "-- xtask: baseline\n"
        } else {
            ""
        };
        project.write(
            &format!("migrations/{version}_make_t{number}.up.sql"),
            format!("{head}CREATE TABLE t{number} (id int);\n"),
        );
        project.write(
            &format!("migrations/{version}_make_t{number}.down.sql"),
            format!("DROP TABLE t{number};\n"),
        );
    }
    project
}

/// The numbers of the tables that are there, and of the migrations that the history has.
#[track_caller]
pub(crate) fn has(project: &Project, numbers: &str) {
    let tables = project.value(
        "SELECT string_agg(substr(relname, 2), '' ORDER BY relname) FROM pg_class WHERE relname ~ '^t[0-9]$'",
    );
    let rows = project.value(
        "SELECT string_agg((version % 10)::text, '' ORDER BY version) FROM _sqlx_migrations",
    );
    assert_eq!((tables.as_str(), rows.as_str()), (numbers, numbers));
}

#[test]
fn migrate_rollback_migrate() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value(&format!(
            "SELECT indexdef FROM pg_indexes WHERE indexname = '{INDEX}'"
        )),
        "CREATE INDEX idx_users_last_login_at ON public.users USING btree (last_login_at DESC NULLS LAST)"
    );
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    assert_eq!(project.value(&format!("SELECT to_regclass('{INDEX}')")), "");
    assert_eq!(
        project.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'last_login_at'"),
        "0"
    );
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
    project.xtask(&["db-redo", "--yes"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn migrate_to_a_version_stops_there() {
    let project = chain();
    project
        .xtask(&["db-migrate", "--to", &CHAIN[1].to_string()])
        .succeeds();
    has(&project, "12");
    project
        .xtask(&["db-migrate", "--to", &CHAIN[1].to_string()])
        .succeeds()
        .says("nothing is pending");
    project
        .xtask(&["db-migrate", "--to", "7"])
        .exits(2)
        .says("there is no migration `7`");
    has(&project, "12");
    project.xtask(&["db-migrate"]).succeeds();
    has(&project, "1234");
}

#[test]
fn rollback_undoes_the_last_run_and_stops_at_the_baseline() {
    let project = chain();
    project
        .xtask(&["db-migrate", "--to", &CHAIN[1].to_string()])
        .succeeds();
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    has(&project, "12");
    // The baseline was of the same run as 2.
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    has(&project, "1");
    project
        .xtask(&["db-rollback", "--yes"])
        .succeeds()
        .says("nothing to roll back");
    has(&project, "1");
}

#[test]
fn rollback_selects_by_steps_version_or_all() {
    for (arguments, left) in [
        (&["--steps", "1"][..], "123"),
        (&["--steps", "2"], "12"),
        (&["--steps", "9"], "1"),
        (&["--to", "20260101000003"], "123"),
        (&["--to", "20260101000001"], "1"),
        (&["--all"], "1"),
    ] {
        let project = chain();
        project.xtask(&["db-migrate"]).succeeds();
        project
            .xtask(&[&["db-rollback", "--yes"], arguments].concat())
            .succeeds();
        has(&project, left);
    }
    let project = chain();
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-rollback", "--to", "20260101000009", "--yes"])
        .exits(2);
    project
        .xtask(&["db-rollback", "--steps", "1", "--all", "--yes"])
        .exits(2);
    has(&project, "1234");
    project
        .xtask(&["db-rollback", "--to", "0", "--yes"])
        .succeeds();
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "0");
    assert_eq!(project.value("SELECT to_regclass('t1')"), "");
}

#[test]
fn a_rollback_asks_and_without_a_terminal_needs_a_yes() {
    let project = chain();
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-rollback"])
        .exits(2)
        .says("table `public.t4` with 0 rows")
        .says("hint: cargo xtask db-rollback --yes");
    has(&project, "1234");
}

#[test]
fn a_missing_down_file_stops_before_anything_is_undone() {
    let project = chain();
    project.xtask(&["db-migrate"]).succeeds();
    std::fs::remove_file(project.path("migrations/20260101000003_make_t3.down.sql"))
        .expect("removes");
    project
        .xtask(&["db-rollback", "--yes"])
        .exits(3)
        .says("`migrations/20260101000003_make_t3.up.sql` has no down file");
    has(&project, "1234");
    project
        .xtask(&["db-rollback", "--steps", "1", "--yes"])
        .succeeds();
    has(&project, "123");
}

#[test]
fn migrations_of_one_run_share_their_installed_on() {
    let project = chain();
    project
        .xtask(&["db-migrate", "--to", &CHAIN[2].to_string()])
        .succeeds();
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value("SELECT count(DISTINCT installed_on) FROM _sqlx_migrations"),
        "2"
    );
    assert_eq!(
        project.value("SELECT max(installed_on) <= now() AND max(installed_on) > now() - interval '1 minute' FROM _sqlx_migrations"),
        "true"
    );
}

#[test]
fn of_rows_that_sqlx_wrote_the_last_migration_is_undone() {
    let project = chain();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("UPDATE _sqlx_migrations SET installed_on = installed_on + (version % 10) * interval '1 ms'");
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    has(&project, "123");
}

#[test]
fn the_history_is_sqlxs_to_the_letter() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod)
                    || CASE WHEN attnotnull THEN ' not null' ELSE '' END
                    || coalesce(' ' || pg_get_expr(adbin, adrelid), ''), ', ' ORDER BY attnum)
             FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = '_sqlx_migrations'::regclass AND attnum > 0"
        ),
        "version bigint not null, description text not null, installed_on timestamp with time zone not null now(), \
         success boolean not null, checksum bytea not null, execution_time bigint not null"
    );
    assert_eq!(
        project.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '_sqlx_migrations'::regclass AND contype = 'p'"),
        "PRIMARY KEY (version)"
    );
    let rows = project
        .client()
        .query("SELECT version, description, success, checksum, execution_time FROM _sqlx_migrations ORDER BY version", &[])
        .expect("reads");
    let expected = [
        (20251201000000_i64, "create users"),
        (20251231143000, "add users last login at"),
        (20251231143100, "index users last login at"),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, (version, description)) in rows.iter().zip(expected) {
        assert_eq!(row.get::<_, i64>(0), version);
        assert_eq!(row.get::<_, &str>(1), description);
        assert!(row.get::<_, bool>(2));
        let file = project.path(&format!(
            "migrations/{version}_{}.up.sql",
            description.replace(' ', "_")
        ));
        let sha384 = Sha384::digest(std::fs::read(file).expect("reads"));
        assert_eq!(row.get::<_, &[u8]>(3), &sha384[..]);
        // Between 10 µs and a minute, in nanoseconds.
        let nanoseconds: i64 = row.get(4);
        assert!(
            (10_000..60_000_000_000).contains(&nanoseconds),
            "{nanoseconds}"
        );
    }
}

#[test]
fn a_migrations_session_settings_end_with_it() {
    let project = Project::empty();
    let role = format!("{}_idle", project.database);
    project.sql(&format!("CREATE SCHEMA other; CREATE ROLE {role}; CREATE TABLE settings (at int, path text, zone text, role text)"));
    let look = |at: u32| {
        format!(
            "INSERT INTO public.settings SELECT {at}, current_setting('search_path'), current_setting('TimeZone'), current_user;\n"
        )
    };
    let leavings = [
        "SET search_path = other;\nSET timezone = 'Asia/Tokyo';\nCREATE TEMP TABLE left_behind (id int);\n".to_owned(),
        // What every dump of pg_dump begins with.
        "SELECT pg_catalog.set_config('search_path', '', false);\n".to_owned(),
        format!("GRANT INSERT ON settings TO {role};\nSET ROLE {role};\n"),
        format!("SET SESSION AUTHORIZATION {role};\n"),
        "SELECT set_config('DateStyle', 'German', false);\nPREPARE p AS SELECT 1;\n".to_owned(),
        "SET default_transaction_read_only = on;\n".to_owned(),
        "CREATE TEMP TABLE left_behind (id int);\nPREPARE p AS SELECT 2;\n".to_owned(),
    ];
    for (index, leaving) in leavings.iter().enumerate() {
        let (version, at) = (20260101000001 + index as i64, index as u32);
        project.write(
            &format!("migrations/{version}_leaves_{index}.up.sql"),
            format!("{}{leaving}", look(at)),
        );
        project.write(
            &format!("migrations/{version}_leaves_{index}.down.sql"),
            format!("DELETE FROM public.settings WHERE at = {at};\n{leaving}"),
        );
        project.write(
            &format!("migrations/verify/{version}_leaves_{index}.sql"),
            format!("SELECT 'settings has row {at}', to_regclass('settings') IS NOT NULL AND EXISTS (SELECT FROM settings WHERE at = {at}) AS ok;\n"),
        );
    }
    let seen = "SELECT string_agg(DISTINCT path || zone || role, ',') || count(*) FROM settings";
    let same = format!(
        "\"$user\", public{}admin7",
        project.value("SELECT current_setting('TimeZone')")
    );

    // All in one run, and each in a run of its own, forth and back.
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(project.value(seen), same);
    project.xtask(&["db-status", "--check"]).succeeds();
    project
        .xtask(&["db-rollback", "--all", "--yes", "--no-backup"])
        .succeeds();
    assert_eq!(project.value("SELECT count(*) FROM settings"), "0");
    for index in 0..leavings.len() {
        let version = (20260101000001 + index as i64).to_string();
        project.xtask(&["db-migrate", "--to", &version]).succeeds();
    }
    assert_eq!(project.value(seen), same);
    assert_eq!(
        project.value("SELECT string_agg(relnamespace::regnamespace::text, ',') FROM pg_class WHERE relname = '_sqlx_migrations'"),
        "public"
    );
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_migration_that_ends_prepared_statements_is_recorded_and_so_is_the_next() {
    let project = Project::empty();
    let files = [
        ("1_one", "CREATE TABLE t1 (id int);\n"),
        ("2_two", "CREATE TABLE t2 (id int);\n"),
        ("3_ends", "DEALLOCATE ALL;\n"),
        ("4_it's", "CREATE TABLE t4 (id int);\n"),
        ("5_ends", "-- no-transaction\nDISCARD ALL;\n"),
        ("6_six", "CREATE TABLE t6 (id int);\n"),
    ];
    for (stem, text) in files {
        project.write(&format!("migrations/{stem}.up.sql"), text);
    }
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value("SELECT string_agg(version || description, ',' ORDER BY version) FROM _sqlx_migrations WHERE success AND execution_time > 0"),
        "1one,2two,3ends,4it's,5ends,6six"
    );
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn a_roles_own_timeouts_end_nothing() {
    let project = Project::seeded();
    let role = format!("{}_hasty", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'hasty';
         ALTER ROLE {role} SET statement_timeout = '1ms';
         ALTER ROLE {role} SET lock_timeout = '1ms';
         ALTER ROLE {role} SET idle_in_transaction_session_timeout = '1ms'"
    ));
    project.write(
        "migrations/20260101000000_slow.up.sql",
        "SELECT pg_sleep(0.1);\nCREATE TABLE slow ();\n",
    );
    project.write(
        "migrations/20260101000000_slow.down.sql",
        "DROP TABLE slow;\nSELECT pg_sleep(0.1);\n",
    );
    let url = url_as(&role, "hasty", &project.database);
    for arguments in [
        &["db-migrate"][..],
        &["db-verify"],
        &["db-rollback", "--yes"],
        &["db-migrate"],
    ] {
        Run::of(project.command(arguments).env("DATABASE_URL", &url)).succeeds();
    }
    project.sql(&format!(
        "REASSIGN OWNED BY {role} TO admin; DROP ROLE {role}"
    ));
}

#[test]
fn sql_is_taken_as_it_is_written() {
    let project = Project::empty();
    let files = [
        // psql would put its own variables in place of these.
        "CREATE TABLE v AS SELECT ':name' AS a, 'x'::text AS b, (ARRAY[1,2,3])[1:2] AS c, $$:'name' :\"name\"$$ AS d, '{:user}' AS e;\n",
        "CREATE TABLE no_semicolon ()",
        "-- nothing but a remark\n",
        "/* nothing but\n a /* nested */ remark */",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;\nCREATE TABLE after_f ();\n",
        "CREATE TABLE crlf (\r\n  a text DEFAULT 'x'\r\n);\r\n",
        "DO $do$ BEGIN RAISE NOTICE 'hello :name \\gexec'; END $do$;\nCREATE TABLE after_do () -- the last line",
        "CREATE TABLE \"wéird; \"\"name\" (\"a:b\" text DEFAULT E'it''s \\\\ :x');",
    ];
    for (index, text) in files.iter().enumerate() {
        project.write(&format!("migrations/2026010100000{index}_file.sql"), text);
    }
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value("SELECT a || b || array_to_string(c, '') || d || e FROM v"),
        ":namex12:'name' :\"name\"{:user}"
    );
    for table in [
        "no_semicolon",
        "after_f",
        "crlf",
        "after_do",
        "\"wéird; \"\"name\"",
    ] {
        let found = project
            .client()
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]);
        assert!(found.expect("asks").get::<_, bool>(0), "{table}");
    }
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn forty_migrations_are_forty_steps_of_one_run() {
    let project = Project::empty();
    for number in 1..=40 {
        project.write(
            &format!("migrations/202601010000{number:02}_t{number}.up.sql"),
            format!("CREATE TABLE t{number} (id int);\n"),
        );
        project.write(
            &format!("migrations/202601010000{number:02}_t{number}.down.sql"),
            format!("DROP TABLE t{number};\n"),
        );
    }
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(run.json()["steps"].as_array().expect("steps").len(), 40);
    assert_eq!(run.stderr.matches("Applied").count(), 40);
    assert_eq!(
        project
            .value("SELECT count(DISTINCT installed_on) || '/' || count(*) FROM _sqlx_migrations"),
        "1/40"
    );
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "0");
}

#[test]
fn a_migration_whose_checks_fail_is_rolled_back() {
    let project = Project::seeded();
    project.sql("ALTER TABLE users ADD COLUMN last_login_at text");
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says("users.last_login_at is timestamp with time zone, nullable")
        .says("`20251231143000_add_users_last_login_at` was rolled back")
        .says("not started: `20251231143100_index_users_last_login_at`");
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "1");
    project.sql("ALTER TABLE users DROP COLUMN last_login_at");
    project.xtask(&["db-migrate"]).succeeds();
}

#[test]
fn a_check_that_returns_no_row_does_not_hold() {
    for head in ["", "-- no-transaction\n"] {
        let project = Project::empty();
        project.write(
            "migrations/1_t.up.sql",
            format!("{head}CREATE TABLE IF NOT EXISTS t (id int);\n"),
        );
        let check = "SELECT 'is there', true FROM pg_class WHERE relname = ";
        let verify = "migrations/verify/1_t.sql";
        project.write(verify, format!("SELECT 'one', true;\n{check}'misspelt'"));
        let said = "1: the check at migrations/verify/1_t.sql:2:1 returns a row";
        project.xtask(&["db-migrate"]).exits(3).says(said);
        // The last statement of a file needs no semicolon.
        project.write(
            verify,
            format!("SELECT 'one', true;\n{check}'t' -- the table"),
        );
        project
            .xtask(&["db-migrate"])
            .succeeds()
            .says("2 checks hold");
        project.write(verify, format!("{check}'misspelt'"));
        project.xtask(&["db-verify"]).exits(3).says("returns a row");
    }
}

#[test]
fn what_an_earlier_migration_of_the_run_makes_renames_or_drops_is_known() {
    let project = Project::empty();
    project.sql("CREATE TABLE swapped (id int)");
    let files = [
        ("1_make", "CREATE TABLE public.a (id int);\n"),
        ("2_change", "-- xtask: backup a\nALTER TABLE a ADD x int;\n"),
        ("3_rename", "ALTER TABLE a RENAME TO b;\n"),
        (
            "4_change",
            "-- xtask: backup public.b\nALTER TABLE b ADD y int;\nCREATE TABLE a (id int);\n",
        ),
        (
            "5_swap",
            "DROP TABLE swapped;\nCREATE TABLE public.swapped (n int);\n",
        ),
    ];
    for (stem, text) in files {
        project.write(&format!("migrations/{stem}.up.sql"), text);
    }
    project.xtask(&["db-doctor"]).succeeds();
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value("SELECT string_agg(attrelid::regclass || '.' || attname, ' ' ORDER BY attrelid::regclass::text, attnum) FROM pg_attribute WHERE attnum > 0 AND attrelid IN ('a'::regclass, 'b'::regclass, 'swapped'::regclass)"),
        "a.id b.id b.x b.y swapped.n"
    );
}

#[test]
fn tables_that_inherit_are_backed_up_with_the_one_that_changes() {
    let project = Project::empty();
    project.sql("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent); CREATE TABLE grandchild () INHERITS (child)");
    let write = |tables: &str| {
        let head = format!("-- xtask: backup {tables}\n");
        project.write(
            "migrations/1_x.up.sql",
            format!("{head}ALTER TABLE parent ADD x int;\n"),
        );
        project.write(
            "migrations/1_x.down.sql",
            format!("{head}ALTER TABLE parent DROP x;\n"),
        );
    };
    write("parent, child");
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("`-- xtask: backup public.grandchild`");
    assert!(!project.path("backups").exists());
    write("parent, child, grandchild, public.parent");
    let run = project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(run.stderr.matches("Backed up").count(), 3);
    let down = "-- xtask: backup parent\nALTER TABLE parent DROP x;\n";
    project.write("migrations/1_x.down.sql", down);
    project
        .xtask(&["db-rollback", "--yes"])
        .exits(1)
        .says("not backed up with it");
}

#[test]
fn a_check_that_is_none_is_told_with_its_place() {
    for check in [
        "SELECT 1;",
        "SELECT 'a', 'b', 'c';",
        "SELECT 'not a boolean', 7;",
        "SELECT 'no such column', nowhere FROM t1;",
    ] {
        let project = chain();
        project.write(
            "migrations/verify/20260101000001_make_t1.sql",
            format!("SELECT 'fine', true;\n\n{check}\n"),
        );
        let run = project.xtask(&["db-migrate"]);
        assert!([1, 2].contains(&run.status), "{check}: {}", run.stderr);
        run.says("migrations/verify/20260101000001_make_t1.sql:3:");
        assert_eq!(project.value("SELECT to_regclass('t1')"), "", "{check}");
    }
}

#[test]
fn a_file_outside_a_transaction_that_fails_half_way_says_so_and_can_be_repeated() {
    let project = chain();
    project.write(
        "migrations/20260101000003_make_t3.up.sql",
        "-- no-transaction\nCREATE TABLE IF NOT EXISTS t3 (id int);\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i3 ON t3 (missing);\n",
    );
    project.write(
        "migrations/20260101000003_make_t3.down.sql",
        "DROP TABLE t3;\n",
    );
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("migrations/20260101000003_make_t3.up.sql:3:")
        .says("42703")
        .says("the first of 2 statements took effect")
        .says("applied by this run: `20260101000001_make_t1`, `20260101000002_make_t2`")
        .says("not started: `20260101000004_make_t4`");
    assert_eq!(
        project.value(
            "SELECT string_agg((version % 10)::text, '' ORDER BY version) FROM _sqlx_migrations"
        ),
        "12"
    );
    project.write(
        "migrations/20260101000003_make_t3.up.sql",
        "-- no-transaction\nCREATE TABLE IF NOT EXISTS t3 (id int);\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i3 ON t3 (id);\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    has(&project, "1234");
}

#[test]
fn a_failing_migration_leaves_those_before_it_and_nothing_of_its_own() {
    let project = chain();
    project.write(
        "migrations/20260101000003_make_t3.up.sql",
        "CREATE TABLE t3 (id int);\nALTER TABLE t3 ADD COLUMN a no_such_type;\n",
    );
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("migrations/20260101000003_make_t3.up.sql:2:")
        .says("42704")
        .says("`20260101000003_make_t3` was rolled back: it has changed nothing");
    has(&project, "12");
}

#[test]
fn the_history_lies_where_the_search_path_says_and_is_found_there() {
    let project = chain();
    project.sql("CREATE SCHEMA app");
    let url = format!("{}?options=-csearch_path%3Dapp", project.url);
    for arguments in [
        &["db-migrate"][..],
        &["db-status", "--check"],
        &["db-rollback", "--yes"],
        &["db-migrate"],
    ] {
        Run::of(project.command(arguments).env("DATABASE_URL", &url)).succeeds();
    }
    assert_eq!(
        project.value("SELECT count(*) FROM app._sqlx_migrations"),
        "4"
    );
    assert_eq!(project.value("SELECT to_regclass('public.t1')"), "");
}

#[test]
fn two_runs_at_once_do_the_work_of_one() {
    let project = Project::seeded();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| project.xtask(&["db-migrate"])))
            .collect();
        for run in runs {
            run.join().expect("no panic").succeeds();
        }
    });
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "3");
    project.xtask(&["db-verify"]).succeeds();
}

#[test]
fn sessions_say_which_command_they_belong_to() {
    let project = chain();
    project.sql("CREATE TABLE names (name text)");
    project.write(
        "migrations/20260101000009_name.sql",
        "INSERT INTO names SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend';\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project.value("SELECT string_agg(DISTINCT name, ', ') FROM names WHERE name <> ''"),
        "xtask db-migrate, xtask db-migrate (psql)"
    );
    // The server is shared with other tests: nothing of ours may be left on this database.
    let left = format!(
        "SELECT count(*)::text FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE 'xtask%'",
        project.database
    );
    let row = admin("postgres").query_one(&left, &[]).expect("asks");
    assert_eq!(row.get::<_, &str>(0), "0", "on port {}", server().port());
}
