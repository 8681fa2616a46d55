//! `db-setup` from nothing: a workspace with nothing configured, and a private server of its own.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postgres::{Client, NoTls};
use tempfile::TempDir;

use crate::common::{BASELINE, Project, Run, XTASK, chmod, copy, programs, signal, until};

/// A workspace with the shipped migrations, in which nothing is configured. Dropping it, also in a
/// panic, destroys its private server.
struct Workspace {
    /// Holds the workspace and a copy of the program that any user can start.
    _folder: TempDir,
    root: PathBuf,
    program: PathBuf,
    /// Who runs the commands, if not ourselves.
    user: Option<(u32, u32)>,
}

impl Workspace {
    fn new() -> Workspace {
        Workspace::at("workspace")
    }

    /// A workspace in a folder of this relative path.
    fn at(path: &str) -> Workspace {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join(path);
        std::fs::create_dir_all(&root).expect("makes a folder");
        std::fs::write(root.join("Cargo.lock"), "").expect("writes");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        copy(&shipped, &root.join("migrations"));
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        std::fs::copy(settings, root.join("Cargo.toml")).expect("copies the settings");
        Workspace {
            root,
            _folder: folder,
            program: PathBuf::from(XTASK),
            user: None,
        }
    }

    /// A workspace whose commands run as an ordinary user, whoever we are.
    fn of_an_ordinary_user() -> Workspace {
        let mut workspace = Workspace::new();
        let folder = workspace._folder.path();
        if std::fs::metadata(folder).expect("is there").uid() != 0 {
            return workspace;
        }
        // initdb wants an account with a name; every system has this one.
        let (uid, gid) = account("nobody");
        chmod(0o755, folder);
        let program = folder.join("xtask");
        std::fs::copy(&workspace.program, &program).expect("copies the program");
        chown(&workspace.root, Some(uid), Some(gid)).expect("gives it away");
        workspace.program = program;
        workspace.user = Some((uid, gid));
        workspace
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .envs(programs())
            .env("HOME", &self.root)
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn xtask(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// The address in `.env`.
    fn url(&self) -> String {
        let text = std::fs::read_to_string(self.path(".env")).expect("there is a .env");
        let lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("DATABASE_URL="))
            .collect();
        assert_eq!(lines.len(), 1, "one address in .env");
        lines[0].to_owned()
    }

    fn port(&self) -> u16 {
        let url = self.url();
        let (_, place) = url.rsplit_once(':').expect("a port");
        place
            .split('/')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a number")
    }

    fn value(&self, sql: &str) -> String {
        let row = Client::connect(&self.url(), NoTls)
            .expect("connects")
            .query_one(&format!("SELECT ({sql})::text"), &[])
            .expect("the query runs");
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// The job is done, once: rows, sessions that refer to them, column, index, history.
    #[track_caller]
    fn is_ready(&self, users: u32) {
        assert_eq!(self.value("SELECT count(*) FROM users"), users.to_string());
        assert_eq!(
            self.value("SELECT count(*) > 0 FROM sessions JOIN users ON users.id = user_id"),
            "true"
        );
        assert_eq!(
            self.value("SELECT format_type(atttypid, NULL) || attnotnull FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'last_login_at'"),
            "timestamp with time zonefalse"
        );
        assert_eq!(
            self.value("SELECT indisvalid AND pg_get_indexdef(indexrelid) LIKE '%(last_login_at DESC NULLS LAST)' FROM pg_index WHERE indexrelid = 'idx_users_last_login_at'::regclass"),
            "true"
        );
        assert_eq!(
            self.value("SELECT count(*) FROM _sqlx_migrations WHERE success"),
            "3"
        );
    }

    /// Where the cluster lies: for root, whose workspace is closed to the server's account, that is
    /// elsewhere.
    fn data_folder(&self) -> PathBuf {
        self.value("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
            .into()
    }

    fn backups(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(self.path("backups")) else {
            return 0;
        };
        entries
            .filter(|entry| {
                let name = entry.as_ref().expect("an entry").file_name();
                name.to_string_lossy().ends_with(".sql")
            })
            .count()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let run = self.xtask(&["db-destroy", "--yes"]);
        if run.status != 0 && !std::thread::panicking() {
            panic!("a private server is left: {}", run.stderr);
        }
    }
}

/// The numbers of an account.
fn account(name: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("there are accounts");
    let line = passwd
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")))
        .expect("the account is there");
    let fields: Vec<&str> = line.split(':').collect();
    let number = |index: usize| fields[index].parse().expect("a number");
    (number(2), number(3))
}

/// The process of the server on a data folder.
fn server_pid(data: &Path) -> i32 {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).expect("a server runs");
    text.lines()
        .next()
        .and_then(|line| line.parse().ok())
        .expect("a pid")
}

fn is_alive(pid: i32) -> bool {
    Command::new("kill")
        .args(["-0", &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("kill is there")
        .success()
}

/// Ends a server as a power failure would: no process of it gets to clean up.
fn kill_server(data: &Path) {
    let pid = server_pid(data);
    signal("KILL", pid as u32);
    until("the server has ended", || !is_alive(pid));
}

#[test]
fn one_command_from_nothing_to_a_verified_migration() {
    let workspace = Workspace::new();
    let run = workspace.xtask(&["db-setup"]).succeeds();
    workspace.is_ready(1_200);
    assert_eq!(workspace.value("SELECT count(*) FROM sessions"), "300");
    assert_eq!(
        workspace.value("SELECT role FROM users WHERE email = 'admin@example.com'"),
        "admin"
    );
    assert_eq!(workspace.backups(), 1);

    let env = std::fs::metadata(workspace.path(".env")).expect("there is a .env");
    assert_eq!(env.mode() & 0o777, 0o600);
    let url = workspace.url();
    assert!(
        url.starts_with("postgresql://admin:") && url.ends_with("/myapp_dev"),
        "{url}"
    );
    assert!(url.contains("@127.0.0.1:"), "{url}");
    let password = url.split([':', '@']).nth(2).expect("a password");
    for stream in [&run.stdout, &run.stderr] {
        assert!(!stream.contains(password), "the password was printed");
    }

    for line in [
        "Creating a private PostgreSQL",
        "Started private server on 127.0.0.1:",
        "Created database `myapp_dev`",
        "Applied 20251201000000 create users",
        "Seeded 1,200 development rows",
        "Preflight 2 migrations pending",
        "Backed up public.users: 1,200 rows",
        "Applied 20251231143000 add users last login at",
        "Applied 20251231143100 index users last login at",
        "Verified 5 checks hold",
    ] {
        assert!(
            run.stderr.contains(line),
            "expected {line:?} in\n{}",
            run.stderr
        );
    }
    for line in [
        "Step",
        "What was done",
        "Total",
        "Next steps:",
        "Ready.",
        "DEV_USERS_PASSWORD",
    ] {
        assert!(
            run.stdout.contains(line),
            "expected {line:?} in\n{}",
            run.stdout
        );
    }
    workspace.xtask(&["db-status", "--check"]).succeeds();
    workspace.xtask(&["db-verify"]).succeeds();
}

#[test]
fn run_again_it_does_only_what_is_missing() {
    let workspace = Workspace::new();
    workspace.xtask(&["db-setup"]).succeeds();
    let history = "SELECT string_agg(m::text, ';' ORDER BY version) FROM _sqlx_migrations AS m";
    let (before, url) = (workspace.value(history), workspace.url());

    let again = workspace
        .xtask(&["db-setup"])
        .succeeds()
        .says("nothing is pending");
    assert!(!again.stderr.contains("Seeded"), "{}", again.stderr);
    assert!(!again.stderr.contains("Creating"), "{}", again.stderr);
    assert_eq!(workspace.value(history), before);
    workspace.is_ready(1_200);
    assert_eq!(workspace.backups(), 1);

    // What a migration still lacks is done, on the rows that are there.
    workspace.xtask(&["db-rollback", "--yes"]).succeeds();
    workspace.xtask(&["db-setup"]).succeeds();
    workspace.is_ready(1_200);

    let postgres = url.replace("/myapp_dev", "/postgres");
    let mut admin = Client::connect(&postgres, NoTls).expect("connects");
    admin
        .batch_execute("DROP DATABASE myapp_dev")
        .expect("drops it");
    workspace
        .xtask(&["db-setup"])
        .succeeds()
        .says("Created database `myapp_dev`");
    workspace.is_ready(1_200);

    std::fs::remove_file(workspace.path(".env")).expect("removes it");
    let ready = workspace.xtask(&["db-setup"]).succeeds().stdout;
    assert!(
        ready.contains("DEV_USERS_PASSWORD) was in an earlier .env"),
        "{ready}"
    );
    assert_eq!(workspace.url(), url);
    workspace.is_ready(1_200);
}

#[test]
fn a_stopped_server_is_started_by_the_command_that_needs_it() {
    let workspace = Workspace::new();
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    let url = workspace.url();

    workspace
        .xtask(&["db-stop"])
        .succeeds()
        .says("its data stays");
    workspace
        .xtask(&["db-stop"])
        .succeeds()
        .says("was not running");
    workspace
        .xtask(&["db-status", "--check"])
        .succeeds()
        .says("Started");
    workspace.xtask(&["db-stop"]).succeeds();
    workspace.xtask(&["db-start"]).succeeds().says("Started");
    workspace.xtask(&["db-start"]).succeeds().says("Running");
    workspace.xtask(&["db-stop"]).succeeds();
    let again = workspace.xtask(&["db-setup"]).succeeds();
    assert!(!again.stderr.contains("Seeded"), "{}", again.stderr);
    workspace.is_ready(50);
    assert_eq!(workspace.url(), url);
}

#[test]
fn after_a_power_failure_the_next_command_finds_every_row() {
    let workspace = Workspace::new();
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    let data = workspace.data_folder();

    kill_server(&data);
    assert!(
        data.join("postmaster.pid").exists(),
        "a leftover to trip over"
    );
    workspace
        .xtask(&["db-status", "--check"])
        .succeeds()
        .says("Started");
    workspace.is_ready(50);

    // After a reboot the process id in the leftover may be anybody's.
    kill_server(&data);
    let file = data.join("postmaster.pid");
    let leftover = std::fs::read_to_string(&file).expect("there is one");
    let (_, rest) = leftover.split_once('\n').expect("several lines");
    std::fs::write(&file, format!("{}\n{rest}", std::process::id())).expect("writes");
    workspace.xtask(&["db-setup"]).succeeds().says("Started");
    workspace.is_ready(50);
}

#[test]
fn a_port_that_somebody_else_took_is_replaced_in_dot_env() {
    let workspace = Workspace::new();
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    let before = workspace.url();
    workspace.xtask(&["db-stop"]).succeeds();
    let _taken = TcpListener::bind(("127.0.0.1", workspace.port())).expect("the port is free");
    // Whoever took it does not answer: a client must not wait for it for ever.
    workspace.xtask(&["db-start"]).succeeds();
    assert_ne!(workspace.url(), before);
    workspace.xtask(&["db-status", "--check"]).succeeds();
    workspace.is_ready(50);

    // An address exported from `.env` before that is stale, and still means the private server.
    let run = Run::of(
        workspace
            .command(&["db-setup"])
            .env("DATABASE_URL", &before),
    );
    run.succeeds();
    let run = Run::of(
        workspace
            .command(&["db-status", "--check"])
            .env("DATABASE_URL", &before),
    );
    run.succeeds();
}

#[test]
fn it_works_from_paths_with_spaces_and_quotes() {
    let workspace = Workspace::at("my work/it's $HOME & \"co\"");
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    workspace.is_ready(50);
    workspace.xtask(&["db-rollback", "--yes"]).succeeds();
    workspace.xtask(&["db-migrate"]).succeeds();
}

#[test]
fn it_works_from_a_path_longer_than_a_socket_name() {
    let workspace = Workspace::at(&"a-long-name/".repeat(12));
    assert!(workspace.root.as_os_str().len() > 108);
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    workspace.is_ready(50);
}

#[test]
fn two_workspaces_at_the_same_moment_do_not_meet() {
    let workspaces = [Workspace::new(), Workspace::new()];
    std::thread::scope(|scope| {
        let setups = workspaces
            .each_ref()
            .map(|workspace| scope.spawn(|| workspace.xtask(&["db-setup", "--users", "50"])));
        for setup in setups {
            setup.join().expect("no panic").succeeds();
        }
    });
    assert_ne!(workspaces[0].url(), workspaces[1].url());
    for workspace in &workspaces {
        workspace.is_ready(50);
    }
}

#[test]
fn two_setups_in_one_workspace_do_the_work_of_one() {
    let workspace = Workspace::new();
    std::thread::scope(|scope| {
        let setups: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| workspace.xtask(&["db-setup", "--users", "50"])))
            .collect();
        for setup in setups {
            setup.join().expect("no panic").succeeds();
        }
    });
    workspace.is_ready(50);
    let env = std::fs::read_to_string(workspace.path(".env")).expect("there is a .env");
    assert_eq!(
        env.matches("DEV_USERS_PASSWORD=").count(),
        1,
        "lines of .env"
    );
}

#[test]
fn an_ordinary_user_needs_no_more_than_root() {
    let workspace = Workspace::of_an_ordinary_user();
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    workspace.is_ready(50);
    let data = workspace.data_folder();
    assert_eq!(
        data,
        workspace
            .path(".postgres/data")
            .canonicalize()
            .expect("is there")
    );
    // git does not see what holds a password.
    let ignored = std::fs::read_to_string(workspace.path(".postgres/.gitignore"));
    assert_eq!(ignored.expect("is there"), "*\n");
    let owner = std::fs::metadata(workspace.path(".env"))
        .expect("there is a .env")
        .uid();
    assert_eq!(std::fs::metadata(&data).expect("is there").uid(), owner);
    workspace.xtask(&["db-stop"]).succeeds();
    workspace.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn destroy_asks_and_then_leaves_nothing() {
    let workspace = Workspace::new();
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    let data = workspace.data_folder();
    let pid = server_pid(&data);

    workspace
        .xtask(&["db-destroy"])
        .exits(2)
        .says("Will delete")
        .says("hint: cargo xtask db-destroy --yes");
    workspace.is_ready(50);

    std::fs::write(
        workspace.path(".env"),
        format!("# mine\nOTHER=1\nexport DATABASE_URL={}\n", workspace.url()),
    )
    .expect("writes");
    workspace.xtask(&["db-destroy", "--yes"]).succeeds();
    until("the server has ended", || !is_alive(pid));
    let home = data.parent().expect("the cluster's folder");
    assert!(!home.exists(), "{} is left", home.display());
    assert!(!workspace.path(".postgres").exists());
    assert_eq!(
        std::fs::read_to_string(workspace.path(".env")).expect("it stays"),
        "# mine\nOTHER=1\n"
    );
    assert_eq!(workspace.backups(), 1, "backups stay");

    workspace
        .xtask(&["db-destroy", "--yes"])
        .succeeds()
        .says("no private server here");
    workspace
        .xtask(&["db-start"])
        .exits(1)
        .says("cargo xtask db-setup");
    workspace
        .xtask(&["db-stop"])
        .exits(1)
        .says("cargo xtask db-setup");
    workspace.xtask(&["db-status"]).exits(2);
}

#[test]
fn destroy_forgets_the_address_whatever_the_environment_says() {
    let workspace = Workspace::new();
    workspace
        .xtask(&["db-setup", "--users", "50", "--no-migrate"])
        .succeeds();
    let destroy = Run::of(
        workspace
            .command(&["db-destroy", "--yes"])
            .env("DATABASE_URL", "postgres://somebody@example.invalid/else"),
    );
    destroy.succeeds();
    let env = std::fs::read_to_string(workspace.path(".env")).expect("it stays");
    assert!(!env.contains("DATABASE_URL"), "{env}");
}

#[test]
fn a_server_folder_removed_by_hand_is_made_anew() {
    let workspace = Workspace::of_an_ordinary_user();
    workspace.xtask(&["db-setup", "--users", "50"]).succeeds();
    workspace.xtask(&["db-stop"]).succeeds();
    std::fs::remove_dir_all(workspace.path(".postgres")).expect("removes it");
    workspace.xtask(&["db-setup", "--users", "60"]).succeeds();
    workspace.is_ready(60);
}

#[test]
fn the_flags_say_how_many_users_and_how_far() {
    let workspace = Workspace::new();
    workspace
        .xtask(&["db-setup", "--users", "7", "--no-migrate"])
        .succeeds();
    assert_eq!(workspace.value("SELECT count(*) FROM users"), "7");
    assert_eq!(
        workspace.value("SELECT string_agg(version::text, ',') FROM _sqlx_migrations"),
        BASELINE
    );
    workspace.xtask(&["db-status", "--check"]).exits(3);
    workspace.xtask(&["db-migrate"]).succeeds();
    workspace.is_ready(7);
}

#[test]
fn a_configured_database_that_is_not_there_is_made_and_filled() {
    let project = Project::new();
    project.drop_database();
    let run = project.xtask(&["db-setup", "--users", "50"]).succeeds();
    assert!(run.stderr.contains("Created database"), "{}", run.stderr);
    assert_eq!(project.value("SELECT count(*) FROM users"), "50");
    assert!(!project.path(".postgres").exists(), "no private server");
    project.xtask(&["db-status", "--check"]).succeeds();
    let env = std::fs::read_to_string(project.path(".env")).expect("holds the users' password");
    assert!(!env.contains("DATABASE_URL"), "{env}");
}

#[test]
fn a_configured_database_that_is_there_gets_no_invented_users() {
    let project = Project::new();
    project.xtask(&["db-setup"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "0");
    project.xtask(&["db-status", "--check"]).succeeds();

    let project = Project::seeded();
    project.sql("DELETE FROM users WHERE id > 10");
    project.xtask(&["db-setup"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "10");
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn with_nothing_configured_every_command_names_both_ways_on() {
    let project = Project::new();
    for command in [
        "db-migrate",
        "db-rollback",
        "db-redo",
        "db-status",
        "db-verify",
        "db-backup",
        "db-baseline",
        "db-seed",
        "db-psql",
    ] {
        Run::of(&mut project.unconfigured(&[command]))
            .exits(2)
            .says("no database is configured")
            .says("export DATABASE_URL=")
            .says("cargo xtask db-setup");
    }
    assert!(!project.path(".postgres").exists());
    assert!(!project.path("backups").exists());
}

/// It runs for days, and its environment is there to be read.
#[cfg(target_os = "linux")]
#[test]
fn the_private_server_keeps_nothing_of_our_environment() {
    let workspace = Workspace::new();
    let secret = "s3cret-of-another";
    let with_secrets = |arguments: &[&str]| {
        let mut command = workspace.command(arguments);
        command
            .env("PGPASSWORD", secret)
            .env("PRODUCTION_URL", format!("postgres://u:{secret}@h/d"));
        Run::of(&mut command).succeeds();
        let file = workspace.path(".postgres/data/postmaster.pid");
        let pid = std::fs::read_to_string(file).expect("runs");
        let pid = pid.lines().next().expect("a process id");
        let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("is there");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(
            !environment.contains(secret),
            "{arguments:?}: {environment}"
        );
        assert!(environment.contains("LC_ALL=C"), "{environment}");
    };
    with_secrets(&["db-setup", "--no-migrate", "--users", "1"]);
    workspace.xtask(&["db-stop"]).succeeds();
    with_secrets(&["db-start"]);
}
