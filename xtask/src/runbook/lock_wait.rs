//! Look before you wait: after a try that did not get its lock, watch those in the way *without
//! queueing* until they are gone, and only then try again, inside one deadline.

use std::time::{Duration, Instant};

use crate::database::activity::{self, Backend, Waiting};
use crate::database::{Database, catalog};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::interrupt;
use crate::migration::effects::{Effect, ObjectName};
use crate::migration::quote::printable_literal;
use crate::migration::script::Script;
use crate::options::Locks;
use crate::ui::{self, Ui};

/// How often those in the way are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest pause before the second try, of which a random part is taken; it grows with each.
const JITTER: Duration = Duration::from_millis(100);
/// Where somebody is always in the way, but never the same for long, a try now and then: it keeps
/// newcomers out for its `lock_timeout`, and those who are there may end within it.
const TRY_AMONG_OTHERS_AFTER: Duration = Duration::from_secs(10);

/// It grows up to this many times.
const JITTER_GROWS_TO: u32 = 10;

/// What it took to run one migration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LockStats {
    pub(super) duration: Duration,
    /// Tries, counting the one that succeeded.
    pub(super) lock_attempts: u32,
    /// Time from the first try that did not get its lock to the one that did.
    pub(super) lock_wait: Duration,
}

/// The tries of one migration.
pub(crate) struct Waiter {
    locks: Locks,
    /// The tables that are locked, as far as it is known beforehand.
    tables: Vec<ObjectName>,
    started: Instant,
    attempts: u32,
    first_failure: Option<Instant>,
    /// The transactions that were named.
    told: Vec<Backend>,
    /// When each holder was first met, for those whose age this role may not see.
    met: Vec<(Backend, Instant)>,
}

impl Waiter {
    pub(crate) fn new(locks: Locks, tables: Vec<ObjectName>) -> Waiter {
        Waiter {
            locks,
            tables,
            started: Instant::now(),
            attempts: 1,
            first_failure: None,
            told: Vec::new(),
            met: Vec::new(),
        }
    }

    /// What it took, once it has its locks.
    pub(super) fn lock_stats(&self) -> LockStats {
        LockStats {
            duration: Duration::ZERO,
            lock_attempts: self.attempts,
            lock_wait: self.first_failure.map_or(Duration::ZERO, |at| at.elapsed()),
        }
    }

    /// After a failed try: names who was in the way and returns when it is time to try again.
    ///
    /// Short transactions come and go, and a try of `lock_timeout` gets through between them; what
    /// it cannot outlast is a transaction older than that. So those are waited for, whoever they
    /// are: also one that came after the try.
    ///
    /// # Errors
    /// [`crate::error::Kind::Busy`] at the deadline, with whoever is in the way.
    pub(crate) fn watch(
        &mut self,
        db: &mut Database,
        ui: &Ui,
        seen: &Waiting,
        place: impl Fn() -> Option<String>,
    ) -> Result {
        self.first_failure.get_or_insert_with(Instant::now);
        self.until_free(db, ui, seen, place)?;
        std::thread::sleep(jitter(JITTER * self.attempts.min(JITTER_GROWS_TO)));
        self.attempts += 1;
        Ok(())
    }

    /// Before a statement that cannot be tried: DROP INDEX CONCURRENTLY marks the index as INVALID and
    /// then waits for every transaction on its table, so those are waited for while it is still whole.
    ///
    /// # Errors
    /// As [`Waiter::watch`].
    pub(crate) fn watch_first(&mut self, db: &mut Database, ui: &Ui, table: u32) -> Result {
        let mut blockers = activity::holders(&mut db.client, &[table], &[])?;
        blockers.retain(|holder| self.outlasts_a_try(holder));
        if blockers.is_empty() {
            return Ok(());
        }
        let seen = Waiting {
            relations: vec![table],
            blockers,
        };
        self.until_free(db, ui, &seen, || None)
    }

