//! Restores: a merge, all or nothing, that gives back every row as it was and takes no newer one.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Project, Run, setting, until, url_as};
use crate::proof::{back_up, backups};

/// All rows of a table, as text in the order of their ids.
fn rows(project: &Project, what: &str, table: &str) -> String {
    project.value(&format!(
        "SELECT string_agg(t::text, E'\\n' ORDER BY t.id) FROM (SELECT {what} FROM {table}) AS t"
    ))
}

/// psql as in the guide: stdin, no ON_ERROR_STOP.
fn guides_restore(project: &Project, file: &str) -> Run {
    let backup = std::fs::File::open(project.path(file)).expect("the backup");
    let mut command = project.program("psql");
    command.arg(&project.url).stdin(Stdio::from(backup));
    Run::of(&mut command)
}

fn insert_sql(email: &str) -> String {
    format!("INSERT INTO users (email, password_hash, display_name) VALUES ('{email}', 'x', 'New')")
}

/// The guide's restore: exit 0, nothing restored, the sequence rewound.
#[test]
fn the_guides_restore_restores_nothing_and_breaks_sign_up() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    let before = rows(&project, "*", "users");
    project.sql(&insert_sql("newer@example.com"));
    project.sql("DELETE FROM users WHERE id = 7; UPDATE users SET role = 'admin' WHERE id = 8");
    let damaged = rows(&project, "*", "users");

    guides_restore(&project, &file).succeeds();
    assert_eq!(rows(&project, "*", "users"), damaged);
    let refused = project
        .client()
        .batch_execute(&insert_sql("next@example.com"));
    let refused = refused.expect_err("the sequence gives out an id that is taken");
    assert_eq!(refused.code().map(|code| code.code()), Some("23505"));

    // Ours mends that too.
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(rows(&project, "*", "users WHERE id <= 1200"), before);
    assert_eq!(
        project.value("SELECT count(*) FROM users WHERE email = 'newer@example.com'"),
        "1"
    );
    project.sql(&insert_sql("next@example.com"));
}

/// … and where its COPY fails, psql runs the rows as SQL.
#[test]
fn an_email_is_never_run_as_sql() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql(
        "CREATE TABLE canary (); UPDATE users SET password_hash = 'no dollar, which psql takes for a quote';
         UPDATE users SET email = 'x@y; DROP TABLE public.canary; --' WHERE id = 7",
    );
    let file = back_up(&project, "users");
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    project.sql("UPDATE users SET email = 'x@y' WHERE id = 7");

    project
        .xtask(&["db-restore", &file, "--yes"])
        .succeeds()
        .says("last_login_at");
    assert_eq!(project.value("SELECT to_regclass('canary')"), "canary");
    assert_eq!(
        project.value("SELECT email FROM users WHERE id = 7"),
        "x@y; DROP TABLE public.canary; --"
    );

    guides_restore(&project, &file).succeeds();
    assert_eq!(
        project.value("SELECT to_regclass('canary')"),
        "",
        "psql, fed with the dump, drops it"
    );
}

#[test]
fn a_rollback_remembers_every_value() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql(
        "UPDATE users SET last_login_at = now() - id * interval '1.000001 min' WHERE id <= 812",
    );
    let before = rows(&project, "*", "users");
    let run = project
        .xtask(&["db-rollback", "--yes"])
        .succeeds()
        .says("column `public.users.last_login_at`: 812 of 1,200 values");
    project.sql(&insert_sql("newer@example.com"));

    let commands: Vec<&str> = run
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("cargo xtask "))
        .collect();
    assert_eq!(commands.len(), 2, "{}", run.stdout);
    // As printed: nothing is lost by it, so nothing is asked.
    for command in commands {
        let arguments: Vec<&str> = command.split(' ').collect();
        project.xtask(&arguments).succeeds();
    }
    assert_eq!(rows(&project, "*", "users WHERE id <= 1200"), before);
    assert_eq!(project.value("SELECT count(*) FROM users"), "1201");
    project.xtask(&["db-verify"]).succeeds();
}

/// Numbers that depend on the seed alone (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len() as u64) as usize]
    }
}

