//! New migrations: every form that `db-new` writes runs as it is, beside logins, is taken back exactly, and has checks
//! that fail without it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Logins, Project, Run, copy, dump};

/// A form, what it must have made, and how to undo it by hand.
struct Case {
    arguments: &'static [&'static str],
    /// A query whose value is `t`, afterwards.
    made: &'static str,
    /// For each change by hand, the migrations whose checks then fail, counted from the first new one.
    undone: &'static [(&'static str, &'static [usize])],
}

const CASES: &[Case] = &[
    Case {
        arguments: &["--column", "users.phone:text"],
        made: "SELECT atttypid = 'text'::regtype AND NOT attnotnull FROM pg_attribute
               WHERE attrelid = 'users'::regclass AND attname = 'phone'",
        undone: &[
            ("ALTER TABLE users ALTER phone TYPE bigint USING 1", &[0]),
            ("ALTER TABLE users DROP phone", &[0]),
        ],
    },
    Case {
        arguments: &["--column", "\"Weird\".\"Ta.ble\".\"Co l'u\"\"mn\":numeric(10, 2)"],
        made: "SELECT format_type(atttypid, atttypmod) = 'numeric(10,2)'
               FROM pg_attribute WHERE attrelid = '\"Weird\".\"Ta.ble\"'::regclass AND attnum > 3",
        undone: &[("ALTER TABLE \"Weird\".\"Ta.ble\" DROP \"Co l'u\"\"mn\"", &[0])],
    },
    Case {
        arguments: &["--column", "\"Weird\".\"Ta.ble\".order:timestamp(3) with time zone[]"],
        made: "SELECT format_type(atttypid, atttypmod) = 'timestamp(3) with time zone[]'
               FROM pg_attribute WHERE attrelid = '\"Weird\".\"Ta.ble\"'::regclass AND attnum > 3",
        undone: &[("ALTER TABLE \"Weird\".\"Ta.ble\" DROP \"order\"", &[0])],
    },
    Case {
        arguments: &["--index", "users(created_at DESC NULLS LAST, time, \"Big\" NULLS FIRST)"],
        made: "SELECT indisvalid FROM pg_index WHERE indexrelid = '\"idx_users_created_at_time_Big\"'::regclass",
        undone: &[
            (
                "DROP INDEX \"idx_users_created_at_time_Big\";
                 CREATE INDEX \"idx_users_created_at_time_Big\" ON users (created_at DESC, time, \"Big\" NULLS FIRST)",
                &[0],
            ),
            (
                "DROP INDEX \"idx_users_created_at_time_Big\";
                 CREATE INDEX \"idx_users_created_at_time_Big\"
                 ON users (created_at DESC NULLS LAST, time, \"Big\" NULLS FIRST) WHERE id > 0",
                &[0],
            ),
            (
                "UPDATE pg_index SET indisvalid = false
                 WHERE indexrelid = '\"idx_users_created_at_time_Big\"'::regclass",
                &[0],
            ),
            ("DROP INDEX \"idx_users_created_at_time_Big\"", &[0]),
        ],
    },
    Case {
        arguments: &[
            "--index",
            "UNIQUE users (lower(email) text_pattern_ops, (id + 1) DESC) INCLUDE (role) WHERE role = 'member'",
            "--as",
            "\"Quoted\"",
        ],
        made: "SELECT indisunique AND indpred IS NOT NULL FROM pg_index WHERE indexrelid = '\"Quoted\"'::regclass",
        undone: &[(
            "DROP INDEX \"Quoted\";
             CREATE UNIQUE INDEX \"Quoted\" ON users (lower(email) text_pattern_ops, (id + 1) DESC) INCLUDE (role)",
            &[0],
        )],
    },
    Case {
        arguments: &["--index", "\"Weird\".\"Ta.ble\" USING gin (doc jsonb_path_ops)"],
        made: "SELECT indisvalid FROM pg_index WHERE indexrelid = '\"Weird\".\"idx_Ta.ble_doc\"'::regclass",
        undone: &[(
            "DROP INDEX \"Weird\".\"idx_Ta.ble_doc\";
             CREATE INDEX \"idx_Ta.ble_doc\" ON \"Weird\".\"Ta.ble\" (doc)",
            &[0],
        )],
    },
    Case {
        arguments: &["--index", "\"user\"(\"order\", \"group\")"],
        made: "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_user_order_group'::regclass",
        undone: &[("DROP INDEX idx_user_order_group", &[0])],
    },
    Case {
        arguments: &["--constraint", "users CHECK (created_at > '2000-01-01' AND role <> $$;--)$$)"],
        made: "SELECT convalidated FROM pg_constraint WHERE conname = 'users_created_at_check'",
        undone: &[
            (
                "ALTER TABLE users DROP CONSTRAINT users_created_at_check,
                 ADD CONSTRAINT users_created_at_check CHECK (role <> '') NOT VALID",
                &[1],
            ),
            ("ALTER TABLE users DROP CONSTRAINT users_created_at_check", &[0, 1]),
        ],
    },
    Case {
        arguments: &["--constraint", "\"Weird\".\"Ta.ble\" CHECK (id > 0) NO INHERIT", "--as", "\"Its Own\""],
        made: "SELECT convalidated AND connoinherit FROM pg_constraint WHERE conname = 'Its Own'",
        undone: &[("ALTER TABLE \"Weird\".\"Ta.ble\" DROP CONSTRAINT \"Its Own\"", &[0, 1])],
    },
    Case {
        arguments: &["--not-null", "users.nickname"],
        made: "SELECT attnotnull AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname LIKE '%nickname%check')
               FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'nickname'",
        undone: &[("ALTER TABLE users ALTER nickname DROP NOT NULL", &[0, 1])],
    },
    Case {
        arguments: &["--foreign-key", "orders(user_id) REFERENCES users(id) ON DELETE SET NULL (user_id)"],
        made: "SELECT convalidated AND confdeltype = 'n' FROM pg_constraint WHERE conname = 'orders_user_id_fkey'",
        undone: &[
            (
                "ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey,
                 ADD CONSTRAINT orders_user_id_fkey FOREIGN KEY (id) REFERENCES users (id)",
                &[0],
            ),
            ("ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey", &[0, 1]),
        ],
    },
    Case {
        arguments: &["--foreign-key", "orders(user_id) REFERENCES users"],
        made: "SELECT convalidated FROM pg_constraint WHERE conname = 'orders_user_id_fkey'",
        undone: &[(
            "ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey,
             ADD CONSTRAINT orders_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) NOT VALID",
            &[1],
        )],
    },
    Case {
        arguments: &["--unique", "users(nickname, time)"],
        made: "SELECT contype = 'u' AND conindid = 'users_nickname_time_key'::regclass FROM pg_constraint
               WHERE conname = 'users_nickname_time_key'",
        undone: &[
            (
                "ALTER TABLE users DROP CONSTRAINT users_nickname_time_key;
                 CREATE UNIQUE INDEX users_nickname_time_key ON users (nickname, time)",
                &[1],
            ),
            ("DROP INDEX users_nickname_time_key", &[0, 1]),
        ],
    },
];

