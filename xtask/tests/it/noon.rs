//! Look before you wait: whoever holds the table, logins never queue behind a migration for longer
//! than one `lock_timeout`, and the migration gets through as soon as the table is free.
//!
//! `XTASK_LONG=1` holds the table as long as the README says, on as many rows, and is strict about
//! the figures; the short form leaves room for a machine that does something else too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    BASELINE, COLUMN, Logins, Project, READER, Run, Stalls, WRITER, XTASK, blocker, blocker_at,
    chmod, long, path_variable, tool, until, url_as,
};

/// `--lock-timeout`, unless given.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a blocker holds the table.
fn hold() -> Duration {
    Duration::from_millis(if long() { 20_000 } else { 1_500 })
}

/// How much longer than `lock_timeout` the worst login may take.
fn slack() -> Duration {
    Duration::from_millis(if long() { 50 } else { 400 })
}

/// How soon after the blocker's end the change is there.
fn soon() -> Duration {
    Duration::from_millis(if long() { 1_000 } else { 2_000 })
}

/// A seeded project, in the long form with a million users.
fn project() -> Project {
    let project = Project::seeded();
    if long() {
        project.xtask(&["db-seed", "--users", "998800"]).succeeds();
        project.sql("VACUUM ANALYZE users");
    }
    project
}

fn has_column(project: &Project, column: &str) -> bool {
    project.value(&format!(
        "SELECT count(*) FROM pg_attribute
         WHERE attrelid = 'users'::regclass AND attname = '{column}' AND NOT attisdropped"
    )) == "1"
}

/// What a run under logins came to.
struct Figures {
    stalls: Stalls,
    tries: u64,
    run: Run,
}

impl Figures {
    fn of(stalls: Stalls, run: Run) -> Figures {
        let tries = run.json()["run"]["lock_attempts"].as_u64();
        Figures {
            stalls,
            tries: tries.expect("a number"),
            run,
        }
    }

    #[track_caller]
    fn hold_for(&self, what: &str, lock_timeout: Duration) {
        let Stalls { worst, noise, .. } = self.stalls;
        println!(
            "{what}: worst login {worst:.1?} (beside the table {noise:.1?}), {} tries",
            self.tries
        );
        assert!(
            worst <= lock_timeout + slack() + noise,
            "{what}: a login took {worst:?}, one beside the table {noise:?}\n{}",
            self.run.stderr
        );
        assert!(
            self.tries <= 3,
            "{what}: {} tries\n{}",
            self.tries,
            self.run.stderr
        );
    }
}

/// Runs a command while a session holds `users`, lets go [`hold`] after it was named, and waits until
/// `done`.
fn behind(
    project: &Project,
    holding: &str,
    arguments: &[&str],
    done: impl Fn() -> bool,
) -> Figures {
    let logins = Logins::start(project, 2, Duration::from_millis(2));
    let (mut holder, pid) = blocker(project, holding);
    let mut run = project.start(arguments);
    run.says(&format!(
        "pid {pid}, user admin, application blocker, idle in transaction, in its transaction for "
    ));
    std::thread::sleep(hold());
    assert!(!done(), "it went past somebody who held the table");
    holder.batch_execute("COMMIT").expect("commits");
    let freed = Instant::now();
    until("the change is there", &done);
    let late = freed.elapsed();
    let run = run.ends().succeeds();
    let stalls = logins.stop();
    println!("{}: {late:.0?} after the blocker's end", arguments[0]);
    assert!(
        late <= soon(),
        "{late:?} after the blocker's end\n{}",
        run.stderr
    );
    Figures::of(stalls, run)
}

#[test]
fn logins_wait_for_one_lock_timeout_at_most_behind_a_reader_or_an_idle_writer() {
    let project = project();
    for (who, holding) in [("a reader", READER), ("an idle writer", WRITER)] {
        let there = || has_column(&project, "last_login_at");
        let up = ["db-migrate", "--format", "json"];
        let figures = behind(&project, holding, &up, there);
        figures.hold_for(&format!("migrate behind {who}"), LOCK_TIMEOUT);

        project
            .xtask(&["db-rollback", "--steps", "1", "--yes"])
            .succeeds();
        let down = ["db-rollback", "--steps", "1", "--yes", "--format", "json"];
        let figures = behind(&project, holding, &down, || !there());
        figures.hold_for(&format!("rollback behind {who}"), LOCK_TIMEOUT);
    }
}

