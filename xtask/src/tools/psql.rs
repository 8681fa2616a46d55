//! One psql session: fed chunk by chunk through its stdin, answering with markers on stderr.
//!
//! psql runs what it is fed statement by statement and ends at the first error
//! (`ON_ERROR_STOP`), so nothing after an error ever runs. Killed with us or left alone, it reads
//! the end of its input and disconnects; the server then rolls back what was not committed.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use xshell::{Shell, cmd};

use super::sql_error::{self, ServerMessage};
use crate::error::Result;
use crate::interrupt;
use pg_connect::ConnInfo;

/// How often the caller looks at the server while a chunk runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Client versions that know `\restrict` (the fix of CVE-2025-8714): major, first minor.
const RESTRICT_SINCE: [(u32, u32); 6] = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6), (18, 0)];

/// Settings that safety depends on, as the server shows them.
const SAFE_SETTINGS: [(&str, &str); 5] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "1min"),
    ("standard_conforming_strings", "on"),
    ("client_encoding", "UTF8"),
];

/// What a chunk came to.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Notices and warnings of the server.
    pub(crate) notices: Vec<ServerMessage>,
    /// What the chunk wrote with [`Chunk::value`], if it asked for a value.
    pub(crate) value: Option<String>,
}

/// Why a chunk did not end well. The session is gone.
#[derive(Debug, Default)]
pub(crate) struct SessionError {
    /// What the server or psql said.
    pub(crate) message: ServerMessage,
    /// The line of the failing statement's end in the chunk's untrusted text, from 1, if it was
    /// there that the error arose.
    pub(crate) body_line: Option<usize>,
    /// Likewise in [`Chunk::after`].
    pub(crate) after_line: Option<usize>,
    /// The byte of its file at which the failing statement starts, where it was fed alone.
    pub(crate) statement: Option<usize>,
    /// Whether [`Chunk::lead`] stood before the body's first statement.
    pub(crate) has_lead: bool,
}

impl Reply {
    /// The message with this SQLSTATE, the last if there are several.
    pub(crate) fn error(&self, sqlstate: &str) -> ServerMessage {
        let with_code = |message: &&ServerMessage| message.sqlstate.as_deref() == Some(sqlstate);
        self.notices
            .iter()
            .rfind(with_code)
            .cloned()
            .unwrap_or_else(|| ServerMessage {
                sqlstate: Some(sqlstate.to_owned()),
                message: "the statement failed".to_owned(),
                ..ServerMessage::default()
            })
    }
}

/// What is fed to psql at once: our own commands around a migration's text.
#[derive(Debug, Default)]
pub(crate) struct Chunk<'a> {
    /// Our own commands before it.
    pub(crate) before: String,
    /// One line of our own commands, each ended by `\;`: they share the round trip of the body's first
    /// statement, in whose positions this is line 1.
    pub(crate) lead: String,
    /// A migration's text, run in psql's restricted mode, as `migration::sql::for_psql` made it.
    pub(crate) body: Option<&'a str>,
    /// Our own commands after it.
    pub(crate) after: String,
    /// A psql variable (set by `after`) whose value is wanted.
    pub(crate) value: Option<&'static str>,
}

impl Chunk<'_> {
    /// One statement that the session survives if it fails: the value is its SQLSTATE.
    ///
    /// Where its input ends psql runs what it has of a statement. Outside of a transaction half a DELETE
    /// would take effect, without its WHERE, if we are killed while we feed it. So it goes in as one
    /// quoted word, which psql takes whole or, where its quote never ends, not at all.
    pub(crate) fn one_statement(before: String, statement: &str) -> Chunk<'static> {
        let quoted = statement
            .replace('\\', "\\\\")
            .replace('\'', "''")
            .replace('\n', "\\n")
            .replace('\r', "\\r");
        Chunk {
            before: format!("{before}\\set ON_ERROR_STOP 0\n\\set statement '{quoted}'\n"),
            body: Some(":statement\n"),
            after: "\\set ON_ERROR_STOP 1\n".to_owned(),
            value: Some("SQLSTATE"),
            ..Chunk::default()
        }
    }
}

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

/// A running psql.
pub(crate) struct PsqlSession {
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
    restrict: bool,
    backend_pid: i32,
}

