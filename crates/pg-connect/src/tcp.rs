//! The keywords for TCP connections, and numbers of seconds.

use std::time::Duration;

use crate::error::Result;
use crate::settings::Settings;

/// The TCP keywords (manual, *Parameter Key Words*). They are ignored for Unix-domain sockets. `None` is
/// the operating system's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Whether TCP keepalives are used.
    pub keepalives: bool,
    /// How long a connection is idle before the first keepalive is sent.
    pub keepalives_idle: Option<Duration>,
    /// After how long a keepalive that was not acknowledged is sent again.
    pub keepalives_interval: Option<Duration>,
    /// After how many lost keepalives the connection counts as lost.
    pub keepalives_count: Option<u32>,
    /// How long sent data may remain unacknowledged before the connection is closed.
    pub tcp_user_timeout: Option<Duration>,
}

impl TcpSettings {
    pub(crate) fn resolve(settings: &Settings) -> Result<TcpSettings> {
        let count = settings.number("keepalives_count")?;
        let user_timeout = settings.number("tcp_user_timeout")?.and_then(positive);
        Ok(TcpSettings {
            keepalives: settings.number("keepalives")? != Some(0),
            keepalives_idle: seconds(settings, "keepalives_idle")?,
            keepalives_interval: seconds(settings, "keepalives_interval")?,
            keepalives_count: count.and_then(positive),
            tcp_user_timeout: user_timeout.map(|ms| Duration::from_millis(ms.into())),
        })
    }
}

/// A number of seconds; zero and negative numbers mean the default.
pub(crate) fn seconds(settings: &Settings, keyword: &str) -> Result<Option<Duration>> {
    let number = settings.number(keyword)?.and_then(positive);
    Ok(number.map(|seconds| Duration::from_secs(seconds.into())))
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}