#[test]
fn logins_do_not_wait_behind_an_index_that_is_built_or_dropped() {
    let project = project();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let index = || {
        !project
            .value("SELECT to_regclass('idx_users_last_login_at')")
            .is_empty()
    };
    // The build waits for a writer, a drop for a reader.
    let valid = || {
        project.value("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('idx_users_last_login_at') AND indisvalid") == "1"
    };
    let up = ["db-migrate", "--format", "json"];
    let figures = behind(&project, WRITER, &up, valid);
    figures.hold_for("an index build behind a writer", Duration::ZERO);

    let down = ["db-rollback", "--yes", "--format", "json"];
    let figures = behind(&project, READER, &down, || !index());
    figures.hold_for("an index drop behind a reader", Duration::ZERO);
}

#[test]
fn a_plain_statement_outside_a_transaction_does_not_queue_either() {
    let project = project();
    project.xtask(&["db-migrate"]).succeeds();
    project.write(
        "migrations/20260101000000_nickname.up.sql",
        "-- no-transaction\nALTER TABLE users ADD COLUMN IF NOT EXISTS nickname text;\n",
    );
    let arguments = ["db-migrate", "--format", "json"];
    let figures = behind(&project, READER, &arguments, || {
        has_column(&project, "nickname")
    });
    figures.hold_for("a plain ALTER outside a transaction", LOCK_TIMEOUT);
}

/// A file that runs outside of a transaction may have transactions of its own.
#[test]
fn a_files_own_transaction_is_tried_again_from_its_begin() {
    let project = project();
    project.xtask(&["db-migrate"]).succeeds();
    project.write(
        "migrations/20260101000000_own.up.sql",
        "-- no-transaction\nCREATE TABLE IF NOT EXISTS before ();\nBEGIN;\nCREATE TABLE own (n int);\nINSERT INTO own VALUES (1);\nALTER TABLE users ADD COLUMN nickname text;\nCOMMIT;\nCREATE TABLE after ();\n",
    );
    let (mut holder, _) = blocker(&project, READER);
    // It is given up: of its own transaction nothing has taken effect.
    project
        .xtask(&["db-migrate", "--lock-deadline", "300ms"])
        .exits(4)
        .says("the first of 7 statements took effect, the rest did not");
    assert_eq!(project.value("SELECT to_regclass('own') IS NULL"), "true");
    holder.batch_execute("COMMIT").expect("commits");
    drop(holder);
    let arguments = ["db-migrate", "--format", "json"];
    let figures = behind(&project, READER, &arguments, || {
        has_column(&project, "nickname")
    });
    figures.hold_for("a transaction of the file's own", LOCK_TIMEOUT);
    assert_eq!(project.value("SELECT count(*) FROM own"), "1");
    assert_eq!(
        project.value("SELECT to_regclass('after') IS NULL"),
        "false"
    );
}

#[test]
fn locks_already_taken_are_let_go_while_the_next_is_in_use() {
    let project = project();
    project.xtask(&["db-migrate"]).succeeds();
    project.write(
        "migrations/20260101000000_wide.up.sql",
        "ALTER TABLE users ADD COLUMN a int;\nALTER TABLE users ADD COLUMN b int;\nALTER TABLE sessions ADD COLUMN c int;\n",
    );
    project.write(
        "migrations/20260101000000_wide.down.sql",
        "ALTER TABLE users DROP COLUMN a;\nALTER TABLE users DROP COLUMN b;\nALTER TABLE sessions DROP COLUMN c;\n",
    );
    // `users` is free and locked first; `sessions` is not free.
    let holding = "BEGIN; SELECT count(*) FROM sessions";
    for (arguments, there) in [
        (&["db-migrate", "--format", "json"][..], true),
        (&["db-rollback", "--yes", "--format", "json"], false),
    ] {
        let done = || has_column(&project, "b") == there;
        let figures = behind(&project, holding, arguments, done);
        figures.hold_for(arguments[0], LOCK_TIMEOUT);
    }
}

