//! What a migration destroys is in a proven backup of the run that destroyed it, whatever its file
//! says, or it is not committed.

use serde_json::Value;

use crate::common::{Project, Run};

/// A project with these files, `1.up` and so on, and a table `users` of 100 rows made before them.
fn project(files: &[(&str, &str)]) -> Project {
    let project = Project::empty();
    project.sql(
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL);
         INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 100) AS i",
    );
    for (name, text) in files {
        let (version, direction) = name.split_once('.').expect("1.up");
        project.write(&format!("migrations/{version}_x.{direction}.sql"), text);
    }
    project
}

const BACK: &[&str] = &["db-rollback", "--yes", "--format", "json"];

/// The tables and row counts of a run's backups, and that each was restored for proof.
fn backups(run: &Run) -> Vec<(String, u64)> {
    let document = run.json();
    let backups = document["backups"].as_array().expect("backups");
    backups
        .iter()
        .map(|backup: &Value| {
            assert_eq!(backup["proof"], "restore");
            let table = backup["table"].as_str().expect("a table").to_owned();
            (table, backup["rows"].as_u64().expect("a number"))
        })
        .collect()
}

/// Brings back what the only backup of a run holds.
fn restore(project: &Project, run: &Run) {
    let document = run.json();
    let file = document["backups"][0]["file"].as_str().expect("a file");
    project.xtask(&["db-restore", file, "--yes"]).succeeds();
}

#[test]
fn a_column_of_a_renamed_table_is_backed_up_before_it_is_dropped() {
    let project = project(&[
        ("1.up", "ALTER TABLE users ADD COLUMN nick text;"),
        (
            "1.down",
            "-- xtask: backup users\nALTER TABLE users DROP COLUMN nick;",
        ),
        ("2.up", "ALTER TABLE users RENAME TO accounts;"),
        ("2.down", "ALTER TABLE accounts RENAME TO users;"),
    ]);
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("UPDATE accounts SET nick = 'n' || id");
    let run = project
        .xtask(BACK)
        .succeeds()
        .says("column `public.accounts.nick`: 100 of 100 values");
    assert_eq!(backups(&run), [("public.accounts".to_owned(), 100)]);
    assert_eq!(project.value("SELECT count(*) FROM users"), "100");
}

#[test]
fn a_rename_that_no_file_says_is_found_by_the_guard() {
    let project = project(&[
        ("1.up", "ALTER TABLE users ADD COLUMN nick text;"),
        (
            "1.down",
            "DO $$ BEGIN EXECUTE 'ALTER TABLE accounts RENAME TO users'; END $$;
             ALTER TABLE users DROP COLUMN nick;",
        ),
    ]);
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("UPDATE users SET nick = 'n' || id; ALTER TABLE users RENAME TO accounts");
    let run = project
        .xtask(BACK)
        .succeeds()
        .says("destroys column `public.accounts.nick`")
        .says("rolled back, to back that up first");
    assert_eq!(backups(&run), [("public.accounts".to_owned(), 100)]);
}

