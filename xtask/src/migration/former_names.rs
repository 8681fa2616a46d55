//! What tables were called before the statements of a run created, dropped and renamed them.

use std::collections::{BTreeMap, BTreeSet};

use super::effects::{Effect, ObjectName};
use super::script::Script;
use super::sql::Statement;

/// Follows statements in the order in which they run.
pub(crate) struct FormerNames<'s> {
    /// The schema in which names without one are looked up.
    schema: Option<&'s str>,
    created: BTreeSet<ObjectName>,
    /// `CREATE TABLE IF NOT EXISTS`: may have existed before.
    created_if_missing: BTreeSet<ObjectName>,
    dropped_or_renamed: BTreeSet<ObjectName>,
    renamed: BTreeMap<ObjectName, ObjectName>,
    added_columns: BTreeSet<(ObjectName, String)>,
    /// Whether there was a statement that may have done anything, or made something that is not followed.
    lost_track: bool,
    /// Whether there was one after which names without a schema may be looked up elsewhere.
    path_changed: bool,
}

impl<'s> FormerNames<'s> {
    pub(crate) fn new(schema: Option<&'s str>) -> FormerNames<'s> {
        FormerNames {
            schema,
            created: BTreeSet::new(),
            created_if_missing: BTreeSet::new(),
            dropped_or_renamed: BTreeSet::new(),
            renamed: BTreeMap::new(),
            added_columns: BTreeSet::new(),
            lost_track: false,
            path_changed: false,
        }
    }

    /// Applies this effect to the names.
    pub(crate) fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::CreateTable {
                table,
                if_not_exists: true,
            } => {
                self.created_if_missing.insert(table.within(self.schema));
            }
            Effect::CreateTable {
                table,
                if_not_exists: false,
            } => {
                let table = table.within(self.schema);
                self.renamed.remove(&table);
                self.created.insert(table);
            }
            Effect::DropTable { table, .. } => {
                self.dropped_or_renamed.insert(table.within(self.schema));
            }
            Effect::RenameTable { table, to } => {
                let (from, to) = (table.within(self.schema), to.within(self.schema));
                self.dropped_or_renamed.insert(from.clone());
                if self.created.remove(&from) {
                    self.created.insert(to);
                } else {
                    let before = self.renamed.remove(&from).unwrap_or(from);
                    self.created.remove(&to);
                    self.renamed.insert(to, before);
                }
            }
            Effect::AddColumn {
                table,
                column,
                if_not_exists: false,
            } => {
                let column = (table.within(self.schema), column.clone());
                self.added_columns.insert(column);
            }
            _ => {}
        }
    }

    /// Notes, when its effects are applied, what this statement may have done that is not followed by name.
    pub(crate) fn note(&mut self, script: &Script, statement: &Statement, effects: &[Effect]) {
        let words = statement.words(&script.text);
        let has_any = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match word(0) {
            // As pg_dump writes it.
            "select" if word(1) == "pg_catalog" && word(2) == "set_config" => {
                self.path_changed = true;
            }
            "set" | "reset" => {
                self.path_changed |= has_any(&["search_path", "schema", "all"]);
                // What belongs to another role may be ours then.
                self.lost_track |= has_any(&["role", "authorization"]);
            }
            // Views, sequences and indexes are altered by ALTER TABLE too, and some of them indexed.
            "create" => self.lost_track |= has_any(&["materialized", "sequence", "view"]),
            "alter" => {
                self.lost_track |= word(1) != "table" || has_any(&["owner", "schema"]);
            }
            "grant" => self.lost_track = true,
            _ => self.lost_track |= effects.contains(&Effect::Opaque),
        }
    }

    /// Whether what this name stands for cannot be known: a statement may have done anything to it.
    pub(crate) fn is_unknown(&self, table: &ObjectName) -> bool {
        self.lost_track || self.path_changed && table.schema.is_none()
    }

    /// Whether the run has added this column, so that no value in it was there before.
    pub(crate) fn adds_column(&self, table: &ObjectName, column: &str) -> bool {
        let column = (table.within(self.schema), column.to_owned());
        self.added_columns.contains(&column)
    }

    /// What this table was called before the run; `None` if the run created it.
    pub(crate) fn before(&self, table: &ObjectName) -> Option<ObjectName> {
        let name = table.within(self.schema);
        match self.renamed.get(&name) {
            Some(before) => Some(before.clone()),
            None => (!self.created.contains(&name)).then(|| table.clone()),
        }
    }

    /// Whether the run may have created this table, so that it need not exist before the run.
    pub(crate) fn may_be_created(&self, table: &ObjectName) -> bool {
        let table_of = |made: &ObjectName| {
            // A sequence or an index that comes with it: `users_id_seq`, `users_pkey`.
            let rest = table.name.strip_prefix(made.name.as_str());
            rest.is_some_and(|rest| rest.starts_with('_'))
        };
        self.is_unknown(table)
            || self.created_if_missing.contains(&table.within(self.schema))
            || self.created.iter().any(table_of)
            || self.added_columns.iter().any(|(made, _)| table_of(made))
    }

    /// Whether the run has dropped or renamed the table that had this name.
    pub(crate) fn is_dropped_or_renamed(&self, table: &ObjectName) -> bool {
        self.dropped_or_renamed.contains(&table.within(self.schema))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{effects, sql};
    use super::*;

    #[test]
    fn a_table_is_followed_through_its_names() {
        let before = |text: &str, name: &str| {
            let statements = sql::split(text).unwrap();
            let mut names = FormerNames::new(Some("public"));
            for effect in statements.iter().flat_map(|one| effects::of(text, one)) {
                names.apply(&effect);
            }
            let before = names.before(&ObjectName::parse(name).unwrap());
            before.map(|name| name.to_string())
        };
        for (text, name, expected) in [
            ("", "users", Some("users")),
            ("CREATE TABLE t ()", "public.t", None),
            ("CREATE TABLE IF NOT EXISTS t ()", "t", Some("t")),
            (
                "ALTER TABLE users RENAME TO accounts",
                "accounts",
                Some("users"),
            ),
            (
                "ALTER TABLE a RENAME TO b; ALTER TABLE public.b RENAME TO c",
                "c",
                Some("a"),
            ),
            ("CREATE TABLE a (); ALTER TABLE a RENAME TO b", "b", None),
            (
                "ALTER TABLE a RENAME TO b; CREATE TABLE a ()",
                "b",
                Some("a"),
            ),
            ("ALTER TABLE a RENAME TO b; CREATE TABLE a ()", "a", None),
            (
                "CREATE TABLE n (); ALTER TABLE a RENAME TO old; ALTER TABLE n RENAME TO a",
                "a",
                None,
            ),
        ] {
            assert_eq!(before(text, name).as_deref(), expected, "{text}: {name}");
        }
    }
}
