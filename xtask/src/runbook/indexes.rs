//! An index is judged by its definition and its state, not by its name: a valid index that is another one is
//! an error. Nothing here writes; what a migration does about its indexes is in `apply::indexes`.

use std::collections::{BTreeMap, HashMap};

use crate::database::Database;
use crate::database::catalog::{self, IndexState};
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::migration::effects::{self, Effect, IndexShape, ObjectName};
use crate::migration::script::Script;
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
    /// Whether the script has its own search path, by which only its session finds the table.
    pub(super) has_own_path: bool,
}

impl ExpectedIndex {
    /// What a statement's effect makes, if it makes an index and names it.
    fn of(script: &Script, statement: &Statement, effect: &Effect) -> Option<ExpectedIndex> {
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
                name: name.clone(),
            },
            table: table.clone(),
            unique: *unique,
            definition,
            changed_before: false,
            changed_after: false,
            has_own_path: false,
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

    /// Whether it was written in PostgreSQL's form, and is the one that is there.
    fn is_as_written(&self, there: &IndexState) -> bool {
        let same = catalog::nameless(&there.definition) == self.as_written();
        same && there.table_name == self.table.name
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

/// The indexes that these scripts make, of each name the last. Of `None` nobody knows what it did.
fn final_indexes<'a>(scripts: impl IntoIterator<Item = Option<&'a Script>>) -> Vec<ExpectedIndex> {
    let mut changes = Changes::default();
    let mut made: BTreeMap<ObjectName, (usize, ExpectedIndex)> = BTreeMap::new();
    for script in scripts {
        let Some(script) = script else {
            changes.anything();
            continue;
        };
        let mut has_own_path = false;
        for (statement, effects) in script.effects() {
            has_own_path |= script.sets_search_path(statement);
            let index = effects
                .iter()
                .find_map(|effect| ExpectedIndex::of(script, statement, effect));
            let changed_before = index
                .as_ref()
                .is_some_and(|index| changes.concern_what_is_there(index));
            changes.add(script, statement, &effects);
            if let Some(mut index) = index {
                index.changed_before = changed_before;
                index.has_own_path = has_own_path && index.table.schema.is_none();
                made.insert(index.name.clone(), (changes.statements, index));
            }
        }
    }
    let mut made: Vec<(usize, ExpectedIndex)> = made.into_values().collect();
    made.sort_by_key(|&(at, _)| at);
    let indexes = made.into_iter().map(|(at, mut index)| {
        index.changed_after = changes.may_concern(&index, at);
        index
    });
    indexes.collect()
}

/// Which statements may have changed what is under an index's name: dropped it, alone or with its table, its
/// column or its constraint; renamed, moved or altered it. Where one may, only its own moment tells.
#[derive(Default)]
struct Changes {
    /// How many statements there were.
    statements: usize,
    /// Each name in a statement, and in which one it was last.
    mentioned: HashMap<String, usize>,
    /// The same, of statements after which a table may be another one.
    tables: HashMap<String, usize>,
    /// The same, of those that rename or drop a column: the indexes of partitions have it too.
    columns: HashMap<String, usize>,
    /// The last one that may have changed any.
    anything: usize,
}

impl Changes {
    fn anything(&mut self) {
        self.statements += 1;
        self.anything = self.statements;
    }

    fn add(&mut self, script: &Script, statement: &Statement, effects: &[Effect]) {
        self.statements += 1;
        let words = statement.words(&script.text);
        let has_any = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let may_be_any = |effect| matches!(effect, &Effect::Opaque | &Effect::DropSchema { .. });
        if effects.iter().any(may_be_any) || word(0) == "alter" && word(1) == "schema" {
            self.anything = self.statements;
        }
        let another_table = match word(0) {
            "drop" => true,
            "alter" => word(1) != "table" || has_any(&TABLE_ACTIONS),
            // Also a temporary one, which stands before the one that is there.
            "create" => words.iter().take(5).any(|word| word == "table"),
            _ => false,
        };
        for name in effects::identifiers(statement.text(&script.text)) {
            if another_table {
                self.tables.insert(name.clone(), self.statements);
            }
            if another_table && has_any(&["drop", "rename"]) {
                self.columns.insert(name.clone(), self.statements);
            }
            self.mentioned.insert(name, self.statements);
        }
    }

    /// Whether they may have changed what is under an index's name now, whatever that is: on a partition, too.
    fn concern_what_is_there(&self, index: &ExpectedIndex) -> bool {
        !self.columns.is_empty() || self.may_concern(index, 0)
    }

