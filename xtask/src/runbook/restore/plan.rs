//! Which table and which columns a backup's rows go to, as what, and that this is still so under a lock.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use postgres::types::Type;
use postgres::{Client, GenericClient};

use super::request::Request;
use super::session::MergeSession;
use super::types::{Conversion, is_widening};
use crate::database::catalog::{self, Column, Relation};
use crate::database::{OWN_SEARCH_PATH, set_search_path};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::quote::quote_identifier;
use crate::runbook::backup::Manifest;
use crate::shell::shell_word;

/// How many rows are named that are in the way.
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
    /// The backup, as it was given.
    pub(super) file: PathBuf,
    /// The temporary tables of the backup's rows, and of those of them that differ: qualified names.
    pub(super) staging: String,
    pub(super) changes: String,
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
    pub(super) updated_columns: Vec<String>,
    pub(super) skipped: Vec<String>,
    /// Columns that rows return with and that an UPDATE may not set.
    pub(super) fixed: Vec<String>,
    pub(super) conversions: Vec<Conversion>,
    /// Columns of domains, and the type beneath, as which they are staged: a domain's checks are somebody
    /// else's code, which is to run where a row is written, and not where it is only looked at.
    pub(super) domains: Vec<(String, String)>,
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
        file: &Path,
        request: &Request,
    ) -> Result<Plan> {
        let only = &request.columns[..];
        let shown = shell_word(file.display());
        let look = Hint::run(format!("db-restore {shown} --dry-run"));
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
                    "load the backup into a database of its own and look: createdb look && pg_dump \"$DATABASE_URL\" --schema-only --table={} | psql look && psql look -f {shown}",
                    manifest.table
                ))
                .into());
        }
        check_key(manifest, &key)?;
        check_rules(client, &qualified, table.oid)?;
        let mut differ = Vec::new();
        let restorable = |name: &str| {
            live.iter()
                .find(|column| column.name == name && !column.generated)
        };
        let mut plan = Plan {
            staging: format!("pg_temp.xtask_staging_{}", table.oid),
            changes: format!("pg_temp.xtask_changes_{}", table.oid),
            file: file.to_owned(),
            table: qualified,
            oid: table.oid,
            owned: table.owned,
            staged: Vec::new(),
            common: Vec::new(),
            updated_columns: Vec::new(),
            skipped: Vec::new(),
            fixed: Vec::new(),
            conversions: conversions(request, manifest)?,
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
                plan.updated_columns.push(name.clone());
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
                .hint(Hint::to(
                    format!(
                        "say how a value of type {was} becomes {now}: unchanged, as here, or by an expression after the `=`"
                    ),
                    format!("db-restore {shown} --convert '{name}={name}' --dry-run"),
                ))
                .into());
        }
        if let Some(conversion) = plan.conversions.iter().find(|of| of.to.is_empty()) {
            return Err(Failure::usage(format!(
                "column {} cannot be converted: the table does not have it, or computes it itself",
                conversion.column
            ))
            .hint(look)
            .into());
        }
        if let Some(name) = only
            .iter()
            .find(|name| !plan.updated_columns.contains(&quote_identifier(name)))
        {
            return Err(
                Failure::usage(format!("column `{name}` cannot be taken from the backup"))
                    .cause("it is not in both the backup and the table, is the primary key, or is GENERATED ALWAYS AS IDENTITY")
                    .hint(look)
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
    pub(super) fn convert(&self, session: &mut MergeSession) -> Result {
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
        let MergeSession {
            client,
            search_path,
            ..
        } = session;
        client.batch_execute(&set_search_path(search_path))?;
        // Prepared, so that it is one statement.
        client
            .execute(
                &format!("ALTER TABLE {} {}", self.staging, columns.join(", ")),
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
                "SELECT ROW({key})::text, pg_catalog.count(*) FROM {staging}
                 GROUP BY {key} HAVING pg_catalog.count(*) > 1 ORDER BY 1 LIMIT {SHOWN}",
                key = self.key.join(", "),
                staging = self.staging
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
            .hint(Hint::to("look at the table's key", "db-psql -- -c '\\d'"))
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
}

/// What `--convert` asks for.
fn conversions(request: &Request, manifest: &Manifest) -> Result<Vec<Conversion>> {
    let mut conversions = Vec::new();
    for given in &request.convert {
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
fn check_key(manifest: &Manifest, key: &[String]) -> Result {
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
    .hint(Hint::again_with(
        format!("make ({}) the primary key again, then", was.join(", ")),
        "--dry-run",
    ))
    .into())
}

/// A rule would write something else than the rows.
fn check_rules(client: &mut Client, table: &str, oid: u32) -> Result {
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
        format!("ALTER TABLE {table} {}", rules.join(", "))
    };
    Err(Failure::failed(format!(
        "`{table}` has rules, which would rewrite the restore"
    ))
    .cause(format!("rules on INSERT or UPDATE: {}", rules.join(", ")))
    .state("nothing was restored")
    .hint(Hint::psql("turn them off", &change("DISABLE")))
    .hint(Hint::again("then"))
    .hint(Hint::psql("and on again", &change("ENABLE")))
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
        .hint(Hint::again_with(
            "check whether the backup still fits",
            "--dry-run",
        ))
}