/// What the cases change, beside what the project ships.
const TABLES: &str = "
    CREATE SCHEMA \"Weird\";
    CREATE TABLE \"Weird\".\"Ta.ble\" (id bigint PRIMARY KEY, doc jsonb, \"Name\" text);
    INSERT INTO \"Weird\".\"Ta.ble\" SELECT n, '{\"a\": 1}', 'n' || n FROM generate_series(1, 50) AS n;
    CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint);
    INSERT INTO orders SELECT id, id FROM users;
    CREATE TABLE \"user\" (id bigint PRIMARY KEY, \"order\" int, \"group\" int);
    ALTER TABLE users ADD nickname text, ADD time time, ADD \"Big\" int;
    UPDATE users SET nickname = 'n' || id, time = '12:00'";

/// A project with everything applied and tables with rows.
fn project() -> Project {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql(TABLES);
    project
}

fn new(project: &Project, arguments: &[&str]) -> Run {
    let arguments: Vec<&str> = ["db-new"].iter().chain(arguments).copied().collect();
    project.unconfigured_run(&arguments)
}

/// The versions of the migrations that a `db-new` made.
fn versions(project: &Project, arguments: &[&str]) -> Vec<i64> {
    let arguments = [arguments, &["--format", "json"]].concat();
    let document = new(project, &arguments).succeeds().json();
    let migrations = document["migrations"].as_array().expect("a list");
    let versions = migrations
        .iter()
        .map(|migration| migration["version"].as_i64());
    versions
        .map(|version| version.expect("a version"))
        .collect()
}

