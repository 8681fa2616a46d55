//! What others do while a restore compares, waits for its lock and commits.

use std::time::Duration;

use crate::common::{Project, own_server, until};
use crate::proof::back_up;

/// A transaction of somebody else that keeps the restore from its lock until it commits.
fn held(project: &Project, sql: &str) -> postgres::Client {
    let mut client = project.client();
    client
        .batch_execute(&format!("BEGIN; {sql}"))
        .expect("begins");
    client
}

#[test]
fn a_value_written_after_the_comparison_is_never_replaced() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("UPDATE users SET display_name = 'damaged' WHERE id IN (7, 8, 9, 10)");
    project.sql("DELETE FROM users WHERE id = 11");
    for arguments in [
        vec!["db-restore", &file, "--yes", "--format", "json"],
        vec!["db-restore", &file, "--column", "role", "--yes"],
    ] {
        // A login, a value set to NULL and back, a row deleted, one signed up again: after the comparison.
        project
            .sql("UPDATE users SET role = 'admin', display_name = 'damaged' WHERE id IN (7, 8, 9)");
        let mut writer = held(
            &project,
            "UPDATE users SET display_name = 'newer', role = 'admin' WHERE id = 8; DELETE FROM users WHERE id = 10",
        );
        let mut running = project.start(&arguments);
        running.says("Compared");
        std::thread::sleep(Duration::from_millis(300));
        writer
            .batch_execute("INSERT INTO users (id, email, password_hash, display_name) VALUES (11, 'again@example.com', 'x', 'Again') ON CONFLICT DO NOTHING; COMMIT")
            .expect("commits");
        running
            .ends()
            .succeeds()
            .says("changed between the comparison and the lock");
        assert_eq!(
            project.value("SELECT display_name || role FROM users WHERE id = 8"),
            "neweradmin"
        );
        assert_eq!(
            project.value("SELECT role FROM users WHERE id = 9"),
            "member"
        );
        assert_eq!(
            project.value("SELECT count(*) FROM users WHERE id = 10"),
            "0"
        );
        assert_eq!(
            project.value("SELECT display_name FROM users WHERE id = 11"),
            "Again"
        );
    }
}

#[test]
fn the_comparison_is_made_behind_the_lock_and_not_on_an_older_snapshot() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("UPDATE users SET display_name = 'damaged' WHERE id <= 3");
    for rewrite in [
        "CREATE TEMPORARY TABLE kept AS TABLE users; TRUNCATE users CASCADE; INSERT INTO users SELECT * FROM kept",
        "ALTER TABLE users ADD COLUMN token uuid DEFAULT gen_random_uuid()",
    ] {
        let mut writer = held(&project, "LOCK TABLE sessions IN ACCESS SHARE MODE");
        writer.batch_execute("SAVEPOINT s").expect("works");
        writer.batch_execute(rewrite).expect("rewrites");
        let running = project.start(&["db-restore", &file, "--yes", "--format", "json"]);
        until("the comparison waits", || {
            project.value(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'",
            ) != "0"
        });
        writer.batch_execute("COMMIT").expect("commits");
        let run = running.ends();
        // A table that has other columns by then is another one than was meant.
        match rewrite.starts_with("ALTER") {
            true => {
                run.exits(3).says("nothing was restored");
                project.xtask(&["db-restore", &file, "--yes"]).succeeds();
            }
            false => {
                let merged = run.succeeds().json();
                assert_eq!(merged["updated"], 3);
                assert_eq!(merged["unchanged"], 1197);
            }
        }
        assert_eq!(
            project.value("SELECT count(*) FROM users WHERE display_name = 'damaged'"),
            "0"
        );
        project.sql("UPDATE users SET display_name = 'damaged' WHERE id <= 3");
    }
}

#[test]
fn a_table_truncated_between_comparison_and_lock_is_not_merged_by_halves() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("UPDATE users SET display_name = 'damaged' WHERE id <= 3");
    let mut writer = held(&project, "UPDATE users SET role = 'admin' WHERE id = 9");
    let mut running = project.start(&["db-restore", &file, "--yes"]);
    running.says("Compared");
    writer
        .batch_execute("TRUNCATE users CASCADE; COMMIT")
        .expect("commits");
    running
        .ends()
        .exits(3)
        .says("rewritten or truncated")
        .says("nothing was restored");
    assert_eq!(project.value("SELECT count(*) FROM users"), "0");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
}

