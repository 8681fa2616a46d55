//! `db-verify --wait-standbys` beside a real standby, made by pg_basebackup; and a server whose commits
//! wait for a standby that never comes.

use std::process::Command;
use std::time::{Duration, Instant};

use private_server::{Stop, ThrowawayServer};

use crate::common::{Project, Run, installation, own_server, start_server, tool, until};

/// A standby of this server, which replays what it is sent.
fn standby_of(primary: &ThrowawayServer) -> ThrowawayServer {
    let standby = start_server(&[]);
    let cluster = standby.cluster();
    cluster.stop(Stop::Fast).expect("stops");
    // In place of its own data, with the same owner.
    let copied = Command::new("/bin/sh")
        .args(["-ec", "find data -mindepth 1 -delete; \"$0\" --pgdata=data --write-recovery-conf --checkpoint=fast --dbname=\"$1\"; chown -R \"$(stat -c %u:%g data 2>/dev/null || stat -f %u:%g data)\" data"])
        .arg(tool("pg_basebackup").get_program())
        .arg(primary.url("postgres"))
        .current_dir(cluster.folder())
        .output()
        .expect("sh starts");
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    cluster.start(&[installation()]).expect("starts");
    standby
}

#[test]
fn a_standby_that_this_role_may_not_see_is_not_taken_for_one_that_has_replayed() {
    let primary = own_server(&[("wal_level", "replica"), ("max_wal_senders", "4")]);
    let project = Project::seeded_on(primary);
    let standby = standby_of(primary);
    let port = standby.cluster().port().expect("a port").expect("a port");
    let replica = project
        .url
        .replace(&format!(":{}/", primary.port()), &format!(":{port}/"));
    let mut replaying = postgres::Client::connect(&replica, postgres::NoTls).expect("connects");
    until("it streams", || {
        project.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
    });
    let role = format!("{}_blind", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let blind = project.url.replace(
        &format!("admin:{}@", primary.password()),
        &format!("{role}:pw@"),
    );
    let verify = |url: &str, arguments: &[&str]| {
        let mut command = project.command(&[&["db-verify"], arguments].concat());
        Run::of(command.env("DATABASE_URL", url))
    };
    let wait = ["--wait-standbys", "500ms"];

    let run = verify(&project.url, &["--wait-standbys", "30s"]).succeeds();
    run.shows("has replayed everything");
    replaying
        .batch_execute("SELECT pg_wal_replay_pause()")
        .expect("pauses");
    project.sql("CREATE TABLE later (id int)");
    verify(&project.url, &wait)
        .exits(3)
        .says("has not replayed the migration");
    verify(&blind, &wait)
        .exits(3)
        .says("whether the attached standby has replayed the migration cannot be known")
        .says(&format!("role `{role}` may not see"))
        .says("GRANT pg_read_all_stats");
    let json = verify(&blind, &[&wait[..], &["--format", "json"]].concat()).exits(3);
    assert_eq!(json.json()["hidden_standbys"], 1);
    assert_eq!(json.json()["ok"], false);
    // Who has not asked is told, and no more.
    verify(&blind, &[]).succeeds().says("cannot be known");
    // A standby knows of no other.
    verify(&replica, &wait)
        .exits(3)
        .says("cannot be known here")
        .says("is a standby itself");
    verify(&replica, &[]).succeeds();

    project.sql(&format!("GRANT pg_read_all_stats TO {role}"));
    verify(&blind, &wait)
        .exits(3)
        .says("has not replayed the migration");
    replaying
        .batch_execute("SELECT pg_wal_replay_resume()")
        .expect("goes on");
    verify(&blind, &["--wait-standbys", "30s"]).succeeds();
}

/// Lets commits of this server wait for a standby that there is not, or no more.
fn wait_for_nobody(project: &Project, wait: bool) {
    let names = if wait { "'nobody'" } else { "DEFAULT" };
    let mut admin = project.client();
    for sql in [
        "SET synchronous_commit = local",
        &format!("ALTER SYSTEM SET synchronous_standby_names TO {names}"),
        "SELECT pg_reload_conf()",
    ] {
        admin.batch_execute(sql).expect("the SQL runs");
    }
    let now = if wait { "nobody" } else { "" };
    until("the server waits for a standby, or no more", || {
        project.value("SELECT current_setting('synchronous_standby_names')") == now
    });
}

#[test]
fn a_commit_that_waits_for_a_standby_keeps_nobody_waiting_and_it_is_said_what_that_means() {
    let server = own_server(&[("wal_level", "replica"), ("max_wal_senders", "4")]);
    let waits = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'xtask %(psql)' AND wait_event = 'SyncRep'";
    let told = "it may not be on any standby";
    // One that commits by itself, one that is looked at first, and one outside of a transaction.
    for (file, verify, reader) in [
        (
            "ALTER TABLE users ADD COLUMN a int;",
            None,
            "SELECT count(*) FROM users",
        ),
        (
            "ALTER TABLE users ADD COLUMN a int;",
            Some("SELECT 'it is there', count(a) = 0 FROM users;"),
            "SELECT count(*) FROM users",
        ),
        (
            "-- no-transaction\n-- xtask: lossless\nUPDATE users SET display_name = 'x' WHERE id = 1;",
            None,
            "SET synchronous_commit = local; UPDATE users SET display_name = 'y' WHERE id = 1",
        ),
    ] {
        let project = Project::seeded_on(server);
        // What a role has set hides nothing.
        project.sql(&format!(
            "ALTER DATABASE {} SET client_min_messages = error",
            project.database
        ));
        project.xtask(&["db-migrate"]).succeeds();
        project.write("migrations/20260101000000_x.up.sql", file);
        if let Some(verify) = verify {
            project.write("migrations/verify/20260101000000_x.sql", verify);
        }
        wait_for_nobody(&project, true);
        let run = project.start(&["db-migrate", "--no-backup", "--yes"]);
        until("its commit waits", || project.value(waits) == "1");
        let at = Instant::now();
        project.sql(reader);
        let waited = at.elapsed();
        assert!(waited < Duration::from_secs(2), "{file}: {waited:?}");
        // The history's row of one that ran outside of a transaction waits by itself.
        until("it has ended, or waits for nobody's sake", || {
            run.said().contains("Applied") || project.value(waits) == "1"
        });
        wait_for_nobody(&project, false);
        run.ends()
            .exits(0)
            .says("Applied 20260101000000")
            .says(told)
            .says("others waited for its locks longer than the stall budget")
            .says("db-verify --wait-standbys");
        assert_eq!(
            project.value("SELECT success FROM _sqlx_migrations WHERE version = 20260101000000"),
            "true"
        );
    }
}
