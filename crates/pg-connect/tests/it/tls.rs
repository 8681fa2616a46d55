//! Certificates of every kind, names that they are for and not for: psql and this crate must agree
//! whom they trust.

use std::fs;
use std::path::Path;

use pg_connect::{ConnInfo, Env, ErrorKind, SessionOptions, blocking};

use crate::certificates::Certificates;
use crate::psql::{Outcome, has_tls, psql};
use crate::server::Server;

const HBA: &str = "host all trusted 127.0.0.1/32 trust\n";

const HOSTS: [&str; 6] = [
    "db.example",
    "DB.Example",
    "a.db.example",
    "a.b.db.example",
    "127.0.0.1",
    "not a name",
];

const MODES: [&str; 3] = ["require", "verify-ca", "verify-full"];

/// For each host the modes in which a certificate that is signed by the root is trusted.
fn trusted(server: &Server, root: &Path, more: &str) -> (Vec<String>, Vec<String>) {
    let (mut by_psql, mut by_us) = (Vec::new(), Vec::new());
    for host in HOSTS {
        for mode in MODES {
            let given = format!(
                "host='{host}' hostaddr=127.0.0.1 port={} user=trusted dbname=postgres sslmode={mode} \
                 sslrootcert='{}' {more}",
                server.port(),
                root.display()
            );
            let name = format!("{host} {mode}");
            let env = Env::from([("HOME".to_owned(), "/nonexistent".to_owned())]);
            if let Outcome::Session(_) = psql(&given, &env, "SELECT 1") {
                by_psql.push(name.clone());
            }
            let info = ConnInfo::resolve(&given, &env, None).unwrap();
            match blocking::connect(&info, &SessionOptions::default(), &|| false) {
                Ok(connection) => {
                    assert!(connection.encrypted);
                    by_us.push(name);
                }
                Err(error) => assert_eq!(error.kind, ErrorKind::Tls, "{error}"),
            }
        }
    }
    (by_psql, by_us)
}

#[test]
fn a_certificate_is_trusted_for_the_names_that_libpq_trusts_it_for() {
    if !has_tls() {
        return;
    }
    let server = Server::start(HBA);
    server.sql("CREATE ROLE trusted LOGIN");
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates {
        folder: folder.path(),
    };
    made.authority("root");
    made.authority("other");
    made.signed_by(
        "root",
        "middle",
        "middle",
        "basicConstraints=critical,CA:TRUE",
    );
    let leaf = "basicConstraints=CA:FALSE\n";
    // Whose names, by common name and by extension, and in which of them it is trusted as verify-full.
    let table = [
        ("san", "x.example", "subjectAltName=DNS:db.example"),
        ("common", "db.example", leaf),
        ("wild", "x.example", "subjectAltName=DNS:*.db.example"),
        ("wild_common", "*.db.example", leaf),
        ("address", "x.example", "subjectAltName=IP:127.0.0.1"),
        ("address_common", "127.0.0.1", leaf),
        // A name of the other kind does not make the common name unheard.
        ("address_san", "db.example", "subjectAltName=IP:127.0.0.1"),
        ("name_san", "127.0.0.1", "subjectAltName=DNS:db.example"),
        (
            "email_san",
            "db.example",
            "subjectAltName=email:a@db.example",
        ),
        ("other_san", "db.example", "subjectAltName=DNS:x.example"),
    ];
    let mut trusted_fully = 0;
    for (name, common_name, extensions) in table {
        made.signed_by("root", name, common_name, extensions);
        server.enable_tls(
            &made.certificate(name),
            &made.key(name),
            &made.certificate("root"),
        );
        let (by_psql, by_us) = trusted(&server, &made.certificate("root"), "");
        assert_eq!(by_us, by_psql, "{name}");
        assert!(by_us.len() >= 12, "{name}: {by_us:?}");
        trusted_fully += by_us.len() - 12;
        let (by_psql, by_us) = trusted(&server, &made.certificate("other"), "");
        assert_eq!((by_us, by_psql), (vec![], vec![]), "{name}");
    }
    assert!(trusted_fully >= 12, "{trusted_fully}");

    // Through an intermediate that the server shows, and not without it.
    made.signed_by("middle", "leaf", "x", "subjectAltName=DNS:db.example");
    let read = |name: &str| fs::read_to_string(made.certificate(name)).unwrap();
    fs::write(made.certificate("chain"), read("leaf") + &read("middle")).unwrap();
    for (name, expected) in [("chain", true), ("leaf", false)] {
        server.enable_tls(
            &made.certificate(name),
            &made.key("leaf"),
            &made.certificate("root"),
        );
        let (by_psql, by_us) = trusted(&server, &made.certificate("root"), "");
        assert_eq!(by_us, by_psql, "{name}");
        assert_eq!(!by_us.is_empty(), expected, "{name}");
    }

    // `sslrootcert=system` is newer than the psql here.
    server.enable_tls(
        &made.certificate("san"),
        &made.key("san"),
        &made.certificate("root"),
    );
    for (root, host, expected) in [
        ("root", "db.example", true),
        ("root", "x.example", false),
        ("other", "db.example", false),
        ("none", "db.example", false),
    ] {
        let given = format!(
            "host={host} hostaddr=127.0.0.1 port={} user=trusted dbname=postgres sslrootcert=system",
            server.port()
        );
        let file = made.certificate(root).display().to_string();
        let env = Env::from([("SSL_CERT_FILE".to_owned(), file)]);
        let info = ConnInfo::resolve(&given, &env, None).unwrap();
        let outcome = blocking::connect(&info, &SessionOptions::default(), &|| false);
        assert_eq!(outcome.is_ok(), expected, "{root} {host}");
    }

    // Its own root, as the server chapter of the manual makes one.
    made.self_signed("itself", "db.example", "basicConstraints=critical,CA:TRUE");
    server.enable_tls(
        &made.certificate("itself"),
        &made.key("itself"),
        &made.certificate("root"),
    );
    let (by_psql, by_us) = trusted(&server, &made.certificate("itself"), "");
    assert_eq!(by_us, by_psql);
    assert!(
        by_us.contains(&"db.example verify-full".to_owned()),
        "{by_us:?}"
    );

    // Revoked, and not.
    made.signed_by("root", "revoked", "x", "subjectAltName=DNS:db.example");
    for (revoked, expected) in [(&[][..], true), (&["revoked"], false)] {
        server.enable_tls(
            &made.certificate("revoked"),
            &made.key("revoked"),
            &made.certificate("root"),
        );
        let list = made.revoke("root", revoked);
        let more = format!("sslcrl='{}'", list.display());
        let (by_psql, by_us) = trusted(&server, &made.certificate("root"), &more);
        assert_eq!(by_us, by_psql, "{revoked:?}");
        assert_eq!(!by_us.is_empty(), expected, "{revoked:?}");
    }

    // Version 1 is the one that only libpq verifies; it says what to do.
    made.signed_by("root", "old", "db.example", "");
    server.enable_tls(
        &made.certificate("old"),
        &made.key("old"),
        &made.certificate("root"),
    );
    let (by_psql, by_us) = trusted(&server, &made.certificate("root"), "");
    assert!(
        by_psql.contains(&"db.example verify-full".to_owned()),
        "{by_psql:?}"
    );
    assert_eq!(by_us, Vec::<String>::new());
    let (_, without_root) = trusted(&server, Path::new("/nonexistent"), "");
    assert_eq!(without_root.len(), HOSTS.len(), "{without_root:?}");
}
