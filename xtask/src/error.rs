//! What a failure is: its kind (the exit code), its causes, the state it leaves and the next
//! command. Rendering is in `ui`; which hint belongs to which SQLSTATE is in `runbook::failures`.

use std::fmt;

use crate::hint::Hint;

/// `anyhow` carries errors; a [`Failure`] somewhere in the chain gives them a kind and a hint.
pub(crate) type Result<T = (), E = anyhow::Error> = std::result::Result<T, E>;

/// The kinds of failure that a script can tell apart by the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The database, a tool or a file said no.
    #[default]
    Failed,
    /// Wrong usage, or a migration folder or backup that cannot be understood.
    Usage,
    /// A check found something.
    Finding,
    /// A lock could not be acquired within its deadline; nothing changed.
    Busy,
    /// Interrupted by a person or a supervisor.
    Interrupted,
}

impl Kind {
    /// The exit code of the command contract.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Finding => 3,
            Kind::Busy => 4,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure as a person reads it: what was attempted, why not, where things stand, what to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// Lowercase phrase, objects in backticks.
    pub(crate) message: String,
    /// Why, outermost first.
    pub(crate) causes: Vec<String>,
    /// What PostgreSQL advises itself.
    pub(crate) server_hint: Option<String>,
    /// The place in a migration file, with a caret, as several lines.
    pub(crate) excerpt: Option<String>,
    /// After a partial failure: what was applied, what was undone, what is left.
    pub(crate) state: Vec<String>,
    /// What to do next.
    pub(crate) hints: Vec<Hint>,
    /// The five characters of PostgreSQL's error code.
    pub(crate) sqlstate: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            ..Failure::default()
        }
    }

    /// The database, a tool or a file said no (exit 1).
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Wrong usage, or a folder that cannot be understood (exit 2).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A check found something (exit 3).
    pub(crate) fn finding(message: impl Into<String>) -> Self {
        Self::new(Kind::Finding, message)
    }

    /// A lock could not be acquired in time (exit 4).
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// Interrupted (exit 130).
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, message)
    }

    /// What was attempted, for which all that is known so far is the cause.
    pub(crate) fn attempted(mut self, what: impl Into<String>) -> Self {
        let cause = std::mem::replace(&mut self.message, what.into());
        self.causes.insert(0, cause);
        self
    }

    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    pub(crate) fn state(mut self, state: impl Into<String>) -> Self {
        self.state.push(state.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Message, causes and PostgreSQL's hint in one line.
    pub(crate) fn one_line(&self) -> String {
        let mut text = self.message.clone();
        for cause in &self.causes {
            text.push_str(&format!("; {cause}"));
        }
        if let Some(hint) = &self.server_hint {
            text.push_str(&format!("; server hint: {hint}"));
        }
        text
    }

    pub(crate) fn sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.sqlstate = Some(sqlstate.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
