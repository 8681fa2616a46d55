//! One throwaway server for all tests of this binary; for each test a workspace of its own and a
//! database of its own.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use private_server::{Installation, ThrowawayServer, installation};
use tempfile::TempDir;

/// The program.
pub(crate) const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// The server, started by the first test that needs it; it goes away with the process.
pub(crate) fn server() -> &'static ThrowawayServer {
    static SERVER: OnceLock<ThrowawayServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = [
            ("max_connections", "200"),
            ("max_prepared_transactions", "5"),
        ];
        start_server(&settings)
    })
}

/// A server of a test's own: to stop it, or with other settings.
pub(crate) fn own_server(settings: &[(&str, &str)]) -> &'static ThrowawayServer {
    // Its watchdog sees to it when this process ends.
    Box::leak(Box::new(start_server(settings)))
}

/// As [`own_server`], for as long as the caller keeps it.
pub(crate) fn start_server(settings: &[(&str, &str)]) -> ThrowawayServer {
    ThrowawayServer::start(&installation(), settings).expect("a throwaway server starts")
}

/// The PostgreSQL that the tests use.
pub(crate) fn installation() -> Installation {
    let only_in = setting("PG_BIN_DIR");
    installation::newest_server(Some(&path_variable()), only_in.as_deref().map(Path::new))
        .expect("PostgreSQL is installed")
}

#[expect(clippy::disallowed_methods, reason = "handed on to the program")]
pub(crate) fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Whether the server is of this major version or a newer one; a test of what older ones do not know ends
/// where it is not.
pub(crate) fn since(major: u32) -> bool {
    let version = installation().version_of("postgres");
    version.expect("it says its version").major >= major
}

/// Where this machine's programs are: all that the program gets of the tests' environment.
pub(crate) fn programs() -> Vec<(&'static str, OsString)> {
    let only_in = setting("PG_BIN_DIR").map(|folder| ("PG_BIN_DIR", folder.into()));
    only_in
        .into_iter()
        .chain([("PATH", path_variable())])
        .collect()
}

/// A workspace with migrations, and the address of a database.
pub(crate) struct Project {
    folder: TempDir,
    pub(crate) database: String,
    pub(crate) url: String,
    server: &'static ThrowawayServer,
}

/// A copy of a template, to which nobody may be connected.
fn create_database(server: &ThrowawayServer, name: &str, template: &str) {
    Client::connect(&server.url("postgres"), NoTls)
        .expect("connects")
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
        .expect("creates a database");
}

