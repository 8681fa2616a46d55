//! Which tables the scripts of a run change, under the names that these have before the run.

use std::collections::BTreeSet;

use super::effects::{Effect, ObjectName};
use super::names::Names;
use super::script::Script;

/// What the scripts of a run change that exists before the run.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Tables that directives ask to back up, under the names that they have before the run.
    pub(crate) backup: BTreeSet<ObjectName>,
    /// Likewise, but they need not exist: an interrupted run may have dropped them, or an earlier
    /// statement that may do anything may create them.
    pub(crate) backup_if_there: BTreeSet<ObjectName>,
    pub(crate) altered: BTreeSet<ObjectName>,
    /// Tables that get an index, and whether it is built concurrently.
    pub(crate) indexed: BTreeSet<(ObjectName, bool)>,
    /// Tables that the scripts create, and that therefore must not exist yet.
    pub(crate) created: BTreeSet<ObjectName>,
}

impl Touched {
    /// Reads the scripts in the order in which they will run. A table that an earlier one creates need
    /// not exist yet, one that it drops may exist, and one that it renames still has its old name. After a
    /// statement that may do anything (`DO`, `CALL`), of later statements only what they create and back
    /// up is known. `schema` is the one in which names without a schema are looked up.
    pub(crate) fn by<'a>(
        scripts: impl IntoIterator<Item = &'a Script>,
        schema: Option<&str>,
    ) -> Touched {
        let mut touched = Touched::default();
        let mut names = Names::new(schema);
        for script in scripts {
            touched.backs_up(script, &names);
            for (statement, effects) in script.effects() {
                // A materialized view can have an index, and is not tracked.
                names.unsure |= statement.has_word(&script.text, "materialized");
                for effect in effects {
                    match &effect {
                        Effect::CreateTable {
                            table,
                            if_not_exists: false,
                        } if !names.is_gone(table) => {
                            touched.created.insert(table.clone());
                        }
                        Effect::AlterTable {
                            table,
                            if_exists: false,
                        } if !names.may_be_made(table) => {
                            touched.altered.extend(names.before(table))
                        }
                        Effect::CreateIndex {
                            table,
                            concurrently,
                            ..
                        } if !names.may_be_made(table) => {
                            let table = names.before(table);
                            let indexed = table.map(|table| (table, *concurrently));
                            touched.indexed.extend(indexed);
                        }
                        _ => {}
                    }
                    names.follow(&effect);
                }
            }
        }
        touched
    }

    fn backs_up(&mut self, script: &Script, names: &Names<'_>) {
        for written in &script.directives.backup {
            let Some(table) = ObjectName::parse(written) else {
                continue;
            };
            let Some(before) = names.before(&table) else {
                continue;
            };
            if names.may_be_made(&table) || script.may_have_dropped(&table) {
                self.backup_if_there.insert(before);
            } else {
                self.backup.insert(before);
            }
        }
    }

    /// The tables that must exist before the scripts run.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &ObjectName> {
        let indexed = self.indexed.iter().map(|(table, _)| table);
        self.altered.iter().chain(indexed).chain(&self.backup)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::migration::script::Role;

    #[test]
    fn what_scripts_touch_is_told_by_the_names_of_before_the_run() {
        let table: &[(&[&str], &str)] = &[
            (
                &["ALTER TABLE users ADD a int; CREATE INDEX CONCURRENTLY i ON sessions (a)"],
                "altered users; indexed sessions concurrently",
            ),
            (
                &[
                    "CREATE TABLE t (); ALTER TABLE public.t ADD a int",
                    "CREATE INDEX ON t (a)",
                ],
                "created t",
            ),
            (
                &[
                    "CREATE TABLE IF NOT EXISTS t ()",
                    "-- xtask: backup t\nALTER TABLE t DROP a",
                ],
                "if there t",
            ),
            (
                &[
                    "ALTER TABLE users RENAME TO accounts",
                    "-- xtask: backup accounts\nALTER TABLE accounts DROP a",
                ],
                "altered users; backup users",
            ),
            (
                &["DO $$ $$", "-- xtask: backup t\nALTER TABLE t DROP a"],
                "if there t",
            ),
            (
                &["-- no-transaction\n-- xtask: backup t, u\nDROP TABLE t"],
                "backup u; if there t",
            ),
            (&["-- xtask: backup t\nDROP TABLE t"], "backup t"),
            (&["DROP TABLE t; CREATE TABLE t ()"], ""),
            (&["ALTER TABLE IF EXISTS t ADD a int"], ""),
        ];
        for (texts, expected) in table {
            let scripts: Vec<Script> = texts
                .iter()
                .map(|text| {
                    Script::parse(Path::new("a.sql"), (*text).into(), Role::Up).expect("parses")
                })
                .collect();
            let touched = Touched::by(&scripts, Some("public"));
            let mut told = Vec::new();
            told.extend(touched.created.iter().map(|name| format!("created {name}")));
            told.extend(touched.altered.iter().map(|name| format!("altered {name}")));
            told.extend(touched.indexed.iter().map(|(name, concurrently)| {
                let how = if *concurrently { " concurrently" } else { "" };
                format!("indexed {name}{how}")
            }));
            told.extend(touched.backup.iter().map(|name| format!("backup {name}")));
            let if_there = touched.backup_if_there.iter();
            told.extend(if_there.map(|name| format!("if there {name}")));
            assert_eq!(told.join("; "), *expected, "{texts:?}");
        }
    }
}
