//! The process of a psql: fed chunk by chunk through its stdin, answering with markers on stderr.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::chunk::{Chunk, Reply, SessionError};
use crate::error::Result;
use crate::tools;
use crate::tools::sql_error::{self, ServerMessage};

/// How often the caller looks at the server while a chunk runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is remembered of a chunk that psql was fed, until it has run.
#[derive(Debug, Default)]
struct Sent {
    /// The lines of psql's input, from 1, that hold its body.
    body: Range<usize>,
    /// Those that hold our commands behind it.
    after: Range<usize>,
    has_lead: bool,
    wants_value: bool,
}

/// A running psql, connected or not.
pub(super) struct Process {
    child: Child,
    /// To the thread that feeds psql: a pipe takes 64 KiB, and psql reads on when it has run what it has.
    stdin: Option<Sender<String>>,
    stderr: Receiver<String>,
    /// Marks our lines on stderr, so that no message can be taken for one.
    nonce: String,
    /// Lines of stdin that psql has been fed.
    lines: usize,
    /// What it was fed and has not answered.
    sent: VecDeque<Sent>,
    /// Whether this psql knows `\restrict`.
    pub(super) restrict: bool,
}

impl Process {
    /// Starts it: it connects, and ends at the first error in what it is fed.
    pub(super) fn start(mut command: Command) -> Result<Process> {
        let nonce = tools::nonce()?;
        command
            .args(["--quiet", "--no-align", "--tuples-only", "--file=-"])
            .args(["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for us to hear: we then cancel on the server what psql waits for.
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", command.get_program().display()))?;
        let pipe = child.stdin.take();
        let (stdin, texts) = channel::<String>();
        std::thread::spawn(move || feed(pipe, &texts));
        let (sender, stderr) = channel();
        let lines = child.stderr.take().map(BufReader::new);
        std::thread::spawn(move || {
            for line in lines.into_iter().flat_map(|mut pipe| {
                std::iter::from_fn(move || {
                    let mut line = Vec::new();
                    let read = pipe.read_until(b'\n', &mut line).ok()?;
                    (read > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
                })
            }) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Process {
            child,
            stdin: Some(stdin),
            stderr,
            nonce,
            lines: 0,
            sent: VecDeque::new(),
            restrict: false,
        })
    }

    /// Feeds a chunk and waits until it has run, see [`Process::receive`].
    ///
    /// # Errors
    /// If a statement failed or the connection was lost; the session is over then.
    pub(super) fn run(
        &mut self,
        chunk: &Chunk<'_>,
        look: &mut dyn FnMut(Duration),
    ) -> Result<Reply, Box<SessionError>> {
        self.send(chunk);
        self.receive(look)
    }

    /// Feeds a chunk, behind those that psql has not come to yet.
    pub(super) fn send(&mut self, chunk: &Chunk<'_>) {
        let (text, sent) = self.compose(chunk);
        self.lines += text.matches('\n').count();
        self.sent.push_back(sent);
        if let Some(stdin) = &self.stdin {
            // Nobody takes it where psql is gone already; its stderr says why.
            let _ = stdin.send(text);
        }
    }

    /// Waits until the oldest chunk that was sent has run. `look` is called with the time so far,
    /// every [`LOOK_EVERY`] while it runs: to see who is in the way, to show progress, to cancel.
    ///
    /// # Errors
    /// As [`Process::run`]; nothing that was sent behind it runs then.
    pub(super) fn receive(
        &mut self,
        look: &mut dyn FnMut(Duration),
    ) -> Result<Reply, Box<SessionError>> {
        let started = Instant::now();
        let sent = self.sent.pop_front().unwrap_or_default();
        let mut stderr = Vec::new();
        let marker = format!("{}:", self.nonce);
        loop {
            let line = match self.stderr.recv_timeout(LOOK_EVERY) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    look(started.elapsed());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.post_mortem(&stderr, &sent));
                }
            };
            if let Some(value) = line.strip_prefix(&marker) {
                return Ok(Reply {
                    notices: sql_error::parse(&stderr.join("\n")),
                    value: sent.wants_value.then(|| value.trim_start().to_owned()),
                });
            }
            stderr.push(line);
        }
    }

    /// The text for psql, and what to remember of it.
    fn compose(&self, chunk: &Chunk<'_>) -> (String, Sent) {
        let mut text = chunk.before.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if self.restrict && chunk.body.is_some() {
            text.push_str(&format!("\\restrict {}\n", self.nonce));
        }
        if !chunk.lead.is_empty() {
            text.push_str(&chunk.lead);
            text.push('\n');
        }
        let body_starts = self.lines + text.matches('\n').count() + 1;
        text.push_str(chunk.body.unwrap_or_default());
        if self.restrict && chunk.body.is_some() {
            text.push_str(&format!("\\unrestrict {}\n", self.nonce));
        }
        let after_starts = self.lines + text.matches('\n').count() + 1;
        text.push_str(&chunk.after);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let value = chunk
            .value
            .map(|name| format!(" :{name}"))
            .unwrap_or_default();
        text.push_str(&format!("\\warn {}:{value}\n", self.nonce));
        let sent = Sent {
            body: body_starts
                ..body_starts + chunk.body.map_or(0, |body| body.matches('\n').count()),
            after: after_starts..after_starts + chunk.after.matches('\n').count(),
            has_lead: !chunk.lead.is_empty(),
            wants_value: chunk.value.is_some(),
        };
        (text, sent)
    }

    /// psql has ended: what it said last is the reason.
    fn post_mortem(&mut self, stderr: &[String], sent: &Sent) -> Box<SessionError> {
        self.stdin = None;
        let status = self.child.wait();
        let mut messages = sql_error::parse(&stderr.join("\n"));
        // A lost connection is told in several messages; the one with an SQLSTATE says why.
        let telling = messages.iter().rposition(|message| {
            message
                .sqlstate
                .as_deref()
                .is_some_and(|code| !is_notice(code))
        });
        let message = match telling {
            Some(index) => messages.swap_remove(index),
            None => messages.pop().unwrap_or_else(|| ServerMessage {
                message: match status {
                    Ok(status) => format!("psql ended early ({status})"),
                    Err(error) => format!("psql ended early ({error})"),
                },
                ..ServerMessage::default()
            }),
        };
        let line_in = |lines: &Range<usize>| {
            let line = message.input_line.filter(|line| lines.contains(line))?;
            Some(line - lines.start + 1)
        };
        let (body_line, after_line) = (line_in(&sent.body), line_in(&sent.after));
        Box::new(SessionError {
            message,
            body_line,
            after_line,
            statement: None,
            has_lead: sent.has_lead,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without its stdin psql ends by itself after the statement it is at; a session that is
        // dropped in the middle of one has been cancelled on the server before.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Writes what psql is fed, until nothing more comes or psql is gone; then the pipe is closed.
fn feed(pipe: Option<ChildStdin>, texts: &Receiver<String>) {
    let Some(mut pipe) = pipe else { return };
    for text in texts {
        if pipe
            .write_all(text.as_bytes())
            .and_then(|()| pipe.flush())
            .is_err()
        {
            return;
        }
    }
}

/// Completion (00), warnings (01) and "no data" (02) are no errors; 42701, 42P06 and 42P07 also come
/// as notices of `IF NOT EXISTS`, but then psql goes on.
fn is_notice(sqlstate: &str) -> bool {
    ["00", "01", "02"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}
