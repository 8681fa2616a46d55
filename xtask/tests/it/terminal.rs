//! A terminal with a program in it, and a person's keys.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::common::PATIENCE;

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

/// A pseudo-terminal, the controlling one of the program in it: its keys make signals.
pub(crate) struct Terminal {
    /// `script` (util-linux), which has the other end.
    child: Child,
    keys: Option<ChildStdin>,
    screen: Receiver<Vec<u8>>,
    said: String,
    /// How much of `said` has been looked for.
    seen: usize,
}

impl Terminal {
    /// Runs a command in a terminal of its own; `None` where that cannot be had.
    pub(crate) fn run(command: &Command) -> Option<Terminal> {
        let version = Command::new("script").arg("--version").output();
        let is_linux =
            version.is_ok_and(|output| output.stdout.starts_with(b"script from util-linux"));
        if !is_linux {
            return None;
        }
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_str().expect("UTF-8")))
            .collect();
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--flush", "--command"])
            .arg(format!("exec {}", words.join(" ")))
            .arg("/dev/null")
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("SHELL", "/bin/sh")
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(folder) = command.get_current_dir() {
            script.current_dir(folder);
        }
        let mut child = script.spawn().expect("script starts");
        let keys = child.stdin.take();
        let mut from = child.stdout.take().expect("a pipe");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Terminal {
            child,
            keys,
            screen,
            said: String::new(),
            seen: 0,
        })
    }

    /// Waits until this is on the screen, after what was waited for before.
    #[track_caller]
    pub(crate) fn read_until(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said[self.seen..].find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{error}: no {wanted:?} in\n{}", self.said),
            }
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        let terminal = self.keys.as_mut().expect("open");
        terminal.write_all(keys.as_bytes()).expect("writes");
        terminal.flush().expect("writes");
    }

    /// Waits for the program's end: its exit code, and all that was on the screen.
    #[track_caller]
    pub(crate) fn end(mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(bytes) = self.screen.recv_timeout(left()) {
            self.said.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert!(Instant::now() < deadline, "it goes on:\n{}", self.said);
        let status = self.child.wait().expect("ends");
        (status.code().unwrap_or(-1), std::mem::take(&mut self.said))
    }
}

impl Drop for Terminal {
    /// After a failed expectation: `script` ends the program with itself.
    fn drop(&mut self) {
        self.keys = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
