//! The command line: one file per command, with its arguments and its `run`. A command calls the other
//! modules of this crate and imports no other command. Only this folder uses clap. The doc comments of
//! arguments are the text of `--help`.

mod args;
mod db_backup;
mod db_backups;
mod db_baseline;
mod db_completions;
mod db_destroy;
mod db_doctor;
mod db_man;
mod db_migrate;
mod db_new;
mod db_psql;
mod db_redo;
mod db_repair;
mod db_restore;
mod db_rollback;
mod db_seed;
mod db_setup;
mod db_start;
mod db_status;
mod db_stop;
mod db_verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::Context;
use crate::error::Result;
use crate::options::{self, Format, Locations};

/// Change the schema of a busy PostgreSQL table, and undo the change, without fear.
///
/// A migration is a plain SQL file in `migrations/`, in sqlx's format. `db-migrate` checks the
/// preconditions, backs up tables, applies the pending migrations, verifies the result, and lists what
/// is left to do. `db-rollback` undoes them. Every command names the database that it uses.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    max_term_width = 100
)]
#[command(after_help = "Start here:
  cargo xtask db-setup      create a private server and a database, seed and migrate it
  cargo xtask db-status     show what is applied and what is pending
  cargo xtask db-migrate    preflight, backup, apply, verify, report
  cargo xtask db-rollback   undo the last run

The database is the one of --database-url; without it, of DATABASE_URL in the environment; without
that, of DATABASE_URL in `.env` at the workspace root.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The database, as a URL or a libpq key=value string [default: DATABASE_URL, then .env]
    // The value may hold a password, so clap must never print it in help or errors.
    #[arg(long, global = true, value_name = "URL", hide_default_value = true)]
    pub(crate) database_url: Option<String>,
    /// Folder with the migrations [default: migrations at the workspace root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) migrations: Option<PathBuf>,
    /// Folder for backups [default: backups at the workspace root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) backups: Option<PathBuf>,
    /// Print only data, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Also print each check that passed, and the server's notices
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
    /// The flags for database and folders that were given. Hints repeat them, so that a pasted command
    /// uses the same database and folders.
    pub(crate) fn named_locations(&self) -> Vec<(&'static str, String)> {
        let folder = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let flags = [
            ("--database-url", self.database_url.clone()),
            ("--migrations", folder(&self.migrations)),
            ("--backups", folder(&self.backups)),
        ];
        let given = flags.into_iter();
        given
            .filter_map(|(flag, value)| Some((flag, value?)))
            .collect()
    }

    pub(crate) fn locations(&self) -> Locations {
        Locations {
            database_url: self.database_url.clone(),
            migrations: self.migrations.clone(),
            backups: self.backups.clone(),
        }
    }

    pub(crate) fn color(&self) -> options::Color {
        match self.color {
            Color::Auto => options::Color::Auto,
            Color::Always => options::Color::Always,
            Color::Never => options::Color::Never,
        }
    }
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe.
    Always,
    /// Never.
    Never,
}

/// The commands: a [`clap::Subcommand`] for a program of your own.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Command {
    /// Set up local development: private server, database, seed, then everything that db-migrate does
    ///
    /// Finds PostgreSQL; if it is not installed, shows the install command and asks before running it.
    /// Then creates and starts a private server in the workspace, creates a database, writes `.env`,
    /// applies the baseline, seeds users, and migrates as db-migrate does. If you run it again, it does
    /// only what is still missing. If DATABASE_URL is set, it sets up that database instead.
    #[command(after_help = "Examples:
  cargo xtask db-setup
  cargo xtask db-setup --users 50000 --no-migrate
  cargo xtask db-setup --yes              install PostgreSQL without asking, if it is missing")]
    DbSetup(db_setup::Setup),
    /// Start the private server
    #[command(after_help = "Example:\n  cargo xtask db-start")]
    DbStart,
    /// Stop the private server; its data stays
    #[command(after_help = "Example:\n  cargo xtask db-stop")]
    DbStop,
    /// Delete the private server and every database in it
    #[command(after_help = "Example:\n  cargo xtask db-destroy --yes")]
    DbDestroy,
    /// Check every precondition, and show a remedy for each that fails (exit 3 if one fails)
    #[command(after_help = "Examples:
  cargo xtask db-doctor
  cargo xtask db-doctor --format json | jq '.checks[] | select(.status != \"ok\")'")]
    DbDoctor(db_doctor::Doctor),
    /// Show what is applied, pending, missing or divergent
    #[command(after_help = "Examples:
  cargo xtask db-status
  cargo xtask db-status --check           exit 3 unless every migration is applied and unedited
  cargo xtask db-status --format json | jq .pending")]
    DbStatus(db_status::Status),
    /// Apply pending migrations: preflight, backup, apply, verify, report
    #[command(after_help = "Examples:
  cargo xtask db-migrate --dry-run        print the plan, write nothing
  cargo xtask db-migrate
  cargo xtask db-migrate --report migration.md --notify \"$SLACK_WEBHOOK\"

