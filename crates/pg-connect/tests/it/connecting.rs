//! Which server is chosen, what a session has, and what every failure is.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pg_connect::blocking::Connection;
use pg_connect::{Env, ErrorKind, SessionOptions};
use postgres::error::SqlState;

use crate::psql::{Outcome, psql};
use crate::server::{Server, write_private};

const HBA: &str = "\
local all all trust
host all trusted,nobody,full 127.0.0.1/32 trust
host all known 127.0.0.1/32 scram-sha-256
";

fn setting(connection: &mut Connection, name: &str) -> String {
    let row = connection
        .client
        .query_typed_one(
            "SELECT current_setting($1)",
            &[(&name, postgres::types::Type::TEXT)],
        )
        .unwrap();
    row.get(0)
}

#[test]
fn a_server_without_tls() {
    let server = Server::start(HBA);
    server.sql(
        "CREATE ROLE trusted LOGIN; CREATE ROLE full LOGIN CONNECTION LIMIT 0;
         CREATE ROLE known LOGIN PASSWORD 's3cret'",
    );

    sessions_have_what_was_asked_for(&server);
    every_problem_has_its_kind(&server);
    hosts_are_tried_in_their_order(&server);
    whoever_breaks_off_has_the_last_word(&server);
    a_statement_can_be_cancelled(&server);
    a_statement_of_the_async_client_can_be_cancelled(&server);
}

fn sessions_have_what_was_asked_for(server: &Server) {
    let mut by_name = server
        .connect("host=localhost port=PORT user=known password=s3cret dbname=postgres options='-c statement_timeout=7s'")
        .unwrap();
    assert_eq!(setting(&mut by_name, "application_name"), "test");
    assert_eq!(setting(&mut by_name, "work_mem"), "5MB");
    assert_eq!(setting(&mut by_name, "statement_timeout"), "7s");
    assert!(!by_name.encrypted);
    let pinned = &by_name.info.hosts()[0];
    assert_eq!(
        (pinned.name.as_str(), pinned.address),
        ("localhost", Some([127, 0, 0, 1].into()))
    );
    let for_psql = by_name.info.psql_conninfo();
    assert!(
        for_psql.contains("hostaddr='127.0.0.1'") && !for_psql.contains("work_mem"),
        "{for_psql}"
    );

    // A socket has no TLS, whatever is asked for.
    let by_socket = server
        .connect("host=SOCKET port=PORT user=trusted dbname=postgres sslmode=verify-full")
        .unwrap();
    assert_eq!(Path::new(&by_socket.info.hosts()[0].name), server.socket());

    let line = format!("127.0.0.1:{}:postgres:known:s3cret\n", server.port());
    write_private(&server.socket().join("pgpass"), &line);
    server
        .connect("host=127.0.0.1 port=PORT user=known dbname=postgres passfile=SOCKET/pgpass")
        .unwrap();
}

fn every_problem_has_its_kind(server: &Server) {
    use ErrorKind::*;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let table = [
        (Refused, "host=127.0.0.1 port=1 user=trusted", None),
        (Refused, "host=SOCKET port=1 user=trusted", None),
        (NoSuchHost, "host=nowhere.invalid user=trusted", None),
        (
            Authentication,
            "host=127.0.0.1 port=PORT user=known dbname=postgres password=wr0ng",
            Some("28P01"),
        ),
        (
            Authentication,
            "host=127.0.0.1 port=PORT user=known dbname=postgres",
            None,
        ),
        (
            Authentication,
            "host=127.0.0.1 port=PORT user=other dbname=postgres",
            Some("28000"),
        ),
        (
            NoSuchRole,
            "host=127.0.0.1 port=PORT user=nobody dbname=postgres",
            Some("28000"),
        ),
        (
            NoSuchDatabase,
            "host=127.0.0.1 port=PORT user=trusted dbname=none",
            Some("3D000"),
        ),
        (
            TooManyConnections,
            "host=127.0.0.1 port=PORT user=full dbname=postgres",
            Some("53300"),
        ),
        (
            Tls,
            "host=127.0.0.1 port=PORT user=trusted dbname=postgres sslmode=require",
            None,
        ),
        (
            Other,
            "host=127.0.0.1 port=PORT user=trusted dbname=postgres target_session_attrs=standby",
            None,
        ),
        (
            Timeout,
            &format!("host=127.0.0.1 port={silent} user=trusted connect_timeout=1"),
            None,
        ),
    ];
    for (problem, given, sqlstate) in table {
        let started = Instant::now();
        let Err(error) = server.connect(given) else {
            panic!("{given} connected");
        };
        assert_eq!(error.kind, problem, "{given}: {error:?}");
        assert_eq!(error.sqlstate.as_deref(), sqlstate, "{given}: {error:?}");
        assert!(!error.causes.is_empty(), "{given}: {error:?}");
        assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{given}");
    }
}

