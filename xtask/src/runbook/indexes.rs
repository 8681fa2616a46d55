//! An index is judged by its definition and its state, not by its name: a valid index that is another one is
//! an error. Nothing here writes; what a migration does about its indexes is in `apply::indexes`.

use crate::database::Database;
use crate::database::catalog::{self, IndexState, InvalidIndex};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::{self, Effect, ObjectName};
use crate::migration::script::Script;
use crate::migration::source::Migration;
use crate::migration::sql::Statement;

/// An index that a script makes by name.
pub(super) struct ExpectedIndex {
    pub(super) name: ObjectName,
    pub(super) table: ObjectName,
    unique: bool,
    /// The statement from behind the table's name: `USING btree (…) WHERE …`.
    definition: String,
    /// Whether an earlier statement of these scripts may make what is under that name now another one.
    pub(super) changed_before: bool,
    /// Whether a later one may.
    pub(super) changed_after: bool,
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
pub(super) fn indexes_of(script: &Script) -> Vec<ExpectedIndex> {
    final_indexes([script])
}

/// The failure that a valid index of this name has another definition, if it has.
///
/// # Errors
/// If the catalog cannot be asked.
pub(super) fn mismatch(db: &mut Database, wanted: &ExpectedIndex) -> Result<Option<Failure>> {
    match state(db, wanted)? {
        Some(state) => differs(db, wanted, &state),
        None => Ok(None),
    }
}

/// An index that is not usable is told elsewhere.
pub(super) fn differs(
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

/// Refuses, before anything runs, what would be refused in the midst of it.
///
/// # Errors
/// If an index is there under the name of one that a script makes, and is another one.
pub(super) fn foresee<'a>(
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
pub(super) fn state(db: &mut Database, wanted: &ExpectedIndex) -> Result<Option<IndexState>> {
    let Some(table) = catalog::find(db, &wanted.table)? else {
        return Ok(None);
    };
    let name = ObjectName {
        schema: Some(table.schema),
        name: wanted.name.name.clone(),
    };
    catalog::index_state(db, &name)
}
