//! Bad input: whatever is wrong, it is said clearly before anything changes, with what to run next,
//! and no password is printed.

use std::fs;
use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use private_server::Stop;

use crate::common::{
    BASELINE, Project, Run, XTASK, chmod, installation, server, start_server, tool, url_as,
};
use crate::failing::{Failed, skipped};
use crate::terminal::{CTRL_C, CTRL_D, Terminal};

/// The commands that connect and print data in both forms.
const CONNECTING: [&[&str]; 6] = [
    &["db-status"],
    &["db-migrate"],
    &["db-migrate", "--dry-run"],
    &["db-rollback", "--yes"],
    &["db-verify"],
    &["db-backup"],
];

/// The shipped migrations with the baseline applied and two users; the others are pending.
fn adopted() -> Project {
    let project = Project::new();
    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    project.sql(
        "INSERT INTO users (email, password_hash, display_name)
         VALUES ('a@example.org', '-', 'A'), ('b@example.org', '-', 'B')",
    );
    project
}

/// Every migration applied.
fn migrated() -> Project {
    let project = adopted();
    project.xtask(&["db-migrate"]).succeeds();
    project
}

/// The failure of all these commands, which say the same.
#[track_caller]
fn whatever_the_command(commands: &[&[&str]], fails: impl Fn(&[&str]) -> Failed) -> Failed {
    let mut failures = commands.iter().map(|arguments| fails(arguments));
    let first = failures.next().expect("a command");
    for other in failures {
        assert_eq!(first.report, other.report);
        assert_eq!(first.error, other.error);
    }
    first
}

// The address.

