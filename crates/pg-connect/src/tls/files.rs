//! The files that the keywords name: root certificates, revocation lists, client certificate and key.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsSettings;
use super::verify::Verifier;

/// Reads the files that the keywords name, and builds rustls' configuration.
///
/// The error is one line that says which file is wrong.
pub(super) fn client_config(
    settings: &TlsSettings,
    has_name: bool,
) -> Result<ClientConfig, String> {
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
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
    let Some(path) = settings.certificate.as_deref() else {
        return Ok(None);
    };
    // As in libpq, even a file that was named may be missing: the server may not request a certificate.
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

pub(super) fn read_if_exists(path: &Path, what: &str) -> Result<Option<Vec<u8>>, String> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(format!("cannot read {what} `{}`: {error}", path.display())),
    }
}

pub(super) fn certificates(
    pem: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!(
            "`{}` holds no certificate in PEM format",
            path.display()
        )),
    }
}

/// The system's root certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name instead.
pub(super) fn system_roots(
    file: Option<&Path>,
    folder: Option<&Path>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = match (file, folder) {
        (None, None) => rustls_native_certs::load_native_certs(),
        (file, folder) => rustls_native_certs::load_certs_from_paths(file, folder),
    };
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why: Vec<_> = found
        .errors
        .iter()
        .map(|error| format!(" ({error})"))
        .collect();
    Err(format!(
        "this system has no root certificates{}; install them (`ca-certificates`), or name a file \
         by `SSL_CERT_FILE`",
        why.concat()
    ))
}
