//! The stall budget: whatever a file says, nobody waits for our locks longer than a lock timeout and
//! the budget.

use std::time::{Duration, Instant};

use postgres::Client;

use crate::common::{ASLEEP, Logins, Project, Run, Stalls, blocker, dump, long, until};
use crate::proof::back_up;

/// A table that logins read and write, and what statements refer to.
fn project(rows: u32) -> Project {
    let project = Project::empty();
    project.sql(&format!(
        "CREATE TABLE users (id bigint PRIMARY KEY, email text, password_hash text, display_name text);
         INSERT INTO users SELECT i, 'user' || i || '@example.com', md5(i::text), 'User ' || i
         FROM generate_series(1, {rows}) AS i;
         CREATE TABLE ids (id bigint PRIMARY KEY); INSERT INTO ids SELECT id FROM users;
         CREATE FUNCTION slow(text) RETURNS text IMMUTABLE LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(0.01); RETURN $1; END';
         ANALYZE users"
    ));
    project
}

/// The schema and all rows, to compare.
fn everything(project: &Project) -> String {
    let rows = project.value("SELECT md5(string_agg(u::text, '' ORDER BY id)) FROM users AS u");
    let schema = dump(
        &project.url,
        &["--schema-only", "--exclude-table=_sqlx_migrations"],
    );
    format!("{rows}\n{schema}")
}

/// What blocks logins for long, and a part of the advice that it gets.
const BLOCKERS: &[(&str, &str)] = &[
    (
        "CREATE INDEX slow ON users (slow(email));",
        "CREATE INDEX CONCURRENTLY",
    ),
    (
        "ALTER TABLE users ALTER email TYPE varchar(200) USING slow(email);",
        "add a new column of that type",
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT c CHECK (slow(email) <> '');",
        "NOT VALID",
    ),
    (
        "UPDATE users SET display_name = slow(display_name);",
        "in batches",
    ),
    (
        "ALTER TABLE users ADD COLUMN a int;\nSELECT pg_sleep(20);",
        "--stall-budget 30s",
    ),
    (
        "LOCK TABLE users; SELECT pg_sleep(20);",
        "--stall-budget 30s",
    ),
];

/// The same without a function that makes them slow: they take the time that so many rows take.
const REAL_BLOCKERS: &[(&str, &str)] = &[
    (
        "CREATE INDEX plain ON users (email, password_hash);",
        "CREATE INDEX CONCURRENTLY",
    ),
    (
        "ALTER TABLE users ALTER id TYPE numeric;",
        "add a new column of that type",
    ),
    (
        "ALTER TABLE users ADD COLUMN token uuid DEFAULT gen_random_uuid();",
        "without a default that needs computing",
    ),
    (
        "ALTER TABLE users ALTER email SET NOT NULL;\nALTER TABLE users ADD CHECK (md5(md5(email)) <> '');",
        "NOT VALID",
    ),
    (
        "ALTER TABLE users ADD FOREIGN KEY (id) REFERENCES ids; CREATE INDEX ON users (password_hash);",
        "",
    ),
    (
        "UPDATE users SET display_name = display_name || '';",
        "in batches",
    ),
];

fn figures(project: &Project, arguments: &[&str]) -> (Stalls, Run) {
    let logins = Logins::start(project, 2, Duration::from_millis(2));
    std::thread::sleep(Duration::from_millis(50));
    let run = project.start(arguments).ends();
    (logins.stop(), run)
}

