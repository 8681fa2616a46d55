//! Ctrl-C and SIGTERM: what is under way is cancelled on the server, an unfinished index is dropped,
//! the history is right, and the same command afterwards ends as if nothing had been.

use std::time::{Duration, Instant};

use crate::common::{
    ASLEEP, COLUMN, Project, READER, Run, Running, SNAPSHOT, WRITER, blocker, server, until,
};
use crate::proxy::Proxy;

/// How long an interrupted command may take to end, on a machine that does something else too.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Interrupts a command: it ends promptly with 130 and one sentence on where things stand, and nothing
/// of it goes on.
#[track_caller]
fn interrupted(project: &Project, run: Running, signal: &str, state: &str) -> Run {
    run.signal(signal);
    let at = Instant::now();
    let run = run.ends().exits(130);
    assert!(
        at.elapsed() < PROMPTLY,
        "took {:?}\n{}",
        at.elapsed(),
        run.stderr
    );
    until("no session of ours is left", || project.backends() == 0);
    run.says("interrupted: ").says(state)
}

/// A project whose undisturbed end is known.
fn project() -> (Project, String) {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    let end = project.state();
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    (project, end)
}

/// The same command, now undisturbed.
#[track_caller]
fn goes_on(project: &Project, end: &str) {
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(project.state(), end);
}

const SIGNALS: [&str; 2] = ["INT", "TERM"];

#[test]
fn while_another_run_holds_the_lock() {
    let (project, end) = project();
    for signal in SIGNALS {
        let before = project.dump();
        let (holder, _) = blocker(&project, READER);
        let mut first = project.start(&["db-migrate"]);
        first.says("the table is in use by");
        let mut second = project.start(&["db-migrate"]);
        second.says("another run holds the migration lock");
        // Not `interrupted`: the first goes on.
        second.signal(signal);
        second.ends().exits(130).says("interrupted: ");
        interrupted(&project, first, signal, "has changed nothing");
        assert_eq!(before, project.dump());
        drop(holder);
    }
    goes_on(&project, &end);
}

