//! What the tests share: the newest server on this machine, and a look at a running one.

use std::path::Path;
use std::process::{Command, Output};

use private_server::{Installation, installation};

/// The installation that the tests run.
pub(crate) fn installation() -> Installation {
    #[expect(clippy::disallowed_methods, reason = "a test is its own caller")]
    let [path, only_in] = ["PATH", "PG_BIN_DIR"].map(std::env::var_os);
    installation::newest_server(path.as_deref(), only_in.as_deref().map(Path::new)).unwrap()
}

/// Runs one statement through psql, as the superuser `admin`, in the database `postgres`.
pub(crate) fn psql(port: u16, password: &str, sql: &str) -> Output {
    Command::new(installation().program("psql"))
        .args([
            "-XAtq",
            "--no-password",
            "--host=127.0.0.1",
            "--username=admin",
            "--dbname=postgres",
        ])
        .arg(format!("--port={port}"))
        .args(["--command", sql])
        .env("PGPASSWORD", password)
        .output()
        .unwrap()
}

/// What a statement returns, which must succeed.
pub(crate) fn query(port: u16, password: &str, sql: &str) -> String {
    let output = psql(port, password, sql);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// One column of what `ps` says of a process.
pub(crate) fn ps(pid: i32, column: &str) -> String {
    let output = Command::new("ps")
        .args(["-o", &format!("{column}=")])
        .args(["-p", &pid.to_string()])
        .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}
