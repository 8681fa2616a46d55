//! One database cluster in one folder, and the server on it. What it is and whether it runs is
//! derived from that folder and from the kernel each time, never remembered.
//!
//! The folder, with who writes what in it:
//!
//! | entry | owner | |
//! |---|---|---|
//! | `data/` | the server's account | the cluster; `data.partial/` while it is being made or removed |
//! | `data/port.conf` | the server's account | the port, of this run or the last |
//! | `server.log` | the server's account | what the server says |
//! | `password` | the server's account | the superuser's password, as the cluster was made with |
//! | `lock` | we | held by whoever changes any of this |
//!
//! For root the folder itself belongs to root and `data` to an unprivileged account. Root writes
//! nothing inside `data`: that account could have put a link there, to a file that is not its own.

mod create;
mod files;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::process::geteuid;

use crate::account::Account;

/// Where root's clusters lie whose workspace is closed to the server's account, such as one in
/// `/root`: here, with a hash of the folder's path behind it.
const ELSEWHERE: &str = "/var/lib/private-postgres-";

/// What a new cluster is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewCluster<'a> {
    /// The name of its superuser.
    pub superuser: &'a str,
    /// Settings for its `postgresql.conf`, as `(name, value)`; the value needs no quotes.
    pub settings: &'a [(&'a str, &'a str)],
    /// Made without waiting for the disk: for data that need not outlive a power failure.
    pub throwaway: bool,
}

/// Whether a server runs on a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no cluster.
    Absent,
    /// There is a cluster, and no server on it.
    Stopped,
    /// A server runs on it.
    Running {
        /// The server's process id.
        pid: i32,
        /// Its port on 127.0.0.1.
        port: u16,
    },
}

/// How to stop a server. Either way it ends its clients' sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Roll back what is open, write everything to disk, stop.
    Fast,
    /// Stop at once, as in a crash: the next start recovers from the write-ahead log.
    Immediate,
}

/// A place for a cluster, whether or not there is one yet.
#[derive(Clone, Debug)]
pub struct Cluster {
    folder: PathBuf,
    account: Option<Account>,
}

/// Where the cluster of a folder may be: in it, or for root where every account can reach it.
fn places(home: &Path) -> Result<[PathBuf; 2]> {
    let name = home
        .file_name()
        .with_context(|| format!("{} names no folder", home.display()))?;
    // Resolved, so that every way to write the path leads to the same place.
    let parent = home
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent)
        .with_context(|| format!("find the folder {}", parent.display()))?;
    let home = parent.join(name);
    let hash = fnv1a(home.as_os_str().as_encoded_bytes());
    let elsewhere = PathBuf::from(format!("{ELSEWHERE}{hash:016x}"));
    Ok([home, elsewhere])
}

/// What `postmaster.pid` says. Its lines are listed in PostgreSQL's `src/include/utils/pidfile.h`.
struct PidFile {
    pid: i32,
    port: u16,
    ready: bool,
}

impl Cluster {
    /// The cluster of a folder such as `<workspace>/.postgres`, which need not exist; the folder
    /// above it must.
    ///
    /// For root, where the server's account cannot reach `home`, it lies in
    /// `/var/lib/private-postgres-<hash of home>` instead; a cluster that exists in
    /// either place stays where it is.
    ///
    /// # Errors
    /// Where the folder above is missing, or root finds no account to run a server under.
    pub fn at(home: &Path) -> Result<Self> {
        if let Some(cluster) = Self::find(home)? {
            return Ok(cluster);
        }
        let [home, elsewhere] = places(home)?;
        if !geteuid().is_root() {
            return Ok(Self {
                folder: home,
                account: None,
            });
        }
        let account = Account::unprivileged()?;
        // This takes a process.
        let folder = match home.parent().is_none_or(|above| account.can_reach(above)) {
            true => home,
            false => elsewhere,
        };
        Ok(Self {
            folder,
            account: Some(account),
        })
    }

