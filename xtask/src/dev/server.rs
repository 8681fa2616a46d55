//! The private development server: `private-server`'s cluster in this workspace, and its place in
//! `.env`.

use std::path::Path;
use std::time::Duration;

use private_server::{Cluster, NewCluster, Platform, Status};

use crate::Context;
use crate::config::DATABASE_URL;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::tools;
use pg_connect::ConnInfo;

/// The superuser of the private server, as in the guide that this replaces.
const SUPERUSER: &str = "admin";
/// The only address that it listens on.
const HOST: &str = "127.0.0.1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The workspace's cluster, whether or not it exists.
///
/// # Errors
/// If root finds no account to run a server under.
pub(crate) fn cluster(ctx: &Context) -> Result<Cluster> {
    Cluster::at(&ctx.config.server_home())
}

/// Makes the cluster if there is none, starts it if it does not run, and writes its address to
/// `.env`. Returns the address.
///
/// # Errors
/// If PostgreSQL is not installed and is not to be, or the server does not start.
pub(crate) fn ensure_running(ctx: &mut Context) -> Result<ConnInfo> {
    if ctx.tools().server().is_err() {
        install(ctx)?;
    }
    let cluster = cluster(ctx)?;
    let installation = ctx.tools().server()?;
    let new = NewCluster {
        superuser: SUPERUSER,
        settings: &[],
        throwaway: false,
    };
    if cluster.status()? == Status::Absent {
        ctx.ui.info(
            "Creating",
            format_args!(
                "a private PostgreSQL {} server in {}",
                installation.version()?,
                ctx.config.shown(cluster.folder()).display()
            ),
        );
    }
    cluster.create(installation, &new)?;
    ignore(&ctx.config.server_home())?;
    start(ctx, &cluster)
}

/// Deletes the cluster and all that belongs to it.
///
/// # Errors
/// If it does not stop, or cannot be deleted.
pub(crate) fn destroy(ctx: &Context, cluster: Cluster) -> Result {
    // Not there where the cluster lies elsewhere.
    let _ = std::fs::remove_file(ctx.config.server_home().join(".gitignore"));
    cluster.destroy()
}

/// Keeps git away from the server's home, which holds a password. For root it lies elsewhere.
fn ignore(home: &Path) -> Result {
    if home.is_dir() {
        std::fs::write(home.join(".gitignore"), "*\n")?;
    }
    Ok(())
}

/// Starts the cluster, if need be, and writes its address to `.env`.
///
/// # Errors
/// If there is no cluster, or it does not start.
pub(crate) fn start(ctx: &Context, cluster: &Cluster) -> Result<ConnInfo> {
    let was_running = match cluster.status()? {
        Status::Absent => {
            return Err(Failure::failed("there is no private server here")
                .hint(Hint::run("db-setup"))
                .into());
        }
        Status::Stopped => false,
        Status::Running { .. } => true,
    };
    let port = cluster.start(ctx.tools().installations())?;
    let url = url(ctx, port, &cluster.password()?);
    if ctx.config.dot_env_value(DATABASE_URL)?.as_deref() != Some(&url) {
        ctx.config.set_dot_env(DATABASE_URL, &url)?;
    }
    let verb = if was_running { "Running" } else { "Started" };
    ctx.ui.status(
        verb,
        format_args!("private server on {HOST}:{port} (its address is in .env)"),
    );
    let target = ctx.resolve(&url)?;
    Ok(ctx.private_server.get_or_init(|| target).clone())
}

/// Whether an address is that of the private server: this machine, its superuser and its password.
/// The port does not count: an address that was exported earlier may have that of an earlier run.
///
/// # Errors
/// If the cluster belongs to another user.
pub(crate) fn is_private(ctx: &Context, target: &ConnInfo) -> Result<bool> {
    if !names_superuser_here(target) || !has_home(ctx) {
        return Ok(false);
    }
    let Some(cluster) = Cluster::find(&ctx.config.server_home())? else {
        return Ok(false);
    };
    Ok(password(target) == Some(cluster.password()?))
}

