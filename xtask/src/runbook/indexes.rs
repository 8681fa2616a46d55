//! An index is judged by its definition and its state, not by its name: leftovers of an interrupted
//! build are dropped and built again, and a valid index that is another one is an error.

use std::time::Instant;

use super::apply::Runner;
use crate::database::catalog::{self, IndexState};
use crate::database::{Database, activity};
use crate::error::{Failure, Result};
use crate::interrupt;
use crate::migration::effects::{self, Effect, ObjectName};
use crate::migration::script::Script;
use crate::migration::source::Migration;

/// An index that a script makes by name.
pub(crate) struct Wanted {
    pub(crate) name: ObjectName,
    table: ObjectName,
    unique: bool,
    concurrently: bool,
    /// The statement from behind the table's name: `USING btree (…) WHERE …`.
    definition: String,
}

impl Wanted {
    /// The definition in PostgreSQL's form, if it was written in that form; if not, PostgreSQL has to
    /// be asked whether it means the same.
    fn as_written(&self) -> String {
        let unique = if self.unique { "UNIQUE " } else { "" };
        let words: Vec<&str> = self.definition.split_whitespace().collect();
        let using = if words
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case("using"))
        {
            ""
        } else {
            "USING btree "
        };
        format!("CREATE {unique}INDEX {using}{}", words.join(" "))
    }
}

/// The indexes that a script makes and that may be there before it runs.
pub(crate) fn wanted(script: &Script) -> Vec<Wanted> {
    let mut found = Vec::new();
    for (statement, effects) in script.effects() {
        for effect in effects {
            let Effect::CreateIndex {
                name: Some(name),
                table,
                unique,
                concurrently,
                ..
            } = effect
            else {
                continue;
            };
            if let Some(definition) = effects::index_definition(&script.text, statement) {
                found.push(Wanted {
                    // An index is made in the schema of its table.
                    name: ObjectName {
                        schema: table.schema.clone(),
                        name,
                    },
                    table,
                    unique,
                    concurrently,
                    definition: definition.to_owned(),
                });
            }
        }
    }
    found
}

/// Before a script runs: waits for whoever builds one of its indexes now, drops what an interrupted
/// build has left, and refuses a valid index of the same name that is another one.
///
/// # Errors
/// If a leftover cannot be dropped, or the definitions differ.
pub(crate) fn before(runner: &mut Runner<'_>, script: &Script) -> Result {
    for wanted in wanted(script) {
        let Some(state) = catalog::index_state(runner.db, &wanted.name)? else {
            continue;
        };
        if !state.usable() && wanted.concurrently {
            wait_for_builder(runner, &state)?;
            drop_if_invalid(
                runner,
                &wanted.name,
                "left by an interrupted build: dropping it to build it again",
            )?;
        }
        if let Some(failure) = mismatch(runner.db, &wanted)? {
            return Err(failure.into());
        }
    }
    Ok(())
}

/// After a script ran: its indexes are there, valid and ready.
///
/// # Errors
/// If one is not.
pub(crate) fn after(db: &mut Database, script: &Script) -> Result {
    for wanted in wanted(script) {
        if let Some(state) = catalog::index_state(db, &wanted.name)?
            && !state.usable()
        {
            return Err(
                Failure::failed(format!("index `{}` is INVALID", state.name))
                    .cause("its build did not end well; the next run drops it and builds it again")
                    .hint("cargo xtask db-migrate")
                    .into(),
            );
        }
    }
    Ok(())
}

/// After an interrupt: drops what the cancelled build has left.
///
/// # Errors
/// If it cannot be dropped.
pub(crate) fn clean_up(runner: &mut Runner<'_>, script: &Script) -> Result {
    for wanted in wanted(script).iter().filter(|wanted| wanted.concurrently) {
        drop_if_invalid(runner, &wanted.name, "unfinished: dropping it")?;
    }
    Ok(())
}

