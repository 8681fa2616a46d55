//! The TLS handshake, once the server has agreed to TLS, and the messages of its errors.

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
    /// A local file is missing, unreadable, open to others or invalid.
    Setup(String),
    /// The handshake failed, or the server's certificate was refused.
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

/// The error of rustls inside an I/O error, if there is one.
pub(crate) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A message for an error of rustls, with the keyword that it depends on.
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

/// What is in the brackets of webpki's `DnsName("db.example")` or `IpAddress(127.0.0.1)`.
fn alternative_name(name: &str) -> String {
    let value = name
        .trim_start_matches(|c| c != '(')
        .trim_matches(['(', ')', '"']);
    format!("`{value}`")
}

/// Builds the TLS configuration when the server has agreed to TLS. Clones share `started`.
#[derive(Clone)]
pub(crate) struct LazyTls {
    settings: Arc<TlsSettings>,
    /// Whether `host` was given: `hostaddr` alone is not enough for `verify-full`.
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

    /// Whether the server agreed to TLS and a handshake was started.
    pub(crate) fn handshake_started(&self) -> bool {
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

/// One handshake that is not started yet.
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
