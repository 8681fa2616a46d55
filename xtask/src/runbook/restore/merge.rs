//! The write: everything in one transaction, under a lock that lets readers through.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postgres::types::Type;
use postgres::{Client, IsolationLevel, Transaction};

use super::plan::{Plan, changed, conflict};
use super::{CHANGES, STAGING, Session};
use crate::Context;
use crate::database::Database;
use crate::database::activity::{self, Waiting};
use crate::database::history::quote_identifier;
use crate::error::{Failure, Kind, Result};
use crate::flags::Restore;
use crate::interrupt;
use crate::migration::effects::ObjectName;
use crate::runbook::failures::{self, sqlstate};
use crate::runbook::lock_wait::Waiter;
use crate::runbook::stall::{self, StallWatch};
use crate::ui;

/// How long the server may take to end a transaction whose session was lost.
const LOST_SESSION_ENDS: Duration = Duration::from_secs(5);
/// How often those in the way are looked at while the merge runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Plan {
    /// Everything that is written, under locks that are had at once or not at all.
    fn apply(
        &self,
        client: &mut Client,
        storage: u32,
        (lock_timeout, synchronous_commit): (Duration, &str),
        commit: &mut Option<Commit>,
    ) -> Result<(u64, u64)> {
        // Each statement sees what was committed before the lock was had.
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()?;
        transaction.batch_execute(&format!(
            "SET LOCAL lock_timeout = {}; SET LOCAL synchronous_commit = {synchronous_commit}",
            lock_timeout.as_millis(),
        ))?;
        if self.lock(&mut transaction, "SHARE ROW EXCLUSIVE")? != storage {
            let cause = "its rows were rewritten or truncated";
            return Err(changed(&self.table, cause).into());
        }
        self.alter_triggers(&mut transaction, |_| "DISABLE")?;
        self.park(&mut transaction)?;
        let row = transaction.query_typed_one(&self.merge_sql(), &[])?;
        self.advance_sequences(&mut transaction)?;
        // A table with checks still to be made cannot be altered.
        transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")?;
        self.alter_triggers(&mut transaction, |enable| enable)?;
        let xid = transaction
            .query_typed_one("SELECT pg_catalog.pg_current_xact_id()::text", &[])?
            .get(0);
        let counts = (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64);
        interrupt::check()?;
        *commit = Some(Commit { xid, counts });
        transaction.commit()?;
        Ok(counts)
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
                     WHERE NOT c.missing AND {} AND {} RETURNING 1",
                    set.join(", "),
                    self.same_key("l", "s"),
                    self.unchanged(),
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

/// Writes what differs, tried as a whole until it gets its locks. Returns how many rows were updated
/// and inserted.
pub(super) fn merge(
    ctx: &Context,
    db: &mut Database,
    session: &mut Session,
    plan: &Plan,
    storage: u32,
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
        let mut commit = None;
        let mut stall = StallWatch::new(flags.locks, true);
        let outcome = std::thread::scope(|scope| {
            let (client, commit) = (&mut session.client, &mut commit);
            let settings = (flags.locks.lock_timeout, &*session.synchronous_commit);
            let work = scope.spawn(move || plan.apply(client, storage, settings, commit));
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
            Ok(counts) => return Ok(counts),
            Err(error) => error,
        };
        if let Some(commit) = commit
            && is_lost(&error)
        {
            return lost_commit(ctx, db, plan, &commit, &error, flags);
        }
        if let Some(stalled) = stall.stalled(&mut db.client)
            && !interrupt::requested()
        {
            let attempted = format!("the restore of `{}` was cancelled", plan.table);
            return Err(stall::failure(&attempted, &stalled, None, &again)
                .state("nothing was restored")
                .into());
        }
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
        Some("23514") => vec![
            "a row of the backup breaks a check constraint that came later, or that is NOT VALID: drop the constraint".to_owned(),
            format!("then: {again}"),
            "add it again with NOT VALID, which rows that are there need not pass".to_owned(),
        ],
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

/// A COMMIT that was sent.
struct Commit {
    xid: String,
    /// Rows updated and inserted by it.
    counts: (u64, u64),
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
    db: &mut Database,
    plan: &Plan,
    commit: &Commit,
    error: &anyhow::Error,
    flags: &Restore,
) -> Result<(u64, u64)> {
    let again = format!("cargo xtask db-restore {} --dry-run", flags.file.display());
    let (updated, inserted) = commit.counts;
    let mut failure = failures::from_error(error);
    failure.message = "the answer to COMMIT was lost".to_owned();
    match fate(ctx, db, &commit.xid).as_deref() {
        Some("committed") => {
            ctx.ui.warn(format_args!(
                "the session ended in COMMIT; the server says that it was committed: `{}` is restored, which a standby may not have received yet",
                plan.table
            ));
            return Ok(commit.counts);
        }
        Some("aborted") => {
            failure.state = vec![format!("nothing was restored in `{}`", plan.table)];
        }
        status => {
            failure.state = vec![format!(
                "whether `{}` was restored ({} with the backup's values, {} returned) is not known: the server says {}",
                plan.table,
                ui::plural(updated, "row"),
                ui::count(inserted),
                status.unwrap_or("nothing"),
            )];
        }
    }
    failure.hints = vec![format!("see what is left to restore: {again}")];
    Err(failure.into())
}

/// What became of a transaction whose session has ended, in the server's words.
fn fate(ctx: &Context, db: &mut Database, xid: &str) -> Option<String> {
    let asked = Instant::now();
    let mut status = None;
    while asked.elapsed() < LOST_SESSION_ENDS {
        let row = db.client.query_typed_one(
            "SELECT pg_catalog.pg_xact_status($1::text::pg_catalog.xid8)",
            &[(&xid, Type::TEXT)],
        );
        match row {
            Ok(row) => status = row.get(0),
            Err(_) if db.client.is_closed() => match ctx.connect() {
                Ok(another) => *db = another,
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