/// The failure that a valid index of this name has another definition, if it has.
///
/// # Errors
/// If the catalog cannot be asked.
pub(crate) fn mismatch(db: &mut Database, wanted: &Wanted) -> Result<Option<Failure>> {
    match catalog::index_state(db, &wanted.name)? {
        Some(state) => differs(db, wanted, &state),
        None => Ok(None),
    }
}

/// An index that is not usable is told elsewhere.
fn differs(db: &mut Database, wanted: &Wanted, state: &IndexState) -> Result<Option<Failure>> {
    let there = catalog::nameless(&state.definition);
    let as_written = there == wanted.as_written() && state.table_name == wanted.table.name;
    if !state.usable() || as_written || db.server.in_recovery {
        return Ok(None);
    }
    let different = |there: &str, asked: &str| {
        Failure::finding(format!("index `{}` is another one than the migration makes", state.name))
            .cause(format!("there is:  {there}"))
            .cause(format!("wanted is: {asked}"))
            .hint(format!(
                "keep the one that is right; to drop the other: cargo xtask db-psql -- -c 'DROP INDEX CONCURRENTLY {}', then: cargo xtask db-migrate",
                state.name
            ))
    };
    let Some(table) = catalog::find(db, &wanted.table)? else {
        return Ok(None);
    };
    if state.table != table.oid {
        let asked = format!("an index on {}", table.qualified());
        return Ok(Some(different(&state.definition, &asked)));
    }
    let asked = catalog::index_definition(db, &table, wanted.unique, &wanted.definition)?;
    Ok((there != asked).then(|| different(&there, &asked)))
}

/// Indexes that migrations make, and that are there under that name with another definition. A
/// standby cannot be asked about those that were not written in PostgreSQL's own form.
///
/// # Errors
/// If the catalog cannot be asked.
pub(crate) fn mismatches<'a>(
    db: &mut Database,
    migrations: impl IntoIterator<Item = &'a Migration>,
) -> Result<Vec<Failure>> {
    let mut current: Vec<Wanted> = Vec::new();
    for migration in migrations {
        for (_, effects) in migration.up.effects() {
            for effect in effects {
                if let Effect::DropIndex { name, .. } = effect {
                    current.retain(|wanted| wanted.name != name);
                }
            }
        }
        for wanted in wanted(&migration.up) {
            current.retain(|earlier| earlier.name != wanted.name);
            current.push(wanted);
        }
    }
    if current.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&ObjectName> = current.iter().map(|wanted| &wanted.name).collect();
    let states = catalog::index_states(db, &names)?;
    let mut found = Vec::new();
    for (wanted, state) in current.iter().zip(&states) {
        if let Some(state) = state {
            found.extend(differs(db, wanted, state)?);
        }
    }
    Ok(found)
}

fn drop_if_invalid(runner: &mut Runner<'_>, name: &ObjectName, why: &str) -> Result {
    let Some(state) = catalog::index_state(runner.db, name)?.filter(|state| !state.usable()) else {
        return Ok(());
    };
    let index = &state.name;
    runner
        .ui
        .info("Repair", format_args!("index `{index}` is INVALID, {why}"));
    runner.statement(
        &format!("cannot drop the INVALID index `{index}`"),
        &format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
    )
}

/// Somebody may be building it right now: dropping it would wait for them and then undo their work.
fn wait_for_builder(runner: &mut Runner<'_>, state: &IndexState) -> Result {
    let started = Instant::now();
    let mut told = false;
    while let Some(builder) = activity::index_builder(&mut runner.db.client, state.oid)? {
        if !told {
            runner.ui.info(
                "Waiting",
                format_args!("index `{}` is being built by {builder}", state.name),
            );
            told = true;
        }
        if started.elapsed() >= runner.locks.lock_deadline {
            return Err(Failure::busy(format!(
                "index `{}` is being built by somebody else",
                state.name
            ))
            .cause(builder.to_string())
            .state("this migration has changed nothing")
            .hint("cargo xtask db-migrate --lock-deadline 1h")
            .into());
        }
        interrupt::check()?;
        std::thread::sleep(super::lock_wait::LOOK_EVERY);
    }
    Ok(())
}
