//! Read-only checks before a change. A run stops at the first that fails; the doctor lists all.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;

use super::losses;
use crate::database::catalog::{self, Relation};
use crate::database::{Database, OLDEST_SERVER, Server, activity, history};
use crate::error::{Failure, Result, psql_command};
use crate::migration::affected_tables::AffectedTables;
use crate::migration::effects::ObjectName;
use crate::migration::quote::quote_if_needed;
use crate::migration::script::Script;
use crate::ui;

/// A transaction older than this is worth naming before a migration.
pub(crate) const LONG_TRANSACTION: Duration = Duration::from_secs(5);

/// A script that runs outside a transaction says by its text alone what it destroys: there is no moment
/// before it takes effect at which the server could be asked.
///
/// # Errors
/// If it has a statement that cannot be read, and does not say what to back up for it.
pub(crate) fn readable(script: &Script) -> Result {
    let Some(statement) = script.first_unclear() else {
        return Ok(());
    };
    if script.transactional || script.directives.lossless || !script.directives.backup.is_empty() {
        return Ok(());
    }
    let path = script.path.display();
    Err(Failure::usage(format!("`{path}` may destroy what is in no backup"))
        .cause(format!(
            "it runs outside a transaction, and what {} does cannot be read from it",
            losses::place(script, statement)
        ))
        .state("nothing was changed")
        .hint(format!("let {path} run in a transaction, where the server is asked what it destroys: remove its first line; then: cargo xtask db-migrate --dry-run"))
        .hint("or say in its head what to back up, `-- xtask: backup TABLE`, or that it destroys nothing, `-- xtask: lossless`; then: cargo xtask db-migrate --dry-run")
        .into())
}

/// The server is one that this works with, and may be written to.
///
/// # Errors
/// If it is too old, or a standby.
pub(crate) fn server(db: &Database) -> Result {
    fit(&db.server)
}

fn fit(server: &Server) -> Result {
    if server.major() < OLDEST_SERVER {
        return Err(Failure::failed(format!(
            "PostgreSQL {} is too old",
            server.server_version
        ))
        .cause(format!("this works with PostgreSQL {OLDEST_SERVER} and newer"))
        .hint("upgrade the server, or name another one: cargo xtask db-doctor --database-url postgres://HOST/DATABASE")
        .into());
    }
    if server.in_recovery {
        return Err(Failure::failed(format!("`{}:{}` is a standby: it accepts reads only", server.host, server.port))
            .sqlstate("25006")
            .cause("migrations run on the primary and reach standbys by replication")
            .hint("cargo xtask db-migrate --database-url 'postgres://HOST1,HOST2/DATABASE?target_session_attrs=read-write'")
            .into());
    }
    if server.read_only {
        return Err(Failure::failed(format!("`{}` is fenced off: it accepts reads only", server.name))
            .sqlstate("25006")
            .cause(format!(
                "default_transaction_read_only is on for `{}`, here for this role, this database or the server: somebody wants nothing to be written",
                server.user
            ))
            .state("nothing was changed")
            .hint("see who has set it: cargo xtask db-psql -- -c '\\drds'; where the fence may be lifted, by whoever put it up: cargo xtask db-psql -- -c 'SET default_transaction_read_only = off' -c 'ALTER DATABASE … RESET default_transaction_read_only'")
            .hint("of several hosts take the one that may be written to: cargo xtask db-migrate --database-url 'postgres://HOST1,HOST2/DATABASE?target_session_attrs=read-write'")
            .into());
    }
    Ok(())
}

/// This role can keep the history.
///
/// # Errors
/// If it may not create or write the history table.
pub(crate) fn history_rights(db: &mut Database) -> Result {
    let table = history::table(db);
    let user = db.server.user.clone();
    let migrate_as_owner = format!(
        "cargo xtask db-migrate --database-url {}",
        db.server.address("OWNER")
    );
    let refused = |what: &str, hint: &str| {
        Failure::failed(format!("role `{user}` may not {what}"))
            .sqlstate("42501")
            .hint(hint)
    };
    if db.server.history_schema.is_some() {
        let failure = refused(
            &format!("write the history table `{table}`"),
            &format!("connect as its owner: {migrate_as_owner}"),
        );
        return if catalog::may_write(db, &table)? {
            Ok(())
        } else {
            Err(failure.into())
        };
    }
    let Some(schema) = db.server.schema.clone() else {
        return Err(Failure::failed("no schema of the search path exists")
            .sqlstate("3F000")
            .cause("the history table, and every unqualified table, would have no place")
            .hint("cargo xtask db-psql -- -c 'SHOW search_path'")
            .into());
    };
    let failure = refused(
        &format!("create the history table in schema `{schema}`"),
        &format!("connect as the database's owner: {migrate_as_owner}"),
    );
    if catalog::may_create_in(db, &schema)? {
        Ok(())
    } else {
        Err(failure.into())
    }
}

