//! Eyes on a CREATE, DROP or REINDEX CONCURRENTLY while it runs: how far it is, whom it waits for,
//! and the one circle that PostgreSQL cannot see.

use std::time::Duration;

use postgres::Client;

use crate::database::activity::{self, Backend};
use crate::hint::Hint;
use crate::ui::{self, Progress, Ui};

/// A build is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Watches one statement.
pub(crate) struct BuildWatch<'a> {
    ui: &'a Ui,
    progress: Progress<'a>,
    /// The advisory lock's key that this run holds.
    lock_key: i64,
    looked: Duration,
    /// Who was last named.
    told: Option<i32>,
    /// Who waits for the build and was named.
    told_behind: Vec<i32>,
    /// How long it may wait for one session, where it can be given up without harm.
    patience: Option<Duration>,
    /// For whom it waits now, and since when.
    waiting: Option<(Backend, Duration)>,
    /// For whom it waited when it was given up.
    pub(crate) gave_up: Option<Backend>,
}

impl<'a> BuildWatch<'a> {
    pub(crate) fn new(ui: &'a Ui, lock_key: i64, patience: Option<Duration>) -> BuildWatch<'a> {
        BuildWatch {
            ui,
            progress: ui.progress("Index"),
            lock_key,
            looked: Duration::ZERO,
            told: None,
            told_behind: Vec::new(),
            patience,
            waiting: None,
            gave_up: None,
        }
    }

    /// Looks at the backend that runs the statement, if it is time. What cannot be seen now is seen
    /// the next time: an error here must not end a build.
    pub(crate) fn look(&mut self, client: &mut Client, pid: i32, elapsed: Duration) {
        if elapsed.saturating_sub(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = elapsed;
        let _ = self.try_look(client, pid, elapsed);
    }

    fn try_look(
        &mut self,
        client: &mut Client,
        pid: i32,
        elapsed: Duration,
    ) -> crate::error::Result {
        self.name_those_behind(client, pid)?;
        let build = activity::index_build(client, pid)?;
        let waits_for = match &build {
            Some(build) if build.waits_for.is_some() => build.waits_for.clone(),
            // A drop shows no progress; neither does what waits for an ordinary lock.
            _ => activity::waiting(client, pid)?.blockers.into_iter().next(),
        };
        if let Some(session) = &waits_for {
            if self.told != Some(session.pid) {
                self.told = Some(session.pid);
                self.ui.info("Waiting", format_args!("for {session}"));
            }
            self.break_circle(client, session)?;
            self.lose_patience(client, pid, session, elapsed)?;
        } else {
            self.waiting = None;
        }
        if let Some(build) = build {
            let waiting = match &waits_for {
                Some(session) => format!("; waits for {session}"),
                None => String::new(),
            };
            self.progress.update(format_args!(
                "{}, {}{waiting}",
                build.phase,
                ui::time(elapsed)
            ));
        }
        Ok(())
    }

    /// Whoever changes the table waits for the build, and others queue behind: no reason to throw the
    /// build away, but worth knowing.
    fn name_those_behind(&mut self, client: &mut Client, pid: i32) -> crate::error::Result {
        let (waiting, behind) = activity::waiting_for(client, pid)?;
        for session in waiting {
            if self.told_behind.contains(&session.pid) {
                continue;
            }
            self.told_behind.push(session.pid);
            let queue = match behind {
                0 => String::new(),
                number => format!("; {} behind it", ui::plural(number, "session")),
            };
            self.ui.info(
                "Notice",
                format_args!("{session} waits for this build{queue}"),
            );
        }
        Ok(())
    }

    /// Cancels a build that has waited for one and the same session for as long as it may.
    fn lose_patience(
        &mut self,
        client: &mut Client,
        pid: i32,
        session: &Backend,
        elapsed: Duration,
    ) -> crate::error::Result {
        match &self.waiting {
            Some((waiting, since)) if waiting.pid == session.pid => {
                if self
                    .patience
                    .is_some_and(|patience| elapsed - *since >= patience)
                {
                    self.gave_up = Some(session.clone());
                    activity::cancel(client, pid)?;
                }
            }
            _ => self.waiting = Some((session.clone(), elapsed)),
        }
        Ok(())
    }

    /// A session that blocks in `pg_advisory_lock` for the lock that this run holds has a snapshot,
    /// the build waits for that snapshot to end, and this run waits for the build. The deadlock
    /// detector does not see it, as we wait for nothing in the server. sqlx's migrator blocks like
    /// that when an application starts. Cancelling its statement lets both go on: the application
    /// gets an error (57014) from its migrator and tries again when it is started anew.
    fn break_circle(
        &mut self,
        client: &mut Client,
        session: &activity::Backend,
    ) -> crate::error::Result {
        if !activity::waits_for_advisory_lock(client, session.pid, self.lock_key)? {
            return Ok(());
        }
        self.ui.warn(format_args!(
            "{session} waits in pg_advisory_lock for this run, and the index build waits for it: cancelling its statement"
        ));
        if activity::cancel(client, session.pid).is_err() {
            self.ui.hint(Hint::psql(
                "this role may not cancel it; as its owner or a superuser",
                &format!("SELECT pg_cancel_backend({})", session.pid),
            ));
        }
        Ok(())
    }
}
