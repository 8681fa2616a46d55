//! Which tables the scripts of a run change, under the names that these have before the run.

use std::collections::BTreeSet;

use super::effects::{Effect, ObjectName};
use super::foresight::Foresight;
use super::former_names::FormerNames;
use super::script::Script;

/// What the scripts of a run change that exists before the run.
#[derive(Debug, Default)]
pub(crate) struct AffectedTables {
    /// Tables that directives ask to back up, under the names that they have before the run.
    pub(crate) backup: BTreeSet<ObjectName>,
    /// Likewise, but they need not exist now: an interrupted run may have dropped them, or an earlier
    /// statement may create them.
    pub(crate) backup_if_exists: BTreeSet<ObjectName>,
    pub(crate) altered: BTreeSet<ObjectName>,
    /// Tables that get an index, and whether it is built concurrently.
    pub(crate) indexed: BTreeSet<(ObjectName, bool)>,
    /// Tables that the scripts create, and that therefore must not exist yet.
    pub(crate) created: BTreeSet<ObjectName>,
    /// Whether tables may be altered or indexed that are not named above.
    pub(crate) is_partial: bool,
}

impl AffectedTables {
    /// Reads the scripts in the order in which they will run. `altered`, `indexed` and `created` have what is
    /// certain: see [`Foresight`]. A table to back up that an earlier statement creates need not exist yet,
    /// and one that it renames still has its old name. `schema` is the one in which names without a schema
    /// are looked up.
    pub(crate) fn from_scripts<'a>(
        scripts: impl IntoIterator<Item = &'a Script>,
        schema: Option<&str>,
    ) -> AffectedTables {
        let mut affected = AffectedTables::default();
        let mut names = FormerNames::new(schema);
        let mut foresight = Foresight::default();
        for script in scripts {
            foresight.begin_script();
            affected.add_backups(script, &names, &foresight);
            for (statement, effects) in script.effects() {
                for effect in &effects {
                    affected.add(effect, &foresight);
                    names.apply(effect);
                }
                foresight.note(script, statement, &effects);
            }
        }
        affected
    }

    fn add(&mut self, effect: &Effect, foresight: &Foresight) {
        match effect {
            Effect::CreateTable {
                table,
                if_not_exists: false,
            } if foresight.stays(table) => {
                self.created.insert(table.clone());
            }
            Effect::AlterTable {
                table,
                if_exists: false,
            } if foresight.knows(table) => {
                self.altered.insert(table.clone());
            }
            Effect::CreateIndex {
                table,
                concurrently,
                ..
            } if foresight.knows(table) => {
                self.indexed.insert((table.clone(), *concurrently));
            }
            Effect::AlterTable { table, .. } | Effect::CreateIndex { table, .. } => {
                self.is_partial |= foresight.is_lost(table);
            }
            _ => {}
        }
    }

    fn add_backups(&mut self, script: &Script, names: &FormerNames<'_>, foresight: &Foresight) {
        for written in &script.directives.backup {
            let Some(table) = ObjectName::parse(written) else {
                continue;
            };
            let Some(before) = names.before(&table) else {
                continue;
            };
            let need_not_exist = names.may_be_created(&table)
                || script.may_have_dropped(&table)
                || (before == table && !foresight.knows(&table));
            if need_not_exist {
                self.backup_if_exists.insert(before);
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
    fn tables_have_the_names_of_before_the_run() {
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
            // What an earlier statement may have made, moved or found elsewhere, the server knows.
            (
                &["CREATE VIEW v AS SELECT 1", "ALTER TABLE v OWNER TO me"],
                "",
            ),
            (&["CREATE SEQUENCE s; ALTER TABLE s OWNER TO me"], ""),
            (
                &["CREATE TABLE t (id serial); ALTER TABLE t_id_seq OWNER TO me"],
                "created t",
            ),
            (
                &["ALTER TABLE u ADD id serial; ALTER TABLE u_id_seq OWNER TO me"],
                "altered u",
            ),
            (
                &["ALTER TABLE old.t SET SCHEMA new; ALTER TABLE new.t ADD a int"],
                "altered old.t",
            ),
            (
                &["ALTER SCHEMA old RENAME TO new; CREATE INDEX ON new.t (a)"],
                "",
            ),
            (
                &["SET search_path = new; ALTER TABLE t ADD a int; ALTER TABLE new.u ADD a int"],
                "altered new.u",
            ),
            (
                &[
                    "SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE t (); CREATE TABLE public.u ()",
                ],
                "created public.u",
            ),
            (&["SET ROLE owner; ALTER TABLE t ADD a int"], ""),
            (&["GRANT owner TO me; ALTER TABLE t ADD a int"], ""),
            (
                &["CREATE SCHEMA s CREATE TABLE t (a int); ALTER TABLE s.t ADD b int"],
                "",
            ),
            (
                &[
                    "CREATE INDEX i ON t (a); ALTER TABLE i RENAME TO j; ALTER TABLE t ADD CONSTRAINT u UNIQUE (a); ALTER TABLE u RENAME TO w",
                ],
                "altered t; indexed t",
            ),
            (&["DROP TABLE p; CREATE TABLE p1 ()"], ""),
            (&["DROP SCHEMA s CASCADE; CREATE TABLE s.t ()"], ""),
            // What is certain stays so.
            (
                &[
                    "GRANT SELECT ON t TO PUBLIC; CREATE VIEW v AS SELECT 1",
                    "-- xtask: backup users\nALTER TABLE users ADD a int",
                ],
                "altered users; backup users",
            ),
            (
                &[
                    "ALTER TABLE t ADD a int",
                    "CREATE INDEX CONCURRENTLY ON t (a)",
                ],
                "altered t; indexed t concurrently",
            ),
            (&["DO $$ $$; CREATE TABLE t ()"], ""),
        ];
        for (texts, expected) in table {
            let scripts: Vec<Script> = texts
                .iter()
                .map(|text| {
                    Script::parse(Path::new("a.sql"), (*text).into(), Role::Up).expect("parses")
                })
                .collect();
            let affected = AffectedTables::from_scripts(&scripts, Some("public"));
            let mut found = Vec::new();
            found.extend(
                affected
                    .created
                    .iter()
                    .map(|name| format!("created {name}")),
            );
            found.extend(
                affected
                    .altered
                    .iter()
                    .map(|name| format!("altered {name}")),
            );
            found.extend(affected.indexed.iter().map(|(name, concurrently)| {
                let how = if *concurrently { " concurrently" } else { "" };
                format!("indexed {name}{how}")
            }));
            found.extend(affected.backup.iter().map(|name| format!("backup {name}")));
            let if_there = affected.backup_if_exists.iter();
            found.extend(if_there.map(|name| format!("if there {name}")));
            assert_eq!(found.join("; "), *expected, "{texts:?}");
        }
    }
}
