//! The `users` table, as a login needs it: finding an account, and stamping it.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::database::{Connection, query_prepared};
use crate::error::Error;
use crate::schema::ADD_LAST_LOGIN_AT;

/// Somebody who may sign in.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// Their id.
    pub id: i64,
    /// Their email.
    pub email: String,
    /// What to call them.
    pub display_name: String,
    /// Whether they may see the dashboard.
    pub is_admin: bool,
}

impl User {
    /// From the columns `id, email, display_name, role`, in this order.
    pub(crate) fn from_row(row: &Row) -> Result<User, Error> {
        Ok(User {
            id: row.try_get(0)?,
            email: row.try_get(1)?,
            display_name: row.try_get(2)?,
            is_admin: row.try_get::<_, &str>(3)? == "admin",
        })
    }
}

/// A user with what proves them to be it. No `Debug`: a hash is not for logs.
pub struct Account {
    /// Who it is.
    pub user: User,
    /// Their password, hashed.
    pub password_hash: String,
}

/// Finds an account by its exact email.
///
/// # Errors
/// If the database says no.
pub async fn find(db: &Connection, email: &str) -> Result<Option<Account>, Error> {
    // No text in PostgreSQL holds a NUL; it would be an error to ask.
    if email.contains('\0') {
        return Ok(None);
    }
    let row = query_prepared(
        db,
        "SELECT id, email, display_name, role, password_hash FROM users WHERE email = $1",
        &[Type::TEXT],
        &[&email],
    )
    .await?;
    Ok(match row {
        Some(row) => Some(Account {
            user: User::from_row(&row)?,
            password_hash: row.try_get(4)?,
        }),
        None => None,
    })
}

/// Signs users in, whether or not `users.last_login_at` is there: a migration may add it, or a
/// rollback take it away, between any two logins.
#[derive(Default)]
pub struct SignIns {
    /// What the last login learned. Nothing depends on its being up to date.
    without_column: AtomicBool,
}

/// Stamps the user and opens the session, both or neither, and clears away the user's old sessions.
pub const STAMP_AND_OPEN: &str = "
    WITH over AS (
        DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2
    ), stamped AS (
        UPDATE users SET last_login_at = now() WHERE id = $1 RETURNING id
    )
    INSERT INTO sessions (user_id, created_at, expires_at)
    SELECT id, $2, $3 FROM stamped
    RETURNING id::text";

/// The same without the stamp; says whether there is a column for it meanwhile.
const OPEN: &str = "
    WITH over AS (
        DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2
    )
    INSERT INTO sessions (user_id, created_at, expires_at)
    SELECT id, $2, $3 FROM users WHERE id = $1
    RETURNING id::text,
              EXISTS (SELECT FROM pg_catalog.pg_attribute
                      WHERE attrelid = 'users'::regclass
                        AND attname = 'last_login_at' AND NOT attisdropped)";

const STAMP: &str = "UPDATE users SET last_login_at = now() WHERE id = $1";

impl SignIns {
    /// Stamps `last_login_at` and opens a session. Returns the session's id; `None` if the user has
    /// been deleted meanwhile.
    ///
    /// # Errors
    /// If the database says no.
    pub async fn sign_in(
        &self,
        db: &Connection,
        user: &User,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Option<String>, Error> {
        let types = [Type::INT8, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ];
        let values: [&(dyn ToSql + Sync); 3] = [&user.id, &now, &expires_at];
        if !self.without_column.load(Ordering::Relaxed) {
            match query_prepared(db, STAMP_AND_OPEN, &types, &values).await {
                Ok(Some(row)) => return Ok(Some(row.try_get(0)?)),
                Ok(None) => return Ok(None),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
                    self.column_is_gone();
                }
                Err(error) => return Err(error.into()),
            }
        }

        let Some(row) = query_prepared(db, OPEN, &types, &values).await? else {
            return Ok(None);
        };
        if row.try_get(1)? {
            // The migration has been here: this login is the first to be stamped. Should a rollback
            // follow at once, the login still stands.
            match db.execute_typed(STAMP, &[(&user.id, Type::INT8)]).await {
                Ok(_) => self.column_is_back(),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(row.try_get(0)?))
    }

    fn column_is_gone(&self) {
        if !self.without_column.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "logins are not stamped: users.last_login_at is not there (SQLSTATE 42703); it comes \
                 with the migration {}: cargo xtask db-migrate",
                ADD_LAST_LOGIN_AT.file_stem
            );
        }
    }

    fn column_is_back(&self) {
        if self.without_column.swap(false, Ordering::Relaxed) {
            tracing::info!("logins are stamped again: users.last_login_at is there");
        }
    }
}