A statement that needs a strong lock waits for it for 100 ms at most, so logins never queue behind it
for longer. If it does not get the lock, it leaves the queue, waits until the blocking sessions have
ended, and tries again, up to --lock-deadline.")]
    DbMigrate(db_migrate::Migrate),
    /// Undo the last run: show what will be lost, back it up, run the down files
    #[command(after_help = "Examples:
  cargo xtask db-rollback --dry-run
  cargo xtask db-rollback                 undo the last run
  cargo xtask db-rollback --steps 1       undo the last migration
  cargo xtask db-rollback --to 20251201000000   undo everything after this version
  cargo xtask db-rollback --to 0          undo everything, including a baseline that was run
  cargo xtask db-rollback --only 20251231143100   undo this migration only

A baseline is not undone, except with --to 0. A migration that was recorded without being run
(db-baseline) is undone only by --only.")]
    DbRollback(db_rollback::Rollback),
    /// Roll back the last run and apply it again (development)
    #[command(after_help = "Example:\n  cargo xtask db-redo --yes")]
    DbRedo(db_redo::Redo),
    /// Run every verify file, check indexes and checksums (exit 3 if a check fails)
    #[command(after_help = "Examples:
  cargo xtask db-verify
  cargo xtask db-verify --wait-standbys 60s")]
    DbVerify(db_verify::Verify),
    /// Back up tables [default: those that pending migrations name; if none, those that any migration names]
    #[command(after_help = "Examples:
  cargo xtask db-backup
  cargo xtask db-backup users sessions")]
    DbBackup(db_backup::Backup),
    /// List backups with their age, rows, size and proof; `prune` deletes old ones
    #[command(after_help = "Examples:
  cargo xtask db-backups
  cargo xtask db-backups --check          read each backup and compare its checksum (exit 3 if one differs)
  cargo xtask db-backups prune --dry-run
  cargo xtask db-backups prune --older-than 7d
  cargo xtask db-backups --format json | jq '.backups[0].file'")]
    DbBackups(db_backups::Backups),
    /// Merge a backup into its table: insert missing rows, update different rows, delete none
    #[command(after_help = "Examples:
  cargo xtask db-restore backups/users_backup_20260101_120000.sql --dry-run     print the counts
  cargo xtask db-restore backups/users_backup_20260101_120000.sql
  cargo xtask db-restore FILE --column last_login_at     only this column, of rows that exist
  cargo xtask db-restore FILE FILE                       tables that refer to each other

Everything is restored in one transaction. No row is deleted, readers are not blocked, and sequences
only move forward.")]
    DbRestore(db_restore::Restore),
    /// Adopt an existing database: compare the baseline with it, then record it without running it
    #[command(after_help = "Examples:
  cargo xtask db-baseline --dry-run       compare, record nothing
  cargo xtask db-baseline                 compare, then record the migrations marked as baseline
  cargo xtask db-baseline 20251201000000  record everything up to this version")]
    DbBaseline(db_baseline::Baseline),
    /// Write the files of a new migration: up, down and verify
    ///
    /// Each change has the form that does not keep readers and writers waiting; where that takes two
    /// transactions, it is two migrations. The version is the time now, or follows the newest one. No database
    /// is needed, and no file is overwritten.
    #[command(after_help = "Examples:
  cargo xtask db-new add_users_last_login_at --column users.last_login_at:timestamptz
  cargo xtask db-new index_users_last_login_at --index 'users(last_login_at DESC NULLS LAST)'
  cargo xtask db-new index_tags --index 'posts USING gin(tags) WHERE published' --as posts_tags
  cargo xtask db-new unique_orders --unique 'orders(user_id, number)'
  cargo xtask db-new check_numbers --constraint 'orders CHECK (number > 0)'
  cargo xtask db-new reference_users --foreign-key 'orders(user_id) REFERENCES users(id)'
  cargo xtask db-new add_locale --column users.locale:text
  cargo xtask db-new require_number --not-null orders.number
  cargo xtask db-new add_phone --column users.phone:text --against origin/main
  cargo xtask db-new move_totals          files to be written by hand; they do not run as they are

