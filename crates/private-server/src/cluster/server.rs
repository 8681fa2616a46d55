//! Starting and stopping the server of a cluster.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::files::{remove, run, write_private};
use super::{Cluster, Status, Stop};
use crate::installation::Installation;

/// How long a start may take. It takes more than a few seconds only after a crash, for recovery.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a stop may take; PostgreSQL writes all changed pages first.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How many times a start is tried: another program can take the port after we have found it free, and
/// the processes of a server that was just killed need a moment to end.
const START_TRIES: u32 = 8;
/// How often a server that starts or stops is checked.
const PAUSE: Duration = Duration::from_millis(20);

impl Cluster {
    /// Starts the server, if it does not run, with the one of `installations` that has the cluster's
    /// major version. Returns its port on 127.0.0.1. It is the previous port, unless another program
    /// uses that.
    ///
    /// The server has a process session of its own and none of our open files, so neither Ctrl-C nor
    /// closing the terminal stops it.
    ///
    /// # Errors
    /// If there is no cluster or no installation of its version, or if the server does not start. In that
    /// case the message contains the last lines of its log.
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
    /// If it cannot be signalled, or does not end within a minute.
    pub fn stop(&self, how: Stop) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.stop_locked(how)
    }

    pub(super) fn stop_locked(&self, how: Stop) -> Result<()> {
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

    /// The installation whose server can run the cluster.
    fn fitting<'a>(&self, installations: &'a [Installation]) -> Result<&'a Installation> {
        let major = self.read("data/PG_VERSION")?.unwrap_or_default();
        let major = major.trim();
        // Asked of the servers themselves: their folders may hold clients of another version.
        let servers: Vec<_> = installations
            .iter()
            .filter(|installation| installation.has_server())
            .filter_map(|installation| {
                Some((
                    installation,
                    installation.version_of("postgres").ok()?.major,
                ))
            })
            .collect();
        let fitting = servers
            .iter()
            .find(|(_, server)| server.to_string() == major);
        fitting
            .map(|(installation, _)| *installation)
            .with_context(|| {
                let found: Vec<_> = servers
                    .iter()
                    .map(|(installation, server)| {
                        format!("{server} in {}", installation.bin.display())
                    })
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
}

/// An error if the deadline has passed.
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
