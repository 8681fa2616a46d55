//! A server for one test run. It is removed however the run ends: by a return, a panic, an exit that
//! drops no static, or a SIGKILL.
//!
//! A second process removes it. It reads from a pipe whose other end only this process has. The kernel
//! closes that end when this process ends for any reason.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::cluster::{Cluster, NewCluster};
use crate::installation::Installation;

/// The superuser of every throwaway server.
const SUPERUSER: &str = "admin";

/// Waits until the process at the other end of standard input has ended. Then stops the server in `$1`
/// (immediately, since its data is not needed again) and removes all given folders.
///
/// Both loops are limited. The second one is for an `initdb` that still writes to the folder.
const WATCHDOG: &str = r#"
read -r _
file=$1/data/postmaster.pid
pid=$(head -n 1 "$file") && kill -QUIT "$pid"
tries=500
while [ -e "$file" ] && kill -0 "$pid" && [ "$tries" -gt 0 ]; do sleep 0.02; tries=$((tries - 1)); done
tries=100
until rm -rf "$@" || [ "$tries" -eq 0 ]; do sleep 0.1; tries=$((tries - 1)); done
"#;

/// A running server with an empty cluster. It is removed when it is dropped or the process ends. There is
/// no `Debug`, which would print the password.
pub struct ThrowawayServer {
    cluster: Cluster,
    port: u16,
    password: String,
    watchdog: Child,
}

impl ThrowawayServer {
    /// Creates a cluster in a new temporary folder and starts a server on it; takes about a second.
    /// `settings` are more lines for its `postgresql.conf`, as `(name, value)`.
    ///
    /// # Errors
    /// As [`Cluster::create`] and [`Cluster::start`].
    pub fn start(installation: &Installation, settings: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("throwaway-postgres-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .context("make a temporary folder for a throwaway server")?;
        let cluster = Cluster::at(folder.path())?;

        // Before anything is made, so that nothing made can outlive us.
        let mut watchdog = Command::new("/bin/sh");
        watchdog
            .args(["-c", WATCHDOG, "watchdog"])
            .args([cluster.folder(), folder.path()])
            .current_dir("/")
            // Ctrl-C goes to our process group, and must not end the watchdog before us.
            .process_group(0)
            // std closes our end in every program that we start (O_CLOEXEC), the server among them.
            .stdin(Stdio::piped())
            // Whoever reads what we print must not have to wait for the watchdog as well.
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let watchdog = watchdog
            .spawn()
            .context("start /bin/sh to clean up after a throwaway server")?;
        let _ = folder.keep();

        // From here on an early return drops the server, and with it all that was made.
        let mut server = Self {
            cluster,
            port: 0,
            password: String::new(),
            watchdog,
        };
        let new = NewCluster {
            superuser: SUPERUSER,
            settings,
            throwaway: true,
        };
        server.cluster.create(installation, &new)?;
        server.port = server.cluster.start(std::slice::from_ref(installation))?;
        server.password = server.cluster.password()?;
        Ok(server)
    }

    /// The URL of one of its databases; `postgres` exists from the start. The name is not encoded: use
    /// letters, digits, `_` and `-` only.
    pub fn url(&self, database: &str) -> String {
        let Self { port, password, .. } = self;
        format!("postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of its superuser, `admin`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Its cluster: to read its status and log, or to stop it during a test.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for ThrowawayServer {
    /// Lets the second process remove the server, so that there is only one way; `wait` closes the pipe.
    fn drop(&mut self) {
        let _ = self.watchdog.wait();
    }
}
