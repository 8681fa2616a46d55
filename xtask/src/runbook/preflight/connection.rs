//! The server that the connection leads to.

use jiff::Timestamp;

use super::check::{Check, Found, Look, When};
use crate::database::{OLDEST_SERVER, Server};
use crate::error::{Failure, Result};
use crate::hint::Hint;

/// Clocks that differ by more make dates in names and reports misleading.
const SKEW_SECONDS: i64 = 5;

pub(super) const CONNECTION: Check = Check {
    name: "connection",
    before: &[],
    look: Look::Server(|_, db| {
        let encryption = match db.server.encrypted {
            true => "encrypted",
            false => "not encrypted",
        };
        Ok(Found::ok(format!("{}, {encryption}", db.server)))
    }),
};

/// The server is one that this works with, and may be written to.
pub(super) const SERVER: Check = Check {
    name: "server",
    before: &[When::Run, When::Restore, When::Baseline, When::Repair],
    look: Look::Server(|_, db| {
        check_supported(&db.server)?;
        Ok(Found::ok(format!(
            "PostgreSQL {}, primary",
            db.server.server_version
        )))
    }),
};

pub(super) const CLOCK: Check = Check {
    name: "clock",
    before: &[],
    look: Look::Server(|_, db| {
        let skew = Timestamp::now()
            .duration_since(db.server.clock)
            .as_secs()
            .abs();
        let detail = format!("{skew} s apart from the server's");
        Ok(match skew > SKEW_SECONDS {
            true => Found::warning(detail, "set the clock: timedatectl set-ntp true"),
            false => Found::ok(detail),
        })
    }),
};

fn check_supported(server: &Server) -> Result {
    if server.major() < OLDEST_SERVER {
        return Err(
            Failure::failed(format!("PostgreSQL {} is too old", server.server_version))
                .cause(format!(
                    "this works with PostgreSQL {OLDEST_SERVER} and newer"
                ))
                .hint(Hint::to(
                    "upgrade the server, or name another one",
                    "db-doctor --database-url postgres://HOST/DATABASE",
                ))
                .into(),
        );
    }
    if server.in_recovery {
        return Err(Failure::failed(format!(
            "`{}:{}` is a standby: it accepts reads only",
            server.host, server.port
        ))
        .sqlstate("25006")
        .cause("migrations run on the primary and reach standbys by replication")
        .hint(Hint::again_with(
            "",
            "--database-url 'postgres://HOST1,HOST2/DATABASE?target_session_attrs=read-write'",
        ))
        .into());
    }
    if server.read_only {
        return Err(Failure::failed(format!("`{}` is set to read-only", server.name))
            .sqlstate("25006")
            .cause(format!(
                "default_transaction_read_only is on for `{}`, here for this role, this database or the server: somebody wants nothing written",
                server.user
            ))
            .state("nothing was changed")
            .hint(Hint::psql("see who has set it", "\\drds"))
            .hint(Hint::to(
                "to allow writes again, as whoever forbade them",
                "db-psql -- -c 'SET default_transaction_read_only = off' -c 'ALTER DATABASE … RESET default_transaction_read_only'",
            ))
            .hint(Hint::again_with("with several hosts, connect to the one that accepts writes", "--database-url 'postgres://HOST1,HOST2/DATABASE?target_session_attrs=read-write'"))
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pg_connect::{ConnInfo, Env};

    use super::*;
    use crate::error::Kind;

    fn server(version: &str, number: u32, in_recovery: bool) -> Server {
        Server {
            name: "app".to_owned(),
            host: "/run/postgresql".to_owned(),
            port: 5432,
            user: "app".to_owned(),
            server_version: version.to_owned(),
            version_number: number,
            encoding: "UTF8".to_owned(),
            encrypted: false,
            in_recovery,
            read_only: false,
            schema: None,
            clock: jiff::Timestamp::UNIX_EPOCH,
            search_path: String::new(),
            history_schema: None,
            target: ConnInfo::resolve("postgres://app@localhost/app", &Env::new(), None)
                .expect("an address"),
            lock_wait: crate::database::LOCK_WAIT,
            backend_pid: 0,
        }
    }

    #[test]
    fn servers_before_14_are_refused() {
        for (version, number, refused) in [
            ("9.6.24", 90_624, true),
            ("13.23", 130_023, true),
            ("14.0", 140_000, false),
            ("18.1", 180_001, false),
        ] {
            let outcome = check_supported(&server(version, number, false));
            let failure = outcome.map_err(|error| error.downcast::<Failure>().expect("a failure"));
            assert_eq!(failure.is_err(), refused, "{version}");
            if let Err(failure) = failure {
                assert_eq!(failure.kind, Kind::Failed);
                assert_eq!(failure.message, format!("PostgreSQL {version} is too old"));
                assert!(failure.causes[0].contains("PostgreSQL 14"), "{failure:?}");
                assert!(
                    failure.hints[0]
                        .shown(&crate::hint::Invocation::default())
                        .contains("db-doctor"),
                    "{failure:?}"
                );
            }
        }
    }

    #[test]
    fn an_address_is_one_word_whatever_the_names() {
        let mut server = server("18.1", 180_001, false);
        assert_eq!(
            server.address("the owner"),
            "postgres://the%20owner@%2Frun%2Fpostgresql:5432/app"
        );
        server.host = "::1".to_owned();
        server.name = "app's".to_owned();
        assert_eq!(server.address("app"), "postgres://app@[::1]:5432/app%27s");
    }
}
