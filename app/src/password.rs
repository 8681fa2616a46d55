//! Passwords: argon2id, in threads that may block, no more at a time than there are cores.
//!
//! A hash takes 19 MiB and some 20 ms of one core, which is the point of it. So that a flood of
//! logins takes neither all memory nor all cores, each waits for its [`Turn`]. The memory is kept
//! from one hash to the next: to get it anew took a fifth of the time (`cargo bench -p app -- logins`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// How long a login waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What argon2 works in.
type Memory = Vec<Block>;

/// The bound on how many are verified at a time.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// As many as there were turns at a time; the one used last is taken first.
    memories: Arc<Mutex<Vec<Memory>>>,
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
            memories: Arc::default(),
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
                memories: self.memories.clone(),
                nobodys: self.nobodys.clone(),
            }),
            _ => Err(Error::Busy("too many people sign in at the same time")),
        }
    }
}

/// The right to verify one password.
pub struct Turn {
    permit: OwnedSemaphorePermit,
    memories: Arc<Mutex<Vec<Memory>>>,
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
        let (permit, memories) = (self.permit, self.memories);
        let verified = tokio::task::spawn_blocking(move || {
            // Held to the end, even where the request has gone away.
            let _permit = permit;
            let lock = || memories.lock().unwrap_or_else(PoisonError::into_inner);
            let mut memory = lock().pop().unwrap_or_default();
            let is_right = is_hash_of(&hash, password.as_bytes(), &mut memory);
            lock().push(memory);
            is_right
        });
        match verified.await? {
            Ok(is_right) => Ok(is_right && known),
            Err(error) => Err(anyhow::anyhow!(
                "a stored password hash is unusable: {error}"
            )),
        }
    }
}

/// As `PasswordVerifier` does, which gets its memory anew each time.
fn is_hash_of(
    hash: &str,
    password: &[u8],
    memory: &mut Memory,
) -> Result<bool, argon2::password_hash::Error> {
    let hash = PasswordHash::new(hash)?;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return Ok(false);
    };
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?;
    let params = Params::try_from(&hash)?;
    memory.resize(params.block_count(), Block::default());
    let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
    let mut computed = [0; Output::MAX_LENGTH];
    let computed = &mut computed[..expected.len()];
    argon2.hash_password_into_with_memory(password, salt, computed, memory)?;
    // This comparison takes as long whatever differs (phc, `Output`).
    Ok(Output::new(computed)? == *expected)
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
