//! The way from a server that agrees to TLS to an encrypted stream, and what is said if it fails.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::CertificateError;
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::TlsSettings;
use super::files::client_config;

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// Our own side: a file that is missing, unreadable, unprotected or not what it should be.
    Setup(String),
    /// The handshake, or the server's certificate.
    Handshake(io::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Setup(why) => f.write_str(why),
            TlsError::Handshake(error) => match rustls_error(error) {
                Some(error) => f.write_str(&explain(error)),
                None => write!(f, "the TLS handshake failed: {error}"),
            },
        }
    }
}

impl std::error::Error for TlsError {}

/// What rustls said, where it was rustls that failed an operation on the stream.
pub(crate) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// rustls' errors in the words of the settings that matter.
pub(crate) fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is not signed by one of the trusted root certificates \
             (`sslrootcert`)"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => match presented.as_slice() {
            [] => format!(
                "the server's certificate is not for `{}`",
                expected.to_str()
            ),
            names => {
                let names: Vec<_> = names.iter().map(|name| alternative_name(name)).collect();
                format!(
                    "the server's certificate is not for `{}` but for {}",
                    expected.to_str(),
                    names.join(", ")
                )
            }
        },
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the server's certificate has expired".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => {
            "the server's certificate has been revoked (`sslcrl`)".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(why)) => format!(
            "the server's certificate cannot be verified: {why} (a self-signed one must itself be \
             in `sslrootcert`)"
        ),
        rustls::Error::General(why) => why.clone(),
        rustls::Error::AlertReceived(alert) => {
            format!("the server broke off TLS with the alert {alert:?} (`sslcert`, `sslkey`)")
        }
        other => other.to_string(),
    }
}

/// webpki's `DnsName("db.example")` or `IpAddress(127.0.0.1)` for people: what is in the brackets.
fn alternative_name(name: &str) -> String {
    let value = name
        .trim_start_matches(|c| c != '(')
        .trim_matches(['(', ')', '"']);
    format!("`{value}`")
}

/// Connects by TLS with the settings, once a server wants it. Clones share what they have seen.
#[derive(Clone)]
pub(crate) struct LazyTls {
    settings: Arc<TlsSettings>,
    /// Whether the name was given: a bare address is not enough for `verify-full`.
    has_name: bool,
    started: Arc<AtomicBool>,
}

impl LazyTls {
    pub(crate) fn new(settings: &TlsSettings, has_name: bool) -> LazyTls {
        LazyTls {
            settings: Arc::new(settings.clone()),
            has_name,
            started: Arc::default(),
        }
    }

    /// Whether the server agreed to TLS, so that a handshake was begun.
    pub(crate) fn started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }
}

type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl MakeTlsConnect<Socket> for LazyTls {
    type Stream = RustlsStream;
    type TlsConnect = LazyHandshake;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<LazyHandshake, Infallible> {
        Ok(LazyHandshake {
            tls: self.clone(),
            host: host.to_owned(),
        })
    }
}

/// One handshake that has not begun.
pub(crate) struct LazyHandshake {
    tls: LazyTls,
    host: String,
}

impl TlsConnect<Socket> for LazyHandshake {
    type Stream = RustlsStream;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<RustlsStream, TlsError>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        self.tls.started.store(true, Ordering::Relaxed);
        Box::pin(async move {
            let config =
                client_config(&self.tls.settings, self.tls.has_name).map_err(TlsError::Setup)?;
            let mut rustls = MakeRustlsConnect::new(config);
            let Ok(handshake) = MakeTlsConnect::<Socket>::make_tls_connect(&mut rustls, &self.host);
            handshake.connect(stream).await.map_err(TlsError::Handshake)
        })
    }
}
