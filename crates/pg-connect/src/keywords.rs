//! libpq's connection keywords, their environment variables, and suggestions for unknown ones.

use crate::error::{Error, Result};

/// libpq's connection keywords, each with the variable that gives its default.
///
/// From the manual, *Parameter Key Words* and *Environment Variables*, up to PostgreSQL 18.
pub(crate) const KEYWORDS: &[(&str, Option<&str>)] = &[
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("fallback_application_name", None),
    ("gssdelegation", Some("PGGSSDELEGATION")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("gsslib", Some("PGGSSLIB")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("krbsrvname", Some("PGKRBSRVNAME")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    ("min_protocol_version", Some("PGMINPROTOCOLVERSION")),
    ("oauth_client_id", None),
    ("oauth_client_secret", None),
    ("oauth_issuer", None),
    ("oauth_scope", None),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("replication", None),
    ("require_auth", Some("PGREQUIREAUTH")),
    ("requirepeer", Some("PGREQUIREPEER")),
    ("scram_client_key", None),
    ("scram_server_key", None),
    ("service", Some("PGSERVICE")),
    ("servicefile", Some("PGSERVICEFILE")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslcompression", Some("PGSSLCOMPRESSION")),
    ("sslcrl", Some("PGSSLCRL")),
    ("sslcrldir", Some("PGSSLCRLDIR")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslkeylogfile", None),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslpassword", None),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslsni", Some("PGSSLSNI")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// The deprecated predecessor of `sslmode`, which libpq still reads: as a keyword of the connection
/// string, and as an environment variable.
pub(crate) const REQUIRESSL: &str = "requiressl";
pub(crate) const PGREQUIRESSL: &str = "PGREQUIRESSL";

/// Keywords of other clients, each with libpq's keyword for it.
const OTHER_CLIENTS_WORDS: &[(&str, &str)] = &[
    ("database", "dbname"),
    ("db", "dbname"),
    ("hostname", "host"),
    ("pass", "password"),
    ("pwd", "password"),
    ("schema", "options=-csearch_path=…"),
    ("search_path", "options=-csearch_path=…"),
    ("server", "host"),
    ("ssl", "sslmode"),
    ("timeout", "connect_timeout"),
    ("uid", "user"),
    ("username", "user"),
];

/// The environment variables from which libpq takes the defaults of its keywords.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    let variables = KEYWORDS.iter().filter_map(|(_, variable)| *variable);
    variables.chain([PGREQUIRESSL])
}

/// The keyword of this name, or an error that suggests the nearest one.
///
/// After a password an unknown word is not shown: it may be the rest of the password.
pub(crate) fn known_keyword(name: &str, after_password: bool) -> Result<&'static str> {
    if let Some((keyword, _)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == name) {
        return Ok(keyword);
    }
    let failure = match after_password {
        true => Error::invalid("an unknown keyword follows the password in the connection string")
            .hint("a password with a space, a quote or a `&` must be quoted, or in a URL encoded"),
        false => Error::invalid(format!("unknown connection keyword `{name}`")),
    };
    let foreign = OTHER_CLIENTS_WORDS.iter().find(|(word, _)| *word == name);
    let meant = match foreign {
        Some((_, keyword)) => Some(*keyword),
        None => KEYWORDS
            .iter()
            .map(|(keyword, _)| (edit_distance(name, keyword), *keyword))
            .filter(|(edits, _)| *edits <= 2)
            .min()
            .map(|(_, keyword)| keyword),
    };
    Err(match meant {
        Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
        None => failure,
    })
}

/// The Levenshtein distance: how many characters to add, drop or replace to turn one word into the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_of_each_keyword_and_variable_what_becomes_of_it() {
        let readme = include_str!("../README.md");
        for (keyword, variable) in KEYWORDS {
            assert!(readme.contains(&format!("`{keyword}`")), "{keyword}");
            if let Some(variable) = variable {
                assert!(readme.contains(&format!("`{variable}`")), "{variable}");
            }
        }
    }
}
