//! The write: everything in one transaction, under a lock that lets readers through.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postgres::types::Type;
use postgres::{Client, IsolationLevel, Transaction};

use super::part::{Part, conflicts, tables_of};
use super::plan::{Plan, changed};
use super::references;
use super::request::Request;
use super::session::MergeSession;
use super::unique::conflict;
use crate::Context;
use crate::database::Database;
use crate::database::activity::{self, Waiting};
use crate::error::{Failure, Kind, Result};
use crate::failures::{self, sqlstate};
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::effects::ObjectName;
use crate::migration::quote::quote_identifier;
use crate::runbook::lock_wait::Waiter;
use crate::runbook::stall::{self, StallWatch};
use crate::ui;

/// How long the server may take to end a transaction whose session was lost.
const LOST_SESSION_ENDS: Duration = Duration::from_secs(5);
/// How often those in the way are looked at while the merge runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Everything that is written, under locks that are had at once or not at all.
fn apply(
    parts: &[Part],
    client: &mut Client,
    (lock_timeout, synchronous_commit): (Duration, &str),
    commit: &mut Option<Commit>,
) -> Result<Vec<Written>> {
    // Each statement sees what was committed before the lock was had.
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()?;
    transaction.batch_execute(&format!(
        "SET LOCAL lock_timeout = {}; SET LOCAL synchronous_commit = {synchronous_commit}",
        lock_timeout.as_millis(),
    ))?;
    for Part { plan, compared } in parts {
        if plan.lock(&mut transaction, "SHARE ROW EXCLUSIVE")? != compared.storage {
            let cause = "its rows were rewritten or truncated";
            return Err(changed(&plan.table, cause).into());
        }
    }
    for Part { plan, .. } in parts {
        plan.alter_triggers(&mut transaction, |_| "DISABLE")?;
        plan.park(&mut transaction)?;
    }
    let row = transaction.query_typed_one(&merge_sql(parts), &[])?;
    for Part { plan, .. } in parts {
        plan.advance_sequences(&mut transaction)?;
    }
    // A table with checks still to be made cannot be altered.
    transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")?;
    for Part { plan, .. } in parts {
        plan.alter_triggers(&mut transaction, |enable| enable)?;
    }
    let xid = transaction
        .query_typed_one("SELECT pg_catalog.pg_current_xact_id()::text", &[])?
        .get(0);
    let number = |column: usize| row.get::<_, i64>(column) as u64;
    let written: Vec<Written> = (0..parts.len())
        .map(|part| Written {
            updated: number(2 * part),
            inserted: number(2 * part + 1),
        })
        .collect();
    interrupt::check()?;
    *commit = Some(Commit {
        xid,
        written: written.clone(),
    });
    transaction.commit()?;
    Ok(written)
}

/// One statement for all tables: foreign keys between the rows are checked when all are there
/// (PostgreSQL manual, "WITH Queries": the parts of a statement see one snapshot; "Overview of Trigger
/// Behavior": what fires after a statement fires at its end).
fn merge_sql(parts: &[Part]) -> String {
    let (mut queries, mut counts) = (Vec::new(), Vec::new());
    for (at, Part { plan, .. }) in parts.iter().enumerate() {
        queries.push(format!("updated_{at} AS ({})", plan.update_sql()));
        queries.push(format!("inserted_{at} AS ({})", plan.insert_sql()));
        for query in [format!("updated_{at}"), format!("inserted_{at}")] {
            counts.push(format!("(SELECT pg_catalog.count(*) FROM {query})"));
        }
    }
    format!("WITH {} SELECT {}", queries.join(", "), counts.join(", "))
}

impl Plan {
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

    /// Rows that are there and differ, as the comparison saw them, take the backup's values.
    fn update_sql(&self) -> String {
        if self.updated_columns.is_empty() {
            return "SELECT WHERE false".to_owned();
        }
        let set: Vec<String> = self
            .updated_columns
            .iter()
            .map(|name| format!("{name} = s.{name}"))
            .collect();
        format!(
            "UPDATE ONLY {table} AS l SET {set} FROM {changes} AS c JOIN {staging} AS s ON s.ctid = c.at
             WHERE NOT c.missing AND {same_key} AND {unchanged} RETURNING 1",
            table = self.table,
            set = set.join(", "),
            changes = self.changes,
            staging = self.staging,
            same_key = self.same_key("l", "s"),
            unchanged = self.unchanged(),
        )
    }

