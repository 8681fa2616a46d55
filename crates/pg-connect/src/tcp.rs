//! The settings of a TCP connection, and numbers of seconds.

use std::time::Duration;

use crate::error::Result;
use crate::settings::Settings;

/// How the kernel watches over an idle connection. `None` is the system's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Whether an idle connection is probed at all (`keepalives`).
    pub keepalives: bool,
    /// After how long without traffic (`keepalives_idle`).
    pub idle: Option<Duration>,
    /// How often, where there is no answer (`keepalives_interval`).
    pub interval: Option<Duration>,
    /// After how many lost probes the connection is (`keepalives_count`).
    pub count: Option<u32>,
    /// How long what was sent may remain unacknowledged (`tcp_user_timeout`).
    pub user_timeout: Option<Duration>,
}

impl TcpSettings {
    pub(crate) fn resolve(settings: &Settings) -> Result<TcpSettings> {
        let count = settings.number("keepalives_count")?;
        let user_timeout = settings.number("tcp_user_timeout")?.and_then(positive);
        Ok(TcpSettings {
            keepalives: settings.number("keepalives")? != Some(0),
            idle: seconds(settings, "keepalives_idle")?,
            interval: seconds(settings, "keepalives_interval")?,
            count: count.and_then(positive),
            user_timeout: user_timeout.map(|ms| Duration::from_millis(ms.into())),
        })
    }
}

/// A number of seconds, where zero and less mean the default.
pub(crate) fn seconds(settings: &Settings, keyword: &str) -> Result<Option<Duration>> {
    let number = settings.number(keyword)?.and_then(positive);
    Ok(number.map(|seconds| Duration::from_secs(seconds.into())))
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}
