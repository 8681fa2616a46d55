//! psql, and what it comes to.

use std::io::Write as _;
use std::process::{Command, Stdio};

use pg_connect::Env;

use crate::server::{installation, variable};

/// How an attempt to connect ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Connected; the row of the query.
    Session(String),
    /// What was printed instead.
    Refused(String),
}

/// Has psql run a query of one value, with this environment and nothing else.
pub(crate) fn psql(conninfo: &str, env: &Env, query: &str) -> Outcome {
    let output = Command::new(installation().program("psql"))
        .args(["-X", "-A", "-t", "-w", "-c", query, "-d", conninfo])
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.trim_end_matches('\n').to_owned()
    };
    match output.status.success() {
        true => Outcome::Session(text(&output.stdout)),
        false => Outcome::Refused(text(&output.stderr)),
    }
}

/// Whether psql can speak TLS; one that was built without it is no measure for who does.
pub(crate) fn has_tls() -> bool {
    let said = psql("host=/nonexistent sslmode=require", &Env::new(), "");
    let without = matches!(&said, Outcome::Refused(said) if said.contains("not compiled in"));
    if without {
        assert_ne!(variable("CI").as_deref(), Some("true"), "{said:?}");
        // Not through the test harness, which keeps to itself what a passing test prints.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this psql is built without TLS: --with-ssl=openssl"
        );
    }
    !without
}
