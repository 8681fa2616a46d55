//! An index is judged by its definition and its state, not by its name: leftovers of an interrupted
//! build are dropped and built again, and a valid index that is another one is an error.

use std::time::Instant;

use super::apply::Runner;
use crate::database::catalog::{self, IndexState, InvalidIndex};
use crate::database::{Database, activity};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::effects::{self, Effect, ObjectName};
use crate::migration::script::Script;
use crate::migration::source::Migration;
use crate::migration::sql::Statement;

/// An index that a script makes by name.
pub(crate) struct ExpectedIndex {
    name: ObjectName,
    table: ObjectName,
    unique: bool,
    /// The statement from behind the table's name: `USING btree (…) WHERE …`.
    definition: String,
    /// Whether an earlier statement of these scripts may make what is under that name now another one.
    changed_before: bool,
    /// Whether a later one may.
    changed_after: bool,
}

impl ExpectedIndex {
    /// What a statement's effect makes, if it makes an index and names it.
    fn of(script: &Script, statement: &Statement, effect: Effect) -> Option<ExpectedIndex> {
        let Effect::CreateIndex {
            name: Some(name),
            table,
            unique,
            ..
        } = effect
        else {
            return None;
        };
        let definition = effects::index_definition(&script.text, statement)?.to_owned();
        Some(ExpectedIndex {
            name: ObjectName {
                schema: table.schema.clone(),
                name,
            },
            table,
            unique,
            definition,
            changed_before: false,
            changed_after: false,
        })
    }

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

/// The indexes that are to be there when these scripts have run: what a later one drops is not.
fn final_indexes<'a>(scripts: impl IntoIterator<Item = &'a Script>) -> Vec<ExpectedIndex> {
    let mut indexes: Vec<ExpectedIndex> = Vec::new();
    let mut changed = false;
    for script in scripts {
        for (statement, effects) in script.effects() {
            if may_change(script, statement, &effects) {
                changed = true;
                for wanted in &mut indexes {
                    wanted.changed_after = true;
                }
            }
            for effect in effects {
                if let Effect::DropIndex { name, .. } = &effect {
                    indexes.retain(|wanted| wanted.name != *name);
                }
                if let Some(mut made) = ExpectedIndex::of(script, statement, effect) {
                    made.changed_before = changed;
                    indexes.retain(|earlier| earlier.name != made.name);
                    indexes.push(made);
                }
            }
        }
    }
    indexes
}

/// Whether a statement may change what is under an index's name: drop it, alone or with its table, its
/// column or its constraint; rename, move or alter it. Where it may, only its own moment tells.
fn may_change(script: &Script, statement: &Statement, effects: &[Effect]) -> bool {
    let words = ["drop", "rename", "type", "set", "reset", "attach", "detach"];
    let has_word = |word: &&str| statement.has_word(&script.text, word);
    effects.contains(&Effect::Opaque) || words.iter().any(has_word)
}

/// The indexes that are to be there when this script has run.
fn indexes_of(script: &Script) -> Vec<ExpectedIndex> {
    final_indexes([script])
}

/// Whether a script would accept an index that is there already, whatever it is like.
pub(crate) fn accepts_any(script: &Script) -> bool {
    let mut effects = script.effects().flat_map(|(_, effects)| effects);
    effects.any(|effect| {
        matches!(
            effect,
            Effect::CreateIndex {
                if_not_exists: true,
                ..
            }
        )
    })
}

/// Before a script runs: waits for whoever builds one of its indexes now, drops what an interrupted
/// build has left, and refuses a valid index of the same name that is another one, unless the script
/// itself may see to it: see [`after`].
///
/// # Errors
/// If a leftover cannot be dropped, or the definitions differ.
pub(crate) fn before(runner: &mut Runner<'_>, script: &Script) -> Result {
    for wanted in indexes_of(script) {
        let Some(state) = state(runner.db, &wanted)? else {
            continue;
        };
        if !state.usable() {
            wait_for_builder(runner, &wanted, &state)?;
            drop_if_invalid(
                runner,
                &wanted,
                "left by an interrupted build: dropping it to build it again",
            )?;
        }
        if wanted.changed_before {
            continue;
        }
        if let Some(failure) = mismatch(runner.db, &wanted)? {
            return Err(failure.into());
        }
    }
    Ok(())
}

