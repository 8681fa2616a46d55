//! Look before you wait: after a try that did not get its lock, watch those in the way *without
//! queueing* until they are gone, and only then try again, inside one deadline.

use std::time::{Duration, Instant};

use super::apply::Effort;
use crate::database::Database;
use crate::database::activity::{self, Session, Waiting};
use crate::error::{Failure, Result};
use crate::flags::Locks;
use crate::interrupt;
use crate::ui::{self, Ui};

/// How often those in the way are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest pause before the next try, of which a random part is taken.
const JITTER: Duration = Duration::from_millis(100);
/// Where somebody is always in the way, but never the same for long, a try now and then: it keeps
/// newcomers out for its `lock_timeout`, and those who are there may end within it.
const TRY_AMONG_OTHERS_AFTER: Duration = Duration::from_secs(10);

/// The tries of one migration.
pub(crate) struct Waiter {
    locks: Locks,
    started: Instant,
    attempts: u32,
    first_failure: Option<Instant>,
    told: Vec<i32>,
}

impl Waiter {
    pub(crate) fn new(locks: Locks) -> Waiter {
        Waiter {
            locks,
            started: Instant::now(),
            attempts: 1,
            first_failure: None,
            told: Vec::new(),
        }
    }

    /// What it took, once it has its locks.
    pub(crate) fn effort(&self) -> Effort {
        Effort {
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
        let failed_at = Instant::now();
        let blocking: Vec<i32> = seen.blockers.iter().map(|session| session.pid).collect();
        let mut in_the_way = seen.blockers.clone();
        let progress = ui.progress("Waiting");
        loop {
            self.tell(db, ui, &in_the_way);
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
            let holders = activity::old_holders(
                &mut db.client,
                &seen.relations,
                &blocking,
                self.locks.lock_timeout,
            )?;
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
        std::thread::sleep(jitter(JITTER));
        self.attempts += 1;
        Ok(())
    }

    /// Names each session once; an autovacuum, which PostgreSQL itself would make way with after a
    /// second in its queue, is asked to make way without one.
    fn tell(&mut self, db: &mut Database, ui: &Ui, in_the_way: &[Session]) {
        for session in in_the_way {
            if self.told.contains(&session.pid) {
                continue;
            }
            self.told.push(session.pid);
            ui.info(
                "Waiting",
                format_args!("try {}: the table is in use by {session}", self.attempts),
            );
            if self.locks.show_queries && !session.query.is_empty() {
                ui.more(&session.query);
            }
            if session.is_autovacuum() && activity::cancel(&mut db.client, session.pid).is_ok() {
                ui.more("asked the autovacuum to make way; it comes back by itself");
            }
        }
    }

    fn busy(&self, in_the_way: &[Session]) -> Failure {
        let mut failure = Failure::busy("the table's lock was not to be had within the deadline")
            .sqlstate("55P03");
        for session in in_the_way {
            failure = failure.cause(format!("in the way: {session}"));
        }
        let tries = match self.attempts {
            1 => "1 try".to_owned(),
            tries => format!("{tries} tries"),
        };
        failure = failure
            .cause(format!(
                "{tries} in {}, none longer than {} in the queue",
                ui::time(self.started.elapsed()),
                ui::time(self.locks.lock_timeout),
            ))
            .state("this migration has changed nothing");
        match in_the_way.iter().find(|session| session.pid != 0) {
            Some(session) => failure.hint(format!(
                "let it end, or end it: cargo xtask db-psql -- -c 'SELECT pg_terminate_backend({})', then: cargo xtask db-migrate",
                session.pid
            )),
            None => failure.hint("cargo xtask db-migrate --lock-deadline 1h"),
        }
    }
}

/// A random part of `most` (full jitter: two runs that failed together do not meet again).
fn jitter(most: Duration) -> Duration {
    let mut byte = [0u8; 1];
    match getrandom::fill(&mut byte) {
        Ok(()) => most * u32::from(byte[0]) / 255,
        Err(_) => most / 2,
    }
}
