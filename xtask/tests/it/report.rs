//! What a run leaves for people who did not watch it: the Markdown report and the notification.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::Value;

use crate::common::Project;

/// A web server for one request, which it answers with this status line; gives the request's path
/// and body.
fn listener(answer: &'static str) -> (u16, JoinHandle<(String, String)>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let request = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody calls");
        let mut reader = BufReader::new(&stream);
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("reads");
            let line = line.trim_end().to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            }
            if line.starts_with("post ") {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("reads");
        write!(
            &stream,
            "HTTP/1.1 {answer}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
        )
        .expect("answers");
        (path, String::from_utf8(body).expect("UTF-8"))
    });
    (port, request)
}

#[test]
fn the_report_is_markdown_with_steps_checks_and_what_is_left_to_do() {
    let project = Project::seeded();
    project
        .xtask(&["db-migrate", "--report", "migration.md"])
        .succeeds()
        .says("Reported migration.md");
    let report = std::fs::read_to_string(project.path("migration.md")).expect("there is a report");
    let report = project.normalise(&report);
    expect_test::expect_file!["snapshots/report_migrate.md"].assert_eq(&report);

    project
        .xtask(&["db-rollback", "--yes", "--report", "back.md"])
        .succeeds();
    let report = std::fs::read_to_string(project.path("back.md")).expect("there is a report");
    let report = project.normalise(&report);
    expect_test::expect_file!["snapshots/report_rollback.md"].assert_eq(&report);
}

#[test]
fn where_nothing_is_pending_the_report_says_so_in_place_of_the_last_one() {
    let project = Project::seeded();
    let arguments = ["db-migrate", "--report", "migration.md"];
    project.xtask(&arguments).succeeds();
    project
        .xtask(&arguments)
        .succeeds()
        .says("Reported migration.md");
    let report = std::fs::read_to_string(project.path("migration.md")).expect("there is a report");
    assert!(report.starts_with("# Nothing to do in `"), "{report}");
    assert!(!report.contains("Applied"), "{report}");
}

#[test]
fn a_report_that_cannot_be_written_stops_the_run_before_anything_changes() {
    let project = Project::seeded();
    for file in ["no/such/folder/report.md", "migrations"] {
        project
            .xtask(&["db-migrate", "--report", file])
            .exits(2)
            .says("cannot write the report");
    }
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "1");
    project
        .xtask(&["db-migrate", "--dry-run", "--report", "plan.md"])
        .succeeds();
    assert!(
        !project.path("plan.md").exists(),
        "a dry run writes nothing"
    );
}

#[test]
fn a_notification_is_one_post_in_slacks_shape() {
    let project = Project::seeded();
    let (port, request) = listener("200 OK");
    let url = format!("http://127.0.0.1:{port}/services/s3cr3t");
    let run = project.xtask(&["db-migrate", "--notify", &url]).succeeds();
    assert!(!run.stderr.contains("s3cr3t"), "{}", run.stderr);
    let (path, body) = request.join().expect("was called");
    assert_eq!(path, "/services/s3cr3t");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body.as_object().map(|fields| fields.len()), Some(1));
    let text = body["text"].as_str().expect("text");
    for part in [
        format!("Migrated `{}` on 127.0.0.1", project.database),
        "Backed up public.users: 1,200 rows".to_owned(),
        "20251231143100 index users last login at".to_owned(),
        "Verified: 5 checks hold".to_owned(),
    ] {
        assert!(text.contains(&part), "expected {part:?} in {text}");
    }
}

#[test]
fn a_notification_that_fails_only_warns_and_keeps_its_address() {
    let project = Project::seeded();
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let refused = free.local_addr().expect("an address").port();
    drop(free);
    let (broken, request) = listener("500 Oops");
    let (moved, redirected) = listener("302 Found\r\nlocation: /elsewhere/s3cr3t");
    for url in [
        format!("http://127.0.0.1:{broken}/services/s3cr3t"),
        format!("http://127.0.0.1:{refused}/services/s3cr3t"),
        format!("http://127.0.0.1:{moved}/services/s3cr3t"),
        "http://nobody.invalid/services/s3cr3t".to_owned(),
        "http://user:s3cr3t@nobody.invalid/".to_owned(),
        "ftp://127.0.0.1/s3cr3t".to_owned(),
        "s3cr3t".to_owned(),
        "http://127.0.0.1:port/s3cr3t".to_owned(),
        "https://127.0.0.1/s3cr3t path".to_owned(),
    ] {
        let up = project.xtask(&["db-migrate", "--notify", &url]);
        let run = up
            .succeeds()
            .says("warning: the notification was not delivered: ");
        assert!(!run.stderr.contains("s3cr3t"), "{}", run.stderr);
        assert!(!run.stdout.contains("s3cr3t"), "{}", run.stdout);
        project
            .xtask(&["db-rollback", "--yes", "--no-backup"])
            .succeeds();
    }
    request.join().expect("was called");
    redirected.join().expect("was called");
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
}