/// Types with literals that are hard on a text format.
const TYPES: &[(&str, &[&str])] = &[
    (
        "text",
        &[
            "NULL",
            "''",
            "E'\\\\.'",
            "E'\\\\N'",
            "E'tab\\there'",
            "E'line\\nbreak\\r\\n\\\\.\\n'",
            "'naïve 🦀 \u{202e}x'",
            "'x@y; DROP TABLE t; --'",
            "E'back\\\\slash\\\\\\\\t'",
            "repeat('long ', 60000)",
            "E'\\x01\\x7f'",
            "'\"quoted\", {a}'",
        ],
    ),
    (
        "bytea",
        &[
            "NULL",
            "'\\x'",
            "'\\x000a0d5c2e09ff'",
            "decode(repeat('5c2e0a', 9000), 'hex')",
        ],
    ),
    (
        "json",
        &["NULL", "'{\"a\" : [1, \"\\n\"]}'", "'null'", "'\"\\\\.\"'"],
    ),
    ("jsonb", &["NULL", "'{\"a\": 1.0}'", "'[]'"]),
    (
        "numeric",
        &[
            "NULL",
            "1.0",
            "1.00",
            "'NaN'",
            "-123456789012345678901234567890.5",
        ],
    ),
    ("float8", &["NULL", "0.1", "'-0'", "'Infinity'", "1e-300"]),
    (
        "timestamptz",
        &[
            "NULL",
            "'infinity'",
            "'2026-03-29 02:30:00.000001+02'",
            "'0044-03-15 12:00 BC'",
        ],
    ),
    (
        "interval",
        &["NULL", "'1 mon -3 days 04:05:06.7'", "'-1 us'"],
    ),
    (
        "text[]",
        &[
            "NULL",
            "'{}'",
            "'{NULL,\"NULL\",\"\"}'",
            "E'{\"a\\\\\\\\b\",\"c\\nd\"}'",
        ],
    ),
    ("int4range", &["NULL", "'empty'", "'[1,5)'", "'(,)'"]),
    ("boolean", &["NULL", "true", "false"]),
    ("point", &["NULL", "'(1.5,-2)'"]),
    ("char(4)", &["NULL", "'a'", "''"]),
    ("uuid", &["NULL", "'00000000-0000-0000-0000-00000000000a'"]),
];