--against also reads the migrations of another branch: the new version is greater than theirs, and a
version that both have under different names is named.")]
    DbNew(db_new::New),
    /// Applied files that were edited: show what changed, and record it if it is the same SQL
    ///
    /// What was applied is found in git by the checksum in the history. If the file now differs only in
    /// comments, white space, line ends or the case of unquoted words, its new checksum can be recorded. Any
    /// other difference is shown and refused (exit 3), as are files that are gone, with the command that
    /// brings back what was applied. A first line `-- no-transaction` and `-- xtask:` lines are no comments.
    #[command(after_help = "Examples:
  cargo xtask db-repair --dry-run         show what changed, record nothing
  cargo xtask db-repair                   show what changed, ask, record
  cargo xtask db-repair 20251231143000 --yes
  cargo xtask db-repair --dry-run --format json | jq '.refused[].why'")]
    DbRepair(db_repair::Repair),
    /// Add development users, by the seed file
    #[command(after_help = "Examples:
  cargo xtask db-seed                     1,200 users
  cargo xtask db-seed --users 1000000     a large table to test a migration on
  cargo xtask db-seed --logins            also stamp last_login_at on some of them")]
    DbSeed(db_seed::Seed),
    /// Open psql on the configured database
    #[command(after_help = "Examples:
  cargo xtask db-psql
  cargo xtask db-psql -- -c '\\d users'")]
    DbPsql(db_psql::Psql),
    /// Print a shell completion script
    #[command(after_help = "Examples:
  cargo xtask db-completions bash >> ~/.bashrc
  cargo xtask db-completions zsh > ~/.zfunc/_cargo-xtask      a folder in $fpath
  cargo xtask db-completions fish > ~/.config/fish/conf.d/cargo-xtask.fish

It completes the program that the setting `command` names. If that is an alias of cargo, cargo's own
completion keeps working.")]
    DbCompletions(db_completions::Completions),
    /// Write a man page for each command
    #[command(after_help = "Example:
  cargo xtask db-man && man target/man/cargo-xtask-db-migrate.1")]
    DbMan(db_man::Man),
}

impl Command {
    /// The output format of this command.
    pub(crate) fn format(&self) -> Format {
        let output = match self {
            Command::DbDoctor(flags) => &flags.output,
            Command::DbBackups(flags) => flags.output(),
            Command::DbRestore(flags) => &flags.output,
            Command::DbStatus(flags) => &flags.output,
            Command::DbMigrate(flags) => &flags.run.output,
            Command::DbRollback(flags) => &flags.run.output,
            Command::DbRedo(flags) => &flags.output,
            Command::DbVerify(flags) => &flags.output,
            Command::DbRepair(flags) => &flags.output,
            Command::DbBackup(flags) => &flags.output,
            Command::DbNew(flags) => &flags.output,
            Command::DbSetup(_)
            | Command::DbStart
            | Command::DbStop
            | Command::DbDestroy
            | Command::DbBaseline(_)
            | Command::DbSeed(_)
            | Command::DbPsql(_)
            | Command::DbCompletions(_)
            | Command::DbMan(_) => return Format::Human,
        };
        output.format()
    }

    /// Runs it.
    pub(crate) fn run(&self, ctx: &mut Context) -> Result {
        match self {
            Command::DbSetup(flags) => db_setup::run(ctx, flags),
            Command::DbStart => db_start::run(ctx),
            Command::DbStop => db_stop::run(ctx),
            Command::DbDestroy => db_destroy::run(ctx),
            Command::DbDoctor(flags) => db_doctor::run(ctx, flags),
            Command::DbStatus(flags) => db_status::run(ctx, flags),
            Command::DbMigrate(flags) => db_migrate::run(ctx, flags),
            Command::DbRollback(flags) => db_rollback::run(ctx, flags),
            Command::DbRedo(flags) => db_redo::run(ctx, flags),
            Command::DbVerify(flags) => db_verify::run(ctx, flags),
            Command::DbBackup(flags) => db_backup::run(ctx, flags),
            Command::DbBackups(flags) => db_backups::run(ctx, flags),
            Command::DbRestore(flags) => db_restore::run(ctx, flags),
            Command::DbBaseline(flags) => db_baseline::run(ctx, flags),
            Command::DbNew(flags) => db_new::run(ctx, flags),
            Command::DbRepair(flags) => db_repair::run(ctx, flags),
            Command::DbSeed(flags) => db_seed::run(ctx, flags),
            Command::DbPsql(flags) => db_psql::run(ctx, flags),
            Command::DbCompletions(flags) => db_completions::run(ctx, flags),
            Command::DbMan(flags) => db_man::run(ctx, flags),
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
            Command::DbNew(_) => "db-new",
            Command::DbRepair(_) => "db-repair",
            Command::DbSeed(_) => "db-seed",
            Command::DbPsql(_) => "db-psql",
            Command::DbCompletions(_) => "db-completions",
            Command::DbMan(_) => "db-man",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_surface_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