#[test]
fn ten_overlapping_holders_in_a_row_cost_logins_one_lock_timeout() {
    let project = project();
    let each = Duration::from_millis(if long() { 2_000 } else { 400 });
    let logins = Logins::start(&project, 2, Duration::from_millis(2));
    let run = std::thread::scope(|scope| {
        let (first, _) = blocker(&project, READER);
        let row = scope.spawn(|| {
            let mut last = first;
            for _ in 0..9 {
                std::thread::sleep(each / 2);
                let (next, _) = blocker(&project, READER);
                std::thread::sleep(each / 2);
                last.batch_execute("COMMIT").expect("commits");
                last = next;
            }
            std::thread::sleep(each / 2);
        });
        let run = project
            .start(&["db-migrate", "--format", "json"])
            .ends()
            .succeeds();
        row.join().expect("they end");
        run
    });
    Figures::of(logins.stop(), run).hold_for("ten overlapping holders", LOCK_TIMEOUT);
}

#[test]
fn it_gets_through_where_somebody_always_holds_the_table() {
    let project = project();
    let stop = Arc::new(AtomicBool::new(false));
    // Each holds it for some milliseconds and comes back at once.
    let crowd: Vec<_> = (0..4)
        .map(|_| {
            let (stop, mut client) = (Arc::clone(&stop), project.client());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client
                        .batch_execute(
                            "BEGIN; SELECT email FROM users WHERE id = 7; SELECT pg_sleep(0.01); COMMIT",
                        )
                        .expect("the crowd goes on");
                }
            })
        })
        .collect();
    let logins = Logins::start(&project, 2, Duration::ZERO);
    let run = project
        .start(&["db-migrate", "--format", "json"])
        .ends()
        .succeeds();
    let took = run.json()["run"]["duration_ms"].as_f64();
    let stalls = logins.stop();
    stop.store(true, Ordering::Relaxed);
    for one in crowd {
        one.join().expect("ends");
    }
    println!(
        "a crowd: {} statements of logins, {took:?} ms",
        stalls.statements
    );
    Figures::of(stalls, run).hold_for("a crowd", LOCK_TIMEOUT);
}