#[test]
fn nobody_waits_for_a_migration_longer_than_the_budget() {
    let (rows, blockers) = match long() {
        true => (3_000_000, REAL_BLOCKERS),
        false => (5_000, BLOCKERS),
    };
    let project = project(rows);
    project.xtask(&["db-baseline", "--dry-run"]);
    let before = everything(&project);
    for (statement, advice) in blockers {
        project.write("migrations/1_x.up.sql", statement);
        let (stalls, run) = figures(&project, &["db-migrate", "--no-backup", "--yes"]);
        println!(
            "{statement}: worst login {:?}, noise {:?}",
            stalls.worst, stalls.noise
        );
        let run = run
            .exits(4)
            .says("others waited for its locks longer than the stall budget")
            .says("1_x.up.sql:")
            .says("was rolled back: it has changed nothing")
            .says(advice);
        assert!(
            stalls.worst <= Duration::from_millis(1_300) + stalls.noise,
            "{statement}: {stalls:?}\n{}",
            run.stderr
        );
        assert!(
            stalls.worst >= Duration::from_millis(900),
            "{statement}: {stalls:?}"
        );
        assert_eq!(everything(&project), before, "{statement}");
    }
}

#[test]
fn nobody_waits_for_a_rollback_or_outside_a_transaction_either() {
    let project = project(2_000);
    project.write("migrations/1_x.up.sql", "SELECT 1;");
    project.write(
        "migrations/1_x.down.sql",
        "ALTER TABLE users ADD CONSTRAINT c CHECK (slow(email) <> '');",
    );
    project.xtask(&["db-migrate"]).succeeds();
    let before = everything(&project);
    let (stalls, run) = figures(
        &project,
        &["db-rollback", "--yes", "--stall-budget", "300ms"],
    );
    run.exits(4).says("1_x.down.sql:1:1");
    assert!(
        stalls.worst <= Duration::from_millis(600) + stalls.noise,
        "{stalls:?}"
    );
    assert_eq!(everything(&project), before);

    project.write(
        "migrations/2_x.up.sql",
        "-- no-transaction\nCREATE TABLE done (id int);\nCREATE INDEX i ON users (slow(email));",
    );
    let (stalls, run) = figures(&project, &["db-migrate", "--stall-budget", "300ms"]);
    run.exits(4)
        .says("the first of 2 statements took effect")
        .says("CREATE INDEX CONCURRENTLY");
    assert!(
        stalls.worst <= Duration::from_millis(600) + stalls.noise,
        "{stalls:?}"
    );
    assert_eq!(project.value("SELECT to_regclass('i')"), "");
}

#[test]
fn without_a_budget_and_without_anybody_who_waits_a_statement_may_take_its_time() {
    let project = project(300);
    project.write(
        "migrations/1_x.up.sql",
        "ALTER TABLE users ADD CONSTRAINT c CHECK (slow(email) <> '');",
    );
    // Nobody waits.
    project
        .xtask(&["db-migrate", "--stall-budget", "100ms"])
        .succeeds();
    project.write(
        "migrations/2_x.up.sql",
        "ALTER TABLE users ADD CONSTRAINT d CHECK (slow(email) <> '');",
    );
    let (stalls, run) = figures(&project, &["db-migrate", "--stall-budget", "off"]);
    run.succeeds();
    assert!(stalls.worst > Duration::from_millis(1_500), "{stalls:?}");
    for wrong in ["0s", "1", "never"] {
        project
            .xtask(&["db-migrate", "--stall-budget", wrong])
            .exits(2);
    }
}

#[test]
fn a_concurrent_build_is_not_thrown_away_for_somebody_elses_ddl() {
    let project = project(1_000);
    project.write(
        "migrations/1_x.up.sql",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY i ON users (slow(email));",
    );
    let mut run = project.start(&["db-migrate", "--stall-budget", "200ms"]);
    until("it builds", || {
        project.value(
            "SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'building%'",
        ) == "1"
    });
    let mut other = project.client();
    let ddl = std::thread::spawn(move || {
        let at = Instant::now();
        other
            .batch_execute("ALTER TABLE users ALTER email SET STATISTICS 50")
            .expect("waits and is done");
        at.elapsed()
    });
    run.says("waits for this build");
    run.ends().succeeds();
    assert!(ddl.join().expect("is done") > Duration::from_millis(400));
    assert_eq!(
        project.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass"),
        "true"
    );
}

