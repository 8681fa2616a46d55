//! What a restore would do: which column goes where, which rows differ, and what stands in the way.

use postgres::types::Type;
use postgres::{Client, GenericClient, IsolationLevel};

use super::{CHANGES, Merged, STAGING};
use crate::database::catalog::{self, Column, Relation};
use crate::database::history::quote_identifier;
use crate::error::{Failure, Result};
use crate::flags::Restore;
use crate::runbook::backup::Manifest;
use crate::ui;

/// Conflicts that are named.
const SHOWN: usize = 10;

/// A table as a plan was made for it. It is read again under each lock: what a restore means is fixed
/// before it waits.
#[derive(PartialEq, Eq)]
struct Shape {
    columns: Vec<Column>,
    key: Vec<String>,
    /// Column, oid and name of each.
    sequences: Vec<(String, u32, String)>,
    triggers: Vec<(String, bool)>,
}

impl Shape {
    fn of(client: &mut impl GenericClient, table: u32) -> Result<Shape> {
        Ok(Shape {
            columns: catalog::columns(client, table)?,
            key: catalog::primary_key(client, table)?,
            sequences: catalog::owned_sequences(client, table)?
                .into_iter()
                .map(|sequence| (sequence.column, sequence.oid, sequence.name))
                .collect(),
            triggers: catalog::firing_triggers(client, table)?,
        })
    }
}

/// Which column goes where.
pub(super) struct Plan {
    /// Qualified name.
    pub(super) table: String,
    pub(super) oid: u32,
    shape: Shape,
    pub(super) owned: bool,
    /// The primary key's columns, quoted.
    pub(super) key: Vec<String>,
    /// The columns of the file, with the types to read them as.
    pub(super) staged: Vec<Column>,
    /// Columns that both have, quoted: what a missing row returns with.
    pub(super) common: Vec<String>,
    /// Those of them, quoted, that a differing row takes from the backup.
    pub(super) taken: Vec<String>,
    pub(super) skipped: Vec<String>,
    /// Whether missing rows return.
    pub(super) inserts: bool,
    pub(super) sequences: Vec<(catalog::OwnedSequence, Option<i64>)>,
    /// Triggers of users that are to be silent, quoted, and how they are enabled.
    pub(super) triggers: Vec<(String, &'static str)>,
}

impl Plan {
    pub(super) fn of(
        client: &mut Client,
        table: &Relation,
        manifest: &Manifest,
        flags: &Restore,
    ) -> Result<Plan> {
        let (file, only) = (flags.file.display(), &flags.columns[..]);
        let qualified = table.qualified();
        check_name(client, &qualified, table.oid)?;
        let shape = Shape::of(client, table.oid)?;
        let (live, key) = (shape.columns.clone(), shape.key.clone());
        let saved = |name: &String| manifest.columns.iter().any(|column| column.name == *name);
        if key.is_empty() || !key.iter().all(saved) {
            return Err(Failure::failed(format!("`{}` cannot be merged with the backup", manifest.table))
                .cause(match key.is_empty() {
                    true => "it has no primary key, so rows cannot be told apart".to_owned(),
                    false => format!("the backup does not hold its primary key ({})", key.join(", ")),
                })
                .state("nothing was restored")
                .hint(format!(
                    "load the backup into a database of its own and look: createdb look && pg_dump \"$DATABASE_URL\" --schema-only --table={} | psql look && psql look -f {file}",
                    manifest.table
                ))
                .into());
        }
        let restorable = |name: &str| {
            live.iter()
                .find(|column| column.name == name && !column.generated)
        };
        let mut plan = Plan {
            table: qualified,
            oid: table.oid,
            owned: table.owned,
            staged: Vec::new(),
            common: Vec::new(),
            taken: Vec::new(),
            skipped: Vec::new(),
            inserts: only.is_empty(),
            sequences: Vec::new(),
            triggers: shape
                .triggers
                .iter()
                .map(|(name, always)| {
                    let enable = if *always { "ENABLE ALWAYS" } else { "ENABLE" };
                    (quote_identifier(name), enable)
                })
                .collect(),
            key: key.iter().map(|name| quote_identifier(name)).collect(),
            shape,
        };
        for saved in &manifest.columns {
            let found = restorable(&saved.name);
            plan.staged.push(Column {
                name: saved.name.clone(),
                type_name: found.map_or("text".to_owned(), |column| column.type_name.clone()),
                portable: true,
                generated: false,
                always_identity: false,
            });
            let Some(column) = found else {
                plan.skipped.push(saved.name.clone());
                continue;
            };
            let name = quote_identifier(&saved.name);
            let wanted = only.is_empty() || only.contains(&saved.name);
            if wanted && !key.contains(&saved.name) && !column.always_identity {
                plan.taken.push(name.clone());
            }
            plan.common.push(name);
        }
        if let Some(name) = only
            .iter()
            .find(|name| !plan.taken.contains(&quote_identifier(name)))
        {
            return Err(
                Failure::usage(format!("column `{name}` cannot be taken from the backup"))
                    .cause("it is not in both the backup and the table, or it is the primary key")
                    .hint(format!("cargo xtask db-restore {file} --dry-run"))
                    .into(),
            );
        }
        for sequence in catalog::owned_sequences(client, table.oid)? {
            let saved = manifest
                .sequences
                .iter()
                .find(|saved| saved.column == sequence.column);
            plan.sequences
                .push((sequence.clone(), saved.map(|saved| saved.last_value)));
        }
        Ok(plan)
    }

