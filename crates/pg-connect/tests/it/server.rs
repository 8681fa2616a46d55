//! Throwaway servers with the `pg_hba.conf`, the sockets and the certificates that a test needs.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use pg_connect::blocking::{self, Connection};
use pg_connect::{ConnInfo, Env, Error, SessionOptions};
use private_server::{Installation, Stop, ThrowawayServer, installation};
use tempfile::TempDir;

/// A server without TLS, with a socket in its folder.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    server: ThrowawayServer,
}

/// The PostgreSQL that the tests use.
pub(crate) fn installation() -> &'static Installation {
    static FOUND: OnceLock<Installation> = OnceLock::new();
    FOUND.get_or_init(|| {
        let only_in = variable("PG_BIN_DIR");
        installation::newest_server(Some(&path_variable()), only_in.as_deref().map(Path::new))
            .expect("PostgreSQL is installed")
    })
}

/// Where this machine's programs are.
#[expect(clippy::disallowed_methods, reason = "handed on to programs")]
pub(crate) fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// A variable by which a person changes how a test runs.
#[expect(clippy::disallowed_methods, reason = "a test is its own caller")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
        let server = ThrowawayServer::start(installation(), &settings).unwrap();
        Server { folder, server }
    }

    /// Gives it TLS with this certificate, and client certificates by `authority`.
    pub(crate) fn enable_tls(&self, certificate: &Path, key: &Path, authority: &Path) {
        for (name, file) in [
            ("server.crt", certificate),
            ("server.key", key),
            ("ca.crt", authority),
        ] {
            self.write_data(name, &fs::read(file).unwrap());
        }
        self.sql("ALTER SYSTEM SET ssl = on");
        self.sql("ALTER SYSTEM SET ssl_ca_file = 'ca.crt'");
        self.reload();
    }

    /// Has the server read its settings again, and waits until it has.
    fn reload(&self) {
        let loaded = "SELECT pg_conf_load_time()::text";
        let url = self.server.url("postgres");
        let time = || -> String {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            client.query_one(loaded, &[]).unwrap().get(0)
        };
        let before = time();
        self.sql("SELECT pg_reload_conf()");
        while time() == before {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes it a standby that hears of no primary.
    pub(crate) fn become_standby(&self) {
        self.write_data("standby.signal", b"");
        let cluster = self.server.cluster();
        cluster.stop(Stop::Fast).unwrap();
        assert_eq!(
            cluster.start(std::slice::from_ref(installation())).unwrap(),
            self.port()
        );
    }

    /// Writes a file into its data folder, as its own.
    fn write_data(&self, name: &str, contents: &[u8]) {
        let data = self.server.cluster().folder().join("data");
        let owner = fs::metadata(&data).unwrap();
        let path = data.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
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
        let session = SessionOptions {
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