/// What a command came to.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Project {
    /// An empty database and the migrations that the project ships.
    pub(crate) fn new() -> Project {
        Project::new_on(server())
    }

    fn new_on(server: &'static ThrowawayServer) -> Project {
        let project = Project::empty_on(server);
        project.copy_migrations();
        project
    }

    /// An empty database and an empty migrations folder.
    pub(crate) fn empty() -> Project {
        Project::empty_on(server())
    }

    fn empty_on(server: &'static ThrowawayServer) -> Project {
        Project::of_template(server, "template1")
    }

    fn of_template(server: &'static ThrowawayServer, template: &str) -> Project {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let database = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        create_database(server, &database, template);
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("Cargo.lock"), "").expect("writes");
        std::fs::create_dir(folder.path().join("migrations")).expect("makes a folder");
        Project {
            url: server.url(&database),
            folder,
            database,
            server,
        }
    }

    fn copy_migrations(&self) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        copy(&shipped, &self.path("migrations"));
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        std::fs::copy(settings, self.path("Cargo.toml")).expect("copies the settings");
    }

    /// A database with the baseline applied and 1,200 seeded users, its other migrations pending.
    pub(crate) fn seeded() -> Project {
        // The commands make the first one; all others are copies of its database and its `.env`.
        static DOT_ENV: OnceLock<String> = OnceLock::new();
        let dot_env = DOT_ENV.get_or_init(|| {
            let first = Project::seeded_on(server());
            create_database(server(), "seeded", &first.database);
            std::fs::read_to_string(first.path(".env")).expect("the users' password is in it")
        });
        let project = Project::of_template(server(), "seeded");
        project.copy_migrations();
        project.write(".env", dot_env);
        chmod(0o600, project.path(".env"));
        project
    }

    /// As [`Project::seeded`], on another server.
    pub(crate) fn seeded_on(server: &'static ThrowawayServer) -> Project {
        let project = Project::new_on(server);
        project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
        project.xtask(&["db-seed"]).succeeds();
        project
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file of the workspace.
    pub(crate) fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        let path = self.path(relative);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("makes a folder");
        }
        std::fs::write(path, text).expect("writes a file");
    }

    /// The program on this workspace, with nothing of our environment and with this database.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.unconfigured(arguments);
        command.env("DATABASE_URL", &self.url);
        command
    }

    /// As [`Project::command`], with no database configured.
    pub(crate) fn unconfigured(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(XTASK);
        command.args(arguments);
        command
    }

    /// Any program in this workspace, with nothing of our environment.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .envs(programs())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// As [`Project::command`], started by a script of `sh`, to which it is `"$@"`.
    pub(crate) fn in_shell(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = self.program("/bin/sh");
        command
            .args(["-c", script, "sh", XTASK])
            .args(arguments)
            .env("DATABASE_URL", &self.url);
        command
    }

    /// As [`Project::xtask`], with no database configured but in `.env`.
    pub(crate) fn unconfigured_run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.unconfigured(arguments))
    }

    /// Runs a command to its end.
    pub(crate) fn xtask(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Starts a command and lets it run.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::of(&mut self.command(arguments))
    }

    /// A connection to the database as its superuser.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.server.url(&self.database), NoTls).expect("connects")
    }

    /// Makes things as a test needs them.
    pub(crate) fn sql(&self, sql: &str) {
        self.client().batch_execute(sql).expect("the SQL runs");
    }

    /// A query's single value, as text.
    pub(crate) fn value(&self, sql: &str) -> String {
        let row = self
            .client()
            .query_one(&format!("SELECT ({sql})::text"), &[])
            .expect("the query runs");
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// What a run is to leave behind, whatever happened under way: the schema, the history, the
    /// state of its indexes, and every row of `users`.
    pub(crate) fn state(&self) -> String {
        let history = self.value(
            "SELECT string_agg(version || ' ' || success || ' ' || encode(checksum, 'hex'), E'\\n' ORDER BY version)
             FROM _sqlx_migrations",
        );
        let indexes = self.value(
            "SELECT string_agg(indexrelid::regclass || ' ' || indisvalid || ' ' || indisready, E'\\n'
                               ORDER BY indexrelid::regclass::text)
             FROM pg_index WHERE indrelid = 'users'::regclass",
        );
        let rows =
            self.value("SELECT md5(string_agg(u::text, E'\\n' ORDER BY id)) FROM users AS u");
        let schema = dump(&self.url, &["--schema-only"]);
        format!("{history}\n{indexes}\n{rows}\n{schema}")
    }

    /// Server processes of the program on this database.
    pub(crate) fn backends(&self) -> i64 {
        self.client()
            .query_one(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'xtask %'",
                &[],
            )
            .expect("the query runs")
            .get(0)
    }

    /// What of the output differs from run to run, replaced.
    pub(crate) fn normalise(&self, text: &str) -> String {
        let mut text = text.replace(&self.folder.path().display().to_string(), "[WORKSPACE]");
        text = text.replace(&server().port().to_string(), "[PORT]");
        text = text.replace(&self.database, "[DATABASE]");
        normalise_patterns(&text)
    }

    /// The three streams of a run as one text, for a snapshot.
    pub(crate) fn snapshot(&self, run: &Run) -> String {
        format!(
            "status: {}\n--- stdout\n{}--- stderr\n{}",
            run.status,
            self.normalise(&run.stdout),
            self.normalise(&run.stderr)
        )
    }
}