    /// `l.id = s.id AND …`.
    pub(super) fn same_key(&self, left: &str, right: &str) -> String {
        let pairs: Vec<String> = self
            .key
            .iter()
            .map(|name| format!("{left}.{name} = {right}.{name}"))
            .collect();
        pairs.join(" AND ")
    }

    /// Locks the table, and checks that it is still the one that the plan was made for. Returns where its
    /// rows are (`pg_class.relfilenode`): TRUNCATE and rewrites make a new one.
    pub(super) fn lock(&self, client: &mut impl GenericClient, mode: &str) -> Result<u32> {
        let lock = format!("LOCK TABLE ONLY {} IN {mode} MODE", self.table);
        client.batch_execute(&lock).map_err(|error| {
            match error.code() == Some(&postgres::error::SqlState::UNDEFINED_TABLE) {
                true => changed(&self.table, "it was dropped or renamed").into(),
                false => anyhow::Error::new(error),
            }
        })?;
        check_name(client, &self.table, self.oid)?;
        if Shape::of(client, self.oid)? != self.shape {
            let cause = "its columns, primary key, sequences or triggers were changed";
            return Err(changed(&self.table, cause).into());
        }
        let row = client.query_typed_one(
            "SELECT relfilenode FROM pg_catalog.pg_class WHERE oid = $1",
            &[(&self.oid, Type::OID)],
        )?;
        Ok(row.get(0))
    }

    /// Whether a row is still the version that the comparison saw.
    pub(super) fn unchanged(&self) -> &'static str {
        "l.ctid OPERATOR(pg_catalog.=) c.seen_at AND l.xmin OPERATOR(pg_catalog.=) c.seen_by"
    }

