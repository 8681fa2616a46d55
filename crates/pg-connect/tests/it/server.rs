//! Throwaway servers with the `pg_hba.conf`, the sockets and the certificates that a test needs.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pg_connect::blocking::{self, Connection};
use pg_connect::{ConnInfo, Env, Error, Session};
use private_server::{Installation, ThrowawayServer, installation};
use tempfile::TempDir;

/// A server without TLS, with a socket in its folder.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    server: ThrowawayServer,
}

/// The PostgreSQL that the tests use.
pub(crate) fn installation() -> Installation {
    installation::newest_server(Some(&path_variable())).expect("PostgreSQL is installed")
}

/// Where this machine's programs are: all that the tests take from their environment.
#[expect(clippy::disallowed_methods, reason = "handed on to programs")]
pub(crate) fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

impl Server {
    /// `hba` are the lines of `pg_hba.conf`; the superuser may always come in.
    pub(crate) fn start(hba: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let (hba_file, socket) = (folder.path().join("hba"), folder.path().join("s"));
        fs::write(
            &hba_file,
            format!("host all admin 127.0.0.1/32 scram-sha-256\n{hba}"),
        )
        .unwrap();
        fs::create_dir(&socket).unwrap();
        // The server may run under another account.
        for (path, mode) in [(folder.path(), 0o755), (&hba_file, 0o644), (&socket, 0o777)] {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        let settings = [
            ("hba_file", hba_file.to_str().unwrap()),
            ("unix_socket_directories", socket.to_str().unwrap()),
        ];
        let server = ThrowawayServer::start(&installation(), &settings).unwrap();
        Server { folder, server }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Runs SQL as the superuser.
    pub(crate) fn sql(&self, sql: &str) {
        let url = self.server.url("postgres");
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.batch_execute(sql).unwrap();
    }

    /// A connection string with `PORT` and `SOCKET` replaced, resolved in an empty environment.
    pub(crate) fn info(&self, given: &str) -> ConnInfo {
        let given = given
            .replace("PORT", &self.port().to_string())
            .replace("SOCKET", self.socket().to_str().unwrap());
        ConnInfo::resolve(&given, &Env::new(), None).unwrap()
    }

    pub(crate) fn connect(&self, given: &str) -> Result<Connection, Error> {
        let session = Session {
            application_name: Some("test"),
            options: "-c work_mem=5MB",
        };
        blocking::connect(&self.info(given), &session, &|| false)
    }
}

/// Writes a file that is its owner's alone.
pub(crate) fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}
