//! Sessions are ours alone: nobody's objects run as us, nobody's settings beat ours, a fence stays a
//! fence, and whoever is gone lets go.

use std::time::Duration;

use postgres::{Client, NoTls};
use private_server::ThrowawayServer;

use crate::common::{
    ASLEEP, BASELINE, Project, Run, blocker, children_of, long, own_server, signal, until,
};

/// Operators and functions that fit better than PostgreSQL's own wherever a search path finds them,
/// made by somebody who may create in `public`. Whoever runs one says so in the server's log.
const TRAPS: &str = r#"
CREATE ROLE mallory LOGIN;
GRANT CREATE ON SCHEMA public TO mallory;
SET SESSION AUTHORIZATION mallory;
DO $do$
DECLARE
    types text[] := ARRAY['oid', 'regclass', 'regtype', 'regnamespace', 'name', 'text', 'varchar',
        '"char"', 'int2', 'int4', 'int8', 'float8', 'numeric', 'bool', 'timestamptz', 'interval',
        'pg_lsn', 'int2vector', 'int2[]', 'int4[]', 'oid[]', 'text[]', 'name[]', 'jsonb', 'xid'];
    l text;
    r text;
    o text;
    n int := 0;
    returned text;
BEGIN
    FOREACH l IN ARRAY types LOOP
        FOREACH r IN ARRAY types LOOP
            FOREACH o IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '~', '~~', '!~', '!~~', '||',
                                     '+', '-', '*', '/', '%', '->', '->>', '&&', '@>'] LOOP
                CONTINUE WHEN to_regoperator(format('pg_catalog.%s(%s,%s)', o, l, r)) IS NOT NULL;
                n := n + 1;
                returned := CASE WHEN o IN ('||', '->>') THEN 'text' WHEN o = '->' THEN 'jsonb'
                                 WHEN o IN ('+', '-', '*', '/', '%') THEN 'float8' ELSE 'bool' END;
                EXECUTE format('CREATE FUNCTION public.trap_%s(%s, %s) RETURNS %s IMMUTABLE LANGUAGE plpgsql
                    AS $f$ BEGIN RAISE LOG ''TRAP operator %s(%s,%s) as %%'', current_user;
                                 RETURN NULL; END $f$', n, l, r, returned, replace(o, '%', '%%'), l, r);
                EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.trap_%s, LEFTARG = %s, RIGHTARG = %s)',
                               o, n, l, r);
            END LOOP;
        END LOOP;
    END LOOP;
