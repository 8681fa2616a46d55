//! Connections to the database: a small pool, TLS, time limits.
//!
//! A statement is one round trip. The few that every login or page runs are kept prepared
//! ([`query_prepared`]), and prepared again where an `ALTER TABLE` has overtaken them. All others go out
//! with their parameters' types (`query_typed`), and the server forgets them at once: they are planned
//! for the values that they have.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Row;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Error;

/// A connection of the pool; dropping it gives it back.
pub type Connection = deadpool_postgres::Object;

/// How long a request waits for a connection before it is told that we are busy.
const WAIT: Duration = Duration::from_secs(3);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Nothing that a page asks for may take longer; without this a query whose reader has gone away would
/// go on.
const SESSION_SETTINGS: &str = "SET statement_timeout = '5s'";

/// The pool. Nothing connects before the first request for a connection.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

impl Database {
    /// A pool of at most so many connections.
    ///
    /// # Errors
    /// If the address, or the TLS settings in it, cannot be understood.
    pub fn new(url: &str, connections: usize) -> anyhow::Result<Database> {
        let (url, tls) = take_tls_settings(url)?;
        // Its own error would quote the address, and the password in it.
        let Ok(mut config) = url.parse::<tokio_postgres::Config>() else {
            bail!("the database's address is neither a URL nor key=value pairs");
        };
        config.ssl_mode(tls.mode);
        config.connect_timeout(CONNECT);
        config.tcp_user_timeout(Duration::from_secs(10));
        if config.get_application_name().is_none() {
            config.application_name("app");
        }
        let manager = Manager::from_config(
            config,
            MakeRustlsConnect::new(tls.client_config()?),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(CONNECT))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    let set = client.batch_execute(SESSION_SETTINGS).await;
                    set.map_err(HookError::Backend)
                })
            }))
            .build()
            .context("cannot make a pool of connections")?;
        Ok(Database { pool })
    }

    /// A connection. Do not wait for anything else while you hold one.
    ///
    /// # Errors
    /// If none is free in time, or the database cannot be reached.
    pub async fn connection(&self) -> Result<Connection, Error> {
        Ok(self.pool.get().await?)
    }
}

/// Runs a statement that is kept prepared on its connection, which halves what it costs the server.
/// Returns its row, if there is one.
///
/// # Errors
/// If the database says no.
pub async fn query_prepared(
    db: &Connection,
    sql: &str,
    types: &[Type],
    values: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, tokio_postgres::Error> {
    let statement = db.prepare_typed_cached(sql, types).await?;
    match db.query_opt(&statement, values).await {
        Err(error) if is_outdated(&error) => {
            db.statement_cache.remove(sql, types);
            let statement = db.prepare_typed_cached(sql, types).await?;
            db.query_opt(&statement, values).await
        }
        result => result,
    }
}

/// Whether it is the prepared statement that is wrong, in which case nothing was done: the type of a
/// column has changed since ("cached plan must not change result type"), or a pooler has lost it.
fn is_outdated(error: &tokio_postgres::Error) -> bool {
    let outdated = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    error.code().is_some_and(|code| outdated.contains(code))
}

/// libpq's `sslmode` and `sslrootcert`, of which tokio-postgres knows only the weaker modes.
struct TlsSettings {
    mode: SslMode,
    verify: bool,
    roots: Option<String>,
}

/// Takes the TLS settings out of an address.
///
/// Not supported: `allow` and `verify-ca`, client certificates, revocation lists.
fn take_tls_settings(url: &str) -> anyhow::Result<(String, TlsSettings)> {
    let (mut mode, mut roots) = (None, None);
    let mut is_ours = |key: &str, value: String| match key {
        "sslmode" => {
            mode = Some(value);
            true
        }
        "sslrootcert" => {
            roots = Some(value);
            true
        }
        _ => false,
    };
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let rest = if is_url {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8();
            if !is_ours(&decoded(key)?, decoded(value)?.into_owned()) {
                kept.push(pair);
            }
        }
        match kept.as_slice() {
            [] => base.to_owned(),
            kept => format!("{base}?{}", kept.join("&")),
        }
    } else {
        let mut kept = Vec::new();
        for (pair, key, value) in pairs(url) {
            if !is_ours(key, value) {
                kept.push(pair);
            }
        }
        kept.join(" ")
    };

    let (mode, verify) = match mode.as_deref() {
        Some("disable") => (SslMode::Disable, false),
        // As in libpq, a root certificate that is named is used.
        None | Some("prefer") => (SslMode::Prefer, roots.is_some()),
        Some("require") => (SslMode::Require, roots.is_some()),
        Some("verify-full") => (SslMode::Require, true),
        Some(other) => bail!(
            "sslmode={other} is not supported\n\nhint: use disable, prefer, require or verify-full"
        ),
    };
    Ok((
        rest,
        TlsSettings {
            mode,
            verify,
            roots,
        },
    ))
}