/// Backup → deletes, updates, inserts, a dropped column, an added one → restore → every row as the
/// merge promises.
#[test]
fn a_restore_gives_back_what_it_promises() {
    let project = Project::new();
    for seed in 1..=8 {
        let mut random = Random(seed);
        let columns: Vec<(String, &(&str, &[&str]))> = (0..=random.below(8))
            .map(|n| {
                let odd = random.pick(&["", " with space", "\"\"quote", ", x)", "Ü"]);
                (
                    format!("\"c{n}{odd}\""),
                    &TYPES[random.below(TYPES.len() as u64) as usize],
                )
            })
            .collect();
        let key = random.pick(&[
            "bigserial",
            "int GENERATED ALWAYS AS IDENTITY",
            "bigint GENERATED BY DEFAULT AS IDENTITY",
        ]);
        let definition: String = columns
            .iter()
            .map(|(name, (kind, _))| format!(", {name} {kind}"))
            .collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let list = names.join(", ");
        let row = |random: &mut Random| {
            let values: Vec<&str> = columns
                .iter()
                .map(|(_, (_, among))| random.pick(among))
                .collect();
            values.join(", ")
        };
        let count = 1 + random.below(60);
        let inserts: String = (0..count)
            .map(|_| format!("INSERT INTO t ({list}) VALUES ({});", row(&mut random)))
            .collect();
        project.sql(&format!(
            "CREATE TABLE t (id {key} PRIMARY KEY{definition}, dropped text DEFAULT 'gone'); {inserts}
             ALTER TABLE t ADD computed text GENERATED ALWAYS AS (id::text) STORED"
        ));
        let file = back_up(&project, "t");
        project.sql("CREATE TABLE was AS TABLE t; ALTER TABLE t DROP dropped, ADD added text DEFAULT 'default'");

        let mut damage = String::from("UPDATE t SET added = 'own' WHERE id % 2 = 0;");
        for id in 1..=count {
            match random.below(4) {
                0 => damage.push_str(&format!("DELETE FROM t WHERE id = {id};")),
                1 => {
                    let (name, (_, among)) = &columns[random.below(columns.len() as u64) as usize];
                    let value = random.pick(among);
                    damage.push_str(&format!("UPDATE t SET {name} = {value} WHERE id = {id};"));
                }
                _ => {}
            }
        }
        let newer = random.below(5);
        for _ in 0..newer {
            damage.push_str(&format!(
                "INSERT INTO t ({list}) VALUES ({});",
                row(&mut random)
            ));
        }
        project.sql(&damage);
        project.sql("CREATE TABLE damaged AS TABLE t");
        // What the counts must be, by another way of comparing.
        let text = format!("ROW({list})::text");
        let missing = project.value("SELECT count(*) FROM was WHERE id NOT IN (SELECT id FROM t)");
        let differing = project.value(&format!(
            "SELECT count(*) FROM (SELECT id, {text} AS row FROM was) AS w JOIN (SELECT id, {text} AS row FROM t) AS l USING (id) WHERE w.row <> l.row"
        ));

        let dry = project
            .xtask(&["db-restore", &file, "--dry-run", "--format", "json"])
            .succeeds()
            .json();
        assert_eq!(
            rows(&project, "*", "t"),
            rows(&project, "*", "damaged"),
            "seed {seed}"
        );
        let merged = project
            .xtask(&["db-restore", &file, "--yes", "--format", "json"])
            .succeeds()
            .json();
        for report in [&dry, &merged] {
            assert_eq!(report["inserted"].to_string(), missing, "seed {seed}");
            assert_eq!(report["updated"].to_string(), differing, "seed {seed}");
            assert_eq!(report["kept_newer"], newer, "seed {seed}");
            assert_eq!(
                report["skipped_columns"],
                serde_json::json!(["dropped"]),
                "seed {seed}"
            );
        }
        let restored = format!("id, {list}, computed");
        assert_eq!(
            rows(&project, &restored, &format!("t WHERE id <= {count}")),
            rows(&project, &restored, "was"),
            "seed {seed}"
        );
        assert_eq!(
            rows(&project, "*", &format!("t WHERE id > {count}")),
            rows(&project, "*", &format!("damaged WHERE id > {count}")),
            "seed {seed}"
        );
        assert_eq!(
            project.value("SELECT count(*) FROM t JOIN damaged USING (id) WHERE t.added IS DISTINCT FROM damaged.added"),
            "0"
        );
        assert_eq!(
            project.value("SELECT count(*) FROM t WHERE added <> 'default' AND id NOT IN (SELECT id FROM damaged)"),
            "0"
        );
        // The next id is free, and again there is nothing to do.
        project.sql(&format!(
            "INSERT INTO t ({list}) VALUES ({})",
            row(&mut random)
        ));
        let again = project
            .xtask(&["db-restore", &file, "--format", "json"])
            .succeeds()
            .json();
        assert_eq!(
            (&again["inserted"], &again["updated"]),
            (&0.into(), &0.into()),
            "seed {seed}"
        );
        project.sql("DROP TABLE t, was, damaged");
    }
}

#[test]
fn a_value_that_belongs_to_a_newer_row_is_listed_and_nothing_changes() {
    let project = Project::seeded();
    project.sql("CREATE UNIQUE INDEX by_name ON users (lower(display_name)) WHERE role = 'member'");
    let file = back_up(&project, "users");
    project.sql(
        "DELETE FROM users WHERE id IN (7, 9, 11);
         INSERT INTO users (email, password_hash, display_name) VALUES ('user7@example.com', 'x', 'Seven'), ('a@b', 'x', 'USER 9')",
    );
    let before = rows(&project, "*", "users");
    for arguments in [
        vec!["db-restore", &file, "--dry-run"],
        vec!["db-restore", &file],
    ] {
        let run = project
            .xtask(&arguments)
            .exits(3)
            .says("users_email_key: the backup's row (7) has (user7@example.com), which belongs to row (1201) now")
            .says("by_name: the backup's row (9) has")
            .says("nothing was restored");
        assert!(!run.stderr.contains("row (11)"));
        assert_eq!(rows(&project, "*", "users"), before);
    }
    project.sql("DELETE FROM users WHERE id > 1200");
    project.xtask(&["db-restore", &file]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
}

#[test]
fn sequences_only_move_forward() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    let position = || project.value("SELECT last_value FROM users_id_seq");
    project.sql("SELECT setval('users_id_seq', 5000)");
    project.xtask(&["db-restore", &file]).succeeds();
    assert_eq!(position(), "5000");
    // As the guide's restore leaves it, and as a table that was made anew has it.
    project.sql("SELECT setval('users_id_seq', 3, false)");
    project
        .xtask(&["db-restore", &file, "--dry-run"])
        .succeeds();
    assert_eq!(position(), "3");
    project.xtask(&["db-restore", &file]).succeeds();
    assert_eq!(position(), "1200");
    project.sql("DELETE FROM users WHERE id > 100");
    let short = back_up(&project, "users");
    project.sql("SELECT setval('users_id_seq', 1, false)");
    project.xtask(&["db-restore", &short]).succeeds();
    assert_eq!(
        position(),
        "1200",
        "ids that were given out are not given out again"
    );
}

