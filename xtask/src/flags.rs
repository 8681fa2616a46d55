//! The whole command surface. The doc comments are the help that people read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Change the schema of a busy PostgreSQL table, and take it back, without fear.
///
/// A migration is plain SQL in `migrations/`, in sqlx's format. `db-migrate` checks first, backs up
/// what a migration names, applies what is pending, verifies it, and says what is left to do.
/// `db-rollback` is the way back. Every command says which database it talks to.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    max_term_width = 100
)]
#[command(after_help = "Start here:
  cargo xtask db-setup      a private server, a database, seeded and migrated (nothing needed)
  cargo xtask db-status     what is applied and what is pending
  cargo xtask db-migrate    preflight, backup, apply, verify, report
  cargo xtask db-rollback   undo the last run

Which database: --database-url, else DATABASE_URL, else `.env` at the workspace root.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The database, as a URL or a libpq key=value string [default: DATABASE_URL, then .env]
    // The value may hold a password, so clap must never print it in help or errors.
    #[arg(long, global = true, value_name = "URL", hide_default_value = true)]
    pub(crate) database_url: Option<String>,
    /// Folder of migrations [default: migrations at the workspace root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) migrations: Option<PathBuf>,
    /// Folder for backups [default: backups at the workspace root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) backups: Option<PathBuf>,
    /// Print only data, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Also print each check that holds, and what the server had to say
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// When to use colour and live progress
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// Answer yes to every question
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

impl Global {
    /// A failure whose hints name commands: they mean this database and these folders. The address
    /// itself may hold a password, so it is not repeated.
    pub(crate) fn recalled_by(&self, failure: Failure) -> Failure {
        let flags = [
            ("--database-url", self.database_url.is_some()),
            ("--migrations", self.migrations.is_some()),
            ("--backups", self.backups.is_some()),
        ];
        let names = |what: &str| failure.hints.iter().any(|hint| hint.contains(what));
        let given: Vec<&str> = flags
            .into_iter()
            .filter_map(|(flag, given)| (given && !names(flag)).then_some(flag))
            .collect();
        match given.is_empty() || !names("cargo xtask") {
            true => failure,
            false => failure.hint(format!("each with your {} too", given.join(" and "))),
        }
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe.
    Always,
    /// Never.
    Never,
}

/// How data is printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document, errors included.
    Json,
}