/// After a script ran: its indexes are there, valid and ready, and the ones it makes.
///
/// # Errors
/// If one is not.
pub(crate) fn after(runner: &mut Runner<'_>, script: &Script) -> Result {
    for wanted in indexes_of(script) {
        let failure = match state(runner.db, &wanted)? {
            // The script may have looked elsewhere, or taken it away again with its table.
            None if wanted.changed_before || wanted.changed_after => continue,
            // A temporary table is not ours to see.
            None if catalog::find(runner.db, &wanted.table)?.is_none() => continue,
            None => Failure::failed(format!("index `{}` does not exist", wanted.name))
                .cause("another object has its name, or somebody has just dropped it"),
            Some(state) if !state.usable() => {
                Failure::failed(format!("index `{}` is INVALID", state.name))
                    .cause("its build failed; the next run drops it and builds it again")
            }
            Some(state) => match differs(runner.db, &wanted, &state)? {
                None => {
                    if state.is_incomplete() {
                        runner.ui.warn(format_args!(
                            "index `{}` stays INVALID until the index of every partition is attached to it: ALTER INDEX {} ATTACH PARTITION …",
                            state.name, state.name
                        ));
                    }
                    continue;
                }
                Some(failure) => return Err(failure.into()),
            },
        };
        return Err(failure.hint(Hint::again("")).into());
    }
    Ok(())
}

/// After an interrupt: drops what the cancelled build has left.
///
/// # Errors
/// If it cannot be dropped.
pub(crate) fn clean_up(runner: &mut Runner<'_>, script: &Script) -> Result {
    for wanted in indexes_of(script) {
        drop_if_invalid(runner, &wanted, "unfinished: dropping it")?;
    }
    Ok(())
}

/// What is left of the indexes that a script makes or drops, in words.
pub(crate) fn leftovers(db: &mut Database, script: &Script) -> Vec<String> {
    let mut left = Vec::new();
    let dropped = script.effects().flat_map(|(_, effects)| effects);
    let names = dropped.filter_map(|effect| match effect {
        Effect::DropIndex { name, .. } => {
            Some((name, "its drop has begun; the same command ends it"))
        }
        _ => None,
    });
    let makes = indexes_of(script);
    let makes = makes.iter().map(|wanted| {
        (
            wanted.name.clone(),
            "its build has not ended; the same command drops it and builds it again",
        )
    });
    for (name, why) in names.chain(makes) {
        // What cannot be asked now is what the next command reads.
        if let Ok(Some(state)) = catalog::index_state(db, &name)
            && !state.usable()
        {
            left.push(format!("index `{}` is INVALID: {why}", state.name));
        } else if let Ok(Some(state)) = catalog::index_state(db, &name)
            && state.is_incomplete()
        {
            left.push(format!(
                "index `{}` is INVALID until the index of every partition is attached; the same command goes on",
                state.name
            ));
        }
    }
    left
}

/// The failure that a valid index of this name has another definition, if it has.
///
/// # Errors
/// If the catalog cannot be asked.
fn mismatch(db: &mut Database, wanted: &ExpectedIndex) -> Result<Option<Failure>> {
    match state(db, wanted)? {
        Some(state) => differs(db, wanted, &state),
        None => Ok(None),
    }
}

/// An index that is not usable is told elsewhere.
fn differs(
    db: &mut Database,
    wanted: &ExpectedIndex,
    state: &IndexState,
) -> Result<Option<Failure>> {
    let there = catalog::nameless(&state.definition);
    let as_written = there == wanted.as_written() && state.table_name == wanted.table.name;
    if !state.usable() || as_written || db.server.in_recovery || db.server.read_only {
        return Ok(None);
    }
    let different = |there: &str, asked: &str| {
        Failure::finding(format!(
            "index `{}` exists with a different definition",
            state.name
        ))
        .cause(format!("found:    {there}"))
        .cause(format!("expected: {asked}"))
        .hint(Hint::psql(
            "if the migration is right, drop the existing index",
            &format!("DROP INDEX CONCURRENTLY {}", state.name),
        ))
        .hint(Hint::again("then"))
    };
    let Some(table) = catalog::find(db, &wanted.table)? else {
        return Ok(None);
    };
    if state.name.schema.as_deref() != Some(table.schema.as_str()) {
        // One of that name in another schema is in nobody's way.
        return Ok(None);
    }
    if state.table != table.oid {
        let asked = format!("an index on {}", table.qualified());
        return Ok(Some(different(&state.definition, &asked)));
    }
    let asked = catalog::index_definition(db, &table, wanted.unique, &wanted.definition);
    let asked = match asked {
        // On a column that is yet to be added it is not the one that is there.
        Err(error) if is_undefined(&error) => wanted.as_written(),
        asked => asked?,
    };
    Ok((there != asked).then(|| different(&there, &asked)))
}

/// 42703 undefined_column, 42704 undefined_object, 42883 undefined_function.
fn is_undefined(error: &anyhow::Error) -> bool {
    let server = error.downcast_ref::<postgres::Error>();
    let code = server.and_then(|error| error.code());
    code.is_some_and(|code| ["42703", "42704", "42883"].contains(&code.code()))
}

