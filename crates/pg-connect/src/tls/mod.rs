//! TLS as libpq does it, with rustls: which certificates are trusted, and which client certificate is
//! sent.
//!
//! No file is read before the server has agreed to TLS: most development servers do not support it, and
//! reading a system's root certificates takes longer than a query.
//!
//! The rules are those of the manual, *SSL Support*, and of `initialize_SSL` in `fe-secure-openssl.c`: a
//! root certificate file that exists is used in every `sslmode`.

mod certificate;
mod files;
mod handshake;
mod verify;

use std::path::{Path, PathBuf};

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::environment::Env;
use crate::error::Result;
use crate::settings::{Origin, Settings};

pub(crate) use handshake::{LazyTls, TlsError, explain, rustls_error};

/// The values of `sslmode`, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Which root certificates are trusted (`sslrootcert`).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    /// The system's, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name instead.
    System {
        file: Option<PathBuf>,
        folder: Option<PathBuf>,
    },
    /// A file. It must exist for the `verify-…` modes only.
    File(PathBuf),
    /// No file is named, and there is no home folder with a default one.
    Nowhere,
}

/// The `ssl…` keywords. Files are named here and not yet read.
#[derive(Clone, Debug)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    /// Start the TLS handshake without an SSLRequest first (`sslnegotiation=direct`, PostgreSQL 17).
    pub(crate) direct: bool,
    roots: Roots,
    revocation_list: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    versions: Vec<&'static SupportedProtocolVersion>,
    send_server_name: bool,
}

impl TlsSettings {
    /// Reads the `ssl…` keywords; `sslrootcert=system` makes `verify-full` the default mode.
    ///
    /// A value that libpq refuses is an error.
    pub(crate) fn resolve(settings: &mut Settings, env: &Env) -> Result<TlsSettings> {
        let system_roots = settings.get("sslrootcert") == Some("system");
        if system_roots && settings.raw("sslmode").is_none() {
            settings.set("sslmode", "verify-full", Origin::ConnectionString);
        }
        let modes = [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ];
        let mode = settings.choice("sslmode", &modes, SslMode::Prefer)?;
        if system_roots && mode != SslMode::VerifyFull {
            return Err(settings
                .invalid("sslmode")
                .cause("with `sslrootcert=system` anyone can have a certificate that is trusted")
                .hint("use `sslmode=verify-full`"));
        }
        let negotiations = [("postgres", false), ("direct", true)];
        let direct = settings.choice("sslnegotiation", &negotiations, false)?;
        if direct && mode < SslMode::Require {
            return Err(settings
                .invalid("sslnegotiation")
                .cause("without asking the server first there is no way back from TLS")
                .hint("use `sslmode=require` or a stronger one"));
        }

        let in_home = |name: &str| {
            let home = Path::new(env.get("HOME")?);
            Some(home.join(".postgresql").join(name))
        };
        let file = |keyword, default| match settings.get(keyword) {
            Some(path) => Some(PathBuf::from(path)),
            None => in_home(default),
        };
        Ok(TlsSettings {
            mode,
            direct,
            roots: match file("sslrootcert", "root.crt") {
                _ if system_roots => Roots::System {
                    file: env.get("SSL_CERT_FILE").map(PathBuf::from),
                    folder: env.get("SSL_CERT_DIR").map(PathBuf::from),
                },
                Some(path) => Roots::File(path),
                None => Roots::Nowhere,
            },
            revocation_list: file("sslcrl", "root.crl"),
            certificate: file("sslcert", "postgresql.crt")
                .filter(|_| settings.get("sslcertmode") != Some("disable")),
            key: file("sslkey", "postgresql.key"),
            versions: versions(settings)?,
            send_server_name: settings.get("sslsni") != Some("0"),
        })
    }
}

/// The TLS versions between the two bounds; rustls has none older than 1.2.
fn versions(settings: &Settings) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let least = version(settings, "ssl_min_protocol_version", 2)?;
    let most = version(settings, "ssl_max_protocol_version", 3)?;
    match (least, most) {
        (0..=2, 3) => Ok(vec![&TLS13, &TLS12]),
        (3, 3) => Ok(vec![&TLS13]),
        (0..=2, 2) => Ok(vec![&TLS12]),
        _ => Err(settings
            .invalid("ssl_max_protocol_version")
            .cause("there is no version from TLSv1.2 on within the bounds")),
    }
}

/// The minor version of a bound. Upper and lower case are the same, and an empty value is the default
/// (`sslVerifyProtocolVersion` in `fe-connect.c`).
fn version(settings: &Settings, keyword: &str, default: u8) -> Result<u8> {
    const NAMES: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let Some(value) = settings.get(keyword) else {
        return Ok(default);
    };
    match (0..)
        .zip(NAMES)
        .find(|(_, name)| name.eq_ignore_ascii_case(value))
    {
        Some((minor, _)) => Ok(minor),
        None => Err(settings.invalid(keyword).cause(format!(
            "`{value}` is none of `TLSv1`, `TLSv1.1`, `TLSv1.2`, `TLSv1.3`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_roots_insist_on_the_host_name() {
        let resolve = |given: &str| {
            let mut settings = crate::connstring::parse(given).unwrap();
            TlsSettings::resolve(&mut settings, &Env::new())
        };
        assert_eq!(
            resolve("sslrootcert=system").unwrap().mode,
            SslMode::VerifyFull
        );
        assert!(resolve("sslrootcert=system sslmode=require").is_err());
        assert!(resolve("sslnegotiation=direct").is_err());
        assert!(
            resolve("sslnegotiation=direct sslmode=require")
                .unwrap()
                .direct
        );
        assert!(resolve("ssl_max_protocol_version=TLSv1.1").is_err());
        let range = "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2";
        assert!(resolve(range).is_err());
    }
}