/// `--format`, for the commands that print data.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    /// How to print data on stdout; json is one document, errors included
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(crate) format: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
#[expect(
    clippy::enum_variant_names,
    reason = "clap makes the commands' names of them"
)]
pub(crate) enum Command {
    /// Local development from nothing: server, database, seed, and all that db-migrate does
    ///
    /// Finds PostgreSQL (or names the command that installs it, and runs it after a yes), makes and
    /// starts a private server inside the workspace, creates the database `myapp_dev`, writes `.env`,
    /// applies the baseline, seeds users, and migrates them as db-migrate would anywhere. Run again it
    /// does only what is missing. Where a DATABASE_URL is configured it sets up that database instead.
    #[command(after_help = "Examples:
  cargo xtask db-setup
  cargo xtask db-setup --users 50000 --no-migrate
  cargo xtask db-setup --yes              install PostgreSQL without asking, if it is missing")]
    DbSetup(Setup),
    /// Start the private server
    #[command(after_help = "Example:\n  cargo xtask db-start")]
    DbStart,
    /// Stop the private server; its data stays
    #[command(after_help = "Example:\n  cargo xtask db-stop")]
    DbStop,
    /// Delete the private server and every database in it
    #[command(after_help = "Example:\n  cargo xtask db-destroy --yes")]
    DbDestroy,
    /// Check every precondition, with a remedy for each that fails (exit 3 if one does)
    #[command(after_help = "Examples:
  cargo xtask db-doctor
  cargo xtask db-doctor --format json | jq '.checks[] | select(.status != \"ok\")'")]
    DbDoctor(Output),
    /// Show what is applied, pending, missing or divergent
    #[command(after_help = "Examples:
  cargo xtask db-status
  cargo xtask db-status --check           exit 3 unless everything is applied and unedited
  cargo xtask db-status --format json | jq .pending")]
    DbStatus(Status),
    /// Preflight, backup, apply what is pending, verify, report
    #[command(after_help = "Examples:
  cargo xtask db-migrate --dry-run        the plan; nothing is written
  cargo xtask db-migrate
  cargo xtask db-migrate --report migration.md --notify \"$SLACK_WEBHOOK\"

At noon: a statement that needs a strong lock waits 100 ms for it at most, so logins never queue
behind it for longer; then the run watches who is in the way, without queueing, and tries again,
up to --lock-deadline.")]
    DbMigrate(Migrate),
    /// Undo the last run, showing first what will be lost, and backing it up
    #[command(after_help = "Examples:
  cargo xtask db-rollback --dry-run
  cargo xtask db-rollback                 the last run
  cargo xtask db-rollback --steps 1       the last migration
  cargo xtask db-rollback --to 20251201000000   everything after that version
  cargo xtask db-rollback --to 0          everything, a baseline that was run too
  cargo xtask db-rollback --only 20251231143100   this one alone

A baseline stays, except with --to 0. What was recorded without being run (db-baseline) is undone
only where --only names it.")]
    DbRollback(Rollback),
    /// Roll back the last run and apply it again (development)
    #[command(after_help = "Example:\n  cargo xtask db-redo --yes")]
    DbRedo(Redo),
    /// Run every verify file, check indexes and checksums (exit 3 if one fails)
    #[command(after_help = "Examples:
  cargo xtask db-verify
  cargo xtask db-verify --wait-standbys 60s")]
    DbVerify(Verify),
    /// Back up tables [default: those that pending migrations name, else users]
    #[command(after_help = "Examples:
  cargo xtask db-backup
  cargo xtask db-backup users sessions")]
    DbBackup(Backup),
    /// List backups with their age, rows, size and proof; delete old ones
    #[command(after_help = "Examples:
  cargo xtask db-backups
  cargo xtask db-backups --check          read each and compare its checksum (exit 3 if one differs)
  cargo xtask db-backups prune --dry-run
  cargo xtask db-backups prune --older-than 7d
  cargo xtask db-backups --format json | jq '.backups[0].file'")]
    DbBackups(Backups),
    /// Merge a backup back: missing rows return, differing ones take its values, newer ones stay
    #[command(after_help = "Examples:
  cargo xtask db-restore backups/users_backup_20260101_120000.sql --dry-run     the counts
  cargo xtask db-restore backups/users_backup_20260101_120000.sql
  cargo xtask db-restore FILE --column last_login_at     only this column, of rows that are there

One transaction: all of it or nothing. Nothing is deleted, readers go on, sequences only move forward.")]
    DbRestore(Restore),
    /// Adopt an existing database: compare the baseline with it, then record without running
    #[command(after_help = "Examples:
  cargo xtask db-baseline --dry-run       compare only
  cargo xtask db-baseline                 compare, then record the migrations marked as baseline
  cargo xtask db-baseline 20251201000000  record everything up to this version")]
    DbBaseline(Baseline),
    /// Add development users, streamed with COPY
    #[command(after_help = "Examples:
  cargo xtask db-seed                     1,200 users
  cargo xtask db-seed --users 1000000     a table worth trying a migration on
  cargo xtask db-seed --logins            also stamp last_login_at on some of them")]
    DbSeed(Seed),
    /// Open psql on the configured database
    #[command(after_help = "Examples:
  cargo xtask db-psql
  cargo xtask db-psql -- -c '\\d users'")]
    DbPsql(Psql),
}

/// Flags of `db-setup`.
#[derive(Args, Debug)]
pub(crate) struct Setup {
    /// How many development users to seed into a database that this command creates
    #[arg(long, value_name = "N", default_value_t = crate::database::seed::DEFAULT_USERS)]
    pub(crate) users: u64,
    /// Stop after the baseline and the seed
    #[arg(long)]
    pub(crate) no_migrate: bool,
}

/// Flags of `db-status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Exit 3 unless every migration is applied and unedited
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How long to wait for locks.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Locks {
    /// How long one try may stand in a lock queue, and so hold up logins
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = server_timeout)]
    pub(crate) lock_timeout: Duration,
    /// How long to go on trying, for table locks and for another run to end
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lock_deadline)]
    pub(crate) lock_deadline: Duration,
    /// How long readers and writers may wait for locks that a statement holds, before it is
    /// cancelled and rolled back; `off` lets them wait
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = stall_budget)]
    pub(crate) stall_budget: StallBudget,
    /// Show the query of whoever is in the way (it may hold personal data)
    #[arg(long)]
    pub(crate) show_queries: bool,
    /// End what a killed run has left running on the server, instead of waiting for it
    #[arg(long)]
    pub(crate) end_orphans: bool,
}

