//! Creating a cluster, and removing it.

use std::fs::{self, File};

use anyhow::{Context, Result};

use super::files::{remove, run, write_private};
use super::{Cluster, NewCluster, Stop};
use crate::installation::Installation;

impl Cluster {
    /// Creates the cluster, with a superuser whose password is generated. Every connection needs the
    /// password. If there is a cluster already, changes nothing and returns `false`.
    ///
    /// It may be killed at any moment: an incomplete cluster is not taken for a cluster.
    ///
    /// # Errors
    /// If `initdb` fails; the message contains its output.
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

    /// Stops the server and removes everything that was created. It is no error if there is nothing.
    ///
    /// # Errors
    /// As [`stop`](Self::stop), and if a file cannot be removed.
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
}

/// A password of 128 random bits, as 32 hexadecimal digits: it needs no quotes in a URL or a shell.
fn generate_password() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("ask the system for random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
