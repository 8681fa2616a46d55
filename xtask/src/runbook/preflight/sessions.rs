//! Who might be in the way, said before it matters.

use std::time::Duration;

use super::check::{Check, Found, Look, Notice, Warning, When};
use crate::database::activity;
use crate::hint::Hint;
use crate::ui;

/// A transaction older than this is worth naming before a migration.
const LONG_TRANSACTION: Duration = Duration::from_secs(5);

pub(super) const TRANSACTIONS: Check = Check {
    name: "transactions",
    before: &[When::Up],
    look: Look::Server(|_, db| {
        let long = match activity::old_transactions(&mut db.client, LONG_TRANSACTION) {
            Ok(long) => long,
            Err(error) => return Ok(Found::unknown(&error)),
        };
        let Some(oldest) = long.first() else {
            return Ok(Found::ok("no long transaction"));
        };
        let count = ui::count(long.len() as u64);
        let notices = long.iter().map(|session| Notice {
            line: format!("a long transaction: {session}"),
            query: session.query.clone(),
        });
        Ok(Found::Warning(Warning {
            detail: format!("{count} open for long, the oldest: {oldest}"),
            remedy: Some(Hint::psql(
                "db-migrate waits for it; or end it",
                &format!("SELECT pg_terminate_backend({})", oldest.pid),
            )),
            notices: notices.collect(),
        }))
    }),
};

pub(super) const DUMPS: Check = Check {
    name: "dumps",
    // Its transaction is named as soon as it is a long one.
    before: &[],
    look: Look::Server(|_, db| {
        let dumps = match activity::dumps(&mut db.client) {
            Ok(dumps) => dumps,
            Err(error) => return Ok(Found::unknown(&error)),
        };
        Ok(match dumps.first() {
            None => Found::ok("no pg_dump is running"),
            Some(dump) => Found::warning(
                format!("a pg_dump is running: {dump}"),
                "db-migrate waits for it to end",
            ),
        })
    }),
};
