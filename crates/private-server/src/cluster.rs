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

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::account::Account;
use crate::installation::Installation;

/// Where root's clusters lie whose workspace is closed to the server's account, such as one in
/// `/root`: here, with a hash of the folder's path behind it.
const ELSEWHERE: &str = "/var/lib/private-postgres-";

/// How long a start may take; more than a few seconds only after a crash with much to recover.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a stop may take; PostgreSQL writes all changed pages first.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How many times a start is tried: another program can take the port between our look at it and
/// the server's, and the last processes of a server just killed need a moment to go.
const START_TRIES: u32 = 8;
/// Between two looks at a server that starts or stops.
const PAUSE: Duration = Duration::from_millis(20);

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

    /// Makes the cluster, with a superuser whose password is generated and needed for every
    /// connection. Returns `false`, and changes nothing, where there is one already.
    ///
    /// May be killed at any instant: what is not whole is not taken for a cluster.
    ///
    /// # Errors
    /// Where `initdb` fails; the message carries what it said.
    pub fn create(&self, installation: &Installation, new: &NewCluster<'_>) -> Result<bool> {
        let lock = self.lock()?;
        if self.exists()? {
            return Ok(false);
        }
        self.initdb(installation, new, &lock)
            .with_context(|| format!("make a database cluster in {}", self.folder.display()))?;
        Ok(true)
    }

    fn initdb(&self, installation: &Installation, new: &NewCluster<'_>, lock: &File) -> Result<()> {
        let partial = self.folder.join("data.partial");
        remove(&partial)?;
        fs::create_dir(&partial)
            .with_context(|| format!("make the folder {}", partial.display()))?;
        self.give(&partial)?;

        let password = self.folder.join("password");
        remove(&password)?;
        write_private(&password, &generate_password()?)?;
        self.give(&password)?;

        let mut initdb = self.command(&installation.program("initdb"));
        initdb
            .args([
                "--pgdata=data.partial",
                "--pwfile=password",
                "--auth=scram-sha-256",
                "--no-instructions",
            ])
            .arg(format!("--username={}", new.superuser))
            // The C locale is on every machine and never changes: with another one, text sorts as the
            // system's C library has it, and an upgrade of that library corrupts indexes on text.
            .args(["--encoding=UTF8", "--locale=C"])
            .args(new.throwaway.then_some("--no-sync"));
        run(&mut initdb, lock)?;

        let mut conf = String::from("\n# Written by private-server when it made this cluster.\n");
        // No Unix socket: its path may have 107 bytes at most, and a workspace's may be longer.
        let base = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
        ];
        // Fast, and safe against a kill of any process; only the whole machine's end could lose data.
        let fast = [("fsync", "off"), ("full_page_writes", "off")];
        let fast = fast.iter().filter(|_| new.throwaway);
        for (name, value) in base.iter().chain(fast).chain(new.settings) {
            conf += &format!(
                "{name} = '{}'\n",
                value.replace('\\', "\\\\").replace('\'', "''")
            );
        }
        conf += "include_if_exists = 'port.conf'\n";
        self.write("cat >>data.partial/postgresql.conf", &conf)?;

        fs::rename(&partial, self.data())
            .with_context(|| format!("rename {} to data", partial.display()))
    }

    /// Starts the server, if it does not run, with the one of `installations` that has the cluster's
    /// major version. Returns its port on 127.0.0.1: the one it had before, unless another program
    /// has taken that.
    ///
    /// The server is a session of its own and holds none of our files: neither Ctrl-C here nor the
    /// end of our terminal reaches it.
    ///
    /// # Errors
    /// Where there is no cluster, no fitting installation, or the server does not start; then the
    /// message carries the last lines of its log.
    pub fn start(&self, installations: &[Installation]) -> Result<u16> {
        let attempted = || format!("start the PostgreSQL server in {}", self.folder.display());
        ensure!(
            self.exists()?,
            "{}: there is no cluster; make one first",
            attempted()
        );
        let lock = self.lock()?;
        let begin = Instant::now();
        let mut tried = 0;
        loop {
            if let Status::Running { port, .. } = self.status()? {
                if self.pid_file()?.is_some_and(|file| file.ready) {
                    return Ok(port);
                }
                // Still recovering from a crash, and started by a run that did not wait for it.
                still_in(START_LIMIT, begin).with_context(attempted)?;
                sleep(PAUSE);
                continue;
            }
            // PostgreSQL takes this leftover of a crash for a running server where it is empty, or
            // where its process id has since gone to another process of the same user.
            remove(&self.data().join("postmaster.pid"))?;
            if !self.port()?.is_some_and(is_free) {
                self.write("cat >data/port.conf", &format!("port = {}\n", free_port()?))?;
            }
            tried += 1;
            match self.pg_ctl_start(self.fitting(installations)?, &lock) {
                Err(error) if tried == START_TRIES => return Err(error.context(attempted())),
                Err(_) => sleep(PAUSE * tried),
                Ok(()) => {}
            }
        }
    }

    fn pg_ctl_start(&self, installation: &Installation, lock: &File) -> Result<()> {
        let log = self.log();
        if !log.exists() {
            write_private(&log, "")?;
        }
        self.give(&log)?;
        let before = fs::metadata(&log).map_or(0, |log| log.len() as usize);

        let mut pg_ctl = self.command(&installation.program("pg_ctl"));
        pg_ctl
            .args([
                "start",
                "--wait",
                "--silent",
                "--pgdata=data",
                "--log=server.log",
            ])
            .arg(format!("--timeout={}", START_LIMIT.as_secs()));
        run(&mut pg_ctl, lock).with_context(|| {
            let all = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(all.get(before..).unwrap_or_default());
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(20)..];
            format!("the end of {}:\n{}", log.display(), last.join("\n"))
        })
    }

    /// Stops the server, if it runs, and waits until it has ended. Needs no installation.
    ///
    /// # Errors
    /// Where it cannot be signalled, or does not end within a minute.
    pub fn stop(&self, how: Stop) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.stop_locked(how)
    }

    fn stop_locked(&self, how: Stop) -> Result<()> {
        let Status::Running { pid, .. } = self.status()? else {
            return Ok(());
        };
        // The signals are part of PostgreSQL's interface: "Shutting Down the Server" in its manual.
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        let attempted = || {
            format!(
                "stop the PostgreSQL server in {} (process {pid})",
                self.folder.display()
            )
        };
        let process = Pid::from_raw(pid).with_context(attempted)?;
        kill_process(process, signal).with_context(attempted)?;
        let begin = Instant::now();
        while let Status::Running { .. } = self.status()? {
            still_in(STOP_LIMIT, begin).with_context(attempted)?;
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Stops the server and removes everything that was made. Nothing there is no error.
    ///
    /// # Errors
    /// As [`stop`](Self::stop), and where a file cannot be removed.
    pub fn destroy(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.stop_locked(Stop::Immediate)?;
        let partial = self.folder.join("data.partial");
        remove(&partial)?;
        if self.exists()? {
            // So that a kill in the midst of this leaves no half of a cluster.
            fs::rename(self.data(), &partial)
                .with_context(|| format!("rename {} to data.partial", self.data().display()))?;
        }
        // The lock last: who waits for it then finds that there is nothing left.
        for name in ["data.partial", "server.log", "password", "lock"] {
            remove(&self.folder.join(name))?;
        }
        // It stays where it holds anything that is not ours.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
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

    /// The installation whose server can run the cluster.
    fn fitting<'a>(&self, installations: &'a [Installation]) -> Result<&'a Installation> {
        let major = self.read("data/PG_VERSION")?.unwrap_or_default();
        let major = major.trim();
        let servers = || {
            installations
                .iter()
                .filter(|installation| installation.has_server())
        };
        servers()
            .find(|installation| installation.major.to_string() == major)
            .with_context(|| {
                let found: Vec<_> = servers()
                    .map(|server| format!("{} in {}", server.major, server.bin.display()))
                    .collect();
                let found = if found.is_empty() {
                    "none".to_owned()
                } else {
                    found.join(", ")
                };
                format!(
                    "the cluster in {} is of PostgreSQL {major}, servers found: {found}; \
                 install PostgreSQL {major}, or destroy the cluster and make a new one",
                    self.folder.display()
                )
            })
    }

    /// A program of the server, in the cluster's folder and under its account.
    ///
    /// Paths are given relative to that folder: `pg_ctl` and `initdb` put them into a shell's
    /// command line, where a `$` or a quote in a workspace's path would come to life.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Nothing of our environment, which may hold the password of another database: the server would
        // keep it for as long as it runs. On macOS it does not start under a locale that is not set.
        command
            .current_dir(&self.folder)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        if let Some(account) = self.account {
            account.take(&mut command);
        }
        command
    }

    /// Writes a file of the server's, as the server's account. The script says which.
    fn write(&self, script: &str, text: &str) -> Result<()> {
        let attempted = || format!("run {script} in {}", self.folder.display());
        let mut shell = self.command(Path::new("/bin/sh"));
        shell.args(["-c", script]).stdin(Stdio::piped());
        let mut child = shell.spawn().with_context(attempted)?;
        // Taken, so that it is closed and `cat` ends.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).with_context(attempted)?;
        }
        let status = child.wait().with_context(attempted)?;
        ensure!(status.success(), "{}: {status}", attempted());
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!(
                    "read {}; if the cluster is another user's, work as that user",
                    path.display()
                )
            }),
        }
    }

    /// Makes a file one that the server's account can write, and nobody else can read.
    fn give(&self, path: &Path) -> Result<()> {
        match self.account {
            Some(account) => account.own(path),
            None => Ok(()),
        }
    }

    /// Makes the folder, and waits for whoever else is changing the cluster.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let attempted = || format!("lock {}", path.display());
        loop {
            self.make_folder().with_context(|| {
                format!(
                    "make the folder {}; if it is another user's, work as that user",
                    self.folder.display()
                )
            })?;
            let mut options = File::options();
            let file = options
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .with_context(attempted)?;
            file.lock().with_context(attempted)?;
            // Another process may have destroyed the cluster, this file with it, while we waited.
            let ours = file.metadata().with_context(attempted)?;
            if fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
            {
                return Ok(file);
            }
        }
    }

    fn make_folder(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        // The server's account only passes through root's folder.
        let mode = if self.account.is_some() { 0o711 } else { 0o700 };
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(mode))?;
        Ok(())
    }
}

/// A password of 128 random bits, as 32 hexadecimal digits: nothing to quote in a URL or a shell.
fn generate_password() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("ask the system for random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Runs a command to its end. Its standard input is the lock: should we be killed, whoever comes
/// next still waits for it. The server that `pg_ctl` starts reads from `/dev/null` instead.
fn run(command: &mut Command, lock: &File) -> Result<()> {
    let program = command.get_program().display().to_string();
    let attempted = || format!("run {program}");
    let lock = lock.try_clone().with_context(attempted)?;
    let output = command.stdin(lock).output().with_context(attempted)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("run {program}: {}\n{}", output.status, said.trim_end());
    }
    Ok(())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let written = File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))
}

/// Removes a file or a folder with all in it; that it is not there is no error.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// An error, once the time is over.
fn still_in(limit: Duration, begin: Instant) -> Result<()> {
    ensure!(
        begin.elapsed() < limit,
        "still waiting after {} s; the server's log says more",
        limit.as_secs()
    );
    Ok(())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port that no program listens on, chosen by the kernel.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.context("look for a free port on 127.0.0.1")?.port())
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
