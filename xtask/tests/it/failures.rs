//! The failure tables of the guide that this replaces, row by row: each failure is made to happen,
//! and what a person reads then is written out here. And where in a file a statement failed.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use postgres::NoTls;

use crate::common::{Project, dump, installation, start_server, url_as};
use crate::failing::skipped;

/// A database with a table `users` of three rows, and two migrations that are pending: the one
/// given, and one after it.
fn pending(up: &str) -> Project {
    let project = Project::empty();
    project.write(
        "migrations/1_create_users.up.sql",
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL UNIQUE);\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("INSERT INTO users VALUES (1, 'a@example.org'), (2, 'b@example.org'), (3, 'c')");
    project.write("migrations/2_change.up.sql", up);
    project.write(
        "migrations/3_later.up.sql",
        "ALTER TABLE users ADD COLUMN later int;\n",
    );
    project
}

/// The migration of the guide, `2_change`.
const ADD_COLUMN: &str = "-- xtask: backup users\n\n\
    ALTER TABLE users\n    ADD COLUMN IF NOT EXISTS last_login_at timestamptz;\n";

/// The address of the project's database for a role of its own, which may keep the history.
fn role(project: &Project) -> (String, String) {
    let name = format!("{}_app", project.database);
    project.sql(&format!(
        "CREATE ROLE {name} LOGIN PASSWORD 'open sesame';
         GRANT CREATE ON SCHEMA public TO {name};
         GRANT SELECT, INSERT, DELETE ON _sqlx_migrations TO {name}"
    ));
    let url = url_as(&name, "open%20sesame", &project.database);
    (name, url)
}

// Step 1: the backup.

