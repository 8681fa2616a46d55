//! `db-psql`: psql on the configured database.

use std::process::ExitStatus;

use crate::Context;
use crate::error::{Failure, Result};
use crate::flags::Psql;
use crate::tools::psql;

pub(crate) fn run(ctx: &Context, flags: &Psql) -> Result {
    // Connecting first starts a stopped private server, and says what is wrong better than psql.
    let db = ctx.connect()?;
    let status = psql::interactive(&ctx.tools().psql()?, &db.target, &flags.args)?;
    if status.success() {
        return Ok(());
    }
    Err(failure(status).into())
}

fn failure(status: ExitStatus) -> Failure {
    Failure::failed(format!("psql ended with {status}")).hint("cargo xtask db-psql")
}
