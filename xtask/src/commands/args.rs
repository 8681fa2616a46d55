//! Arguments that several commands share, and the parsers of their values.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::Context;
use crate::database::Database;
use crate::error::Result;
use crate::migration::source::Folder;
use crate::options::{self, BackupOptions, ProofOptions, Reports, RunOptions};

/// `--format`, for the commands that print data.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct Output {
    /// Format of the data on stdout; json is one document, errors included
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(super) format: Format,
}

impl Output {
    pub(super) fn format(&self) -> options::Format {
        match self.format {
            Format::Human => options::Format::Human,
            Format::Json => options::Format::Json,
        }
    }
}

/// How data is printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document, errors included.
    Json,
}

/// How long to wait for locks.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct LockArgs {
    /// How long one attempt may wait in a lock queue, where it blocks the logins behind it
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = server_timeout)]
    pub(super) lock_timeout: Duration,
    /// How long to keep trying to get table locks, and how long to wait for another run to end
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lock_deadline)]
    pub(super) lock_deadline: Duration,
    /// How long readers and writers may wait for the locks of a statement before the statement is
    /// cancelled and rolled back; `off` for no limit
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = stall_budget)]
    pub(super) stall_budget: StallBudget,
    /// Show the queries of blocking sessions (they may contain personal data)
    #[arg(long)]
    pub(super) show_queries: bool,
    /// Terminate the server sessions that a killed run left behind, instead of waiting for them
    #[arg(long)]
    pub(super) end_orphans: bool,
}

/// How long other sessions may wait for a lock that we hold; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StallBudget(Option<Duration>);

impl LockArgs {
    pub(super) fn options(&self) -> options::Locks {
        options::Locks {
            lock_timeout: self.lock_timeout,
            lock_deadline: self.lock_deadline,
            stall_budget: self.stall_budget.0,
            show_queries: self.show_queries,
            end_orphans: self.end_orphans,
        }
    }
}

/// How a backup is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Proof {
    /// Restore it into a scratch table, and compare row count and content with the table.
    Restore,
    /// Compare its row count with the table.
    Rows,
    /// No proof.
    None,
}

/// How a backup is proven: always against the table in the dump's own snapshot.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ProofArgs {
    /// How a backup is proven before anything changes
    #[arg(long, value_name = "HOW", default_value = "restore")]
    pub(super) proof: Proof,
    /// For a table above this size, `restore` compares the row count only
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(super) proof_limit: u64,
}

impl ProofArgs {
    pub(super) fn options(&self) -> ProofOptions {
        ProofOptions {
            proof: match self.proof {
                Proof::Restore => options::Proof::Restore,
                Proof::Rows => options::Proof::Rows,
                Proof::None => options::Proof::None,
            },
            proof_limit: self.proof_limit,
        }
    }
}

/// Whose migrations the history has.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct HistoryArgs {
    /// Leave out what is in the history and has no file here, as where several folders share one history
    #[arg(long)]
    pub(super) ignore_missing: bool,
}

impl HistoryArgs {
    /// The migrations folder, and the database, which is connected to while the files are read.
    pub(super) fn open(self, ctx: &Context, lock_wait: Duration) -> Result<(Folder, Database)> {
        let connecting = ctx.begin_to_connect(lock_wait);
        let folder = self.folder(ctx)?;
        Ok((folder, ctx.connected(connecting?)?))
    }

    /// The migrations folder, and whether its history is shared.
    pub(super) fn folder(self, ctx: &Context) -> Result<Folder> {
        Ok(ctx.folder()?.sharing_history(self.ignore_missing))
    }
}

/// Whether and how to back up.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct BackupArgs {
    /// Take no backup
    #[arg(long)]
    pub(super) no_backup: bool,
    #[command(flatten)]
    pub(super) proof: ProofArgs,
}

impl BackupArgs {
    pub(super) fn options(&self) -> BackupOptions {
        BackupOptions {
            no_backup: self.no_backup,
            proof: self.proof.options(),
        }
    }
}

