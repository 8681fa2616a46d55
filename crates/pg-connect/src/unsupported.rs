//! The keywords of libpq that are refused, because ignoring them would make the session less secure.

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Keywords that `psql` supports and the client crate does not, or that could be passed to `psql` only in
/// an argument, which every local user can read. Each with the values that are accepted, and a hint.
const UNSUPPORTED: &[(&str, &[&str], &str)] = &[
    (
        "sslpassword",
        &[],
        "encrypted client keys are not supported; decrypt yours with \
         `openssl pkey -in client.key -out plain.key` and `chmod 600 plain.key`",
    ),
    ("scram_client_key", &[], "give the password instead"),
    ("scram_server_key", &[], "give the password instead"),
    (
        "oauth_issuer",
        &[],
        "give a password or a client certificate instead",
    ),
    (
        "oauth_client_id",
        &[],
        "give a password or a client certificate instead",
    ),
    (
        "oauth_client_secret",
        &[],
        "give a password or a client certificate instead",
    ),
    (
        "oauth_scope",
        &[],
        "give a password or a client certificate instead",
    ),
    (
        "require_auth",
        &[],
        "to insist on a server that knows the password, use `channel_binding=require`",
    ),
    (
        "requirepeer",
        &[],
        "use TCP and `sslmode=verify-full` to know the server",
    ),
    (
        "sslcrldir",
        &[],
        "put the revocation lists into one file for `sslcrl`",
    ),
    (
        "sslcertmode",
        &["allow", "disable"],
        "use `sslcertmode=allow`",
    ),
    (
        "gssencmode",
        &["disable", "prefer"],
        "use `gssencmode=disable` and TLS",
    ),
    (
        "min_protocol_version",
        &["3.0"],
        "leave it out: the client speaks version 3.0",
    ),
    (
        "replication",
        &["false", "off", "no", "0"],
        "connect to a database",
    ),
];

pub(crate) fn refuse_unsupported(settings: &Settings) -> Result {
    for (keyword, harmless, hint) in UNSUPPORTED {
        let refused = settings
            .get(keyword)
            .filter(|value| !harmless.contains(value));
        if let (Some(_), Some(origin)) = (refused, settings.origin(keyword)) {
            return Err(
                Error::invalid(format!("`{keyword}` in {origin} is not supported")).hint(*hint),
            );
        }
    }
    Ok(())
}
