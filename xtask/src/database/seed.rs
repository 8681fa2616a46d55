//! Development users, streamed with COPY. One password for all of them, hashed once.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use jiff::Timestamp;
use postgres::types::Type;

use super::Database;
use super::catalog;
use crate::config::{Config, DEV_PASSWORD};
use crate::error::{Failure, Result};
use crate::migration::effects::ObjectName;
use crate::ui::{self, Ui};

/// As many as the guide's example has rows, rounded.
pub(crate) const DEFAULT_USERS: u64 = 1_200;
/// The first user that is ever seeded may see the dashboard.
pub(crate) const ADMIN_EMAIL: &str = "admin@example.com";

/// Days over which accounts were created, and over which logins are spread.
const CREATED_DAYS: u64 = 730;
const LOGIN_DAYS: u64 = 60;
/// The advisory lock of whoever seeds: the letters `seed`.
const SEEDING: i64 = 0x7365_6564;
/// Bytes sent to the server at once.
const CHUNK: usize = 128 * 1024;

/// What to seed.
pub(crate) struct Seeding<'a> {
    pub(crate) users: u64,
    /// Whether about two of three have signed in.
    pub(crate) logins: bool,
    pub(crate) password: &'a str,
}

/// The development users' password: from `.env`, or generated and kept there.
///
/// # Errors
/// If `.env` cannot be read or written.
pub(crate) fn development_password(config: &Config) -> Result<String> {
    let known = config.dot_env_value(DEV_PASSWORD)?;
    if let Some(password) = known.filter(|password| !password.is_empty()) {
        return Ok(password);
    }
    let mut bytes = [0u8; 9];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let password = crate::hex::encode(&bytes);
    config.keep_in_dot_env(DEV_PASSWORD, &password)
}

/// Adds users, and a session for every fourth, in one transaction.
///
/// # Errors
/// If there is no fitting `users` table, or the server says no; nothing is added then.
pub(crate) fn run(db: &mut Database, ui: &Ui, seeding: &Seeding<'_>) -> Result {
    let started = std::time::Instant::now();
    let find = |db: &mut Database, name: &str| {
        catalog::find(
            db,
            &ObjectName {
                schema: None,
                name: name.to_owned(),
            },
        )
    };
    let Some(users) = find(db, "users")? else {
        return Err(Failure::failed("there is no table `users` to seed")
            .sqlstate("42P01")
            .hint("cargo xtask db-migrate")
            .into());
    };
    if seeding.logins && catalog::column_number(db, users.oid, "last_login_at")?.is_none() {
        return Err(Failure::failed("`users` has no column `last_login_at` yet")
            .sqlstate("42703")
            .hint("cargo xtask db-migrate, then: cargo xtask db-seed --logins")
            .into());
    }
    let sessions = find(db, "sessions")?;
    let table = users.qualified();
    let hash = Argon2::default()
        .hash_password(seeding.password.as_bytes())
        .map_err(|error| anyhow::anyhow!("cannot hash the development password: {error}"))?
        .to_string();

    let now = db.server.clock;
    let mut transaction = db.client.transaction()?;
    // Another db-seed would number its users the same.
    transaction
        .query_typed(
            "SELECT pg_catalog.pg_advisory_xact_lock($1)",
            &[(&SEEDING, Type::INT8)],
        )
        .context("cannot wait for another db-seed to end")?;
    let row = transaction.query_typed_one(
        &format!("SELECT coalesce(pg_catalog.max(id), 0)::int8, EXISTS (SELECT FROM {table} WHERE email = '{ADMIN_EMAIL}') FROM {table}"),
        &[],
    )?;
    let (newest, has_admin): (i64, bool) = (row.get(0), row.get(1));
    let columns = if seeding.logins {
        ", last_login_at"
    } else {
        ""
    };
    let mut copy = transaction.copy_in(&format!(
        "COPY {table} (email, password_hash, display_name, role, created_at{columns}) FROM STDIN"
    ))?;
    let progress = ui.progress("Seeding");
    let mut rows = Rows::new(&hash, now, seeding.logins);
    let mut text = String::with_capacity(CHUNK + 1024);
    for index in 0..seeding.users {
        let number = newest as u64 + index + 1;
        rows.write(&mut text, number, index == 0 && !has_admin);
        if text.len() >= CHUNK {
            copy.write_all(text.as_bytes())
                .context("cannot stream users")?;
            text.clear();
            progress.update(format_args!(
                "{} of {} users, {:.0} %",
                ui::count(index + 1),
                ui::count(seeding.users),
                (index + 1) as f64 / seeding.users as f64 * 100.0
            ));
            crate::interrupt::check()?;
        }
    }
    copy.write_all(text.as_bytes())
        .context("cannot stream users")?;
    copy.finish().context("cannot add development users")?;
    if let Some(sessions) = sessions {
        progress.update("sessions");
        transaction.execute(
            &format!(
                "INSERT INTO {} (user_id, created_at, expires_at)
                 SELECT id, created_at, pg_catalog.now() + interval '14 days'
                 FROM {table} WHERE id > $1 AND id % 4 = 0",
                sessions.qualified()
            ),
            &[&newest],
        )?;
    }
    transaction.commit()?;
    drop(progress);
    db.client.batch_execute(&format!("ANALYZE {table}"))?;
    ui.status(
        "Seeded",
        format_args!(
            "{} into {table}  {}",
            ui::plural(seeding.users, "development user"),
            ui::time(started.elapsed())
        ),
    );
    Ok(())
}

/// Writes rows in COPY's text format. Nothing in them needs escaping.
struct Rows<'a> {
    hash: &'a str,
    /// Midnights, newest first, as text.
    days: Vec<String>,
    logins: bool,
}

impl<'a> Rows<'a> {
    fn new(hash: &'a str, now: Timestamp, logins: bool) -> Rows<'a> {
        let day = Duration::from_secs(24 * 3600);
        // From yesterday on: no time of day may lie in the future.
        let days = (1..=CREATED_DAYS)
            .map(|days| (now - day * days as u32).strftime("%Y-%m-%d").to_string())
            .collect();
        Rows { hash, days, logins }
    }

    fn write(&mut self, out: &mut String, number: u64, admin: bool) {
        // A multiplicative hash spreads days and times evenly without a generator of random numbers.
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        let hash = self.hash;
        let day = &self.days[(spread % CREATED_DAYS) as usize];
        let _ = if admin {
            write!(out, "{ADMIN_EMAIL}\t{hash}\tAdmin\tadmin\t{day} 08:00:00Z")
        } else {
            write!(
                out,
                "user{number}@example.com\t{hash}\tUser {number}\tmember\t{day} 08:00:00Z"
            )
        };
        if self.logins {
            if number.is_multiple_of(3) {
                out.push_str("\t\\N");
            } else {
                let day = &self.days[(spread / 7 % LOGIN_DAYS) as usize];
                let second = spread / 421 % 86_400;
                let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
                let _ = write!(out, "\t{day} {hour:02}:{minute:02}:{second:02}Z");
            }
        }
        out.push('\n');
    }
}
