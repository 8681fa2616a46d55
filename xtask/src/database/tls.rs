//! TLS as libpq does it, by rustls: who is trusted, which certificate is shown, and when.
//!
//! No file is read and no configuration is built before a server has said that it speaks TLS: most
//! development servers do not, and reading a system's root certificates takes longer than a query.
//!
//! The rules are those of the manual, *SSL Support* in the libpq chapter, and where it is silent of
//! `fe-secure-openssl.c`: a root certificate file that exists is used in every `sslmode`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName,
    SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connstring::{Origin, Settings};
use crate::error::Result;

/// How much protection is asked for (`sslmode`), in growing order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Which root certificates count (`sslrootcert`).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    /// Those of the system, or the file that stands in for them (`SSL_CERT_FILE`).
    System(Option<PathBuf>),
    /// A file, which only the `verify-…` modes need to exist.
    File(PathBuf),
    /// There is no home folder to look in.
    Nowhere,
}

/// Everything that TLS needs to know; only paths, no file has been read.
#[derive(Clone, Debug)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    /// Start with TLS, without asking first (`sslnegotiation=direct`, PostgreSQL 17).
    pub(crate) direct: bool,
    roots: Roots,
    revocation_list: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    versions: Vec<&'static SupportedProtocolVersion>,
    send_server_name: bool,
}

impl TlsSettings {
    /// Reads the `ssl…` settings; `sslrootcert=system` makes `verify-full` the default mode.
    ///
    /// Fails with a usage error on a value that libpq would refuse.
    pub(crate) fn resolve(
        settings: &mut Settings,
        env: &BTreeMap<String, String>,
    ) -> Result<TlsSettings> {
        let system_roots = settings.get("sslrootcert") == Some("system");
        if system_roots && settings.get("sslmode").is_none() {
            settings.set("sslmode", "verify-full", Origin::Given);
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
                .hint("use `sslmode=verify-full`")
                .into());
        }
        let negotiations = [("postgres", false), ("direct", true)];
        let direct = settings.choice("sslnegotiation", &negotiations, false)?;
        if direct && mode < SslMode::Require {
            return Err(settings
                .invalid("sslnegotiation")
                .cause("without asking the server first there is no way back from TLS")
                .hint("use `sslmode=require` or a stronger one")
                .into());
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
                _ if system_roots => Roots::System(env.get("SSL_CERT_FILE").map(PathBuf::from)),
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

/// The protocol versions between the two bounds; rustls has none older than 1.2.
fn versions(settings: &Settings) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let names = [("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
    let least = settings.choice("ssl_min_protocol_version", &names, 2)?;
    let most = settings.choice("ssl_max_protocol_version", &names, 3)?;
    match (least, most) {
        (0..=2, 3) => Ok(vec![&TLS13, &TLS12]),
        (3, 3) => Ok(vec![&TLS13]),
        (0..=2, 2) => Ok(vec![&TLS12]),
        _ => Err(settings
            .invalid("ssl_max_protocol_version")
            .cause("there is no version from TLSv1.2 on within the bounds")
            .into()),
    }
}

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

    fn make_tls_connect(&mut self, host: &str) -> std::result::Result<LazyHandshake, Infallible> {
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
    type Future = Pin<Box<dyn Future<Output = std::result::Result<RustlsStream, TlsError>> + Send>>;

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

/// Reads the files that the settings name, and builds rustls' configuration.
///
/// Fails with one line that says which file is not as it should be.
fn client_config(
    settings: &TlsSettings,
    has_name: bool,
) -> std::result::Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::load(settings, has_name, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&settings.versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_identity(settings)? {
        Some((chain, key)) => config
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the client certificate cannot be used: {error}"))?,
        None => config.with_no_client_auth(),
    };
    config.enable_sni = settings.send_server_name;
    if settings.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// The client's certificate chain and key, if there is a certificate file.
fn client_identity(
    settings: &TlsSettings,
) -> std::result::Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
    let Some(path) = settings.certificate.as_deref() else {
        return Ok(None);
    };
    // As in libpq even one that was named may be missing: the server may not ask for it.
    let Some(chain) = read_if_exists(path, "client certificate")? else {
        return Ok(None);
    };
    let chain = certificates(&chain, path)?;

    let Some(path) = settings.key.as_deref() else {
        return Err("there is a client certificate, but no home folder to look for its key".into());
    };
    let shown = path.display();
    let metadata = fs::metadata(path)
        .map_err(|error| format!("the client certificate has no key at `{shown}`: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("the client key `{shown}` is not a plain file"));
    }
    if is_open_to_others(&metadata) {
        return Err(format!(
            "the client key `{shown}` is open to others; run `chmod 600 {shown}`"
        ));
    }
    let pem =
        fs::read(path).map_err(|error| format!("cannot read client key `{shown}`: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("`{shown}` holds no unencrypted private key in PEM format"))?;
    Ok(Some((chain, key)))
}

/// libpq's rule for a key file: 0600 or less, or 0640 or less if root owns it.
#[cfg(unix)]
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    metadata.mode() & forbidden != 0
}

/// Elsewhere libpq makes no such check.
#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

fn read_if_exists(path: &Path, what: &str) -> std::result::Result<Option<Vec<u8>>, String> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(format!("cannot read {what} `{}`: {error}", path.display())),
    }
}

fn certificates(
    pem: &[u8],
    path: &Path,
) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!(
            "`{}` holds no certificate in PEM format",
            path.display()
        )),
    }
}

/// Decides about the server's certificate as libpq and OpenSSL would.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` where any certificate will do, since there are no roots to check it against.
    trust: Option<Trust>,
}