#[test]
fn during_the_backup() {
    let (project, end) = project();
    for signal in SIGNALS {
        let before = project.dump();
        let (holder, _) = blocker(&project, "BEGIN; LOCK TABLE users");
        let run = project.start(&["db-migrate"]);
        until("the backup waits", || {
            project.value("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted") == "true"
        });
        interrupted(&project, run, signal, "nothing was changed");
        drop(holder);
        assert_eq!(before, project.dump());
        let left = std::fs::read_dir(project.path("backups")).expect("reads");
        let left: Vec<_> = left
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name.to_string_lossy().contains("partial"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    goes_on(&project, &end);
}

#[test]
fn while_it_watches_who_is_in_the_way() {
    let (project, end) = project();
    for signal in SIGNALS {
        let before = project.dump();
        let (holder, _) = blocker(&project, READER);
        let mut run = project.start(&["db-migrate"]);
        run.says("Waiting");
        interrupted(&project, run, signal, "has changed nothing");
        drop(holder);
        assert_eq!(before, project.dump());
    }
    goes_on(&project, &end);
}

#[test]
fn while_an_alter_waits_on_the_server() {
    let (project, end) = project();
    for signal in SIGNALS {
        let before = project.dump();
        let (holder, _) = blocker(&project, READER);
        let run = project.start(&["db-migrate", "--lock-timeout", "1m"]);
        until("the ALTER waits", || {
            project.value(
                "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted",
            ) == "1"
        });
        interrupted(
            &project,
            run,
            signal,
            "was rolled back: it has changed nothing",
        );
        drop(holder);
        assert_eq!(before, project.dump());
    }
    goes_on(&project, &end);
}

#[test]
fn during_an_index_build() {
    let (project, end) = project();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    for signal in SIGNALS {
        let before = project.dump();
        let (_holder, pid) = blocker(&project, SNAPSHOT);
        let mut run = project.start(&["db-migrate"]);
        run.says(&format!("pid {pid},"));
        let run = interrupted(
            &project,
            run,
            signal,
            "did not take effect; it is not recorded",
        );
        let run = run.says("hint: cargo xtask db-migrate");
        assert!(!run.stderr.contains("is INVALID: "), "{}", run.stderr);
        assert_eq!(before, project.dump());
    }
    goes_on(&project, &end);
}

/// Dropping what is left of a build waits for a writer on its table: for as long as a supervisor has
/// patience, and then it is said.
#[test]
fn during_an_index_build_whose_rest_cannot_be_dropped() {
    let (project, end) = project();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let (holder, pid) = blocker(&project, WRITER);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {pid},"));
    run.signal("INT");
    let run = run.ends().exits(130);
    run.says("is INVALID: its build has not ended; the same command drops it and builds it again");
    until("no session of ours is left", || project.backends() == 0);

    // The next run is stopped while it repairs that.
    let mut run = project.start(&["db-migrate"]);
    run.says("Repair");
    run.says(&format!("for pid {pid},"));
    interrupted(&project, run, "INT", "has not begun");
    drop(holder);
    goes_on(&project, &end);
}

#[test]
fn a_second_time_it_leaves_at_once_and_says_what_may_go_on() {
    let (project, end) = project();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let (holder, pid) = blocker(&project, WRITER);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {pid},"));
    run.signal("INT");
    run.says("unfinished: dropping it");
    run.signal("INT");
    let at = Instant::now();
    let run = run.ends().exits(130);
    assert!(at.elapsed() < Duration::from_secs(2));
    run.says("interrupted twice")
        .says("hint: cargo xtask db-status");
    drop(holder);
    until("no session of ours is left", || project.backends() == 0);
    goes_on(&project, &end);
}

#[test]
fn during_an_index_drop() {
    let (project, end) = project();
    project.xtask(&["db-migrate"]).succeeds();
    for signal in SIGNALS {
        let before = project.dump();
        let (holder, _) = blocker(&project, READER);
        let mut run = project.start(&["db-rollback", "--yes"]);
        run.says("Waiting");
        let run = interrupted(
            &project,
            run,
            signal,
            "did not take effect; the history still has it",
        );
        run.says("hint: cargo xtask db-rollback");
        drop(holder);
        assert_eq!(before, project.dump());
    }
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    goes_on(&project, &end);
}

#[test]
fn during_the_checks() {
    let (project, _) = project();
    project.write(
        "migrations/20260101000000_slow.up.sql",
        "-- no-transaction\nALTER TABLE users ADD COLUMN IF NOT EXISTS slow int;",
    );
    project.write(
        "migrations/verify/20260101000000_slow.sql",
        "SELECT 'slow' AS check, pg_sleep(60) IS NOT NULL AS ok;",
    );
    for signal in SIGNALS {
        let run = project.start(&["db-migrate"]);
        until("a check runs", || {
            project.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid() AND state = 'active' AND datname = current_database()") == "1"
        });
        let run = interrupted(&project, run, signal, "took effect and is not recorded");
        run.says("then: cargo xtask db-migrate");
    }
    project.write(
        "migrations/verify/20260101000000_slow.sql",
        "SELECT 'slow' AS check, true AS ok;",
    );
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();

    // The last check of all, when everything is applied and recorded.
    project.write(
        "migrations/verify/20260101000000_slow.sql",
        "SELECT 'slow' AS check, pg_sleep(60) IS NOT NULL AS ok;",
    );
    let run = project.start(&["db-verify"]);
    until("a check runs", || {
        project.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid() AND state = 'active' AND datname = current_database()") == "1"
    });
    run.signal("INT");
    run.ends().exits(130);
}

#[test]
fn a_file_larger_than_a_pipe_is_interrupted_at_once_in_both_directions() {
    // 400 KiB, of which psql reads on only when it has run what it has.
    let filler = "-- what is behind this does not fit into a pipe\n".repeat(200);
    let statements: String = (0..40)
        .map(|number| format!("CREATE TABLE t{number} (id int);\nSELECT pg_sleep(0.25);\n{filler}"))
        .collect();
    let project = Project::empty();
    project.write("migrations/1_large.up.sql", &statements);
    project.write("migrations/2_large.up.sql", "SELECT 1;");
    project.write("migrations/2_large.down.sql", statements);
    let interrupt = |arguments: &[&str]| {
        let run = project.start(arguments);
        until("it sleeps", || project.value(ASLEEP) == "1");
        let at = Instant::now();
        run.signal("INT");
        run.ends().exits(130);
        assert!(at.elapsed() < Duration::from_secs(2), "{:?}", at.elapsed());
        assert_eq!(project.value("SELECT to_regclass('t0')"), "");
    };
    interrupt(&["db-migrate", "--to", "1"]);
    project.write("migrations/1_large.up.sql", "SELECT 1;");
    project.xtask(&["db-migrate"]).succeeds();
    interrupt(&["db-rollback", "--steps", "1", "--yes"]);
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "2");
}

/// A command that was interrupted in the midst of a statement, when nothing went through the network any
/// more.
fn interrupted_where_the_network_is_frozen(project: &Project) -> Running {
    project.write("migrations/1_slow.up.sql", "SELECT pg_sleep(20);");
    let proxy = Proxy::before(server().port());
    let run = project.start(&["db-migrate", "--database-url", &proxy.url(&project.url)]);
    until("it sleeps", || project.value(ASLEEP) == "1");
    proxy.freeze();
    std::thread::sleep(Duration::from_millis(200));
    run.signal("INT");
    run
}

/// Ends what sleeps on.
fn end_sleepers(project: &Project) {
    project.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()");
}

#[test]
fn where_the_network_is_frozen_a_second_signal_ends_the_tool() {
    let project = Project::empty();
    let run = interrupted_where_the_network_is_frozen(&project);
    std::thread::sleep(Duration::from_millis(500));
    let at = Instant::now();
    run.signal("INT");
    run.ends().exits(130).says("interrupted twice");
    assert!(at.elapsed() < Duration::from_secs(2), "{:?}", at.elapsed());
    end_sleepers(&project);
}

#[test]
fn where_the_network_is_frozen_one_signal_ends_the_tool_and_it_says_what_may_go_on() {
    let project = Project::empty();
    let run = interrupted_where_the_network_is_frozen(&project);
    let at = Instant::now();
    run.ends()
        .exits(130)
        .says("the server does not answer")
        .says("may still run on the server")
        .says("hint: cargo xtask db-status");
    assert!(at.elapsed() < Duration::from_secs(8), "{:?}", at.elapsed());
    assert_eq!(project.value(ASLEEP), "1");
    end_sleepers(&project);
}

#[test]
fn a_lock_timeout_that_the_server_would_take_for_none_is_refused() {
    let project = Project::empty();
    project.write("migrations/1_x.up.sql", "SELECT 1;");
    for (command, flag, time, why) in [
        (
            "db-migrate",
            "--lock-timeout",
            "0s",
            "to PostgreSQL: give a time above 0",
        ),
        (
            "db-migrate",
            "--lock-timeout",
            "30d",
            "PostgreSQL allows 24 days",
        ),
        (
            "db-migrate",
            "--lock-deadline",
            "0ms",
            "over before the first try",
        ),
        (
            "db-migrate",
            "--lock-deadline",
            "30d",
            "PostgreSQL allows 24 days",
        ),
        (
            "db-backup",
            "--lock-deadline",
            "0s",
            "over before the first try",
        ),
        (
            "db-backup",
            "--lock-deadline",
            "30d",
            "PostgreSQL allows 24 days",
        ),
    ] {
        let run = project.xtask(&[command, flag, time]).exits(2);
        run.says(why);
    }
    assert_eq!(project.value("SELECT to_regclass('_sqlx_migrations')"), "");
}

#[test]
fn of_a_statement_that_was_cut_off_while_it_was_fed_nothing_takes_effect() {
    // Far more than a pipe takes, and the condition at its end.
    let remark = "-- a long remark inside of the statement\n".repeat(200_000);
    let file = format!(
        "-- no-transaction\n-- xtask: lossless\nSELECT pg_sleep(0.5);\nDELETE FROM t\n{remark}WHERE id = 1;\n"
    );
    for (signal, times) in [("KILL", 1), ("INT", 2)] {
        for delay in [5, 20, 60, 120, 200] {
            let project = Project::empty();
            project.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
            project.write("migrations/1_large.up.sql", &file);
            let run = project.start(&["db-migrate", "--no-backup", "--yes"]);
            until("it sleeps", || project.value(ASLEEP) == "1");
            until("it slept", || project.value(ASLEEP) == "0");
            std::thread::sleep(Duration::from_millis(delay));
            for _ in 0..times {
                crate::common::signal(signal, run.id());
                std::thread::sleep(Duration::from_millis(5));
            }
            run.ends();
            until("no session is left", || project.backends() == 0);
            let left = project.value("SELECT count(*) FROM t");
            assert!(
                left == "1000" || left == "999",
                "{left} rows are left after {signal} at {delay} ms"
            );
        }
    }
}
