//! No login fails while `cargo xtask db-migrate` and `db-rollback` go back and forth, or while the
//! application is restarted in the midst of that.
//!
//! Three rounds; `ROUNDS=20` for the long version, in which the readers that stand in the way stay for
//! 20 seconds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{Fixture, Migrated, PASSWORD, cheap_hash, connect, environment, migrations};
use crate::http;
use crate::process::{self, Process};

const CLIENTS: usize = 3;
const USERS: usize = 5_000;
/// How long a login may take beyond its password, which costs next to nothing here, and beyond what a
/// request takes that has nothing to do with `users`: the machine may be busy with other things.
const LIMIT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn no_login_fails_during_migrations_and_rollbacks() {
    let rounds = rounds();
    let arena = Arena::new().await;
    let app = Process::start(&arena.app.url());
    let traffic = Traffic::start(app.address);
    for round in 1..=rounds {
        // Somebody reads the table all the while: the column has to wait, logins have not.
        let reader = (round % 5 == 2).then(|| {
            let seconds = if rounds < 20 { 2 } else { 20 };
            tokio::spawn(read_slowly(arena.app.database.clone(), seconds))
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        arena.xtask(&["db-migrate"]);
        arena.everybody_is_stamped(&traffic).await;
        if let Some(reader) = reader {
            reader.await.unwrap();
        }
        arena.xtask(&["db-rollback", "--yes"]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let summary = traffic.stop();
    summary.check(rounds);
    assert_eq!(summary.reconnected, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_fails_when_the_application_is_restarted_as_well() {
    let rounds = rounds();
    let arena = Arena::new().await;
    let mut app = Process::start(&arena.app.url());
    let address = app.address;
    let traffic = Traffic::start(address);
    traffic.restarting.store(true, Ordering::Relaxed);
    for _ in 0..rounds {
        let migration = arena.start(&["db-migrate"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.signal_to_stop();
        assert!(app.wait(), "it stops in good order");
        let mut command = process::command();
        command.env("DATABASE_URL", arena.app.url());
        app = Process::spawn(&mut command, &address.to_string());
        succeeds(migration.wait_with_output().unwrap());
        arena.everybody_is_stamped(&traffic).await;
        arena.xtask(&["db-rollback", "--yes"]);
    }
    traffic.stop().check(rounds);
}

fn rounds() -> u32 {
    environment("ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

/// Holds a lock on `users` that every reader holds.
async fn read_slowly(database: String, seconds: u64) {
    let client = connect(&database).await;
    let read = "BEGIN; SELECT count(*) FROM users";
    client.batch_execute(read).await.unwrap();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    client.batch_execute("ROLLBACK").await.unwrap();
}

/// A database at its baseline, made by `cargo xtask`, and a workspace from which it is migrated.
struct Arena {
    app: Fixture,
    folder: tempfile::TempDir,
}

impl Arena {
    async fn new() -> Arena {
        let app = Fixture::migrated(Migrated::Nothing).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.lock"), "").unwrap();
        let arena = Arena { app, folder };
        arena.xtask(&["db-migrate", "--to", "20251201000000"]);
        arena
            .app
            .sql(&format!(
                "INSERT INTO users (email, password_hash, display_name)
                 SELECT 'user' || n || '@example.com', '{}', 'User' FROM generate_series(0, {USERS} - 1) AS n",
                cheap_hash()
            ))
            .await;
        arena
    }

    fn start(&self, arguments: &[&str]) -> std::process::Child {
        Command::new(xtask())
            .args(arguments)
            .arg("--migrations")
            .arg(migrations())
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", environment("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("DATABASE_URL", self.app.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn xtask(&self, arguments: &[&str]) {
        succeeds(self.start(arguments).wait_with_output().unwrap());
    }

    /// Every login that ended since now, half a second later.
    async fn everybody_is_stamped(&self, traffic: &Traffic) {
        let since = Instant::now();
        tokio::time::sleep(LIMIT).await;
        let emails: Vec<String> = {
            let logins = traffic.logins.lock().unwrap();
            let recent = logins.iter().filter(|login| login.ended > since);
            recent.map(|login| email(login.user)).collect()
        };
        assert!(emails.len() >= CLIENTS, "there was no traffic");
        let missing = self
            .app
            .client
            .query(
                "SELECT email FROM users WHERE email = ANY ($1) AND last_login_at IS NULL",
                &[&emails],
            )
            .await
            .unwrap();
        assert_eq!(
            missing.len(),
            0,
            "of {} logins after the migration",
            emails.len()
        );
    }
}

fn succeeds(output: std::process::Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

/// The other half of the workspace, built if need be: cargo hands a package's tests only its own.
fn xtask() -> &'static Path {
    static XTASK: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    XTASK.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_app")).parent().unwrap();
        let program = built.join("xtask");
        // Cargo itself would look closer, and build much again: alone `xtask` has other features.
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sources = [
            "Cargo.lock",
            "xtask/src",
            "xtask/Cargo.toml",
            "crates/pg-connect/src",
            "crates/private-server/src",
        ];
        let changed = sources
            .iter()
            .map(|path| modified(&workspace.join(path)))
            .max();
        if program.exists() && Some(modified(&program)) > changed {
            return program;
        }
        let target = built.parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "xtask", "--target-dir"]);
        cargo.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if built.ends_with("release") {
            cargo.arg("--release");
        }
        succeeds(cargo.output().unwrap());
        program
    })
}

/// When a file, or the newest in a folder, was changed.
fn modified(path: &Path) -> SystemTime {
    let metadata = std::fs::metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.modified().unwrap();
    }
    let entries = std::fs::read_dir(path).unwrap();
    let times = entries.map(|entry| modified(&entry.unwrap().path()));
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn email(user: usize) -> String {
    format!("user{user}@example.com")
}

/// People who sign in without pause.
struct Traffic {
    clients: Vec<JoinHandle<u32>>,
    /// Somebody who asks without pause for what no migration can delay; how long that took at most.
    control: JoinHandle<Duration>,
    logins: Arc<Mutex<Vec<Login>>>,
    /// Whether a connection may break: the application is being restarted.
    restarting: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
struct Login {
    user: usize,
    ended: Instant,
    took: Duration,
    status: u16,
}

struct Summary {
    slowest_control: Duration,
    logins: Vec<Login>,
    reconnected: u32,
}

impl Traffic {
    fn start(address: SocketAddr) -> Traffic {
        let logins = Arc::<Mutex<Vec<Login>>>::default();
        let restarting = Arc::<AtomicBool>::default();
        let done = Arc::<AtomicBool>::default();
        let client = |number: usize| {
            let (logins, restarting, done) = (logins.clone(), restarting.clone(), done.clone());
            std::thread::spawn(move || {
                let mut connection = None;
                let mut reconnected = 0;
                let mut user = number;
                while !done.load(Ordering::Relaxed) {
                    let body = format!(
                        r#"{{"email": "{}", "password": "{PASSWORD}"}}"#,
                        email(user)
                    );
                    let started = Instant::now();
                    let answer = match connection.take() {
                        Some(connection) => Ok(connection),
                        None => http::Connection::open(address),
                    }
                    .and_then(|mut open| {
                        let answer = open.post_json("/login", &body)?;
                        if !answer.head.to_lowercase().contains("connection: close") {
                            connection = Some(open);
                        }
                        Ok(answer)
                    });
                    match answer {
                        Ok(answer) => {
                            let ended = Instant::now();
                            logins.lock().unwrap().push(Login {
                                user,
                                ended,
                                took: ended - started,
                                status: answer.status,
                            });
                            user = (user + CLIENTS) % USERS;
                        }
                        // Nobody listens just now, or a connection was closed before its next request.
                        Err(_) if restarting.load(Ordering::Relaxed) => {
                            reconnected += 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        Err(error) => panic!("a login broke off: {error}"),
                    }
                }
                reconnected
            })
        };
        let control = {
            let done = done.clone();
            move || {
                let mut slowest = Duration::ZERO;
                while !done.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let answer =
                        http::Connection::open(address).and_then(|mut open| open.get("/readyz"));
                    if answer.is_ok() {
                        slowest = slowest.max(started.elapsed());
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                slowest
            }
        };
        Traffic {
            control: std::thread::spawn(control),
            clients: (0..CLIENTS).map(client).collect(),
            logins,
            restarting,
            done,
        }
    }

    fn stop(self) -> Summary {
        self.done.store(true, Ordering::Relaxed);
        let reconnected = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap());
        Summary {
            slowest_control: self.control.join().unwrap(),
            reconnected: reconnected.sum(),
            logins: self.logins.lock().unwrap().clone(),
        }
    }
}

impl Summary {
    fn check(&self, rounds: u32) {
        let mut times: Vec<Duration> = self.logins.iter().map(|login| login.took).collect();
        times.sort();
        let slowest = *times.last().unwrap();
        println!(
            "{} logins in {rounds} rounds; in ms: median {}, 99.9 % {}, slowest {}; \
             slowest of what has nothing to do with the table: {}",
            times.len(),
            times[times.len() / 2].as_millis(),
            times[times.len() * 999 / 1000].as_millis(),
            slowest.as_millis(),
            self.slowest_control.as_millis()
        );
        let failed = self
            .logins
            .iter()
            .filter(|login| login.status != 200)
            .count();
        assert_eq!(failed, 0, "of {} logins", self.logins.len());
        assert!(slowest < LIMIT + self.slowest_control, "{slowest:?}");
    }
}
