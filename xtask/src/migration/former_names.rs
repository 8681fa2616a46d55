//! What tables were called before the statements of a run created, dropped and renamed them.

use std::collections::{BTreeMap, BTreeSet};

use super::effects::{Effect, ObjectName};

/// Follows statements in the order in which they run.
pub(crate) struct FormerNames<'s> {
    /// The schema in which names without one are looked up.
    schema: Option<&'s str>,
    created: BTreeSet<ObjectName>,
    /// `CREATE TABLE IF NOT EXISTS`: may have existed before.
    created_if_missing: BTreeSet<ObjectName>,
    renamed: BTreeMap<ObjectName, ObjectName>,
    /// Whether there was a statement that may have done anything.
    lost_track: bool,
}

impl<'s> FormerNames<'s> {
    pub(crate) fn new(schema: Option<&'s str>) -> FormerNames<'s> {
        FormerNames {
            schema,
            created: BTreeSet::new(),
            created_if_missing: BTreeSet::new(),
            renamed: BTreeMap::new(),
            lost_track: false,
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
            Effect::RenameTable { table, to } => {
                let (from, to) = (table.within(self.schema), to.within(self.schema));
                if self.created.remove(&from) {
                    self.created.insert(to);
                } else {
                    let before = self.renamed.remove(&from).unwrap_or(from);
                    self.created.remove(&to);
                    self.renamed.insert(to, before);
                }
            }
            Effect::Opaque => self.lost_track = true,
            _ => {}
        }
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
        self.lost_track || self.created_if_missing.contains(&table.within(self.schema))
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