/// Refuses, before anything runs, what [`before`] would refuse in the midst of it.
///
/// # Errors
/// If an index is there under the name of one that a script makes, and is another one.
pub(crate) fn foresee<'a>(
    db: &mut Database,
    scripts: impl IntoIterator<Item = &'a Script>,
) -> Result {
    let wanted = unchanged(scripts);
    if wanted.is_empty() {
        return Ok(());
    }
    match look(db, wanted)?.differing.into_iter().next() {
        Some(failure) => Err(failure
            .state("no migration has run; nothing was changed")
            .into()),
        None => Ok(()),
    }
}

/// The indexes that scripts make, whose names mean now what they will mean then.
fn unchanged<'a>(scripts: impl IntoIterator<Item = &'a Script>) -> Vec<ExpectedIndex> {
    let mut wanted = final_indexes(scripts);
    wanted.retain(|wanted| !wanted.changed_before);
    wanted
}

/// What is wrong with a database's indexes.
pub(crate) struct Findings {
    /// Those that migrations make, and that are there under that name with another definition.
    pub(crate) differing: Vec<Failure>,
    /// Those of any name that an interrupted build has left.
    pub(crate) invalid: Vec<InvalidIndex>,
}

/// Looks at all indexes: against the definitions of applied migrations, and of pending ones as far as it
/// can be told now. A standby cannot be asked about those that were not written in PostgreSQL's own form.
///
/// # Errors
/// If the catalog cannot be asked.
pub(crate) fn findings<'a>(
    db: &mut Database,
    migrations: impl IntoIterator<Item = &'a Migration>,
    is_applied: impl Fn(&Migration) -> bool,
) -> Result<Findings> {
    let (applied, pending): (Vec<_>, Vec<_>) = migrations
        .into_iter()
        .partition(|migration| is_applied(migration));
    let mut current = final_indexes(applied.iter().filter_map(|one| one.up.script().ok()));
    for wanted in unchanged(pending.iter().filter_map(|one| one.up.script().ok())) {
        current.retain(|earlier| earlier.name != wanted.name);
        current.push(wanted);
    }
    look(db, current)
}

/// Looks at all indexes, and of which of these another one is there.
fn look(db: &mut Database, current: Vec<ExpectedIndex>) -> Result<Findings> {
    let names: Vec<&ObjectName> = current.iter().map(|wanted| &wanted.name).collect();
    let (states, invalid) = catalog::look_at_indexes(db, &names)?;
    let mut differing = Vec::new();
    for (wanted, state) in current.iter().zip(&states) {
        if let Some(state) = state {
            differing.extend(differs(db, wanted, state)?);
        }
    }
    Ok(Findings { differing, invalid })
}

/// What is there under the name of an index that a migration makes: an index is made in the schema of
/// its table, wherever else the search path leads.
fn state(db: &mut Database, wanted: &ExpectedIndex) -> Result<Option<IndexState>> {
    let Some(table) = catalog::find(db, &wanted.table)? else {
        return Ok(None);
    };
    let name = ObjectName {
        schema: Some(table.schema),
        name: wanted.name.name.clone(),
    };
    catalog::index_state(db, &name)
}

fn drop_if_invalid(runner: &mut Runner<'_>, wanted: &ExpectedIndex, why: &str) -> Result {
    let Some(state) = state(runner.db, wanted)?.filter(|state| !state.usable()) else {
        return Ok(());
    };
    let index = &state.name;
    runner
        .ui
        .info("Repair", format_args!("index `{index}` is INVALID, {why}"));
    runner.drop_index(&index.to_string())
}

/// Somebody may be building it right now: dropping it would wait for them and then undo their work.
fn wait_for_builder(runner: &mut Runner<'_>, wanted: &ExpectedIndex, state: &IndexState) -> Result {
    let started = Instant::now();
    let progress = runner.ui.progress("Waiting");
    let mut told = false;
    while let Some(builder) = activity::index_builder(&mut runner.db.client, state.table)? {
        if !told {
            runner.ui.info(
                "Waiting",
                format_args!("index `{}` is being built by {builder}", state.name),
            );
            told = true;
        }
        if let Some(build) = activity::index_build(&mut runner.db.client, builder.pid)? {
            progress.update(format_args!("for {}: {}", wanted.name, build.phase));
        }
        if started.elapsed() >= runner.locks.lock_deadline {
            return Err(Failure::busy(format!(
                "index `{}` is being built by somebody else",
                state.name
            ))
            .cause(format!("in the way: {builder}"))
            .hint(Hint::again_with("", "--lock-deadline 1h"))
            .into());
        }
        interrupt::check()?;
        std::thread::sleep(super::lock_wait::LOOK_EVERY);
    }
    Ok(())
}
