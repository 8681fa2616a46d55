//! Clusters with real servers, as root and as an ordinary user: whatever happens to them, the next
//! command finds out what is there and goes on.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::common::{installation, ps, psql, query};
use private_server::{Cluster, Installation, NewCluster, Status, Stop};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const NEW: NewCluster<'static> = NewCluster {
    superuser: "admin",
    settings: &[],
    throwaway: true,
};

/// A workspace that takes its cluster with it, also when a test fails.
struct Workspace {
    folder: TempDir,
    home: PathBuf,
}

impl Workspace {
    fn new() -> Self {
        Self::with_home("project/.postgres")
    }

    fn with_home(home: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join(home);
        fs::create_dir_all(home.parent().unwrap()).unwrap();
        Self { folder, home }
    }

    fn cluster(&self) -> Cluster {
        Cluster::at(&self.home).unwrap()
    }

    /// A new cluster, started, and its port.
    fn started(&self) -> (Cluster, u16) {
        let cluster = self.cluster();
        assert!(cluster.create(&installation(), &NEW).unwrap());
        let port = cluster.start(&[installation()]).unwrap();
        (cluster, port)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Ok(cluster) = Cluster::at(&self.home) {
            let _ = cluster.destroy();
        }
    }
}

fn pid(cluster: &Cluster) -> i32 {
    match cluster.status().unwrap() {
        Status::Running { pid, .. } => pid,
        status => panic!("{status:?}"),
    }
}

fn answers(cluster: &Cluster, port: u16) -> bool {
    query(port, &cluster.password().unwrap(), "SELECT 1") == "1"
}

#[test]
fn a_life_from_nothing_to_nothing() {
    let workspace = Workspace::new();
    let cluster = workspace.cluster();
    assert_eq!(cluster.status().unwrap(), Status::Absent);
    assert!(
        cluster
            .start(&[installation()])
            .unwrap_err()
            .to_string()
            .contains("no cluster")
    );
    cluster.stop(Stop::Fast).unwrap();
    cluster.destroy().unwrap();
    assert!(!workspace.home.exists(), "looking makes nothing");

    assert!(cluster.create(&installation(), &NEW).unwrap());
    assert_eq!(
        (cluster.status().unwrap(), cluster.port().unwrap()),
        (Status::Stopped, None)
    );
    let password = cluster.password().unwrap();
    assert!(
        !cluster.create(&installation(), &NEW).unwrap(),
        "there is one already"
    );
    assert_eq!(cluster.password().unwrap(), password);

    let port = cluster.start(&[installation()]).unwrap();
    let running = Status::Running {
        pid: pid(&cluster),
        port,
    };
    assert_eq!(cluster.start(&[installation()]).unwrap(), port);
    assert_eq!(
        cluster.status().unwrap(),
        running,
        "a second start leaves the server alone"
    );
    assert!(answers(&cluster, port));
    assert!(
        !psql(port, "guess", "SELECT 1").status.success(),
        "a password is needed"
    );
    assert_eq!(query(port, &password, "SHOW server_encoding"), "UTF8");

    for how in [Stop::Fast, Stop::Immediate] {
        cluster.stop(how).unwrap();
        assert_eq!(cluster.status().unwrap(), Status::Stopped);
        assert_eq!(cluster.port().unwrap(), Some(port));
        assert_eq!(
            workspace.cluster().start(&[installation()]).unwrap(),
            port,
            "the URL stays good"
        );
    }
    assert!(
        !fs::read_to_string(cluster.log())
            .unwrap()
            .contains(&password)
    );

    cluster.destroy().unwrap();
    assert_eq!(cluster.status().unwrap(), Status::Absent);
    assert!(!cluster.folder().exists() && TcpListener::bind(("127.0.0.1", port)).is_ok());
}

#[test]
fn paths_that_a_shell_or_a_socket_would_choke_on() {
    let long = format!("{}/{}/.postgres", "l".repeat(100), "o".repeat(100));
    for home in [
        "my project/.postgres",
        "it's $HOME \"quoted\" `id`\\/.postgres",
        "ünïcödé/データ",
        &long,
    ] {
        let workspace = Workspace::with_home(home);
        let (cluster, port) = workspace.started();
        assert!(answers(&cluster, port), "{home}");
        cluster.stop(Stop::Fast).unwrap();
        cluster.destroy().unwrap();
        assert!(!workspace.home.exists());
    }
}

