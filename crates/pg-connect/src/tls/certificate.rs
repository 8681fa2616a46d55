//! The parts of a certificate that webpki keeps to itself.

use rustls::pki_types::CertificateDer;

/// The parts of a certificate that webpki keeps to itself.
pub(super) struct Outline<'a> {
    pub(super) is_version_1: bool,
    /// The contents of the subject's sequence.
    subject: &'a [u8],
    /// The whole `SubjectPublicKeyInfo`.
    pub(super) public_key: &'a [u8],
}

impl<'a> Outline<'a> {
    /// Walks over the head of a certificate (RFC 5280, 4.1).
    pub(super) fn of(certificate: &'a CertificateDer<'_>) -> Option<Outline<'a>> {
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

/// Whether the subject's common name is the host's: without regard to case, and with a `*.` in
/// front for exactly one label.
pub(super) fn has_common_name(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Some(name) = Outline::of(certificate).and_then(|outline| common_name(outline.subject))
    else {
        return false;
    };
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain.eq_ignore_ascii_case(rest),
        _ => name.eq_ignore_ascii_case(host),
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
}