#[derive(Debug)]
struct Trust {
    chain: Arc<WebPkiServerVerifier>,
    /// The root certificates themselves: one of them may be the server's own.
    roots: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Verifier {
    fn load(
        settings: &TlsSettings,
        has_name: bool,
        provider: &Arc<CryptoProvider>,
    ) -> std::result::Result<Verifier, String> {
        let check_name = settings.mode == SslMode::VerifyFull;
        if check_name && !has_name {
            return Err("`sslmode=verify-full` needs a host name, not `hostaddr` alone".into());
        }
        let roots = match &settings.roots {
            Roots::System(file) => Some(system_roots(file.as_deref())?),
            Roots::File(path) => match read_if_exists(path, "root certificates")? {
                Some(pem) => Some(certificates(&pem, path)?),
                None if settings.mode >= SslMode::VerifyCa => {
                    return Err(format!(
                        "the root certificate file `{}` does not exist; name one by \
                         `sslrootcert`, or use the system's with `sslrootcert=system`",
                        path.display()
                    ));
                }
                None => None,
            },
            Roots::Nowhere if settings.mode >= SslMode::VerifyCa => {
                return Err(
                    "no `sslrootcert` is given, and there is no home folder to look in".into(),
                );
            }
            Roots::Nowhere => None,
        };
        let trust = match roots {
            Some(roots) => Some(Trust {
                chain: chain_verifier(settings, &roots, provider)?,
                roots,
                check_name,
            }),
            None => None,
        };
        Ok(Verifier {
            provider: Arc::clone(provider),
            trust,
        })
    }
}

/// The system's bundle where OpenSSL's packages keep it: Debian, RHEL, Alpine and macOS.
///
/// Empty stands for the bundle that is compiled in, Mozilla's.
fn system_roots(given: Option<&Path>) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let bundles = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    let usual = bundles.iter().map(Path::new);
    for path in given.into_iter().chain(usual) {
        if let Some(pem) = read_if_exists(path, "root certificates")? {
            return certificates(&pem, path);
        }
    }
    Ok(Vec::new())
}