fn hosts_are_tried_in_their_order(server: &Server) {
    let common = "user=trusted dbname=postgres";
    let dead_first = format!("host=127.0.0.1,nowhere.invalid,SOCKET port=1,1,PORT {common}");
    let connection = server.connect(&dead_first).unwrap();
    assert_eq!(connection.info.hosts().len(), 1);
    assert!(connection.info.hosts()[0].is_socket());

    // One that is starting up is passed over, as one that is not there.
    let starting = format!(
        "127.0.0.1,SOCKET port={},PORT {common} sslmode=disable",
        starting_up()
    );
    assert!(server.connect(&format!("host={starting}")).is_ok());
    let alone = format!(
        "host=127.0.0.1 port={} {common} sslmode=disable",
        starting_up()
    );
    let error = server.connect(&alone).err().unwrap();
    assert_eq!(error.kind, ErrorKind::StartingUp);
    assert_eq!(error.sqlstate.as_deref(), Some("57P03"));

    // A server that refuses the user ends the search, one of the wrong kind does not.
    let refused = "host=127.0.0.1,SOCKET port=PORT user=known dbname=postgres password=wr0ng";
    assert_eq!(
        server.connect(refused).err().unwrap().kind,
        ErrorKind::Authentication
    );
    let table = [
        ("any", true),
        ("read-write", true),
        ("primary", true),
        ("prefer-standby", true),
        ("read-only", false),
        ("standby", false),
    ];
    for (target, expected) in table {
        let given =
            format!("host=127.0.0.1,SOCKET port=PORT {common} target_session_attrs={target}");
        let outcome = server.connect(&given);
        assert_eq!(outcome.is_ok(), expected, "{target}");
        if let Err(error) = outcome {
            assert_eq!(error.causes.len(), 2, "{error:?}");
        }
    }
}

/// The port of what answers one client as a server does that is starting up.
fn starting_up() -> u16 {
    const FIELDS: &[u8] = b"SFATAL\0VFATAL\0C57P03\0Mstarting\0\0";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let length = u32::try_from(FIELDS.len() + 4).unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream
            .write_all(&[&b"E"[..], &length.to_be_bytes(), FIELDS].concat())
            .unwrap();
    });
    port
}

/// A proxy without a server behind it accepts and closes. libpq then tries no other host.
fn whoever_breaks_off_has_the_last_word(server: &Server) {
    for answer in ["", "N", "S", "XXXXXXXXXXXXXXXX"] {
        let port = answers(answer);
        for mode in ["disable", "prefer", "require"] {
            let given = format!(
                "host=127.0.0.1,127.0.0.1 port={port},{} user=trusted dbname=postgres sslmode={mode}",
                server.port()
            );
            let by_psql = psql(&given, &Env::new(), "SELECT 1");
            assert!(matches!(by_psql, Outcome::Refused(_)), "{answer} {mode}");
            let Err(error) = server.connect(&given) else {
                panic!("{answer} {mode} connected")
            };
            assert_eq!(error.causes.len(), 1, "{answer} {mode}: {error}");
        }
    }
}

/// The port of what gives every client this answer, and closes.
fn answers(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn a_statement_can_be_cancelled(server: &Server) {
    let mut connection = server
        .connect("host=127.0.0.1 port=PORT user=trusted dbname=postgres")
        .unwrap();
    let canceller = connection.canceller();
    let cancelling = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        canceller.cancel().unwrap();
    });
    let error = connection
        .client
        .batch_execute("SELECT pg_sleep(20)")
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    cancelling.join().unwrap();
}

fn a_statement_of_the_async_client_can_be_cancelled(server: &Server) {
    let info = server.info("host=127.0.0.1 port=PORT user=trusted dbname=postgres");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let session = SessionOptions::default();
        let connection = pg_connect::connect(&info, &session).await.unwrap();
        let canceller = connection.canceller();
        let cancelling = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            canceller.cancel().await.unwrap();
        });
        let sleeping = connection.client.batch_execute("SELECT pg_sleep(20)").await;
        assert_eq!(
            sleeping.unwrap_err().code(),
            Some(&SqlState::QUERY_CANCELED)
        );
        cancelling.await.unwrap();
        // Its task ends with the client, and has nothing to report.
        drop(connection.client);
        connection.task.await.unwrap().unwrap();
    });
}
