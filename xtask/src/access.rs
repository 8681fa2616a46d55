//! The way to the database that is meant: a stopped private server is started for it.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pg_connect::ConnInfo;

use crate::Context;
use crate::database::connect::{self, ConnectError, ConnectProblem, Connection};
use crate::database::{Database, LOCK_WAIT, native_options};
use crate::dev::server;
use crate::error::{Failure, Result};
use crate::{failures, interrupt};

impl Context {
    /// Connects to the configured database and says which it is. A stopped private server is started.
    ///
    /// # Errors
    /// If there is none, or it does not let us in.
    pub(crate) fn connect(&self) -> Result<Database> {
        self.connect_with(LOCK_WAIT)
    }

    /// As [`Context::connect`]; a check or a backup stands behind somebody who has locked a table no longer
    /// than that.
    pub(crate) fn connect_with(&self, lock_wait: Duration) -> Result<Database> {
        self.connected(self.begin_to_connect(lock_wait)?)
    }

    /// Begins to connect to the configured database, in a thread of its own: [`Context::connected`] waits for it.
    ///
    /// # Errors
    /// If no database is configured.
    pub(crate) fn begin_to_connect(&self, lock_wait: Duration) -> Result<Connecting> {
        let (target, _) = self.target()?;
        let target = server::effective_target(self, target)?;
        Ok(self.begin_to_connect_to(target, lock_wait))
    }

    /// The database that it was begun to connect to; says which it is. A stopped private server is started.
    ///
    /// # Errors
    /// If it does not let us in.
    pub(crate) fn connected(&self, connecting: Connecting) -> Result<Database> {
        let Connecting {
            target, lock_wait, ..
        } = &connecting;
        let (target, lock_wait) = (target.clone(), *lock_wait);
        let db = match self.wait_for(connecting) {
            Ok(db) => Ok(db),
            Err(refused) => match server::start_for(self, &target)? {
                Some(target) => self.connect_to(&target, lock_wait),
                None => Err(refused),
            },
        };
        let db = db.map_err(|error| error.explained())?;
        self.ui.status("Database", &db.server);
        Ok(db)
    }

    /// Connects to a database.
    ///
    /// # Errors
    /// If it does not let us in.
    pub(crate) fn connect_to(
        &self,
        target: &ConnInfo,
        lock_wait: Duration,
    ) -> Result<Database, ConnectError> {
        self.wait_for(self.begin_to_connect_to(target.clone(), lock_wait))
    }

    fn begin_to_connect_to(&self, target: ConnInfo, lock_wait: Duration) -> Connecting {
        // Zero would be without end; the server counts milliseconds in 31 bits.
        let longest = Duration::from_millis(i32::MAX as u64);
        let lock_wait = lock_wait.clamp(Duration::from_millis(1), longest);
        let (info, name) = (target.clone(), self.application_name.clone());
        let attempt = move || connect::connect(&info, &name, &native_options(lock_wait));
        Connecting {
            target,
            lock_wait,
            attempt: thread::spawn(attempt),
        }
    }

    fn wait_for(&self, connecting: Connecting) -> Result<Database, ConnectError> {
        let attempt = connecting
            .attempt
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
        let connection = attempt.map_err(interrupted_or)?;
        let canceller = connection.canceller();
        interrupt::on_signal(move || {
            // A server that does not hear it is asked again by whoever waits for it.
            let _ = canceller.cancel();
        });
        let name = &self.application_name;
        Database::inspect(connection, name, connecting.lock_wait).map_err(|error| ConnectError {
            problem: ConnectProblem::Other,
            failure: Box::new(failures::from_error(&error)),
        })
    }
}

/// An attempt to connect that goes on while something else is done.
pub(crate) struct Connecting {
    target: ConnInfo,
    lock_wait: Duration,
    attempt: JoinHandle<Result<Connection, ConnectError>>,
}

/// After a signal, that is why there is no connection.
fn interrupted_or(error: ConnectError) -> ConnectError {
    if !interrupt::requested() {
        return error;
    }
    let failure = Failure::interrupted("stopped while connecting");
    ConnectError {
        problem: ConnectProblem::Other,
        failure: Box::new(failure),
    }
}
