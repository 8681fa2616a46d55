//! What is certain about a name before a run. Only what is certain may be refused before anything runs;
//! everything else the server judges, at its moment.

use std::collections::HashSet;

use super::effects::{self, Effect, ObjectName};
use super::script::Script;
use super::sql::Statement;

/// Follows statements in the order in which they will run.
#[derive(Default)]
pub(crate) struct Foresight {
    /// Every name in an earlier statement.
    mentioned: HashSet<String>,
    /// Tables that an earlier statement adds to: they are the same as before, and have more that belongs to them.
    added_to: HashSet<String>,
    /// Whether something was dropped, and perhaps others with it.
    dropped: bool,
    /// Whether names without a schema may be looked up elsewhere.
    path_changed: bool,
    /// Whether what belongs to others may be ours now.
    role_changed: bool,
    /// Whether anything may have happened.
    anything: bool,
}

impl Foresight {
    /// Each migration begins in a session that is as new.
    pub(crate) fn begin_script(&mut self) {
        self.path_changed = false;
        self.role_changed = false;
    }

    /// Notes what a statement may change.
    pub(crate) fn note(&mut self, script: &Script, statement: &Statement, effects: &[Effect]) {
        let words = statement.words(&script.text);
        let has_any = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        self.dropped |= word(0) == "drop";
        let sets_path = script.sets_search_path(statement);
        self.anything |= match (word(0), word(1)) {
            ("select", "pg_catalog") if word(2) == "set_config" && sets_path => false,
            ("alter", "schema") => true,
            ("grant", _) => !has_any(&["on"]),
            ("set" | "reset", _) => false,
            _ => effects.contains(&Effect::Opaque),
        };
        self.path_changed |= sets_path;
        self.role_changed |= sets_path && has_any(&["role", "authorization"]);
        let added_to = effects.iter().find_map(|effect| match effect {
            Effect::AlterTable { table, .. } if !has_any(&MOVES) => Some(&table.name),
            Effect::CreateIndex { table, .. } => Some(&table.name),
            _ => None,
        });
        let names = effects::identifiers(statement.text(&script.text));
        self.mentioned
            .extend(names.filter(|name| Some(name) != added_to));
        self.added_to.extend(added_to.cloned());
    }

    /// Whether this relation, its absence and its owner are now what they will be then.
    pub(crate) fn knows(&self, table: &ObjectName) -> bool {
        !self.is_lost(table) && !self.may_have_made(&table.name)
    }

    /// Whether this relation will be there if it is there now.
    pub(crate) fn stays(&self, table: &ObjectName) -> bool {
        self.knows(table) && !self.dropped
    }

    /// Whether what this name stands for is not known at all.
    pub(crate) fn is_lost(&self, table: &ObjectName) -> bool {
        self.anything || self.role_changed || self.path_changed && table.schema.is_none()
    }

    /// Whether an earlier statement names it, or something that it may belong to: `users_id_seq` and
    /// `users_pkey` come with `users`.
    fn may_have_made(&self, name: &str) -> bool {
        let mut owners = name.match_indices('_').map(|(at, _)| &name[..at]);
        // A name that the server has cut off may belong to any.
        name.len() >= 63
            || self.mentioned.contains(name)
            || owners.any(|owner| self.mentioned.contains(owner) || self.added_to.contains(owner))
    }
}

/// The words of an `ALTER TABLE` after which the name stands for something else, or for somebody else's.
const MOVES: [&str; 3] = ["owner", "rename", "schema"];