    /// Whether a statement after this one may have changed what is under an index's name.
    fn may_concern(&self, index: &ExpectedIndex, after: usize) -> bool {
        let later = |last: Option<&usize>| last.is_some_and(|&last| last > after);
        self.anything > after
            || later(self.mentioned.get(&index.name.name))
            || later(self.tables.get(&index.table.name))
            || effects::identifiers(&index.definition).any(|name| later(self.columns.get(&name)))
    }
}

/// The words of an `ALTER TABLE` that does more than add, or change a type: `INDEX` is that of
/// `ADD CONSTRAINT … USING INDEX`, which renames it.
const TABLE_ACTIONS: [&str; 6] = ["attach", "detach", "drop", "index", "rename", "schema"];

/// The indexes that this script makes.
pub(super) fn indexes_of(script: &Script) -> Vec<ExpectedIndex> {
    final_indexes([Some(script)])
}

/// What is there under the name of an index that a script makes: an index is in the schema of its table.
pub(super) enum Found {
    /// The table is not there, or not ours to see.
    NoTable,
    Index(Option<IndexState>),
    /// Only the script's session knows which of several tables it means. These are their indexes of that name.
    OneOf(Vec<IndexState>),
}

/// Looks for an index that a script makes.
///
/// # Errors
/// If the catalog cannot be asked.
pub(super) fn find(db: &mut Database, wanted: &ExpectedIndex) -> Result<Found> {
    if !wanted.has_own_path {
        return catalog::index_on(db, &wanted.table, &wanted.name.name).map(|found| match found {
            None => Found::NoTable,
            Some(state) => Found::Index(state),
        });
    }
    let mut states = Vec::new();
    let tables = catalog::tables_named(db, &wanted.table.name)?;
    for table in &tables {
        states.extend(catalog::index_on(db, table, &wanted.name.name)?.flatten());
    }
    Ok(match tables.len() {
        0 => Found::NoTable,
        1 => Found::Index(states.pop()),
        _ => Found::OneOf(states),
    })
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
    let cannot_ask = db.server.in_recovery || db.server.read_only;
    if !state.usable() || wanted.is_as_written(state) || cannot_ask {
        return Ok(None);
    }
    if let Some(failure) = certainly_differs(wanted, state) {
        return Ok(Some(failure));
    }
    match catalog::index_definition(db, state, wanted.unique, &wanted.definition) {
        Ok(asked) => Ok((there != asked).then(|| different(state, &there, &asked))),
        // On a column that is yet to be added it is not the one that is there: 42703 undefined_column.
        Err(error) if failures::sqlstate(&error).as_deref() == Some("42703") => {
            Ok(Some(different(state, &there, &wanted.as_written())))
        }
        // What it names may be found by the script's own path alone.
        Err(error) if wanted.has_own_path && failures::sqlstate(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, by what can be told from the two definitions alone: nothing is made. An index that is not
/// usable is told elsewhere.
fn certainly_differs(wanted: &ExpectedIndex, state: &IndexState) -> Option<Failure> {
    if !state.usable() {
        return None;
    }
    if state.table_name != wanted.table.name {
        let asked = format!("an index on {}", wanted.table);
        return Some(different(state, &state.definition, &asked));
    }
    let there = catalog::nameless(&state.definition);
    let another_shape = wanted.has_another_shape(&there);
    another_shape.then(|| different(state, &there, &wanted.as_written()))
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

/// Refuses, before anything runs, what would be refused in the midst of it.
///
/// # Errors
/// If an index is there under the name of one that a script makes, and is another one.
pub(super) fn foresee<'a>(
    db: &mut Database,
    scripts: impl IntoIterator<Item = &'a Script>,
) -> Result {
    let wanted = foreseeable(scripts);
    if wanted.is_empty() {
        return Ok(());
    }
    let found = db.without_waiting(|db| {
        for (wanted, state) in existing(db, &wanted)? {
            if let Some(failure) = differs(db, wanted, &state)? {
                return Ok(Some(failure));
            }
        }
        Ok(None)
    });
    match found {
        Ok(None) => Ok(()),
        Ok(Some(failure)) => Err(failure
            .state("no migration has run; nothing was changed")
            .into()),
        // What cannot be asked now is asked again at its moment.
        Err(error) if failures::sqlstate(&error).is_some() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The indexes that scripts make, whose names mean now what they will mean then.
fn foreseeable<'a>(scripts: impl IntoIterator<Item = &'a Script>) -> Vec<ExpectedIndex> {
    let mut wanted = final_indexes(scripts.into_iter().map(Some));
    wanted.retain(|wanted| !wanted.changed_before && !wanted.has_own_path);
    wanted
}

/// Which indexes are certainly not what migrations make: those of applied ones, in the order in which they
/// ran, where no later statement may have changed them; and those of pending ones, where no earlier one may.
/// Makes nothing: an index is another one if the two definitions are certainly not the same.
///
/// # Errors
/// If the catalog cannot be asked.
pub(crate) fn differing<'a>(
    db: &mut Database,
    applied: impl IntoIterator<Item = Option<&'a Script>>,
    pending: impl IntoIterator<Item = &'a Script>,
) -> Result<Vec<Failure>> {
    let mut current = final_indexes(applied);
    current.retain(|made| !made.changed_after && !made.has_own_path);
    for wanted in foreseeable(pending) {
        current.retain(|earlier| earlier.name != wanted.name);
        current.push(wanted);
    }
    db.without_waiting(|db| {
        let found = existing(db, &current)?;
        let differing = found
            .iter()
            .filter_map(|(wanted, state)| certainly_differs(wanted, state));
        Ok(differing.collect())
    })
}

/// Those of these indexes that are there, in two round trips: of that name, and in the schema of their table.
fn existing<'w>(
    db: &mut Database,
    wanted: &'w [ExpectedIndex],
) -> Result<Vec<(&'w ExpectedIndex, IndexState)>> {
    let names: Vec<&ObjectName> = wanted.iter().map(|wanted| &wanted.name).collect();
    let states = catalog::index_states(db, &names)?;
    let there = wanted.iter().zip(states);
    let there: Vec<_> = there
        .filter_map(|(wanted, state)| Some((wanted, state?)))
        .collect();
    let tables: Vec<&ObjectName> = there.iter().map(|(wanted, _)| &wanted.table).collect();
    let schemas = catalog::schemas_of(db, &tables)?;
    // One of that name in another schema is in nobody's way.
    let in_place = there.into_iter().zip(schemas);
    let in_place = in_place.filter(|((_, state), schema)| state.name.schema == *schema);
    Ok(in_place.map(|(found, _)| found).collect())
}
