//! One throwaway server for all tests of this binary; for each test a workspace of its own and a
//! database of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};
use private_server::{ThrowawayServer, installation};
use tempfile::TempDir;

/// The server, started by the first test that needs it; it goes away with the process.
pub(crate) fn server() -> &'static ThrowawayServer {
    static SERVER: OnceLock<ThrowawayServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let path = path_variable();
        let installation =
            installation::newest_server(Some(&path)).expect("PostgreSQL is installed");
        let settings = [("max_connections", "200")];
        ThrowawayServer::start(&installation, &settings).expect("a throwaway server starts")
    })
}

/// Where this machine's programs are: all that the tests take from their environment.
#[expect(clippy::disallowed_methods, reason = "handed on to the program")]
pub(crate) fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// A workspace with migrations, and the address of a database.
pub(crate) struct Project {
    folder: TempDir,
    pub(crate) database: String,
    pub(crate) url: String,
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
        let project = Project::empty();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        copy(&shipped, &project.path("migrations"));
        project
    }

    /// An empty database and an empty migrations folder.
    pub(crate) fn empty() -> Project {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let database = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        admin("postgres")
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .expect("creates a database");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("Cargo.lock"), "").expect("writes");
        std::fs::create_dir(folder.path().join("migrations")).expect("makes a folder");
        Project {
            url: server().url(&database),
            folder,
            database,
        }
    }

    /// A database with the baseline applied and 1,200 seeded users, its other migrations pending.
    pub(crate) fn seeded() -> Project {
        let project = Project::new();
        project
            .xtask(&["db-migrate", "--to", "20251201000000"])
            .succeeds();
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path_variable())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
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

    /// A connection to the database as its superuser.
    pub(crate) fn client(&self) -> Client {
        admin(&self.database)
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

impl Project {
    /// Takes the database away; its address stays configured.
    pub(crate) fn drop_database(&self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let _ = admin("postgres").batch_execute(&drop);
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

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("one JSON document on stdout")
    }
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