fn chain_verifier(
    settings: &TlsSettings,
    roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> std::result::Result<Arc<WebPkiServerVerifier>, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    if roots.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let mut builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    if let Some(path) = &settings.revocation_list
        && let Some(pem) = read_if_exists(path, "revocation list")?
    {
        let lists: std::result::Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        let lists = lists.map_err(|_| format!("`{}` holds no revocation list", path.display()))?;
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    builder
        .build()
        .map_err(|error| format!("the root certificates cannot be used: {error}"))
}

/// OpenSSL 3.0 makes such certificates by default: by `x509 -req` without extensions, as in the
/// manual's *Creating Certificates*. webpki knows version 3 only.
const VERSION_1: &str = "the server's certificate is of X.509 version 1, which cannot be verified \
                         here; have it issued again with a `subjectAltName`, which makes it \
                         version 3";

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        if Outline::of(certificate).is_some_and(|outline| outline.is_version_1) {
            return Err(rustls::Error::General(VERSION_1.to_owned()));
        }
        match trust
            .chain
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now)
        {
            Ok(_) => {}
            // The name is judged last, so the chain is good; whether the name matters, see below.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            // A self-signed certificate that is its own root, as the server chapter of the manual
            // makes one: webpki judges its dates, then refuses it for being a CA.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if trust.roots.iter().any(|root| root == certificate) => {}
            Err(error) => return Err(error),
        }
        if trust.check_name {
            verify_name(certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if Outline::of(certificate).is_some_and(|outline| outline.is_version_1) {
            return Err(rustls::Error::General(VERSION_1.to_owned()));
        }
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match Outline::of(certificate) {
            // Reached only where any certificate will do; the key is still the server's to prove.
            Some(outline) if outline.is_version_1 => {
                let key = SubjectPublicKeyInfoDer::from(outline.public_key);
                verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Whether the certificate is for this host: by its alternative names or, where it has none, by its
/// common name as libpq does and webpki does not.
fn verify_name(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> std::result::Result<(), rustls::Error> {
    match verify_server_name(&ParsedCertificate::try_from(certificate)?, name) {
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) if presented.is_empty() && has_common_name(certificate, &name.to_str()) => Ok(()),
        verdict => verdict,
    }
}

/// Whether the subject's common name is the host's: without regard to case, and with a `*.` in
/// front for exactly one label.
fn has_common_name(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Some(name) = Outline::of(certificate).and_then(|outline| common_name(outline.subject))
    else {
        return false;
    };
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain.eq_ignore_ascii_case(rest),
        _ => name.eq_ignore_ascii_case(host),
    }
}

/// The parts of a certificate that webpki keeps to itself.
struct Outline<'a> {
    is_version_1: bool,
    /// The contents of the subject's sequence.
    subject: &'a [u8],
    /// The whole `SubjectPublicKeyInfo`.
    public_key: &'a [u8],
}

impl<'a> Outline<'a> {
    /// Walks over the head of a certificate (RFC 5280, 4.1).
    fn of(certificate: &'a CertificateDer<'_>) -> Option<Outline<'a>> {
        const EXPLICIT_VERSION: u8 = 0xa0;
        let (certificate, _) = element(certificate)?;
        let (mut rest, _) = element(certificate.contents)?;
        let is_version_1 = rest.contents.first() != Some(&EXPLICIT_VERSION);
        let mut next = || {
            let (found, after) = element(rest.contents)?;
            rest.contents = after;
            Some(found)
        };
        if !is_version_1 {
            next()?;
        }
        let [_serial, _signature, _issuer, _validity] = [next()?, next()?, next()?, next()?];
        Some(Outline {
            is_version_1,
            subject: next()?.contents,
            public_key: next()?.whole,
        })
    }
}

/// The first common name of a subject, if it is text.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    while !subject.is_empty() {
        let (set, rest) = element(subject)?;
        let (attribute, _) = element(set.contents)?;
        let (kind, value) = element(attribute.contents)?;
        if kind.contents == COMMON_NAME {
            let text = std::str::from_utf8(element(value)?.0.contents).ok()?;
            return Some(text).filter(|text| !text.contains('\0'));
        }
        subject = rest;
    }
    None
}

/// One element in DER: tag, length, contents.
struct Element<'a> {
    whole: &'a [u8],
    contents: &'a [u8],
}