/// A command that runs; what it prints is read as it comes.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: JoinHandle<String>,
    stderr: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Running {
    pub(crate) fn of(command: &mut Command) -> Running {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut out = child.stdout.take().expect("stdout");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&stderr);
        Running {
            child,
            stdout: std::thread::spawn(move || {
                let mut text = String::new();
                out.read_to_string(&mut text).expect("UTF-8 on stdout");
                text
            }),
            stderr,
            reader: std::thread::spawn(move || {
                let mut line = String::new();
                while lines.read_line(&mut line).expect("UTF-8 on stderr") > 0 {
                    text.lock().expect("no panic").push_str(&line);
                    line.clear();
                }
            }),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.lock().expect("no panic").clone()
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) {
        let patience = Instant::now();
        while !self.said().contains(text) {
            let ended = self.child.try_wait().expect("can be asked").is_some();
            let late = patience.elapsed() > PATIENCE;
            assert!(
                !(ended || late) || self.said().contains(text),
                "expected {text:?} in\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal, as `kill` names them.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Run {
        let patience = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("can be waited for") {
                break status;
            }
            if patience.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("does not end; it said\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.reader.join().expect("reads stderr");
        Run {
            status: status.code().unwrap_or(-1),
            stdout: self.stdout.join().expect("reads stdout"),
            stderr: self.stderr.lock().expect("no panic").clone(),
        }
    }
}

/// Longer than anything here takes; a test that hangs must say so itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let patience = Instant::now();
    while !so() {
        assert!(patience.elapsed() < PATIENCE, "never so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that a process has started.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid="])
        .output()
        .expect("ps starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse::<u32>().ok());
            let (child, parent) = (words.next()??, words.next()??);
            (parent == pid).then_some(child)
        })
        .collect()
}

/// A session that calls itself `blocker` and has run this, and its process id.
pub(crate) fn blocker(project: &Project, sql: &str) -> (Client, i32) {
    blocker_at(&project.url, sql)
}

/// As [`blocker`], with another role or through another port.
pub(crate) fn blocker_at(url: &str, sql: &str) -> (Client, i32) {
    let url = format!("{url}?application_name=blocker");
    let mut client = Client::connect(&url, NoTls).expect("connects");
    let pid = client
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("the query runs")
        .get(0);
    client.batch_execute(sql).expect("the SQL runs");
    (client, pid)
}

/// Holds `users` as a request does that reads and then thinks.
pub(crate) const READER: &str = "BEGIN; SELECT count(*) FROM users WHERE id < 10";
/// Holds `users` as a transaction does that somebody forgot.
pub(crate) const WRITER: &str =
    "BEGIN; UPDATE users SET display_name = display_name WHERE id = 1001";
/// An old snapshot on another table, which a concurrent build waits for at its end.
pub(crate) const SNAPSHOT: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_am";

/// How many sessions are in a `pg_sleep`.
pub(crate) const ASLEEP: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

/// The version that adds the column to `users`; the baseline before it, the index after it.
pub(crate) const BASELINE: &str = "20251201000000";
pub(crate) const COLUMN: &str = "20251231143000";

/// Sends a signal to a process, as `kill` names them.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .stderr(Stdio::null())
        .status();
    // It may have ended by itself just now.
    let _ = status.expect("kill starts");
}

/// A setting of the tests themselves.
#[expect(clippy::disallowed_methods, reason = "a setting of the tests alone")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether tests run in their long form, with the figures that the README promises: `XTASK_LONG=1`.
pub(crate) fn long() -> bool {
    setting("XTASK_LONG").is_some_and(|value| value == "1")
}

/// Logins: sessions that read and write one user after the other, each statement timed. Beside them
/// a session that touches no user shows how long this machine, just now, needs for nothing at all.
pub(crate) struct Logins {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(Duration, u64)>>,
    control: JoinHandle<(Duration, u64)>,
}

impl Logins {
    pub(crate) fn start(project: &Project, sessions: usize, pause: Duration) -> Logins {
        let stop = Arc::new(AtomicBool::new(false));
        let session = |number: usize, statements: &'static [&'static str]| {
            let (stop, mut client) = (Arc::clone(&stop), project.client());
            std::thread::spawn(move || {
                let (mut worst, mut count) = (Duration::ZERO, 0);
                let mut id = 1 + number as i64;
                while !stop.load(Ordering::Relaxed) {
                    id = id % 1_000 + 1;
                    for sql in statements {
                        let at = Instant::now();
                        // Unprepared, so that no plan goes stale under an ALTER.
                        let parameters: &[(&(dyn postgres::types::ToSql + Sync), _)] =
                            &[(&id, postgres::types::Type::INT8)];
                        client.query_typed(sql, parameters).expect("a login works");
                        worst = worst.max(at.elapsed());
                        count += 1;
                    }
                    std::thread::sleep(pause);
                }
                (worst, count)
            })
        };
        Logins {
            threads: (0..sessions)
                .map(|number| {
                    session(
                        number,
                        &[
                            "SELECT id, email, password_hash FROM users WHERE id = $1",
                            "UPDATE users SET display_name = display_name WHERE id = $1",
                        ],
                    )
                })
                .collect(),
            control: session(0, &["SELECT relname FROM pg_class WHERE oid = $1::int8"]),
            stop,
        }
    }

    pub(crate) fn stop(self) -> Stalls {
        self.stop.store(true, Ordering::Relaxed);
        let (noise, _) = self.control.join().expect("goes on");
        let mut stalls = Stalls {
            worst: Duration::ZERO,
            noise,
            statements: 0,
        };
        for thread in self.threads {
            let (worst, statements) = thread.join().expect("logins go on");
            stalls.worst = stalls.worst.max(worst);
            stalls.statements += statements;
        }
        stalls
    }
}

