//! The database's address means to the application what it means to psql.

use std::fs;
use std::path::Path;
use std::process::Command;

use private_server::ThrowawayServer;

use crate::common::{Fixture, installation, server};
use crate::process::{Process, command};

/// What `/readyz` answers on a database at this address.
fn readiness(command: &mut Command) -> u16 {
    let process = Process::spawn(command, "127.0.0.1:0");
    let mut connection = crate::http::Connection::open(process.address).unwrap();
    connection.get("/readyz").unwrap().status
}

fn on(address: &str) -> Command {
    let mut command = command();
    command.env("DATABASE_URL", address);
    command
}

#[tokio::test]
async fn required_tls_is_required_however_it_is_written() {
    let app = Fixture::new().await;
    let pairs = format!(
        "host=127.0.0.1 port={} user=admin password={} dbname={}",
        server().port(),
        server().password(),
        app.database
    );
    // The server has no TLS.
    for required in [
        "sslmode=require",
        "sslmode = require",
        "sslmode\t=\trequire",
        "sslmode =\n'require'",
        "sslmode = 'requ\\ire'",
        "sslmode=prefer sslmode = require",
    ] {
        assert_eq!(
            readiness(&mut on(&format!("{pairs} {required}"))),
            503,
            "{required}"
        );
        assert_eq!(
            readiness(&mut on(&format!("{required} {pairs}"))),
            503,
            "{required}"
        );
    }
    assert_eq!(
        readiness(&mut on(&format!("{pairs} sslmode = prefer"))),
        200
    );
    assert_eq!(readiness(on(&pairs).env("PGSSLMODE", "require")), 503);
    let url = format!("{}?ssl%6Dode=require", app.url());
    assert_eq!(readiness(&mut on(&url)), 503);
}

#[tokio::test]
async fn a_service_and_a_password_file_are_read() {
    let app = Fixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (services, passwords) = (
        folder.path().join("services"),
        folder.path().join("passwords"),
    );
    let service = format!(
        "[app]\nhost=127.0.0.1\nport={}\nuser=admin\ndbname={}\n",
        server().port(),
        app.database
    );
    fs::write(&services, service).unwrap();
    let mut command = on("service=app");
    command
        .env("PGSERVICEFILE", &services)
        .env("PGPASSFILE", &passwords);
    assert_eq!(readiness(&mut command), 503, "without the password");
    fs::write(&passwords, format!("*:*:*:admin:{}\n", server().password())).unwrap();
    set_mode(&passwords, 0o600);
    assert_eq!(readiness(&mut command), 200);
    set_mode(&passwords, 0o644);
    assert_eq!(
        readiness(&mut command),
        503,
        "with a password file that others can read"
    );
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_gets_no_password() {
    let server = ThrowawayServer::start(&installation(), &[]).unwrap();
    let root = with_certificate(&server, "db.example");
    let address = |host: &str, mode: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={} user=admin password={} dbname=postgres sslmode={mode} sslrootcert='{}'",
            server.port(),
            server.password(),
            root.display()
        )
    };
    // Connected, it finds no tables: which of the two it is stands in the answer.
    let reached = |address: &str| {
        let process = Process::spawn(&mut on(address), "127.0.0.1:0");
        let mut connection = crate::http::Connection::open(process.address).unwrap();
        let answer = connection.get("/readyz").unwrap();
        !answer.body.contains("unreachable")
    };
    assert!(reached(&address("db.example", "verify-full")));
    assert!(!reached(&address("other.example", "verify-full")));
    assert!(reached(&address("other.example", "verify-ca")));
    let without_root = format!(
        "{} sslrootcert=/nonexistent",
        address("db.example", "verify-full")
    );
    assert!(!reached(&without_root));
}

/// Gives the server a certificate for this name, and TLS. Returns the root that it is to be checked
/// against, which is itself.
fn with_certificate(server: &ThrowawayServer, name: &str) -> std::path::PathBuf {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let data = server.cluster().folder().join("data");
    let owner = fs::metadata(&data).unwrap();
    let (certificate, key) = (data.join("server.crt"), data.join("server.key"));
    let made = Command::new("openssl")
        .args([
            "req", "-new", "-x509", "-days", "2", "-nodes", "-newkey", "ec",
        ])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args([
            "-subj",
            "/O=Test",
            "-addext",
            &format!("subjectAltName=DNS:{name}"),
        ])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    for file in [&certificate, &key] {
        set_mode(file, 0o600);
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let url = server.url("postgres");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            client
                .batch_execute("ALTER SYSTEM SET ssl = on")
                .await
                .unwrap();
            client
                .batch_execute("SELECT pg_reload_conf()")
                .await
                .unwrap();
        });
    })
    .join()
    .unwrap();
    let root = server.cluster().folder().join("root.crt");
    fs::copy(&certificate, &root).unwrap();
    root
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
