//! A backup locks its table before it looks at it: what is committed while it waits is in it, and
//! nobody waits in a circle with it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{Project, Run, Running, blocker, until};
use crate::proof::{backups, fake_pg_dump, manifest};

/// A table of 1,000 rows.
fn thousand() -> Project {
    let project = Project::empty();
    project.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT n, 'value ' || n FROM generate_series(1, 1000) AS n",
    );
    project
}

fn waits_for_lock(project: &Project) -> bool {
    project
        .value("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted")
        .as_str()
        != "0"
}

/// TRUNCATE and a rewrite are not MVCC-safe: a snapshot from before them sees an empty table.
#[test]
fn what_is_rewritten_while_the_backup_waits_is_in_the_backup() {
    for proof in ["restore", "rows", "none"] {
        for change in [
            "ALTER TABLE t ADD COLUMN x uuid DEFAULT gen_random_uuid()",
            "TRUNCATE t; INSERT INTO t SELECT n, 'again ' || n FROM generate_series(1, 1000) AS n",
            "ALTER TABLE t ALTER COLUMN id TYPE bigint",
        ] {
            let project = thousand();
            let (mut other, _) = blocker(&project, &format!("BEGIN; {change}"));
            let mut backup = project.start(&["db-backup", "t", "--proof", proof]);
            until("the backup waits", || waits_for_lock(&project));
            // Several tries long.
            std::thread::sleep(Duration::from_millis(700));
            assert!(backup.child.try_wait().expect("can be asked").is_none());
            other.batch_execute("COMMIT").expect("commits");
            backup.ends().succeeds().says("1,000 rows");
            let file = backups(&project).pop().expect("a backup");
            let text = std::fs::read_to_string(file).expect("reads");
            let rows = text.lines().filter(|line| line.contains('\t')).count();
            assert_eq!(rows, 1_000, "{proof}: {change}");
        }
    }
}

/// The backup holds its lock, somebody's ALTER waits for that, pg_dump would wait behind the ALTER:
/// a circle that the server does not see, with every login behind the ALTER.
#[test]
fn an_alter_between_our_lock_and_pg_dumps_goes_first() {
    let project = thousand();
    let folder = fake_pg_dump(
        &project,
        "touch begun; while [ ! -e go ]; do sleep 0.02; done; exec \"$REAL\" \"$@\"",
    );
    let backup = Running::of(
        project
            .command(&["db-backup", "t"])
            .env("PG_BIN_DIR", &folder),
    );
    until("pg_dump has begun", || project.path("begun").exists());
    let (worst, altered) = std::thread::scope(|scope| {
        let alter = scope.spawn(|| {
            project.client().batch_execute(
                "SET lock_timeout = '20s'; ALTER TABLE t ADD COLUMN x uuid DEFAULT gen_random_uuid()",
            )
        });
        let mut worst = Duration::ZERO;
        let mut login = project.client();
        let patience = "SET statement_timeout = '20s'";
        login.batch_execute(patience).expect("sets");
        let began = Instant::now();
        let mut freed = false;
        while began.elapsed() < Duration::from_secs(3) {
            let at = Instant::now();
            login
                .batch_execute("SELECT FROM t WHERE id = 7")
                .expect("reads");
            worst = worst.max(at.elapsed());
            // pg_dump asks for its lock once the ALTER stands in line, or has gone through.
            if !freed && began.elapsed() > Duration::from_millis(100) {
                project.write("go", "");
                freed = true;
            }
        }
        (worst, alter.join().expect("no panic"))
    });
    altered.expect("the ALTER goes through");
    assert!(
        worst < Duration::from_millis(500),
        "a login waited {worst:?}"
    );
    backup.ends().succeeds().says("1,000 rows");
    let file = backups(&project).pop().expect("a backup");
    let text = std::fs::read_to_string(file).expect("reads");
    assert!(text.contains("(id, v, x)"), "of after the ALTER");
}