    /// Missing rows return.
    fn insert_sql(&self) -> String {
        if !self.inserts {
            return "SELECT WHERE false".to_owned();
        }
        let values: Vec<String> = self.common.iter().map(|name| format!("s.{name}")).collect();
        format!(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
             SELECT {values} FROM {changes} AS c JOIN {staging} AS s ON s.ctid = c.at
             WHERE c.missing AND NOT EXISTS (SELECT FROM ONLY {table} AS l WHERE {same_key})
             RETURNING 1",
            table = self.table,
            columns = self.common.join(", "),
            values = values.join(", "),
            changes = self.changes,
            staging = self.staging,
            same_key = self.same_key("l", "s"),
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
                "SELECT pg_catalog.setval({}::pg_catalog.oid::pg_catalog.regclass, t.target)
                 FROM (SELECT {farthest}((SELECT pg_catalog.{end}({column}) FROM ONLY {})::int8, {saved}) AS target) AS t,
                      {} AS q
                 WHERE t.target {beyond} q.last_value OR (t.target = q.last_value AND NOT q.is_called)",
                sequence.oid,
                self.table,
                sequence.name,
            ))
            .with_context(|| format!("cannot advance the sequence `{}`", sequence.name))?;
        }
        Ok(())
    }
}

/// Writes what differs, tried as a whole until it gets its locks.
pub(super) fn merge(
    ctx: &Context,
    db: &mut Database,
    session: &mut MergeSession,
    parts: &[Part],
    request: &Request,
) -> Result<Vec<Written>> {
    for Part { plan, .. } in parts {
        if !plan.triggers.is_empty() && !plan.owned {
            ctx.ui.warn(format_args!(
                "this role may not turn off the triggers of `{}`: {} will fire",
                plan.table,
                ui::plural(plan.triggers.len() as u64, "trigger")
            ));
        }
    }
    let tables = parts
        .iter()
        .filter_map(|part| ObjectName::parse(&part.plan.table))
        .collect();
    let mut waiter = Waiter::new(request.locks, tables);
    let progress = ctx.ui.progress("Restoring");
    loop {
        interrupt::check()?;
        let mut seen = Waiting::default();
        let started = Instant::now();
        let mut commit = None;
        let mut stall = StallWatch::new(request.locks, true);
        let outcome = std::thread::scope(|scope| {
            let (client, commit) = (&mut session.client, &mut commit);
            let settings = (request.locks.lock_timeout, &*session.synchronous_commit);
            let work = scope.spawn(move || apply(parts, client, settings, commit));
            while !work.is_finished() {
                std::thread::sleep(LOOK_EVERY);
                seen.update(&mut db.client, session.pid);
                // Once may be between two statements.
                if interrupt::requested() {
                    let _ = activity::cancel(&mut db.client, session.pid);
                }
                stall.look(&mut db.client, session.pid, started.elapsed());
                progress.update(ui::time(started.elapsed()));
            }
            work.join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that merges panicked")))
        });
        let error = match outcome {
            Ok(written) => {
                // A COMMIT that waits for a synchronous standby ends where it is cancelled, and stands
                // (PostgreSQL manual, "Synchronous Replication").
                if interrupt::requested() || stall.stalled(&mut db.client).is_some() {
                    ctx.ui.warn(
                        "the restore is committed on this server; where a synchronous standby was waited for, it may not have it yet",
                    );
                    ctx.ui.hint(Hint::to(
                        "look whether it has",
                        "db-verify --wait-standbys 60s",
                    ));
                }
                return Ok(written);
            }
            Err(error) => error,
        };
        if let Some(commit) = commit
            && is_lost(&error)
        {
            return lost_commit(ctx, &mut db.client, parts, commit, &error);
        }
        if let Some(stalled) = stall.stalled(&mut db.client)
            && !interrupt::requested()
        {
            let attempted = format!("the restore of {} was cancelled", tables_of(parts));
            return Err(stall::failure(&attempted, &stalled, None)
                .state("nothing was restored")
                .into());
        }
        match sqlstate(&error).as_deref() {
            Some("55P03" | "40P01") if !interrupt::requested() => {
                waiter
                    .watch(db, &ctx.ui, &seen, || None)
                    .map_err(|error| in_our_words(failures::from_error(&error)))?;
            }
            Some("23505" | "23P01") => {
                let mut failure = failures::from_error(&error);
                failure.causes.extend(conflicts(parts, session)?);
                return Err(conflict(&tables_of(parts), failure.causes).into());
            }
            Some("23503") => {
                let dangling = references::dangling(parts, &mut session.client)?;
                let error = error.context(format!("cannot restore {}", tables_of(parts)));
                let failure = failures::from_error(&error);
                return Err(references::explain(ctx, failure, &dangling, request).into());
            }
            _ => {
                let error = error.context(format!("cannot restore {}", tables_of(parts)));
                return Err(in_our_words(failures::from_error(&error)).into());
            }
        }
    }
}

