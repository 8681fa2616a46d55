//! The tables that a run changes or backs up.

use std::collections::BTreeSet;

use anyhow::Context as _;
use postgres::Client;

use super::{Check, Found, Look, When};
use crate::database::catalog::{self, Relation};
use crate::database::{Database, Server};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::effects::ObjectName;
use crate::migration::quote::quote_if_needed;
use crate::migration::script::Script;
use crate::ui;

/// Every table that the scripts back up, alter or index is there, is a table, and is ours to change.
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
        must_be_table(&alterable(db, name)?)?;
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
    let mut backed_up = Vec::new();
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

/// # Errors
/// If it is a view or anything else that is no table.
fn must_be_table(relation: &Relation) -> Result {
    if matches!(relation.kind, 'r' | 'p') {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "`{}` is a {}, not a table",
        relation.qualified(),
        relation.kind_name()
    ))
    .sqlstate("42809")
    .cause("it can be neither altered as a table nor backed up")
    .hint(Hint::psql(
        "see what is behind it",
        &format!("\\d+ {}", relation.qualified()),
    ))
    .hint(Hint::again("name a table in the migration, then"))
    .into())
}

/// # Errors
/// If it is no table, has its rows elsewhere, or may not be read.
pub(crate) fn can_be_backed_up(db: &mut Database, relation: &Relation) -> Result {
    must_be_table(relation)?;
    if relation.kind == 'p' {
        let table = relation.qualified();
        return Err(Failure::failed(format!("`{table}` is a partitioned table"))
            .sqlstate("0A000")
            .cause("its rows are in its partitions: a backup of it alone would hold none")
            .hint(Hint::psql("list them", &format!("\\d+ {table}")))
            .hint(Hint::to(
                "name each: in the migration, `-- xtask: backup PARTITION`, or",
                "db-backup PARTITION",
            ))
            .hint(Hint::again_with(
                "or continue without a backup",
                "--no-backup",
            ))
            .into());
    }
    if !relation.readable {
        return Err(not_readable(db, relation)?.into());
    }
    Ok(())
}

fn not_readable(db: &mut Database, relation: &Relation) -> Result<Failure> {
    let table = relation.qualified();
    let mut read = vec![table.clone()];
    let sequences = catalog::owned_sequences(&mut db.client, relation.oid)?;
    read.extend(sequences.into_iter().map(|sequence| sequence.name));
    let user = &db.server.user;
    Ok(
        Failure::failed(format!("role `{user}` may not read `{table}`"))
            .sqlstate("42501")
            .cause("a backup reads every row, and the table's sequences")
            .cause(format!("it belongs to `{}`", relation.owner))
            .hint(Hint::to(
                "allow it, as a superuser",
                format!(
                    "db-psql --database-url {} -- -c 'GRANT SELECT ON {} TO {}'",
                    db.server.address("postgres"),
                    read.join(", "),
                    quote_if_needed(user)
                ),
            )),
    )
}

/// A directive of this script names no table at the moment when it runs.
pub(crate) fn names_no_table(
    db: &mut Database,
    script: &Script,
    name: &ObjectName,
) -> Result<Failure> {
    let elsewhere = catalog::schemas_with(&mut db.client, &name.name)?;
    let attempted = format!(
        "cannot back up `{name}`, as {} asks for",
        script.path.display()
    );
    let failure = missing_table(&db.server, name, &elsewhere).attempted(attempted);
    Ok(failure.state("this migration has changed nothing"))
}

pub(crate) fn missing_table(server: &Server, name: &ObjectName, elsewhere: &[String]) -> Failure {
    let schema = server.schema.as_deref().unwrap_or("public");
    let failure = Failure::failed(match &name.schema {
        Some(_) => format!("there is no table `{name}`"),
        None => format!("there is no table `{name}` in schema `{schema}`"),
    })
    .sqlstate("42P01");
    match elsewhere.first() {
        Some(other) => failure
            .cause(format!("there is one in: {}", elsewhere.join(", ")))
            .hint(Hint::again_with(
                "if that is the one, set the search path",
                format!(
                    "--database-url '{}?options=-csearch_path%3D{other}'",
                    server.address(&server.user)
                ),
            )),
        None => failure.hint(Hint::to("is this the right database?", "db-doctor")),
    }
}

/// `1 table`, `2 tables`.
pub(super) fn summary(affected: &AffectedTables) -> String {
    let tables: BTreeSet<&ObjectName> = affected.tables().collect();
    match tables.len() {
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
