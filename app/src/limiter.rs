//! How many wrong passwords are too many: for one account, and from one address.
//!
//! Only failures count, so many people behind one address can sign in at once. What is counted lives
//! in this process's memory and is bounded; each of several instances counts for itself.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::error::Error;

/// Failures after which an account is closed to further attempts.
pub const PER_ACCOUNT: u32 = 10;
/// Failures after which an address is.
pub const PER_ADDRESS: u32 = 100;
/// For how long, from the first failure on.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// Accounts and addresses remembered at most: some 4 MiB.
const CAPACITY: usize = 65_536;

/// The failures of late.
#[derive(Default)]
pub struct Limiter {
    windows: Mutex<HashMap<Key, Window>>,
    hasher: RandomState,
}

/// Who is trying, as the limiter knows them.
#[derive(Clone, Copy)]
pub struct Attempt {
    account: Key,
    address: Key,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// A keyed hash of the email: emails are long, and nobody's business.
    Account(u64),
    Address(IpAddr),
}

struct Window {
    failures: u32,
    ends: Timestamp,
}

impl Limiter {
    /// An attempt on an account, whether or not it exists, from an address.
    pub fn attempt(&self, email: &str, address: IpAddr) -> Attempt {
        Attempt {
            account: Key::Account(self.hasher.hash_one(email.to_lowercase())),
            address: Key::Address(network(address)),
        }
    }

    /// Whether it may be made.
    ///
    /// # Errors
    /// After too many failures, until the window ends.
    pub fn check(&self, attempt: &Attempt, now: Timestamp) -> Result<(), Error> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = [
            (attempt.account, PER_ACCOUNT),
            (attempt.address, PER_ADDRESS),
        ];
        let over = limits.iter().filter_map(|(key, limit)| {
            let window = windows.get(key)?;
            (window.failures >= *limit && window.ends > now).then_some(window.ends)
        });
        match over.max() {
            Some(ends) => Err(Error::TooManyAttempts(ends.duration_since(now))),
            None => Ok(()),
        }
    }

    /// It was made, with a wrong password or for nobody.
    pub fn failed(&self, attempt: &Attempt, now: Timestamp) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for key in [attempt.account, attempt.address] {
            if windows.len() >= CAPACITY && !windows.contains_key(&key) {
                make_room(&mut windows, now);
            }
            let window = windows
                .entry(key)
                .and_modify(|window| {
                    if window.ends <= now {
                        *window = Window::from(now);
                    }
                })
                .or_insert_with(|| Window::from(now));
            window.failures += 1;
        }
    }

    /// It was made with the right password: whoever mistyped theirs starts anew.
    pub fn succeeded(&self, attempt: &Attempt) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.remove(&attempt.account);
    }
}

impl Window {
    fn from(now: Timestamp) -> Window {
        Window {
            failures: 0,
            ends: now.saturating_add(WINDOW).unwrap_or(Timestamp::MAX),
        }
    }
}

/// Forgets what is over; if nothing is, whoever failed the least.
fn make_room(windows: &mut HashMap<Key, Window>, now: Timestamp) {
    windows.retain(|_, window| window.ends > now);
    let mut least = 1;
    while windows.len() >= CAPACITY {
        windows.retain(|_, window| window.failures > least);
        least *= 2;
    }
}

/// One customer's addresses: with IPv6 that is a network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_account_is_closed_until_its_window_ends() {
        let limiter = Limiter::default();
        let start = Timestamp::UNIX_EPOCH;
        for n in 0..PER_ACCOUNT {
            let attempt = limiter.attempt("a@example.com", address(n as u8));
            limiter.check(&attempt, start).unwrap();
            limiter.failed(&attempt, start);
        }
        let attempt = limiter.attempt("A@example.com", address(99));
        let Err(Error::TooManyAttempts(wait)) = limiter.check(&attempt, start) else {
            panic!("it should be closed");
        };
        assert_eq!(wait, WINDOW);
        limiter
            .check(&limiter.attempt("b@example.com", address(1)), start)
            .unwrap();
        limiter.check(&attempt, start + WINDOW).unwrap();
        // A new window counts from nothing.
        limiter.failed(&attempt, start + WINDOW);
        limiter.check(&attempt, start + WINDOW).unwrap();
    }

    #[test]
    fn the_right_password_forgives_an_account_but_not_an_address() {
        let limiter = Limiter::default();
        let now = Timestamp::UNIX_EPOCH;
        let email = |n: u32| format!("user{n}@example.com");
        for n in 0..PER_ADDRESS {
            limiter.failed(&limiter.attempt(&email(n), address(1)), now);
        }
        limiter.succeeded(&limiter.attempt(&email(0), address(1)));
        assert!(
            limiter
                .check(&limiter.attempt("c", address(1)), now)
                .is_err()
        );
        assert!(
            limiter
                .check(&limiter.attempt("c", address(2)), now)
                .is_ok()
        );
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let [a, b, c] = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]
            .map(|text| network(text.parse().unwrap()));
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(network("::ffff:192.0.2.7".parse().unwrap()), address(7));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let limiter = Limiter::default();
        let now = Timestamp::UNIX_EPOCH;
        let worst = limiter.attempt("worst@example.com", address(1));
        for _ in 0..PER_ACCOUNT {
            limiter.failed(&worst, now);
        }
        for n in 0..CAPACITY as u32 * 2 {
            let spray = limiter.attempt(&n.to_string(), IpAddr::from(n.to_be_bytes()));
            limiter.failed(&spray, now);
        }
        assert!(limiter.windows.lock().unwrap().len() <= CAPACITY);
        assert!(limiter.check(&worst, now).is_err());
    }
}
