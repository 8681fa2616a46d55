//! The program itself: where it gets its settings from, how it starts, how it stops.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{ADMIN, Fixture, PASSWORD};
use crate::http;

/// The running program; it ends with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// On a database, at an address of its own choice.
    pub(crate) fn start(url: &str) -> Process {
        let mut command = command();
        command.env("DATABASE_URL", url);
        Process::spawn(&mut command, "127.0.0.1:0")
    }

    pub(crate) fn spawn(command: &mut Command, address: &str) -> Process {
        let mut child = command
            .env("APP_ADDRESS", address)
            .env("APP_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("Listening on http://")
            .unwrap_or_else(|| panic!("it printed {line:?}"));
        Process {
            address: address.parse().unwrap(),
            child,
        }
    }

    pub(crate) fn signal_to_stop(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Whether it ended well.
    pub(crate) fn wait(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with nothing of our environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
    command
        .env_clear()
        .env("SESSION_KEY", "5e".repeat(32))
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Cargo.lock"), "").unwrap();
    folder
}

#[test]
fn without_a_database_it_says_what_to_run() {
    let folder = workspace();
    let (code, stderr) = output(command().current_dir(folder.path()));
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with("error: no database is configured"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: `cargo xtask db-setup`"), "{stderr}");
}

/// Beside them somebody rewrites the file as `cargo xtask` does: with the folder locked.
#[test]
fn instances_that_start_at_once_keep_one_key_and_nobodys_line_is_lost() {
    let folder = workspace();
    let dot_env = folder.path().join(".env");
    for round in 0..5 {
        std::fs::write(&dot_env, "OTHER=0\n").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut command = command();
                    command.current_dir(folder.path()).env_remove("SESSION_KEY");
                    let url = "postgresql://127.0.0.1:1/x";
                    drop(Process::spawn(
                        command.env("DATABASE_URL", url),
                        "127.0.0.1:0",
                    ));
                });
            }
            for number in 1..=200 {
                let lock = std::fs::File::open(folder.path()).unwrap();
                lock.lock().unwrap();
                let before = std::fs::read_to_string(&dot_env).unwrap();
                let kept = before.lines().filter(|line| !line.starts_with("OTHER="));
                let mut text: String = kept.map(|line| format!("{line}\n")).collect();
                text.push_str(&format!("OTHER={number}\n"));
                let new = folder.path().join("new");
                std::fs::write(&new, text).unwrap();
                std::fs::rename(&new, &dot_env).unwrap();
            }
        });
        let text = std::fs::read_to_string(&dot_env).unwrap();
        let keys = text.lines().filter(|line| line.starts_with("SESSION_KEY="));
        assert_eq!(keys.count(), 1, "round {round}: {text}");
        assert!(text.contains("OTHER=200\n"), "{text}");
    }
}