fn schema(project: &Project) -> String {
    dump(&project.url, &["--schema-only"])
}

/// Every file below the migrations folder, with its text.
fn files(project: &Project) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for folder in ["migrations", "migrations/verify"] {
        let Ok(entries) = fs::read_dir(project.path(folder)) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                files.insert(
                    format!("{folder}/{name}"),
                    fs::read_to_string(path).expect("reads"),
                );
            }
        }
    }
    files
}

#[test]
fn every_form_runs_as_it_is_and_is_taken_back_exactly() {
    for Case {
        arguments,
        made,
        undone,
    } in CASES
    {
        let project = project();
        let new = versions(&project, &[&["change_it"], *arguments].concat());
        let mut states = vec![schema(&project)];
        for version in &new {
            let run = project
                .xtask(&["db-migrate", "--to", &version.to_string()])
                .succeeds();
            assert!(
                !run.stderr.contains("warning"),
                "{arguments:?}: {}",
                run.stderr
            );
            states.push(schema(&project));
        }
        assert_eq!(project.value(made), "true", "{arguments:?}");
        project.xtask(&["db-verify"]).succeeds();
        project.xtask(&["db-status", "--check"]).succeeds();

        let applied = states.pop().expect("a state");
        for (back, state) in states.iter().rev().enumerate() {
            let run = project.xtask(&["db-rollback", "--steps", "1", "--yes"]);
            // A UNIQUE constraint takes its index with it, which the file says.
            if arguments[0] == "--unique" && back == 0 {
                run.exits(3).says("index users_nickname_time_key exists");
            } else {
                run.succeeds();
                assert_eq!(*state, schema(&project), "{arguments:?}, {back} steps back");
            }
        }
        project.xtask(&["db-migrate"]).succeeds();
        assert_eq!(applied, schema(&project), "{arguments:?}, applied again");
        project.xtask(&["db-rollback", "--yes"]).succeeds();
        assert_eq!(
            states[0],
            schema(&project),
            "{arguments:?}, the whole run rolled back"
        );
        project.xtask(&["db-migrate"]).succeeds();

        for (by_hand, failing) in *undone {
            project.sql(by_hand);
            let run = project.xtask(&["db-verify", "--format", "json"]);
            let document = run.json();
            let checks = document["checks"].as_array().expect("a list");
            let failed = checks.iter().filter(|check| check["ok"] == false);
            // Not what the tool itself compares of an index.
            let failed = failed.filter_map(|check| check["version"].as_i64());
            let failed: BTreeSet<i64> = failed.filter(|version| new.contains(version)).collect();
            let expected: BTreeSet<i64> = failing.iter().map(|place| new[*place]).collect();
            assert_eq!(failed, expected, "{arguments:?}: {by_hand}: {}", run.stdout);
        }
    }
}

#[test]
fn the_server_runs_every_file_as_sqlx_sends_it() {
    for Case {
        arguments, made, ..
    } in CASES
    {
        let project = project();
        let before = files(&project);
        versions(&project, &[&["change_it"], *arguments].concat());
        let mut client = project.client();
        let written: Vec<_> = files(&project)
            .into_iter()
            .filter(|(name, _)| !before.contains_key(name))
            .collect();
        // sqlx sends a whole file as one simple query, inside a transaction unless the file says otherwise.
        let mut send = |ending: &str, backwards: bool| {
            let mut texts: Vec<&String> = written
                .iter()
                .filter(|(name, _)| name.ends_with(ending))
                .map(|f| &f.1)
                .collect();
            if backwards {
                texts.reverse();
            }
            for text in texts {
                match text.starts_with("-- no-transaction\n") {
                    true => client.batch_execute(text).expect(text),
                    false => {
                        let mut transaction = client.transaction().expect("begins");
                        transaction.batch_execute(text).expect(text);
                        transaction.commit().expect("commits");
                    }
                }
            }
        };
        let was = schema(&project);
        send(".up.sql", false);
        assert_eq!(project.value(made), "true", "{arguments:?}");
        // Outside of a transaction, a file can be run again.
        send(".down.sql", true);
        assert_eq!(was, schema(&project), "{arguments:?}");
    }
}

