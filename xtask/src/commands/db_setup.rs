//! `db-setup`: local development from nothing, up to a verified migration on seeded rows.

use clap::Args;
use pg_connect::ConnInfo;

use super::args::HistoryArgs;
use crate::Context;
use crate::config::{DEV_PASSWORD, Origin};
use crate::database::connect::ConnectProblem;
use crate::database::{LOCK_WAIT, catalog, history, lock};
use crate::dev::seed::SeedFile;
use crate::dev::server;
use crate::error::Result;
use crate::migration::quote::quote_identifier;
use crate::migration::source::Folder;
use crate::options::{BackupOptions, Locks, Reports, RunOptions};
use crate::runbook;

/// Arguments of `db-setup`.
#[derive(Args, Debug)]
pub struct Setup {
    /// How many development users to seed into a database that this command creates
    #[arg(long, value_name = "N", default_value_t = crate::dev::seed::DEFAULT_ROWS)]
    users: u64,
    /// Stop after the baseline and the seed
    #[arg(long)]
    no_migrate: bool,
    #[command(flatten)]
    history: HistoryArgs,
}

pub(crate) fn run(ctx: &mut Context, flags: &Setup) -> Result {
    let folder = flags.history.folder(ctx)?;
    let private = is_private_wanted(ctx)?;
    let target = if private {
        let server = server::ensure_running(ctx)?;
        server.with_dbname(ctx.target()?.0.dbname())
    } else {
        ctx.target()?.0
    };
    let created = ensure_database(ctx, &target)?;

    let options = RunOptions {
        locks: Locks::default(),
        backup: BackupOptions::default(),
        dry_run: false,
        reports: Reports::default(),
    };
    if let Some(version) = newest_baseline(&folder) {
        let mut db = ctx.connect()?;
        // Another db-setup of this workspace may run, and do some of this while this one waits.
        lock::acquire(&mut db, options.locks, &ctx.ui)?;
        let applied = history::read(&mut db)?.applied;
        if applied.iter().all(|row| row.version < version) {
            runbook::migrate(ctx, &folder, db, Some(version), false, &options)?;
        }
    }
    // A database that existed before gets no invented users.
    if private || created {
        seed_if_empty(ctx, flags.users)?;
    }
    if !flags.no_migrate {
        runbook::migrate(ctx, &folder, ctx.connect()?, None, false, &options)?;
    }
    ctx.ui.data(format_args!("\n{}", farewell(ctx, private)?));
    Ok(())
}

/// Whether no database is configured, or only the one that an earlier `db-setup` wrote into `.env`, whose
/// server's folder may have been removed by hand.
fn is_private_wanted(ctx: &Context) -> Result<bool> {
    let (target, origin) = match ctx.target() {
        Err(_) if ctx.config.database_url()?.is_none() => return Ok(true),
        configured => configured?,
    };
    if server::is_private(ctx, &target)? {
        return Ok(true);
    }
    // A copied `.env` may name another workspace's server. If that server answers, it is not ours.
    let refused = || {
        let answer = ctx.connect_to(&target, LOCK_WAIT);
        answer.is_err_and(|error| error.problem == ConnectProblem::Refused)
    };
    Ok(origin == Origin::DotEnv && server::is_orphaned(ctx, &target)? && refused())
}

/// Creates the database if it does not exist. Returns whether it did.
fn ensure_database(ctx: &Context, target: &ConnInfo) -> Result<bool> {
    match ctx.connect_to(target, LOCK_WAIT) {
        Ok(_) => Ok(false),
        Err(error) if error.problem == ConnectProblem::NoSuchDatabase => {
            create_database(ctx, target)?;
            Ok(true)
        }
        Err(error) => Err(error.explained().into()),
    }
}

fn create_database(ctx: &Context, target: &ConnInfo) -> Result {
    let name = target.dbname().to_owned();
    let mut maintenance = ctx
        .connect_to(&target.with_dbname("postgres"), LOCK_WAIT)
        .map_err(|error| error.explained())?;
    let created = maintenance
        .client
        .batch_execute(&format!("CREATE DATABASE {}", quote_identifier(&name)));
    match created {
        Ok(()) => {
            ctx.ui.status("Created", format_args!("database `{name}`"));
            Ok(())
        }
        // Another db-setup was faster: 42P04 duplicate_database, or 23505 in the catalog itself.
        Err(error)
            if error
                .code()
                .is_some_and(|code| matches!(code.code(), "42P04" | "23505")) =>
        {
            Ok(())
        }
        Err(error) => {
            Err(anyhow::Error::from(error).context(format!("cannot create database `{name}`")))
        }
    }
}

fn newest_baseline(folder: &Folder) -> Option<i64> {
    let baselines = folder
        .migrations
        .iter()
        .filter(|migration| migration.is_baseline());
    baselines.map(|migration| migration.version).max()
}

/// Seeds a database that has no row of its own yet.
fn seed_if_empty(ctx: &Context, rows: u64) -> Result {
    let Some(file) = SeedFile::read(&ctx.config)? else {
        return Ok(());
    };
    let mut db = ctx.connect()?;
    // Another db-setup of this workspace may have found no row either.
    let lock = lock::acquire(&mut db, Locks::default(), &ctx.ui)?;
    if let Some(table) = catalog::table_with_rows(&mut db.client)? {
        ctx.ui
            .detail(format_args!("not seeded: `{table}` has rows"));
        return Ok(());
    }
    file.run(ctx, &mut db, &lock.session_options, rows, false)
}

fn farewell(ctx: &Context, private: bool) -> Result<String> {
    let program = &ctx.ui.invocation.program;
    let mut lines = vec![
        "Ready. What to try next:".to_owned(),
        format!("  {program} db-status       what is applied"),
        format!(
            "  {program} db-rollback     the way back; {program} db-migrate goes forward again"
        ),
        format!("  {program} db-psql         look around"),
    ];
    if let Some(file) = SeedFile::read(&ctx.config)? {
        lines.extend(file.next().map(|line| format!("  {line}")));
    }
    if private && ctx.config.dot_env_value(DEV_PASSWORD)?.is_none() {
        lines.push(format!(
            "The users' password ({DEV_PASSWORD}) was in an earlier .env. New users with a new one: {program} db-destroy, then {program} db-setup"
        ));
    }
    Ok(lines.join("\n"))
}