const SWAP: &str = "ALTER TABLE users RENAME TO users_before;
     CREATE TABLE users (LIKE users_before INCLUDING ALL);
     CREATE SEQUENCE others OWNED BY users.id;
     ALTER TABLE users ALTER id SET DEFAULT nextval('others')";

#[test]
fn a_table_that_was_swapped_while_the_restore_waited_is_refused() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("DELETE FROM users WHERE id = 7");
    let untouched = |run: crate::common::Run| {
        run.exits(3)
            .says("another table has its name now")
            .says("nothing was restored");
        assert_eq!(project.value("SELECT count(*) FROM users"), "0");
        assert_eq!(project.value("SELECT count(*) FROM users_before"), "1199");
        project.sql("DROP TABLE users; ALTER TABLE users_before RENAME TO users");
    };
    // While it waits for the migration lock.
    let mut migration = project.client();
    let lock = migration_lock(&project);
    migration
        .batch_execute(&format!("SELECT pg_advisory_lock({lock})"))
        .expect("locks");
    let running = project.start(&["db-restore", &file, "--yes"]);
    std::thread::sleep(Duration::from_millis(700));
    project.sql(SWAP);
    drop(migration);
    untouched(running.ends());
    // While it waits for the table's.
    let mut writer = held(&project, "UPDATE users SET role = 'admin' WHERE id = 9");
    let mut running = project.start(&["db-restore", &file, "--yes"]);
    running.says("Compared");
    writer
        .batch_execute(&format!("{SWAP}; COMMIT"))
        .expect("commits");
    untouched(running.ends());
}

/// The id of the advisory lock that a run holds, asked of a run.
fn migration_lock(project: &Project) -> String {
    let holder = held(project, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE");
    let file = crate::proof::backups(project)[0].display().to_string();
    let running = project.start(&["db-restore", &file, "--yes"]);
    let mut key = String::new();
    until("a run holds its lock", || {
        key = project.value(
            "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
             WHERE locktype = 'advisory' AND objsubid = 1 AND granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        !key.is_empty()
    });
    running.signal("INT");
    running.ends();
    drop(holder);
    key
}

/// Every commit waits for a standby that does not exist, until this is dropped.
struct AbsentStandby<'a>(&'a Project);

impl AbsentStandby<'_> {
    fn wanted_by(project: &Project) -> AbsentStandby<'_> {
        project.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        project.sql("SELECT pg_reload_conf()");
        AbsentStandby(project)
    }
}

impl Drop for AbsentStandby<'_> {
    fn drop(&mut self) {
        self.0.sql("ALTER SYSTEM RESET synchronous_standby_names");
        self.0.sql("SELECT pg_reload_conf()");
    }
}

#[test]
fn when_the_answer_to_commit_is_lost_it_is_said_what_the_server_did() {
    let server = own_server(&[("synchronous_commit", "on"), ("wal_sender_timeout", "61s")]);
    let project = Project::seeded_on(server);
    let file = back_up(&project, "users");
    let damage = "SET synchronous_commit = local; DELETE FROM users WHERE id <= 5";
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    project.sql(damage);
    let _standby = AbsentStandby::wanted_by(&project);

    let running = project.start(&["db-restore", &file, "--yes"]);
    until("it waits for a standby", || project.value(waits) != "0");
    project
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    running
        .ends()
        .succeeds()
        .says("the server says that it was committed");
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");

    // One Ctrl-C ends the wait; what was committed is not denied.
    project.sql(damage);
    let running = project.start(&["db-restore", &file, "--yes"]);
    until("it waits for a standby", || project.value(waits) != "0");
    running.signal("INT");
    let said = "it may not have it yet";
    running.ends().succeeds().says("Restored").says(said);
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");

    // So does the stall budget, for whoever waits for the restore's locks meanwhile.
    project.sql(damage);
    let running = project.start(&["db-restore", &file, "--yes", "--stall-budget", "300ms"]);
    until("it waits for a standby", || project.value(waits) != "0");
    project.sql("SET synchronous_commit = local; UPDATE users SET role = role WHERE id = 7");
    running.ends().succeeds().says("Restored").says(said);
}