impl PsqlSession {
    /// Starts psql, which connects while the caller goes on; [`PsqlSession::greet`] must follow. Nothing
    /// is asked for: no password prompt, no `.psqlrc`.
    ///
    /// # Errors
    /// If psql cannot be started.
    pub(crate) fn start(
        psql: &Path,
        target: &ConnInfo,
        application_name: &str,
        options: &str,
    ) -> Result<PsqlSession> {
        let mut command = command(psql, target, application_name, options)?;
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
            .with_context(|| format!("cannot start `{}`", psql.display()))?;
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
        Ok(PsqlSession {
            child,
            stdin: Some(stdin),
            stderr,
            nonce: super::nonce()?,
            lines: 0,
            sent: VecDeque::new(),
            restrict: false,
            backend_pid: 0,
        })
    }

    /// Waits until psql is connected, and learns the backend's process id and what this psql can do.
    /// Returns whether the session has the settings that safety depends on: a proxy may have kept them
    /// to itself.
    ///
    /// # Errors
    /// If it cannot connect.
    pub(crate) fn greet(&mut self, application_name: &str) -> Result<bool, Box<SessionError>> {
        let settings: Vec<String> = SAFE_SETTINGS
            .iter()
            .map(|(name, _)| format!("pg_catalog.current_setting('{name}')"))
            .collect();
        let hello = Chunk {
            after: format!(
                "SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.concat_ws('/', {}, pg_catalog.current_setting('application_name')) AS settings \\gset\n\
                 \\set hello :pid ' ' :VERSION_NUM ' ' :settings\n",
                settings.join(", ")
            ),
            value: Some("hello"),
            ..Chunk::default()
        };
        let reply = self.run(&hello, &mut |_| {})?;
        let hello = reply.value.unwrap_or_default();
        let mut parts = hello.splitn(3, ' ');
        let mut part = || parts.next().unwrap_or_default();
        self.backend_pid = part().parse().unwrap_or_default();
        let version: u32 = part().parse().unwrap_or_default();
        self.restrict = knows_restrict(version / 10_000, version % 10_000);
        let wanted: Vec<&str> = SAFE_SETTINGS.iter().map(|(_, value)| *value).collect();
        Ok(part() == format!("{}/{application_name}", wanted.join("/")))
    }

    /// The server process behind this session.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Feeds a chunk and waits until it has run, see [`PsqlSession::receive`].
    ///
    /// # Errors
    /// If a statement failed or the connection was lost; the session is over then.
    pub(crate) fn run(
        &mut self,
        chunk: &Chunk<'_>,
        look: &mut dyn FnMut(Duration),
    ) -> Result<Reply, Box<SessionError>> {
        self.send(chunk);
        self.receive(look)
    }

    /// Feeds a chunk, behind those that psql has not come to yet.
    pub(crate) fn send(&mut self, chunk: &Chunk<'_>) {
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
    /// As [`PsqlSession::run`]; nothing that was sent behind it runs then.
    pub(crate) fn receive(
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

    /// Ends the session in order.
    pub(crate) fn close(mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

impl Drop for PsqlSession {
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

fn knows_restrict(major: u32, minor: u32) -> bool {
    let newest = RESTRICT_SINCE[RESTRICT_SINCE.len() - 1].0;
    major > newest
        || RESTRICT_SINCE
            .iter()
            .any(|&(m, since)| m == major && minor >= since)
}

/// psql on this database with nothing of the environment left to chance, and no password in argv.
///
/// # Errors
/// If the shell has no current folder.
pub(crate) fn command(
    psql: &Path,
    target: &ConnInfo,
    application_name: &str,
    options: &str,
) -> Result<Command> {
    let sh = Shell::new()?;
    let conninfo = super::conninfo(target, application_name, options, "UTF8");
    let command = cmd!(sh, "{psql} --no-psqlrc --no-password --dbname={conninfo}").into();
    Ok(super::with_target(command, target))
}

/// Runs psql for a person, with their own settings and terminal.
///
/// # Errors
/// If psql cannot be started.
pub(crate) fn interactive(
    psql: &Path,
    target: &ConnInfo,
    arguments: &[String],
) -> Result<std::process::ExitStatus> {
    let sh = Shell::new()?;
    let conninfo = target.psql_conninfo();
    let command: Command = cmd!(sh, "{psql} --dbname={conninfo} {arguments...}").into();
    interrupt::leave_to_child();
    // A person's psql speaks the person's language.
    super::with_target(command, target)
        .env_remove("LC_ALL")
        .status()
        .with_context(|| format!("cannot start `{}`", psql.display()))
}
