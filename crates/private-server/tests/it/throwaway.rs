//! A throwaway server is gone when its process is, however that ended.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{installation, query};
use private_server::{Stop, ThrowawayServer};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt;

#[test]
fn it_serves_until_it_is_dropped() {
    let server = ThrowawayServer::start(&installation(), &[("work_mem", "3MB")]).unwrap();
    assert_eq!(
        query(server.port(), server.password(), "SHOW work_mem"),
        "3MB"
    );
    assert_eq!(
        server.url("postgres"),
        format!(
            "postgresql://admin:{}@127.0.0.1:{}/postgres",
            server.password(),
            server.port()
        )
    );
    let folder = server.cluster().folder().to_owned();
    // A test may stop it, as in a crash, and go on: what was committed is there.
    query(
        server.port(),
        server.password(),
        "CREATE TABLE kept AS SELECT 42 AS n",
    );
    server.cluster().stop(Stop::Immediate).unwrap();
    let port = server.cluster().start(&[installation()]).unwrap();
    assert_eq!(query(port, server.password(), "SELECT n FROM kept"), "42");

    drop(server);
    assert!(!folder.exists() && TcpListener::bind(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_failed_start_leaves_nothing() {
    let error = ThrowawayServer::start(&installation(), &[("no_such_setting", "1")])
        .map(drop)
        .unwrap_err();
    let text = error.to_string();
    let folder = text
        .strip_prefix("start the PostgreSQL server in ")
        .unwrap();
    assert!(!Path::new(folder).exists(), "{folder}");
}

#[test]
fn it_goes_when_its_process_is_killed() {
    let (mut process, port, folder) = run_child();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_gone(port, &folder);
}

#[test]
fn it_goes_upon_ctrl_c() {
    let (mut process, port, folder) = run_child();
    kill_process_group(Pid::from_child(&process), Signal::INT).unwrap();
    process.wait().unwrap();
    assert_gone(port, &folder);
}

/// Started by the tests above in a process of its own, to be killed there.
#[test]
#[ignore = "never ends by itself"]
fn child() {
    static SERVER: std::sync::OnceLock<ThrowawayServer> = std::sync::OnceLock::new();
    let server = SERVER.get_or_init(|| ThrowawayServer::start(&installation(), &[]).unwrap());
    println!(
        "\nserves {} {}",
        server.port(),
        server.cluster().folder().display()
    );
    sleep(Duration::from_secs(60));
}

fn run_child() -> (Child, u16, PathBuf) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "throwaway::child", "--ignored", "--nocapture"])
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find(|line| line.starts_with("serves "))
        .unwrap();
    let mut words = line.splitn(3, ' ').skip(1);
    let port = words.next().unwrap().parse().unwrap();
    let folder = PathBuf::from(words.next().unwrap());
    assert!(folder.join("data/postmaster.pid").exists());
    (process, port, folder)
}

fn assert_gone(port: u16, folder: &Path) {
    let begin = Instant::now();
    while folder.exists() || TcpListener::bind(("127.0.0.1", port)).is_err() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{} is still there",
            folder.display()
        );
        sleep(Duration::from_millis(20));
    }
}
