//! One database cluster in one folder, and its server. Its state is read from that folder and from the
//! kernel each time, and never stored.
//!
//! The files in the folder, and who writes them:
//!
//! | entry | owner | |
//! |---|---|---|
//! | `data/` | the server's account | the cluster; `data.partial/` while it is being made or removed |
//! | `data/port.conf` | the server's account | the port, of this run or the last |
//! | `server.log` | the server's account | the server's log |
//! | `password` | the server's account | the superuser's password that the cluster was created with |
//! | `lock` | this process | locked by the process that changes any of this |
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

/// The cluster of a workspace that the server's account cannot enter, such as one in `/root`, is in a folder
/// with this name and a hash of the workspace folder's path.
const ELSEWHERE: &str = "/var/lib/private-postgres-";

/// Options of a new cluster.
#[derive(Clone, Copy, Debug)]
pub struct NewCluster<'a> {
    /// The name of its superuser.
    pub superuser: &'a str,
    /// Settings for its `postgresql.conf`, as `(name, value)`; the value needs no quotes.
    pub settings: &'a [(&'a str, &'a str)],
    /// Create it without waiting for the disk: for data that may be lost in a power failure.
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
    /// Roll back open transactions, write everything to disk, stop.
    Fast,
    /// Stop at once, as in a crash: the next start recovers from the write-ahead log.
    Immediate,
}

/// The place of a cluster, which may not exist yet.
#[derive(Clone, Debug)]
pub struct Cluster {
    folder: PathBuf,
    account: Option<Account>,
}

/// Where the cluster of a folder may be: in it, or, for root, in a folder that every account can enter.
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

/// The content of `postmaster.pid`. Its lines are described in PostgreSQL's `src/include/utils/pidfile.h`.
struct PidFile {
    pid: i32,
    port: u16,
    ready: bool,
}

impl Cluster {
    /// The cluster of a folder such as `<workspace>/.postgres`, which need not exist; the folder
    /// above it must.
    ///
    /// If this process is root and the server's account cannot enter `home`, the cluster is in
    /// `/var/lib/private-postgres-<hash of home>` instead. A cluster that exists in either place stays
    /// there.
    ///
    /// # Errors
    /// If the parent folder does not exist, or root finds no account to run a server under.
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

    /// The cluster of a folder, in the same place as for [`Cluster::at`], if it exists.
    ///
    /// # Errors
    /// As [`Cluster::at`], and if the folders cannot be read.
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

    /// The folder with all files of the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's log. Nothing rotates or truncates it.
    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The port of the server, or of its last run; `None` before the first.
    ///
    /// # Errors
    /// If the cluster belongs to another user.
    pub fn port(&self) -> Result<Option<u16>> {
        let text = self.read("data/port.conf")?.unwrap_or_default();
        Ok(text
            .trim()
            .strip_prefix("port = ")
            .and_then(|port| port.parse().ok()))
    }

    /// The password that the cluster's superuser was created with.
    ///
    /// # Errors
    /// If there is no cluster, or it belongs to another user.
    pub fn password(&self) -> Result<String> {
        self.read("password")?.with_context(|| {
            format!(
                "read the password of the cluster in {}: there is none; make a cluster first",
                self.folder.display()
            )
        })
    }

    /// Whether the cluster exists, running or not.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn exists(&self) -> Result<bool> {
        self.data()
            .try_exists()
            .with_context(|| format!("look for {}", self.data().display()))
    }

    /// Whether a server runs on the cluster.
    ///
    /// # Errors
    /// If the cluster belongs to another user.
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
    /// another process. A server's working folder is its data folder, so that is compared.
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

/// The 64-bit FNV-1a hash. It is part of a folder's name that later builds must find again; std's hasher
/// does not guarantee the same hash.
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