END $do$;
DO $do$
DECLARE
    f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['unnest(text[])', 'unnest(int2[])', 'unnest(oid[])', 'unnest(int2vector)',
        'format(text, name, name)', 'format(text, text, text)', 'format(text, name)', 'quote_ident(name)',
        'to_regclass(name)', 'array_to_string(text[], text)', 'num_nulls(int8)', 'num_nulls(text)',
        'to_jsonb(name)', 'to_json(text)', 'concat_ws(text, text, text)', 'pg_get_indexdef(regclass)',
        'pg_table_size(oid)', 'pg_relation_size(oid)', 'hashtextextended(text, int4)', 'left(name, int4)',
        'split_part(name, text, int4)', 'starts_with(name, text)', 'replace(name, text, text)',
        'regexp_replace(name, text, text)', 'has_table_privilege(regclass, text)', 'abs(interval)',
        'greatest_of(int8, int8)', 'extract(text, interval)', 'string_to_array(name, text)',
        'array_length(int2vector, int4)', 'pg_size_pretty(int4)', 'lower(name)', 'upper(name)',
        'setval(text, int8)', 'nextval(text)', 'jsonb_build_array(text, bool)'] LOOP
        EXECUTE format('CREATE FUNCTION public.%s RETURNS text IMMUTABLE LANGUAGE plpgsql
            AS $f$ BEGIN RAISE LOG ''TRAP function %%'', current_user; RETURN NULL; END $f$', f);
    END LOOP;
END $do$;
"#;

/// A project with a database on a server of its own.
struct Own {
    server: &'static ThrowawayServer,
    project: Project,
}

impl Own {
    fn new(settings: &[(&str, &str)]) -> Own {
        let server = own_server(settings);
        Own {
            server,
            project: Project::seeded_on(server),
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.server.cluster().log()).expect("the server has a log");
        String::from_utf8_lossy(&log).into_owned()
    }
}

#[test]
fn nobodys_operators_and_functions_run_as_us() {
    let own = Own::new(&[]);
    let project = &own.project;
    project.sql(TRAPS);
    // The traps work: this is what a careless query springs.
    project.sql("SELECT 1 FROM pg_catalog.pg_class WHERE oid = to_regclass('users')");
    let careless = own.log();
    assert!(
        careless.contains("TRAP operator =(oid,regclass)"),
        "{careless}"
    );
    let before = careless.matches("TRAP").count();

    let sprung = |command: &str| {
        let log = own.log();
        let sprung: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("TRAP"))
            .skip(before)
            .collect();
        assert!(sprung.is_empty(), "{command}: {sprung:#?}\n{log}");
    };
    let run = |arguments: &[&str]| -> Run {
        let run = project.xtask(arguments);
        sprung(&arguments.join(" "));
        run
    };
    run(&["db-status"]).succeeds();
    run(&["db-doctor"]).succeeds();
    run(&["db-migrate", "--dry-run"]).succeeds();
    run(&["db-migrate"]).succeeds();
    run(&["db-verify"]).succeeds();
    run(&["db-status", "--check"]).succeeds();
    run(&["db-seed", "--users", "10", "--logins"]).succeeds();
    run(&["db-backup", "users", "sessions"]).succeeds();
    let listed = run(&["db-backups", "--format", "json"]).succeeds().json();
    project.sql(
        "UPDATE users SET display_name = 'changed' WHERE id = 1; DELETE FROM users WHERE id = 900",
    );
    let file = listed["backups"]
        .as_array()
        .expect("backups")
        .iter()
        .find(|backup| backup["table"] == "public.users")
        .expect("one of users")["file"]
        .as_str()
        .expect("a file");
    run(&["db-restore", file, "--dry-run"]).succeeds();
    run(&["db-restore", file, "--yes"]).succeeds();
    run(&["db-rollback", "--dry-run"]).succeeds();
    run(&["db-rollback", "--yes"]).succeeds();
    run(&["db-migrate"]).succeeds();
    run(&["db-redo", "--yes"]).succeeds();
    run(&["db-backups", "prune", "--older-than", "0s", "--yes"]).succeeds();
    project.sql("DROP TABLE _sqlx_migrations");
    run(&["db-baseline", "--dry-run"]).succeeds();
    run(&["db-baseline"]).succeeds();
    // Names in files are still looked up as the user's path says.
    project.write(
        "migrations/20270101000000_other.up.sql",
        "CREATE TABLE other (id int);",
    );
    let path = format!("{}?options=-csearch_path%3Dapp%2Cpublic", project.url);
    project.sql("CREATE SCHEMA app");
    run(&["db-migrate", "--database-url", &path]).succeeds();
    assert_eq!(
        project.value("SELECT to_regclass('app.other')"),
        "app.other"
    );
}

#[test]
fn any_search_path_that_a_setting_may_hold_is_one_to_look_names_up_by() {
    for (path, located) in [
        ("app", "app"),
        ("$user,app", "app"),
        ("\"user\",app", "app"),
        ("", ""),
    ] {
        let project = Project::empty();
        project.sql("CREATE SCHEMA app");
        project.write(
            "migrations/1_x.up.sql",
            "CREATE TABLE t (a int);\nCREATE INDEX IF NOT EXISTS i ON t (a);",
        );
        project.write(
            "migrations/verify/1_x.sql",
            "SELECT 'there' AS check, to_regclass('t') IS NOT NULL AS ok;",
        );
        let options: String = format!("-csearch_path={path}")
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let url = format!("{}?options={options}", project.url);
        let xtask =
            |arguments: &[&str]| Run::of(project.command(arguments).env("DATABASE_URL", &url));
        if located.is_empty() {
            xtask(&["db-migrate"])
                .exits(1)
                .says("no schema of the search path exists");
            xtask(&["db-status"]).succeeds();
            continue;
        }
        xtask(&["db-migrate"]).succeeds();
        xtask(&["db-verify"]).succeeds();
        xtask(&["db-status", "--check"]).succeeds();
        let there = project.value("SELECT to_regclass('app.t') IS NOT NULL AND to_regclass('app._sqlx_migrations') IS NOT NULL");
        assert_eq!(there, "true", "{path}");
    }
}

/// Every setting of libpq that could get in the way of what safety depends on, where the environment or
/// an address may have it.
const HOSTILE: &[(&str, &str)] = &[
    ("PGCLIENTENCODING", "LATIN1"),
    ("PGAPPNAME", "nobody"),
    ("PGDATESTYLE", "German, DMY"),
    ("PGTZ", "Pacific/Chatham"),
    ("PGGEQO", "off"),
    ("PGCONNECT_TIMEOUT", "20"),
    ("PGTARGETSESSIONATTRS", "read-write"),
    ("PGSSLMODE", "prefer"),
    ("PGGSSENCMODE", "disable"),
    ("PGHOST", "nowhere.invalid"),
    ("PGPORT", "1"),
    ("PGDATABASE", "nothing"),
    ("PGUSER", "nobody"),
    ("PGPASSWORD", "wrong"),
    ("PGOPTIONS", HOSTILE_OPTIONS),
    ("PGSYSCONFDIR", "/nonexistent"),
    ("PGPASSFILE", "/nonexistent"),
    ("PGLOCALEDIR", "/nonexistent"),
    ("PSQLRC", "/nonexistent"),
    ("LC_ALL", "C.UTF-8"),
];

