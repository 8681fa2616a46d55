//! Which of the migrations in `migrations/` the application knows, and which of them the database has.
//!
//! What counts is what the catalog says, not a history: the migration may have been made by hand. The
//! application itself never changes the schema.

use serde::Serialize;
use tokio_postgres::types::Type;

use crate::database::Connection;
use crate::error::Error;

/// A file in `migrations/` that something here depends on.
#[derive(Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its name up to `.up.sql`.
    pub file_stem: &'static str,
}

/// The tables: nothing works without them.
pub const CREATE_USERS: Migration = Migration {
    file_stem: "20251201000000_create_users",
};
/// The column that a login stamps. Logins work without it, the dashboard waits for it.
pub const ADD_LAST_LOGIN_AT: Migration = Migration {
    file_stem: "20251231143000_add_users_last_login_at",
};
/// The index that the dashboard reads. Without it a large table makes it slow.
pub const INDEX_LAST_LOGIN_AT: Migration = Migration {
    file_stem: "20251231143100_index_users_last_login_at",
};

/// What is there.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Schema {
    /// What [`CREATE_USERS`] makes.
    pub has_users: bool,
    /// What [`ADD_LAST_LOGIN_AT`] makes.
    pub has_last_login_at: bool,
    /// What [`INDEX_LAST_LOGIN_AT`] makes, finished and valid.
    pub has_index: bool,
}

impl Schema {
    /// Looks into the catalog.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn read(db: &Connection) -> Result<Schema, Error> {
        let row = db
            .query_typed_one(
                "SELECT to_regclass('users') IS NOT NULL AND to_regclass('sessions') IS NOT NULL,
                        EXISTS (SELECT FROM pg_catalog.pg_attribute
                                WHERE attrelid = to_regclass('users')
                                  AND attname = 'last_login_at' AND NOT attisdropped),
                        EXISTS (SELECT FROM pg_catalog.pg_index
                                WHERE indexrelid = to_regclass($1)
                                  AND indrelid = to_regclass('users')
                                  AND indisvalid AND indisready)",
                &[(&"idx_users_last_login_at", Type::TEXT)],
            )
            .await?;
        Ok(Schema {
            has_users: row.try_get(0)?,
            has_last_login_at: row.try_get(1)?,
            has_index: row.try_get(2)?,
        })
    }

    /// Every migration that we know, and whether it is there.
    pub fn migrations(&self) -> [(&'static Migration, bool); 3] {
        [
            (&CREATE_USERS, self.has_users),
            (&ADD_LAST_LOGIN_AT, self.has_last_login_at),
            (&INDEX_LAST_LOGIN_AT, self.has_index),
        ]
    }
}