#[test]
fn it_gets_through_a_saturating_pgbench() {
    if !long() {
        return;
    }
    let project = project();
    project.write(
        "logins.sql",
        "\\set id random(1, 1000000)\nBEGIN;\nSELECT email FROM users WHERE id = :id;\nUPDATE users SET display_name = display_name WHERE id = :id;\nCOMMIT;\n",
    );
    let mut pgbench = tool("pgbench");
    pgbench
        .args([
            "--no-vacuum",
            "--client=8",
            "--jobs=2",
            "--time=20",
            "--file",
        ])
        .arg(project.path("logins.sql"))
        .arg(&project.url)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    let pgbench = pgbench.spawn().expect("pgbench starts");
    std::thread::sleep(Duration::from_secs(2));
    let run = project
        .start(&["db-migrate", "--format", "json"])
        .ends()
        .succeeds();
    let json = run.json();
    println!("migrate under pgbench: {}", json["run"]);
    assert!(json["run"]["lock_attempts"].as_u64() <= Some(3));
    let output = pgbench.wait_with_output().expect("pgbench ends");
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn with_nobody_in_the_way_it_takes_one_try() {
    let project = Project::seeded();
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(run.json()["run"]["lock_attempts"], 1);
    assert_eq!(run.json()["run"]["lock_wait_ms"], 0.0);
    assert!(!run.stderr.contains("Waiting"), "{}", run.stderr);
}

#[test]
fn at_the_deadline_nothing_has_changed_and_the_blocker_is_named() {
    let project = Project::seeded();
    let before = project.dump();
    let (mut holder, pid) = blocker(&project, READER);
    let arguments = ["db-migrate", "--lock-deadline", "700ms"];
    let run = project.xtask(&arguments).exits(4);
    let run = run
        .says(&format!(
            "in the way: pid {pid}, user admin, application blocker"
        ))
        .says(&format!("pg_terminate_backend({pid})"))
        .says("has changed nothing");
    assert!(!run.stderr.contains("count(*)"), "shows the query");
    project
        .xtask(&[&arguments[..], &["--show-queries"]].concat())
        .exits(4)
        .says("SELECT count(*) FROM users WHERE id < 10");
    assert_eq!(before, project.dump());

    // What it says to do works.
    holder.batch_execute("COMMIT").expect("commits");
    project.xtask(&["db-migrate"]).succeeds();
    let (_holder, _) = blocker(&project, READER);
    let before = project.dump();
    let arguments = ["db-rollback", "--yes", "--lock-deadline", "700ms"];
    let run = project.start(&arguments).ends().exits(4);
    let run = run.says("then: cargo xtask db-rollback");
    assert!(!run.stderr.contains("INVALID"), "{}", run.stderr);
    assert_eq!(before, project.dump());
    assert!(
        project
            .state()
            .contains("idx_users_last_login_at true true")
    );
}

#[test]
fn a_build_that_waits_past_the_deadline_is_given_up_without_a_trace() {
    let project = Project::seeded();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let before = project.dump();
    let (_holder, pid) = blocker(&project, WRITER);
    project
        .start(&["db-migrate", "--lock-deadline", "700ms"])
        .ends()
        .exits(4)
        .says(&format!(
            "in the way: pid {pid}, user admin, application blocker"
        ))
        .says("did not take effect");
    drop(_holder);
    assert_eq!(before, project.dump());
    project.xtask(&["db-migrate"]).succeeds();
}

#[test]
fn a_running_dump_is_named_as_one() {
    let project = Project::seeded();
    project.sql("CREATE TABLE zzz (id int)");
    // pg_dump locks table by table and stands still here, with `users` in its hands.
    let (mut gate, _) = blocker(&project, "BEGIN; LOCK TABLE zzz");
    let dump = tool("pg_dump")
        .arg(format!("--dbname={}", project.url))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("pg_dump starts");
    until("pg_dump has locked `users`", || {
        project.value(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE relation = 'users'::regclass AND granted AND application_name = 'pg_dump'",
        ) == "1"
    });
    project.xtask(&["db-doctor"]).shows("a pg_dump is running");
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {}", pid_of(&project, "pg_dump")));
    run.says("a running dump");
    gate.batch_execute("COMMIT").expect("commits");
    let mut dump = dump;
    assert!(dump.wait().expect("pg_dump ends").success());
    run.ends().succeeds();
}

fn pid_of(project: &Project, application: &str) -> String {
    project.value(&format!(
        "SELECT min(pid) FROM pg_stat_activity WHERE application_name = '{application}'
         AND datname = current_database()"
    ))
}

#[test]
fn a_prepared_transaction_is_waited_for_and_named() {
    let project = Project::seeded();
    project.sql(
        "BEGIN; UPDATE users SET display_name = 'x' WHERE id = 3; PREPARE TRANSACTION 'two_phases'",
    );
    let mut run = project.start(&["db-migrate", "--format", "json"]);
    run.says("prepared transaction");
    run.says("two_phases");
    std::thread::sleep(hold().min(Duration::from_secs(3)));
    project.sql("COMMIT PREPARED 'two_phases'");
    let run = run.ends().succeeds();
    Figures::of(Stalls::default(), run).hold_for("a prepared transaction", LOCK_TIMEOUT);
}

#[test]
fn an_ordinary_role_waits_for_others_whose_state_it_may_not_see() {
    let project = Project::seeded();
    // The table's owner, and the application beside it: neither sees what the other does.
    let owner = Role::owning(&project, "owner");
    let application = Role::new(&project, "application");
    project.sql(&format!(
        "GRANT SELECT, UPDATE ON users TO {}",
        application.name
    ));
    let logins = Logins::start(&project, 2, Duration::from_millis(2));
    let (mut holder, pid) = blocker_at(&application.url, READER);
    let arguments = [
        "--database-url",
        &owner.url,
        "db-migrate",
        "--format",
        "json",
    ];
    let mut run = project.start(&arguments);
    run.says(&format!(
        "pid {pid}, user {}, application blocker",
        application.name
    ));
    std::thread::sleep(hold());
    // Neither does one that came later.
    let (_later, _) = blocker_at(&application.url, READER);
    std::thread::sleep(Duration::from_millis(300));
    holder.batch_execute("COMMIT").expect("commits");
    std::thread::sleep(hold());
    drop(_later);
    let run = run.ends().succeeds();
    let figures = Figures::of(logins.stop(), run);
    figures.hold_for("behind another role", LOCK_TIMEOUT);
    // One for the first, and none that the second would have stood in the way of, unless it waited so
    // long that it tried all the same.
    let tries = if long() { 3 } else { 2 };
    assert!(figures.tries <= tries, "{}", figures.run.stderr);
}

/// A role for one test, gone with it.
struct Role {
    name: String,
    url: String,
}

impl Role {
    fn new(project: &Project, name: &str) -> Role {
        let name = format!("{name}_{}", project.database);
        project.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'"));
        Role {
            url: url_as(&name, "secret", &project.database),
            name,
        }
    }

    /// One that owns the database and what is in it.
    fn owning(project: &Project, name: &str) -> Role {
        let role = Role::new(project, name);
        let Role { name, .. } = &role;
        project.sql(&format!(
            "ALTER DATABASE {} OWNER TO {name};
             DO $$ DECLARE t regclass; BEGIN
                 FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
                     EXECUTE format('ALTER TABLE %s OWNER TO {name}', t);
                 END LOOP;
             END $$",
            project.database
        ));
        role
    }
}

#[test]
fn timeouts_of_the_role_or_the_database_never_break_a_run() {
    let project = Project::new();
    let Role { name: role, url } = Role::owning(&project, "impatient");
    let database = &project.database;
    let limits = [
        "statement_timeout = '50ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '10ms'",
        "idle_session_timeout = '10ms'",
    ];
    for whose in [
        format!("ALTER ROLE {role}"),
        format!("ALTER DATABASE {database}"),
        format!("ALTER ROLE {role} IN DATABASE {database}"),
    ] {
        // A session from before the limits has none of them.
        let (mut patient, _) = blocker(&project, "CREATE TABLE IF NOT EXISTS other (id int)");
        let mut patiently = |sql: &str| patient.batch_execute(sql).expect("the SQL runs");
        for limit in limits {
            patiently(&format!("{whose} SET {limit}"));
        }
        let xtask = |arguments: &[&str]| {
            let arguments = [&["--database-url", &url], arguments].concat();
            project.xtask(&arguments).succeeds()
        };
        xtask(&["db-migrate", "--to", BASELINE]);
        xtask(&["db-seed", "--users", "1000"]);
        xtask(&["db-migrate", "--to", COLUMN]);
        // The build waits for this one, longer than any of those limits.
        patiently("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(600));
                patiently("COMMIT");
            });
            xtask(&["db-migrate"]);
        });
        xtask(&["db-verify"]);
        xtask(&["db-rollback", "--all", "--yes"]);
        xtask(&["db-rollback", "--to", "0", "--yes"]);
        for limit in limits {
            let name = limit.split(' ').next().expect("a name");
            patiently(&format!("{whose} RESET {name}"));
        }
    }
}

