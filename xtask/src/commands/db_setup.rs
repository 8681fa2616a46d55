//! `db-setup`: local development from nothing, up to a verified migration on seeded rows.

use crate::Context;
use crate::config::{DEV_PASSWORD, Origin};
use crate::database::connect::ConnectProblem;
use crate::database::history::quote_identifier;
use crate::database::{catalog, history, lock, seed};
use crate::error::Result;
use crate::flags::{BackupFlags, Locks, Reports, Setup};
use crate::migration::effects::ObjectName;
use crate::migration::source::Folder;
use crate::runbook::{self, Options, failures};
use crate::server;
use pg_connect::ConnInfo;

pub(crate) fn run(ctx: &mut Context, flags: &Setup) -> Result {
    let folder = ctx.folder()?;
    let private = is_private_wanted(ctx)?;
    let target = if private {
        let server = server::provide(ctx)?;
        server.with_dbname(ctx.target()?.0.dbname())
    } else {
        ctx.target()?.0
    };
    let created = ensure_database(ctx, &target)?;

    let reports = Reports::default();
    let options = Options {
        locks: Locks::default(),
        backup: BackupFlags::default(),
        dry_run: false,
        reports: &reports,
    };
    if let Some(version) = newest_baseline(&folder) {
        let mut db = ctx.connect()?;
        // Another db-setup of this workspace may be at it, and go further while this one waits.
        lock::acquire(&mut db, options.locks, &ctx.ui, "cargo xtask db-migrate")?;
        let applied = history::read(&mut db)?;
        if applied.iter().all(|row| row.version < version) {
            runbook::migrate(ctx, &folder, db, Some(version), false, &options)?;
        }
    }
    // Somebody's own database gets no invented users.
    if private || created {
        seed_if_empty(ctx, flags.users)?;
    }
    if !flags.no_migrate {
        runbook::migrate(ctx, &folder, ctx.connect()?, None, false, &options)?;
    }
    ctx.ui.data(format_args!("\n{}", farewell(ctx, private)?));
    Ok(())
}

/// Nothing configured, or what an earlier `db-setup` configured, whether its server is still there
/// or its folder was removed by hand.
fn is_private_wanted(ctx: &Context) -> Result<bool> {
    let (target, origin) = match ctx.target() {
        Err(_) if ctx.config.database_url()?.is_none() => return Ok(true),
        configured => configured?,
    };
    if server::is_private(ctx, &target)? {
        return Ok(true);
    }
    // A copied `.env` may name another workspace's server, which then answers.
    let refused = || {
        let answer = ctx.connect_to(&target);
        answer.is_err_and(|error| error.problem == ConnectProblem::Refused)
    };
    Ok(origin == Origin::DotEnv && server::is_orphaned(ctx, &target)? && refused())
}

/// Creates the database if it does not exist. Returns whether it did.
fn ensure_database(ctx: &Context, target: &ConnInfo) -> Result<bool> {
    match ctx.connect_to(target) {
        Ok(_) => Ok(false),
        Err(error) if error.problem == ConnectProblem::NoSuchDatabase => {
            create_database(ctx, target)?;
            Ok(true)
        }
        Err(error) => Err(failures::connect_failure(&error).into()),
    }
}

fn create_database(ctx: &Context, target: &ConnInfo) -> Result {
    let name = target.dbname().to_owned();
    let mut maintenance = ctx
        .connect_to(&target.with_dbname("postgres"))
        .map_err(|error| failures::connect_failure(&error))?;
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

fn seed_if_empty(ctx: &Context, users: u64) -> Result {
    let mut db = ctx.connect()?;
    // Another db-setup of this workspace may have found no users either.
    lock::acquire(&mut db, Locks::default(), &ctx.ui, "cargo xtask db-migrate")?;
    let table = ObjectName {
        schema: None,
        name: "users".to_owned(),
    };
    let Some(relation) = catalog::find(&mut db, &table)? else {
        return Ok(());
    };
    let (present, _) = catalog::count_values(&mut db, &relation.qualified(), None)?;
    if present > 0 {
        return Ok(());
    }
    let password = seed::development_password(&ctx.config)?;
    let seeding = seed::Seeding {
        users,
        logins: false,
        password: &password,
    };
    seed::run(&mut db, &ctx.ui, &seeding)
}

fn farewell(ctx: &Context, private: bool) -> Result<String> {
    let mut lines = vec![
        "Ready. What to try next:".to_owned(),
        "  cargo xtask db-status       what is applied".to_owned(),
        "  cargo xtask db-rollback     the way back; cargo xtask db-migrate goes forward again"
            .to_owned(),
        "  cargo xtask db-psql         look around".to_owned(),
        "  cargo run -p app            the application, on http://127.0.0.1:3000".to_owned(),
    ];
    if ctx.config.dot_env_value(DEV_PASSWORD)?.is_some() {
        lines.push(format!(
            "Sign in as {} with the password in .env ({DEV_PASSWORD}).",
            seed::ADMIN_EMAIL
        ));
    } else if private {
        lines.push(format!(
            "The users' password ({DEV_PASSWORD}) was in an earlier .env. New users with a new one: cargo xtask db-destroy, then cargo xtask db-setup"
        ));
    }
    Ok(lines.join("\n"))
}