    /// Writes down which staged rows are missing from the table or differ from it; returns what a
    /// merge would do, and in how many rows it would replace a value, other than NULL, by another.
    ///
    /// `*<>` compares images of values (PostgreSQL manual, "Composite Type Comparison"): also those of types without
    /// equality, such as json, and `1.0` differs from `1.00`.
    pub(super) fn compare(&self, client: &mut Client, staged: u64) -> Result<Comparison> {
        let table = &self.table;
        let columns = |of: &str| {
            let columns: Vec<String> = self
                .taken
                .iter()
                .map(|name| format!("{of}.{name}"))
                .collect();
            format!("ROW({})::record", columns.join(", "))
        };
        let differs = format!("{} OPERATOR(pg_catalog.*<>) {}", columns("l"), columns("s"));
        let replaces: Vec<String> = self
            .taken
            .iter()
            .map(|name| {
                format!("pg_catalog.num_nulls(l.{name}) = 0 AND ROW(l.{name})::record OPERATOR(pg_catalog.*<>) ROW(s.{name})::record")
            })
            .chain(["false".to_owned()])
            .collect();
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()?;
        // The lock comes first: a snapshot that is older than a TRUNCATE or a rewrite sees no row.
        let storage = self.lock(&mut transaction, "ACCESS SHARE")?;
        transaction.batch_execute(&format!(
            "CREATE TEMPORARY TABLE xtask_changes AS
             SELECT s.ctid AS at, l.ctid IS NULL AS missing, l.ctid AS seen_at, l.xmin AS seen_by,
                    {} AS replaces
             FROM {STAGING} AS s LEFT JOIN ONLY {table} AS l ON {}
             WHERE l.ctid IS NULL OR {differs};
             ANALYZE {CHANGES}",
            replaces.join(" OR "),
            self.same_key("l", "s"),
        ))?;
        let row = transaction.query_typed_one(
            &format!(
                "SELECT pg_catalog.count(*) FILTER (WHERE missing),
                        pg_catalog.count(*) FILTER (WHERE NOT missing),
                        pg_catalog.count(*) FILTER (WHERE replaces AND NOT missing),
                        (SELECT pg_catalog.count(*) FROM ONLY {table})
                 FROM {CHANGES}"
            ),
            &[],
        )?;
        transaction.commit()?;
        let number = |column| row.get::<_, i64>(column) as u64;
        let (missing, differing, replaced, live) = (number(0), number(1), number(2), number(3));
        let merged = Merged {
            inserted: if self.inserts { missing } else { 0 },
            updated: differing,
            kept_newer: live.saturating_sub(staged - missing),
            unchanged: staged - missing - differing,
            skipped_columns: self.skipped.clone(),
            changed_meanwhile: 0,
            dry_run: false,
        };
        Ok(Comparison {
            merged,
            replaced,
            storage,
        })
    }

    pub(super) fn tell(&self, merged: &Merged, replaced: u64) -> String {
        let mut text = format!(
            "{}: {} to return, {} to take the backup's values, {} unchanged, {} newer than the backup",
            self.table,
            ui::plural(merged.inserted, "row"),
            ui::count(merged.updated),
            ui::count(merged.unchanged),
            ui::count(merged.kept_newer),
        );
        if replaced > 0 {
            text.push_str(&format!(
                "; {} lose a value by it",
                ui::plural(replaced, "row")
            ));
        }
        if merged.changed_meanwhile > 0 {
            text.push_str(&format!(
                "; {} changed since the comparison and left as they are",
                ui::plural(merged.changed_meanwhile, "row")
            ));
        }
        text
    }

