//! One writer: any number of runs at once come to one result, what a killed run has left is waited
//! for by name, and neither an application's own migrator nor a proxy makes two of one.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::error::SqlState;

use crate::common::{
    BASELINE, COLUMN, Project, READER, Run, Running, SNAPSHOT, WRITER, blocker, children_of, long,
    path_variable, server, signal, until,
};
use crate::failing::skipped;

const INDEX: &str = "idx_users_last_login_at";

/// Each migration is in the history once, the index is valid, and nobody of ours is left.
#[track_caller]
fn is_as_after_one_run(project: &Project) {
    assert_eq!(
        project
            .value("SELECT string_agg(version::text, ' ' ORDER BY version) FROM _sqlx_migrations"),
        format!("{BASELINE} {COLUMN} 20251231143100")
    );
    assert!(project.state().contains(&format!("{INDEX} true true")));
    until("no session of ours is left", || project.backends() == 0);
}

fn at_once(project: &Project, runs: usize) -> Vec<Run> {
    let running: Vec<Running> = (0..runs).map(|_| project.start(&["db-migrate"])).collect();
    running
        .into_iter()
        .map(|run| run.ends().succeeds())
        .collect()
}

#[test]
fn any_number_of_runs_at_once_all_succeed_and_one_does_the_work() {
    let (counts, rounds): (&[usize], _) = if long() {
        (&[2, 4, 8], 20)
    } else {
        (&[2, 8], 1)
    };
    for &runs in counts {
        let started = Instant::now();
        for _ in 0..rounds {
            let project = Project::new();
            at_once(&project, runs);
            is_as_after_one_run(&project);
        }
        println!(
            "{runs} runs on an empty database, {rounds} rounds: {:.1?}",
            started.elapsed()
        );
    }
    let project = Project::seeded();
    if long() {
        project.xtask(&["db-seed", "--users", "998800"]).succeeds();
    }
    for (what, kept) in [("column", BASELINE), ("index", COLUMN)] {
        for &runs in counts {
            let started = Instant::now();
            for _ in 0..rounds {
                let done = at_once(&project, runs);
                is_as_after_one_run(&project);
                let workers = done.iter().filter(|run| run.stderr.contains("Applied"));
                assert_eq!(workers.count(), 1);
                project
                    .xtask(&["db-rollback", "--to", kept, "--yes", "--no-backup"])
                    .succeeds();
            }
            println!(
                "{runs} runs with the {what} pending, {rounds} rounds: {:.1?}",
                started.elapsed()
            );
        }
        project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    }
    if long() {
        project.xtask(&["db-seed", "--users", "4000000"]).succeeds();
        let started = Instant::now();
        at_once(&project, 8);
        is_as_after_one_run(&project);
        println!(
            "8 runs with the index pending on 5,000,000 rows: {:.1?}",
            started.elapsed()
        );
    }
}

#[test]
fn a_second_run_says_who_is_first_and_gives_up_at_its_deadline() {
    let project = Project::seeded();
    let (_holder, _) = blocker(&project, READER);
    let mut first = project.start(&["db-migrate"]);
    first.says("the table is in use by");
    project
        .xtask(&["db-migrate", "--lock-deadline", "500ms"])
        .exits(4)
        .says("another run holds the migration lock")
        .says("application xtask db-migrate")
        .says("nothing was changed");
    drop(_holder);
    first.ends().succeeds();
    is_as_after_one_run(&project);
}

/// A run that was killed while its index build waits for an old snapshot.
fn killed_in_its_build(project: &Project) -> (postgres::Client, String) {
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let (holder, pid) = blocker(project, SNAPSHOT);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {pid}, user admin, application blocker"));
    run.signal("KILL");
    assert_ne!(run.ends().status, 0);
    let builder = project.value(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'xtask%psql%'",
    );
    (holder, builder)
}

#[test]
fn a_build_that_a_killed_run_has_left_is_waited_for_by_name() {
    let project = Project::seeded();
    let (holder, builder) = killed_in_its_build(&project);
    let mut next = project.start(&["db-migrate"]);
    next.says(&format!(
        "a killed run is still running on the server: pid {builder},"
    ));
    project
        .xtask(&["db-migrate", "--lock-deadline", "300ms"])
        .exits(4);
    drop(holder);
    next.ends().succeeds();
    is_as_after_one_run(&project);
}

#[test]
fn with_end_orphans_it_is_ended_and_its_index_built_again() {
    let project = Project::seeded();
    let (holder, builder) = killed_in_its_build(&project);
    let mut next = project.start(&["db-migrate", "--end-orphans"]);
    next.says("left by an interrupted build");
    until("the orphan is gone", || {
        project.value(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {builder}"
        )) == "0"
    });
    drop(holder);
    next.ends().succeeds();
    is_as_after_one_run(&project);
}

/// Without `client_connection_check_interval` it would go on to its end, for nobody.
#[test]
fn the_build_of_a_dead_psql_ends_by_itself() {
    let project = Project::seeded();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let (_holder, pid) = blocker(&project, SNAPSHOT);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {pid}, user admin"));
    for child in children_of(run.child.id()) {
        signal("KILL", child);
    }
    let run = run.ends().exits(1);
    run.says("the next run waits for that to end");
    let killed = Instant::now();
    until("the backend is gone", || project.backends() == 0);
    println!(
        "the build of a dead psql ended after {:.1?}",
        killed.elapsed()
    );
    drop(_holder);
    project.xtask(&["db-migrate"]).succeeds();
    is_as_after_one_run(&project);
}

