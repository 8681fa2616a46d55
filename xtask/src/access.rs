//! The way to the database that is meant: a stopped private server is started for it.

use std::time::Duration;

use pg_connect::ConnInfo;

use crate::Context;
use crate::database::connect::{self, ConnectError, ConnectProblem};
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
        let (target, _) = self.target()?;
        let target = server::effective_target(self, target)?;
        let refused = match self.connect_to(&target, lock_wait) {
            Ok(db) => return Ok(self.connected(db)),
            Err(refused) => refused,
        };
        let db = match server::start_for(self, &target)? {
            Some(target) => self.connect_to(&target, lock_wait),
            None => Err(refused),
        };
        match db {
            Ok(db) => Ok(self.connected(db)),
            Err(error) => Err(error.explained().into()),
        }
    }

    fn connected(&self, db: Database) -> Database {
        self.ui.status("Database", &db.server);
        db
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
        // Zero would be without end; the server counts milliseconds in 31 bits.
        let longest = Duration::from_millis(i32::MAX as u64);
        let lock_wait = lock_wait.clamp(Duration::from_millis(1), longest);
        let name = &self.application_name;
        let connection =
            connect::connect(target, name, &native_options(lock_wait)).map_err(interrupted_or)?;
        let canceller = connection.canceller();
        interrupt::on_signal(move || {
            // A server that does not hear it is asked again by whoever waits for it.
            let _ = canceller.cancel();
        });
        Database::inspect(connection, name, lock_wait).map_err(|error| ConnectError {
            problem: ConnectProblem::Other,
            failure: Box::new(failures::from_error(&error)),
        })
    }
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
