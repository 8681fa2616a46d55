//! The programs of PostgreSQL that a run starts.

use super::check::{Check, Found, Look};

pub(super) const PSQL: Check = Check {
    name: "psql",
    // A run starts it, which says the same.
    before: &[],
    look: Look::Machine(|ctx| Ok(Found::ok(ctx.tools().psql()?.display().to_string()))),
};

pub(super) const PG_DUMP: Check = Check {
    name: "pg_dump",
    // A backup starts it, and a run need not take one.
    before: &[],
    look: Look::Server(|ctx, db| {
        let pg_dump = ctx.tools().pg_dump(db.server.major())?;
        Ok(Found::ok(format!(
            "{} ({})",
            pg_dump.program.display(),
            pg_dump.version
        )))
    }),
};
