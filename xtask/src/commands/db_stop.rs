//! `db-stop`: stop the private server; its data stays.

use private_server::{Status, Stop};

use crate::Context;
use crate::dev::server;
use crate::error::{Failure, Result};
use crate::hint::Hint;

pub(crate) fn run(ctx: &Context) -> Result {
    let cluster = server::cluster(ctx)?;
    match cluster.status()? {
        Status::Absent => Err(Failure::failed("there is no private server here")
            .hint(Hint::run("db-setup"))
            .into()),
        Status::Stopped => {
            ctx.ui
                .status("Stopped", "the private server was not running");
            Ok(())
        }
        Status::Running { port, .. } => {
            cluster.stop(Stop::Fast)?;
            ctx.ui.status(
                "Stopped",
                format_args!(
                    "private server on 127.0.0.1:{port}; its data stays (db-start starts it)"
                ),
            );
            Ok(())
        }
    }
}
