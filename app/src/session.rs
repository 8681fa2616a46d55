//! Who is asking: the `sessions` table, and the cookie that names a row of it.
//!
//! The cookie is `<id>.<signature>`. The id is found only in the browser and in the table; the
//! signature (HMAC-SHA256) makes a copy of the table worthless without the key. Whatever a session
//! may do is read from `users` at each request, so a demotion counts at once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use tokio_postgres::types::Type;

use crate::AppState;
use crate::database::{Connection, query_prepared};
use crate::error::Error;
use crate::users::User;

/// How long one lasts, however much it is used.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(14 * 24);

const COOKIE: &str = "session";

/// What cookies are signed with. No `Debug`: it must not be printed.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> anyhow::Result<Key> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        Ok(Key(bytes))
    }

    /// 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Key> {
        Some(Key(decode_hex(text)?.try_into().ok()?))
    }

    /// The inverse of [`Key::from_hex`].
    pub fn to_hex(&self) -> String {
        encode_hex(&self.0)
    }

    /// The cookie's value for a session.
    pub fn sign(&self, session: &str) -> String {
        let signature = self.mac(session).finalize().into_bytes();
        format!("{session}.{}", encode_hex(&signature))
    }

    /// The session that a cookie's value names, if the value is ours.
    pub fn verify<'a>(&self, value: &'a str) -> Option<&'a str> {
        let (session, signature) = value.split_once('.')?;
        self.mac(session)
            .verify_slice(&decode_hex(signature)?)
            .ok()?;
        Some(session)
    }

    fn mac(&self, session: &str) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(session.as_bytes());
        mac
    }
}

/// A session that was found, and whose it is.
pub struct Session {
    /// Its id in the table.
    pub id: String,
    /// Whose it is, as the table has it now.
    pub user: User,
}

/// The session of the request, if it has one that is signed by us and not over.
pub async fn find(state: &AppState, headers: &HeaderMap) -> Result<Option<Session>, Error> {
    let Some(id) = cookie(headers).and_then(|value| state.session_key.verify(value)) else {
        return Ok(None);
    };
    let row = query_prepared(
        &state.database.connection().await?,
        "SELECT users.id, users.email, users.display_name, users.role
             FROM sessions JOIN users ON users.id = sessions.user_id
             WHERE sessions.id = $1::text::uuid AND sessions.expires_at > $2",
        &[Type::TEXT, Type::TIMESTAMPTZ],
        &[&id, &state.clock.now()],
    )
    .await?;
    Ok(match row {
        Some(row) => Some(Session {
            id: id.to_owned(),
            user: User::from_row(&row)?,
        }),
        None => None,
    })
}

/// Ends a session: its cookie is worth nothing from now on, wherever it was copied to.
pub async fn end(db: &Connection, id: &str) -> Result<(), Error> {
    db.execute_typed(
        "DELETE FROM sessions WHERE id = $1::text::uuid",
        &[(&id, Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// The header that gives the browser its cookie.
pub fn set_cookie(
    key: &Key,
    session: &str,
    now: Timestamp,
    expires_at: Timestamp,
    secure: bool,
) -> HeaderValue {
    let seconds = expires_at.duration_since(now).as_secs();
    cookie_header(&key.sign(session), seconds, secure)
}

/// The header that takes it away.
pub fn clear_cookie(secure: bool) -> HeaderValue {
    cookie_header("", 0, secure)
}

fn cookie_header(value: &str, max_age: i64, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
    #[expect(
        clippy::expect_used,
        reason = "a UUID, hexadecimal digits and constants"
    )]
    HeaderValue::from_str(&text).expect("visible ASCII")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// A request by somebody who has signed in.
pub struct SignedIn(pub Session);

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        match find(state, &parts.headers).await? {
            Some(session) => Ok(SignedIn(session)),
            None => Err(Error::SignInFirst),
        }
    }
}

/// A request by an administrator.
pub struct Admin(pub User);

impl FromRequestParts<AppState> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let SignedIn(session) = SignedIn::from_request_parts(parts, state).await?;
        if !session.user.is_admin {
            return Err(Error::AdminsOnly);
        }
        Ok(Admin(session.user))
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_signature_counts() {
        let key = Key::generate().unwrap();
        let other = Key::generate().unwrap();
        let value = key.sign("abc");
        assert_eq!(key.verify(&value), Some("abc"));
        assert_eq!(other.verify(&value), None);
        assert_eq!(key.verify("abc"), None);
        assert_eq!(key.verify("abc."), None);
        assert_eq!(key.verify("abc.zz"), None);
        assert_eq!(key.verify(&value.replacen('a', "b", 1)), None);
        assert_eq!(key.verify(&value[..value.len() - 2]), None);
    }

    #[test]
    fn a_key_survives_its_text_form() {
        let key = Key::generate().unwrap();
        let again = Key::from_hex(&key.to_hex()).unwrap();
        assert_eq!(again.verify(&key.sign("abc")), Some("abc"));
        assert!(Key::from_hex("00").is_none());
        assert!(Key::from_hex(&"é".repeat(32)).is_none());
    }
}