const HOSTILE_OPTIONS: &str = "-c statement_timeout=40ms -c lock_timeout=1ms -c idle_in_transaction_session_timeout=1ms -c idle_session_timeout=1s -c standard_conforming_strings=off -c client_encoding=LATIN1 -c application_name=nobody -c DateStyle=German -c IntervalStyle=sql_standard -c bytea_output=escape -c extra_float_digits=-15 -c quote_all_identifiers=on -c array_nulls=off -c xmloption=document -c client_min_messages=error -c search_path=public";

#[test]
fn no_setting_of_the_users_environment_or_address_beats_ours() {
    let options: String = HOSTILE_OPTIONS
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    for in_address in [false, true] {
        let project = Project::seeded();
        let url = match in_address {
            true => format!(
                "{}?client_encoding=LATIN1&application_name=nobody&options={options}",
                project.url
            ),
            false => project.url.clone(),
        };
        let xtask = |arguments: &[&str]| -> Run {
            let mut command = project.command(arguments);
            command.env("DATABASE_URL", &url);
            if !in_address {
                command.envs(HOSTILE.iter().copied());
            }
            Run::of(&mut command)
        };
        project.write(
            "migrations/20260101000000_words.up.sql",
            "CREATE TABLE words (id int PRIMARY KEY, word text);
             INSERT INTO words SELECT 1, 'é\\' FROM pg_sleep(0.1);",
        );
        project.write(
            "migrations/20260101000000_words.down.sql",
            "DROP TABLE words;",
        );
        // The build waits for longer than any of those limits.
        let (mut holder, _) = blocker(
            &project,
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_am",
        );
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            holder.batch_execute("COMMIT").expect("lets go");
        });
        let run = xtask(&["db-migrate", "--format", "json"]).succeeds();
        release.join().expect("lets go");
        assert_eq!(run.json()["backups"][0]["proof"], "restore");
        assert_eq!(project.value("SELECT word FROM words"), "é\\");
        let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_users_last_login_at'::regclass";
        assert_eq!(project.value(valid), "true");
        xtask(&["db-verify"]).succeeds();
        xtask(&["db-status", "--check"]).succeeds();

        let backup = xtask(&["db-backup", "words", "--format", "json"]).succeeds();
        let file = backup.json()["backups"][0]["file"]
            .as_str()
            .expect("a file")
            .to_owned();
        project.sql("UPDATE words SET word = NULL");
        xtask(&["db-restore", &file]).succeeds();
        assert_eq!(project.value("SELECT word FROM words"), "é\\");
        let back = xtask(&["db-rollback", "--yes", "--format", "json"]).succeeds();
        assert_eq!(back.json()["steps"].as_array().expect("steps").len(), 3);
    }
}

#[test]
fn an_orphan_is_found_whatever_name_the_environment_gives_it() {
    let project = Project::empty();
    project.write(
        "migrations/1_slow.up.sql",
        "-- no-transaction\n-- xtask: lossless\nSELECT pg_sleep(20);",
    );
    let url = format!("{}?application_name=hidden", project.url);
    let start = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        command.env("DATABASE_URL", &url).env("PGAPPNAME", "hidden");
        crate::common::Running::of(&mut command)
    };
    let run = start(&["db-migrate"]);
    until("it sleeps", || project.value(ASLEEP) == "1");
    for psql in children_of(run.id()) {
        signal("KILL", psql);
    }
    signal("KILL", run.id());
    project.write("migrations/1_slow.up.sql", "SELECT 1;");
    let again = start(&["db-migrate", "--end-orphans"]).ends();
    again.succeeds().says("a killed run is still running");
    assert_eq!(project.value(ASLEEP), "0");
}

