//! What scripts may rely on: exit codes, the JSON shapes field by field, and which stream holds what.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use crate::common::{Project, Run, commands};

/// Field names and types, with a list's first element standing for all: `{a: n, b: [s]}`.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if number.is_f64() => "float".to_owned(),
        Value::Number(_) => "int".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(items) => {
            let first = items.first().map(shape).unwrap_or_default();
            format!("[{first}]")
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", shape(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// The one document of a run with `--format json`, and that there is nothing else on stdout.
#[track_caller]
fn document(run: &Run) -> Map<String, Value> {
    assert_eq!(run.stdout.lines().count(), 1, "one line: {}", run.stdout);
    match run.json() {
        Value::Object(fields) => fields,
        other => panic!("not an object: {other}"),
    }
}

#[track_caller]
fn shape_of(run: &Run) -> String {
    shape(&Value::Object(document(run)))
}

const ERROR: &str =
    "{error: {causes: [text], code: int, hint: text, message: text, sqlstate: null}}";
const RUN: &str = "{direction: text, duration_ms: float, lock_attempts: int, lock_wait_ms: float, started_at: text}";
const BACKUP: &str = "{bytes: int, file: text, proof: text, rows: int, sha256: text, table: text}";
const STEP: &str = "{duration_ms: float, lock_attempts: int, name: text, version: int}";
const CHECK: &str = "{check: text, ok: bool, version: int}";

#[test]
fn db_status_has_the_shape_that_scripts_read() {
    let project = Project::seeded();
    let run = project.xtask(&["db-status", "--format", "json"]).succeeds();
    let document = document(&run);
    assert_eq!(
        shape(&document["database"]),
        "{host: text, name: text, port: int, server_version: text, user: text}"
    );
    let migrations = document["migrations"].as_array().expect("a list");
    assert_eq!(
        shape(&migrations[0]),
        "{execution_time_ms: float, installed_on: text, name: text, reversible: bool, state: text, transactional: bool, version: int}"
    );
    assert_eq!(
        shape(&migrations[2]),
        "{execution_time_ms: null, installed_on: null, name: text, reversible: bool, state: text, transactional: bool, version: int}"
    );
    let states: Vec<&str> = migrations
        .iter()
        .filter_map(|entry| entry["state"].as_str())
        .collect();
    assert_eq!(states, ["applied", "pending", "pending"]);
    let installed_on: jiff::Timestamp = migrations[0]["installed_on"]
        .as_str()
        .expect("text")
        .parse()
        .expect("RFC 3339");
    assert!(installed_on > jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(migrations[2]["transactional"], false);
    for (field, expected) in [
        ("applied", 1),
        ("pending", 2),
        ("missing", 0),
        ("divergent", 0),
    ] {
        assert_eq!(document[field], expected, "{field}");
    }
    assert_eq!(shape(&document["invalid_indexes"]), "[]");
}

#[test]
fn db_status_tells_every_state() {
    let project = Project::new();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("UPDATE _sqlx_migrations SET success = false WHERE version = 20251231143100;
                 INSERT INTO _sqlx_migrations VALUES (20250101000000, 'gone', now(), true, '\\x00', -1);
                 DROP INDEX idx_users_last_login_at");
    let file = "migrations/20251231143000_add_users_last_login_at.up.sql";
    let text = std::fs::read_to_string(project.path(file)).expect("reads");
    project.write(file, text + "-- edited\n");
    project.write("migrations/20260101000000_next.sql", "SELECT 1;\n");
    let run = project.xtask(&["db-status", "--format", "json"]).succeeds();
    let document = document(&run);
    let states: Vec<&str> = document["migrations"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["state"].as_str())
        .collect();
    assert_eq!(
        states,
        ["missing", "applied", "divergent", "failed", "pending"]
    );
    assert_eq!(document["migrations"][0]["transactional"], Value::Null);
    assert_eq!(document["migrations"][0]["execution_time_ms"], Value::Null);
    assert_eq!(document["migrations"][4]["reversible"], false);
    for field in ["applied", "pending", "missing", "divergent", "failed"] {
        assert_eq!(document[field], 1, "{field}");
    }
}

#[test]
fn db_migrate_and_db_rollback_have_one_shape() {
    let project = Project::seeded();
    let up = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    let expected = format!(
        "{{backups: [{BACKUP}], dry_run: bool, run: {RUN}, steps: [{STEP}], verified: [{CHECK}]}}"
    );
    assert_eq!(shape_of(&up), expected);
    let up = document(&up);
    assert_eq!(up["run"]["direction"], "up");
    assert_eq!(up["run"]["lock_attempts"], 1);
    assert_eq!(up["backups"][0]["table"], "public.users");
    assert_eq!(up["backups"][0]["rows"], 1_200);
    assert_eq!(up["steps"][1]["version"], 20251231143100_i64);
    assert_eq!(up["steps"][1]["name"], "index users last login at");
    assert!(
        project
            .path(up["backups"][0]["file"].as_str().expect("text"))
            .exists()
    );

    let idle = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    assert_eq!(
        shape_of(&idle),
        format!("{{backups: [], dry_run: bool, run: {RUN}, steps: [], verified: []}}")
    );

    let down = project
        .xtask(&["db-rollback", "--format", "json", "--yes"])
        .succeeds();
    assert_eq!(shape_of(&down), expected);
    let down = document(&down);
    assert_eq!(down["run"]["direction"], "down");
    assert_eq!(down["steps"][0]["version"], 20251231143100_i64);

    let plan = project
        .xtask(&["db-migrate", "--format", "json", "--dry-run"])
        .succeeds();
    let plan = document(&plan);
    assert_eq!(plan["dry_run"], true);
    // What would be applied, in this order.
    let versions: Vec<&Value> = plan["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| &step["version"])
        .collect();
    assert_eq!(versions, [20251231143000_i64, 20251231143100]);

    project.xtask(&["db-migrate"]).succeeds();
    let redo = project
        .xtask(&["db-redo", "--format", "json", "--yes"])
        .succeeds();
    assert_eq!(shape_of(&redo), expected);
}

#[test]
fn db_verify_db_backup_db_backups_and_db_doctor_have_their_shapes() {
    let project = Project::seeded();
    let run = project.xtask(&["db-verify", "--format", "json"]).succeeds();
    assert_eq!(
        shape_of(&run),
        format!("{{checks: [{CHECK}], hidden_standbys: int, ok: bool, standbys: []}}")
    );
    let run = project
        .xtask(&["db-backups", "--format", "json"])
        .succeeds();
    assert_eq!(shape_of(&run), "{backups: []}");
    let run = project
        .xtask(&["db-backup", "--format", "json", "users", "sessions"])
        .succeeds();
    assert_eq!(shape_of(&run), format!("{{backups: [{BACKUP}]}}"));
    let run = project
        .xtask(&["db-backups", "--format", "json"])
        .succeeds();
    assert_eq!(
        shape_of(&run),
        "{backups: [{age_seconds: int, bytes: int, created_at: text, database: text, file: text, proof: text, rows: int, sha256: text, state: text, table: text}]}"
    );
    assert_eq!(document(&run)["backups"].as_array().map(Vec::len), Some(2));
    let run = project.xtask(&["db-doctor", "--format", "json"]).succeeds();
    assert_eq!(
        shape_of(&run),
        "{checks: [{detail: text, hint: null, name: text, status: text}], ok: bool}"
    );
    let checks = document(&run)["checks"].clone();
    for check in checks.as_array().expect("a list") {
        assert!(["ok", "warn", "fail"].contains(&check["status"].as_str().expect("text")));
    }
}

#[test]
fn db_repair_has_its_shape() {
    let project = Project::empty();
    project.write("migrations/1_a.up.sql", "SELECT 1;\r\n");
    project.xtask(&["db-migrate"]).succeeds();
    project.write("migrations/1_a.up.sql", "SELECT 1;\n");
    let json = ["db-repair", "--format", "json"];
    let asked = project.xtask(&json).exits(2);
    assert_eq!(shape_of(&asked), ERROR);
    let run = project.xtask(&[&json[..], &["--yes"]].concat()).succeeds();
    assert_eq!(
        shape_of(&run),
        "{dry_run: bool, refused: [], repaired: [{from: text, to: text, version: int}]}"
    );
    project.write("migrations/1_a.up.sql", "SELECT 2;\n");
    project.write("migrations/2_b.up.sql", "SELECT 1;\n");
    let run = project.xtask(&json).exits(3);
    assert_eq!(
        shape_of(&run),
        "{dry_run: bool, refused: [{found_in: text, version: int, why: text}], repaired: []}"
    );
}

#[test]
fn a_command_that_finds_something_exits_3_with_its_report() {
    let project = Project::seeded();
    // The report is the one document; what was found is said once more on stderr.
    let run = project
        .xtask(&["db-status", "--check", "--format", "json"])
        .exits(3);
    assert_eq!(document(&run)["pending"], 2);
    let run = run.says("error: not every migration is applied");
    assert!(!run.stdout.contains("error"), "{}", run.stdout);
    project
        .xtask(&["db-status", "--check"])
        .exits(3)
        .says("2 pending")
        .says("hint: cargo xtask db-migrate");
    project.xtask(&["db-status"]).succeeds();

    project.xtask(&["db-migrate"]).succeeds();
    project.sql("DROP INDEX idx_users_last_login_at");
    let run = project.xtask(&["db-verify", "--format", "json"]).exits(3);
    assert_eq!(document(&run)["ok"], false);
    project
        .xtask(&["db-verify"])
        .exits(3)
        .says("index idx_users_last_login_at exists on users");

    project.sql("DELETE FROM _sqlx_migrations");
    let run = project.xtask(&["db-doctor", "--format", "json"]).exits(3);
    assert_eq!(document(&run)["ok"], false);
    project
        .xtask(&["db-doctor"])
        .exits(3)
        .says("error: not ready");
}

#[test]
fn an_error_is_one_document_too() {
    let project = Project::seeded();
    // Usage, found by us.
    let run = project
        .xtask(&["db-migrate", "--to", "7", "--format", "json"])
        .exits(2);
    assert_eq!(
        shape_of(&run).replace("causes: []", "causes: [text]"),
        ERROR
    );
    assert_eq!(document(&run)["error"]["code"], 2);
    // Usage, found by clap.
    for arguments in [
        &["db-migrate", "--nonsense", "--format", "json"][..],
        &["db-status", "--format=json", "too", "many"],
        &["db-rollback", "--format", "json", "--steps", "1", "--all"],
        &["db-rollback", "--format", "json", "--steps", "one"],
    ] {
        let run = project.xtask(arguments).exits(2);
        assert_eq!(
            shape_of(&run).replace("causes: []", "causes: [text]"),
            ERROR,
            "{arguments:?}"
        );
    }
    // The server's.
    project.write("migrations/20260101000000_wrong.sql", "SELECT nowhere;\n");
    let run = project.xtask(&["db-migrate", "--format", "json"]).exits(1);
    assert_eq!(document(&run)["error"]["sqlstate"], "42703");
    assert_eq!(document(&run)["error"]["code"], 1);
    // No connection, no configuration.
    let run = project.xtask(&[
        "db-status",
        "--format",
        "json",
        "--database-url",
        "postgresql://admin@127.0.0.1:1/x",
    ]);
    assert_eq!(document(&run.exits(1))["error"]["code"], 1);
    let run = Run::of(&mut project.unconfigured(&["db-status", "--format", "json"])).exits(2);
    assert_eq!(shape_of(&run), ERROR);
}

#[test]
fn whoever_finds_the_lock_taken_is_busy_and_changes_nothing() {
    let project = Project::seeded();
    let mut other = project.client();
    // As sqlx makes it: 0x3d32ad9e times the CRC-32 of the database's name.
    let mut crc = 0xffff_ffff_u32;
    for byte in project.database.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let key = 0x3d32_ad9e_i64 * i64::from(!crc);
    other
        .execute("SELECT pg_advisory_lock($1)", &[&key])
        .expect("takes the lock");
    for arguments in [
        &["db-migrate", "--lock-deadline", "50ms", "--format", "json"][..],
        &[
            "db-rollback",
            "--to",
            "0",
            "--yes",
            "--lock-deadline",
            "50ms",
            "--format",
            "json",
        ],
    ] {
        let run = project
            .xtask(arguments)
            .exits(4)
            .says("another run holds the migration lock");
        assert_eq!(document(&run)["error"]["code"], 4);
    }
    project.xtask(&["db-status"]).succeeds();
    project.xtask(&["db-migrate", "--dry-run"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "1");
    other
        .execute("SELECT pg_advisory_unlock($1)", &[&key])
        .expect("gives it back");
    project.xtask(&["db-migrate"]).succeeds();
}

#[test]
fn one_signal_ends_a_connection_that_nobody_answers() {
    let project = Project::new();
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = silent.local_addr().expect("an address").port();
    let url = format!("postgresql://admin@127.0.0.1:{port}/x");
    let mut command = project.command(&["db-status", "--database-url", &url]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let _connection = silent.accept().expect("it calls");
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupted.expect("kill is there").success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("interrupted: stopped while connecting"),
        "{stderr}"
    );
}

/// A script that reads an empty file must not take it for the answer.
#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_is_full_is_an_error() {
    let project = Project::seeded();
    for arguments in [&["db-status", "--format", "json"][..], &["db-verify"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let out = project
            .command(arguments)
            .stdout(full.expect("a device of Linux"))
            .output()
            .expect("runs");
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("cannot write to stdout"));
    }
}

#[test]
fn stdout_holds_data_and_nothing_else() {
    let project = Project::seeded();
    for (arguments, first_word) in [
        (&["db-status"][..], "Version"),
        (&["db-verify"], "Version"),
        (&["db-doctor"], "Check"),
        (&["db-migrate", "--dry-run"], "Plan"),
        (&["db-backup"], "backups/users_backup_"),
        (&["db-backups"], "File"),
        (&["db-psql", "--", "-AtXc", "SELECT 6 * 7"], "42"),
    ] {
        let run = project.xtask(arguments).succeeds();
        assert!(
            run.stdout.trim_start().starts_with(first_word),
            "{arguments:?}: {}",
            run.stdout
        );
    }
    for arguments in [&["db-seed", "--users", "1"][..], &["db-baseline"]] {
        assert_eq!(
            project.xtask(arguments).succeeds().stdout,
            "",
            "{arguments:?}"
        );
    }
    assert_eq!(
        project
            .xtask(&["db-psql", "--", "-c", "SELECT nowhere"])
            .exits(1)
            .stdout,
        ""
    );
}

#[test]
fn quiet_leaves_data_warnings_and_errors() {
    let project = Project::seeded();
    let status = project.xtask(&["db-status", "-q"]).succeeds();
    assert!(status.stdout.contains("pending"));
    assert_eq!(status.stderr, "");
    let run = project.xtask(&["db-migrate", "--quiet"]).succeeds();
    assert_eq!(run.stderr, "");
    assert!(run.stdout.contains("Next steps:"));
    assert_eq!(
        project
            .xtask(&["db-rollback", "--quiet", "--yes"])
            .succeeds()
            .stderr,
        ""
    );
    project
        .xtask(&["db-status", "-q", "--check"])
        .exits(3)
        .says("error: ");
    project.xtask(&["db-status", "-q", "-v"]).exits(2);
}

#[test]
fn verbose_adds_each_check() {
    let project = Project::seeded();
    let run = project.xtask(&["db-migrate", "--verbose"]).succeeds();
    run.says("ok: column users.last_login_at exists");
}

#[test]
fn colour_comes_only_where_it_is_wanted() {
    let project = Project::new();
    let coloured = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = project.command(arguments);
        command.envs(variables.iter().copied());
        let run = Run::of(&mut command);
        run.stderr.contains("\x1b[")
    };
    assert!(!coloured(&["db-status"], &[]), "not into a pipe");
    assert!(coloured(&["db-status", "--color", "always"], &[]));
    assert!(coloured(&["db-status"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(
        &["db-status", "--color", "never"],
        &[("CLICOLOR_FORCE", "1")]
    ));
    assert!(!coloured(&["db-status"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&["db-nonsense"], &[]));
}

#[test]
fn a_password_on_the_command_line_is_never_repeated() {
    let project = Project::new();
    let url = "postgres://admin:s3cr3t@127.0.0.1:1/x";
    for arguments in [
        &["db-status", url][..],
        &["db-status", url, "--format", "json"],
        &[url],
        &["db-backup", url],
        &["db-baseline", url],
        &["db-migrate", "--to", url],
        &["db-status", "--database-url", url],
        &["db-status", "--databaseurl", url],
        &["db-status", "--database-url", url, "--database-url", url],
        &[
            "db-status",
            "--database-url",
            "postgres://admin:s3cr3t@127.0.0.1:port/x",
        ],
        &["db-status", "--database-url", "admin:s3cr3t@127.0.0.1/x"],
        &[
            "db-status",
            "--database-url",
            "host=127.0.0.1 port=1 password=s3cr3t nonsense",
        ],
    ] {
        let run = project.xtask(arguments);
        assert_ne!(run.status, 0, "{arguments:?}");
        assert!(
            !run.stdout.contains("s3cr3t"),
            "{arguments:?}: {}",
            run.stdout
        );
        assert!(
            !run.stderr.contains("s3cr3t"),
            "{arguments:?}: {}",
            run.stderr
        );
    }
}

/// Whoever knows a webhook's address may post to it.
#[test]
fn a_webhooks_address_is_never_repeated() {
    let project = Project::empty();
    let hook = "http://127.0.0.1:1/services/T0/s3cr3t";
    for (up, status) in [("SELECT nope;", 1), ("SELECT 1;", 0)] {
        project.write("migrations/1_a.up.sql", up);
        for format in ["human", "json"] {
            let arguments = ["db-migrate", "--notify", hook, "--format", format];
            let run = project.xtask(&arguments).exits(status);
            let all = format!("{}{}", run.stdout, run.stderr);
            assert!(!all.contains("s3cr3t"), "{all}");
        }
    }
}

#[test]
fn db_new_has_the_shape_that_scripts_read() {
    let project = Project::new();
    let arguments = ["db-new", "a", "--unique", "users(role)", "--format", "json"];
    let run = project.xtask(&arguments).succeeds();
    assert_eq!(
        shape_of(&run),
        "{dry_run: bool, migrations: [{files: [text], name: text, version: int}]}"
    );
    let run = project
        .xtask(&["db-new", "a/b", "--format", "json"])
        .exits(2);
    assert_eq!(shape_of(&run), ERROR);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let project = Project::new();
    let commands = commands();
    assert!(commands.len() >= 15, "{commands:?}");
    for command in commands {
        for flag in ["--help", "-h"] {
            let help = Run::of(&mut project.unconfigured(&[&command, flag])).succeeds();
            assert!(help.stdout.contains("Example"), "{command} {flag}");
            assert!(
                help.stdout.contains(&format!("cargo xtask {command}")),
                "{command} {flag}"
            );
            assert_eq!(help.stderr, "");
        }
    }
}
