//! Passwords: argon2id, in threads that may block, no more at a time than there are cores.
//!
//! A hash takes 19 MiB and some 20 ms of one core, which is the point of it. So that a flood of
//! logins takes neither all memory nor all cores, each waits for its [`Turn`].

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// How long a login waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bound on how many are verified at a time.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Stands in where there is no account, so that both take as long.
    nobodys: Arc<str>,
}

impl Passwords {
    /// As many at a time as this machine has cores.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new() -> anyhow::Result<Passwords> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut unknown = [0; 32];
        getrandom::fill(&mut unknown)
            .map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        Ok(Passwords {
            turns: Arc::new(Semaphore::new(cores)),
            nobodys: hash(&unknown)?.into(),
        })
    }

    /// Waits for a core.
    ///
    /// # Errors
    /// If none is free in time.
    pub async fn turn(&self) -> Result<Turn, Error> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned());
        match turn.await {
            Ok(Ok(permit)) => Ok(Turn {
                permit,
                nobodys: self.nobodys.clone(),
            }),
            _ => Err(Error::Busy("too many people sign in at the same time")),
        }
    }
}

/// The right to verify one password.
pub struct Turn {
    permit: OwnedSemaphorePermit,
    nobodys: Arc<str>,
}

impl Turn {
    /// Whether the password is the one that was hashed. Without a hash the answer is no, after the
    /// same work.
    ///
    /// # Errors
    /// If what was stored is no argon2 hash.
    pub async fn verify(self, password: String, hash: Option<&str>) -> anyhow::Result<bool> {
        let known = hash.is_some();
        let hash = hash.map_or(self.nobodys, Arc::from);
        let permit = self.permit;
        let verified = tokio::task::spawn_blocking(move || {
            // Held to the end, even where the request has gone away.
            let _permit = permit;
            let hash = PasswordHash::new(&hash)?;
            Argon2::default().verify_password(password.as_bytes(), &hash)
        });
        match verified.await? {
            Ok(()) => Ok(known),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(anyhow::anyhow!(
                "a stored password hash is unusable: {error}"
            )),
        }
    }
}

/// Hashes a password with the parameters that OWASP recommends (19 MiB, 2 passes, 1 lane), which are
/// this crate's default.
///
/// # Errors
/// If the system has no random numbers, or the password is 4 GiB long.
pub fn hash(password: &[u8]) -> anyhow::Result<String> {
    match Argon2::default().hash_password(password) {
        Ok(hash) => Ok(hash.to_string()),
        Err(error) => Err(anyhow::anyhow!("cannot hash a password: {error}")),
    }
}
