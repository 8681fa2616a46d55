//! What psql is fed, and what comes of it.

use crate::tools::sql_error::ServerMessage;

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
    /// The SQL of a file, run in psql's restricted mode: as `migration::sql::for_psql` made it.
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