/// The arguments of every run of migrations.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) history: HistoryArgs,
    #[command(flatten)]
    locks: LockArgs,
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    reports: ReportArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

impl RunArgs {
    pub(super) fn options(&self, dry_run: bool) -> RunOptions {
        RunOptions {
            locks: self.locks.options(),
            backup: self.backup.options(),
            dry_run,
            reports: self.reports.options(),
        }
    }
}

/// Where to report.
#[derive(Args, Clone, Debug)]
pub(super) struct ReportArgs {
    /// Write the summary to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Post the summary to this URL as {"text": …}, as Slack expects it; a failure is only a warning
    #[arg(long, value_name = "URL")]
    pub(super) notify: Option<String>,
}

impl ReportArgs {
    pub(super) fn options(&self) -> Reports {
        Reports {
            report: self.report.clone(),
            notify: self.notify.clone(),
        }
    }
}

/// Reads `100ms`, `10s`, `5m`, `2h` or `7d`; a bare number has no unit and is refused.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let expected = "expected a number and a unit, such as 100ms, 10s, 5m, 2h or 7d";
    let number: u64 = digits.parse().map_err(|_| expected.to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected.to_owned()),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| "that is too long".to_owned())
}

/// Reads a duration for a server timeout. The server counts milliseconds in 31 bits, and 0 means no limit
/// (PostgreSQL manual, `lock_timeout`).
fn server_timeout(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
    match duration(text)? {
        Duration::ZERO => {
            Err("0 means \"wait forever\" to PostgreSQL: give a time above 0".to_owned())
        }
        time if time > LONGEST => Err("PostgreSQL allows 24 days at most".to_owned()),
        time => Ok(time),
    }
}

/// Reads a deadline. It is also used as a server timeout, so it has the same limits.
pub(super) fn lock_deadline(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("it would be over before the first try: give a time above 0".to_owned())
        }
        _ => server_timeout(text),
    }
}

/// Reads a duration, or `off`.
fn stall_budget(text: &str) -> Result<StallBudget, String> {
    match text {
        "off" => Ok(StallBudget(None)),
        _ => match duration(text)? {
            Duration::ZERO => {
                Err("no statement could finish in that time; to set no limit: off".to_owned())
            }
            budget => Ok(StallBudget(Some(budget))),
        },
    }
}

/// Reads `500MB`, `1GiB` or `0B`; a bare number has no unit and is refused.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let expected = "expected a number and a unit, such as 500MB or 1GiB";
    let number: u64 = digits.parse().map_err(|_| expected.to_owned())?;
    let bytes: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(expected.to_owned()),
    };
    number
        .checked_mul(bytes)
        .ok_or_else(|| "that is too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, expected) in [
            ("100ms", Some(100)),
            ("10s", Some(10_000)),
            ("10m", Some(600_000)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            ("10", None),
            ("ms", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("99999999999999999999s", None),
            ("999999999999999d", None),
        ] {
            let actual = duration(text).ok().map(|d| d.as_millis());
            assert_eq!(actual, expected, "{text}");
        }
    }

    #[test]
    fn timeouts_are_such_that_the_server_can_keep_them() {
        for (text, is_good) in [
            ("1ms", true),
            ("24d", true),
            ("0s", false),
            ("0ms", false),
            ("25d", false),
            ("30d", false),
            ("10", false),
        ] {
            assert_eq!(server_timeout(text).is_ok(), is_good, "{text}");
            assert_eq!(lock_deadline(text).is_ok(), is_good, "{text}");
        }
        assert_eq!(stall_budget("off"), Ok(StallBudget(None)));
        assert!(stall_budget("0s").is_err());
    }

    #[test]
    fn sizes_need_a_unit() {
        for (text, expected) in [
            ("0B", Some(0)),
            ("500MB", Some(500_000_000)),
            ("1GiB", Some(1 << 30)),
            ("1gib", Some(1 << 30)),
            ("1", None),
            ("GiB", None),
            ("99999999999999TiB", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
