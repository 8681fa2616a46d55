//! One psql: started first, and a session when it has said which process of the server it has.

use std::path::Path;
use std::time::Duration;

use super::chunk::{Chunk, Reply, SessionError};
use super::command;
use super::process::Process;
use crate::error::Result;
use crate::tools::sql_error::ServerMessage;
use pg_connect::ConnInfo;

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

/// A psql that was started and connects while the caller goes on.
pub(crate) struct Starting(Process);

impl Starting {
    /// Starts psql. Nothing is asked for: no password prompt, no `.psqlrc`.
    ///
    /// # Errors
    /// If psql cannot be started.
    pub(crate) fn start(
        psql: &Path,
        target: &ConnInfo,
        application_name: &str,
        options: &str,
    ) -> Result<Starting> {
        let command = command(psql, target, application_name, options)?;
        Ok(Starting(Process::start(command)?))
    }

    /// Waits until psql is connected.
    ///
    /// # Errors
    /// If it cannot connect.
    pub(crate) fn greet(self, application_name: &str) -> Result<PsqlSession, Box<SessionError>> {
        PsqlSession::greet(self.0, application_name)
    }
}

/// A psql and the session of the server that it is connected to.
pub(crate) struct PsqlSession {
    process: Process,
    backend_pid: i32,
    has_our_settings: bool,
}

impl PsqlSession {
    /// Asks for the server process, for what the session has of the settings, and what this psql can do.
    fn greet(
        mut process: Process,
        application_name: &str,
    ) -> Result<PsqlSession, Box<SessionError>> {
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
        let reply = process.run(&hello, &mut |_| {})?;
        let hello = reply.value.unwrap_or_default();
        let mut parts = hello.splitn(3, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let Ok(backend_pid) = part().parse() else {
            return Err(Box::new(SessionError {
                message: ServerMessage {
                    message: format!("cannot read psql's answer `{hello}`"),
                    ..ServerMessage::default()
                },
                ..SessionError::default()
            }));
        };
        let version: u32 = part().parse().unwrap_or_default();
        process.restrict = knows_restrict(version / 10_000, version % 10_000);
        let wanted: Vec<&str> = SAFE_SETTINGS.iter().map(|(_, value)| *value).collect();
        let has_our_settings = part() == format!("{}/{application_name}", wanted.join("/"));
        Ok(PsqlSession {
            process,
            backend_pid,
            has_our_settings,
        })
    }

    /// Looks again, after its settings were set by statements.
    ///
    /// # Errors
    /// If the connection was lost.
    pub(crate) fn greet_again(
        self,
        application_name: &str,
    ) -> Result<PsqlSession, Box<SessionError>> {
        PsqlSession::greet(self.process, application_name)
    }

    /// The server process behind this session.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Whether the session has the settings that safety depends on: a proxy may have kept them to itself.
    pub(crate) fn has_our_settings(&self) -> bool {
        self.has_our_settings
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
        self.process.run(chunk, look)
    }

    /// Feeds a chunk, behind those that psql has not come to yet.
    pub(crate) fn send(&mut self, chunk: &Chunk<'_>) {
        self.process.send(chunk);
    }

    /// Waits until the oldest chunk that was sent has run. `look` is called with the time so far, every
    /// few milliseconds while it runs: to see who is in the way, to show progress, to cancel.
    ///
    /// # Errors
    /// As [`PsqlSession::run`]; nothing that was sent behind it runs then.
    pub(crate) fn receive(
        &mut self,
        look: &mut dyn FnMut(Duration),
    ) -> Result<Reply, Box<SessionError>> {
        self.process.receive(look)
    }
}

fn knows_restrict(major: u32, minor: u32) -> bool {
    let newest = RESTRICT_SINCE[RESTRICT_SINCE.len() - 1].0;
    major > newest
        || RESTRICT_SINCE
            .iter()
            .any(|&(m, since)| m == major && minor >= since)
}
