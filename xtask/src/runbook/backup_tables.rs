//! Which tables are backed up: found by their names, in the order in which they can be restored; and why one
//! cannot be. How a backup is taken is in `backup`.

use crate::database::catalog::{self, Relation};
use crate::database::{Database, Server};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::affected_tables::AffectedTables;
use crate::migration::effects::ObjectName;
use crate::migration::quote::quote_if_needed;
use crate::migration::script::Script;
use crate::migration::source::{Folder, Migration};

/// The tables of these names, each once: `users` and `public.users` are one.
///
/// # Errors
/// As [`find`], for the first that cannot be backed up.
pub(crate) fn find_all(db: &mut Database, names: &[String]) -> Result<Vec<Relation>> {
    let mut tables: Vec<Relation> = Vec::new();
    for name in names {
        let table = find(db, name)?;
        if tables.iter().all(|other| other.oid != table.oid) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// Finds a table that can be backed up.
///
/// # Errors
/// If it does not exist, is no table, or may not be read.
pub(crate) fn find(db: &mut Database, name: &str) -> Result<Relation> {
    let parsed = ObjectName::parse(name).ok_or_else(|| {
        Failure::usage(format!("not a table's name: `{name}`")).hint(Hint::run("db-backup TABLE"))
    })?;
    let Some(relation) = catalog::find(db, &parsed)? else {
        let elsewhere = catalog::schemas_with(&mut db.client, &parsed.name)?;
        return Err(missing_table(&db.server, &parsed, &elsewhere).into());
    };
    can_be_backed_up(db, &relation)?;
    Ok(relation)
}

/// What a backup is of where nobody names tables: those that `pending` migrations ask to back up, or else
/// those that any migration does, as far as they exist.
///
/// # Errors
/// If the catalog cannot be asked.
pub(crate) fn default_names(
    db: &mut Database,
    folder: &Folder,
    pending: &AffectedTables,
) -> Result<Vec<String>> {
    let if_there = catalog::existing(db, &pending.backup_if_exists)?;
    let named = pending.backup.iter().map(ToString::to_string);
    let named: Vec<String> = named
        .chain(if_there.iter().map(Relation::qualified))
        .collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let directives = folder.migrations.iter().flat_map(Migration::directives);
    let written = directives.flat_map(|directives| directives.backup);
    let names: Vec<ObjectName> = written
        .filter_map(|name| ObjectName::parse(&name))
        .collect();
    let tables = catalog::existing(db, &names)?;
    Ok(tables.iter().map(Relation::qualified).collect())
}

/// The tables of these names, each once. A table that a foreign key refers to comes before the one that
/// refers to it, because they are restored in this order.
///
/// # Errors
/// If one is no table, or may not be read.
pub(crate) fn in_order_of_references(db: &mut Database, names: &[String]) -> Result<Vec<Relation>> {
    let mut waiting = Vec::new();
    for table in find_all(db, names)? {
        let referenced = catalog::referenced_tables(&mut db.client, table.oid)?;
        waiting.push((table, referenced));
    }
    let mut ordered: Vec<Relation> = Vec::new();
    while !waiting.is_empty() {
        let is_waiting = |oid: &u32| waiting.iter().any(|(table, _)| table.oid == *oid);
        // If they refer to each other in a circle, any may be first.
        let next = waiting
            .iter()
            .position(|(_, referenced)| !referenced.iter().any(is_waiting))
            .unwrap_or(0);
        ordered.push(waiting.remove(next).0);
    }
    Ok(ordered)
}

/// # Errors
/// If it is a view or anything else that is no table.
pub(super) fn must_be_table(relation: &Relation) -> Result {
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
pub(super) fn can_be_backed_up(db: &mut Database, relation: &Relation) -> Result {
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
pub(super) fn names_no_table(
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

pub(super) fn missing_table(server: &Server, name: &ObjectName, elsewhere: &[String]) -> Failure {
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
