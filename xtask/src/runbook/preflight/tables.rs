//! The tables that a run changes or backs up.

use std::collections::BTreeSet;

use anyhow::Context as _;
use postgres::Client;

use super::check::{Check, Found, Look, When};
use crate::database::Database;
use crate::database::catalog::{self, Relation};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::effects::ObjectName;
use crate::runbook::backup_tables::{can_be_backed_up, missing_table, must_be_table};
use crate::ui;

/// Every table that the scripts back up, alter or index is there, and is ours to change.
pub(super) const TABLES: Check = Check {
    name: "tables",
    before: &[When::Up, When::Down],
    look: Look::Run(|_, db, planned| {
        look(db, &planned.affected)?;
        Ok(Found::ok(summary(&planned.affected)))
    }),
};

/// # Errors
/// For the first that is not there, no table, or not ours to change.
fn look(db: &mut Database, affected: &AffectedTables) -> Result {
    for name in &affected.altered {
        // ALTER TABLE is for views, sequences and indexes too: which of its forms, the server says.
        alterable(db, name)?;
    }
    for (name, concurrently) in &affected.indexed {
        let relation = alterable(db, name)?;
        // A materialized view has indexes like a table.
        if relation.kind != 'm' {
            must_be_table(&relation)?;
        }
        if *concurrently && relation.kind == 'p' {
            return Err(Failure::failed(format!("`{}` is a partitioned table", relation.qualified()))
                .sqlstate("0A000")
                .cause("PostgreSQL cannot create an index on a partitioned table concurrently")
                .hint(Hint::again_with("create it on each partition concurrently, then ON ONLY the parent, and attach them; then", "--dry-run"))
                .into());
        }
    }
    let if_there = catalog::existing(db, &affected.backup_if_exists)?;
    let mut backed_up: Vec<u32> = if_there.iter().map(|table| table.oid).collect();
    for name in &affected.backup {
        match catalog::find(db, name)? {
            Some(relation) => {
                can_be_backed_up(db, &relation)?;
                backed_up.push(relation.oid);
            }
            None => {
                let elsewhere = catalog::schemas_with(&mut db.client, &name.name)?;
                return Err(missing_table(&db.server, name, &elsewhere)
                    .hint(Hint::to(
                        "if an earlier pending migration makes it, apply that first",
                        "db-migrate --to VERSION",
                    ))
                    .into());
            }
        }
    }
    check_child_tables(&mut db.client, &backed_up)
}

/// A change of a table is one of all tables that inherit from it, whose rows are their own.
///
/// # Errors
/// If one of them is not backed up with it.
fn check_child_tables(client: &mut Client, backed_up: &[u32]) -> Result {
    let children = catalog::uncovered_child_tables(client, backed_up)?;
    let Some((table, _)) = children.first() else {
        return Ok(());
    };
    let names: Vec<&str> = children
        .iter()
        .filter(|(parent, _)| parent == table)
        .map(|(_, child)| child.as_str())
        .collect();
    Err(Failure::failed(format!(
        "tables inherit from `{table}` and are not backed up with it"
    ))
    .sqlstate("0A000")
    .cause(format!("their rows change with it: {}", names.join(", ")))
    .state("nothing was changed")
    .hint(Hint::again_with(
        format!(
            "add to the head of the file: `-- xtask: backup {}`; then",
            names.join(", ")
        ),
        "--dry-run",
    ))
    .into())
}

fn alterable(db: &mut Database, name: &ObjectName) -> Result<Relation> {
    let Some(relation) = catalog::find(db, name).context("cannot look up a table")? else {
        let elsewhere = catalog::schemas_with(&mut db.client, &name.name)?;
        return Err(missing_table(&db.server, name, &elsewhere).into());
    };
    if !relation.owned {
        return Err(Failure::failed(format!(
            "role `{}` may not alter `{}`",
            db.server.user,
            relation.qualified()
        ))
        .sqlstate("42501")
        .cause(format!("it belongs to `{}`", relation.owner))
        .hint(Hint::again_with(
            "connect as its owner",
            format!("--database-url {}", db.server.address(&relation.owner)),
        ))
        .into());
    }
    Ok(relation)
}

/// `1 table`, `2 tables`.
pub(super) fn summary(affected: &AffectedTables) -> String {
    let tables: BTreeSet<&ObjectName> = affected.tables().collect();
    match tables.len() {
        0 if affected.is_partial => "which tables it touches is seen at its moment".to_owned(),
        0 => "no existing table is touched".to_owned(),
        _ => {
            let names: Vec<String> = tables.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "{} checked: {}",
                ui::plural(tables.len() as u64, "table"),
                names.join(", ")
            )
        }
    }
}