#[test]
fn two_workspaces_at_the_same_moment_want_one_port() {
    let workspaces = [Workspace::new(), Workspace::new()];
    let wanted = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ready = Barrier::new(2);
    let ports = thread::scope(|scope| {
        let start = |workspace: &Workspace| {
            let cluster = workspace.cluster();
            cluster.create(&installation(), &NEW).unwrap();
            write_port(&cluster, wanted);
            ready.wait();
            let port = cluster.start(&[installation()]).unwrap();
            assert!(answers(&cluster, port));
            port
        };
        let runs = workspaces
            .each_ref()
            .map(|workspace| scope.spawn(move || start(workspace)));
        runs.map(|run| run.join().unwrap())
    });
    assert_ne!(ports[0], ports[1]);
}

/// As a run before would have left it.
fn write_port(cluster: &Cluster, port: u16) {
    let file = cluster.folder().join("data/port.conf");
    fs::write(&file, format!("port = {port}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
}

#[test]
fn two_setups_in_one_workspace_share_one_server() {
    let workspace = Workspace::new();
    let ready = Barrier::new(2);
    let setup = || {
        let cluster = workspace.cluster();
        ready.wait();
        let made = cluster.create(&installation(), &NEW).unwrap();
        let port = cluster.start(&[installation()]).unwrap();
        (made, port, cluster.password().unwrap())
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(setup);
        (setup(), other.join().unwrap())
    });
    assert!(one.0 ^ other.0, "one of the two makes the cluster");
    assert_eq!((one.1, one.2), (other.1, other.2));
}

#[test]
fn a_port_taken_by_another_program_is_given_up() {
    let workspace = Workspace::new();
    let (cluster, port) = workspace.started();
    cluster.stop(Stop::Fast).unwrap();
    let _other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let next = cluster.start(&[installation()]).unwrap();
    assert_ne!(next, port);
    assert!(answers(&cluster, next));
}

#[test]
fn a_killed_server_starts_again_with_its_data() {
    let workspace = Workspace::new();
    let (cluster, port) = workspace.started();
    let password = cluster.password().unwrap();
    query(port, &password, "CREATE TABLE kept AS SELECT 42 AS n");

    // After a reboot the process id in the leftover file can be anyone's: here that of a process
    // which runs under the server's own account, the one case that PostgreSQL falls for.
    let mut anyone = stranger(&cluster);
    let file = cluster.folder().join("data/postmaster.pid");
    let whole = fs::read_to_string(&file).unwrap();
    let (dead, rest) = whole.split_once('\n').unwrap();
    for leftover in [
        format!("{}\n{rest}", anyone.id()),
        String::new(),
        format!("{dead}\n{rest}"),
    ] {
        kill(pid(&cluster));
        fs::write(&file, &leftover).unwrap();
        assert_eq!(cluster.status().unwrap(), Status::Stopped, "{leftover:?}");
        cluster.stop(Stop::Immediate).unwrap();
        assert!(
            anyone.try_wait().unwrap().is_none(),
            "the stranger is not signalled"
        );
        let port = cluster.start(&[installation()]).unwrap();
        assert_eq!(query(port, &password, "SELECT n FROM kept"), "42");
    }
    anyone.kill().unwrap();
    anyone.wait().unwrap();
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// A process that has nothing to do with the cluster, under the account of its server.
fn stranger(cluster: &Cluster) -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("60").current_dir("/");
    if geteuid().is_root() {
        sleep.uid(fs::metadata(cluster.folder().join("data")).unwrap().uid());
    }
    sleep.spawn().unwrap()
}

#[test]
fn a_setup_killed_at_any_moment_is_done_again() {
    for after in [0, 30, 100, 300, 600, 900] {
        let workspace = Workspace::new();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cluster::setup", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        process
            .stdin
            .take()
            .unwrap()
            .write_all(workspace.home.as_os_str().as_bytes())
            .unwrap();
        thread::sleep(Duration::from_millis(after));
        process.kill().unwrap();
        process.wait().unwrap();

        let cluster = workspace.cluster();
        cluster.create(&installation(), &NEW).unwrap();
        let port = cluster.start(&[installation()]).unwrap();
        assert!(answers(&cluster, port), "killed after {after} ms");
        assert!(!cluster.folder().join("data.partial").exists());
    }
}

/// Started by the test above in a process of its own, to be killed there.
#[test]
#[ignore = "takes a folder from its standard input"]
fn setup() {
    let home = std::io::read_to_string(std::io::stdin()).unwrap();
    let cluster = Cluster::at(Path::new(&home)).unwrap();
    cluster.create(&installation(), &NEW).unwrap();
    cluster.start(&[installation()]).unwrap();
}

#[test]
fn ctrl_c_and_a_closed_terminal_do_not_reach_the_server() {
    let workspace = Workspace::new();
    let (cluster, _) = workspace.started();
    let server = pid(&cluster);
    assert_eq!(
        ps(server, "pgid"),
        server.to_string(),
        "a process group of its own"
    );
    assert_eq!(
        ps(server, "sess"),
        ps(server, "pid"),
        "a session of its own"
    );
    if cfg!(target_os = "linux") {
        for fd in 0..3 {
            // In a container root may not look.
            if let Ok(open) = fs::read_link(format!("/proc/{server}/fd/{fd}")) {
                assert!(
                    open == Path::new("/dev/null") || open == cluster.log(),
                    "fd {fd} is {}",
                    open.display()
                );
            }
        }
    }
}

#[test]
fn a_start_that_fails_says_what_the_server_said() {
    let workspace = Workspace::new();
    let cluster = workspace.cluster();
    let settings = [("no_such_setting", "it's \\ \"odd\"")];
    cluster
        .create(
            &installation(),
            &NewCluster {
                settings: &settings,
                ..NEW
            },
        )
        .unwrap();
    let error = format!("{:#}", cluster.start(&[installation()]).unwrap_err());
    assert!(
        error.contains("no_such_setting") && error.contains("server.log"),
        "{error}"
    );
    let error = format!("{:#}", cluster.start(&[]).unwrap_err());
    assert!(error.contains("servers found: none"), "{error}");
}

#[test]
fn a_server_is_known_by_its_own_version_not_by_that_of_the_clients_beside_it() {
    let workspace = Workspace::new();
    let bin = workspace.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["initdb", "pg_ctl", "postgres"] {
        symlink(installation().program(name), bin.join(name)).unwrap();
    }
    fs::write(bin.join("psql"), "#!/bin/sh\necho psql 99.7\n").unwrap();
    fs::set_permissions(bin.join("psql"), fs::Permissions::from_mode(0o755)).unwrap();

    let mixed = Installation::in_folder(&bin).unwrap();
    assert_eq!(mixed.version().unwrap().major, 99);
    let cluster = workspace.cluster();
    assert!(cluster.create(&mixed, &NEW).unwrap());
    let port = cluster.start(&[mixed]).unwrap();
    assert!(answers(&cluster, port));
}

#[test]
fn settings_hold_any_text() {
    let workspace = Workspace::new();
    let cluster = workspace.cluster();
    let odd = r#"it's a \ "value" # $HOME"#;
    cluster
        .create(
            &installation(),
            &NewCluster {
                settings: &[("my.setting", odd)],
                ..NEW
            },
        )
        .unwrap();
    let port = cluster.start(&[installation()]).unwrap();
    assert_eq!(
        query(port, &cluster.password().unwrap(), "SHOW my.setting"),
        odd
    );
}

#[test]
fn for_root_a_closed_workspace_has_its_cluster_elsewhere() {
    if !geteuid().is_root() {
        return;
    }
    let workspace = Workspace::new();
    fs::set_permissions(workspace.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (cluster, port) = workspace.started();
    assert!(
        cluster
            .folder()
            .to_string_lossy()
            .starts_with("/var/lib/private-postgres-")
    );
    assert!(!workspace.home.exists() && answers(&cluster, port));

    // Opened later, it still has one cluster: the one that exists.
    fs::set_permissions(workspace.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(workspace.cluster().folder(), cluster.folder());
    assert_eq!(workspace.cluster().start(&[installation()]).unwrap(), port);
    cluster.destroy().unwrap();
    assert!(!cluster.folder().exists());
}

#[test]
fn nobody_else_can_read_what_is_secret() {
    let workspace = Workspace::new();
    let (cluster, _) = workspace.started();
    let mode = |name: &str| {
        fs::metadata(cluster.folder().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o077
    };
    for name in ["data", "password", "server.log", "lock"] {
        assert_eq!(mode(name), 0, "{name}");
    }
}
