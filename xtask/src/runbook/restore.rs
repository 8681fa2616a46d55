//! A backup's rows merged back into the live table, in one transaction: what is missing returns, what
//! differs takes the backup's values, what is newer stays. Nothing is deleted.
//!
//! Of the file only the rows are used, through COPY into a temporary table: its SQL never runs. That,
//! and the comparison, happen before any lock; the lock on the live table lets readers through and is
//! held while what differs is written. A row that somebody writes between the comparison and the
//! lock, and that did not differ before, is newer than the restore, and stays as it is.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use postgres::{Client, IsolationLevel, Transaction};
use serde::Serialize;

use super::backup::{self, Manifest, State};
use super::failures;
use super::lock_wait::Waiter;
use super::preflight;
use super::proof::{self, Loader};
use crate::Context;
use crate::database::activity::Waiting;
use crate::database::catalog::{self, Column, Relation};
use crate::database::history::{quote_identifier, quote_literal};
use crate::database::{Database, SESSION_OPTIONS, connect, lock, pooler};
use crate::error::{Failure, Kind, Result};
use crate::flags::Restore;
use crate::interrupt;
use crate::migration::effects::ObjectName;
use crate::tools::pg_dump;
use crate::ui;

/// Bytes read from the file at once.
const BUFFER: usize = 256 * 1024;
/// How often those in the way are looked at while the merge runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Settings of the session that merges: values are read as pg_dump writes them; a hash join of two
/// large tables is worth some memory; and where a policy hides rows that is an error.
const OPTIONS: &str = "-c DateStyle=ISO -c IntervalStyle=postgres -c array_nulls=on -c xmloption=content \
     -c work_mem=64MB -c row_security=off -c jit=off";
/// Conflicts that are named.
const SHOWN: usize = 10;

const STAGING: &str = "pg_temp.xtask_staging";
const CHANGES: &str = "pg_temp.xtask_changes";

/// What a restore did, or would do, in the command contract's shape. Numbers are of rows.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Merged {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    /// In the table and not in the backup.
    pub(crate) kept_newer: u64,
    pub(crate) unchanged: u64,
    /// Columns of the backup that the table does not have, or computes itself.
    pub(crate) skipped_columns: Vec<String>,
    pub(crate) dry_run: bool,
}

/// Restores a backup.
///
/// # Errors
/// If the file is not what was written, belongs to another database, or does not fit the table;
/// [`Kind::Finding`] where a restored value must be unique and belongs to another row now;
/// [`Kind::Busy`] where the lock was not to be had. Nothing has changed then.
pub(crate) fn run(ctx: &Context, flags: &Restore) -> Result<Merged> {
    let started = Instant::now();
    let (file, manifest) = find(ctx, &flags.file)?;
    let mut db = ctx.connect()?;
    preflight::server(&db)?;
    db.wait_for_locks(flags.locks.lock_deadline)?;
    let table = backup::table(&mut db, &manifest.table)?;
    same_database(&mut db, &manifest, flags)?;
    if !flags.dry_run {
        let again = format!("cargo xtask db-restore {}", flags.file.display());
        lock::acquire(&mut db, flags.locks, &ctx.ui, &again)?;
    }
    let mut session = Session::open(ctx, &mut db)?;
    let plan = Plan::of(&mut session.client, &table, &manifest, flags)?;
    if !plan.skipped.is_empty() {
        ctx.ui.info(
            "Skipping",
            format_args!(
                "columns that `{}` does not have, or computes itself: {}",
                manifest.table,
                plan.skipped.join(", ")
            ),
        );
    }

    stage(ctx, &mut session.client, &file, &manifest, &plan)?;
    let (mut merged, replaced) = plan
        .compare(&mut session.client, manifest.rows)
        .with_context(|| format!("cannot compare `{}` with the backup", plan.table))?;
    merged.dry_run = flags.dry_run;
    ctx.ui.info("Compared", plan.tell(&merged, replaced));
    if flags.dry_run {
        let conflicts = plan.conflicts(&mut session.client)?;
        if !conflicts.is_empty() {
            return Err(conflict(&plan, conflicts).into());
        }
        ctx.ui.data(plan.tell(&merged, replaced));
        return Ok(merged);
    }
    if replaced > 0 {
        let question = format!(
            "Replace values in {} of `{}` in {}?",
            ui::plural(replaced, "row"),
            plan.table,
            db.server
        );
        let again = format!("cargo xtask db-restore {} --yes", flags.file.display());
        if !ctx.ui.confirm(&question, &again)? {
            return Err(Failure::failed("not restored")
                .cause("the answer was no")
                .state("nothing was changed")
                .hint(format!(
                    "cargo xtask db-restore {} --dry-run",
                    flags.file.display()
                ))
                .into());
        }
    }
    let (updated, inserted) = merge(ctx, &mut db, &mut session, &plan, flags)?;
    merged.updated = updated;
    merged.inserted = inserted;
    let summary = plan.tell(&merged, 0);
    ctx.ui.status(
        "Restored",
        format_args!("{summary}  {}", ui::time(started.elapsed())),
    );
    ctx.ui.data(summary);
    Ok(merged)
}