/// How logins fared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stalls {
    /// The longest that a single statement took.
    pub(crate) worst: Duration,
    /// The longest that one took which waits for nobody.
    pub(crate) noise: Duration,
    pub(crate) statements: u64,
}

impl Project {
    /// Takes the database away; its address stays configured.
    pub(crate) fn drop_database(&self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        if let Ok(mut client) = Client::connect(&self.server.url("postgres"), NoTls) {
            let _ = client.batch_execute(&drop);
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.drop_database();
    }
}

impl Run {
    /// Runs to the end.
    pub(crate) fn of(command: &mut Command) -> Run {
        let output = command.output().expect("the program starts");
        Run {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// Exit 0, or everything that was printed.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Run {
        self.exits(0)
    }

    #[track_caller]
    pub(crate) fn exits(self, status: i32) -> Run {
        assert_eq!(
            self.status, status,
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        );
        self.never_panics()
    }

    #[track_caller]
    fn never_panics(self) -> Run {
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        let password = server().password();
        assert!(!self.stderr.contains(password), "a password on stderr");
        assert!(!self.stdout.contains(password), "a password on stdout");
        self
    }

    /// stderr has this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Run {
        assert!(
            self.stderr.contains(text),
            "expected {text:?} in\n{}",
            self.stderr
        );
        self
    }

    /// stdout has this.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Run {
        assert!(
            self.stdout.contains(text),
            "expected {text:?} in\n{}",
            self.stdout
        );
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("one JSON document on stdout")
    }
}

/// One of PostgreSQL's own programs.
pub(crate) fn tool(name: &str) -> Command {
    Command::new(installation().program(name))
}

/// The database as SQL, as `pg_dump` writes it with these arguments.
pub(crate) fn dump(url: &str, arguments: &[&str]) -> String {
    let run = Run::of(tool("pg_dump").args(arguments).arg(url).env_clear()).succeeds();
    // These two lines hold a new random word each time.
    let lines = run
        .stdout
        .lines()
        .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every command, as `--help` lists them.
pub(crate) fn commands() -> Vec<String> {
    let help = Run::of(Command::new(XTASK).arg("--help")).succeeds();
    let (_, list) = help.stdout.split_once("Commands:\n").expect("a list");
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A connection as the server's superuser.
pub(crate) fn admin(database: &str) -> Client {
    Client::connect(&server().url(database), NoTls).expect("connects")
}

/// A connection as somebody else.
pub(crate) fn url_as(user: &str, password: &str, database: &str) -> String {
    format!(
        "postgresql://{user}:{password}@127.0.0.1:{}/{database}",
        server().port()
    )
}

/// Sets the mode of a file or folder.
pub(crate) fn chmod(mode: u32, path: impl AsRef<Path>) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// A folder with all in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes a folder");
    for entry in std::fs::read_dir(from).expect("reads a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copies a file");
        }
    }
}

/// Times, durations, sizes and versions.
fn normalise_patterns(text: &str) -> String {
    static PATTERNS: OnceLock<Vec<(regex::Regex, &str)>> = OnceLock::new();
    let patterns = PATTERNS.get_or_init(|| {
        [
            (r"\d+(\.\d+)? (ms|s)\b", "[TIME]"),
            (r"\d+ min \d+ s\b", "[TIME]"),
            (r"\d+(\.\d+)? (B|kB|MB|GB|TB)\b", "[SIZE]"),
            (r"_backup_\d{8}_\d{6}", "_backup_[STAMP]"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "[INSTANT]"),
            (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[INSTANT]"),
            (r"from \d{4}-\d\d-\d\d", "from [DAY]"),
            (r"PostgreSQL \d+(\.\d+)?", "PostgreSQL [VERSION]"),
            (r"pid \d+", "pid [PID]"),
            // Columns of tables are as wide as their widest cell.
            (r"─{2,}", "──"),
            (r" {2,}", "  "),
        ]
        .into_iter()
        .map(|(pattern, with)| (regex::Regex::new(pattern).expect("a pattern"), with))
        .collect()
    });
    let mut text = text.to_owned();
    for (pattern, with) in patterns {
        text = pattern.replace_all(&text, *with).into_owned();
    }
    text
}