/// Splits off the first element; `None` where the bytes are no DER.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (header, length) = match *bytes.get(1)? {
        short if short < 0x80 => (2, usize::from(short)),
        long => {
            let digits = bytes.get(2..2 + usize::from(long & 0x7f))?;
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (2 + digits.len(), length)
        }
    };
    let end = header.checked_add(length)?;
    let whole = bytes.get(..end)?;
    let contents = &whole[header..];
    Some((Element { whole, contents }, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/O=Test/CN=db.example`, version 3, self-signed.
    const NEW: &str = "\
-----BEGIN CERTIFICATE-----
MIIBoDCCAUWgAwIBAgIUH3/USf45ITOGy4zLjeGg/nmQlD4wCgYIKoZIzj0EAwIw
JDENMAsGA1UECgwEVGVzdDETMBEGA1UEAwwKZGIuZXhhbXBsZTAgFw0yNjExMjIx
MTQxNTVaGA8yMTI2MTAyOTExNDE1NVowJDENMAsGA1UECgwEVGVzdDETMBEGA1UE
AwwKZGIuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFY3QNNN/nTH
UtE7KbS52+el99+8wHN/MAuJMZzF3UvE02JcqdWwLxe8PaTRsX/t+DkSmuZflRn+
yuFhv07SCKyjUzBRMB0GA1UdDgQWBBTpDqKNJQ4T8+r6M3bOfxcxWajSjDAfBgNV
HSMEGDAWgBTpDqKNJQ4T8+r6M3bOfxcxWajSjDAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0kAMEYCIQDbUzQZLpWLddPsgeH96LT2wePI+cPjpSHU2baYqlfI
yAIhAI2n3F5HUQF1POPkqSisJWnEG1SWzRa/kkQlA7MVVE1m
-----END CERTIFICATE-----
";

    /// `/O=Test/CN=*.db.example`, version 1, self-signed.
    const OLD: &str = "\
-----BEGIN CERTIFICATE-----
MIIBSDCB7wIUODEMOFx+a5eGf0LugZwSP0Tl6uQwCgYIKoZIzj0EAwIwJjENMAsG
A1UECgwEVGVzdDEVMBMGA1UEAwwMKi5kYi5leGFtcGxlMCAXDTI2MTEyMjExNDE1
NVoYDzIxMjYxMDI5MTE0MTU1WjAmMQ0wCwYDVQQKDARUZXN0MRUwEwYDVQQDDAwq
LmRiLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARWN0DTTf50x1LR
Oym0udvnpfffvMBzfzALiTGcxd1LxNNiXKnVsC8XvD2k0bF/7fg5EprmX5UZ/srh
Yb9O0gisMAoGCCqGSM49BAMCA0gAMEUCIQDC6W9EMhig13xsUrf8JPDUXRU0Rmi8
n77kVEM2EMsfsgIgYNaiDGUaBeJAdSlwimAJNjc5OthP8HgmqOES6ah4suA=
-----END CERTIFICATE-----
";

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_common_name_is_found_and_matched_as_libpq_does() {
        let (plain, wildcard) = (certificate(NEW), certificate(OLD));
        let table = [
            (&plain, "db.example", true),
            (&plain, "DB.Example", true),
            (&plain, "example", false),
            (&plain, "a.db.example", false),
            (&wildcard, "a.db.example", true),
            (&wildcard, "db.example", false),
            (&wildcard, "a.b.db.example", false),
        ];
        for (certificate, host, expected) in table {
            assert_eq!(has_common_name(certificate, host), expected, "{host}");
        }
    }

    #[test]
    fn the_outline_tells_the_versions_apart_and_survives_what_is_no_certificate() {
        let new = certificate(NEW);
        let old = certificate(OLD);
        assert!(!Outline::of(&new).unwrap().is_version_1);
        let outline = Outline::of(&old).unwrap();
        assert!(outline.is_version_1);
        assert_eq!(outline.public_key, Outline::of(&new).unwrap().public_key);
        for end in 0..150 {
            assert!(Outline::of(&CertificateDer::from(&new[..end])).is_none());
        }
        assert!(
            Outline::of(&CertificateDer::from(&[0x30, 0x84, 255, 255, 255, 255][..])).is_none()
        );
    }

    #[test]
    fn the_system_roots_insist_on_the_host_name() {
        let resolve = |given: &str| {
            let mut settings = crate::database::connstring::parse(given).unwrap();
            TlsSettings::resolve(&mut settings, &BTreeMap::new())
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