/// A pg_dump that ends well all the same, though it was asked to stop: nothing was counted meanwhile.
#[test]
fn a_dump_that_made_way_begins_anew_and_is_compared() {
    let project = thousand();
    let folder = fake_pg_dump(
        &project,
        "trap '' TERM; touch begun; while [ ! -e go ]; do sleep 0.02; done; exec \"$REAL\" \"$@\"",
    );
    let backup = Running::of(
        project
            .command(&["db-backup", "t", "--proof", "rows"])
            .env("PG_BIN_DIR", &folder),
    );
    until("pg_dump has begun", || project.path("begun").exists());
    let altered = project
        .client()
        .batch_execute("SET lock_timeout = '500ms'; ALTER TABLE t ADD COLUMN x int");
    altered.expect_err("the dump did not end at once");
    project.write("go", "");
    backup
        .ends()
        .succeeds()
        .says("made way for a session that waits to change");
    let file = backups(&project).pop().expect("a backup");
    let values = &manifest(&project, &file.to_string_lossy())["columns"][0]["values"];
    assert_eq!(values, 1_000, "the table was counted");
}

#[test]
fn a_backup_behind_a_lock_names_who_holds_it_and_is_busy_at_the_deadline() {
    let project = thousand();
    let (_other, pid) = blocker(&project, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    let began = Instant::now();
    project
        .xtask(&["db-backup", "t", "--lock-deadline", "1s"])
        .exits(4)
        .says(&format!("in the way: pid {pid}"))
        .says("application blocker")
        .says(&format!("pg_terminate_backend({pid})"));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(backups(&project), Vec::<PathBuf>::new());

    // Behind one that itself only waits, and in db-migrate.
    project.write(
        "migrations/20260101000000_t.up.sql",
        "-- xtask: backup t\nALTER TABLE t ADD COLUMN y int;\n",
    );
    project.write(
        "migrations/20260101000000_t.down.sql",
        "ALTER TABLE t DROP COLUMN y;\n",
    );
    project
        .xtask(&["db-migrate", "--lock-deadline", "1s"])
        .exits(4)
        .says(&format!("pid {pid}"))
        .says("nothing was changed");
}

#[test]
fn a_table_that_was_swapped_while_the_backup_waited_is_not_backed_up_for_it() {
    let project = thousand();
    let (mut other, _) = blocker(
        &project,
        "BEGIN; ALTER TABLE t RENAME TO old; CREATE TABLE t (id int)",
    );
    let backup = project.start(&["db-backup", "t"]);
    until("the backup waits", || waits_for_lock(&project));
    other.batch_execute("COMMIT").expect("commits");
    backup.ends().exits(1).says("is another table now");
}

#[test]
fn an_empty_dump_of_a_table_that_had_rows_is_remarked() {
    let project = thousand();
    let quiet = project.xtask(&["db-backup", "t"]).succeeds();
    assert!(!quiet.stderr.contains("statistics"), "{}", quiet.stderr);
    project.sql("ANALYZE t; DELETE FROM t");
    project
        .xtask(&["db-backup", "t"])
        .succeeds()
        .says("`public.t` holds no row, and held some 1,000 by the server's statistics");
}

/// What the server says to pg_dump alone is said with its reason: a role's limit of connections too.
#[test]
fn a_role_without_a_connection_left_is_told_so() {
    let project = thousand();
    let role = format!("limited_{}", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON t TO {role}"
    ));
    let url = crate::common::url_as(&role, "pw", &project.database);
    for limit in [1, 2] {
        project.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT {limit}"));
        let run = Run::of(
            project
                .command(&["db-backup", "t", "--format", "json"])
                .env("DATABASE_URL", &url),
        )
        .exits(1);
        assert!(!run.stderr.contains("GRANT TEMPORARY"), "{}", run.stderr);
        assert_eq!(run.json()["error"]["sqlstate"], "53300", "{}", run.stdout);
        let hint = run.json()["error"]["hint"].to_string();
        assert!(hint.contains("CONNECTION LIMIT"), "{hint}");
    }
    project.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT 3"));
    project
        .xtask(&["db-backup", "t", "--database-url", &url])
        .succeeds();
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