#[test]
fn foreign_keys_hold() {
    let project = Project::seeded();
    let (users, sessions) = (back_up(&project, "users"), back_up(&project, "sessions"));
    let before = rows(&project, "*", "sessions");
    project.sql("DELETE FROM users WHERE id % 3 = 0");
    project
        .xtask(&["db-restore", &sessions])
        .exits(1)
        .says("restore the table that it refers to first")
        .says("nothing was restored");
    project.xtask(&["db-restore", &users]).succeeds();
    project.xtask(&["db-restore", &sessions]).succeeds();
    assert_eq!(rows(&project, "*", "sessions"), before);

    // Rows that refer to each other, where one returns and one is changed.
    project.sql(
        "CREATE TABLE staff (id int PRIMARY KEY, boss int REFERENCES staff, deputy int REFERENCES staff DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO staff VALUES (3, NULL, NULL), (2, 3, 3), (1, 2, 3); UPDATE staff SET deputy = 1 WHERE id = 3;
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER keep BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION keep()",
    );
    let file = back_up(&project, "staff");
    let before = rows(&project, "*", "staff");
    project.sql("UPDATE staff SET boss = NULL, deputy = NULL; DELETE FROM staff WHERE id > 1");
    project.xtask(&["db-restore", &file]).succeeds();
    assert_eq!(rows(&project, "*", "staff"), before);
}

#[test]
fn triggers_do_not_fire_and_it_is_said_where_they_do() {
    let project = Project::seeded();
    project.sql(
        "CREATE TABLE fired (name text);
         CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO public.fired VALUES (tg_name); NEW.display_name := 'fired'; RETURN NEW; END $$;
         CREATE TRIGGER origin BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fire();
         CREATE TRIGGER always BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fire();
         CREATE TRIGGER replica BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fire();
         CREATE TRIGGER off BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fire();
         ALTER TABLE users ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica, DISABLE TRIGGER off",
    );
    let file = back_up(&project, "users");
    let (before, enabled) = (
        rows(&project, "*", "users"),
        "SELECT string_agg(tgname || tgenabled::text, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal",
    );
    let states = project.value(enabled);
    let damage = "ALTER TABLE users DISABLE TRIGGER USER; DELETE FROM users WHERE id = 7; UPDATE users SET role = 'admin' WHERE id = 8;
         ALTER TABLE users ENABLE TRIGGER origin, ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica, DISABLE TRIGGER off";
    project.sql(damage);
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(rows(&project, "*", "users"), before);
    assert_eq!(project.value("SELECT count(*) FROM fired"), "0");
    assert_eq!(project.value(enabled), states);

    let role = format!("writer_{}", project.database);
    project.sql(damage);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    ));
    let url = url_as(&role, "pw", &project.database);
    project
        .xtask(&["db-restore", &file, "--yes", "--database-url", &url])
        .succeeds()
        .says("2 triggers will fire");
    assert_eq!(project.value("SELECT count(*) FROM fired"), "4");
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_backup_of_another_database_is_refused() {
    let (project, other) = (Project::seeded(), Project::seeded());
    let file = back_up(&other, "users");
    let path = other.path(&file).display().to_string();
    project.sql("DELETE FROM users WHERE id = 7");
    project
        .xtask(&["db-restore", &path])
        .exits(1)
        .says("the backup is of another database")
        .says(&other.database);
    assert_eq!(project.value("SELECT count(*) FROM users"), "1199");
    project
        .xtask(&["db-restore", &path, "--force-other-database", "--yes"])
        .succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
    // By whatever name: the same database is the same.
    let renamed = format!("{}_renamed", other.database);
    crate::common::admin("postgres")
        .batch_execute(&format!(
            "ALTER DATABASE {} RENAME TO {renamed}",
            other.database
        ))
        .expect("renames");
    let url = other.url.replace(&other.database, &renamed);
    other
        .xtask(&["db-restore", &file, "--database-url", &url])
        .succeeds();
    crate::common::admin("postgres")
        .batch_execute(&format!(
            "ALTER DATABASE {renamed} RENAME TO {}",
            other.database
        ))
        .expect("renames");
}

