//! What a check is: how it looks, what it finds, and what a run is about to change, which some look at.

use crate::Context;
use crate::database::catalog::Relation;
use crate::database::{Database, Server};
use crate::error::Result;
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::script::Script;

/// One precondition.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// The points at which a run makes this check; if it fails, the run stops. The doctor makes every check,
    /// also one that lists none.
    pub(crate) before: &'static [When],
    pub(crate) look: Look,
}

/// The points at which a command looks at what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A run has connected, and does not know yet what it will do.
    Run,
    /// A run knows which migrations it will apply.
    Up,
    /// A run knows which migrations it will undo.
    Down,
    /// As `Up` or `Down`, beside those, where only the plan is printed.
    DryRun,
    /// The tables that will be backed up are known: all those of a run, and each as its turn comes.
    Backup,
    /// A restore has connected.
    Restore,
    /// `db-baseline` has connected.
    Baseline,
    /// `db-repair` is about to ask whether it may write.
    Repair,
}

/// How a check looks, by what it needs for that. An error is its finding: what is wrong, and what to do.
/// Where the server cannot be reached, or what is pending cannot be known, the error is that of the first
/// check that needs it.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// At this machine and what is configured.
    Machine(fn(&Context) -> Result<Found>),
    /// At the server and who is on it.
    Server(fn(&Context, &mut Database) -> Result<Found>),
    /// At what a run is about to change.
    Run(fn(&Context, &mut Database, &Planned<'_>) -> Result<Found>),
}

/// What a check has found that does not fail.
pub(crate) enum Found {
    /// It holds, and how.
    Ok(String),
    Warning(Warning),
}

/// What does not stop a run, and is worth knowing before it.
pub(crate) struct Warning {
    pub(crate) detail: String,
    pub(crate) remedy: Option<Hint>,
    /// How a run says it, where the detail is not enough.
    pub(super) notices: Vec<Notice>,
}

pub(super) struct Notice {
    pub(super) line: String,
    /// What a session runs or ran last, if it is about one: shown only with `--show-queries`.
    pub(super) query: String,
}

impl Found {
    pub(super) fn ok(detail: impl Into<String>) -> Found {
        Found::Ok(detail.into())
    }

    pub(super) fn warning(detail: impl Into<String>, remedy: impl Into<Hint>) -> Found {
        Found::Warning(Warning {
            detail: detail.into(),
            remedy: Some(remedy.into()),
            notices: Vec::new(),
        })
    }

    /// What is only good to know could not be asked.
    pub(super) fn unknown(error: &anyhow::Error) -> Found {
        Found::Warning(Warning {
            detail: format!("{error:#}"),
            remedy: None,
            notices: Vec::new(),
        })
    }
}

/// What a run is about to change, as far as it is known; nothing, where it is not a run.
#[derive(Default)]
pub(crate) struct Planned<'f> {
    /// In the order in which they will run.
    pub(crate) scripts: Vec<&'f Script>,
    pub(crate) affected: AffectedTables,
    /// Whether any migration is in the history.
    pub(crate) has_history: bool,
    /// The tables that it will back up before it changes anything.
    pub(crate) backups: Vec<Relation>,
    pub(crate) no_backup: bool,
    pub(crate) show_queries: bool,
    /// For the doctor, who compares what applied migrations have made too: see [`plan::applied_scripts`].
    ///
    /// [`plan::applied_scripts`]: crate::migration::plan::applied_scripts
    pub(crate) applied: Option<Vec<Option<&'f Script>>>,
}

impl<'f> Planned<'f> {
    pub(crate) fn of(server: &Server, scripts: Vec<&'f Script>) -> Planned<'f> {
        let schema = server.schema.as_deref();
        Planned {
            affected: AffectedTables::from_scripts(scripts.iter().copied(), schema),
            scripts,
            ..Planned::default()
        }
    }
}
