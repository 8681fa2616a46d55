//! `db-seed`: more development users.

use std::net::IpAddr;

use clap::Args;

use crate::Context;
use crate::database::SESSION_OPTIONS;
use crate::dev::seed::{self, SeedFile};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::ui;

/// Arguments of `db-seed`.
#[derive(Args, Debug)]
pub struct Seed {
    /// How many rows the seed file should add
    #[arg(long, alias = "rows", value_name = "N", default_value_t = crate::dev::seed::DEFAULT_ROWS)]
    users: u64,
    /// Also set last_login_at for about two thirds of the users, within the last 60 days
    #[arg(long)]
    logins: bool,
}

pub(crate) fn run(ctx: &Context, flags: &Seed) -> Result {
    let Some(file) = SeedFile::read(&ctx.config)? else {
        return Err(seed::missing(&ctx.config.seed()).into());
    };
    let mut db = ctx.connect()?;
    if !is_local(&db.server.host) {
        let question = format!(
            "Add {} to {}, which is not on this machine?",
            ui::plural(flags.users, "invented row"),
            db.server
        );
        if !ctx.ui.confirm(&question)? {
            return Err(Failure::failed("not seeded")
                .cause("the answer was no")
                .state("nothing was changed")
                .hint(Hint::run("db-setup"))
                .into());
        }
    }
    file.run(ctx, &mut db, SESSION_OPTIONS, flags.users, flags.logins)
}

fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for host in [
            "localhost",
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "/var/run/postgresql",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "db.example.com",
            "10.0.0.1",
            "localhost.example.com",
            "::2",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