#[test]
fn later_forms_leave_the_checks_of_earlier_ones_true() {
    let project = project();
    for arguments in [
        &["a", "--column", "orders.note:text"][..],
        &["b", "--not-null", "orders.user_id"],
        &["c", "--unique", "orders(id, note)"],
        &["d", "--constraint", "orders CHECK (user_id IS NOT NULL)"],
        &["e", "--index", "orders(note)"],
    ] {
        new(&project, arguments).succeeds();
    }
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-verify"]).succeeds();
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    project.xtask(&["db-verify"]).succeeds();
}

#[test]
fn what_runs_outside_of_a_transaction_can_be_repeated() {
    for Case { arguments, .. } in CASES {
        let project = project();
        versions(&project, &[&["change_it"], *arguments].concat());
        let outside = files(&project)
            .into_iter()
            .filter(|(_, text)| text.starts_with("-- no-transaction\n"));
        for (name, text) in outside {
            let mut client = project.client();
            client.batch_execute(&text).expect(&name);
            client.batch_execute(&text).expect(&name);
        }
    }
}

#[test]
fn no_login_waits_for_a_form() {
    let project = project();
    // Large enough that a form which read the table under a strong lock would be noticed.
    project.sql(
        "INSERT INTO users (email, password_hash, display_name, nickname, time)
         SELECT 'many' || n || '@example.org', repeat('x', 200), 'Many', 'm' || n, '12:00'
         FROM generate_series(1, 400000) AS n;
         CREATE FUNCTION slow(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
         $$ BEGIN FOR i IN 1..100 LOOP END LOOP; RETURN true; END $$",
    );
    for arguments in [
        &["--column", "users.plan:text"][..],
        &["--index", "users(nickname)"],
        &["--constraint", "users CHECK (public.slow(email))"],
        &["--not-null", "users.nickname"],
        &["--unique", "users(nickname)"],
    ] {
        versions(&project, &[&["change_it"], arguments].concat());
        let logins = Logins::start(&project, 2, Duration::from_millis(2));
        let run = project.xtask(&["db-migrate", "--no-backup"]);
        let stalls = logins.stop();
        run.succeeds();
        println!("{arguments:?}: {stalls:?}");
        let allowed = Duration::from_millis(100 + 150) + stalls.noise;
        assert!(stalls.worst < allowed, "{arguments:?}: {stalls:?}");
    }
}

#[test]
fn set_not_null_reads_no_row() {
    let project = project();
    let before = files(&project);
    new(&project, &["a", "--not-null", "users.nickname"]).succeeds();
    let heard = Arc::new(Mutex::new(String::new()));
    let notices = Arc::clone(&heard);
    let mut settings: postgres::Config = project.url.parse().expect("an address");
    settings.notice_callback(move |notice| {
        notices.lock().expect("no panic").push_str(notice.message())
    });
    let mut client = settings.connect(postgres::NoTls).expect("connects");
    client
        .batch_execute("SET client_min_messages = debug1")
        .expect("sets");
    for (name, text) in files(&project) {
        if name.ends_with(".up.sql") && !before.contains_key(&name) {
            client.batch_execute(&text).expect(&name);
        }
    }
    // What PostgreSQL says where it takes the CHECK's word for it; there is no other trace of a scan.
    let heard = heard.lock().expect("no panic");
    assert!(
        heard.contains("are sufficient to prove that it does not contain nulls"),
        "{heard}"
    );
}

/// SQL without its comments, and the directives that change how it runs.
fn sql_and_directives(text: &str) -> String {
    let lines = text.lines().filter(|line| {
        !line.is_empty()
            && (!line.starts_with("--")
                || line.starts_with("-- xtask: backup")
                || *line == "-- no-transaction")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_guides_own_case_needs_no_edit() {
    let project = Project::seeded();
    let shipped = files(&project);
    for name in shipped.keys().filter(|name| name.contains("last_login_at")) {
        fs::remove_file(project.path(name)).expect("removes");
    }
    new(
        &project,
        &[
            "add_users_last_login_at",
            "--column",
            "users.last_login_at:timestamptz",
        ],
    )
    .succeeds()
    .says("db-migrate --dry-run")
    .shows("_add_users_last_login_at.up.sql");
    new(
        &project,
        &[
            "index_users_last_login_at",
            "--index",
            "users(last_login_at DESC NULLS LAST)",
        ],
    )
    .succeeds();
    let ours = files(&project);
    let text = |files: &BTreeMap<String, String>, ending: &str| {
        let found = files.iter().filter(|(name, _)| name.ends_with(ending));
        let texts: Vec<String> = found.map(|(_, text)| text.clone()).collect();
        assert_eq!(texts.len(), 1, "{ending}");
        texts.concat()
    };
    for name in ["add_users_last_login_at", "index_users_last_login_at"] {
        for ending in [".up.sql", ".down.sql"] {
            let ending = format!("_{name}{ending}");
            let (theirs, ours) = (text(&shipped, &ending), text(&ours, &ending));
            assert_eq!(sql_and_directives(&theirs), sql_and_directives(&ours));
            let explained = |text: &str| {
                text.lines()
                    .any(|line| line.starts_with("-- ") && line.contains(' ') && line.len() > 60)
            };
            assert_eq!(explained(&theirs), explained(&ours), "{ours}");
        }
        let ending = format!("{name}.sql");
        let checks = |text: String| text.matches(" AS check,").count();
        assert_eq!(
            checks(text(&shipped, &ending)),
            checks(text(&ours, &ending))
        );
    }
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("5 checks hold");
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn the_first_migration_makes_its_folder_and_needs_no_database() {
    let project = Project::empty();
    for missing in [false, true] {
        fs::remove_dir_all(project.path("migrations")).expect("removes");
        if !missing {
            fs::create_dir(project.path("migrations")).expect("makes a folder");
        }
        new(&project, &["create a-table"]).succeeds();
        let names: Vec<String> = files(&project).into_keys().collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(
            names.iter().all(|name| name.contains("_create_a_table.")),
            "{names:?}"
        );
    }
    assert!(!project.path(".postgres").exists() && !project.path(".env").exists());
}

#[test]
fn an_unwritten_migration_is_never_applied_by_mistake() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    let version = versions(&project, &["later"])[0];
    let before = project.state();
    for arguments in [&["db-migrate"][..], &["db-migrate", "--dry-run"]] {
        project.xtask(arguments).exits(2).says("holds no check");
    }
    // By somebody who does not want checks, and by sqlx.
    fs::remove_file(project.path(&format!("migrations/verify/{version}_later.sql")))
        .expect("removes");
    project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("the up file is not written yet");
    assert_eq!(before, project.state());

    project.write(
        &format!("migrations/{version}_later.up.sql"),
        "CREATE TABLE later ();\n",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let before = project.state();
    project
        .xtask(&["db-rollback", "--yes"])
        .exits(1)
        .says("the down file is not written yet");
    assert_eq!(before, project.state());
}

#[test]
fn a_version_is_greater_than_every_other_and_no_file_is_written_over() {
    let project = Project::new();
    let first = versions(&project, &["a", "--unique", "users(email)"]);
    assert!(first[1] > first[0]);
    // In the same second, and of the same name.
    let before = files(&project);
    new(&project, &["a", "--not-null", "users.role"]).succeeds();
    let after = files(&project);
    assert_eq!(after.len(), before.len() + 6);
    assert!(
        before
            .iter()
            .all(|(name, text)| after.get(name) == Some(text))
    );

    // By another computer's clock.
    project.write("migrations/29991231235959_future.sql", "SELECT 1;\n");
    let run = new(&project, &["b", "--index", "users(role)"]).succeeds();
    run.shows("30000101000000_b.up.sql");

    // Where the name is taken by what is no file.
    fs::create_dir(project.path("migrations/30000101000001_c.down.sql")).expect("makes a folder");
    let before = files(&project);
    new(&project, &["c"])
        .exits(1)
        .says("30000101000001_c.down.sql")
        .says("no file was written");
    assert_eq!(before, files(&project));

    project.write(&format!("migrations/{}_last.sql", i64::MAX), "SELECT 1;\n");
    let before = files(&project);
    new(&project, &["d"])
        .exits(2)
        .says("there is no version after");
    assert_eq!(before, files(&project));
}

#[test]
fn several_at_once_have_different_versions() {
    let project = Project::new();
    let before = files(&project).len();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let project = &project;
            scope.spawn(move || {
                let name = format!("at_once_{number}");
                new(project, &[&name, "--unique", "users(role)"]).succeeds();
            });
        }
    });
    let files = files(&project);
    assert_eq!(files.len(), before + 8 * 6);
    let ups = files.keys().filter_map(|name| name.strip_suffix(".up.sql"));
    let versions: Vec<&str> = ups
        .filter_map(|name| name.split(['/', '_']).nth(1))
        .collect();
    let different: BTreeSet<&&str> = versions.iter().collect();
    assert_eq!(versions.len(), different.len());
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let project = Project::empty();
    project.write("migrations/verify", "a file");
    new(&project, &["a"])
        .exits(1)
        .says("cannot write `migrations/verify`")
        .says("no file was written");
    assert_eq!(
        fs::read_dir(project.path("migrations"))
            .expect("reads")
            .count(),
        1
    );

    project.write("file", "");
    new(&project, &["a", "--migrations", "file/migrations"])
        .exits(1)
        .says("no file was written");
    assert!(!project.path("file/migrations").exists());
}

#[test]
fn bad_input_is_refused_with_an_example_that_works() {
    let project = Project::empty();
    let long_name = "a".repeat(200);
    for (arguments, why) in [
        (
            &["--index", "users"][..],
            "expected [UNIQUE] TABLE(COLUMNS), found ",
        ),
        (
            &["--index", "users()"],
            "expected [UNIQUE] TABLE(COLUMNS), found ",
        ),
        (&["--index", "(a)"], "found `(a)`"),
        (&["--index", "users(a); DROP TABLE users"], "`;`"),
        (&["--index", "users(a);"], "`;`"),
        (&["--index", "users(a) -- why"], "comments"),
        (&["--index", "users(a, -- why\nb)"], "never closed"),
        (&["--index", "users(a), b"], "found `b`"),
        (&["--index", "users(a) WHERE b = 'x"], "never closed"),
        (&["--index", "users(a"], "never closed"),
        (&["--index", "users(\"a\u{7}\")"], "control characters"),
        (&["--unique", "users(lower(email))"], "--index 'UNIQUE"),
        (&["--unique", "users(a) WHERE b"], "found `WHERE b`"),
        (&["--column", "users.a"], "found less"),
        (&["--column", "users:text"], "expected TABLE.COLUMN"),
        (&["--column", "users.a:"], "expected TABLE.COLUMN:TYPE"),
        (&["--column", "users.a:text NOT NULL"], "found `NOT NULL`"),
        (
            &["--column", "users.a:bigserial"],
            "expected TABLE.COLUMN:TYPE",
        ),
        (
            &["--column", "users.a:int DEFAULT random()"],
            "found `DEFAULT random()`",
        ),
        (
            &["--column", "users.a:int GENERATED ALWAYS AS (1) STORED"],
            "found `GENERATED ALWAYS AS (1) STORED`",
        ),
        (
            &["--column", "users.a:text, DROP COLUMN email"],
            "found `DROP COLUMN email`",
        ),
        (&["--constraint", "users age > 0"], "found `age > 0`"),
        (&["--constraint", "users CHECK age > 0"], "found `age > 0`"),
        (
            &["--constraint", "users CHECK (age > 0) NOT VALID"],
            "found `NOT VALID`",
        ),
        (
            &["--constraint", "users CHECK (age > 0), DROP COLUMN email"],
            "found `DROP COLUMN email`",
        ),
        (&["--foreign-key", "orders(user_id)"], "found less"),
        (
            &[
                "--foreign-key",
                "orders(user_id) REFERENCES users(id), DROP x",
            ],
            "found `DROP x`",
        ),
        (&["--not-null", "users"], "expected TABLE.COLUMN"),
        (
            &["--index", "users(a)", "--as", "a b"],
            "one name without a schema",
        ),
        (
            &["--index", "users(a)", "--as", "a.b"],
            "one name without a schema",
        ),
    ] {
        println!("{arguments:?}");
        let run = new(&project, &[&["change_it"], arguments].concat()).exits(2);
        let run = run.says(why).says("no file was written");
        let (_, example) = run
            .stderr
            .rsplit_once(": cargo xtask ")
            .expect("an example");
        let mut shell = project.in_shell(&format!("\"$1\" {} --dry-run", example.trim()), &[]);
        Run::of(&mut shell).succeeds();
        assert!(files(&project).is_empty(), "{arguments:?}");
    }
    for name in [
        "", " ", "_-_", ".hidden", "a/b", "../a", "a\\b", "ä", "a.up", "a\nb", &long_name,
    ] {
        new(&project, &[name])
            .exits(2)
            .says("cannot name a migration")
            .says("no file was written");
    }
    for arguments in [
        &["a", "--as", "b"][..],
        &["a", "--index", "users(a)", "--unique", "users(a)"],
        &["a", "--column", "users.a:int", "--as", "b"],
        &["a", "--column", "users.a:int", "--column", "users.b:int"],
    ] {
        new(&project, arguments).exits(2);
    }
    assert!(files(&project).is_empty());
}

#[test]
fn a_dry_run_prints_what_would_be_written() {
    let project = Project::new();
    let before = files(&project);
    let arguments = ["a", "--not-null", "users.role"];
    let shown = new(&project, &[&arguments[..], &["--dry-run"]].concat()).succeeds();
    let shown = shown.says("no file was written").shows("SET NOT NULL");
    assert_eq!(before, files(&project));
    let document = new(&project, &[&arguments[..], &["--format", "json"]].concat());
    let document = document.succeeds().json();
    let after = files(&project);
    let migrations = document["migrations"].as_array().expect("a list");
    let written = migrations
        .iter()
        .flat_map(|migration| migration["files"].as_array().expect("a list"));
    let written: Vec<&Value> = written.collect();
    assert_eq!(written.len(), 6);
    for file in written {
        let text = &after[file.as_str().expect("text")];
        assert!(shown.stdout.contains(text), "{file}: {}", shown.stdout);
    }
}

#[test]
fn a_form_on_one_line_or_several_is_the_same() {
    let project = Project::empty();
    let of = |given: &str| {
        new(
            &project,
            &["a", "--constraint", given, "--dry-run", "--quiet"],
        )
        .succeeds()
        .stdout
    };
    let strip = |text: String| {
        text.lines()
            .filter(|line| !line.contains("migrations/"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let one = strip(of("users CHECK (a > 0 AND b > 0)"));
    assert_eq!(one, strip(of("users CHECK (a > 0\r\n AND\tb > 0)\n")));
    assert!(!one.contains('\r'));
}

#[test]
fn long_names_stay_different_and_fit() {
    let project = Project::empty();
    let table = "a_table_with_a_long_name_of_its_own";
    let index = |column: &str| {
        let given = format!("{table}({column})");
        let run = new(&project, &["a", "--index", &given, "--dry-run", "--quiet"]).succeeds();
        let (_, rest) = run.stdout.split_once("IF NOT EXISTS ").expect("an index");
        rest.lines().next().expect("a line").to_owned()
    };
    let names = [
        "column_of_the_same_beginning_1",
        "column_of_the_same_beginning_2",
    ]
    .map(index);
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
}

#[test]
fn a_table_that_is_missing_by_then_stops_the_run_before_anything_changes() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    for arguments in [
        &["--column", "absent.a:int"][..],
        &["--index", "absent(a)"],
        &["--not-null", "absent.a"],
    ] {
        let project = Project::seeded();
        project.xtask(&["db-migrate"]).succeeds();
        versions(&project, &[&["change_it"], arguments].concat());
        let before = project.state();
        project.xtask(&["db-migrate"]).exits(1).says("absent");
        assert_eq!(before, project.state());
    }
}

/// A git repository around the project's migrations.
fn git(project: &Project, arguments: &[&str]) {
    let identity = [
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.org",
        "-c",
        "commit.gpgsign=false",
    ];
    Run::of(project.program("git").args(identity).args(arguments)).succeeds();
}

#[test]
fn migrations_of_another_branch_are_seen() {
    let project = Project::new();
    git(&project, &["init", "--quiet", "--initial-branch", "main"]);
    git(&project, &["add", "migrations"]);
    git(&project, &["commit", "--quiet", "--message", "first"]);
    git(&project, &["switch", "--quiet", "--create", "theirs"]);
    project.write("migrations/29990101000000_add_phone.up.sql", "SELECT 1;\n");
    project.write("migrations/20260101000000_theirs.up.sql", "SELECT 1;\n");
    git(&project, &["add", "migrations"]);
    git(&project, &["commit", "--quiet", "--message", "second"]);
    git(&project, &["switch", "--quiet", "main"]);
    project.write("migrations/20260101000000_ours.up.sql", "SELECT 1;\n");

    let against = |name: &str, reference: &str, more: &[&str]| {
        let arguments = [
            &[name, "--column", "users.phone:text", "--against", reference],
            more,
        ]
        .concat();
        new(&project, &arguments)
    };
    let run = against("add_phone", "theirs", &[]).succeeds();
    let run = run.shows("migrations/29990101000001_add_phone.up.sql");
    run.says("version 20260101000000 is `ours` here and `theirs` on `theirs`");
    // The same from a folder below, and a folder that is not there on either side.
    let mut below =
        project.unconfigured(&["db-new", "b", "--against", "theirs", "--migrations", "."]);
    let run = Run::of(below.current_dir(project.path("migrations"))).succeeds();
    run.says("version 20260101000000 is")
        .shows("29990101000002_b");
    let run = against("c", "main", &["--migrations", "elsewhere/migrations"]).succeeds();
    run.says("`main` has no migrations in this folder");

    let before = files(&project);
    for reference in ["origin/main", "-", "theirs:migrations", "no such"] {
        let run = against("d", reference, &[]).exits(2);
        run.says("fatal: ")
            .says("git fetch --all")
            .says("no file was written");
    }
    assert_eq!(before, files(&project));

    let alone = Project::new();
    let before = files(&alone);
    let mut command = alone.unconfigured(&["db-new", "a", "--against", "main"]);
    // Not in the repository that the temporary folder may be in.
    let ceiling = alone.path("..").canonicalize().expect("a path");
    let run = Run::of(command.env("GIT_CEILING_DIRECTORIES", &ceiling)).exits(2);
    run.says("not a git repository")
        .says("leave out `--against`");
    let mut command = alone.unconfigured(&["db-new", "a", "--against", "main"]);
    Run::of(command.env("PATH", ""))
        .exits(2)
        .says("cannot start `git`");
    assert_eq!(before, files(&alone));
}

#[test]
fn the_shipped_folder_can_be_copied_and_continued() {
    let project = Project::empty();
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations"),
        &project.path("migrations"),
    );
    let version = versions(&project, &["next"])[0];
    assert!(version > 20_251_231_143_100);
}

/// The lines of a text that call `db-new`, without what is said about them after two spaces.
fn command_lines(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("cargo xtask db-new "));
    lines.filter_map(|line| line.split("  ").next()).collect()
}

#[test]
fn every_command_line_of_the_pages_works_and_its_migrations_run() {
    let help = new(&Project::empty(), &["--help"]).succeeds().stdout;
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    for page in [&help, &fs::read_to_string(readme).expect("reads")] {
        let project = Project::seeded();
        project.sql(
            "CREATE TABLE orders (id bigint, user_id bigint, number int); INSERT INTO orders VALUES (1, 1, 1);
             CREATE TABLE posts (tags jsonb, published boolean)",
        );
        git(&project, &["init", "--quiet"]);
        git(
            &project,
            &["commit", "--quiet", "--allow-empty", "--message", "first"],
        );
        git(
            &project,
            &["update-ref", "refs/remotes/origin/main", "HEAD"],
        );
        let lines = command_lines(page);
        assert!(lines.len() >= 8, "{lines:?}");
        for line in lines {
            let typed = line.replacen("cargo xtask", "\"$1\"", 1);
            Run::of(&mut project.in_shell(&typed, &[])).succeeds();
        }
        // One is to be written by hand.
        project.xtask(&["db-migrate"]).exits(2).says("move_totals");
        for name in files(&project)
            .keys()
            .filter(|name| name.contains("move_totals"))
        {
            fs::remove_file(project.path(name)).expect("removes");
        }
        project.xtask(&["db-migrate"]).succeeds();
        project.xtask(&["db-verify"]).succeeds();
    }
}
