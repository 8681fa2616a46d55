//! psql and this crate read the same: whether, where and as whom they connect. Cases are generated;
//! those that differ on purpose are listed here and in the README.
//!
//! `PG_CONNECT_CASES=10000` for the long form. A case that differs is printed with its seed, and
//! `PG_CONNECT_SEED=… PG_CONNECT_CASES=1` is that case alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pg_connect::{ConnInfo, Env, Error, SessionOptions, blocking};
use postgres::SimpleQueryMessage;
use tempfile::TempDir;

use crate::cases::{Case, World};
use crate::certificates::Certificates;
use crate::psql::{Outcome, has_tls, psql};
use crate::server::{Server, variable};

const HBA: &str = r#"
local all trusted,reader,certified,tlsonly,plainonly,"os user" trust
local all all scram-sha-256
hostssl all tlsonly 127.0.0.1/32 trust
hostssl all tlsknown 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostnossl all plainonly 127.0.0.1/32 trust
host all trusted,reader,"os user" 127.0.0.1/32 trust
host all plain 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
host all known,"odd u:s@r%'\" 127.0.0.1/32 scram-sha-256
"#;

const SQL: &[&str] = &[
    "CREATE ROLE trusted LOGIN",
    "CREATE ROLE \"os user\" LOGIN",
    "CREATE ROLE known LOGIN PASSWORD 's3cret'",
    r#"CREATE ROLE "odd u:s@r%'\" LOGIN PASSWORD 'p:a@s/s%w?o#r''d\ &=,'"#,
    "CREATE ROLE plain LOGIN PASSWORD 'pl''ain:'",
    "SET password_encryption = md5; CREATE ROLE hashed LOGIN PASSWORD 'hashed'",
    "CREATE ROLE tlsonly LOGIN",
    "CREATE ROLE plainonly LOGIN",
    "CREATE ROLE tlsknown LOGIN PASSWORD 's3cret'",
    "CREATE ROLE certified LOGIN",
    "CREATE ROLE reader LOGIN",
    "ALTER ROLE reader SET default_transaction_read_only = on",
    "CREATE DATABASE \"my db\"",
    r#"CREATE DATABASE "d:a'ta\/%?""#,
    "CREATE DATABASE known",
    "CREATE DATABASE trusted",
    "CREATE DATABASE reader",
    "CREATE DATABASE tlsknown",
    "CREATE DATABASE \"os user\"",
];

/// As whom, where, and with what.
const QUERY: &str = "SELECT concat_ws(' | ', session_user, current_database(), current_setting('port'),
    CASE WHEN inet_server_port() IS NULL THEN 'socket' ELSE host(inet_server_addr()) END,
    (SELECT concat_ws(' ', version, client_dn) FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
    current_setting('application_name'), current_setting('work_mem'), current_setting('statement_timeout'),
    current_setting('search_path'))";

struct Servers {
    world: World,
    os_user: String,
    _folder: TempDir,
    _servers: [Server; 3],
}

impl Servers {
    fn start() -> Servers {
        let os_user = pg_connect::os_user().unwrap();
        let [with_tls, without, standby] = std::thread::scope(|scope| {
            [0, 1, 2]
                .map(|_| scope.spawn(|| Server::start(&HBA.replace("os user", &os_user))))
                .map(|thread| thread.join().unwrap())
        });
        for server in [&with_tls, &without, &standby] {
            for statement in SQL {
                server.sql(&statement.replace("os user", &os_user));
            }
        }
        standby.become_standby();

        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates {
            folder: folder.path(),
        };
        certificates.authority("root");
        certificates.authority("other");
        let names = "subjectAltName=DNS:localhost,DNS:db.example,DNS:*.wild.example";
        certificates.signed_by("root", "server", "ignored", names);
        let usage = "extendedKeyUsage=clientAuth";
        certificates.signed_by("root", "client", "certified", usage);
        certificates.signed_by("other", "foreign", "certified", usage);
        certificates.revoke("root", &[]);
        certificates.revoke("root", &["server"]);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let write = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        write("both.crt", &(read("other.crt") + &read("root.crt")), 0o644);
        write("open.key", &read("client.key"), 0o644);
        let home = vec![
            (".postgresql/root.crt", read("root.crt")),
            (".postgresql/root.crt", read("other.crt")),
            (".postgresql/root.crl", read("root.empty.crl")),
            (".postgresql/postgresql.crt", read("client.crt")),
            (".postgresql/postgresql.key", read("client.key")),
        ];
        with_tls.enable_tls(
            &certificates.certificate("server"),
            &certificates.key("server"),
            &certificates.certificate("root"),
        );
        let servers = [with_tls, without, standby];
        Servers {
            world: World {
                ports: servers.each_ref().map(Server::port),
                sockets: servers
                    .each_ref()
                    .map(|server| server.socket().display().to_string()),
                certificates: folder.path().display().to_string(),
                home,
            },
            os_user,
            _folder: folder,
            _servers: servers,
        }
    }
}

/// A case's files, in a home folder of its own, and its environment.
fn set_up(case: &Case, home: &Path) -> Env {
    for (name, text, mode) in &case.files {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
    }
    let mut env = case.env.clone();
    env.insert("HOME".to_owned(), home.display().to_string());
    env.insert("PGSYSCONFDIR".to_owned(), "/nonexistent".to_owned());
    env
}