/// The file and its manifest, which agree as far as can be seen without reading it all.
fn find(ctx: &Context, given: &Path) -> Result<(PathBuf, Manifest)> {
    // As db-backups prints it, from wherever in the workspace.
    let file = match given.exists() {
        true => given.to_owned(),
        false => ctx.config.root.join(given),
    };
    let shown = given.display();
    let found = std::fs::symlink_metadata(&file)
        .with_context(|| format!("cannot read the backup `{shown}`"))?;
    if found.is_symlink() {
        return Err(
            Failure::usage(format!("the backup `{shown}` is a symbolic link"))
                .hint("name the file itself: cargo xtask db-backups")
                .into(),
        );
    }
    let Some(manifest) = Manifest::of(&file)? else {
        return Err(without_manifest(ctx, &file, given)?.into());
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if manifest.file != name {
        ctx.ui.info(
            "Notice",
            format_args!("this backup was renamed: it was `{}`", manifest.file),
        );
    }
    match State::by_size(found.len(), &manifest) {
        State::Good => Ok((file, manifest)),
        state => Err(not_what_was_written(given, state)
            .cause(format!(
                "it has {} bytes, and was written with {}",
                ui::count(found.len()),
                ui::count(manifest.bytes)
            ))
            .into()),
    }
}

/// A file without a manifest may be a backup that was renamed without it.
fn without_manifest(ctx: &Context, file: &Path, given: &Path) -> Result<Failure> {
    let failure = Failure::usage(format!("`{}` has no manifest", given.display()))
        .cause(format!("there is no `{}`", Manifest::path(given).display()));
    let folder = file.parent().unwrap_or(Path::new("."));
    let bytes = std::fs::metadata(file)?.len();
    for found in backup::list(folder, &ctx.ui)? {
        if matches!(found.state, State::Missing | State::Replaced)
            && found.manifest.bytes == bytes
            && backup::sha256(file)? == found.manifest.sha256
        {
            return Ok(failure
                .cause(format!("it is `{}`, renamed", found.manifest.file))
                .hint(format!(
                    "mv '{}' '{}'",
                    given.display(),
                    given.with_file_name(&found.manifest.file).display()
                )));
        }
    }
    Ok(failure
        .cause("without one it cannot be told whether it is whole")
        .hint("restore a backup that this tool has taken: cargo xtask db-backups"))
}

fn not_what_was_written(file: &Path, state: State) -> Failure {
    let what = match state {
        State::Cut => "was cut off",
        _ => "was changed",
    };
    Failure::usage(format!(
        "the backup `{}` {what} since it was taken",
        file.display()
    ))
    .state("nothing was restored")
    .hint("choose another: cargo xtask db-backups --check")
}

/// The backup is of this very database.
fn same_database(db: &mut Database, manifest: &Manifest, flags: &Restore) -> Result {
    let Some(doubt) = manifest.doubts(db)? else {
        return Ok(());
    };
    if flags.force_other_database {
        return Ok(());
    }
    Err(doubt
        .state("nothing was restored")
        .hint(format!(
            "if it is meant for this one: cargo xtask db-restore {} --force-other-database",
            flags.file.display()
        ))
        .into())
}

/// The session that merges; another one holds the migration lock and watches.
struct Session {
    client: Client,
    pid: i32,
}

impl Session {
    fn open(ctx: &Context, db: &mut Database) -> Result<Session> {
        let lock_timeout = db.lock_wait.as_millis();
        let options = format!("{SESSION_OPTIONS} {OPTIONS} -c lock_timeout={lock_timeout}");
        let connection = connect::connect(&db.target, &ctx.application_name, &options)?;
        let canceller = connection.canceller();
        interrupt::on_signal(move || {
            let _ = canceller.cancel();
        });
        let mut client = connection.client;
        let pid = client
            .query_typed_one("SELECT pg_catalog.pg_backend_pid()", &[])?
            .get(0);
        if pid == db.server.backend_pid {
            return Err(pooler::failure(db).into());
        }
        Ok(Session { client, pid })
    }
}

/// Which column goes where.
struct Plan {
    /// Qualified name.
    table: String,
    oid: u32,
    owned: bool,
    /// The primary key's columns, quoted.
    key: Vec<String>,
    /// The columns of the file, with the types to read them as.
    staged: Vec<Column>,
    /// Columns that both have, quoted: what a missing row returns with.
    common: Vec<String>,
    /// Those of them, quoted, that a differing row takes from the backup.
    taken: Vec<String>,
    skipped: Vec<String>,
    /// Whether missing rows return.
    inserts: bool,
    sequences: Vec<(catalog::OwnedSequence, Option<i64>)>,
    /// Triggers of users that are to be silent, quoted, and how they are enabled.
    triggers: Vec<(String, &'static str)>,
}

impl Plan {
    fn of(
        client: &mut Client,
        table: &Relation,
        manifest: &Manifest,
        flags: &Restore,
    ) -> Result<Plan> {
        let (file, only) = (flags.file.display(), &flags.columns[..]);
        let live = catalog::columns(client, table.oid)?;
        let key = catalog::primary_key(client, table.oid)?;
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
            table: table.qualified(),
            oid: table.oid,
            owned: table.owned,
            staged: Vec::new(),
            common: Vec::new(),
            taken: Vec::new(),
            skipped: Vec::new(),
            inserts: only.is_empty(),
            sequences: Vec::new(),
            triggers: catalog::firing_triggers(client, table.oid)?
                .into_iter()
                .map(|(name, always)| {
                    let enable = if always { "ENABLE ALWAYS" } else { "ENABLE" };
                    (quote_identifier(&name), enable)
                })
                .collect(),
            key: key.iter().map(|name| quote_identifier(name)).collect(),
        };
        for saved in &manifest.columns {
            let found = restorable(&saved.name);
            plan.staged.push(Column {
                name: saved.name.clone(),
                number: 0,
                not_null: false,
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
    fn same_key(&self, left: &str, right: &str) -> String {
        let pairs: Vec<String> = self
            .key
            .iter()
            .map(|name| format!("{left}.{name} = {right}.{name}"))
            .collect();
        pairs.join(" AND ")
    }

    /// Writes down which staged rows are missing from the table or differ from it; returns what a
    /// merge would do, and in how many rows it would replace a value, other than NULL, by another.
    ///
    /// `*<>` compares images of values (PostgreSQL manual, "Composite Type Comparison"): also those of types without
    /// equality, such as json, and `1.0` differs from `1.00`.
    fn compare(&self, client: &mut Client, staged: u64) -> Result<(Merged, u64)> {
        let table = &self.table;
        let first = &self.key[0];
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
                format!("l.{name} IS NOT NULL AND ROW(l.{name})::record OPERATOR(pg_catalog.*<>) ROW(s.{name})::record")
            })
            .chain(["false".to_owned()])
            .collect();
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()?;
        transaction.batch_execute(&format!(
            "DROP TABLE IF EXISTS {CHANGES};
             CREATE TEMPORARY TABLE xtask_changes AS
             SELECT s.ctid AS at, l.{first} IS NULL AS missing, {} AS replaces
             FROM {STAGING} AS s LEFT JOIN ONLY {table} AS l ON {}
             WHERE l.{first} IS NULL OR {differs};
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
            dry_run: false,
        };
        Ok((merged, replaced))
    }

    fn tell(&self, merged: &Merged, replaced: u64) -> String {
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
        text
    }

    /// Everything that is written, under locks that are had at once or not at all.
    fn apply(&self, client: &mut Client, lock_timeout: Duration) -> Result<(u64, u64)> {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!(
            "SET LOCAL lock_timeout = {};
             LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE",
            lock_timeout.as_millis(),
            self.table
        ))?;
        self.alter_triggers(&mut transaction, |_| "DISABLE")?;
        let row = transaction.query_typed_one(&self.merge_sql(), &[])?;
        self.advance_sequences(&mut transaction)?;
        // A table with checks still to be made cannot be altered.
        transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")?;
        self.alter_triggers(&mut transaction, |enable| enable)?;
        transaction.commit()?;
        Ok((row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
    }

    /// Triggers of users do not fire for rows that had fired them once. Turning them off takes the
    /// lock that we have, is seen by nobody else, and leaves foreign keys at work, which
    /// `session_replication_role = replica` would not.
    fn alter_triggers(
        &self,
        transaction: &mut Transaction<'_>,
        verb: impl Fn(&'static str) -> &'static str,
    ) -> Result {
        if !self.owned {
            return Ok(());
        }
        for (name, enable) in &self.triggers {
            let sql = format!(
                "ALTER TABLE ONLY {} {} TRIGGER {name}",
                self.table,
                verb(enable)
            );
            transaction.batch_execute(&sql)?;
        }
        Ok(())
    }

    /// One statement, so that foreign keys between the rows are checked when all are there.
    fn merge_sql(&self) -> String {
        let table = &self.table;
        let changed = format!("{CHANGES} AS c JOIN {STAGING} AS s ON s.ctid = c.at");
        let updated = match self.taken.is_empty() {
            true => "SELECT WHERE false".to_owned(),
            false => {
                let set: Vec<String> = self
                    .taken
                    .iter()
                    .map(|name| format!("{name} = s.{name}"))
                    .collect();
                format!(
                    "UPDATE ONLY {table} AS l SET {} FROM {changed}
                     WHERE NOT c.missing AND {} RETURNING 1",
                    set.join(", "),
                    self.same_key("l", "s")
                )
            }
        };
        let inserted = match self.inserts {
            false => "SELECT WHERE false".to_owned(),
            true => {
                let values: Vec<String> =
                    self.common.iter().map(|name| format!("s.{name}")).collect();
                format!(
                    "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {changed}
                     WHERE c.missing AND NOT EXISTS (SELECT FROM ONLY {table} AS l WHERE {})
                     RETURNING 1",
                    self.common.join(", "),
                    values.join(", "),
                    self.same_key("l", "s")
                )
            }
        };
        format!(
            "WITH updated AS ({updated}), inserted AS ({inserted})
             SELECT (SELECT pg_catalog.count(*) FROM updated), (SELECT pg_catalog.count(*) FROM inserted)"
        )
    }

    /// Sequences only move forward: past every value in the table, and to where they were.
    fn advance_sequences(&self, transaction: &mut Transaction<'_>) -> Result {
        for (sequence, saved) in &self.sequences {
            let column = quote_identifier(&sequence.column);
            let (farthest, end, beyond) = match sequence.ascending {
                true => ("greatest", "max", ">"),
                false => ("least", "min", "<"),
            };
            let saved = saved.map_or("NULL".to_owned(), |value| value.to_string());
            transaction.batch_execute(&format!(
                "SELECT pg_catalog.setval({}, t.target)
                 FROM (SELECT {farthest}((SELECT pg_catalog.{end}({column}) FROM ONLY {})::int8, {saved}) AS target) AS t,
                      {} AS q
                 WHERE t.target {beyond} q.last_value OR (t.target = q.last_value AND NOT q.is_called)",
                quote_literal(&sequence.name),
                self.table,
                sequence.name,
            ))
            .with_context(|| format!("cannot advance the sequence `{}`", sequence.name))?;
        }
        Ok(())
    }

    /// Values that must be unique and would be there twice: index, value, the key of the row that
    /// would take it, and of the row that has it. Indexes on columns that the backup lacks are left
    /// to the server.
    fn conflicts(&self, client: &mut Client) -> Result<Vec<String>> {
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

fn conflict(plan: &Plan, conflicts: Vec<String>) -> Failure {
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

/// Loads the file's rows into the temporary table, and checks on the way that it is what was written.
fn stage(
    ctx: &Context,
    client: &mut Client,
    file: &Path,
    manifest: &Manifest,
    plan: &Plan,
) -> Result {
    let shown = ctx.config.shown(file);
    let loaded = load(ctx, client, file, manifest, plan);
    let dump = match loaded {
        Ok(dump) => dump,
        Err(error) if interrupt::requested() => return Err(error),
        // What the server could not read may be what a disk has made of it.
        Err(error) if backup::sha256(file).is_ok_and(|sha256| sha256 != manifest.sha256) => {
            let seen = failures::from_error(&error).one_line();
            return Err(not_what_was_written(&shown, State::Changed)
                .cause("its checksum is not that of its manifest")
                .cause(seen)
                .into());
        }
        Err(error) => {
            return Err(error.context(format!("cannot read `{}`", shown.display())));
        }
    };
    if dump.sha256 != manifest.sha256 {
        return Err(not_what_was_written(&shown, State::Changed)
            .cause("its checksum is not that of its manifest")
            .into());
    }
    if dump.rows != manifest.rows {
        return Err(
            Failure::usage(format!("`{}` and its manifest disagree", shown.display()))
                .cause(format!(
                    "it holds {} rows, not {}",
                    dump.rows, manifest.rows
                ))
                .state("nothing was restored")
                .hint("choose another: cargo xtask db-backups --check")
                .into(),
        );
    }
    client.batch_execute(&format!("COMMIT; ANALYZE {STAGING}"))?;
    Ok(())
}

fn load(
    ctx: &Context,
    client: &mut Client,
    file: &Path,
    manifest: &Manifest,
    plan: &Plan,
) -> Result<pg_dump::Dump> {
    let from = BufReader::with_capacity(BUFFER, backup::open(file)?);
    client.batch_execute(&format!(
        "BEGIN; CREATE TEMPORARY TABLE xtask_staging ({})",
        proof::definition(&plan.staged, |column| &column.type_name)
    ))?;
    let progress = ctx.ui.progress("Reading");
    let mut loader = Loader::begin(client, STAGING, &plan.staged)?;
    let (dump, _) = pg_dump::read(from, &mut loader, &mut |rows, _| {
        progress.update(format_args!(
            "{} of {} rows",
            ui::count(rows),
            ui::count(manifest.rows)
        ));
    })?;
    loader.finish()?;
    Ok(dump)
}

/// Writes what differs, tried as a whole until it gets its locks. Returns how many rows were updated
/// and inserted.
fn merge(
    ctx: &Context,
    db: &mut Database,
    session: &mut Session,
    plan: &Plan,
    flags: &Restore,
) -> Result<(u64, u64)> {
    if !plan.triggers.is_empty() && !plan.owned {
        ctx.ui.warn(format_args!(
            "this role may not turn off the triggers of `{}`: {} will fire",
            plan.table,
            ui::plural(plan.triggers.len() as u64, "trigger")
        ));
    }
    let again = format!("cargo xtask db-restore {}", flags.file.display());
    let tables = ObjectName::parse(&plan.table).into_iter().collect();
    let mut waiter = Waiter::new(flags.locks, tables, &again);
    let progress = ctx.ui.progress("Restoring");
    loop {
        interrupt::check()?;
        let mut seen = Waiting::default();
        let started = Instant::now();
        let outcome = std::thread::scope(|scope| {
            let client = &mut session.client;
            let work = scope.spawn(move || plan.apply(client, flags.locks.lock_timeout));
            while !work.is_finished() {
                std::thread::sleep(LOOK_EVERY);
                seen.update(&mut db.client, session.pid);
                progress.update(ui::time(started.elapsed()));
            }
            work.join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that merges panicked")))
        });
        let error = match outcome {
            Ok(counts) => return Ok(counts),
            Err(error) => error,
        };
        match sqlstate(&error).as_deref() {
            Some("55P03" | "40P01") if !interrupt::requested() => {
                waiter
                    .watch(db, &ctx.ui, &seen, || None)
                    .map_err(|error| in_our_words(failures::from_error(&error), flags))?;
            }
            Some("23505" | "23P01") => {
                let conflicts = plan.conflicts(&mut session.client)?;
                let mut failure = failures::from_error(&error);
                failure.causes.extend(conflicts);
                return Err(conflict(plan, failure.causes).into());
            }
            _ => {
                let error = error.context(format!("cannot restore `{}`", plan.table));
                return Err(in_our_words(failures::from_error(&error), flags).into());
            }
        }
    }
}

/// A failure of the merge: everything was rolled back, and the next command is this one.
fn in_our_words(mut failure: Failure, flags: &Restore) -> Failure {
    let again = format!("cargo xtask db-restore {}", flags.file.display());
    failure.state = vec!["nothing was restored".to_owned()];
    failure.hints = match failure.sqlstate.as_deref() {
        Some("23503") => vec![format!(
            "restore the table that it refers to first, then: {again}"
        )],
        Some("23502") => vec![format!(
            "a column added since the backup needs a default for rows that return; then: {again}"
        )],
        _ => {
            let hints = failure.hints.into_iter();
            hints
                .map(|hint| hint.replace("cargo xtask db-migrate", &again))
                .collect()
        }
    };
    if failure.hints.is_empty() {
        failure.hints.push(again);
    }
    if failure.kind == Kind::Interrupted {
        failure.message = "the restore was cancelled".to_owned();
    }
    failure
}

fn sqlstate(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let error = cause.downcast_ref::<postgres::Error>()?;
        Some(error.code()?.code().to_owned())
    })
}