    fn until_free(
        &mut self,
        db: &mut Database,
        ui: &Ui,
        seen: &Waiting,
        place: impl Fn() -> Option<String>,
    ) -> Result {
        let failed_at = Instant::now();
        let blocking: Vec<i32> = seen.blockers.iter().map(|session| session.pid).collect();
        // A try that was too short to be looked at stood in line for one of its own tables.
        let relations = match &seen.relations[..] {
            [] if blocking.is_empty() => oids(db, &self.tables)?,
            relations => relations.to_vec(),
        };
        let mut in_the_way = seen.blockers.clone();
        let progress = ui.progress("Waiting");
        loop {
            self.announce(db, ui, &in_the_way);
            if self.started.elapsed() >= self.locks.lock_deadline {
                let mut failure = self.busy(&in_the_way);
                failure.excerpt = place();
                return Err(failure.into());
            }
            if interrupt::requested() {
                return Err(Failure::interrupted("stopped while waiting for a lock")
                    .state("this migration has changed nothing")
                    .into());
            }
            let mut holders = activity::holders(&mut db.client, &relations, &blocking)?;
            holders.retain(|holder| seen.is_blocked_by(holder) || self.outlasts_a_try(holder));
            let all_new = !holders.iter().any(|holder| seen.is_blocked_by(holder));
            if holders.is_empty() || (all_new && failed_at.elapsed() >= TRY_AMONG_OTHERS_AFTER) {
                break;
            }
            in_the_way = holders;
            progress.update(format_args!(
                "try {} when {} in the way {} ended; {} left",
                self.attempts + 1,
                ui::plural(in_the_way.len() as u64, "transaction"),
                if in_the_way.len() == 1 { "has" } else { "have" },
                ui::time(
                    self.locks
                        .lock_deadline
                        .saturating_sub(self.started.elapsed())
                ),
            ));
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Whether this transaction is older than a try is long, as far as can be seen.
    fn outlasts_a_try(&mut self, holder: &Backend) -> bool {
        let age = holder.transaction_age.unwrap_or_else(|| {
            let met = self.met.iter().find(|(known, _)| known.is_same(holder));
            match met {
                Some((_, at)) => at.elapsed(),
                None => {
                    self.met.push((holder.clone(), Instant::now()));
                    Duration::ZERO
                }
            }
        });
        age >= self.locks.lock_timeout.max(LOOK_EVERY)
    }

    /// Names each transaction once; an autovacuum is asked to make way, as it would be for whoever
    /// waits for it in a queue.
    fn announce(&mut self, db: &mut Database, ui: &Ui, in_the_way: &[Backend]) {
        for session in in_the_way {
            if self.told.iter().any(|told| told.is_same(session)) {
                continue;
            }
            self.told.push(session.clone());
            ui.info(
                "Waiting",
                format_args!("try {}: the table is in use by {session}", self.attempts),
            );
            if self.locks.show_queries && !session.query.is_empty() {
                ui.more(&session.query);
            }
            if session.is_autovacuum() && self.displace(db, session) {
                ui.more("asked the autovacuum to make way; it comes back by itself");
            }
        }
    }

    /// Cancels an autovacuum, or where this role may not, waits for it where nobody queues behind.
    fn displace(&self, db: &mut Database, autovacuum: &Backend) -> bool {
        activity::cancel(&mut db.client, autovacuum.pid).is_ok()
            || self.tables.iter().any(|table| {
                activity::displace_autovacuum(&mut db.client, &table.to_string()).is_ok()
            })
    }

    fn busy(&self, in_the_way: &[Backend]) -> Failure {
        let tables: Vec<String> = self.tables.iter().map(|name| format!("`{name}`")).collect();
        let which = match tables.len() {
            0 => "a lock".to_owned(),
            1 => format!("the lock on {}", tables[0]),
            _ => format!("the locks on {}", tables.join(", ")),
        };
        let failure = Failure::busy(format!(
            "could not acquire {which} within {}",
            ui::limit(self.locks.lock_deadline)
        ))
        .sqlstate("55P03");
        let tries = match (self.attempts, self.first_failure) {
            (_, None) => "waited".to_owned(),
            (1, _) => "1 try in".to_owned(),
            (tries, _) => format!("{tries} tries in"),
        };
        let failure = name(failure, in_the_way);
        let queued = match self.first_failure {
            Some(_) => format!(
                ", none longer than {} in the queue",
                ui::limit(self.locks.lock_timeout)
            ),
            None => String::new(),
        };
        failure.cause(format!(
            "{tries} {}{queued}",
            ui::time(self.started.elapsed()),
        ))
    }

    /// A concurrent build that was given up, since this session did not end within the deadline.
    pub(crate) fn gave_up(&self, waits_for: &Backend) -> Failure {
        let failure = Failure::busy(
            "the transaction that the index build waits for did not end within the deadline",
        );
        name(failure, std::slice::from_ref(waits_for))
    }
}

/// Adds who is in the way, and what to do about them.
pub(super) fn name(mut failure: Failure, in_the_way: &[Backend]) -> Failure {
    for session in in_the_way {
        failure = failure.cause(format!("in the way: {session}"));
    }
    let (purpose, sql) = match in_the_way.iter().find(|session| session.pid != 0) {
        Some(session) => (
            "let it end, or end it",
            format!("SELECT pg_terminate_backend({})", session.pid),
        ),
        None => match in_the_way.first() {
            // Its name stands where a session has its application's.
            Some(prepared) => (
                "end it, like this or with COMMIT PREPARED",
                format!(
                    "ROLLBACK PREPARED {}",
                    printable_literal(&prepared.application)
                ),
            ),
            None => return failure.hint(Hint::again_with("", "--lock-deadline 1h")),
        },
    };
    failure
        .hint(Hint::psql(purpose, &sql))
        .hint(Hint::again("then"))
}

/// The tables on which a script takes a strong lock, as far as its statements say so.
pub(crate) fn locked_by(script: &Script) -> Vec<ObjectName> {
    let effects = script.effects().flat_map(|(_, effects)| effects);
    let locked = effects.filter_map(|effect| match effect {
        Effect::AlterTable { table, .. }
        | Effect::DropTable { table, .. }
        | Effect::Truncate { table }
        | Effect::References { table }
        | Effect::CreateIndex { table, .. } => Some(table),
        _ => None,
    });
    locked.collect()
}

/// Those of the tables that are there.
fn oids(db: &mut Database, tables: &[ObjectName]) -> Result<Vec<u32>> {
    let there = catalog::existing(db, tables)?;
    Ok(there.iter().map(|relation| relation.oid).collect())
}

/// A random part of `most` (full jitter: two runs that failed together do not meet again).
fn jitter(most: Duration) -> Duration {
    let mut byte = [0u8; 1];
    match getrandom::fill(&mut byte) {
        Ok(()) => most * u32::from(byte[0]) / 255,
        Err(_) => most / 2,
    }
}
