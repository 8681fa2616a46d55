//! `db-start`: the private server, started.

use crate::Context;
use crate::error::Result;
use crate::server;

pub(crate) fn run(ctx: &Context) -> Result {
    server::start(ctx, &server::cluster(ctx)?)?;
    Ok(())
}