#[test]
fn a_refused_connection_names_the_command_that_starts_the_server() {
    let mut project = Project::new();
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = listener.local_addr().expect("an address").port();
    drop(listener);
    let reachable = std::mem::replace(
        &mut project.url,
        format!("postgresql://admin:secret@127.0.0.1:{closed}/myapp_dev"),
    );
    let failed = project.fails_elsewhere(1, || project.command(&["db-migrate"]));
    project.url = reachable;
    assert!(!failed.stderr.contains("secret"));
    let report = failed.report.replace(&closed.to_string(), "[CLOSED]");
    assert!(failed.error["sqlstate"].is_null());
    expect![[r#"
        error: cannot connect to `myapp_dev` on `127.0.0.1:[CLOSED]` as `admin`
        caused by: Connection refused (os error 111)

        hint: start PostgreSQL: [START]
        hint: or use a private server for development: unset DATABASE_URL, remove it from `.env`, then: cargo xtask db-setup
    "#]]
    .assert_eq(&report);
}

#[test]
fn a_role_that_may_not_read_the_table_is_told_before_the_backup() {
    let project = pending(ADD_COLUMN);
    let (role, url) = role(&project);
    // The owner may alter it whatever is granted, but not read it.
    project.sql(&format!(
        "ALTER TABLE users OWNER TO {role}; REVOKE SELECT ON users FROM {role}"
    ));
    let failed = project.fails(&["db-migrate", "--database-url", &url], 1);
    failed.reads("42501", expect![[r#"
        error: role `[DATABASE]_app` may not read `public.users` (SQLSTATE 42501)
        caused by: a backup reads every row, and the table's sequences
        caused by: it belongs to `[DATABASE]_app`

        hint: allow it, as a superuser: cargo xtask db-psql --database-url postgres://postgres@127.0.0.1:[PORT]/[DATABASE] -- -c 'GRANT SELECT ON public.users TO [DATABASE]_app'
    "#]]);
    assert!(!project.path("backups").exists());
}

#[test]
fn a_missing_pg_dump_names_the_command_that_installs_it() {
    let project = pending(ADD_COLUMN);
    let folder = project.path("psql only");
    std::fs::create_dir(&folder).expect("makes a folder");
    std::os::unix::fs::symlink(installation().program("psql"), folder.join("psql")).expect("links");
    let failed = project.fails_with(1, || {
        let mut command = project.command(&["db-migrate"]);
        command.env("PG_BIN_DIR", &folder);
        command
    });
    failed.reads("", expect![[r#"
        error: cannot back up `public.users`
        caused by: command not found: `pg_dump`
        caused by: looked only in PG_BIN_DIR, `[WORKSPACE]/psql only`
        state: no migration has run; nothing was changed

        hint: [INSTALL]
        hint: if it is installed, name the folder that holds `pg_dump`: export PG_BIN_DIR=/path/to/postgresql/bin
        hint: then: cargo xtask db-doctor
    "#]]);
}

// Step 2: the column.

#[test]
fn a_column_that_exists_is_told_with_its_remedy() {
    let project = pending("-- Not repeatable.\nALTER TABLE users\n    ADD COLUMN email text;\n");
    project
        .fails(&["db-migrate"], 1)
        .reads("42701", expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE 42701)
            caused by: column "email" of relation "users" already exists
            caused by: a column of that name exists already, and the statement does not say IF NOT EXISTS
             --> migrations/2_change.up.sql:2:1
              |
            2 | ALTER TABLE users
              | ^
            state: `2_change` was rolled back: it has changed nothing
            state: not started: `3_later`

            hint: if that column is the right one, write ADD COLUMN IF NOT EXISTS, let the verify file check its type, then: cargo xtask db-migrate
        "#]]);
}

#[test]
fn a_role_that_may_not_alter_the_table_is_told_who_may() {
    let project = pending(ADD_COLUMN);
    let (role, url) = role(&project);
    project.sql(&format!("GRANT SELECT ON users TO {role}"));
    project
        .fails(&["db-migrate", "--database-url", &url], 1)
        .reads("42501", expect![[r#"
            error: role `[DATABASE]_app` may not alter `public.users` (SQLSTATE 42501)
            caused by: it belongs to `admin`

            hint: connect as its owner: cargo xtask db-migrate --database-url postgres://admin@127.0.0.1:[PORT]/[DATABASE]
        "#]]);
    assert!(!project.path("backups").exists());
}

#[test]
fn syntax_that_the_server_does_not_know_is_pointed_at() {
    let project = pending("ALTER TABLE users\n    ADD COLUMN IF NOT PRESENT nickname text;\n");
    project.fails(&["db-migrate"], 1).reads(
        "42601",
        expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE 42601)
            caused by: syntax error at or near "PRESENT"
            caused by: the statement is not valid for this server; newer syntax needs a newer server
             --> migrations/2_change.up.sql:2:23
              |
            2 |     ADD COLUMN IF NOT PRESENT nickname text;
              |                       ^
            state: `2_change` was rolled back: it has changed nothing
            state: not started: `3_later`

            hint: compare with the server's version: cargo xtask db-psql -- -c 'SELECT version()'
            hint: fix the file, then: cargo xtask db-migrate
        "#]],
    );
}

// Step 3: the index.

#[test]
fn an_index_built_concurrently_inside_a_transaction_is_told_the_first_line() {
    let project = pending("CREATE INDEX CONCURRENTLY users_email ON users (email);\n");
    project
        .fails(&["db-migrate"], 1)
        .reads("25001", expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE 25001)
            caused by: CREATE INDEX CONCURRENTLY cannot run inside a transaction block
            caused by: this statement cannot run inside a transaction, and a migration is one by default
             --> migrations/2_change.up.sql:1:1
              |
            1 | CREATE INDEX CONCURRENTLY users_email ON users (email);
              | ^
            state: `2_change` was rolled back: it has changed nothing
            state: not started: `3_later`

            hint: make `-- no-transaction` the first line of the file, alone with this statement, then: cargo xtask db-migrate
        "#]]);
}

#[test]
fn an_index_that_exists_is_told_with_its_remedy() {
    let project =
        pending("-- no-transaction\nCREATE INDEX CONCURRENTLY users_email ON users (email);\n");
    project.sql("CREATE INDEX users_email ON users (email)");
    project
        .fails(&["db-migrate"], 1)
        .reads("42P07", expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE 42P07)
            caused by: relation "users_email" already exists
            caused by: a table or index of that name exists already, and the statement does not say IF NOT EXISTS
             --> migrations/2_change.up.sql:2:1
              |
            2 | CREATE INDEX CONCURRENTLY users_email ON users (email);
              | ^
            state: `2_change` did not take effect; it is not recorded
            state: not started: `3_later`

            hint: check that it is the right one and valid: cargo xtask db-psql -- -c '\d users'
            hint: if it is, write IF NOT EXISTS, then: cargo xtask db-migrate
            hint: if the whole schema was there before: cargo xtask db-baseline
        "#]]);
}

#[test]
fn an_index_of_another_definition_is_shown_beside_the_wanted_one() {
    let project = pending(
        "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS users_email ON users (email);\n",
    );
    project.sql("CREATE INDEX users_email ON users (id)");
    project
        .fails(&["db-migrate"], 3)
        .reads("", expect![[r#"
            error: index `public.users_email` exists with a different definition
            caused by: found:  CREATE INDEX USING btree (id)
            caused by: expected: CREATE INDEX USING btree (email)
            state: no migration has run; nothing was changed

            hint: if the migration is right, drop the existing index: cargo xtask db-psql -- -c 'DROP INDEX CONCURRENTLY public.users_email'
            hint: then: cargo xtask db-migrate
        "#]]);
}

#[test]
fn a_locked_table_is_left_alone_and_its_holder_named() {
    let project = pending(ADD_COLUMN);
    let mut holder = project.client();
    holder
        .batch_execute("SET application_name = 'report'; BEGIN; LOCK users IN ACCESS SHARE MODE")
        .expect("holds a lock");
    let row = holder.query_one("SELECT pg_backend_pid()", &[]);
    let holder_pid = row.expect("a row").get::<_, i32>(0).to_string();
    let started = Instant::now();
    let failed = project.fails(&["db-migrate", "--lock-deadline", "300ms"], 4);
    assert_eq!(failed.error["sqlstate"], "55P03");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(
        failed.stderr.contains("application report"),
        "{}",
        failed.stderr
    );
    let report = failed.report.replace(&holder_pid, "[PID]");
    expect![[r#"
        error: could not acquire the lock on `users` within [TIME] (SQLSTATE 55P03)
        caused by: in the way: pid [PID], user admin, application report, idle in transaction, in its transaction for [TIME]
        caused by: 1 try in [TIME], none longer than [TIME] in the queue
         --> migrations/2_change.up.sql:3:1
          |
        3 | ALTER TABLE users
          | ^
        state: `2_change` was rolled back: it has changed nothing
        state: not started: `3_later`

        hint: let it end, or end it: cargo xtask db-psql -- -c 'SELECT pg_terminate_backend([PID])'
        hint: then: cargo xtask db-migrate --lock-deadline 300ms
    "#]].assert_eq(&report);
    // Given back, it works: nothing was left behind.
    drop(holder);
    project.xtask(&["db-migrate"]).succeeds();
}

/// ACCESS EXCLUSIVE stops even a look at the table's size, and a backup: neither may wait for ever.
#[test]
fn behind_an_exclusive_lock_every_command_ends() {
    let project = pending(ADD_COLUMN);
    let mut holder = project.client();
    holder
        .batch_execute("BEGIN; LOCK users IN ACCESS EXCLUSIVE MODE")
        .expect("holds a lock");
    let row = holder.query_one("SELECT pg_backend_pid()", &[]);
    let pid = row.expect("a row").get::<_, i32>(0).to_string();
    project.xtask(&["db-status"]).succeeds();
    project.xtask(&["db-migrate", "--dry-run"]).succeeds();
    let run = project.xtask(&["db-doctor"]).succeeds();
    assert!(run.stdout.contains("ok  tables"), "{}", run.stdout);
    let fails = |arguments: &[&str]| {
        let deadline = ["--lock-deadline", "300ms"];
        let run = project.xtask(&[arguments, &deadline].concat()).exits(4);
        let (_, report) = run.stderr.split_once("error: ").expect("an error");
        project.portable(report).replace(&pid, "[PID]")
    };
    expect![[r#"
        cannot back up `public.users` (SQLSTATE 55P03)
        caused by: cannot lock `public.users` for reading within [TIME]
        caused by: in the way: pid [PID], user admin, idle in transaction, in its transaction for [TIME]
        state: no migration has run; nothing was changed

        hint: let it end, or end it: cargo xtask db-psql -- -c 'SELECT pg_terminate_backend([PID])'
        hint: then: cargo xtask db-migrate --lock-deadline 300ms
    "#]].assert_eq(&fails(&["db-migrate"]));
    let unproven = fails(&["db-migrate", "--proof", "none"]);
    assert!(unproven.contains("(SQLSTATE 55P03)"), "{unproven}");
    assert!(fails(&["db-migrate", "--no-backup"]).contains("could not acquire the lock"));
    drop(holder);
    project.xtask(&["db-migrate"]).succeeds();
}

// What a run that failed half way says.

#[test]
fn a_run_that_fails_half_way_says_what_is_done_undone_and_not_begun() {
    let project = pending("ALTER TABLE users ADD COLUMN one int;\n");
    project.write(
        "migrations/3_later.up.sql",
        "ALTER TABLE users ADD COLUMN two int;\nALTER TABLE users ADD COLUMN one int;\n",
    );
    project.write("migrations/4_last.up.sql", "CREATE TABLE last ();\n");
    let run = project.xtask(&["db-migrate"]).exits(1);
    let (_, report) = run.stderr.split_once("error: ").expect("an error");
    expect![[r#"
        cannot apply `migrations/3_later.up.sql` (SQLSTATE 42701)
        caused by: column "one" of relation "users" already exists
        caused by: a column of that name exists already, and the statement does not say IF NOT EXISTS
         --> migrations/3_later.up.sql:2:1
          |
        2 | ALTER TABLE users ADD COLUMN one int;
          | ^
        state: applied by this run: `2_change`
        state: `3_later` was rolled back: it has changed nothing
        state: not started: `4_last`

        hint: if that column is the right one, write ADD COLUMN IF NOT EXISTS, let the verify file check its type, then: cargo xtask db-migrate
    "#]].assert_eq(&project.portable(report));
    assert_eq!(
        project.value("SELECT string_agg(version::text, ' ') FROM _sqlx_migrations"),
        "1 2"
    );
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute \
                   WHERE attrelid = 'users'::regclass AND attnum > 0";
    assert_eq!(project.value(columns), "id email one");
    // Mended, the run goes on where it ended.
    project.write(
        "migrations/3_later.up.sql",
        "ALTER TABLE users ADD COLUMN two int;\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(project.value(columns), "id email one two");
}

#[test]
fn outside_a_transaction_what_took_effect_is_said() {
    let project = pending(
        "-- no-transaction\n\
         ALTER TABLE users ADD COLUMN IF NOT EXISTS one int;\n\
         CREATE INDEX CONCURRENTLY users_two ON users (two);\n",
    );
    let run = project.xtask(&["db-migrate"]).exits(1);
    let (_, report) = run.stderr.split_once("error: ").expect("an error");
    expect![[r#"
        cannot apply `migrations/2_change.up.sql` (SQLSTATE 42703)
        caused by: column "two" does not exist
        caused by: the table has no column of that name
         --> migrations/2_change.up.sql:3:1
          |
        3 | CREATE INDEX CONCURRENTLY users_two ON users (two);
          | ^
        state: `2_change`: the first of 2 statements took effect, the rest did not; it is not recorded
        state: not started: `3_later`

        hint: look what it has: cargo xtask db-psql -- -c '\d users'
        hint: fix the file, then: cargo xtask db-migrate
    "#]].assert_eq(&project.portable(report));
}

// Servers speak the user's language.

#[test]
fn a_server_that_speaks_german_gets_the_same_hints() {
    let Some(locale) = german() else {
        return skipped("no German locale: localedef -i de_DE -f UTF-8 de_DE.UTF-8");
    };
    let server = start_server(&[("lc_messages", &locale)]);
    let url = server.url("postgres");
    let mut client = postgres::Client::connect(&url, NoTls).expect("connects");
    let english = client.batch_execute("SELECT 1/0").expect_err("fails");
    if english.as_db_error().expect("the server's").message() == "division by zero" {
        return skipped("this server is built without its translations: --enable-nls");
    }
    let mut project = Project::empty();
    project.url = url.clone();

    let table = [
        ("ALTER TABLE users ADD COLUMN email text;\n", 1, "42701"),
        ("ALTER TABLE users\n  AD COLUMN x text;\n", 1, "42601"),
        (
            "CREATE INDEX CONCURRENTLY i ON users (email);\n",
            1,
            "25001",
        ),
        ("CREATE SEQUENCE users;\n", 1, "42P07"),
        ("ALTER TABLE users ADD COLUMN x text;\n", 4, "55P03"),
    ];
    project.write(
        "migrations/1_create_users.up.sql",
        "CREATE TABLE users (id int PRIMARY KEY, email text);\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    for (up, status, sqlstate) in table {
        project.write("migrations/2_change.up.sql", up);
        if status == 4 {
            client.batch_execute("BEGIN; LOCK users").expect("locks");
        }
        let before = (status != 4).then(|| dump(&url, &[]));
        let failed = project.fails_elsewhere(status, || {
            project.command(&["db-migrate", "--lock-deadline", "200ms"])
        });
        assert_eq!(failed.error["sqlstate"], sqlstate, "{}", failed.report);
        assert!(before.is_none_or(|before| before == dump(&url, &[])));
        // The server says it in its own language.
        let english = [
            "already exists",
            "syntax error",
            "transaction block",
            "canceling",
        ];
        for words in english {
            let said = failed.error["causes"][0].as_str().expect("a cause");
            assert!(!said.contains(words), "{}", failed.stderr);
        }
        let file = failed.stderr.contains("--> migrations/2_change.up.sql:");
        assert!(file, "{}", failed.stderr);
    }
    client.batch_execute("ROLLBACK").expect("lets go");
    // A notice in German is no failure.
    project.write(
        "migrations/2_change.up.sql",
        "ALTER TABLE users ADD COLUMN IF NOT EXISTS email text;\n",
    );
    let run = project.xtask(&["db-migrate"]).succeeds();
    assert!(run.stderr.contains("existiert bereits"), "{}", run.stderr);
}

/// A locale of this machine whose messages are German.
fn german() -> Option<String> {
    let output = Command::new("locale").arg("-a").output();
    let listed = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let listed = listed.unwrap_or_default();
    let is_german = |name: &&str| {
        let name = name.to_ascii_lowercase().replace('-', "");
        name.starts_with("de_") && name.ends_with(".utf8")
    };
    listed.lines().find(is_german).map(str::to_owned)
}

// Where in a file.

/// The excerpt that a migration's failure shows.
#[track_caller]
fn excerpt(up: &str, sqlstate: &str, excerpt: Expect) {
    let project = pending(up);
    let failed = project.fails(&["db-migrate"], 1);
    assert_eq!(failed.error["sqlstate"], sqlstate, "{}", failed.report);
    let lines: Vec<&str> = failed
        .stderr
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("--> "))
        .take_while(|line| !line.starts_with("state: ") && !line.starts_with("server hint: "))
        .collect();
    excerpt.assert_eq(&lines.join("\n"));
}

#[test]
fn an_error_after_statements_of_several_lines_is_pointed_at() {
    let up = "-- A comment; with a semicolon.\n\
        CREATE TABLE a (\n    x int, -- one\n\n    y int\n);\n\n\n\
        /* and\n   another; */ INSERT INTO a\nSELECT 1,\n\n\n       nope\nFROM users;\nSELECT 1;\n";
    excerpt(
        up,
        "42703",
        expect![[r#"
          --> migrations/2_change.up.sql:14:8
           |
        14 |        nope
           |        ^"#]],
    );
}

#[test]
fn an_error_below_blank_lines_and_comments_of_the_first_statement_is_pointed_at() {
    let up = "\n\n-- A comment.\n\n/* another\n\n   one */\n\nSELECT id,\n\n  nope\nFROM users;\n";
    excerpt(
        up,
        "42703",
        expect![[r#"
          --> migrations/2_change.up.sql:11:3
           |
        11 |   nope
           |   ^"#]],
    );
}

#[test]
fn of_several_statements_on_one_line_the_failing_one_is_pointed_at() {
    let up = "SELECT id FROM users; SELECT nope FROM users; SELECT id FROM users;\n";
    excerpt(
        up,
        "42703",
        expect![[r#"
         --> migrations/2_change.up.sql:1:30
          |
        1 | SELECT id FROM users; SELECT nope FROM users; SELECT id FROM users;
          |                              ^"#]],
    );
}

#[test]
fn without_a_position_the_statements_of_one_line_are_not_told_apart() {
    let up = "CREATE TABLE a (x int);\n\
        ALTER TABLE a ADD y int; ALTER TABLE a ADD y int; ALTER TABLE a ADD z int;\n";
    excerpt(
        up,
        "42701",
        expect![[r#"
             --> migrations/2_change.up.sql:2
              |
            2 | ALTER TABLE a ADD y int; ALTER TABLE a ADD y int; ALTER TABLE a ADD z int;
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ one of the 3 statements that end on this line"#]],
    );
}

#[test]
fn tabs_before_the_fault_keep_their_width() {
    excerpt(
        "SELECT\tid,\n\t\tnope\nFROM\tusers;\n",
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:2:3
              |
            2 |         nope
              |         ^"#]],
    );
    excerpt(
        "SELECT\t\tnope FROM users;\n",
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:1:9
              |
            1 | SELECT        nope FROM users;
              |               ^"#]],
    );
}

#[test]
fn letters_of_any_width_may_stand_before_the_fault() {
    excerpt(
        "SELECT 'Grüße', nope FROM users;\n",
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:1:17
              |
            1 | SELECT 'Grüße', nope FROM users;
              |                 ^"#]],
    );
    excerpt(
        "SELECT '漢字🐘', nope FROM users;\n",
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:1:15
              |
            1 | SELECT '漢字🐘', nope FROM users;
              |                  ^"#]],
    );
}

#[test]
fn a_very_long_line_is_cut_around_the_fault() {
    let (before, after) = ("a".repeat(500), "漢".repeat(500));
    let up = format!("SELECT '{before}', 'b', nope, '{after}' FROM users;\n");
    excerpt(
        &up,
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:1:517
              |
            1 | ...aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'b', nope, '漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢...
              |                                                                    ^"#]],
    );
    let up = format!("SELECT '{after}', 'b', nope, '{before}' FROM users;\n");
    excerpt(
        &up,
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:1:517
              |
            1 | ... 漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢', 'b', nope, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...
              |                                                                   ^"#]],
    );
}

#[test]
fn a_file_with_carriage_returns_is_pointed_into() {
    let up = "CREATE TABLE a (\r\n    x int\r\n);\r\n\r\nSELECT 1,\r\n\r\n  nope\r\nFROM a;\r\n";
    excerpt(
        up,
        "42703",
        expect![[r#"
         --> migrations/2_change.up.sql:7:3
          |
        7 |   nope
          |   ^"#]],
    );
}

#[test]
fn a_last_statement_without_semicolon_is_pointed_at() {
    excerpt(
        "SELECT 1;\nSELECT nope\nFROM users",
        "42703",
        expect![[r#"
             --> migrations/2_change.up.sql:2:8
              |
            2 | SELECT nope
              |        ^"#]],
    );
    excerpt(
        "INSERT INTO users\nVALUES (1, 'd') -- again",
        "23505",
        expect![[r#"
             --> migrations/2_change.up.sql:1:1
              |
            1 | INSERT INTO users
              | ^"#]],
    );
}

#[test]
fn an_error_without_a_position_points_at_its_statement() {
    let project = pending("SELECT 1;\n\n-- Again.\nINSERT INTO users\nVALUES (1, 'd');\n");
    project.fails(&["db-migrate"], 1).reads(
        "23505",
        expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE 23505)
            caused by: duplicate key value violates unique constraint "users_pkey"
            caused by: DETAIL: Key (id)=(1) already exists.
            caused by: a value that must be unique occurs twice
             --> migrations/2_change.up.sql:4:1
              |
            4 | INSERT INTO users
              | ^
            state: `2_change` was rolled back: it has changed nothing
            state: not started: `3_later`

            hint: fix the rows or the file, then: cargo xtask db-migrate
        "#]],
    );
}

#[test]
fn an_error_inside_a_do_block_shows_its_query_and_where_it_stands() {
    let up = "DO $$\nBEGIN\n    PERFORM 1;\n    PERFORM nope(1);\nEND\n$$;\n";
    let project = pending(up);
    project
        .fails(&["db-migrate"], 1)
        .reads("42883", expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE 42883)
            caused by: function nope(integer) does not exist
            caused by: QUERY: SELECT nope(1)
            caused by: CONTEXT: PL/pgSQL function inline_code_block line 4 at PERFORM
             --> migrations/2_change.up.sql:4:13
              |
            4 |     PERFORM nope(1);
              |             ^
            server hint: No function matches the given name and argument types. You might need to add explicit type casts.
            state: `2_change` was rolled back: it has changed nothing
            state: not started: `3_later`

            hint: fix the file, then: cargo xtask db-migrate
        "#]]);
    // Named twice, it may be either: then the statement is pointed at.
    let up = "DO $$\nBEGIN\n    IF false THEN PERFORM nope(1); END IF;\n    PERFORM nope(1);\nEND\n$$;\n";
    excerpt(
        up,
        "42883",
        expect![[r#"
         --> migrations/2_change.up.sql:1:1
          |
        1 | DO $$
          | ^"#]],
    );
}

#[test]
fn an_error_of_a_functions_own_shows_its_context() {
    let project = pending(
        "CREATE FUNCTION refuse() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n    \
         RAISE EXCEPTION 'not today' USING DETAIL = 'it is late', HINT = 'come tomorrow', ERRCODE = 'P0001';\n\
         END\n$$;\nSELECT refuse();\n",
    );
    project.fails(&["db-migrate"], 1).reads(
        "P0001",
        expect![[r#"
            error: cannot apply `migrations/2_change.up.sql` (SQLSTATE P0001)
            caused by: not today
            caused by: DETAIL: it is late
            caused by: CONTEXT: PL/pgSQL function refuse() line 3 at RAISE
             --> migrations/2_change.up.sql:6:1
              |
            6 | SELECT refuse();
              | ^
            server hint: come tomorrow
            state: `2_change` was rolled back: it has changed nothing
            state: not started: `3_later`

            hint: fix the file, then: cargo xtask db-migrate
        "#]],
    );
}