/// A failure of the merge: everything was rolled back, and the next command is this one.
fn in_our_words(mut failure: Failure) -> Failure {
    failure.state = vec!["nothing was restored".to_owned()];
    failure.hints = match failure.sqlstate.as_deref() {
        Some("23514") => vec![
            "a row of the backup breaks a check constraint that came later, or that is NOT VALID: drop the constraint".into(),
            Hint::again("then"),
            "add it again with NOT VALID, which rows that are there need not pass".into(),
        ],
        Some("23502") => vec![Hint::again(
            "a column added since the backup needs a default for rows that return; then",
        )],
        _ => failure.hints,
    };
    if failure.hints.is_empty() {
        failure.hints.push(Hint::again(""));
    }
    if failure.kind == Kind::Interrupted {
        failure.message = "the restore was cancelled".to_owned();
    }
    failure
}

/// A COMMIT that was sent.
struct Commit {
    xid: String,
    written: Vec<Written>,
}

/// How many rows of a table were written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) updated: u64,
    pub(super) inserted: u64,
}

/// Whether the session ended, so that the answer is not known.
fn is_lost(error: &anyhow::Error) -> bool {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<postgres::Error>();
        error.is_some_and(|error| error.is_closed() || error.code().is_none())
    };
    match sqlstate(error) {
        Some(code) => code.starts_with("08") || code.starts_with("57P"),
        None => error.chain().any(closed),
    }
}

/// The answer to COMMIT did not arrive: the server knows whether it was committed.
fn lost_commit(
    ctx: &Context,
    client: &mut Client,
    parts: &[Part],
    commit: Commit,
    error: &anyhow::Error,
) -> Result<Vec<Written>> {
    let mut failure = failures::from_error(error);
    failure.message = "the answer to COMMIT was lost".to_owned();
    let tables = tables_of(parts);
    match fate(ctx, client, &commit.xid).as_deref() {
        Some("committed") => {
            ctx.ui.warn(format_args!(
                "the session ended in COMMIT; the server says that it was committed: {tables} is restored, which a standby may not have received yet",
            ));
            return Ok(commit.written);
        }
        Some("aborted") => failure.state = vec![format!("nothing was restored in {tables}")],
        status => {
            let updated = commit.written.iter().map(|of| of.updated).sum();
            let inserted = commit.written.iter().map(|of| of.inserted).sum();
            failure.state = vec![format!(
                "whether {tables} was restored ({} with the backup's values, {} returned) is not known: the server says {}",
                ui::plural(updated, "row"),
                ui::count(inserted),
                status.unwrap_or("nothing"),
            )];
        }
    }
    failure.hints = vec![Hint::again_with("see what is left to restore", "--dry-run")];
    Err(failure.into())
}

/// What became of a transaction whose session has ended, in the server's words.
fn fate(ctx: &Context, client: &mut Client, xid: &str) -> Option<String> {
    let asked = Instant::now();
    let mut status = None;
    while asked.elapsed() < LOST_SESSION_ENDS {
        let row = client.query_typed_one(
            "SELECT pg_catalog.pg_xact_status($1::text::pg_catalog.xid8)",
            &[(&xid, Type::TEXT)],
        );
        match row {
            Ok(row) => status = row.get(0),
            Err(_) if client.is_closed() => match ctx.connect() {
                Ok(another) => *client = another.client,
                Err(_) => status = None,
            },
            Err(_) => return status,
        }
        if matches!(status.as_deref(), Some("committed" | "aborted")) {
            break;
        }
        std::thread::sleep(LOOK_EVERY * 5);
    }
    status
}