/// Somebody who has what the history needs, while the migration has what logins need.
fn beside_the_history(hold: &str, command: &[&str]) -> (Stalls, Run) {
    let project = project(100);
    project.write(
        "migrations/1_x.up.sql",
        "ALTER TABLE users ADD COLUMN a int;",
    );
    project.write(
        "migrations/1_x.down.sql",
        "ALTER TABLE users DROP COLUMN a;",
    );
    project.write(
        "migrations/2_x.up.sql",
        "ALTER TABLE users ADD COLUMN b int;",
    );
    project.write(
        "migrations/2_x.down.sql",
        "ALTER TABLE users DROP COLUMN b;",
    );
    let to = if command[0] == "db-migrate" { "1" } else { "2" };
    project.xtask(&["db-migrate", "--to", to]).succeeds();
    let (mut holder, _): (Client, i32) = blocker(&project, hold);
    let logins = Logins::start(&project, 2, Duration::from_millis(2));
    let run = project.start(command);
    std::thread::sleep(Duration::from_secs(2));
    holder.batch_execute("ROLLBACK").expect("lets go");
    let run = run.ends();
    (logins.stop(), run)
}

#[test]
fn no_wait_for_the_history_or_a_constraint_holds_up_logins() {
    let row = "BEGIN; INSERT INTO _sqlx_migrations VALUES (2, 'x', now(), true, '', 0)";
    let table = "BEGIN; LOCK TABLE _sqlx_migrations IN SHARE MODE";
    let deleted = "BEGIN; UPDATE _sqlx_migrations SET success = true";
    let down = &["db-rollback", "--yes", "--steps", "1"][..];
    for (hold, command) in [
        (row, &["db-migrate"][..]),
        (table, &["db-migrate"]),
        (table, down),
        (deleted, down),
    ] {
        let (stalls, run) = beside_the_history(hold, command);
        run.succeeds().says("blocker");
        assert!(
            stalls.worst <= Duration::from_millis(250) + stalls.noise,
            "{hold}, {command:?}: {stalls:?}"
        );
    }
}

#[test]
fn no_wait_for_deferred_constraints_or_checks_holds_up_logins() {
    for (file, verify) in [
        // A deferred trigger that waits for a row of somebody else.
        (
            "ALTER TABLE users ADD COLUMN a int; INSERT INTO deferred VALUES (1);",
            None,
        ),
        (
            "ALTER TABLE users ADD COLUMN a int;",
            Some("SELECT 'c' AS check, held() AS ok;"),
        ),
    ] {
        let project = project(100);
        project.sql(
            "CREATE TABLE held (id int PRIMARY KEY); INSERT INTO held VALUES (1);
             CREATE FUNCTION held() RETURNS bool LANGUAGE plpgsql
                AS 'BEGIN PERFORM FROM held FOR UPDATE; RETURN true; END';
             CREATE TABLE deferred (id int);
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
                AS 'BEGIN PERFORM held(); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON deferred
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()",
        );
        project.write("migrations/1_x.up.sql", file);
        if let Some(verify) = verify {
            project.write("migrations/verify/1_x.sql", verify);
        }
        let (mut holder, _) = blocker(&project, "BEGIN; SELECT FROM held FOR UPDATE");
        let logins = Logins::start(&project, 2, Duration::from_millis(2));
        let run = project.start(&["db-migrate"]);
        std::thread::sleep(Duration::from_secs(2));
        holder.batch_execute("ROLLBACK").expect("lets go");
        let run = run.ends();
        let stalls = logins.stop();
        assert!(
            stalls.worst <= Duration::from_millis(250) + stalls.noise,
            "{file}: {stalls:?}\n{}",
            run.stderr
        );
        // A check that writes fails in the verification after the run, which is read-only.
        assert!(run.status == 0 || verify.is_some(), "{}", run.stderr);
    }
}

