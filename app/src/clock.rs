//! What time it is: the system's clock, or a test's.
//!
//! Everything that the application decides by time asks here: when a session or a lock-out ends, who
//! counts as active. `users.last_login_at` alone is the database's own `now()`.

use std::sync::Arc;

use jiff::Timestamp;

/// A source of the current time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        Clock::new(Timestamp::now)
    }

    /// A clock that a test moves.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}