#[test]
fn the_lock_timeout_that_was_asked_for_is_the_one_that_counts() {
    let project = Project::seeded();
    for (text, timeout) in [
        ("1ms", Duration::from_millis(1)),
        ("1s", Duration::from_secs(1)),
    ] {
        let there = || has_column(&project, "last_login_at");
        let arguments = [
            "db-migrate",
            "--to",
            COLUMN,
            "--format",
            "json",
            "--lock-timeout",
            text,
        ];
        let figures = behind(&project, READER, &arguments, there);
        figures.hold_for(&format!("--lock-timeout {text}"), timeout);
        project.xtask(&["db-rollback", "--yes"]).succeeds();
    }
}

#[test]
fn what_other_sessions_call_themselves_neither_steers_the_terminal_nor_runs_in_a_shell() {
    let project = Project::seeded();
    let gid = "$(touch hacked)`touch hacked`'\"\u{1b}[2J";
    let (mut holder, _) = blocker(&project, READER);
    holder
        .batch_execute(&format!(
            "PREPARE TRANSACTION '{}'",
            gid.replace('\'', "''")
        ))
        .expect("prepares");
    let run = project.xtask(&[
        "db-migrate",
        "--lock-deadline",
        "300ms",
        "--color",
        "always",
    ]);
    let run = run.exits(4).says("\\u{1b}[2J");
    assert!(!run.stderr.contains("\u{1b}[2J"), "{:?}", run.stderr);
    let prepared = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    assert_eq!(project.value(prepared), "1");

    // The hint, pasted.
    let (_, hint) = run.stderr.split_once("COMMIT PREPARED: ").expect("a hint");
    let command = hint.lines().next().expect("a command");
    project.write(
        "bin/cargo",
        format!("#!/bin/sh\nshift\nexec '{XTASK}' \"$@\"\n"),
    );
    chmod(0o755, project.path("bin/cargo"));
    let path = format!(
        "{}:{}",
        project.path("bin").display(),
        path_variable().to_string_lossy()
    );
    let mut shell = project.program("/bin/sh");
    shell
        .args(["-c", command])
        .env("PATH", path)
        .env("DATABASE_URL", &project.url);
    Run::of(&mut shell).succeeds();
    assert!(!project.path("hacked").exists());
    assert_eq!(project.value(prepared), "0");
    project.xtask(&["db-migrate"]).succeeds();
}
