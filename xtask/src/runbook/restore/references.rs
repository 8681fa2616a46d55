//! Rows that a restore would write and that refer to rows that are not there: foreign keys.
//!
//! Of a look, and not of a lock: it tells beforehand what the server would refuse, and names the backup
//! that holds what is missing. The server decides.

use std::path::PathBuf;

use postgres::Client;
use postgres::types::Type;

use super::part::Part;
use super::plan::SHOWN;
use super::request::Request;
use crate::Context;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::quote::quote_identifier;
use crate::runbook::backup::{self, State};

/// A row whose foreign key refers to nothing.
pub(super) struct Dangling {
    text: String,
    /// Qualified name of the table that it refers to.
    refers_to: String,
}

/// Finds them, of constraints that hold for every row that is there and that this role can look behind.
pub(super) fn dangling(parts: &[Part], client: &mut Client) -> Result<Vec<Dangling>> {
    let mut found = Vec::new();
    for part in parts {
        for key in foreign_keys(client, part)? {
            let referred = parts.iter().find(|other| other.plan.oid == key.refers_to.0);
            // A column that the backup does not hold gets its default.
            let is_held = |column: &String| part.plan.common.contains(column);
            let is_known = referred.is_none_or(|other| {
                key.referred
                    .iter()
                    .all(|column| other.plan.common.contains(column))
            });
            if !key.columns.iter().all(is_held) || !is_known {
                continue;
            }
            let values = |of: &str| {
                let values: Vec<String> = key
                    .columns
                    .iter()
                    .map(|name| format!("{of}.{name}"))
                    .collect();
                values.join(", ")
            };
            let same: Vec<String> = key
                .columns
                .iter()
                .zip(&key.referred)
                .zip(&key.equality)
                .map(|((column, referred), equals)| format!("r.{referred} {equals} w.{column}"))
                .collect();
            let there = match referred {
                Some(other) => format!(
                    "WITH written AS MATERIALIZED ({}) {}",
                    other.plan.written_sql(&key.referred),
                    other.plan.final_sql(&key.referred),
                ),
                None => format!("SELECT {} FROM {}", key.referred.join(", "), key.scanned),
            };
            let rows = client.query_typed(
                &format!(
                    "WITH w AS MATERIALIZED ({}), r AS ({there})
                     SELECT w.xtask_key, ROW({values})::text FROM w
                     WHERE pg_catalog.num_nulls({values}) = 0
                       AND NOT EXISTS (SELECT FROM r WHERE {same})
                     ORDER BY 1 LIMIT {SHOWN}",
                    part.plan.written_sql(&key.columns),
                    values = values("w"),
                    same = same.join(" AND "),
                ),
                &[],
            )?;
            found.extend(rows.iter().map(|row| {
                let (row, value): (String, String) = (row.get(0), row.get(1));
                let refers_to = key.refers_to.1.clone();
                Dangling {
                    text: format!(
                        "{}: row {row} of `{}` refers to {value} in `{refers_to}`, which is not there",
                        key.name, part.plan.table
                    ),
                    refers_to,
                }
            }));
        }
    }
    found.truncate(SHOWN);
    Ok(found)
}

/// Says which rows refer to nothing, and how to restore what they refer to.
pub(super) fn explain(
    ctx: &Context,
    mut failure: Failure,
    dangling: &[Dangling],
    request: &Request,
) -> Failure {
    failure
        .causes
        .extend(dangling.iter().map(|of| of.text.clone()));
    failure.state = vec!["nothing was restored".to_owned()];
    let backups = backup::list(&ctx.config.backups, &ctx.ui).unwrap_or_default();
    let mut tables: Vec<&str> = dangling.iter().map(|of| &*of.refers_to).collect();
    tables.sort_unstable();
    tables.dedup();
    let newest = |table: &&str| {
        let good = |of: &&backup::Found| of.state == State::Good && of.manifest.table == **table;
        backups
            .iter()
            .find(good)
            .map(|of| ctx.config.shown(&of.file))
    };
    let more: Option<Vec<PathBuf>> = tables.iter().map(newest).collect();
    failure.hints = match more {
        Some(more) if !more.is_empty() => vec![Hint::to(
            "restore the table that it refers to first, or both in one transaction",
            request.arguments_for(&[&request.files[..], &more[..]].concat()),
        )],
        _ => vec![
            Hint::to(
                "restore the table that it refers to first; see whether there is a backup of it",
                "db-backups",
            ),
            Hint::again("then"),
        ],
    };
    failure
}

struct ForeignKey {
    name: String,
    /// Quoted.
    columns: Vec<String>,
    /// Oid and qualified name.
    refers_to: (u32, String),
    /// The table as the server's own check reads it.
    scanned: String,
    /// Quoted; one for each of `columns`, with the operator by which they are equal.
    referred: Vec<String>,
    equality: Vec<String>,
}

/// Of constraints that are not validated rows may break some already; a policy may hide what is there.
fn foreign_keys(client: &mut Client, part: &Part) -> Result<Vec<ForeignKey>> {
    let names = |keys: &str, table: &str| {
        format!(
            "ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(c.{keys}) WITH ORDINALITY AS k (attnum, n)
                   JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.{table} AND a.attnum = k.attnum ORDER BY k.n)"
        )
    };
    let rows = client.query_typed(
        &format!(
            "SELECT c.conname::text, {columns}, c.confrelid,
                    pg_catalog.format('%I.%I', n.nspname, r.relname),
                    CASE r.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END, {referred},
                    ARRAY(SELECT pg_catalog.format('OPERATOR(%I.%s)', m.nspname, o.oprname)
                          FROM pg_catalog.unnest(c.conpfeqop) WITH ORDINALITY AS k (oid, n)
                          JOIN pg_catalog.pg_operator AS o ON o.oid = k.oid
                          JOIN pg_catalog.pg_namespace AS m ON m.oid = o.oprnamespace ORDER BY k.n)
             FROM pg_catalog.pg_constraint AS c
             JOIN pg_catalog.pg_class AS r ON r.oid = c.confrelid
             JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
             WHERE c.conrelid = $1 AND c.contype = 'f' AND c.convalidated
               AND NOT coalesce((pg_catalog.to_jsonb(c) ->> 'conperiod')::bool, false)
               AND pg_catalog.has_table_privilege(r.oid, 'SELECT')
               AND NOT pg_catalog.row_security_active(r.oid)
             ORDER BY 1",
            columns = names("conkey", "conrelid"),
            referred = names("confkey", "confrelid"),
        ),
        &[(&part.plan.oid, Type::OID)],
    )?;
    let quoted = |names: Vec<String>| names.iter().map(|name| quote_identifier(name)).collect();
    Ok(rows
        .iter()
        .map(|row| {
            let refers_to: (u32, String) = (row.get(2), row.get(3));
            ForeignKey {
                name: row.get(0),
                columns: quoted(row.get(1)),
                scanned: format!("{}{}", row.get::<_, String>(4), refers_to.1),
                refers_to,
                referred: quoted(row.get(5)),
                equality: row.get(6),
            }
        })
        .collect())
}