/// Whether an address has the form of those that [`start`] writes, and there is no cluster: its
/// folder was removed by hand.
///
/// # Errors
/// If the cluster belongs to another user.
pub(crate) fn is_orphaned(ctx: &Context, target: &ConnInfo) -> Result<bool> {
    let generated = |password: &str| {
        password.len() == 32 && password.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    Ok(names_superuser_here(target)
        && target.dbname() == ctx.config.settings.database
        && password(target).is_some_and(|password| generated(&password))
        && Cluster::find(&ctx.config.server_home())?.is_none())
}

fn names_superuser_here(target: &ConnInfo) -> bool {
    matches!(target.hosts(), [host] if host.name == HOST) && target.user() == SUPERUSER
}

fn password(target: &ConnInfo) -> Option<String> {
    target
        .password()
        .map(|(password, _)| password.expose().to_owned())
}

/// How to reach an address: where the private server is meant, where it runs by now, and without
/// much patience. It answers at once; whoever has taken its port may never.
///
/// # Errors
/// If the cluster belongs to another user.
pub(crate) fn effective_target(ctx: &Context, mut target: ConnInfo) -> Result<ConnInfo> {
    if !is_private(ctx, &target)? {
        return Ok(target);
    }
    if let Some(running) = ctx.private_server.get() {
        return Ok(running.with_dbname(target.dbname()));
    }
    target.connect_timeout = Some(CONNECT_TIMEOUT);
    Ok(target)
}

/// The private server, where one runs beside the server that is meant: its maintenance database.
///
/// # Errors
/// If the cluster belongs to another user.
pub(crate) fn private_target(ctx: &Context, target: &ConnInfo) -> Result<Option<ConnInfo>> {
    if !has_home(ctx) || is_private(ctx, target)? {
        return Ok(None);
    }
    let Some(cluster) = Cluster::find(&ctx.config.server_home())? else {
        return Ok(None);
    };
    let Status::Running { port, .. } = cluster.status()? else {
        return Ok(None);
    };
    let url = url(ctx, port, &cluster.password()?);
    Ok(Some(ctx.resolve(&url)?.with_dbname("postgres")))
}

fn has_home(ctx: &Context) -> bool {
    let home = ctx.config.server_home();
    home.parent().is_some_and(std::path::Path::exists)
}

fn url(ctx: &Context, port: u16, password: &str) -> String {
    let database = &ctx.config.settings.database;
    format!("postgresql://{SUPERUSER}:{password}@{HOST}:{port}/{database}")
}

/// After a failed connection: if the private server was meant, and does not run or runs on another
/// port, starts it and returns its address.
///
/// # Errors
/// If it does not start.
pub(crate) fn start_for(ctx: &Context, target: &ConnInfo) -> Result<Option<ConnInfo>> {
    if !is_private(ctx, target)? {
        return Ok(None);
    }
    let cluster = cluster(ctx)?;
    let meant = target.hosts()[0].port;
    if matches!(cluster.status()?, Status::Running { port, .. } if port == meant) {
        return Ok(None);
    }
    let now = start(ctx, &cluster)?;
    Ok(Some(now.with_dbname(target.dbname())))
}

/// Runs the platform's install command after a yes.
fn install(ctx: &mut Context) -> Result {
    let commands = Platform::detect().install_commands();
    let shown: Vec<String> = commands.iter().map(ToString::to_string).collect();
    let shown = shown.join(" && ");
    let missing = || {
        Failure::failed("PostgreSQL is not installed").cause(
            "no `initdb`, `pg_ctl` and `postgres` on PATH or in this platform's usual places",
        )
    };
    if commands.is_empty() || ctx.config.pg_bin_dir().is_some() {
        return Err(missing()
            .hint(Hint::to("install PostgreSQL 14 or newer, then", "db-setup"))
            .into());
    }
    ctx.ui.info("Missing", "PostgreSQL is not installed");
    ctx.ui.command(&shown);
    let agreed = ctx
        .ui
        .confirm("Install PostgreSQL with this command?")
        .map_err(|error| failures::from_error(&error).hint(format!("or by yourself: {shown}")))?;
    if !agreed {
        return Err(missing()
            .hint(Hint::to(format!("{shown}, then"), "db-setup"))
            .into());
    }
    for command in &commands {
        tools::run_platform_command(command)?;
    }
    ctx.forget_tools();
    Ok(())
}