/// How long others may wait for a lock that we hold; `None` for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StallBudget(pub(crate) Option<Duration>);

impl Default for Locks {
    fn default() -> Locks {
        Locks {
            lock_timeout: Duration::from_millis(100),
            lock_deadline: Duration::from_secs(600),
            stall_budget: StallBudget(Some(Duration::from_secs(1))),
            show_queries: false,
            end_orphans: false,
        }
    }
}

/// How a backup is proven.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proof {
    /// Restore it into a scratch table; compare row count and content with the table's.
    Restore,
    /// Compare its row count with the table's.
    Rows,
    /// Do not prove it.
    None,
}

/// How a backup is proven: always against the table in the dump's own snapshot.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ProofFlags {
    /// How a backup is proven before anything changes
    #[arg(long, value_name = "HOW", default_value = "restore")]
    pub(crate) proof: Proof,
    /// Above this size of the table, `restore` compares the row count only
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(crate) proof_limit: u64,
}

impl Proof {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proof::Restore => "restore",
            Proof::Rows => "rows",
            Proof::None => "none",
        }
    }
}

impl Default for ProofFlags {
    fn default() -> ProofFlags {
        ProofFlags {
            proof: Proof::Restore,
            proof_limit: 1 << 30,
        }
    }
}

impl ProofFlags {
    /// The proof for a table of this many bytes.
    pub(crate) fn of(self, bytes: u64) -> Proof {
        match self.proof {
            Proof::Restore if bytes > self.proof_limit => Proof::Rows,
            proof => proof,
        }
    }
}

/// Whether and how to back up.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct BackupFlags {
    /// Take no backup
    #[arg(long)]
    pub(crate) no_backup: bool,
    #[command(flatten)]
    pub(crate) proof: ProofFlags,
}

/// Where to report.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Reports {
    /// Write the summary to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Post the summary to this address as {"text": …} (Slack's shape); a failure only warns
    #[arg(long, value_name = "URL")]
    pub(crate) notify: Option<String>,
}

/// Flags of `db-migrate`.
#[derive(Args, Debug)]
pub(crate) struct Migrate {
    /// Apply up to and including this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<i64>,
    /// Print the plan and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Apply pending migrations that are older than the newest applied one
    #[arg(long)]
    pub(crate) allow_out_of_order: bool,
    #[command(flatten)]
    pub(crate) locks: Locks,
    #[command(flatten)]
    pub(crate) backup: BackupFlags,
    #[command(flatten)]
    pub(crate) reports: Reports,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-rollback`.
#[derive(Args, Debug)]
pub(crate) struct Rollback {
    /// Undo this many migrations
    #[arg(long, value_name = "N", conflicts_with_all = ["to", "all", "only"])]
    pub(crate) steps: Option<usize>,
    /// Undo everything after this version, which stays; 0 undoes a baseline that was run, too
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["all", "only"])]
    pub(crate) to: Option<i64>,
    /// Undo every migration after the baseline
    #[arg(long, conflicts_with = "only")]
    pub(crate) all: bool,
    /// Undo this migration and no other, even one that was recorded without being run; may be repeated
    #[arg(long, value_name = "VERSION")]
    pub(crate) only: Vec<i64>,
    /// Print the plan and what would be lost, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) locks: Locks,
    #[command(flatten)]
    pub(crate) backup: BackupFlags,
    #[command(flatten)]
    pub(crate) reports: Reports,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-redo`.
#[derive(Args, Debug)]
pub(crate) struct Redo {
    #[command(flatten)]
    pub(crate) locks: Locks,
    #[command(flatten)]
    pub(crate) backup: BackupFlags,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-verify`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Where standbys are attached, wait this long for each to replay the migration
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) wait_standbys: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-backup`.
#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// Tables to back up, schema-qualified or found through the search path
    #[arg(value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
    #[command(flatten)]
    pub(crate) proof: ProofFlags,
    /// Give up (exit 4) if a table is locked by somebody else for this long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lock_deadline)]
    pub(crate) lock_deadline: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-backups`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Backups {
    #[command(subcommand)]
    pub(crate) action: Option<BackupsAction>,
    /// Read each backup and compare its checksum; exit 3 if one is not what was written
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupsAction {
    /// Delete old backups, never one that alone holds a table's or column's values
    Prune(Prune),
}

/// Flags of `db-backups prune`.
#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// Delete backups that are at least this old
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(crate) older_than: Duration,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-restore`.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The backup, with its manifest `FILE.json` beside it
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Compare only, print the counts, write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take back this column only, of rows that are there; may be repeated
    #[arg(long = "column", value_name = "COLUMN")]
    pub(crate) columns: Vec<String>,
    /// Where a column's type has changed: what its values become, as SQL over the backup's columns; may
    /// be repeated
    #[arg(long, value_name = "COLUMN=EXPRESSION")]
    pub(crate) convert: Vec<String>,
    /// Restore a backup that was taken from another database
    #[arg(long)]
    pub(crate) force_other_database: bool,
    #[command(flatten)]
    pub(crate) locks: Locks,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `db-baseline`.
#[derive(Args, Debug)]
pub(crate) struct Baseline {
    /// Record every migration up to and including this version [default: those marked as baseline]
    #[arg(value_name = "VERSION")]
    pub(crate) version: Option<i64>,
    /// Compare only; record nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) locks: Locks,
}

/// Flags of `db-seed`.
#[derive(Args, Debug)]
pub(crate) struct Seed {
    /// How many users to add
    #[arg(long, value_name = "N", default_value_t = crate::database::seed::DEFAULT_USERS)]
    pub(crate) users: u64,
    /// Also stamp last_login_at on about two users of three, over the last 60 days
    #[arg(long)]
    pub(crate) logins: bool,
}

/// Flags of `db-psql`.
#[derive(Args, Debug)]
pub(crate) struct Psql {
    /// Passed on to psql
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub(crate) args: Vec<String>,
}

impl Command {
    /// How this command prints data.
    pub(crate) fn format(&self) -> Format {
        match self {
            Command::DbDoctor(output) => output.format,
            Command::DbBackups(flags) => match &flags.action {
                Some(BackupsAction::Prune(flags)) => flags.output.format,
                None => flags.output.format,
            },
            Command::DbRestore(flags) => flags.output.format,
            Command::DbStatus(flags) => flags.output.format,
            Command::DbMigrate(flags) => flags.output.format,
            Command::DbRollback(flags) => flags.output.format,
            Command::DbRedo(flags) => flags.output.format,
            Command::DbVerify(flags) => flags.output.format,
            Command::DbBackup(flags) => flags.output.format,
            Command::DbSetup(_)
            | Command::DbStart
            | Command::DbStop
            | Command::DbDestroy
            | Command::DbBaseline(_)
            | Command::DbSeed(_)
            | Command::DbPsql(_) => Format::Human,
        }
    }

