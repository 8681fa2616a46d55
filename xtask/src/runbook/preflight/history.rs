//! The history: whether it can be kept, and agrees with the files and the database.

use super::check::{Check, Found, Look, Planned, When};
use crate::database::history::{self, Table};
use crate::database::{Database, catalog};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::ui;

/// This role can keep the history.
pub(super) const RIGHTS: Check = Check {
    name: "history",
    before: &[When::Up, When::Down, When::Baseline],
    look: Look::Server(|_, db| {
        let table = may_keep_history(db)?;
        Ok(Found::ok(format!("`{table}` can be written")))
    }),
};

/// A run reads both as it plans: where they disagree there is no plan.
pub(super) const FILES: Check = Check {
    name: "files and history",
    before: &[],
    look: Look::Run(|_, _, planned| {
        let pending = ui::count(planned.scripts.len() as u64);
        Ok(Found::ok(format!("they agree; {pending} pending")))
    }),
};

/// The tables that a run is going to create are not there. If they are, the database is one that
/// existed before this tool.
pub(super) const NEW_TABLES: Check = Check {
    name: "new tables",
    before: &[When::Up],
    look: Look::Run(|_, db, planned| {
        are_new(db, planned)?;
        Ok(Found::ok("what pending migrations create is not there yet"))
    }),
};

/// Returns the history table's name.
///
/// # Errors
/// If this role may not create or write it.
fn may_keep_history(db: &mut Database) -> Result<String> {
    let Table { name, exists } = history::find(db)?;
    let Database { client, server } = db;
    let as_owner = |purpose: &'static str| {
        let owner = server.address("OWNER");
        Hint::again_with(purpose, format!("--database-url {owner}"))
    };
    let refused = |what: &str, hint: Hint| {
        Failure::failed(format!("role `{}` may not {what}", server.user))
            .sqlstate("42501")
            .hint(hint)
    };
    if exists {
        let failure = refused(
            &format!("write the history table `{name}`"),
            as_owner("connect as its owner"),
        );
        return if catalog::may_write(client, &name)? {
            Ok(name)
        } else {
            Err(failure.into())
        };
    }
    let Some(schema) = &server.schema else {
        return Err(Failure::failed("no schema of the search path exists")
            .sqlstate("3F000")
            .cause("the history table, and every unqualified table, would have no place")
            .hint(Hint::run("db-psql -- -c 'SHOW search_path'"))
            .into());
    };
    let failure = refused(
        &format!("create the history table in schema `{schema}`"),
        as_owner("connect as the database's owner"),
    );
    if catalog::may_create_in(client, schema)? {
        Ok(name)
    } else {
        Err(failure.into())
    }
}

/// # Errors
/// For the first table that a run is going to create and that is there.
fn are_new(db: &mut Database, planned: &Planned<'_>) -> Result {
    let created = &planned.affected.created;
    if created.is_empty() {
        return Ok(());
    }
    for relation in catalog::existing(db, created)? {
        if !relation.temporary {
            let failure = Failure::failed(format!("`{}` exists already", relation.qualified()))
                .sqlstate("42P07");
            return Err(if planned.has_history {
                failure
                    .cause("a pending migration would create it")
                    .hint(Hint::run("db-status"))
            } else {
                failure
                    .cause(format!(
                        "`{}` has tables and no migration history: it existed before this tool",
                        db.server.name
                    ))
                    .hint(Hint::to(
                        "compare the baseline with it and record it",
                        "db-baseline",
                    ))
            }
            .into());
        }
    }
    Ok(())
}