/// The `key=value` pairs of an address, each as it is written and as it is meant. As libpq reads them:
/// there may be white space around `=`, and a value may stand in single quotes.
fn pairs(text: &str) -> Vec<(&str, &str, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=').unwrap_or((rest, ""));
        let behind = behind.trim_start();
        let (mut value, mut quoted, mut end) = (String::new(), false, behind.len());
        let mut chars = behind.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                '\'' if at == 0 => quoted = true,
                '\'' if quoted => {
                    end = at + 1;
                    break;
                }
                c if c.is_whitespace() && !quoted => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        let behind = &behind[end..];
        pairs.push((&rest[..rest.len() - behind.len()], key.trim_end(), value));
        rest = behind.trim_start();
    }
    pairs
}

impl TlsSettings {
    fn client_config(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("cannot set TLS up")?;
        let config = if self.verify {
            config.with_root_certificates(self.root_certificates()?)
        } else {
            config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        };
        Ok(config.with_no_client_auth())
    }

    /// Those of a file, or those that browsers trust.
    fn root_certificates(&self) -> anyhow::Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        match self.roots.as_deref() {
            None | Some("system") => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                let attempted = || format!("cannot read certificates from {path} (sslrootcert)");
                for certificate in CertificateDer::pem_file_iter(path).with_context(attempted)? {
                    store.add(certificate.with_context(attempted)?)?;
                }
            }
        }
        Ok(store)
    }
}

/// Trusts whatever certificate a server shows: what `sslmode=require` means to libpq, too. It keeps
/// listeners out, not impostors.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_settings_are_taken_out_of_an_address() {
        let table = [
            ("postgres://h/d", "postgres://h/d", SslMode::Prefer, false),
            (
                "postgres://h/d?sslmode=disable",
                "postgres://h/d",
                SslMode::Disable,
                false,
            ),
            (
                "postgresql://h/d?a=b&sslmode=require&c=d",
                "postgresql://h/d?a=b&c=d",
                SslMode::Require,
                false,
            ),
            (
                "host=h sslmode=verify-full dbname=d",
                "host=h dbname=d",
                SslMode::Require,
                true,
            ),
            (
                "postgres://h/d?ssl%6Dode=require",
                "postgres://h/d",
                SslMode::Require,
                false,
            ),
        ];
        for (given, rest, mode, verify) in table {
            let (found, tls) = take_tls_settings(given).unwrap();
            assert_eq!(found, rest);
            assert_eq!((tls.mode, tls.verify), (mode, verify), "{given}");
        }
        // As libpq reads it, there may be white space around the sign, and quotes.
        for pair in [
            "sslmode = require",
            "sslmode =require",
            "sslmode\t=\trequire",
            "\nsslmode=\nrequire\n",
            "sslmode='require'",
            "sslmode = 'requ\\ire'",
        ] {
            let given = format!("password = 'a b=\\'c' {pair} host = h");
            let (found, tls) = take_tls_settings(&given).unwrap();
            assert_eq!(found, "password = 'a b=\\'c' host = h", "{pair}");
            assert_eq!(tls.mode, SslMode::Require, "{pair}");
        }
        assert!(take_tls_settings("host=h sslmode = 'verify-ca'").is_err());
        assert!(take_tls_settings("postgres://h/d?sslmode=verify-ca").is_err());
        let (_, tls) = take_tls_settings("postgres://h/d?sslrootcert=%2Ftmp%2Fa%20b").unwrap();
        assert_eq!(tls.roots.as_deref(), Some("/tmp/a b"));
    }

    #[test]
    fn an_address_that_is_none_keeps_its_password_to_itself() {
        let error = Database::new("postgres://me:secret@host:port/db", 1)
            .err()
            .unwrap();
        assert!(!format!("{error:#}").contains("secret"));
    }
}