#[test]
fn a_read_only_default_is_a_fence_for_whatever_writes_and_for_nothing_else() {
    let project = Project::seeded();
    let file = project
        .xtask(&["db-backup", "users", "--format", "json"])
        .succeeds()
        .json();
    let file = file["backups"][0]["file"]
        .as_str()
        .expect("a file")
        .to_owned();
    let fence = |value: &str| {
        let database = &project.database;
        let mut admin =
            Client::connect(&crate::common::server().url("postgres"), NoTls).expect("connects");
        admin
            .batch_execute(&format!(
                "ALTER DATABASE {database} SET default_transaction_read_only = {value}"
            ))
            .expect("sets");
    };
    let state = "SELECT count(*) FROM _sqlx_migrations";
    fence("on");
    for (writes, arguments) in [
        (true, &["db-migrate"][..]),
        (true, &["db-rollback", "--all", "--yes"]),
        (true, &["db-redo", "--yes"]),
        (true, &["db-restore", &file, "--yes"]),
        (true, &["db-baseline"]),
        (false, &["db-status"]),
        (false, &["db-verify"]),
        (false, &["db-backups"]),
        (false, &["db-backup", "users", "--proof", "rows"]),
    ] {
        let run = project.xtask(arguments);
        match writes {
            true => {
                run.exits(1)
                    .says("is set to read-only")
                    .says("(SQLSTATE 25006)")
                    .says("default_transaction_read_only");
            }
            false => {
                run.succeeds();
            }
        }
    }
    assert_eq!(project.value(state), "1");

    // Of several hosts the one that may be written to, as psql does.
    let two = project.url.replace("127.0.0.1:", "127.0.0.1,127.0.0.1:");
    let port = crate::common::server().port();
    let two = two.replace(
        &format!("127.0.0.1,127.0.0.1:{port}"),
        &format!("127.0.0.1:{port},127.0.0.1:{port}"),
    );
    project
        .xtask(&[
            "db-migrate",
            "--database-url",
            &format!("{two}?target_session_attrs=read-write"),
        ])
        .exits(1)
        .says("the session is read-only");
    fence("off");
    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
}

#[test]
fn a_session_that_may_hold_a_lock_has_an_end_on_the_server() {
    let project = Project::empty();
    project.write(
        "migrations/1_settings.up.sql",
        "CREATE TABLE settings AS SELECT name, setting FROM pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'tcp_user_timeout', 'tcp_keepalives_idle',
                        'client_connection_check_interval');",
    );
    // Also after a migration that has reset everything.
    project.write(
        "migrations/2_reset.up.sql",
        "SET idle_in_transaction_session_timeout = 0; RESET ALL;",
    );
    project.write(
        "migrations/3_settings.up.sql",
        "INSERT INTO settings SELECT name || ' later', setting FROM pg_settings
         WHERE name = 'idle_in_transaction_session_timeout';",
    );
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project
            .value("SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name) FROM settings"),
        "client_connection_check_interval 2000, idle_in_transaction_session_timeout 60000, \
         idle_in_transaction_session_timeout later 60000, tcp_keepalives_idle 15, tcp_user_timeout 30000"
    );
}

#[test]
fn a_run_that_is_frozen_lets_go() {
    if !long() {
        println!("waits for a minute: XTASK_LONG=1");
        return;
    }
    let project = Project::seeded();
    project.write(
        "migrations/20251231143000_add_users_last_login_at.up.sql",
        "ALTER TABLE users ADD COLUMN last_login_at timestamptz; SELECT pg_sleep(1);",
    );
    let run = project.start(&["db-migrate"]);
    until("it sleeps", || project.value(ASLEEP) == "1");
    signal("STOP", run.id());
    let at = std::time::Instant::now();
    // Behind the table's lock until the server ends the session.
    project.sql("SET lock_timeout = '90s'; SELECT count(*) FROM users");
    println!("let go after {:?}", at.elapsed());
    assert!(at.elapsed() > Duration::from_secs(50));
    signal("CONT", run.id());
    run.ends().exits(1).says("it has changed nothing");
}

#[test]
fn what_has_nothing_to_do_asks_three_things_in_one_session_and_starts_no_program() {
    let own = Own::new(&[("log_statement", "all"), ("log_connections", "on")]);
    own.project.xtask(&["db-migrate"]).succeeds();
    let programs = own.project.path("no-programs");
    std::fs::create_dir(&programs).expect("makes a folder");
    for (arguments, most) in [
        (&["db-migrate"][..], 3),
        (&["db-migrate", "--dry-run"], 2),
        (&["db-status"], 3),
    ] {
        let before = own.log().len();
        let mut command = own.project.command(arguments);
        Run::of(command.env("PG_BIN_DIR", &programs).env("PATH", &programs)).succeeds();
        let log = own.log()[before..].to_owned();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        let asked = count("LOG:  statement: ") + count("LOG:  execute ");
        assert_eq!(asked, most, "{arguments:?}\n{log}");
        assert_eq!(count("connection authorized"), 1, "{arguments:?}\n{log}");
    }
}