#[test]
fn nobody_waits_for_the_catalog_or_behind_somebody_elses_ddl_or_because_a_cancel_was_caught() {
    for (file, ddl) in [
        (
            "UPDATE users SET email = 'x' WHERE id = 1; LOCK TABLE pg_catalog.pg_class; SELECT pg_sleep(20);",
            None,
        ),
        (
            "UPDATE users SET email = 'x' WHERE id = 1; REINDEX TABLE pg_catalog.pg_class;",
            None,
        ),
        (
            "UPDATE users SET email = 'x' WHERE id = 1001; SELECT pg_sleep(20);",
            Some(
                "ALTER TABLE users ALTER email SET STATISTICS 50; ALTER TABLE users ADD COLUMN z int",
            ),
        ),
        (
            "LOCK TABLE users; DO $$ DECLARE i int := 0; BEGIN
                 LOOP
                     BEGIN PERFORM pg_sleep(0.1); EXCEPTION WHEN query_canceled THEN NULL; END;
                     i := i + 1; EXIT WHEN i > 300;
                 END LOOP; END $$;",
            None,
        ),
    ] {
        let project = project(1_100);
        project.write("migrations/1_x.up.sql", file);
        let logins = Logins::start(&project, 2, Duration::from_millis(2));
        let run = project.start(&["db-migrate", "--no-backup", "--yes"]);
        let other = ddl.map(|ddl| {
            until("it is at it", || project.value(ASLEEP) == "1");
            let mut client = project.client();
            std::thread::spawn(move || client.batch_execute(ddl))
        });
        let run = run.ends();
        let stalls = logins.stop();
        if let Some(other) = other {
            other.join().expect("no panic").expect("gets its lock");
        }
        println!("{file}: {stalls:?}, exit {}", run.status);
        assert!(
            stalls.worst <= Duration::from_millis(1_800) + stalls.noise,
            "{file}: {stalls:?}\n{}",
            run.stderr
        );
        assert!(
            run.status != 0 || file.contains("REINDEX"),
            "{file}\n{}",
            run.stderr
        );
        assert_eq!(
            project.value("SELECT count(*) FROM users WHERE email = 'x'") == "1",
            run.status == 0,
            "{file}"
        );
    }
}

/// Runs a restore that writes slowly, and somebody who wants to write beside it: how long he waited.
fn beside_a_restore(project: &Project, arguments: &[&str]) -> (Duration, Run) {
    let run = project.start(arguments);
    until("it has its lock", || {
        project.value(
            "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'ShareRowExclusiveLock' AND relation = 'users'::regclass",
        ) == "1"
    });
    let at = Instant::now();
    blocker(
        project,
        "UPDATE users SET display_name = display_name WHERE id = 1000",
    );
    (at.elapsed(), run.ends())
}

