//! One backup's part in a restore; several share a transaction.

use super::compare::Comparison;
use super::plan::Plan;
use super::session::MergeSession;
use crate::error::Result;

/// One backup's part in a restore: what goes where, and what differs.
pub(super) struct Part {
    pub(super) plan: Plan,
    pub(super) compared: Comparison,
}

/// `a` and `b`, to name them in a sentence.
pub(super) fn tables_of(parts: &[Part]) -> String {
    let names = parts.iter().map(|part| format!("`{}`", part.plan.table));
    names.collect::<Vec<_>>().join(" and ")
}

/// The values that must be unique and would be there twice, of all tables.
pub(super) fn conflicts(parts: &[Part], session: &mut MergeSession) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in parts {
        found.extend(part.plan.conflicts(&mut session.client)?);
    }
    Ok(found)
}