#[test]
fn a_file_that_is_not_what_was_written_is_not_restored() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    let good = std::fs::read(project.path(&file)).expect("reads");
    project.sql("DELETE FROM users WHERE id = 7");
    let find = |what: &[u8]| {
        let at = good.windows(what.len()).position(|window| window == what);
        at.expect("it is in the file")
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let table = [
        ("a value", with(find(b"User 77\t") + 5, b'8'), "was changed"),
        (
            "a row that cannot be read",
            with(find(b"\n77\t") + 1, b'x'),
            "was changed",
        ),
        (
            "a lost tab",
            with(find(b"\tUser 77\t"), b' '),
            "was changed",
        ),
        (
            "bytes that are no text",
            with(find(b"User 77\t"), 0xff),
            "was changed",
        ),
        (
            "a column's name",
            with(find(b"(id, email") + 5, b'f'),
            "was changed",
        ),
        ("no COPY", with(find(b"COPY public"), b'X'), "was changed"),
        (
            "an early end of the data",
            with(find(b"\n77\t") + 1, b'\n'),
            "was changed",
        ),
        ("a cut", good[..good.len() / 2].to_vec(), "was cut off"),
        ("nothing", Vec::new(), "was cut off"),
        (
            "more",
            [good.clone(), b"DROP TABLE users;\n".to_vec()].concat(),
            "was changed",
        ),
    ];
    for (what, bytes, says) in table {
        std::fs::write(project.path(&file), bytes).expect("writes");
        let run = project.xtask(&["db-restore", &file]).exits(2);
        assert!(run.stderr.contains(says), "{what}: {}", run.stderr);
        assert_eq!(
            project.value("SELECT count(*) FROM users"),
            "1199",
            "{what}"
        );
    }
    // A random bit, anywhere.
    let mut random = Random(4);
    for _ in 0..10 {
        let at = random.below(good.len() as u64) as usize;
        let byte = good[at] ^ (1 << random.below(8));
        std::fs::write(project.path(&file), with(at, byte)).expect("writes");
        project
            .xtask(&["db-restore", &file])
            .exits(2)
            .says("was changed");
    }

    std::fs::write(project.path(&file), &good).expect("writes");
    let moved = "backups/moved.sql";
    std::fs::rename(project.path(&file), project.path(moved)).expect("moves");
    project
        .xtask(&["db-restore", moved])
        .exits(2)
        .says("has no manifest")
        .says(&format!("mv {moved} {file}"));
    std::fs::rename(
        project.path(&format!("{file}.json")),
        project.path("backups/moved.sql.json"),
    )
    .expect("moves");
    project
        .xtask(&["db-restore", moved])
        .succeeds()
        .says("this backup was renamed");
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
    project.xtask(&["db-restore", "backups/none.sql"]).exits(1);
    assert_eq!(backups(&project).len(), 1);
}