    /// Values that must be unique and would be there twice: index, value, the key of the row that
    /// would take it, and of the row that has it. Indexes on columns that the backup lacks are left
    /// to the server.
    pub(super) fn conflicts(&self, client: &mut Client) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for index in catalog::unique_indexes(client, self.oid)? {
            let needed: Vec<String> = index
                .columns
                .iter()
                .map(|name| quote_identifier(name))
                .collect();
            if !needed.iter().all(|name| self.common.contains(name)) {
                continue;
            }
            let columns: Vec<String> = needed
                .iter()
                .map(|name| match self.taken.contains(name) {
                    true => format!("s.{name}"),
                    false => {
                        format!("CASE WHEN c.missing THEN s.{name} ELSE l.{name} END AS {name}")
                    }
                })
                .collect();
            let key = |of: &str| {
                let columns: Vec<String> =
                    self.key.iter().map(|name| format!("{of}.{name}")).collect();
                format!("ROW({})::text", columns.join(", "))
            };
            let keys = index.expressions.join(", ");
            let predicate = index.predicate.as_deref().unwrap_or("true");
            let names: Vec<String> = (1..=index.expressions.len())
                .map(|n| format!("k{n}"))
                .collect();
            let same: Vec<String> = names
                .iter()
                .map(|name| match index.nulls_not_distinct {
                    true => format!("w.{name} IS NOT DISTINCT FROM f.{name}"),
                    false => format!("w.{name} = f.{name}"),
                })
                .collect();
            let values: Vec<String> = names.iter().map(|name| format!("w.{name}")).collect();
            let aliases = names.join(", ");
            let rows = client.query_typed(
                &format!(
                    "WITH written AS MATERIALIZED (
                         SELECT {row_key} AS xtask_key, {columns}
                         FROM {CHANGES} AS c JOIN {STAGING} AS s ON s.ctid = c.at
                         LEFT JOIN ONLY {table} AS l ON {same_key}
                         WHERE {inserts} OR NOT c.missing),
                     final AS (
                         SELECT * FROM written
                         UNION ALL
                         SELECT {live_key}, {live_columns} FROM ONLY {table} AS l
                         WHERE NOT EXISTS (SELECT FROM written WHERE xtask_key = {live_key})),
                     w (xtask_key, {aliases}) AS (SELECT xtask_key, {keys} FROM written WHERE {predicate}),
                     f (xtask_key, {aliases}) AS (SELECT xtask_key, {keys} FROM final WHERE {predicate})
                     SELECT ROW({values})::text, w.xtask_key, f.xtask_key FROM w JOIN f ON {same}
                     WHERE w.xtask_key <> f.xtask_key ORDER BY 2 LIMIT {SHOWN}",
                    row_key = key("s"),
                    columns = columns.join(", "),
                    table = self.table,
                    same_key = self.same_key("l", "s"),
                    inserts = self.inserts,
                    live_key = key("l"),
                    live_columns = needed
                        .iter()
                        .map(|name| format!("l.{name}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                    values = values.join(", "),
                    same = same.join(" AND "),
                ),
                &[],
            )?;
            for row in rows {
                let (value, wants, has): (String, String, String) =
                    (row.get(0), row.get(1), row.get(2));
                found.push(format!(
                    "{}: the backup's row {wants} has {value}, which belongs to row {has} now",
                    index.name
                ));
            }
        }
        found.truncate(SHOWN);
        Ok(found)
    }
}

/// What a comparison found.
pub(super) struct Comparison {
    pub(super) merged: Merged,
    /// In how many rows a value, other than NULL, would be replaced by another.
    pub(super) replaced: u64,
    /// Where the table's rows were then.
    pub(super) storage: u32,
}

/// That a name is still this table's.
fn check_name(client: &mut impl GenericClient, table: &str, oid: u32) -> Result {
    let row = client.query_typed_one(
        "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid",
        &[(&table, Type::TEXT)],
    )?;
    match row.get::<_, Option<u32>>(0) {
        Some(now) if now == oid => Ok(()),
        Some(_) => Err(changed(table, "another table has its name now").into()),
        None => Err(changed(table, "it was dropped or renamed").into()),
    }
}

/// The table is not the one any more that this restore was meant for.
pub(super) fn changed(table: &str, cause: &str) -> Failure {
    Failure::finding(format!("`{table}` was changed while the restore waited"))
        .cause(cause)
        .state("nothing was restored")
        .hint("look whether the backup still fits: cargo xtask db-restore FILE --dry-run")
}

pub(super) fn conflict(plan: &Plan, conflicts: Vec<String>) -> Failure {
    let mut failure = Failure::finding(format!(
        "the backup cannot be merged into `{}`: values that must be unique belong to other rows now",
        plan.table
    ))
    .sqlstate("23505");
    failure.causes = conflicts;
    failure.state("nothing was restored").hint(
        "change the rows that have these values now, then: cargo xtask db-restore FILE --dry-run",
    )
}
