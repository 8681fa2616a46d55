//! What a command was asked to do, after its arguments were read: plain values for the layers below.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe.
    Always,
    Never,
}

/// How data is printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document, errors included.
    Json,
}

/// Where things are; what is not given has a default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locations {
    /// May hold a password.
    pub(crate) database_url: Option<String>,
    pub(crate) migrations: Option<PathBuf>,
    pub(crate) backups: Option<PathBuf>,
}

/// How long to wait for locks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locks {
    /// How long one try may wait in a lock queue.
    pub(crate) lock_timeout: Duration,
    /// How long to go on trying.
    pub(crate) lock_deadline: Duration,
    /// How long others may wait for a lock that we hold; `None` for as long as it takes.
    pub(crate) stall_budget: Option<Duration>,
    /// Whether to show the queries of other sessions.
    pub(crate) show_queries: bool,
    /// Whether to end what a killed run has left on the server.
    pub(crate) end_orphans: bool,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks {
            lock_timeout: Duration::from_millis(100),
            lock_deadline: Duration::from_secs(600),
            stall_budget: Some(Duration::from_secs(1)),
            show_queries: false,
            end_orphans: false,
        }
    }
}

/// How a backup is proven.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proof {
    /// Restored into a scratch table; row count and content compared with the table's.
    Restore,
    /// Its row count compared with the table's.
    Rows,
    /// Not proven.
    None,
}

impl Proof {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proof::Restore => "restore",
            Proof::Rows => "rows",
            Proof::None => "none",
        }
    }
}

/// How backups are proven: always against the table in the dump's own snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProofOptions {
    pub(crate) proof: Proof,
    /// Bytes of a table above which [`Proof::Restore`] compares the row count only.
    pub(crate) proof_limit: u64,
}

impl Default for ProofOptions {
    fn default() -> ProofOptions {
        ProofOptions {
            proof: Proof::Restore,
            proof_limit: 1 << 30,
        }
    }
}

impl ProofOptions {
    /// The proof for a table of this many bytes.
    pub(crate) fn of(self, bytes: u64) -> Proof {
        match self.proof {
            Proof::Restore if bytes > self.proof_limit => Proof::Rows,
            proof => proof,
        }
    }
}

/// Whether and how to back up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BackupOptions {
    pub(crate) no_backup: bool,
    pub(crate) proof: ProofOptions,
}

/// Where to report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    /// A file, to be written as Markdown.
    pub(crate) report: Option<PathBuf>,
    /// An address that takes `{"text": …}`.
    pub(crate) notify: Option<String>,
}

/// What a run was asked to do, beyond its goal.
pub(crate) struct RunOptions {
    pub(crate) locks: Locks,
    pub(crate) backup: BackupOptions,
    pub(crate) dry_run: bool,
    pub(crate) reports: Reports,
}
