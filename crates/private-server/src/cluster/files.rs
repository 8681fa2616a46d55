//! The files of a cluster: read, written and locked, each as the account that owns it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Cluster;

impl Cluster {
    /// A program of the server, in the cluster's folder and under its account.
    ///
    /// Paths are given relative to that folder: `pg_ctl` and `initdb` put them into a shell's
    /// command line, where a `$` or a quote in a workspace's path would be interpreted.
    pub(super) fn command(&self, program: &Path) -> Command {
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

    /// Writes a file of the server, as the server's account. The script names the file.
    pub(super) fn write(&self, script: &str, text: &str) -> Result<()> {
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

    pub(super) fn read(&self, name: &str) -> Result<Option<String>> {
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

    /// Lets the server's account write a file, and nobody else read it.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        match self.account {
            Some(account) => account.own(path),
            None => Ok(()),
        }
    }

    /// Creates the folder, and waits for any other process that is changing the cluster.
    pub(super) fn lock(&self) -> Result<File> {
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

/// Runs a command to its end. Its standard input is the lock: if we are killed, the next process still
/// waits for the command. The server that `pg_ctl` starts reads from `/dev/null` instead.
pub(super) fn run(command: &mut Command, lock: &File) -> Result<()> {
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

pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    let written = File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))
}

/// Removes a file, or a folder with everything in it. It is no error if it does not exist.
pub(super) fn remove(path: &Path) -> Result<()> {
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
