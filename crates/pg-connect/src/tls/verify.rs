//! The verification of the server's certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate::{common_name_matches, is_version_1, public_key, tbs_certificate};
use super::files::{certificates, read_if_exists, system_roots};
use super::{Roots, SslMode, TlsSettings};

/// Verifies the server's certificate as libpq and OpenSSL do.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` if every certificate is accepted, because there are no root certificates.
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
    pub(super) fn load(
        settings: &TlsSettings,
        has_name: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let check_name = settings.mode == SslMode::VerifyFull;
        if check_name && !has_name {
            return Err("`sslmode=verify-full` needs a host name, not `hostaddr` alone".into());
        }
        let roots = match &settings.roots {
            Roots::System { file, folder } => {
                Some(system_roots(file.as_deref(), folder.as_deref())?)
            }
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

fn chain_verifier(
    settings: &TlsSettings,
    roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let mut builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    if let Some(path) = &settings.revocation_list
        && let Some(pem) = read_if_exists(path, "revocation list")?
    {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        if is_version_1(certificate) {
            return Err(rustls::Error::General(VERSION_1.to_owned()));
        }
        match trust
            .chain
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now)
        {
            Ok(_) => {}
            // webpki checks the name last, so the chain is valid. The name is checked below.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            // A self-signed certificate that is its own root, as in the manual, *Creating Certificates*:
            // webpki checks its dates and then refuses it because it is a CA.
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
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if is_version_1(certificate) {
            return Err(rustls::Error::General(VERSION_1.to_owned()));
        }
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        // Reached only if every certificate is accepted; the server must still prove that it has the key.
        if is_version_1(certificate)
            && let Some(key) = tbs_certificate(certificate).as_ref().and_then(public_key)
        {
            return verify_tls13_signature_with_raw_key(message, &key, signature, algorithms);
        }
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Checks that the certificate is for this host, by its subject alternative names, or by its common name,
/// which libpq uses and webpki does not.
fn verify_name(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> Result<(), rustls::Error> {
    let verdict = verify_server_name(&ParsedCertificate::try_from(certificate)?, name);
    match tbs_certificate(certificate) {
        Some(tbs) if verdict.is_err() && common_name_matches(&tbs, name) => Ok(()),
        _ => verdict,
    }
}
