//! `db-psql`: psql on the configured database.

use std::process::ExitStatus;

use clap::Args;

use crate::Context;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::tools::psql;

/// Arguments of `db-psql`.
#[derive(Args, Debug)]
pub struct Psql {
    /// Arguments for psql
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    args: Vec<String>,
}

pub(crate) fn run(ctx: &Context, flags: &Psql) -> Result {
    // Connect first: this starts a stopped private server, and its errors are clearer than psql's.
    let db = ctx.connect()?;
    let status = psql::interactive(&ctx.tools().psql()?, &db.server.target, &flags.args)?;
    if status.success() {
        return Ok(());
    }
    Err(failure(status).into())
}

fn failure(status: ExitStatus) -> Failure {
    Failure::failed(format!("psql ended with {status}")).hint(Hint::run("db-psql"))
}