    /// The name on the command line, for messages and for `application_name`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::DbSetup(_) => "db-setup",
            Command::DbStart => "db-start",
            Command::DbStop => "db-stop",
            Command::DbDestroy => "db-destroy",
            Command::DbDoctor(_) => "db-doctor",
            Command::DbStatus(_) => "db-status",
            Command::DbMigrate(_) => "db-migrate",
            Command::DbRollback(_) => "db-rollback",
            Command::DbRedo(_) => "db-redo",
            Command::DbVerify(_) => "db-verify",
            Command::DbBackup(_) => "db-backup",
            Command::DbBackups(_) => "db-backups",
            Command::DbRestore(_) => "db-restore",
            Command::DbBaseline(_) => "db-baseline",
            Command::DbSeed(_) => "db-seed",
            Command::DbPsql(_) => "db-psql",
        }
    }
}

/// Reads `100ms`, `10s`, `5m`, `2h` or `7d`; a bare number has no unit and is refused.
fn duration(text: &str) -> Result<Duration, String> {
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

/// Reads a duration that is a timeout of the server's: it counts milliseconds in 31 bits, and takes 0 for
/// "without end" (PostgreSQL manual, `lock_timeout`).
fn server_timeout(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
    match duration(text)? {
        Duration::ZERO => {
            Err("PostgreSQL takes 0 for \"wait without end\": name a time".to_owned())
        }
        time if time > LONGEST => Err("PostgreSQL takes 24 days at most".to_owned()),
        time => Ok(time),
    }
}

/// Reads a deadline of ours, which is a timeout of the server's for what a session waits for in one go.
fn lock_deadline(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it would be over before the first try: name a time".to_owned()),
        _ => server_timeout(text),
    }
}

/// Reads a duration, or `off`.
fn stall_budget(text: &str) -> Result<StallBudget, String> {
    match text {
        "off" => Ok(StallBudget(None)),
        _ => match duration(text)? {
            Duration::ZERO => Err("nothing could hold a lock for so long; to wait: off".to_owned()),
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

    #[test]
    fn the_command_surface_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