#[test]
fn nobody_waits_for_a_restore_longer_than_the_budget() {
    let project = project(1_000);
    let file = back_up(&project, "users");
    let damage = "UPDATE users SET display_name = 'damaged' WHERE id <= 250";
    project.sql(damage);
    project.sql("ALTER TABLE users ADD CHECK (slow(display_name) <> '') NOT VALID");
    let before = everything(&project);
    let restore = ["db-restore", &file, "--yes", "--stall-budget"];
    let (waited, run) = beside_a_restore(&project, &[&restore[..], &["300ms"]].concat());
    let run = run
        .exits(4)
        .says("the restore of `public.users` was cancelled: others waited for its locks longer than the stall budget")
        .says("to write `public.users`: pid ")
        .says("application blocker")
        .says("nothing was restored");
    assert!(!run.stderr.contains("other session"), "{}", run.stderr);
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_millis(1_200), "{waited:?}");
    assert_eq!(everything(&project), before);

    // What is hinted at can be pasted.
    let hint = run.stderr.lines().find_map(|line| {
        let (_, command) = line.split_once("or, when nobody needs the table: cargo xtask ")?;
        Some(command.split(' ').collect::<Vec<_>>())
    });
    let mut pasted = hint.unwrap_or_else(|| panic!("no hint: {}", run.stderr));
    assert!(pasted.ends_with(&["--stall-budget", "30s"]), "{pasted:?}");
    pasted.extend(Some("--yes").filter(|yes| !pasted.contains(yes)));
    for arguments in [pasted, [&restore[..], &["off"]].concat()] {
        let (waited, run) = beside_a_restore(&project, &arguments);
        run.succeeds().says("250 rows");
        assert!(waited > Duration::from_millis(1_200), "{waited:?}");
        assert_eq!(
            project.value("SELECT count(*) FROM users WHERE display_name = 'damaged'"),
            "0"
        );
        project.sql("ALTER TABLE users DROP CONSTRAINT users_display_name_check");
        project.sql(damage);
        project.sql("ALTER TABLE users ADD CHECK (slow(display_name) <> '') NOT VALID");
    }
}

#[test]
fn nobody_waits_longer_for_a_row_because_the_first_in_its_line_gave_up() {
    let project = project(10);
    project.write(
        "migrations/1_x.up.sql",
        "UPDATE users SET display_name = 'x' WHERE id = 1;\nSELECT pg_sleep(20);",
    );
    let run = project.start(&["db-migrate", "--stall-budget", "2s"]);
    until("it has changed the row", || project.value(ASLEEP) == "1");
    // The first in line waits for our transaction, and those behind it for the row. When it gives up,
    // the next one's wait for us begins anew, and with it what the server says of how long that is.
    let wants = "UPDATE users SET display_name = 'y' WHERE id = 1";
    let impatient = format!(
        "SET lock_timeout = '1700ms';
         DO $$ BEGIN {wants}; EXCEPTION WHEN lock_not_available THEN END $$"
    );
    let waited: Vec<Duration> = std::thread::scope(|scope| {
        let waiters: Vec<_> = [impatient.as_str(), wants, wants]
            .into_iter()
            .map(|sql| {
                let project = &project;
                std::thread::sleep(Duration::from_millis(100));
                scope.spawn(move || {
                    let at = Instant::now();
                    blocker(project, sql);
                    at.elapsed()
                })
            })
            .collect();
        waiters
            .into_iter()
            .map(|waiter| waiter.join().expect("it ends"))
            .collect()
    });
    run.ends().exits(4).says("to write `public.users`: pid ");
    assert!(waited[0] >= Duration::from_millis(1_700), "{waited:?}");
    for waited in &waited[1..] {
        assert!(*waited < Duration::from_millis(2_900), "{waited:?}");
    }
}

/// Runs a migration that takes its time, and somebody who wants an advisory lock beside it: how long he
/// waited for it.
fn beside_an_advisory_lock(project: &Project, file: &str, wants: &str) -> (Duration, Run) {
    project.write("migrations/1_x.up.sql", file);
    let run = project.start(&["db-migrate", "--stall-budget", "300ms"]);
    until("it is at it", || {
        project.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        ) == "1"
    });
    let at = Instant::now();
    blocker(project, wants);
    (at.elapsed(), run.ends())
}