#[test]
fn an_old_snapshot_on_another_table_is_named() {
    let project = Project::seeded();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let (holder, pid) = blocker(&project, SNAPSHOT);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!(
        "pid {pid}, user admin, application blocker, idle in transaction, in its transaction for "
    ));
    // Where there is no terminal a line says how far it is, now and then.
    run.says("waiting for old snapshots");
    drop(holder);
    run.ends().succeeds();
}

/// What sqlx's migrator does when an application starts, and what it gets.
#[test]
fn an_application_that_blocks_in_sqlx_lock_does_not_hang_the_build() {
    let project = Project::seeded();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    let (holder, pid) = blocker(&project, WRITER);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {pid}, user admin"));
    let key = project.value(
        "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
         WHERE locktype = 'advisory' AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    // So that this test fails, and does not hang, if nobody cancels it.
    let (mut replica, replica_pid) = blocker(&project, "SET lock_timeout = '20s'");
    let lock = format!("SELECT pg_advisory_lock({key})");
    std::thread::scope(|scope| {
        let started = scope.spawn(|| replica.batch_execute(&lock));
        until("the replica stands in line", || {
            project.value(&format!(
                "SELECT count(*) FROM pg_locks WHERE pid = {replica_pid} AND NOT granted"
            )) == "1"
        });
        drop(holder);
        let error = started.join().expect("ends").expect_err("is cancelled");
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    });
    let run = run.ends().succeeds();
    run.says(&format!("pid {replica_pid}, user admin"))
        .says("waits in pg_advisory_lock for this run");
    // It is started anew, and finds everything done.
    replica.batch_execute(&lock).expect("gets the lock");
    replica
        .batch_execute("SELECT pg_advisory_unlock_all()")
        .expect("lets go");
    is_as_after_one_run(&project);
}

/// A real pgbouncer before the test server; `None` where it is not installed.
struct PgBouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    fn start(project: &Project, pool_mode: &str, ignore: &str) -> Option<PgBouncer> {
        let path = path_variable();
        let program = std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/opt/homebrew/bin".into()])
            .map(|folder| folder.join("pgbouncer"))
            .find(|program| program.is_file());
        let Some(program) = program else {
            skipped("pgbouncer is not installed");
            return None;
        };
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = server();
        let password = server.password();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=admin password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {pool_mode}\ndefault_pool_size = 5\n{ignore}",
            server.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("writes a file");
        let mut command = Command::new(program);
        // It refuses to run as root.
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        let child = command
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        let bouncer = PgBouncer {
            child,
            port,
            _folder: folder,
        };
        let url = bouncer.url(project);
        until("pgbouncer listens", || {
            postgres::Client::connect(&url, postgres::NoTls).is_ok()
        });
        Some(bouncer)
    }

    fn url(&self, project: &Project) -> String {
        format!(
            "postgresql://admin:any@127.0.0.1:{}/{}",
            self.port, project.database
        )
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const IGNORE: &str = "ignore_startup_parameters = extra_float_digits,options\n";

#[test]
fn behind_a_transaction_pooling_proxy_it_refuses_and_says_what_to_do() {
    let project = Project::seeded();
    let before = project.dump();
    for ignore in [IGNORE, ""] {
        let Some(bouncer) = PgBouncer::start(&project, "transaction", ignore) else {
            return;
        };
        let url = bouncer.url(&project);
        project
            .xtask(&["--database-url", &url, "db-migrate"])
            .exits(1)
            .says("prox")
            .says("connect to the server itself");
        // What only looks says so too, without the lock.
        let doctor = project
            .xtask(&["--database-url", &url, "db-doctor"])
            .exits(3)
            .says("connect to the server itself");
        let check = if ignore.is_empty() {
            "connection"
        } else {
            "pooler"
        };
        let line = format!("FAIL  {check}");
        assert!(doctor.stdout.contains(&line), "{}", doctor.stdout);
        project
            .xtask(&["--database-url", &url, "db-migrate", "--dry-run"])
            .exits(1)
            .says("connect to the server itself");
        assert_eq!(before, project.dump());
        assert_eq!(project.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"), "0");
        assert!(!project.path("backups").exists(), "a backup was begun");
    }
}

#[test]
fn behind_a_session_pooling_proxy_it_works() {
    let project = Project::seeded();
    // The proxy keeps our startup options to itself, so that the database's limits would hold.
    project.sql(&format!(
        "ALTER DATABASE {} SET statement_timeout = '50ms'",
        project.database
    ));
    let Some(bouncer) = PgBouncer::start(&project, "session", IGNORE) else {
        return;
    };
    let url = bouncer.url(&project);
    let doctor = project.xtask(&["--database-url", &url, "db-doctor"]);
    let doctor = doctor.succeeds().stdout;
    assert!(doctor.contains("ok  pooler"), "{doctor}");
    project
        .xtask(&["--database-url", &url, "db-migrate", "--dry-run"])
        .succeeds();
    let (mut holder, _) = blocker(&project, "SET statement_timeout = 0");
    holder.batch_execute(SNAPSHOT).expect("the SQL runs");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(800));
            drop(holder);
        });
        project
            .xtask(&["--database-url", &url, "db-migrate", "--proof", "rows"])
            .succeeds();
    });
    assert!(project.state().contains(&format!("{INDEX} true true")));
}
