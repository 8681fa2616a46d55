//! An index is judged by its definition and its state, not by its name: leftovers of an interrupted
//! build are dropped and built again.

use super::apply::Runner;
use crate::database::Database;
use crate::database::catalog;
use crate::error::{Failure, Result};
use crate::migration::effects::{Effect, ObjectName};
use crate::migration::script::Script;

/// Before a script runs: drops what an interrupted build of its indexes has left.
///
/// # Errors
/// If it cannot be dropped.
pub(crate) fn before(runner: &mut Runner<'_>, script: &Script) -> Result {
    for name in built_concurrently(script) {
        if let Some(state) = catalog::index_state(runner.db, &name)?
            && !state.usable()
        {
            let index = state.name.to_string();
            runner.ui.info(
                "Repair",
                format_args!("index `{index}` is INVALID, left by an interrupted build: dropping it to build it again"),
            );
            runner.statement(
                &format!("cannot drop the INVALID index `{index}`"),
                &format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
            )?;
        }
    }
    Ok(())
}

/// After a script ran: its indexes are there and valid.
///
/// # Errors
/// If one is not.
pub(crate) fn after(db: &mut Database, script: &Script) -> Result {
    for name in built_concurrently(script) {
        if let Some(state) = catalog::index_state(db, &name)?
            && !state.usable()
        {
            return Err(
                Failure::failed(format!("index `{}` is INVALID", state.name))
                    .cause("its build did not end well")
                    .hint("cargo xtask db-migrate")
                    .into(),
            );
        }
    }
    Ok(())
}

/// The named indexes that a script builds concurrently, in the schema of their table.
fn built_concurrently(script: &Script) -> Vec<ObjectName> {
    script
        .effects()
        .flat_map(|(_, effects)| effects)
        .filter_map(|effect| match effect {
            Effect::CreateIndex {
                name: Some(name),
                table,
                concurrently: true,
                ..
            } => Some(ObjectName {
                schema: table.schema,
                name,
            }),
            _ => None,
        })
        .collect()
}