#[test]
fn a_malformed_address_is_wrong_usage_and_not_repeated() {
    let project = Project::new();
    for url in [
        "mysql://admin:hunter2@127.0.0.1/db",
        "postgres://admin:hunter2@127.0.0.1:port/db",
        "postgres://admin:hunter2@127.0.0.1:99999/db",
        "postgres://admin:hunter2@[::1/db",
        "postgres://admin:hunter2@127.0.0.1/db?nonsense=1",
        "postgres://admin:hunter2@127.0.0.1/db?sslmode=perhaps",
        "postgres://admin:%zz@127.0.0.1/db",
        "host=127.0.0.1 password='hunter2",
        "host=127.0.0.1 password=hunter2 nonsense=1",
        "hunter2",
        "",
    ] {
        for arguments in CONNECTING {
            let failed = project.fails_elsewhere(2, || {
                let mut command = project.unconfigured(arguments);
                command.env("DATABASE_URL", url);
                command
            });
            assert!(
                !failed.stderr.contains("hunter2"),
                "{url}: {}",
                failed.stderr
            );
            assert!(!failed.error.to_string().contains("hunter2"), "{url}");
        }
    }
    let failed = project.fails_elsewhere(2, || {
        project.unconfigured(&["db-migrate", "--database-url", "postgres://h:x/db"])
    });
    failed.reads("", expect![[r#"
        error: the port in the connection URL is not a number from 1 to 65535
        caused by: what follows `:` is a port, unless an `@` further on makes it a password

        hint: write an IPv6 address in brackets, as in `postgres://user@[::1]:5432/dbname`
        hint: in a URL these characters of a user name or password are written as codes: `@` `%40`, `:` `%3A`, `/` `%2F`, `?` `%3F`, `#` `%23`, `%` `%25`, space `%20`
        hint: quote the value in `.env`: there a `#` or a space can cut it short
        hint: then look whether it works: cargo xtask db-doctor --database-url postgres://h:x/db
    "#]]);
}

#[test]
fn without_any_address_both_ways_on_are_named() {
    let project = Project::new();
    let failed = whatever_the_command(&CONNECTING, |arguments| {
        project.fails_elsewhere(2, || project.unconfigured(arguments))
    });
    failed.reads("", expect![[r#"
            error: no database is configured
            caused by: there is no --database-url, no DATABASE_URL in the environment, and none in `.env`

            hint: name your database: export DATABASE_URL=postgres://USER@HOST:5432/DATABASE
            hint: or make a private one for development: cargo xtask db-setup
        "#]]);
}

#[test]
fn an_address_that_is_set_and_empty_is_an_error_and_no_other_is_taken() {
    let project = Project::new();
    let good = format!("DATABASE_URL={}\n", project.url);
    let more: [&[&str]; 5] = [
        &["db-setup"],
        &["db-seed"],
        &["db-psql"],
        &["db-redo", "--yes"],
        &["db-baseline"],
    ];
    for empty in ["", " "] {
        for command in CONNECTING.into_iter().chain(more) {
            project.write(".env", &good);
            let mut environment = project.unconfigured(command);
            environment.env("DATABASE_URL", empty);
            let mut flag = project.unconfigured(command);
            flag.args(["--database-url", empty]);
            let mut both = project.command(command);
            both.arg(format!("--database-url={empty}"));
            for (run, what) in [
                (&mut environment, "DATABASE_URL is set, and empty"),
                (&mut flag, "--database-url is empty"),
                (&mut both, "--database-url is empty"),
            ] {
                Run::of(run).exits(2).says(what).says("hint: set it to");
            }
            project.write(".env", format!("DATABASE_URL={empty}\n"));
            project
                .unconfigured_run(command)
                .exits(2)
                .says("DATABASE_URL in `.env` is empty");
        }
    }
    assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");
    assert!(!project.path(".postgres").exists(), "nor a private server");
}

#[test]
fn a_wrong_password_says_where_it_came_from() {
    let project = adopted();
    let url = url_as("admin", "wr0ng", &project.database);
    let failed = whatever_the_command(&CONNECTING, |arguments| {
        project.fails_with(1, || {
            let mut command = project.unconfigured(arguments);
            command.env("DATABASE_URL", &url);
            command
        })
    });
    assert!(!failed.stderr.contains("wr0ng"), "{}", failed.stderr);
    failed.reads("28P01", expect![[r#"
            error: cannot connect to `[DATABASE]` on `127.0.0.1:[PORT]` as `admin` (SQLSTATE 28P01)
            caused by: password authentication failed for user "admin"
            caused by: the password came from the connection string

            hint: check user and password in DATABASE_URL or `~/.pgpass`, then: cargo xtask db-doctor
        "#]]);
    // The same from a password file.
    project.write("passwords", "*:*:*:*:wr0ng\n");
    let passwords = project.path("passwords");
    chmod(0o600, &passwords);
    let failed = project.fails_with(1, || {
        let mut command = project.unconfigured(&["db-status"]);
        command
            .env("PGPASSFILE", &passwords)
            .env("DATABASE_URL", url.replace(":wr0ng", ""));
        command
    });
    assert!(!failed.stderr.contains("wr0ng"), "{}", failed.stderr);
    failed.reads(
        "28P01",
        expect![[r#"
        error: cannot connect to `[DATABASE]` on `127.0.0.1:[PORT]` as `admin` (SQLSTATE 28P01)
        caused by: password authentication failed for user "admin"
        caused by: the password came from `[WORKSPACE]/passwords`, line 1

        hint: check user and password in DATABASE_URL or `~/.pgpass`, then: cargo xtask db-doctor
    "#]],
    );
    // And none at all: nothing is asked for.
    let failed = project.fails_with(1, || {
        let mut command = project.unconfigured(&["db-status"]);
        command.env("DATABASE_URL", url.replace(":wr0ng", ""));
        command
    });
    failed.reads(
        "",
        expect![[r#"
        error: cannot connect to `[DATABASE]` on `127.0.0.1:[PORT]` as `admin`
        caused by: password missing

        hint: no password was given: put one into the connection URL, `PGPASSWORD` or `~/.pgpass`
        hint: check user and password in DATABASE_URL or `~/.pgpass`, then: cargo xtask db-doctor
    "#]],
    );
}

#[test]
fn a_host_that_does_not_exist_is_named() {
    let project = Project::new();
    let failed = project.fails_elsewhere(1, || {
        project.unconfigured(&["db-status", "--database-url", "postgres://db.invalid/app"])
    });
    let report = failed.report;
    assert!(report.contains("`db.invalid:5432`"), "{report}");
    assert!(report.contains("the host name has no address"), "{report}");
    assert!(report.contains("hint: check host and port"), "{report}");
}

#[test]
fn a_database_that_does_not_exist_is_offered_to_be_made() {
    let project = Project::new();
    let url = server().url("no_such_database");
    let failed = whatever_the_command(&CONNECTING, |arguments| {
        project.fails_with(1, || {
            let mut command = project.unconfigured(arguments);
            command.env("DATABASE_URL", &url);
            command
        })
    });
    failed.reads("3D000", expect![[r#"
        error: cannot connect to `no_such_database` on `127.0.0.1:[PORT]` as `admin` (SQLSTATE 3D000)
        caused by: database "no_such_database" does not exist

        hint: create it: cargo xtask db-setup
        hint: or name another with --database-url
    "#]]);
}

#[test]
fn a_role_that_does_not_exist_is_told_like_a_wrong_password() {
    let project = Project::new();
    let url = url_as("nobody_here", "x", &project.database);
    let failed = project.fails_with(1, || {
        project.unconfigured(&["db-migrate", "--database-url", &url])
    });
    failed.reads("28P01", expect![[r#"
        error: cannot connect to `[DATABASE]` on `127.0.0.1:[PORT]` as `nobody_here` (SQLSTATE 28P01)
        caused by: password authentication failed for user "nobody_here"
        caused by: the password came from the connection string

        hint: check user and password in DATABASE_URL or `~/.pgpass`, then: cargo xtask db-doctor --database-url postgresql://nobody_here@127.0.0.1:[PORT]/[DATABASE]
    "#]]);
}

// The migrations folder.

/// What a folder with these files, beside the shipped ones, is told: whatever the command.
#[track_caller]
fn folder(files: &[(&str, &[u8])], report: Expect) {
    let project = adopted();
    for (name, bytes) in files {
        project.write(&format!("migrations/{name}"), bytes);
    }
    let folder_reading: Vec<&[&str]> = CONNECTING
        .into_iter()
        .filter(|words| words[0] != "db-backup")
        .collect();
    whatever_the_command(&folder_reading, |arguments| project.fails(arguments, 2))
        .reads("", report);
    assert!(!project.path("backups").exists());
}

/// What a run of these pending files is told. Who only looks does not read them, nor does a rollback of
/// others.
#[track_caller]
fn pending(files: &[(&str, &[u8])], report: Expect) {
    let project = adopted();
    for (name, bytes) in files {
        project.write(&format!("migrations/{name}"), bytes);
    }
    let reads_them: [&[&str]; 3] = [
        &["db-migrate"],
        &["db-migrate", "--dry-run"],
        &["db-backup"],
    ];
    whatever_the_command(&reads_them, |arguments| project.fails(arguments, 2)).reads("", report);
    assert!(!project.path("backups").exists());
    for looks in [
        &["db-status"][..],
        &["db-verify"],
        &["db-rollback", "--yes"],
    ] {
        project.xtask(looks).succeeds();
    }
}

#[test]
fn a_missing_or_empty_folder_is_told() {
    let project = adopted();
    fs::remove_dir_all(project.path("migrations")).expect("removes");
    let missing = project.fails(&["db-migrate"], 2);
    missing.reads(
        "",
        expect![[r#"
        error: cannot read the migrations folder `migrations`
        caused by: it does not exist

        hint: name the folder that holds them: cargo xtask db-migrate --migrations DIR
    "#]],
    );
    project.write("migrations/README.md", "None yet.\n");
    let empty = project.fails(&["db-migrate"], 2);
    empty.reads(
        "",
        expect![[r#"
            error: the migrations folder `migrations` holds no migration

            hint: name another folder: cargo xtask db-migrate --migrations DIR
            hint: or write the first one: cargo xtask db-new NAME
        "#]],
    );
    let named = project.fails(&["db-migrate", "--migrations", "elsewhere"], 2);
    assert!(named.report.contains("elsewhere"), "{}", named.report);
}

#[test]
fn two_files_of_one_version_are_told() {
    folder(
        &[
            ("20260101000000_one.up.sql", b"SELECT 1;\n"),
            ("20260101000000_two.up.sql", b"SELECT 1;\n"),
        ],
        expect![[r#"
            error: cannot use the migrations in `migrations`
            caused by: migrations/20260101000000_two.up.sql: has the version 20260101000000, as has `20260101000000_one.up.sql`

            hint: give the younger one a version of its own: rename all of its files
            hint: then look again: cargo xtask db-migrate --dry-run
        "#]],
    );
}

#[test]
fn a_version_that_is_no_number_is_told() {
    folder(
        &[("2026a_one.up.sql", b"SELECT 1;\n")],
        expect![[r#"
            error: cannot use the migrations in `migrations`
            caused by: migrations/2026a_one.up.sql: the version `2026a` is not a 64-bit number

            hint: name it `<version>_<name>.up.sql`, the version a UTC timestamp such as `date -u +%Y%m%d%H%M%S` prints, or move it out of the folder
            hint: then look again: cargo xtask db-migrate --dry-run
        "#]],
    );
}

#[test]
fn a_down_file_without_its_up_file_is_told() {
    let project = adopted();
    project.write("migrations/20260101000000_one.down.sql", "SELECT 1;\n");
    for command in [&["db-status"][..], &["db-migrate"], &["db-verify"]] {
        project.xtask(command).succeeds().says(
            "migrations/20260101000000_one.down.sql: is ignored: there is no `20260101000000_one.up.sql`; put the up file back, or remove this one",
        );
    }
}

#[test]
fn a_file_that_is_not_utf_8_or_has_a_byte_order_mark_is_told() {
    pending(
        &[
            (
                "20260101000000_latin.up.sql",
                b"-- ok\nSELECT 'Gr\xfc\xdfe';\n",
            ),
            ("20260102000000_bom.up.sql", b"\xef\xbb\xbfSELECT 1;\n"),
            ("20260103000000_wide.up.sql", b"S\0E\0L\0E\0C\0T\0"),
        ],
        expect![[r#"
            error: cannot use the migrations in `migrations`: 3 problems
            caused by: migrations/20260101000000_latin.up.sql:2: is not UTF-8: byte 16 does not belong there
            caused by: migrations/20260102000000_bom.up.sql:1: begins with a byte order mark (BOM), which the server refuses as a syntax error
            caused by: migrations/20260103000000_wide.up.sql:1: holds a NUL byte at byte 1, which SQL text cannot

            hint: migrations/20260101000000_latin.up.sql:2: save it as UTF-8
            hint: migrations/20260102000000_bom.up.sql:1: save it as UTF-8 without BOM
            hint: migrations/20260103000000_wide.up.sql:1: remove it, or save the file as UTF-8 if it is UTF-16
            hint: then look again: cargo xtask db-migrate --dry-run
        "#]],
    );
}

#[test]
fn an_unknown_directive_is_told_with_its_line() {
    pending(
        &[(
            "20260101000000_one.up.sql",
            b"-- xtask: backup users\n-- xtask: bakcup sessions\nSELECT 1;\n",
        )],
        expect![[r#"
            error: cannot use the migrations in `migrations`
            caused by: migrations/20260101000000_one.up.sql:2:1: unknown directive `bakcup`

            hint: did you mean `-- xtask: backup`?
            hint: then look again: cargo xtask db-migrate --dry-run
        "#]],
    );
}

#[test]
fn a_backslash_command_is_refused_before_anything_runs() {
    pending(
        &[(
            "20260101000000_one.up.sql",
            b"CREATE TABLE one (a int);\n\\! touch owned\n",
        )],
        expect![[r#"
            error: cannot use the migrations in `migrations`
            caused by: migrations/20260101000000_one.up.sql:2:1: `\!` is a command of psql, not SQL

            hint: remove it: a migration holds only SQL, which sqlx can run too
            hint: then look again: cargo xtask db-migrate --dry-run
        "#]],
    );
}

#[test]
fn a_file_with_carriage_returns_runs_and_its_bytes_are_what_is_recorded() {
    let project = Project::empty();
    let up = "-- no-transaction\r\n\r\nCREATE TABLE one (\r\n    a int\r\n);\r\n\r\n\
              COMMENT ON TABLE one IS 'line\r\nline';\r\n";
    project.write("migrations/1_one.up.sql", up);
    let up = up
        .replace("-- no-transaction\r\n", "")
        .replace("one", "two");
    project.write("migrations/2_two.up.sql", &up);
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
    for table in ["one", "two"] {
        let comment = project.value(&format!("SELECT obj_description('{table}'::regclass)"));
        assert_eq!(comment, "line\r\nline");
    }
    let row = project.client().query_one(
        "SELECT checksum = sha384(convert_to($1, 'UTF8')) FROM _sqlx_migrations WHERE version = 2",
        &[&up],
    );
    assert!(row.expect("a row").get::<_, bool>(0), "of the raw bytes");
    // Another editor's line ends are another file.
    project.write("migrations/2_two.up.sql", up.replace('\r', ""));
    let failed = project.fails(&["db-migrate"], 3);
    assert!(
        failed.report.contains("was edited after it was applied"),
        "{}",
        failed.report
    );
}

// The files against the history.

#[test]
fn an_applied_file_that_was_edited_is_told() {
    let project = migrated();
    let file = "migrations/20251231143000_add_users_last_login_at.up.sql";
    let text = fs::read_to_string(project.path(file)).expect("reads");
    project.write(file, text.replace("timestamptz", "timestamp"));
    project.write(
        "migrations/20260101000000_next.up.sql",
        "CREATE TABLE next ();\n",
    );
    let failed = project.fails(&["db-migrate"], 3);
    failed.reads("", expect![[r#"
        error: cannot migrate: the files and the history disagree
        caused by: `migrations/20251231143000_add_users_last_login_at.up.sql` was edited after it was applied (SHA-384 `cee98d49…` in the history, `f74a6d64…` now)

        hint: see what changed; only comments and white space can be recorded, any other change is a migration of its own: cargo xtask db-repair
    "#]]);
    project.fails(&["db-rollback", "--yes"], 3);
    let status = project.xtask(&["db-status", "--check"]).exits(3);
    assert!(status.stdout.contains("divergent"), "{}", status.stdout);
}

#[test]
fn an_applied_file_that_is_gone_is_told() {
    let project = migrated();
    for ending in ["up.sql", "down.sql"] {
        let file = format!("migrations/20251231143100_index_users_last_login_at.{ending}");
        fs::remove_file(project.path(&file)).expect("removes");
    }
    let verify = "migrations/verify/20251231143100_index_users_last_login_at.sql";
    fs::remove_file(project.path(verify)).expect("removes");
    let failed = project.fails(&["db-migrate"], 3);
    failed.reads("", expect![[r#"
        error: cannot migrate: the files and the history disagree
        caused by: `20251231143100` (index users last login at) was applied on [INSTANT] and its file is gone

        hint: see which branch or commit has it: cargo xtask db-repair
        hint: or, if another folder with the same history has it: cargo xtask db-migrate --ignore-missing
    "#]]);
    project.fails(&["db-rollback", "--yes"], 3);
    let status = project.xtask(&["db-status", "--check"]).exits(3);
    assert!(status.stdout.contains("missing"), "{}", status.stdout);
}

#[test]
fn a_pending_version_older_than_the_newest_applied_is_run_only_if_allowed() {
    let project = migrated();
    project.write(
        "migrations/20251215000000_late.up.sql",
        "CREATE TABLE late ();\n",
    );
    project
        .fails(&["db-migrate"], 3)
        .reads("", expect![[r#"
            error: cannot migrate: the files and the history disagree
            caused by: `migrations/20251215000000_late.up.sql` is pending, yet older than the newest applied, `20251231143100`

            hint: rename the pending files to versions above `20251231143100`, or, if order does not matter: cargo xtask db-migrate --allow-out-of-order
        "#]]);
    project
        .xtask(&["db-migrate", "--allow-out-of-order"])
        .succeeds();
    assert_eq!(project.value("SELECT to_regclass('late')"), "late");
}

// The table.

#[test]
fn users_in_another_schema_is_not_taken_for_ours() {
    let project = Project::new();
    project.sql(
        "CREATE SCHEMA other;
         CREATE TABLE other.users (id int PRIMARY KEY)",
    );
    // Without the baseline, which would make ours.
    for file in ["up.sql", "down.sql"] {
        let file = format!("migrations/{BASELINE}_create_users.{file}");
        fs::remove_file(project.path(&file)).expect("removes");
    }
    let verify = format!("migrations/verify/{BASELINE}_create_users.sql");
    fs::remove_file(project.path(&verify)).expect("removes");
    project
        .fails(&["db-migrate"], 1)
        .reads("42P01", expect![[r#"
            error: there is no table `users` in schema `public` (SQLSTATE 42P01)
            caused by: there is one in: other

            hint: if that is the one, set the search path: cargo xtask db-migrate --database-url 'postgres://admin@127.0.0.1:[PORT]/[DATABASE]?options=-csearch_path%3Dother'
        "#]]);
    project
        .fails(&["db-backup"], 1)
        .reads("42P01", expect![[r#"
            error: there is no table `users` in schema `public` (SQLSTATE 42P01)
            caused by: there is one in: other

            hint: if that is the one, set the search path: cargo xtask db-backup --database-url 'postgres://admin@127.0.0.1:[PORT]/[DATABASE]?options=-csearch_path%3Dother'
        "#]]);
}

/// A database in which `users` was made by hand and the baseline recorded all the same.
fn with_users(sql: &str) -> Project {
    let project = migrated();
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    project.sql(&format!("DROP TABLE sessions; DROP TABLE users; {sql}"));
    project
}

#[test]
fn users_that_is_a_view_is_told() {
    let project = with_users("CREATE TABLE people (id int); CREATE VIEW users AS TABLE people");
    project.fails(&["db-migrate"], 1).reads(
        "42809",
        expect![[r#"
            error: `public.users` is a view, not a table (SQLSTATE 42809)
            caused by: it can be neither altered as a table nor backed up

            hint: see what is behind it: cargo xtask db-psql -- -c '\d+ public.users'
            hint: name a table in the migration, then: cargo xtask db-migrate
        "#]],
    );
    project.fails(&["db-backup"], 1).reads(
        "42809",
        expect![[r#"
            error: `public.users` is a view, not a table (SQLSTATE 42809)
            caused by: it can be neither altered as a table nor backed up

            hint: see what is behind it: cargo xtask db-psql -- -c '\d+ public.users'
            hint: name a table in the migration, then: cargo xtask db-backup
        "#]],
    );
}

#[test]
fn users_that_is_partitioned_takes_the_column_but_no_concurrent_index() {
    let project = with_users(
        "CREATE TABLE users (id int, email text) PARTITION BY RANGE (id);
         CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (1) TO (1000);
         INSERT INTO users VALUES (1, 'a@example.org')",
    );
    project
        .fails(&["db-migrate"], 1)
        .reads("0A000", expect![[r#"
            error: `public.users` is a partitioned table (SQLSTATE 0A000)
            caused by: PostgreSQL cannot create an index on a partitioned table concurrently

            hint: create it on each partition concurrently, then ON ONLY the parent, and attach them; then: cargo xtask db-migrate --dry-run
        "#]]);
    // The column alone is fine, but pg_dump of the parent would hold no row of its partitions.
    project
        .fails(&["db-migrate", "--to", "20251231143000"], 1)
        .reads("0A000", expect![[r#"
            error: `public.users` is a partitioned table (SQLSTATE 0A000)
            caused by: its rows are in its partitions: a backup of it alone would hold none

            hint: list them: cargo xtask db-psql -- -c '\d+ public.users'
            hint: name each: in the migration, `-- xtask: backup PARTITION`, or: cargo xtask db-backup PARTITION
            hint: or continue without a backup: cargo xtask db-migrate --to 20251231143000 --no-backup
        "#]]);
    project
        .xtask(&["db-migrate", "--to", "20251231143000", "--no-backup"])
        .succeeds();
}

#[test]
fn a_role_that_may_not_keep_the_history_is_told() {
    let project = Project::new();
    let role = format!("{}_guest", project.database);
    project.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'guest'"));
    let url = url_as(&role, "guest", &project.database);
    // The history is not there yet: since PostgreSQL 15 not everybody may create in `public`.
    project.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    project
        .fails(&["db-migrate", "--database-url", &url], 1)
        .reads("42501", expect![[r#"
            error: role `[DATABASE]_guest` may not create the history table in schema `public` (SQLSTATE 42501)

            hint: connect as the database's owner: cargo xtask db-migrate --database-url postgres://OWNER@127.0.0.1:[PORT]/[DATABASE]
        "#]]);
    // It is there and may only be read.
    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    project.sql(&format!("GRANT SELECT ON _sqlx_migrations TO {role}"));
    project
        .fails(&["db-migrate", "--database-url", &url], 1)
        .reads("42501", expect![[r#"
            error: role `[DATABASE]_guest` may not write the history table `public._sqlx_migrations` (SQLSTATE 42501)

            hint: connect as its owner: cargo xtask db-migrate --database-url postgres://OWNER@127.0.0.1:[PORT]/[DATABASE]
        "#]]);
    // Not even read.
    project.sql(&format!("REVOKE ALL ON _sqlx_migrations FROM {role}"));
    project
        .fails(&["db-migrate", "--database-url", &url], 1)
        .reads("42501", expect![[r#"
            error: cannot read the history table `public._sqlx_migrations` (SQLSTATE 42501)
            caused by: permission denied for table _sqlx_migrations
            caused by: this role lacks a privilege: to alter a table it must be the owner or a superuser, to back it up it needs SELECT

            hint: connect as the table's owner (db-doctor shows who that is): cargo xtask db-migrate --database-url postgres://OWNER@HOST/DATABASE
        "#]]);
}

// The server.

#[test]
fn a_standby_is_told_from_a_primary_and_left_alone() {
    let standby = start_server(&[]);
    let mut project = Project::new();
    project.url = standby.url("postgres");
    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    // With this file it recovers for ever: a standby that waits for its primary.
    let cluster = standby.cluster();
    cluster.stop(Stop::Fast).expect("stops");
    let signal = cluster.folder().join("data/standby.signal");
    fs::write(&signal, "").expect("writes");
    chmod(0o666, &signal);
    cluster.start(&[installation()]).expect("starts");

    for arguments in [&["db-migrate"] as &[_], &["db-rollback", "--yes"]] {
        let failed = project.fails_elsewhere(1, || project.command(arguments));
        assert_eq!(failed.error["sqlstate"], "25006");
        let report = failed
            .report
            .replace(&standby.port().to_string(), "[STANDBY]");
        assert!(
            report.contains("is a standby: it accepts reads only"),
            "{report}"
        );
        assert!(
            report.contains("target_session_attrs=read-write"),
            "{report}"
        );
        assert!(!failed.stderr.contains(standby.password()));
    }
    // What only reads works.
    let status = project.xtask(&["db-status"]).succeeds();
    assert!(status.stdout.contains("applied"), "{}", status.stdout);
    project.xtask(&["db-verify"]).succeeds();
    let doctor = project.xtask(&["db-doctor"]).exits(3);
    assert!(doctor.stdout.contains("FAIL  server"), "{}", doctor.stdout);
    // Its address with `read-write` asks for another server, and says so.
    let wanting = format!("{}?target_session_attrs=read-write", project.url);
    let failed = project.fails_elsewhere(1, || {
        project.unconfigured(&["db-migrate", "--database-url", &wanting])
    });
    assert!(
        failed.report.contains("the session is read-only"),
        "{}",
        failed.report
    );
}

// The backups folder.

/// A migration that backs up, told that there is no place for it.
#[track_caller]
fn no_place_for_backups(project: &Project, command: impl Fn() -> Command) -> Failed {
    let failed = project.fails_with(1, command);
    let report = &failed.report;
    assert!(report.contains("nothing was changed"), "{report}");
    assert!(
        report.contains("cargo xtask db-migrate --backups DIR"),
        "{report}"
    );
    failed
}

#[test]
fn a_backups_folder_below_a_file_is_told() {
    let project = adopted();
    project.write("file", "");
    let failed = no_place_for_backups(&project, || {
        project.command(&["db-migrate", "--backups", "file/backups"])
    });
    failed.reads(
        "",
        expect![[r#"
            error: cannot make the backup folder `[WORKSPACE]/file/backups`
            caused by: Not a directory (os error 20)
            state: no migration has run; nothing was changed

            hint: choose a folder that you may write: cargo xtask db-migrate --backups DIR
        "#]],
    );
    let failed = no_place_for_backups(&project, || {
        project.command(&["db-migrate", "--backups", "file"])
    });
    failed.reads(
        "",
        expect![[r#"
            error: cannot make the backup folder `[WORKSPACE]/file`
            caused by: it is a file
            state: no migration has run; nothing was changed

            hint: choose a folder that you may write: cargo xtask db-migrate --backups DIR
        "#]],
    );
}

/// The program on a small file system of its own as its `backups`, which goes away with it.
fn on_small_disk(project: &Project, mount: &str) -> Command {
    let mut command = project.program("unshare");
    let script = format!(
        "mount -t tmpfs -o mode=700,{mount} tmpfs backups || exit
         \"$@\"; status=$?
         # What is left of a backup is told, and so is no part of what is expected.
         find backups -name '*_backup_*' >&2; exit $status"
    );
    command
        .args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .args([XTASK, "db-migrate"])
        .env("DATABASE_URL", &project.url);
    command
}

/// Whether this machine lets us mount a file system that only our own programs see.
fn can_mount(project: &Project) -> bool {
    fs::create_dir_all(project.path("backups")).expect("makes a folder");
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=64k tmpfs backups")
        .current_dir(project.path(""))
        .status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_backup() {
    let project = adopted();
    if !can_mount(&project) {
        return skipped("no file system can be mounted here (unshare --map-root-user --mount)");
    }
    // Found before anything is written: the table is larger than the disk.
    project.sql(
        "INSERT INTO users (email, password_hash, display_name)
         SELECT 'user' || i || '@example.org', repeat(md5(i::text), 10), 'U'
         FROM generate_series(1, 2000) AS i",
    );
    let no_room = no_place_for_backups(&project, || on_small_disk(&project, "size=256k"));
    no_room.reads(
        "",
        expect![[r#"
        error: not enough disk space for the backup
        caused by: [SIZE] free in `[WORKSPACE]/backups`, and the tables take [SIZE]
        state: nothing was changed

        hint: choose a folder with more space: cargo xtask db-migrate --backups DIR
    "#]],
    );
    // Found on the way: the server keeps compressed what the dump has in full.
    project.sql(
        "TRUNCATE users CASCADE;
         INSERT INTO users (email, password_hash, display_name)
         VALUES ('a@example.org', repeat('x', 1000000), 'A')",
    );
    let full = no_place_for_backups(&project, || on_small_disk(&project, "size=256k"));
    full.reads(
        "",
        expect![[r#"
        error: cannot back up `public.users`
        caused by: No space left on device (os error 28)
        state: no migration has run; nothing was changed

        hint: free space or choose another folder: cargo xtask db-migrate --backups DIR
    "#]],
    );
}

#[test]
fn a_backups_folder_that_may_not_be_written_is_told() {
    let project = adopted();
    if !can_mount(&project) {
        return skipped("no file system can be mounted here (unshare --map-root-user --mount)");
    }
    let failed = no_place_for_backups(&project, || on_small_disk(&project, "ro"));
    let message = failed.error["message"].as_str().expect("a message");
    assert_eq!(
        project.normalise(message),
        "cannot write into the backup folder `[WORKSPACE]/backups`"
    );
}

// The tools.

fn script(project: &Project, file: &str, text: &str) {
    project.write(file, text);
    chmod(0o755, project.path(file));
}

#[test]
fn a_pg_dump_older_than_the_server_is_refused_before_it_runs() {
    let project = adopted();
    script(
        &project,
        "old/pg_dump",
        "#!/bin/sh\n[ \"$*\" = --version ] && echo 'pg_dump (PostgreSQL) 13.2' && exit\n\
         touch ran; exit 1\n",
    );
    let psql = project.path("old/psql");
    std::os::unix::fs::symlink(tool("psql").get_program(), psql).expect("links");
    let failed = project.fails_with(1, || {
        let mut command = project.command(&["db-migrate"]);
        command.env("PG_BIN_DIR", project.path("old"));
        command
    });
    let major = server_major();
    let report = failed.report.replace(&format!(" {major}"), " [MAJOR]");
    expect![[r#"
        error: cannot back up `public.users`
        caused by: the newest `pg_dump` is 13.2, the server is [MAJOR]
        caused by: pg_dump cannot read a server newer than itself
        caused by: found: [WORKSPACE]/old/pg_dump
        state: no migration has run; nothing was changed

        hint: install the client programs of PostgreSQL [VERSION] or newer ([INSTALL]), or name their folder: export PG_BIN_DIR=/path/to/bin
        hint: then: cargo xtask db-migrate
    "#]]
    .assert_eq(&report);
    assert!(!project.path("ran").exists());
}

fn server_major() -> String {
    let version = crate::common::admin("postgres")
        .query_one("SHOW server_version", &[])
        .expect("a version")
        .get::<_, String>(0);
    version.split('.').next().unwrap_or_default().to_owned()
}

#[test]
fn a_missing_psql_is_told_before_anything_changes() {
    let project = adopted();
    fs::create_dir(project.path("empty")).expect("makes a folder");
    let failed = project.fails_with(1, || {
        let mut command = project.command(&["db-migrate", "--no-backup"]);
        command.env("PG_BIN_DIR", project.path("empty"));
        command
    });
    failed.reads("", expect![[r#"
        error: command not found: `psql`
        caused by: looked only in PG_BIN_DIR, `[WORKSPACE]/empty`
        state: no migration has run; nothing was changed

        hint: [INSTALL]
        hint: if it is installed, name the folder that holds `psql`: export PG_BIN_DIR=/path/to/postgresql/bin
        hint: then: cargo xtask db-doctor
    "#]]);
}

#[test]
fn a_psql_that_fails_to_start_is_told() {
    let project = adopted();
    let version = format!("echo 'psql (PostgreSQL) {}.0'", server_major());
    script(
        &project,
        "broken/psql",
        &format!(
            "#!/bin/sh\n[ \"$*\" = --version ] && {version} && exit\necho 'libpq.so.5: not found' >&2; exit 127\n"
        ),
    );
    let failed = project.fails_with(1, || {
        let mut command = project.command(&["db-migrate", "--no-backup"]);
        command.env("PG_BIN_DIR", project.path("broken"));
        command
    });
    failed.reads(
        "",
        expect![[r#"
            error: cannot open a session with psql
            caused by: libpq.so.5: not found
            state: no migration has run; nothing was changed

            hint: cargo xtask db-doctor
        "#]],
    );
}

// What a verify file gets wrong.

#[test]
fn a_verify_file_that_cannot_run_is_told_by_its_own_name() {
    let project = adopted();
    let verify = "migrations/verify/20251231143000_add_users_last_login_at.sql";
    project.write(
        verify,
        "SELECT 'there' AS check,\n       nope AS ok FROM users;\n",
    );
    project
        .fails(&["db-migrate"], 1)
        .reads("42703", expect![[r#"
            error: cannot run a check of `migrations/verify/20251231143000_add_users_last_login_at.sql` (SQLSTATE 42703)
            caused by: column "nope" does not exist
             --> migrations/verify/20251231143000_add_users_last_login_at.sql:2:8
              |
            2 |        nope AS ok FROM users;
              |        ^
            server hint: Perhaps you meant to reference the column "users.role".
            state: `20251231143000_add_users_last_login_at` was rolled back: it has changed nothing
            state: not started: `20251231143100_index_users_last_login_at`

            hint: fix the check, then: cargo xtask db-migrate
        "#]]);
    project.write(verify, "SELECT 1;\n");
    let failed = project.fails(&["db-migrate"], 2);
    assert!(
        failed.report.contains("a check returns two columns"),
        "{}",
        failed.report
    );
    assert!(failed.report.contains(verify), "{}", failed.report);
}

#[test]
fn outside_of_a_workspace_there_is_nothing_to_run_on() {
    let project = Project::new();
    let outside = tempfile::tempdir().expect("a temporary folder");
    assert!(!outside.path().ancestors().any(has_lock_file));
    let mut command = project.command(&["db-status"]);
    let run = Run::of(command.current_dir(outside.path())).exits(2);
    assert!(
        run.stderr.contains("not in a Cargo workspace"),
        "{}",
        run.stderr
    );
}

fn has_lock_file(folder: &Path) -> bool {
    folder.join("Cargo.lock").exists()
}

// A person who thinks again.

#[test]
fn ctrl_c_at_a_prompt_changes_nothing() {
    let project = migrated();
    let before = project.dump();
    for arguments in [
        &["db-rollback"] as &[_],
        &["db-redo"],
        &["db-rollback", "--all"],
    ] {
        let Some(mut terminal) = Terminal::run(&project.command(arguments)) else {
            return skipped("no `script` to give a program a terminal");
        };
        terminal.read_until("[y/N] ");
        terminal.press(CTRL_C);
        let (status, said) = terminal.end();
        assert_eq!(status, 130, "{said}");
        assert!(said.contains("interrupted: nothing was changed"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(before, project.dump());
    }
    // Nothing is left that would be in the way: neither a session nor a lock.
    let run = project.xtask(&["db-rollback", "--yes", "--lock-deadline", "1s"]);
    run.succeeds();
}

#[test]
fn any_answer_but_yes_is_no() {
    let project = migrated();
    let before = project.dump();
    for answer in ["\r", "n\r", "yesterday\r", CTRL_D] {
        let Some(mut terminal) = Terminal::run(&project.command(&["db-rollback"])) else {
            return skipped("no `script` to give a program a terminal");
        };
        terminal.read_until("[y/N] ");
        terminal.press(answer);
        let (status, said) = terminal.end();
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
        assert_eq!(before, project.dump());
    }
}

#[test]
fn in_psql_ctrl_c_leaves_a_line_and_not_the_session() {
    let project = Project::new();
    let Some(mut terminal) = Terminal::run(&project.command(&["db-psql", "--", "-X"])) else {
        return skipped("no `script` to give a program a terminal");
    };
    let prompt = format!("{}=# ", project.database);
    for _ in 0..3 {
        terminal.read_until(&prompt);
        terminal.press("SELECT nonsense");
        terminal.read_until("nonsense");
        terminal.press(CTRL_C);
    }
    terminal.read_until(&prompt);
    terminal.press("\\q\r");
    let (status, said) = terminal.end();
    assert_eq!(status, 0, "{said}");
}

/// `cargo install` gives one program, for an image that has no workspace.
#[test]
fn outside_of_a_workspace_the_migrations_are_enough() {
    let project = Project::new();
    for file in ["Cargo.lock", "Cargo.toml"] {
        std::fs::remove_file(project.path(file)).expect("removes it");
    }
    project
        .xtask(&["db-migrate", "--to", "20251201000000"])
        .succeeds();
    let status = project.xtask(&["db-status"]).succeeds();
    assert!(
        status.stderr.contains("hint: xtask db-migrate"),
        "{}",
        status.stderr
    );
    let moved = project.path("elsewhere");
    std::fs::rename(project.path("migrations"), &moved).expect("moves");
    project
        .xtask(&["db-status"])
        .exits(2)
        .says("not in a Cargo workspace")
        .says("--migrations DIR");
    project
        .xtask(&["db-status", "--migrations", "elsewhere"])
        .succeeds();
}
