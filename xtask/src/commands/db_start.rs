//! `db-start`: start the private server.

use crate::Context;
use crate::dev::server;
use crate::error::Result;

pub(crate) fn run(ctx: &Context) -> Result {
    server::start(ctx, &server::cluster(ctx)?)?;
    Ok(())
}