#[test]
fn a_table_that_a_file_only_seems_to_make_is_backed_up() {
    let project = project(&[
        ("1.up", "CREATE TABLE IF NOT EXISTS users (id int);"),
        (
            "2.up",
            "-- xtask: backup users\nALTER TABLE users DROP COLUMN email;",
        ),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
    project.sql("ALTER TABLE users ADD COLUMN email text");
    restore(&project, &run);
    assert_eq!(project.value("SELECT count(email) FROM users"), "100");
}

#[test]
fn a_table_that_is_renamed_in_the_same_run_is_backed_up() {
    let project = project(&[
        ("1.up", "ALTER TABLE users RENAME TO accounts;"),
        (
            "2.up",
            "-- xtask: backup accounts\nALTER TABLE accounts DROP COLUMN email;",
        ),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
}

#[test]
fn a_directive_that_names_no_table_is_an_error_in_both_directions() {
    let project = project(&[
        ("1.up", "ALTER TABLE users ADD COLUMN nick text;"),
        (
            "1.down",
            "-- xtask: backup usres\nALTER TABLE users DROP COLUMN nick;",
        ),
        (
            "2.up",
            "-- xtask: backup usres\nALTER TABLE users ADD a int;",
        ),
    ]);
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("there is no table `usres`");
    project.sql("UPDATE users SET nick = 'n'");
    project
        .xtask(BACK)
        .exits(1)
        .says("there is no table `usres`");
    assert_eq!(project.value("SELECT count(nick) FROM users"), "100");
    assert_eq!(
        project.value("SELECT count(*) FROM _sqlx_migrations"),
        "1",
        "nothing was undone"
    );
}

/// Everything that a down file can do to the 100 rows of `users`, none of it with a directive.
const DESTROYERS: &[(&str, &str, u64)] = &[
    ("ALTER TYPE addr DROP ATTRIBUTE zip;", "", 7),
    (
        "DROP TYPE mood CASCADE; SELECT 2;",
        "cannot be previewed",
        7,
    ),
    (
        "SELECT set_config('track_counts', 'off', true); DO $$ BEGIN DELETE FROM users; END $$;",
        "cannot be previewed",
        100,
    ),
    (
        "DO $$ BEGIN DROP TABLE bare; END $$;",
        "cannot be previewed",
        1,
    ),
    (
        "DROP TABLE users;",
        "table `public.users` with 100 rows",
        100,
    ),
    (
        "DROP SCHEMA app CASCADE;",
        "table `app.items` with 3 rows",
        3,
    ),
    ("TRUNCATE users;", "`public.users` with 100 rows", 100),
    (
        "DELETE FROM users WHERE id > 50;",
        "`public.users` with 100 rows",
        100,
    ),
    (
        "UPDATE users SET email = 'x';",
        "`public.users` with 100 rows",
        100,
    ),
    (
        "ALTER TABLE users ALTER COLUMN email TYPE varchar(2) USING left(email, 2);",
        "`public.users.email`: 100 of 100 values",
        100,
    ),
    (
        "INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET email = 'x';",
        "`public.users` with 100 rows",
        100,
    ),
    (
        "DO $$ BEGIN DELETE FROM users; END $$;",
        "what `DO` at migrations/1_x.down.sql:1:1 destroys cannot be previewed",
        100,
    ),
    (
        "DO $$ BEGIN UPDATE users SET email = 'x'; END $$;",
        "destroys cannot be previewed",
        100,
    ),
    (
        "SELECT empty_users();",
        "what `SELECT` at migrations/1_x.down.sql:1:1 destroys cannot be previewed",
        100,
    ),
    ("DELETE FROM kinds;", "`public.kinds` with 1 row", 1),
    (
        "DROP TYPE mood CASCADE;",
        "what `DROP` at migrations/1_x.down.sql:1:1 destroys cannot be previewed",
        2,
    ),
    ("INSERT INTO trap VALUES (1);", "", 100),
    (
        "TRUNCATE users; INSERT INTO users VALUES (1, 'x');",
        "`public.users` with 100 rows",
        100,
    ),
    (
        "SAVEPOINT a; DELETE FROM users; ROLLBACK TO a; DELETE FROM users WHERE id = 1;",
        "`public.users` with 100 rows",
        100,
    ),
];

#[test]
fn whatever_a_down_file_destroys_is_backed_up_and_was_told_before() {
    for (down, told, rows) in DESTROYERS {
        let project = project(&[("1.up", "SELECT 1;"), ("1.down", down)]);
        project.sql(
            "CREATE SCHEMA app; CREATE TABLE app.items AS SELECT generate_series(1, 3) AS id;
             CREATE FUNCTION empty_users() RETURNS void LANGUAGE sql AS 'DELETE FROM users';
             CREATE TABLE kinds (id int PRIMARY KEY); INSERT INTO kinds VALUES (1);
             CREATE TABLE things (id int PRIMARY KEY, kind int REFERENCES kinds ON DELETE CASCADE);
             INSERT INTO things VALUES (1, 1), (2, 1);
             CREATE TYPE mood AS ENUM ('good'); CREATE TABLE moods (id int PRIMARY KEY, mood mood);
             INSERT INTO moods VALUES (1, 'good'), (2, 'good');
             CREATE TYPE addr AS (street text, zip text, mood mood);
             CREATE TABLE homes (id int PRIMARY KEY, home addr[]);
             INSERT INTO homes SELECT i, ARRAY[ROW('s', 'z', 'good')::addr] FROM generate_series(1, 7) AS i;
             CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES;
             CREATE TABLE trap (id int);
             CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql
                AS 'BEGIN DELETE FROM users; RETURN NEW; END';
             CREATE TRIGGER spring BEFORE INSERT ON trap FOR EACH ROW EXECUTE FUNCTION spring()",
        );
        project.xtask(&["db-migrate"]).succeeds();
        project
            .xtask(&["db-rollback", "--dry-run"])
            .succeeds()
            .says(told);
        let run = project.xtask(BACK).succeeds().says(told);
        let backups = backups(&run);
        assert!(
            backups.iter().any(|(_, found)| found == rows),
            "{down}: {backups:?}\n{}",
            run.stderr
        );
        if down.contains("kinds") {
            let cascaded = ("public.things".to_owned(), 2);
            assert!(backups.contains(&cascaded), "{down}: {backups:?}");
        }
        let applied = project.value("SELECT count(*) FROM _sqlx_migrations");
        assert_eq!(applied, "0", "{down}");
    }
}

#[test]
fn an_up_file_that_destroys_is_backed_up_and_one_that_updates_is_told_of() {
    let project = project(&[
        ("1.up", "UPDATE users SET email = email || '!';"),
        (
            "2.up",
            "DO $$ BEGIN DELETE FROM users WHERE id > 90; END $$;",
        ),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds()
        .says("     Updated 100 rows of `public.users`")
        .says("destroys 10 rows of `public.users`, deleted");
    assert_eq!(run.stderr.matches(" Updated ").count(), 1, "{}", run.stderr);
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
    assert_eq!(project.value("SELECT count(*) FROM users"), "90");
    restore(&project, &run);
    assert_eq!(
        project.value("SELECT count(*) FROM users WHERE email LIKE '%!'"),
        "100"
    );
}

#[test]
fn a_backup_from_before_the_run_wrote_the_table_is_not_enough() {
    let project = project(&[
        (
            "1.up",
            "-- xtask: backup users\nUPDATE users SET email = 'computed ' || id;",
        ),
        ("2.up", "ALTER TABLE users DROP COLUMN email;"),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run).len(), 2, "{}", run.stderr);
    project.sql("ALTER TABLE users ADD COLUMN email text");
    let document = run.json();
    let file = document["backups"][1]["file"].as_str().expect("a file");
    project.xtask(&["db-restore", file]).succeeds();
    let kept = project.value("SELECT count(*) FROM users WHERE email = 'computed ' || id");
    assert_eq!(kept, "100");
}

#[test]
fn what_holds_nothing_is_not_backed_up() {
    let project = project(&[
        (
            "1.up",
            "ALTER TABLE users ADD COLUMN nick text; CREATE TABLE notes (id int);",
        ),
        (
            "1.down",
            "DROP TABLE notes; DO $$ BEGIN ALTER TABLE users DROP COLUMN nick; DROP TABLE more; END $$;",
        ),
    ]);
    project.sql("CREATE TABLE more (id int)");
    project.xtask(&["db-migrate"]).succeeds();
    let run = project.xtask(BACK).succeeds();
    assert!(backups(&run).is_empty(), "{}", run.stderr);
    assert_eq!(
        project
            .value("SELECT count(*) FROM pg_attribute WHERE attname = 'nick' AND NOT attisdropped"),
        "0"
    );
}

#[test]
fn harmless_migrations_are_not_asked_unless_event_triggers_may_do_anything() {
    let project = project(&[("1.up", "CREATE TABLE notes (id int);")]);
    project.sql(
        "CREATE FUNCTION evil() RETURNS event_trigger LANGUAGE plpgsql
            AS 'BEGIN DELETE FROM public.users; END';
         CREATE EVENT TRIGGER evil ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
            EXECUTE FUNCTION evil()",
    );
    project.sql(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
        installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
        checksum bytea NOT NULL, execution_time bigint NOT NULL)",
    );
    project.sql("INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 100) AS i");
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
}

#[test]
fn without_backups_what_is_lost_is_told_and_asked() {
    let files = [(
        "1.up",
        "DO $$ BEGIN DELETE FROM users; END $$; DROP TABLE notes;",
    )];
    let ask = project(&files);
    ask.sql("CREATE TABLE notes AS SELECT 1 AS id");
    ask.xtask(&["db-migrate", "--no-backup"])
        .exits(2)
        .says("table `public.notes` with 1 row");
    assert_eq!(ask.value("SELECT count(*) FROM users"), "100");
    ask.sql("DELETE FROM notes");
    // Nothing to be seen beforehand: the guard asks.
    ask.xtask(&["db-migrate", "--no-backup"])
        .exits(2)
        .says("destroys 100 rows of `public.users`, deleted")
        .says("was rolled back");
    assert_eq!(ask.value("SELECT count(*) FROM users"), "100");
    let run = ask
        .xtask(&["db-migrate", "--no-backup", "--yes", "--format", "json"])
        .succeeds()
        .says("100 rows of `public.users`, deleted");
    assert!(backups(&run).is_empty());
    assert_eq!(ask.value("SELECT count(*) FROM users"), "0");
}

#[test]
fn outside_a_transaction_what_cannot_be_read_must_say_what_it_destroys() {
    let refused = "-- no-transaction\nDO $$ BEGIN DELETE FROM users; END $$;";
    let project = project(&[("1.up", "SELECT 1;"), ("2.up", refused)]);
    project
        .xtask(&["db-migrate"])
        .exits(2)
        .says("`migrations/2_x.up.sql` may destroy what is in no backup")
        .says("-- xtask: lossless");
    project
        .xtask(&["db-doctor"])
        .exits(3)
        .says("error: not ready: losses")
        .says("-- xtask: lossless");
    assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");
    for (directive, expected) in [("backup users", 1), ("lossless", 0)] {
        let text = refused.replace('\n', &format!("\n-- xtask: {directive}\n"));
        project.write("migrations/2_x.up.sql", text);
        let run = project
            .xtask(&["db-migrate", "--format", "json"])
            .succeeds();
        assert_eq!(backups(&run).len(), expected, "{directive}");
        project.sql("DELETE FROM _sqlx_migrations");
    }
}

#[test]
fn outside_a_transaction_what_can_be_read_is_backed_up_before_it_runs() {
    let project = project(&[
        ("1.up", "-- no-transaction\nSELECT 1;"),
        (
            "1.down",
            "-- no-transaction\nALTER TABLE users RENAME TO old;\nDROP TABLE old;",
        ),
    ]);
    project.xtask(&["db-migrate"]).succeeds();
    let run = project.xtask(BACK).succeeds();
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
}

#[test]
fn outside_a_transaction_too_a_backup_from_before_the_run_wrote_the_table_is_not_enough() {
    let project = project(&[
        ("1.up", "UPDATE users SET email = 'computed ' || id;"),
        ("2.up", "-- no-transaction\nDROP TABLE users;"),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    let document = run.json();
    let backups = document["backups"].as_array().expect("backups");
    let last = backups.last().expect("a backup")["file"].as_str();
    let text = std::fs::read_to_string(project.path(last.expect("a file"))).expect("reads");
    assert!(text.contains("\tcomputed 100\n"), "{text}");
}

#[test]
fn after_a_file_that_nobody_could_ask_an_earlier_backup_is_not_enough() {
    let project = project(&[
        (
            "1.up",
            "-- xtask: backup users\nCOMMENT ON TABLE users IS 'x';",
        ),
        (
            "2.up",
            "-- no-transaction\n-- xtask: lossless\nDO $$ BEGIN UPDATE users SET email = 'computed'; END $$;",
        ),
        ("3.up", "ALTER TABLE users DROP COLUMN email;"),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run).len(), 2, "{}", run.stderr);
}

#[test]
fn what_held_nothing_before_the_run_filled_it_is_backed_up() {
    let project = project(&[
        ("1.up", "UPDATE users SET nick = 'n' || id;"),
        ("2.up", "ALTER TABLE users DROP COLUMN nick;"),
        (
            "3.up",
            "INSERT INTO notes SELECT i FROM generate_series(1, 5) AS i;",
        ),
        ("4.up", "DROP TABLE notes;"),
    ]);
    project.sql("ALTER TABLE users ADD COLUMN nick text; CREATE TABLE notes (id int)");
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(
        backups(&run),
        [
            ("public.users".to_owned(), 100),
            ("public.notes".to_owned(), 5)
        ]
    );
}

#[test]
fn a_person_may_agree_to_lose_what_the_guard_has_found() {
    let files = [("1.up", "DO $$ BEGIN DELETE FROM users; END $$;")];
    for (answer, status, left) in [("n", 1, "100"), ("y", 0, "0")] {
        let project = project(&files);
        let command = project.command(&["db-migrate", "--no-backup"]);
        let Some(mut terminal) = crate::terminal::Terminal::run(&command) else {
            println!("skipped: there is no `script` of util-linux");
            return;
        };
        terminal.read_until("destroys 100 rows of `public.users`, deleted");
        terminal.read_until("lose that for good? [y/N] ");
        terminal.press(&format!("{answer}\n"));
        let (code, said) = terminal.end();
        assert_eq!(code, status, "{said}");
        assert_eq!(project.value("SELECT count(*) FROM users"), left, "{said}");
    }
}

#[test]
fn a_directive_is_heeded_at_its_moment() {
    let project = project(&[
        (
            "1.up",
            "DO $$ BEGIN CREATE TABLE made AS SELECT 1 AS id; END $$;",
        ),
        (
            "2.up",
            "-- xtask: backup made\nCOMMENT ON TABLE made IS 'x';",
        ),
        (
            "3.up",
            "-- xtask: backup usres\nCOMMENT ON TABLE users IS 'x';",
        ),
    ]);
    let run = project
        .xtask(&["db-migrate", "--to", "2", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run), [("public.made".to_owned(), 1)]);
    project.sql("DELETE FROM _sqlx_migrations WHERE version = 2");
    // What an earlier statement may have made is looked for when it is needed, and not before.
    project.write("migrations/2_x.up.sql", "DO $$ BEGIN PERFORM 1; END $$;");
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("cannot back up `usres`, as migrations/3_x.up.sql asks for")
        .says("this migration has changed nothing");
    assert_eq!(
        project.value("SELECT string_agg(version::text, ' ') FROM _sqlx_migrations"),
        "1 2"
    );
}

#[test]
fn a_file_that_destroys_something_else_each_time_is_not_tried_for_ever() {
    let project = project(&[(
        "1.up",
        "DO $$ BEGIN EXECUTE 'DELETE FROM t' || nextval('next'); END $$;",
    )]);
    project.sql("CREATE SEQUENCE next");
    for number in 1..20 {
        project.sql(&format!("CREATE TABLE t{number} AS SELECT 1 AS id"));
    }
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("cannot back up all that `1_x` destroys")
        .says("it has changed nothing");
    let rows = project.value(
        "SELECT sum((xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || relname, false, true, '')))[1]::text::int)
         FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    );
    assert_eq!(rows, "19");
}

#[test]
fn large_objects_are_not_lost_unasked() {
    let project = project(&[
        ("1.up", "SELECT 1;"),
        (
            "1.down",
            "SELECT lo_unlink(oid) FROM pg_largeobject_metadata;",
        ),
    ]);
    project.sql("SELECT lo_from_bytea(0, 'x')");
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(BACK)
        .exits(1)
        .says("1 large object")
        .says("--no-backup");
    assert_eq!(
        project.value("SELECT count(*) FROM pg_largeobject_metadata"),
        "1"
    );
}

#[test]
fn rows_of_partitions_and_heirs_are_kept_too() {
    let project = project(&[
        ("1.up", "SELECT 1;"),
        (
            "1.down",
            "DROP TABLE parted; DO $$ BEGIN ALTER TABLE parent DROP COLUMN a; END $$;",
        ),
    ]);
    project.sql(
        "CREATE TABLE parted (id int) PARTITION BY LIST (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
         CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
         INSERT INTO parted VALUES (1), (2), (2);
         CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
         INSERT INTO child VALUES (1), (2), (3), (4)",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let run = project.xtask(BACK).succeeds();
    let mut found = backups(&run);
    found.sort();
    assert_eq!(
        found,
        [
            ("public.child".to_owned(), 4),
            ("public.parted_1".to_owned(), 1),
            ("public.parted_2".to_owned(), 2)
        ]
    );
}

#[test]
fn the_history_is_written_exactly_once_or_nothing_is_committed() {
    let project = project(&[
        ("1.up", "ALTER TABLE users ADD COLUMN a int;"),
        ("1.down", "ALTER TABLE users DROP COLUMN a;"),
        ("2.up", "ALTER TABLE users ADD COLUMN b int;"),
    ]);
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();
    let swallow = |event: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE OR REPLACE TRIGGER swallow BEFORE {event} ON _sqlx_migrations
             FOR EACH ROW EXECUTE FUNCTION swallow()"
        )
    };
    project.sql(&swallow("INSERT OR DELETE"));
    for command in [&["db-migrate"][..], &["db-rollback", "--yes"]] {
        project
            .xtask(command)
            .exits(1)
            .says("history table `public._sqlx_migrations`");
    }
    let columns = project.value(
        "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped",
    );
    assert_eq!(columns, "id email a");
}

#[test]
fn a_trigger_that_a_migration_of_the_run_puts_on_the_history_swallows_no_row_of_it() {
    let trigger =
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER swallow BEFORE INSERT ON _sqlx_migrations
        FOR EACH ROW WHEN (NEW.version > 1) EXECUTE FUNCTION swallow();";
    for no_transaction in [false, true] {
        let first = match no_transaction {
            true => format!("-- no-transaction\n-- xtask: lossless\n{trigger}"),
            false => trigger.to_owned(),
        };
        let project = project(&[
            ("1.up", &first),
            ("2.up", "ALTER TABLE users ADD COLUMN a int;"),
        ]);
        project
            .xtask(&["db-migrate"])
            .exits(1)
            .says("cannot write `migrations/2_x.up.sql` into the history table");
        let column = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'a'";
        assert_eq!(project.value(column), "0");
    }
}

#[test]
fn rows_that_a_policy_hides_are_not_taken_for_none() {
    let project = project(&[("1.up", "DROP TABLE mine;")]);
    let role = format!("{}_owner", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'owner'; GRANT CREATE ON SCHEMA public TO {role};
         CREATE TABLE mine AS SELECT 1 AS id; ALTER TABLE mine OWNER TO {role};
         ALTER TABLE mine ENABLE ROW LEVEL SECURITY; ALTER TABLE mine FORCE ROW LEVEL SECURITY"
    ));
    let url = crate::common::url_as(&role, "owner", &project.database);
    project
        .xtask(&["db-migrate", "--database-url", &url])
        .exits(1)
        .says("with rows that this role may not count");
    assert_eq!(project.value("SELECT count(*) FROM mine"), "1");
    project
        .xtask(&["db-migrate", "--database-url", &url, "--no-backup", "--yes"])
        .succeeds();
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn what_somebody_fills_while_the_run_waits_for_them_is_backed_up() {
    let project = project(&[
        ("1.up", "ALTER TABLE users ADD COLUMN nick text;"),
        ("1.down", "ALTER TABLE users DROP COLUMN nick;"),
    ]);
    project.xtask(&["db-migrate"]).succeeds();
    let (mut writer, _) = crate::common::blocker(&project, "BEGIN; UPDATE users SET nick = 'n'");
    let mut run = project.start(BACK);
    run.says("Waiting");
    writer.batch_execute("COMMIT").expect("commits");
    let run = run.ends().succeeds();
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
}

#[test]
fn to_agree_once_is_not_to_agree_to_everything() {
    let project = project(&[
        (
            "1.up",
            "DO $$ BEGIN DELETE FROM users WHERE id = 1; END $$;",
        ),
        ("2.up", "DO $$ BEGIN DROP TABLE users; END $$;"),
    ]);
    let command = project.command(&["db-migrate", "--no-backup"]);
    let Some(mut terminal) = crate::terminal::Terminal::run(&command) else {
        println!("skipped: there is no `script` of util-linux");
        return;
    };
    terminal.read_until("[y/N] ");
    terminal.press("y\n");
    terminal.read_until("destroys table `public.users`");
    terminal.read_until("[y/N] ");
    terminal.press("n\n");
    let (code, said) = terminal.end();
    assert_eq!(code, 1, "{said}");
    assert_eq!(project.value("SELECT count(*) FROM users"), "99");
}

#[test]
fn a_file_that_changes_how_quotes_are_read_is_refused_however_it_says_so() {
    for text in [
        "SET \"standard_conforming_strings\" = off;\nSELECT '\\''; COMMIT; DELETE FROM users; BEGIN; SELECT $$'$$; -- $$;",
        "SELECT set_config('standard_conforming_strings', 'off', true);",
        "SET Standard_Conforming_Strings TO off;",
    ] {
        let project = project(&[("1.up", text)]);
        project
            .xtask(&["db-migrate"])
            .exits(2)
            .says("changes how quotes are read");
        assert_eq!(project.value("SELECT count(*) FROM users"), "100");
    }
    project(&[("1.up", "SET standard_conforming_strings = on;")])
        .xtask(&["db-migrate"])
        .succeeds();
}

#[test]
fn an_event_trigger_that_a_migration_of_the_run_makes_is_known_to_the_next() {
    let project = project(&[
        (
            "1.up",
            "CREATE FUNCTION evil() RETURNS event_trigger LANGUAGE plpgsql
                AS 'BEGIN DELETE FROM public.users; END';
             CREATE EVENT TRIGGER evil ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION evil();",
        ),
        ("2.up", "CREATE TABLE harmless (id int);"),
    ]);
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(backups(&run), [("public.users".to_owned(), 100)]);
}

#[test]
fn what_an_earlier_file_did_is_not_laid_to_the_next() {
    let project = project(&[
        (
            "1.up",
            "-- no-transaction\n-- xtask: lossless\nSELECT lo_unlink(lo_from_bytea(0, 'x'));",
        ),
        ("2.up", "INSERT INTO users VALUES (101, 'new');"),
        ("3.up", "-- no-transaction\nUPDATE users SET id = id / 0;"),
    ]);
    project.xtask(&["db-migrate", "--to", "2"]).succeeds();
    let run = project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("(SQLSTATE 22012)");
    assert!(!run.stderr.contains("history table"), "{}", run.stderr);
}

#[test]
fn outside_a_transaction_rows_that_change_with_others_are_backed_up_too() {
    let project = project(&[
        ("1.up", "SELECT 1;"),
        (
            "1.down",
            "-- no-transaction\nDELETE FROM users WHERE id > 5;",
        ),
    ]);
    project.sql(
        "CREATE TABLE visits (id int PRIMARY KEY, who int REFERENCES users ON DELETE CASCADE);
         INSERT INTO visits SELECT i, i FROM generate_series(1, 100) AS i;
         CREATE TABLE heirs () INHERITS (users); INSERT INTO heirs VALUES (1000, 'x')",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let run = project.xtask(BACK).succeeds();
    let mut found = backups(&run);
    found.sort();
    assert_eq!(
        found,
        [
            ("public.heirs".to_owned(), 1),
            ("public.users".to_owned(), 100),
            ("public.visits".to_owned(), 100)
        ]
    );
}

#[test]
fn outside_a_transaction_what_reaches_further_than_its_words_must_say_so() {
    for text in [
        "TRUNCATE users CASCADE;",
        "ALTER TABLE users SET SCHEMA app;\nDROP TABLE app.users;",
        "CREATE TABLE kept AS WITH d AS (DELETE FROM users RETURNING id) SELECT id FROM d;",
        "COPY (DELETE FROM users RETURNING *) TO STDOUT;",
        "DROP SCHEMA app CASCADE;",
    ] {
        let project = project(&[("1.up", &format!("-- no-transaction\n{text}"))]);
        project.sql("CREATE SCHEMA app");
        project
            .xtask(&["db-migrate"])
            .exits(2)
            .says("may destroy what is in no backup");
        assert_eq!(project.value("SELECT count(*) FROM users"), "100", "{text}");
    }
}
