//! Whether a transaction-pooling proxy is in between.

use anyhow::Context as _;

use super::check::{Check, Found, Look, When};
use crate::Context;
use crate::database::{Database, connect, native_options, pooler};
use crate::error::Result;

/// Each connection is one session of the server. A run that writes is sure of it under its lock
/// (`database::lock`) and with its psql (`apply::session`); here nothing is locked.
pub(super) const POOLER: Check = Check {
    name: "pooler",
    before: &[When::DryRun],
    look: Look::Server(look),
};

fn look(ctx: &Context, db: &mut Database) -> Result<Found> {
    let Database { client, server } = db;
    let options = native_options(server.lock_wait);
    let mut other = connect::connect(&server.target, &ctx.application_name, &options)
        .map_err(|error| error.explained())
        .context("cannot open a second session, which every run does")?;
    match pooler::is_between(client, server, &mut other.client)? {
        true => Err(pooler::refusal().into()),
        false => Ok(Found::ok("none: a connection is a session of the server")),
    }
}
