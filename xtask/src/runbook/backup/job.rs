//! What is backed up, and how.

use jiff::Timestamp;

use crate::Context;
use crate::database::Server;
use crate::database::catalog::Relation;
use crate::error::Failure;
use crate::hint::Hint;
use crate::options::Proof;
use crate::tools::PgDump;

/// What is backed up, with which program, and how it is proven.
pub(super) struct Job<'a> {
    pub(super) ctx: &'a Context,
    pub(super) server: &'a Server,
    pub(super) table: &'a Relation,
    /// The table's qualified name.
    pub(super) qualified: String,
    pub(super) pg_dump: PgDump,
    pub(super) proof: Proof,
    /// When the run that wants it began, by the server's clock.
    pub(super) run_started_at: Timestamp,
}

impl Job<'_> {
    /// The name belongs to another table now that it is locked.
    pub(super) fn was_replaced(&self) -> Failure {
        Failure::failed(format!("`{}` is another table now", self.qualified))
            .cause("it was replaced while the backup waited for it")
            .hint(Hint::again("look at it, then"))
    }
}
