//! What a restore would do: which column goes where, which rows differ, and what stands in the way.

use anyhow::Context as _;
use postgres::types::Type;
use postgres::{Client, GenericClient, IsolationLevel};

use super::types::{Conversion, is_widening};
use super::{CHANGES, Merged, STAGING, Session};
use crate::database::catalog::{self, Column, Relation};
use crate::database::history::quote_identifier;
use crate::database::{OWN_SEARCH_PATH, set_search_path};
use crate::error::{Failure, Result};
use crate::flags::Restore;
use crate::runbook::backup::Manifest;
use crate::ui;

/// Conflicts that are named.
pub(super) const SHOWN: usize = 10;

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
    /// By which operator each of them is equal.
    key_equality: Vec<String>,
    /// The columns of the file, with the types to read them as.
    pub(super) staged: Vec<Column>,
    /// Columns that both have, quoted: what a missing row returns with.
    pub(super) common: Vec<String>,
    /// Those of them, quoted, that a differing row takes from the backup.
    pub(super) taken: Vec<String>,
    pub(super) skipped: Vec<String>,
    /// Columns that rows return with and that an UPDATE may not set.
    fixed: Vec<String>,
    pub(super) conversions: Vec<Conversion>,
    /// Columns of domains, and the type beneath, as which they are staged: a domain's checks are somebody
    /// else's code, which is to run where a row is written, and not where it is only looked at.
    domains: Vec<(String, String)>,
    /// Whether it is not known that the backup's rows differ in their keys.
    check_keys: bool,
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
        check_key(manifest, &key, flags)?;
        check_rules(client, &qualified, table.oid, flags)?;
        let mut differ = Vec::new();
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
            fixed: Vec::new(),
            conversions: conversions(flags, manifest)?,
            domains: catalog::domain_columns(client, table.oid)?,
            check_keys: manifest.primary_key.as_ref() != Some(&key),
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
            key_equality: catalog::primary_key_equality(client, table.oid)?,
            shape,
        };
        for saved in &manifest.columns {
            let found = restorable(&saved.name);
            let quoted = quote_identifier(&saved.name);
            let wanted = only.is_empty() || only.contains(&saved.name);
            let domain = plan.domains.iter().find(|(of, _)| *of == saved.name);
            let staged_as = |column: &Column| match domain {
                Some((_, beneath)) => beneath.clone(),
                None => column.type_name.clone(),
            };
            let conversion = plan.conversions.iter_mut().find(|of| of.column == quoted);
            let type_name = match (found, conversion) {
                (None, _) => "text".to_owned(),
                (Some(column), Some(conversion)) => {
                    conversion.to = staged_as(column);
                    plan.check_keys |= key.contains(&saved.name);
                    known_type(client, &saved.type_name)?
                }
                (Some(column), None) => {
                    let is_read = wanted || key.contains(&saved.name);
                    if is_read && !is_widening(&saved.type_name, &column.type_name) {
                        differ.push((saved, &column.type_name));
                    }
                    match is_read {
                        true => staged_as(column),
                        false => "text".to_owned(),
                    }
                }
            };
            plan.staged.push(Column {
                number: 0,
                not_null: false,
                name: saved.name.clone(),
                type_name,
                portable: true,
                generated: false,
                always_identity: false,
            });
            let Some(column) = found else {
                plan.skipped.push(saved.name.clone());
                continue;
            };
            let name = quoted;
            if column.always_identity && !key.contains(&saved.name) {
                plan.fixed.push(saved.name.clone());
            }
            if wanted && !key.contains(&saved.name) && !column.always_identity {
                plan.taken.push(name.clone());
            }
            plan.common.push(name);
        }
        if let Some((column, now)) = differ.first() {
            let mut failure = Failure::finding(format!(
                "types of columns of `{}` have changed since the backup",
                plan.table
            ));
            failure.causes = differ
                .iter()
                .map(|(column, now)| {
                    format!(
                        "column `{}`: it was {}, and is {now}",
                        column.name, column.type_name
                    )
                })
                .collect();
            let (name, was) = (&column.name, &column.type_name);
            return Err(failure
                .state("nothing was restored")
                .hint(format!(
                    "say what a value of type {was} is as {now}: cargo xtask db-restore {file} --convert '{name}={name}' --dry-run (or, say, --convert '{name}={name} * 100')"
                ))
                .into());
        }
        if let Some(conversion) = plan.conversions.iter().find(|of| of.to.is_empty()) {
            return Err(Failure::usage(format!(
                "column {} cannot be converted: the table does not have it, or computes it itself",
                conversion.column
            ))
            .hint(format!("cargo xtask db-restore {file} --dry-run"))
            .into());
        }
        if let Some(name) = only
            .iter()
            .find(|name| !plan.taken.contains(&quote_identifier(name)))
        {
            return Err(
                Failure::usage(format!("column `{name}` cannot be taken from the backup"))
                    .cause("it is not in both the backup and the table, is the primary key, or is GENERATED ALWAYS AS IDENTITY")
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

    /// In the staging table, where it is asked for: the backup's values as values of today's types. The
    /// expressions are the user's, and mean what they do in a migration.
    pub(super) fn convert(&self, session: &mut Session) -> Result {
        if self.conversions.is_empty() {
            return Ok(());
        }
        let columns: Vec<String> = self
            .conversions
            .iter()
            .map(
                |Conversion {
                     column,
                     to,
                     expression,
                 }| {
                    format!("ALTER COLUMN {column} TYPE {to} USING ({expression})")
                },
            )
            .collect();
        let Session {
            client,
            search_path,
            ..
        } = session;
        client.batch_execute(&set_search_path(search_path))?;
        // Prepared, so that it is one statement.
        client
            .execute(
                &format!("ALTER TABLE {STAGING} {}", columns.join(", ")),
                &[],
            )
            .context("cannot convert the backup's values as --convert says")?;
        client.batch_execute(&set_search_path(OWN_SEARCH_PATH))?;
        Ok(())
    }

    /// No two staged rows are for one live row.
    pub(super) fn check_keys(&self, client: &mut Client) -> Result {
        if !self.check_keys {
            return Ok(());
        }
        let rows = client.query_typed(
            &format!(
                "SELECT ROW({key})::text, pg_catalog.count(*) FROM {STAGING}
                 GROUP BY {key} HAVING pg_catalog.count(*) > 1 ORDER BY 1 LIMIT {SHOWN}",
                key = self.key.join(", ")
            ),
            &[],
        )?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::finding(format!(
            "the backup has several rows for one row of `{}`: its primary key is not what tells them apart",
            self.table
        ));
        failure.causes = rows
            .iter()
            .map(|row| {
                let (key, count): (String, i64) = (row.get(0), row.get(1));
                format!("row {key}: {count} times in the backup")
            })
            .collect();
        Err(failure
            .state("nothing was restored")
            .hint("look at the table's key: cargo xtask db-psql -- -c '\\d'")
            .into())
    }

    /// `l.id = s.id AND …`.
    pub(super) fn same_key(&self, left: &str, right: &str) -> String {
        let pairs: Vec<String> = self
            .key
            .iter()
            .zip(&self.key_equality)
            .map(|(name, equals)| format!("{left}.{name} {equals} {right}.{name}"))
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

    /// A cast to the type beneath a domain, for two values to be of one type.
    fn beneath(&self, quoted: &str) -> String {
        let of = |(name, _): &&(String, String)| quote_identifier(name) == quoted;
        let found = self.domains.iter().find(of);
        found.map_or(String::new(), |(_, beneath)| format!("::{beneath}"))
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
                .map(|name| format!("{of}.{name}{}", self.beneath(name)))
                .collect();
            format!("ROW({})::record", columns.join(", "))
        };
        let differs = format!("{} OPERATOR(pg_catalog.*<>) {}", columns("l"), columns("s"));
        let replaces: Vec<String> = self
            .taken
            .iter()
            .map(|name| {
                format!("pg_catalog.num_nulls(l.{name}) = 0 AND ROW(l.{name}{beneath})::record OPERATOR(pg_catalog.*<>) ROW(s.{name})::record", beneath = self.beneath(name))
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
        let mut fixed = Vec::new();
        for name in &self.fixed {
            let column = quote_identifier(name);
            let row = transaction.query_typed_one(
                &format!(
                    "SELECT pg_catalog.count(*) FROM {STAGING} AS s JOIN ONLY {table} AS l ON {}
                     WHERE l.{column} <> s.{column}",
                    self.same_key("l", "s")
                ),
                &[],
            )?;
            match row.get::<_, i64>(0) as u64 {
                0 => {}
                rows => fixed.push((name.clone(), rows)),
            }
        }
        transaction.commit()?;
        let number = |column| row.get::<_, i64>(column) as u64;
        let (missing, differing, replaced, live) = (number(0), number(1), number(2), number(3));
        let merged = Merged {
            inserted: if self.inserts { missing } else { 0 },
            updated: differing,
            kept_newer: live.saturating_sub(staged - missing),
            unchanged: staged - missing - differing,
            skipped_columns: self
                .skipped
                .iter()
                .chain(fixed.iter().map(|(column, _)| column))
                .cloned()
                .collect(),
            changed_meanwhile: 0,
            dry_run: false,
        };
        Ok(Comparison {
            merged,
            replaced,
            storage,
            fixed,
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
            let columns: Vec<String> = needed.iter().map(|name| self.written(name)).collect();
            let key = |of: &str| self.key_text(of);
            let keys = index.expressions.join(", ");
            let predicate = index.predicate.as_deref().unwrap_or("true");
            let names = index.names();
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
                    same = index.same("w", "f"),
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
        found.extend(self.stuck(client)?);
        found.truncate(SHOWN);
        Ok(found)
    }

    /// What a column of a row that is written will hold.
    pub(super) fn written(&self, name: &String) -> String {
        match self.taken.contains(name) {
            true => format!("s.{name}"),
            false => format!("CASE WHEN c.missing THEN s.{name} ELSE l.{name} END AS {name}"),
        }
    }

    /// A row's key, to show it.
    pub(super) fn key_text(&self, of: &str) -> String {
        let columns: Vec<String> = self.key.iter().map(|name| format!("{of}.{name}")).collect();
        format!("ROW({})::text", columns.join(", "))
    }
}

/// What a comparison found.
pub(super) struct Comparison {
    pub(super) merged: Merged,
    /// In how many rows a value, other than NULL, would be replaced by another.
    pub(super) replaced: u64,
    /// Where the table's rows were then.
    pub(super) storage: u32,
    /// Columns that cannot be set, and in how many rows they differ.
    pub(super) fixed: Vec<(String, u64)>,
}

/// What `--convert` asks for.
fn conversions(flags: &Restore, manifest: &Manifest) -> Result<Vec<Conversion>> {
    let mut conversions = Vec::new();
    for given in &flags.convert {
        let parsed = given.split_once('=').filter(|(column, expression)| {
            let known = manifest.columns.iter().any(|of| of.name == column.trim());
            known && !expression.trim().is_empty()
        });
        let Some((column, expression)) = parsed else {
            return Err(Failure::usage(format!("cannot read `--convert {given}`"))
                .cause("it takes a column of the backup, and what its values are to become")
                .hint("for example: --convert 'price=price * 100'")
                .into());
        };
        conversions.push(Conversion {
            column: quote_identifier(column.trim()),
            to: String::new(),
            expression: expression.trim().to_owned(),
        });
    }
    Ok(conversions)
}

/// The type that the values were written with, or text where it does not exist any more.
fn known_type(client: &mut Client, name: &str) -> Result<String> {
    let row = client.query_typed_one(
        "SELECT pg_catalog.to_regtype($1) IS NOT NULL",
        &[(&name, Type::TEXT)],
    )?;
    Ok(if row.get(0) { name } else { "text" }.to_owned())
}

/// Rows are told apart as they were when the backup was taken.
fn check_key(manifest: &Manifest, key: &[String], flags: &Restore) -> Result {
    let Some(was) = manifest.primary_key.as_ref().filter(|was| !was.is_empty()) else {
        return Ok(());
    };
    if was.len() == key.len() && was.iter().all(|name| key.contains(name)) {
        return Ok(());
    }
    Err(Failure::finding(format!(
        "the primary key of `{}` has changed since the backup",
        manifest.table
    ))
    .cause(format!(
        "it was ({}), and is ({}): which row of the backup is which row of the table cannot be told",
        was.join(", "),
        key.join(", ")
    ))
    .state("nothing was restored")
    .hint(format!(
        "make ({}) the primary key again, then: cargo xtask db-restore {} --dry-run",
        was.join(", "),
        flags.file.display()
    ))
    .into())
}

/// A rule would write something else than the rows.
fn check_rules(client: &mut Client, table: &str, oid: u32, flags: &Restore) -> Result {
    let rows = client.query_typed(
        "SELECT pg_catalog.quote_ident(rulename) FROM pg_catalog.pg_rewrite
         WHERE ev_class = $1 AND ev_type IN ('2', '3') AND ev_enabled IN ('O', 'A') ORDER BY 1",
        &[(&oid, Type::OID)],
    )?;
    if rows.is_empty() {
        return Ok(());
    }
    let rules: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let change = |verb: &str| {
        let rules: Vec<String> = rules
            .iter()
            .map(|rule| format!("{verb} RULE {rule}"))
            .collect();
        format!(
            "cargo xtask db-psql -- -c 'ALTER TABLE {table} {}'",
            rules.join(", ")
        )
    };
    Err(Failure::failed(format!(
        "`{table}` has rules, which would rewrite the restore"
    ))
    .cause(format!("rules on INSERT or UPDATE: {}", rules.join(", ")))
    .state("nothing was restored")
    .hint(format!("turn them off: {}", change("DISABLE")))
    .hint(format!(
        "then: cargo xtask db-restore {}",
        flags.file.display()
    ))
    .hint(format!("and on again: {}", change("ENABLE")))
    .into())
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