#[test]
fn nobody_waits_for_an_advisory_lock_of_a_migration_longer_than_the_budget() {
    for (file, wants, key) in [
        (
            "SELECT pg_advisory_xact_lock(42);\nSELECT pg_sleep(20);",
            "SELECT pg_advisory_lock(42)",
            "(42)",
        ),
        (
            "SELECT pg_advisory_xact_lock(-7000000000);\nSELECT pg_sleep(20);",
            "SELECT pg_advisory_xact_lock_shared(-7000000000)",
            "(-7000000000)",
        ),
        (
            "-- no-transaction\n-- xtask: lossless\nSELECT pg_advisory_lock_shared(1, -2);\nSELECT pg_sleep(20);",
            "SELECT pg_advisory_xact_lock(1, -2)",
            "(1, -2)",
        ),
    ] {
        let project = Project::empty();
        let (waited, run) = beside_an_advisory_lock(&project, file, wants);
        run.exits(4)
            .says(&format!("for the advisory lock {key}: pid "))
            .says("application blocker")
            .says("take the advisory lock behind the statements that take long")
            .says("or, when nobody needs the lock: cargo xtask db-migrate --stall-budget 30s");
        assert!(waited >= Duration::from_millis(300), "{file}: {waited:?}");
        assert!(waited < Duration::from_millis(1_200), "{file}: {waited:?}");
    }
}

#[test]
fn who_waits_for_the_lock_of_the_run_waits_as_long_as_it_runs() {
    let project = Project::empty();
    // As sqlx does.
    let wants = "DO $$ BEGIN PERFORM pg_advisory_xact_lock((classid::bigint << 32) | objid::bigint)
         FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()); END $$";
    let (waited, run) = beside_an_advisory_lock(&project, "SELECT pg_sleep(2);", wants);
    run.succeeds();
    assert!(waited > Duration::from_secs(1), "{waited:?}");
}

/// A migration that stands in line behind a reader, two more readers behind it, and how long it has
/// its lock when the first lets go.
fn behind_the_queue(project: &Project, holds: &str) -> Run {
    project.write(
        "migrations/1_x.up.sql",
        format!("ALTER TABLE users ADD COLUMN a int;\nSELECT pg_sleep({holds});"),
    );
    let (mut holder, _) = blocker(project, "BEGIN; SELECT FROM users WHERE id = 1");
    let run = project.start(&[
        "db-migrate",
        "--lock-timeout",
        "3s",
        "--stall-budget",
        "500ms",
    ]);
    until("it stands in line", || {
        project.value(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = 'users'::regclass",
        ) == "1"
    });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| blocker(project, "SELECT FROM users WHERE id = 1"));
        }
        std::thread::sleep(Duration::from_millis(1_200));
        holder.batch_execute("ROLLBACK").expect("lets go");
        run.ends()
    })
}

#[test]
fn what_others_waited_while_we_stood_in_line_ourselves_is_no_reason_to_cancel() {
    behind_the_queue(&project(10), "0.2").succeeds();
}

#[test]
fn who_waited_is_told_and_how_many_others_and_for_what() {
    behind_the_queue(&project(10), "20")
        .exits(4)
        .says("to read `public.users`: pid ")
        .says("and 1 other session that waited as long");
}

#[test]
fn a_file_that_catches_a_cancel_is_cancelled_three_times_and_then_its_session_is_ended() {
    let project = project(10);
    project.sql("CREATE SEQUENCE caught; CREATE SEQUENCE soon");
    // Sequences stay as they are when a transaction is rolled back.
    project.write(
        "migrations/1_x.up.sql",
        "LOCK TABLE users;
         DO $$ DECLARE last timestamptz; BEGIN
             LOOP
                 BEGIN
                     PERFORM pg_sleep(20);
                     EXIT;
                 EXCEPTION WHEN query_canceled THEN
                     PERFORM nextval('caught');
                     IF clock_timestamp() < last + interval '50 ms' THEN
                         PERFORM nextval('soon');
                     END IF;
                     last := clock_timestamp();
                 END;
             END LOOP; END $$;",
    );
    let run = project.start(&["db-migrate", "--stall-budget", "300ms"]);
    until("it is at it", || {
        project.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        ) == "1"
    });
    blocker(&project, "SELECT FROM users WHERE id = 1");
    run.ends().exits(4).says("it has changed nothing");
    assert_eq!(project.value("SELECT last_value FROM caught"), "3");
    assert_eq!(project.value("SELECT is_called FROM soon"), "false");
}