/// Every table that the scripts back up, alter or index is there, is a table, and is ours to change.
///
/// # Errors
/// For the first that is not.
pub(crate) fn tables(db: &mut Database, affected: &AffectedTables) -> Result {
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
                .hint("create it on each partition concurrently, then ON ONLY the parent, and attach them; then: cargo xtask db-migrate --dry-run")
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
                let elsewhere = catalog::schemas_with(db, &name.name)?;
                return Err(missing_table(db, name, &elsewhere)
                    .hint("if an earlier pending migration makes it, apply that first: cargo xtask db-migrate --to VERSION")
                    .into());
            }
        }
    }
    check_child_tables(db, &backed_up)
}

/// A change of a table is one of all tables that inherit from it, whose rows are their own.
///
/// # Errors
/// If one of them is not backed up with it.
fn check_child_tables(db: &mut Database, backed_up: &[u32]) -> Result {
    let children = catalog::uncovered_child_tables(db, backed_up)?;
    let Some((table, _)) = children.first() else {
        return Ok(());
    };
    let names: Vec<&str> = children
        .iter()
        .filter(|(parent, _)| parent == table)
        .map(|(_, child)| child.as_str())
        .collect();
    Err(Failure::failed(format!("tables inherit from `{table}` and are not backed up with it"))
        .sqlstate("0A000")
        .cause(format!("their rows change with it: {}", names.join(", ")))
        .state("nothing was changed")
        .hint(format!(
            "add to the head of the file: `-- xtask: backup {}`; then: cargo xtask db-migrate --dry-run",
            names.join(", ")
        ))
        .into())
}

/// Whether a script moves, renames or drops the table that says what has run: its own row would have no
/// place, and the next run would take the database for an empty one.
pub(crate) fn moves_history(script: &Script) -> bool {
    script.statements.iter().any(|statement| {
        let has_word = |word| statement.has_word(&script.text, word);
        has_word(history::TABLE) && ["drop", "rename", "schema"].into_iter().any(has_word)
    })
}

/// The history stays where it is. In a transaction the server sees to that; outside of one it is too late
/// when it says so.
///
/// # Errors
/// If a script that runs outside a transaction moves it.
pub(crate) fn history_stays<'a>(scripts: impl IntoIterator<Item = &'a Script>) -> Result {
    let mut scripts = scripts.into_iter();
    match scripts.find(|script| !script.transactional && moves_history(script)) {
        Some(script) => Err(
            Failure::usage(format!("cannot run `{}`", script.path.display()))
                .cause(HISTORY_MOVED)
                .state("no migration has run; nothing was changed")
                .hint(format!(
                    "take that out of {}, then: cargo xtask db-migrate",
                    script.path.display()
                ))
                .into(),
        ),
        None => Ok(()),
    }
}

/// What is wrong with such a script.
pub(crate) const HISTORY_MOVED: &str = "it moves, renames or drops `_sqlx_migrations`, the table that says what has run: its own row would have no place";

/// The tables that a run is going to create are not there. If they are, the database is one that
/// existed before this tool.
///
/// # Errors
/// For the first that is there.
pub(crate) fn not_adopted(
    db: &mut Database,
    affected: &AffectedTables,
    has_history: bool,
) -> Result {
    if affected.created.is_empty() {
        return Ok(());
    }
    for relation in catalog::existing(db, &affected.created)? {
        if !relation.temporary {
            let failure = Failure::failed(format!("`{}` exists already", relation.qualified()))
                .sqlstate("42P07");
            return Err(if has_history {
                failure
                    .cause("a pending migration would create it")
                    .hint("cargo xtask db-status")
            } else {
                failure
                    .cause(format!(
                        "`{}` has tables and no migration history: it existed before this tool",
                        db.server.name
                    ))
                    .hint("compare the baseline with it and record it: cargo xtask db-baseline")
            }
            .into());
        }
    }
    Ok(())
}

