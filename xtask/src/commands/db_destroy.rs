//! `db-destroy`: delete the private server and every database in it.

use private_server::Status;

use crate::Context;
use crate::config::DATABASE_URL;
use crate::dev::server;
use crate::error::{Failure, Result};
use crate::hint::Hint;

pub(crate) fn run(ctx: &Context) -> Result {
    let cluster = server::cluster(ctx)?;
    if cluster.status()? == Status::Absent {
        ctx.ui
            .status("Destroyed", "there is no private server here");
        return Ok(());
    }
    ctx.ui.info(
        "Will delete",
        format_args!(
            "every database of the private server on 127.0.0.1, `{}` among them, in {}",
            ctx.config.settings.database,
            cluster.folder().display()
        ),
    );
    ctx.ui.more("backups stay where they are");
    if !ctx.ui.confirm("Delete it?")? {
        return Err(Failure::failed("not deleted")
            .cause("the answer was no")
            .state("nothing was changed")
            .hint(Hint::run("db-stop"))
            .into());
    }
    // Read `.env` itself: DATABASE_URL in the environment may be another one.
    let written = match ctx.config.dot_env_value(DATABASE_URL)? {
        Some(url) if !url.is_empty() => server::is_private(ctx, &ctx.resolve(&url)?)?,
        _ => false,
    };
    server::destroy(ctx, cluster)?;
    if written {
        ctx.config.unset_dot_env(DATABASE_URL)?;
    }
    ctx.ui
        .status("Destroyed", "the private server (db-setup makes a new one)");
    Ok(())
}