#[test]
fn an_address_that_is_set_and_empty_is_an_error_and_no_other_is_taken() {
    let folder = workspace();
    let dot_env = folder.path().join(".env");
    std::fs::write(&dot_env, "DATABASE_URL=postgresql://127.0.0.1:1/x\n").unwrap();
    let refused = |command: &mut Command| {
        let (code, stderr) = output(command.current_dir(folder.path()));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.starts_with("error: DATABASE_URL is set, and empty"),
            "{stderr}"
        );
        assert!(stderr.contains("hint: "), "{stderr}");
    };
    for empty in ["", " "] {
        refused(command().env("DATABASE_URL", empty));
        refused(command().args(["--database-url", empty]));
        let flag = format!("--database-url={empty}");
        refused(command().arg(flag).env("DATABASE_URL", "host=x"));
        std::fs::write(&dot_env, format!("DATABASE_URL={empty}\n")).unwrap();
        refused(&mut command());
        std::fs::write(&dot_env, "DATABASE_URL=postgresql://127.0.0.1:1/x\n").unwrap();
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_and_not_repeated() {
    let folder = workspace();
    let table = [
        ("DATABASE_URL", "postgresql://me:secret@host:port/db"),
        (
            "DATABASE_URL",
            "postgresql://me:secret@host/db?sslmode=perhaps",
        ),
        ("SESSION_KEY", "secret"),
        ("APP_ADDRESS", "nowhere"),
    ];
    for (name, value) in table {
        let mut command = command();
        command
            .current_dir(folder.path())
            .env("DATABASE_URL", "postgresql://127.0.0.1:1/x")
            .env(name, value);
        let (code, stderr) = output(&mut command);
        assert!(matches!(code, Some(1 | 2)), "{name}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
    }
    std::fs::write(folder.path().join(".env"), "what secret is this").unwrap();
    let (_, stderr) = output(command().current_dir(folder.path()));
    assert!(
        stderr.contains("is not KEY=value") && !stderr.contains("secret"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_key_is_made_once_and_kept_for_the_owner_alone() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let folder = workspace();
    let dot_env = folder.path().join(".env");
    std::fs::write(&dot_env, format!("DATABASE_URL={}", app.url())).unwrap();
    let start = |folder: &Path| {
        let mut command = command();
        command.current_dir(folder).env_remove("SESSION_KEY");
        Process::spawn(&mut command, "127.0.0.1:0")
    };
    let login = format!(r#"{{"email": "{ADMIN}", "password": "{PASSWORD}"}}"#);
    let process = start(folder.path());
    let mut connection = http::Connection::open(process.address).unwrap();
    let answer = connection.post_json("/login", &login).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (_, cookie) = answer.head.split_once("set-cookie: ").unwrap();
    let (cookie, _) = cookie.split_once(';').unwrap();
    let cookie = format!("Cookie: {cookie}\r\n");
    drop(connection);

    let text = std::fs::read_to_string(&dot_env).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    let mode = std::fs::metadata(&dot_env).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    process.signal_to_stop();
    assert!(process.wait());

    // Who has signed in stays signed in over a restart.
    let process = start(folder.path());
    let mut connection = http::Connection::open(process.address).unwrap();
    let answer = connection.send("GET", "/dashboard", &cookie, "").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(std::fs::read_to_string(&dot_env).unwrap(), text);
}

#[tokio::test]
async fn a_stop_lets_requests_finish() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let process = Process::start(&app.url());

    // A login that stands still for a second, because somebody has locked the table.
    app.sql("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        .await;
    let address = process.address;
    let login = std::thread::spawn(move || {
        let body = format!(r#"{{"email": "{ADMIN}", "password": "{PASSWORD}"}}"#);
        let mut connection = http::Connection::open(address).unwrap();
        connection.post_json("/login", &body).unwrap().status
    });
    // And one that keeps its connection for later.
    let mut idle = http::Connection::open(address).unwrap();
    assert_eq!(idle.get("/healthz").unwrap().status, 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.signal_to_stop();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        TcpStream::connect(address).is_err(),
        "it still accepts connections"
    );
    app.sql("ROLLBACK").await;
    assert_eq!(login.join().unwrap(), 200);
    let started = Instant::now();
    assert!(process.wait());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "it waits for an idle connection"
    );
}

#[tokio::test]
async fn the_log_has_one_line_a_request_and_nobodys_secrets() {
    let app = Fixture::new().await;
    app.add_user(ADMIN, "admin").await;
    let mut command = command();
    command
        .env("DATABASE_URL", app.url())
        .args(["--address", "127.0.0.1:0", "--log", "info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("Listening on http://")
        .unwrap()
        .parse()
        .unwrap();
    let mut connection = http::Connection::open(address).unwrap();
    for password in ["wrong secret", PASSWORD] {
        let body = format!(r#"{{"email": "{ADMIN}", "password": "{password}"}}"#);
        connection.post_json("/login", &body).unwrap();
    }
    connection
        .get("/dashboard?email=somebody%40example.com")
        .unwrap();
    drop(connection);
    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(child.wait().unwrap().success());

    assert_eq!(stderr.matches("request method=").count(), 3, "{stderr}");
    assert_eq!(
        stderr.matches("path=\"/login\" status=401").count(),
        1,
        "{stderr}"
    );
    for secret in [ADMIN, "somebody", "secret", PASSWORD] {
        assert!(!stderr.contains(secret), "{secret} in {stderr}");
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_not_waited_for_when_it_stops() {
    let app = Fixture::new().await;
    let process = Process::start(&app.url());
    let mut silent = TcpStream::connect(process.address).unwrap();
    silent.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    process.signal_to_stop();
    assert!(process.wait());
    assert!(started.elapsed() < Duration::from_secs(20));
}