fn alterable(db: &mut Database, name: &ObjectName) -> Result<Relation> {
    let Some(relation) = catalog::find(db, name).context("cannot look up a table")? else {
        let elsewhere = catalog::schemas_with(db, &name.name)?;
        return Err(missing_table(db, name, &elsewhere).into());
    };
    if !relation.owned {
        return Err(Failure::failed(format!(
            "role `{}` may not alter `{}`",
            db.server.user,
            relation.qualified()
        ))
        .sqlstate("42501")
        .cause(format!("it belongs to `{}`", relation.owner))
        .hint(format!(
            "connect as its owner: cargo xtask db-migrate --database-url {}",
            db.server.address(&relation.owner)
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
    .hint(format!(
        "see what is behind it: {}, name a table in the migration, then: cargo xtask db-migrate",
        psql_command(&format!("\\d+ {}", relation.qualified()))
    ))
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
            .hint(format!(
                "list them: {}, and name each: in the migration, `-- xtask: backup PARTITION`, or cargo xtask db-backup PARTITION",
                psql_command(&format!("\\d+ {table}"))
            ))
            .hint("or go without a backup of ours: cargo xtask db-migrate --no-backup")
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
    Ok(Failure::failed(format!("role `{user}` may not read `{table}`"))
        .sqlstate("42501")
        .cause("a backup reads every row, and its sequences")
        .cause(format!("it belongs to `{}`", relation.owner))
        .hint(format!(
            "let it, as a superuser: cargo xtask db-psql --database-url {} -- -c 'GRANT SELECT ON {} TO {}'",
            db.server.address("postgres"),
            read.join(", "),
            quote_if_needed(user)
        )))
}

/// A directive of this script names no table at the moment when it runs.
pub(super) fn names_no_table(
    db: &mut Database,
    script: &Script,
    name: &ObjectName,
) -> Result<Failure> {
    let elsewhere = catalog::schemas_with(db, &name.name)?;
    let mut failure = missing_table(db, name, &elsewhere);
    failure.causes.insert(0, failure.message);
    failure.message = format!(
        "cannot back up `{name}`, as {} asks for",
        script.path.display()
    );
    Ok(failure.state("this migration has changed nothing"))
}

pub(crate) fn missing_table(db: &Database, name: &ObjectName, elsewhere: &[String]) -> Failure {
    let schema = db.server.schema.as_deref().unwrap_or("public");
    let failure = Failure::failed(match &name.schema {
        Some(_) => format!("there is no table `{name}`"),
        None => format!("there is no table `{name}` in schema `{schema}`"),
    })
    .sqlstate("42P01");
    match elsewhere.first() {
        Some(other) => failure
            .cause(format!("there is one in: {}", elsewhere.join(", ")))
            .hint(format!(
                "if that is the one, set the search path: cargo xtask db-migrate --database-url '{}?options=-csearch_path%3D{other}'",
                db.server.address(&db.server.user)
            )),
        None => failure.hint("is this the right database? cargo xtask db-doctor"),
    }
}

/// Who might be in the way, said before it matters: long transactions on this database, and dumps.
///
/// # Errors
/// If the server cannot be asked.
pub(crate) fn in_the_way(db: &mut Database, show_queries: bool) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for session in activity::old_transactions(&mut db.client, LONG_TRANSACTION)? {
        let mut line = format!("a long transaction: {session}");
        if show_queries && !session.query.is_empty() {
            line.push_str(&format!("\n  {}", session.query));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Free bytes of the file system that holds a folder or its nearest existing ancestor.
///
/// # Errors
/// If it cannot be asked.
pub(crate) fn free_bytes(folder: &std::path::Path) -> Result<u64> {
    let existing = folder
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(folder);
    let stats = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot ask for the free space of `{}`", existing.display()))?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// The file system has room for a backup of these tables. What a dump takes is not known before: a
/// row's text is about as long as the row, unless PostgreSQL has compressed it.
///
/// # Errors
/// If there is less room than the tables take.
pub(crate) fn room(folder: &std::path::Path, tables: &[Relation]) -> Result<(u64, u64)> {
    let needed = tables.iter().map(|table| table.bytes).sum();
    let free = free_bytes(folder)?;
    if free >= needed {
        return Ok((free, needed));
    }
    Err(Failure::failed("there is no room for the backup")
        .cause(format!(
            "{} free in `{}`, and the tables take {}",
            ui::bytes(free),
            folder.display(),
            ui::bytes(needed)
        ))
        .state("nothing was changed")
        .hint("choose a folder with more room: cargo xtask db-migrate --backups DIR")
        .into())
}

/// `1 table`, `2 tables`.
pub(crate) fn summary(affected: &AffectedTables) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn server(version: &str, number: u32, in_recovery: bool) -> Server {
        Server {
            name: "app".to_owned(),
            host: "/run/postgresql".to_owned(),
            port: 5432,
            user: "app".to_owned(),
            server_version: version.to_owned(),
            version_number: number,
            encoding: "UTF8".to_owned(),
            encrypted: false,
            in_recovery,
            read_only: false,
            schema: None,
            clock: jiff::Timestamp::UNIX_EPOCH,
            history_schema: None,
            newest_run: None,
            backend_pid: 0,
        }
    }

    #[test]
    fn servers_before_14_are_refused() {
        for (version, number, refused) in [
            ("9.6.24", 90_624, true),
            ("13.23", 130_023, true),
            ("14.0", 140_000, false),
            ("18.1", 180_001, false),
        ] {
            let outcome = fit(&server(version, number, false));
            let failure = outcome.map_err(|error| error.downcast::<Failure>().expect("a failure"));
            assert_eq!(failure.is_err(), refused, "{version}");
            if let Err(failure) = failure {
                assert_eq!(failure.kind, Kind::Failed);
                assert_eq!(failure.message, format!("PostgreSQL {version} is too old"));
                assert!(failure.causes[0].contains("PostgreSQL 14"), "{failure:?}");
                assert!(
                    failure.hints[0].contains("cargo xtask db-doctor"),
                    "{failure:?}"
                );
            }
        }
    }

    #[test]
    fn an_address_is_one_word_whatever_the_names() {
        let mut server = server("18.1", 180_001, false);
        assert_eq!(
            server.address("the owner"),
            "postgres://the%20owner@%2Frun%2Fpostgresql:5432/app"
        );
        server.host = "::1".to_owned();
        server.name = "app's".to_owned();
        assert_eq!(server.address("app"), "postgres://app@[::1]:5432/app%27s");
    }
}