    /// The cluster of a folder as [`Cluster::at`] has it, if it exists.
    ///
    /// # Errors
    /// As [`Cluster::at`]; if it cannot be looked for.
    pub fn find(home: &Path) -> Result<Option<Self>> {
        let [home, elsewhere] = places(home)?;
        if !geteuid().is_root() {
            let cluster = Self {
                folder: home,
                account: None,
            };
            return Ok(cluster.exists()?.then_some(cluster));
        }
        for folder in [home, elsewhere] {
            if let Ok(data) = fs::metadata(folder.join("data")) {
                let account = match Account::owner_of(&data) {
                    Some(account) => account,
                    None => Account::unprivileged()?,
                };
                return Ok(Some(Self {
                    folder,
                    account: Some(account),
                }));
            }
        }
        Ok(None)
    }

    /// The folder that holds everything of the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's log: it grows, nothing cuts it.
    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The port of the server, or of its last run; `None` before the first.
    ///
    /// # Errors
    /// Where the cluster belongs to another user.
    pub fn port(&self) -> Result<Option<u16>> {
        let text = self.read("data/port.conf")?.unwrap_or_default();
        Ok(text
            .trim()
            .strip_prefix("port = ")
            .and_then(|port| port.parse().ok()))
    }

    /// The password that the cluster's superuser was made with.
    ///
    /// # Errors
    /// Where there is no cluster, or it belongs to another user.
    pub fn password(&self) -> Result<String> {
        self.read("password")?.with_context(|| {
            format!(
                "read the password of the cluster in {}: there is none; make a cluster first",
                self.folder.display()
            )
        })
    }

    /// Whether there is a cluster, running or not.
    ///
    /// # Errors
    /// Where it cannot be looked for.
    pub fn exists(&self) -> Result<bool> {
        self.data()
            .try_exists()
            .with_context(|| format!("look for {}", self.data().display()))
    }

    /// Whether a server runs on the cluster.
    ///
    /// # Errors
    /// Where the cluster belongs to another user.
    pub fn status(&self) -> Result<Status> {
        if !self.exists()? {
            return Ok(Status::Absent);
        }
        Ok(match self.pid_file()? {
            Some(PidFile { pid, port, .. }) if self.is_our_server(pid)? => {
                Status::Running { pid, port }
            }
            _ => Status::Stopped,
        })
    }

    fn pid_file(&self) -> Result<Option<PidFile>> {
        let text = self.read("data/postmaster.pid")?.unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let number = |line: usize| lines.get(line).and_then(|text| text.parse::<i32>().ok());
        let (Some(pid), Some(port)) = (number(0), number(3).and_then(|port| port.try_into().ok()))
        else {
            return Ok(None);
        };
        // A server in single-user mode writes its id as a negative number.
        Ok(Some(PidFile {
            pid: pid.abs(),
            port,
            ready: lines.get(7) == Some(&"ready"),
        }))
    }

    /// Whether the process is the server of this cluster.
    ///
    /// `pg_ctl status` asks only whether the process exists: after a reboot its id may have gone to
    /// another one. A server's working folder is its data folder, so ask where the process stands.
    fn is_our_server(&self, pid: i32) -> Result<bool> {
        // `-ef` compares the folders themselves, not their names. Run by the server's own account:
        // in a container root may not look at other users' processes.
        let script = match cfg!(target_os = "linux") {
            true => r#"[ "/proc/$0/cwd" -ef data ]"#,
            false => r#"case $(ps -o comm= -p "$0") in *postgres) ;; *) exit 1;; esac"#,
        };
        let mut shell = self.command(Path::new("/bin/sh"));
        shell
            .args(["-c", script])
            .arg(pid.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let status = shell
            .status()
            .with_context(|| format!("look whether process {pid} is the server"))?;
        Ok(status.success())
    }
}

/// The 64-bit FNV-1a hash. It names a folder that must be found again by a later build, which std's
/// hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_is_the_published_one() {
        // From the reference test suite of the FNV authors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