#[test]
fn readers_go_on_and_writers_make_it_wait() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("DELETE FROM users WHERE id = 7");
    let mut other = project.client();
    let mut reader = other.transaction().expect("begins");
    reader
        .query_one("SELECT count(*) FROM users", &[])
        .expect("reads");
    project
        .xtask(&["db-restore", &file, "--lock-deadline", "5s"])
        .succeeds();
    drop(reader);

    project.sql("DELETE FROM users WHERE id = 7");
    let mut writer = other.transaction().expect("begins");
    writer
        .execute("UPDATE users SET display_name = 'x' WHERE id = 9", &[])
        .expect("writes");
    project
        .xtask(&["db-restore", &file, "--yes", "--lock-deadline", "1s"])
        .exits(4)
        .says("in the way: pid")
        .says("nothing was restored");
    assert_eq!(project.value("SELECT count(*) FROM users"), "1199");
    // It comes through when the writer has ended; what was written meanwhile is newer.
    let mut run = project.start(&["db-restore", &file, "--yes"]);
    run.says("Compared");
    std::thread::sleep(Duration::from_millis(200));
    assert!(run.child.try_wait().expect("waits").is_none());
    writer.commit().expect("commits");
    run.ends().succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
    assert_eq!(
        project.value("SELECT display_name FROM users WHERE id = 9"),
        "x"
    );
}

/// Killed at any instant, the table is as it was or as it is to be, and the next run ends the same.
#[test]
fn a_killed_restore_is_whole_or_not_at_all() {
    let project = Project::seeded();
    project.sql("INSERT INTO users (email, password_hash, display_name) SELECT 'more' || n, repeat('h', 90), 'More' FROM generate_series(1, 20000) AS n");
    project.sql(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()",
    );
    let file = back_up(&project, "users");
    let content = || project.value("SELECT sum(hashtextextended(u::text, 0)) FROM users AS u");
    let restored = content();
    let damage =
        "DELETE FROM users WHERE id % 3 = 0; UPDATE users SET role = 'admin' WHERE id % 5 = 0";
    project.sql(damage);
    let damaged = content();
    let started = Instant::now();
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    let usual = started.elapsed();
    assert_eq!(content(), restored);

    let mut random = Random(9);
    for round in 0..rounds() {
        project.sql(damage);
        let mut child = project
            .command(&["db-restore", &file, "--yes"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(usual.mul_f64(random.below(1000) as f64 / 900.0));
        child.kill().expect("kills");
        child.wait().expect("waits");
        let now = content();
        assert!(now == damaged || now == restored, "round {round}");
        let enabled = project.value("SELECT tgenabled FROM pg_trigger WHERE tgname = 'keep'");
        assert_eq!(enabled, "O", "round {round}");
        project.xtask(&["db-restore", &file, "--yes"]).succeeds();
        assert_eq!(content(), restored, "round {round}");
    }
}

/// How often it is killed: 8 times, or `KILL_ROUNDS`.
fn rounds() -> u64 {
    setting("KILL_ROUNDS").map_or(8, |rounds| rounds.parse().expect("a number"))
}

#[test]
fn a_dry_run_writes_nothing_and_one_column_can_be_taken_alone() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("DELETE FROM users WHERE id = 7; UPDATE users SET role = 'admin', display_name = 'x' WHERE id = 8");
    let state = || {
        // The server drops a session's temporary tables behind the program's back.
        until("its sessions have ended", || project.backends() == 0);
        (
            rows(&project, "*, xmin, ctid", "users"),
            project.value("SELECT count(*) FROM pg_class"),
            project.value("SELECT last_value FROM users_id_seq"),
        )
    };
    let before = state();
    let run = project
        .xtask(&["db-restore", &file, "--dry-run"])
        .succeeds();
    assert!(
        run.stdout
            .contains("1 row to return, 1 to take the backup's values, 1,198 unchanged"),
        "{}",
        run.stdout
    );
    assert_eq!(state(), before);

    // Somebody's value is replaced: that is asked.
    project
        .xtask(&["db-restore", &file])
        .exits(2)
        .says("confirmation required, but stdin is not a terminal");
    assert_eq!(state(), before);

    project
        .xtask(&["db-restore", &file, "--column", "role", "--yes"])
        .succeeds();
    assert_eq!(
        project.value("SELECT role || display_name FROM users WHERE id = 8"),
        "memberx"
    );
    assert_eq!(project.value("SELECT count(*) FROM users"), "1199");
    project
        .xtask(&["db-restore", &file, "--column", "nosuch"])
        .exits(2);
}

#[test]
fn a_table_without_a_primary_key_is_refused() {
    let project = Project::new();
    project.sql("CREATE TABLE log (line text); INSERT INTO log VALUES ('a')");
    let file = back_up(&project, "log");
    project
        .xtask(&["db-restore", &file])
        .exits(1)
        .says("it has no primary key");
}
