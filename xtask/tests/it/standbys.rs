//! `db-verify --wait-standbys` beside a real standby, made by pg_basebackup.

use std::process::Command;

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
