//! The parts of a certificate that webpki does not show, read with `x509-cert`.

use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::{Certificate, TbsCertificate, Version};

/// The signed part of a certificate (RFC 5280, `TBSCertificate`); `None` if the bytes are not a
/// certificate.
pub(super) fn tbs_certificate(certificate: &CertificateDer<'_>) -> Option<TbsCertificate> {
    Some(Certificate::from_der(certificate).ok()?.tbs_certificate)
}

pub(super) fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    tbs_certificate(certificate).is_some_and(|tbs| tbs.version == Version::V1)
}

pub(super) fn public_key(tbs: &TbsCertificate) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let key = tbs.subject_public_key_info.to_der().ok()?;
    Some(SubjectPublicKeyInfoDer::from(key))
}

/// Whether the subject's common name is this host. As in libpq, it is used only if the certificate has no
/// subject alternative name of the host's kind (manual, *Client Verification of Server Certificates*;
/// `pgtls_verify_peer_name_matches_certificate_guts` in `fe-secure-openssl.c`).
pub(super) fn common_name_matches(tbs: &TbsCertificate, host: &ServerName<'_>) -> bool {
    let names = match tbs.get::<SubjectAltName>() {
        Ok(names) => names.map_or(Vec::new(), |(_, names)| names.0),
        Err(_) => return false,
    };
    let is_of_its_kind = |name: &GeneralName| match host {
        ServerName::IpAddress(_) => matches!(name, GeneralName::IpAddress(_)),
        _ => matches!(name, GeneralName::DnsName(_)),
    };
    !names.iter().any(is_of_its_kind)
        && common_name(tbs).is_some_and(|name| matches(name, &host.to_str()))
}

/// The first common name of the subject, if it is text.
fn common_name(tbs: &TbsCertificate) -> Option<&str> {
    let mut attributes = tbs.subject.0.iter().flat_map(|part| part.0.iter());
    let found = attributes.find(|attribute| attribute.oid == COMMON_NAME)?;
    let text = std::str::from_utf8(found.value.value()).ok()?;
    Some(text).filter(|text| !text.contains('\0'))
}

/// Compares without regard to case; a leading `*.` stands for exactly one label
/// (`wildcard_certificate_match` in `fe-secure-common.c`).
fn matches(name: &str, host: &str) -> bool {
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain.eq_ignore_ascii_case(rest),
        _ => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

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
            let tbs = tbs_certificate(certificate).unwrap();
            let host = ServerName::try_from(host).unwrap();
            assert_eq!(common_name_matches(&tbs, &host), expected, "{host:?}");
        }
    }

    #[test]
    fn versions_are_told_apart_and_what_is_no_certificate_survived() {
        let new = certificate(NEW);
        let old = certificate(OLD);
        assert!(!is_version_1(&new));
        assert!(is_version_1(&old));
        let key = |certificate| public_key(&tbs_certificate(certificate).unwrap()).unwrap();
        assert_eq!(key(&old), key(&new));
        for end in 0..new.len() {
            assert!(tbs_certificate(&CertificateDer::from(&new[..end])).is_none());
        }
        let long = &[0x30, 0x84, 255, 255, 255, 255][..];
        assert!(tbs_certificate(&CertificateDer::from(long)).is_none());
    }
}
