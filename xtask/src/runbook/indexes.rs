//! An index is judged by its definition and its state, not by its name: a valid index that is another one is
//! an error. Nothing here writes; what a migration does about its indexes is in `apply::indexes`.

use crate::database::Database;
use crate::database::catalog::{self, IndexState, InvalidIndex};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::{self, Effect, IndexShape, ObjectName};
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

    /// Whether an index with the definition that is `there` is certainly another one.
    fn has_another_shape(&self, there: &str) -> bool {
        let unique = there.starts_with("CREATE UNIQUE ");
        let tail = there.find("USING ").map(|at| &there[at..]);
        let there = tail.and_then(|tail| IndexShape::parse(unique, tail));
        let wanted = IndexShape::parse(self.unique, &self.definition);
        matches!((wanted, there), (Some(wanted), Some(there)) if wanted.differs(&there))
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
    let mut changes: Vec<Change<'a>> = Vec::new();
    for script in scripts {
        for (statement, effects) in script.effects() {
            if let Some(change) = Change::of(script, statement, &effects) {
                for wanted in &mut indexes {
                    wanted.changed_after |= change.may_concern(wanted);
                }
                changes.push(change);
            }
            for effect in effects {
                if let Effect::DropIndex { name, .. } = &effect {
                    indexes.retain(|wanted| wanted.name != *name);
                }
                if let Some(mut made) = ExpectedIndex::of(script, statement, effect) {
                    made.changed_before = changes.iter().any(|change| change.may_concern(&made));
                    indexes.retain(|earlier| earlier.name != made.name);
                    indexes.push(made);
                }
            }
        }
    }
    indexes
}

/// A statement that may change what is under an index's name: drop it, alone or with its table, its
/// column or its constraint; rename, move or alter it. Where it may, only its own moment tells.
struct Change<'s> {
    script: &'s Script,
    statement: &'s Statement,
    /// Whether it changes the tables and indexes that it names, and no others.
    names_all: bool,
}

impl<'s> Change<'s> {
    fn of(script: &'s Script, statement: &'s Statement, effects: &[Effect]) -> Option<Change<'s>> {
        let words = ["drop", "rename", "type", "set", "reset", "attach", "detach"];
        let has_word = |word: &&str| statement.has_word(&script.text, word);
        let is_opaque = effects.contains(&Effect::Opaque);
        (is_opaque || words.iter().any(has_word)).then(|| Change {
            script,
            statement,
            names_all: !is_opaque
                && effects.iter().any(|effect| {
                    matches!(
                        effect,
                        Effect::AlterTable { .. }
                            | Effect::DropTable { .. }
                            | Effect::DropIndex { .. }
                    )
                }),
        })
    }

    fn may_concern(&self, index: &ExpectedIndex) -> bool {
        let names = |name: &ObjectName| self.statement.names(&self.script.text, &name.name);
        !self.names_all || names(&index.name) || names(&index.table)
    }
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

/// The failure that this is another index than is wanted, where the server is asked if need be: it makes
/// the wanted one on an empty table, and drops it.
///
/// # Errors
/// If the server cannot be asked.
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
    if let Some(failure) = certainly_differs(db, wanted, state)? {
        return Ok(Some(failure));
    }
    let Some(table) = catalog::find(db, &wanted.table)?.filter(|table| table.oid == state.table)
    else {
        return Ok(None);
    };
    match catalog::index_definition(db, &table, wanted.unique, &wanted.definition) {
        Ok(asked) => Ok((there != asked).then(|| different(state, &there, &asked))),
        // On a column that is yet to be added it is not the one that is there.
        Err(error) if is_undefined(&error) => {
            Ok(Some(different(state, &there, &wanted.as_written())))
        }
        Err(error) => Err(error),
    }
}

/// The same, by what can be told from the two definitions alone: nothing is made. An index that is not
/// usable is told elsewhere.
fn certainly_differs(
    db: &mut Database,
    wanted: &ExpectedIndex,
    state: &IndexState,
) -> Result<Option<Failure>> {
    let there = catalog::nameless(&state.definition);
    let another_shape = wanted.has_another_shape(&there);
    if !state.usable() || !another_shape && state.table_name == wanted.table.name {
        return Ok(None);
    }
    let Some(table) = catalog::find(db, &wanted.table)? else {
        return Ok(None);
    };
    if state.name.schema.as_deref() != Some(table.schema.as_str()) {
        // One of that name in another schema is in nobody's way.
        return Ok(None);
    }
    if state.table != table.oid {
        let asked = format!("an index on {}", table.qualified());
        return Ok(Some(different(state, &state.definition, &asked)));
    }
    Ok(another_shape.then(|| different(state, &there, &wanted.as_written())))
}

fn different(state: &IndexState, there: &str, asked: &str) -> Failure {
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

/// Looks at all indexes: against the definitions of applied migrations, if no later statement may have
/// changed what they made, and of pending ones, if no earlier one may. Makes nothing: an index is another one
/// if the two definitions are certainly not the same.
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
    current.retain(|made| !made.changed_before && !made.changed_after);
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
            differing.extend(certainly_differs(db, wanted, state)?);
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