/// What the session is, and the connection string that would lead psql to the same.
fn ours(given: &str, env: &Env, os_user: &str) -> Result<(String, ConnInfo), Error> {
    let info = ConnInfo::resolve(given, env, Some(os_user))?;
    let mut connection = blocking::connect(&info, &session(&info), &|| false)?;
    let messages = connection.client.simple_query(QUERY).unwrap();
    Ok((row(&messages), connection.info))
}

/// The same by the async client.
fn ours_async(given: &str, env: &Env, os_user: &str) -> Result<String, Error> {
    let info = ConnInfo::resolve(given, env, Some(os_user))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let connection = pg_connect::connect(&info, &session(&info)).await?;
        Ok(row(&connection.client.simple_query(QUERY).await.unwrap()))
    })
}

fn session(info: &ConnInfo) -> SessionOptions<'_> {
    SessionOptions {
        // psql has a name for the case that there is none.
        application_name: Some(info.application_name().unwrap_or("psql")),
        options: "",
    }
}

fn row(messages: &[SimpleQueryMessage]) -> String {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap().to_owned()
}

/// Where this crate says no on purpose, and psql may say yes: each is in the README.
const STRICTER: &[&str] = &[
    "the connection string is empty",
    "the connection string is neither a URL nor",
    "is not a PostgreSQL connection URL",
    "a connection URL begins with",
    "the connection URL contains a space",
    "the connection URL has an `@` that is not encoded",
    "is not UTF-8 once decoded",
    "the port in the connection URL",
    "invalid `ssl_max_protocol_version`",
    "invalid `port`",
    "invalid `hostaddr`",
    "invalid `keepalives",
    "invalid `tcp_user_timeout`",
];

/// Whether two outcomes are the same, or why they may differ.
fn judge(
    case: &Case,
    psql: &Outcome,
    ours: &Result<(String, ConnInfo), Error>,
) -> Result<&'static str, &'static str> {
    let trimmed = case.given.trim_ascii() != case.given;
    match (psql, ours) {
        (Outcome::Session(psql), Ok((ours, _))) if psql == ours => Ok("connected"),
        (Outcome::Session(_), Ok(_)) => Err("they connect as, to or with something else"),
        (Outcome::Refused(_), Err(_)) => Ok("refused"),
        (Outcome::Session(_), Err(error))
            if STRICTER.iter().any(|text| error.message.contains(text)) =>
        {
            Ok("stricter")
        }
        (Outcome::Session(_), Err(_)) => Err("only psql connects"),
        (Outcome::Refused(_), Ok(_)) if case.given.contains("://") && trimmed => {
            Ok("white space around a URL")
        }
        (Outcome::Refused(_), Ok((_, info)))
            if info.hosts()[0].name == "localhost" && !case.to_string().contains("localhost") =>
        {
            Ok("default host")
        }
        (Outcome::Refused(_), Ok(_)) => Err("only this crate connects"),
    }
}

#[test]
fn psql_and_this_crate_agree() {
    if !has_tls() {
        return;
    }
    let servers = Servers::start();
    let count: u64 = variable("PG_CONNECT_CASES").map_or(500, |text| text.parse().unwrap());
    let seed = variable("PG_CONNECT_SEED").map_or_else(
        || fastrand::u64(..1_000_000_000),
        |text| text.parse().unwrap(),
    );
    println!("PG_CONNECT_SEED={seed} PG_CONNECT_CASES={count}");

    let next = AtomicU64::new(0);
    let tally: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let differences: Mutex<Vec<String>> = Mutex::default();
    let work = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count || differences.lock().unwrap().len() >= 20 {
            return;
        }
        let case = Case::generate(seed + index, &servers.world);
        let home = tempfile::tempdir().unwrap();
        let env = set_up(&case, home.path());
        let by_psql = psql(&case.given, &env, QUERY);
        let by_us = ours(&case.given, &env, &servers.os_user);
        let mut verdict = judge(&case, &by_psql, &by_us);
        // What a program hands to psql leads to the same place.
        if let (Ok("connected"), Ok((_, info))) = (verdict, &by_us) {
            let mut env = env.clone();
            env.retain(|name, _| !pg_connect::libpq_variables().any(|removed| removed == name));
            env.extend(info.psql_env());
            if psql(&info.psql_conninfo(), &env, QUERY) != by_psql {
                verdict = Err("`psql_conninfo` leads elsewhere");
            }
        }
        let by_async = ours_async(&case.given, &env, &servers.os_user);
        let kind = |error: &Error| error.kind;
        if by_async.as_ref().map_err(kind) != by_us.as_ref().map(|(row, _)| row).map_err(kind) {
            verdict = Err("the two clients differ");
        }
        match verdict {
            Ok(kind) => *tally.lock().unwrap().entry(kind).or_default() += 1,
            Err(why) => differences.lock().unwrap().push(format!(
                "{why}: PG_CONNECT_SEED={} PG_CONNECT_CASES=1\n{case}  psql: {by_psql:?}\n  here: {:?}\n",
                seed + index,
                by_us.map(|(row, info)| (row, info.psql_conninfo()))
            )),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let (tally, differences) = (
        tally.into_inner().unwrap(),
        differences.into_inner().unwrap(),
    );
    println!("{tally:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // A test in which nobody connects compares nothing.
    assert!(count < 100 || tally["connected"] * 5 > count, "{tally:?}");
}
