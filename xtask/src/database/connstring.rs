//! What a person may write: libpq's connection URIs and `keyword=value` strings, parsed into
//! [`Settings`]. Pure: no file is read, no default is filled in (see `conninfo`).
//!
//! The grammar is that of the libpq chapter of the manual, *Connection Strings*. No message here
//! repeats a part of the string that could be a piece of a password.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::error::{Failure, Result};

/// libpq's connection keywords, each with the variable that gives its default.
///
/// From the manual, *Parameter Key Words* and *Environment Variables*, up to PostgreSQL 18.
const KEYWORDS: &[(&str, Option<&str>)] = &[
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

/// What people write who come from another client, and libpq's word for it.
const FOREIGN_WORDS: &[(&str, &str)] = &[
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

/// The environment variables that libpq takes defaults from, all of them keywords here.
///
/// A child that gets its settings as a connection string must not see these as well.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    KEYWORDS.iter().filter_map(|(_, variable)| *variable)
}

/// Where a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The connection string itself.
    Given,
    /// A section of a service file: its name and the file.
    Service(String, String),
    /// An environment variable.
    Variable(&'static str),
    /// A line of a password file.
    PasswordFile(String, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Given => f.write_str("the connection string"),
            Origin::Service(name, file) => write!(f, "service `{name}` of `{file}`"),
            Origin::Variable(name) => write!(f, "`{name}`"),
            Origin::PasswordFile(file, line) => write!(f, "`{file}`, line {line}"),
        }
    }
}

/// Values by libpq's keyword, each with its origin. `Debug` names the keywords only.
#[derive(Clone, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, (String, Origin)>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// The value, where one was given and is not empty: to libpq both mean the default.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        let (value, _) = self.0.get(keyword)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Takes the value out, so that nothing later can show it or pass it on.
    pub(crate) fn take(&mut self, keyword: &str) -> Option<(String, Origin)> {
        self.0
            .remove(keyword)
            .filter(|(value, _)| !value.is_empty())
    }

    pub(crate) fn origin(&self, keyword: &str) -> Option<&Origin> {
        self.0.get(keyword).map(|(_, origin)| origin)
    }

    pub(crate) fn contains(&self, keyword: &str) -> bool {
        self.0.contains_key(keyword)
    }

    /// Sets a value, over an older one: within one string the last one counts.
    pub(crate) fn set(&mut self, keyword: &'static str, value: impl Into<String>, origin: Origin) {
        self.0.insert(keyword, (value.into(), origin));
    }

    /// Sets a value unless a source that goes first has set one, even an empty one.
    pub(crate) fn set_default(&mut self, keyword: &'static str, value: &str, origin: Origin) {
        self.0
            .entry(keyword)
            .or_insert_with(|| (value.to_owned(), origin));
    }

    /// Fills in from the `PG…` variables what no earlier source has set.
    pub(crate) fn fill_from(&mut self, env: &BTreeMap<String, String>) {
        for (keyword, variable) in KEYWORDS {
            let Some(variable) = variable else { continue };
            if let Some(value) = env.get(*variable).filter(|value| !value.is_empty()) {
                self.set_default(keyword, value, Origin::Variable(variable));
            }
        }
    }

    /// The settings that have a value, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0
            .iter()
            .map(|(keyword, (value, _))| (*keyword, value.as_str()))
            .filter(|(_, value)| !value.is_empty())
    }

    /// The one of a keyword's possible values that was chosen, or the default.
    ///
    /// Fails with a usage error that lists the possible values.
    pub(crate) fn choice<T: Copy>(
        &self,
        keyword: &str,
        values: &[(&str, T)],
        default: T,
    ) -> Result<T> {
        let Some(value) = self.get(keyword) else {
            return Ok(default);
        };
        match values.iter().find(|(name, _)| *name == value) {
            Some((_, chosen)) => Ok(*chosen),
            None => {
                let names: Vec<_> = values.iter().map(|(name, _)| format!("`{name}`")).collect();
                Err(self
                    .invalid(keyword)
                    .cause(format!("`{value}` is none of {}", names.join(", ")))
                    .into())
            }
        }
    }

    /// A whole number, if one was given. Fails with a usage error on anything else.
    pub(crate) fn number(&self, keyword: &str) -> Result<Option<i32>> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self
                .invalid(keyword)
                .cause(format!("`{value}` is not a whole number"))
                .into()),
        }
    }

    /// The start of a usage error about one setting's value, which says where it stands.
    pub(crate) fn invalid(&self, keyword: &str) -> Failure {
        match self.origin(keyword) {
            Some(origin) => Failure::usage(format!("invalid `{keyword}` in {origin}")),
            None => Failure::usage(format!("invalid `{keyword}`")),
        }
    }
}

/// Parses a connection string of either form.
///
/// Fails with a usage error that names the place, never the text around it.
pub(crate) fn parse(given: &str) -> Result<Settings> {
    let trimmed = given.trim();
    if trimmed.is_empty() {
        return Err(Failure::usage("the connection string is empty")
            .hint(EXAMPLE)
            .into());
    }
    for prefix in ["postgresql://", "postgres://"] {
        if let Some(rest) = trimmed.strip_prefix(prefix) {
            return parse_uri(rest);
        }
    }
    refuse_lookalikes(trimmed)?;
    parse_pairs(given)
}

const EXAMPLE: &str = "write it as `postgres://user:password@host:5432/dbname`, or as \
                       `host=… port=5432 dbname=… user=…`";

const ENCODE: &str = "in a URL these characters of a user name or password are written as codes: \
                      `@` `%40`, `:` `%3A`, `/` `%2F`, `?` `%3F`, `#` `%23`, `%` `%25`, \
                      space `%20`";

/// Refuses what is neither form but looks like a URL or a name that was meant as one.
fn refuse_lookalikes(text: &str) -> Result {
    if text.starts_with("jdbc:") {
        return Err(
            Failure::usage("`jdbc:` URLs are for Java, not a PostgreSQL connection URL")
                .hint(EXAMPLE)
                .into(),
        );
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.is_empty() && scheme.chars().all(is_scheme) {
            return Err(Failure::usage(format!(
                "`{scheme}://` is not a PostgreSQL connection URL"
            ))
            .cause("it must begin with `postgres://` or `postgresql://`, in lowercase")
            .hint(EXAMPLE)
            .into());
        }
    }
    for scheme in ["postgresql", "postgres"] {
        let rest = text.strip_prefix(scheme);
        if rest.is_some_and(|rest| rest.starts_with([':', '/'])) {
            return Err(Failure::usage(format!(
                "a connection URL begins with `{scheme}://`, and `://` is not complete here"
            ))
            .hint(EXAMPLE)
            .into());
        }
    }
    if !text.contains('=') {
        return Err(Failure::usage(
            "the connection string is neither a URL nor `keyword=value` pairs: no `=` in it",
        )
        .cause("a database name alone is not enough, write `dbname=…`")
        .hint(EXAMPLE)
        .into());
    }
    Ok(())
}

/// Parses what follows the scheme: `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`.
///
/// As in libpq (`conninfo_uri_parse_options`) the first `@` before the first `/` ends the
/// credentials. So the `@` of a password that was not encoded lands among the hosts, and its `/` turns
/// the `@` into a piece of the path; both are refused here, since a password would become a host or
/// database name, and be shown.
fn parse_uri(uri: &str) -> Result<Settings> {
    if uri.contains(char::is_whitespace) {
        return Err(Failure::usage("the connection URL contains a space")
            .hint(ENCODE)
            .into());
    }
    let mut settings = Settings::default();

    let slash = uri.find('/').unwrap_or(uri.len());
    let (credentials, rest) = match uri[..slash].find('@') {
        Some(at) => (&uri[..at], &uri[at + 1..]),
        None => ("", uri),
    };
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    if location.contains('@') {
        return Err(
            Failure::usage("the connection URL has an `@` that is not encoded")
                .cause(
                    "one of the user name, the password or the database name contains it, or a `/`",
                )
                .hint(ENCODE)
                .into(),
        );
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (hosts, dbname) = location.split_once('/').unwrap_or((location, ""));

    let (names, ports) = split_hosts(hosts)?;
    let parts = [
        ("user", decode(user, "user name")?),
        ("password", decode(password, "password")?),
        ("host", decode(&names, "host")?),
        ("port", ports),
        ("dbname", decode(dbname, "database name")?),
    ];
    for (keyword, value) in parts {
        if !value.is_empty() {
            settings.set(keyword, value, Origin::Given);
        }
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        parse_parameter(parameter, &mut settings)?;
    }
    Ok(settings)
}

/// Splits `host:port,host:port` into libpq's two lists, `host,host` and `port,port`.
///
/// A port that is wrong is not shown: of `postgres://user:secret` libpq reads `secret` as one.
fn split_hosts(hosts: &str) -> Result<(String, String)> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or_else(|| {
                    Failure::usage("an IPv6 address in the connection URL lacks its `]`")
                })?;
                match (rest, rest.strip_prefix(':')) {
                    ("", _) => (address, ""),
                    (_, Some(port)) => (address, port),
                    _ => {
                        return Err(Failure::usage(
                            "an IPv6 address in the connection URL is followed by neither `:` nor `/`",
                        )
                        .into());
                    }
                }
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        if !(port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(Failure::usage(
                "the port in the connection URL is not a number from 1 to 65535",
            )
            .cause("what follows `:` is a port, unless an `@` further on makes it a password")
            .hint("write an IPv6 address in brackets, as in `postgres://user@[::1]:5432/dbname`")
            .hint(ENCODE)
            .hint("quote the value in `.env`: there a `#` or a space can cut it short")
            .into());
        }
        names.push(name);
        ports.push(port);
    }
    let ports = match ports.iter().all(|port| port.is_empty()) {
        true => String::new(),
        false => ports.join(","),
    };
    Ok((names.join(","), ports))
}

/// Reads one `keyword=value` after the `?`.
fn parse_parameter(parameter: &str, settings: &mut Settings) -> Result {
    let Some((name, value)) = parameter.split_once('=') else {
        return Err(
            Failure::usage("a parameter after `?` in the connection URL lacks its `=`")
                .hint("write `?keyword=value&keyword=value`; a `&` within a value is `%26`")
                .into(),
        );
    };
    if value.contains('=') {
        return Err(
            Failure::usage("a parameter after `?` in the connection URL has a second `=`")
                .hint("write a `=` within a value as `%3D`, as in `?options=-csearch_path%3Dapp`")
                .into(),
        );
    }
    let name = decode(name, "parameter")?;
    // JDBC's spelling, which libpq takes in this one form.
    if (name.as_str(), value) == ("ssl", "true") {
        settings.set("sslmode", "require", Origin::Given);
        return Ok(());
    }
    let keyword = known_keyword(&name, settings.contains("password"))?;
    let value = decode(value, keyword)?;
    settings.set(keyword, value, Origin::Given);
    Ok(())
}

/// Decodes the `%XX` of one part of a URL, which may neither be broken nor make a NUL.
fn decode(text: &str, what: &str) -> Result<String> {
    let bad =
        |why: &str| Failure::usage(format!("the {what} in the connection URL {why}")).hint(ENCODE);
    for (at, _) in text.match_indices('%') {
        match text.as_bytes().get(at + 1..at + 3) {
            Some(b"00") => return Err(bad("contains `%00`").into()),
            Some(code) if code.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(bad("has a `%` that two hexadecimal digits do not follow").into()),
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(bad("is not UTF-8 once decoded").into()),
    }
}

/// Parses `keyword = value` pairs: values end at a space unless in `'…'`, a backslash takes the
/// next character as it is.
fn parse_pairs(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(settings);
        }

        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let keyword = known_keyword(&name, settings.contains("password"));
        if chars.next_if_eq(&'=').is_none() {
            // The word may be the second half of a password with a space, so it is not shown.
            let after = match keyword {
                Ok(keyword) => format!("after `{keyword}` "),
                Err(_) => String::new(),
            };
            return Err(
                Failure::usage(format!("`=` is missing {after}in the connection string"))
                    .hint("put a value with spaces in quotes, as in `password='two words'`")
                    .into(),
            );
        }
        let keyword = keyword?;
        while chars.next_if(|c| c.is_whitespace()).is_some() {}

        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next_if(|c| quoted || !c.is_whitespace()) {
                Some('\'') if quoted => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
                None if quoted => {
                    return Err(Failure::usage(format!(
                        "the quoted value of `{keyword}` in the connection string has no end"
                    ))
                    .hint("write a `'` within the value as `\\'`")
                    .into());
                }
                None => break,
            }
        }
        settings.set(keyword, value, Origin::Given);
    }
}

/// The keyword of this name, or a usage error that suggests the one meant.
///
/// After a password the unknown word is not shown: it may be the rest of it.
pub(crate) fn known_keyword(name: &str, after_password: bool) -> Result<&'static str> {
    if let Some((keyword, _)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == name) {
        return Ok(keyword);
    }
    let failure = match after_password {
        true => Failure::usage("an unknown keyword follows the password in the connection string")
            .hint("a password with a space, a quote or a `&` must be quoted, or in a URL encoded"),
        false => Failure::usage(format!("unknown connection keyword `{name}`")),
    };
    let foreign = FOREIGN_WORDS.iter().find(|(word, _)| *word == name);
    let meant = match foreign {
        Some((_, keyword)) => Some(*keyword),
        None => KEYWORDS
            .iter()
            .map(|(keyword, _)| (strsim::levenshtein(name, keyword), *keyword))
            .filter(|(edits, _)| *edits <= 2)
            .min()
            .map(|(_, keyword)| keyword),
    };
    Err(match meant {
        Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
        None => failure,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&'static str, String)> {
        let settings = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        settings.iter().map(|(k, v)| (k, v.to_owned())).collect()
    }

    fn refusal(text: &str) -> Failure {
        let error = parse(text).expect_err(text);
        error.downcast_ref::<Failure>().expect(text).clone()
    }

    #[test]
    fn both_forms_as_libpq_reads_them() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("postgres://", &[]),
            ("postgresql://localhost", &[("host", "localhost")]),
            ("postgres:///mydb", &[("dbname", "mydb")]),
            ("postgres://h:5433", &[("host", "h"), ("port", "5433")]),
            (
                "postgres://u:p@h:1/d",
                &[
                    ("dbname", "d"),
                    ("host", "h"),
                    ("password", "p"),
                    ("port", "1"),
                    ("user", "u"),
                ],
            ),
            (
                "postgres://u%40x:p%3A%2F%40%25%23@h/my%20db",
                &[
                    ("dbname", "my db"),
                    ("host", "h"),
                    ("password", "p:/@%#"),
                    ("user", "u@x"),
                ],
            ),
            // The manual's own examples.
            (
                "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
                &[
                    ("application_name", "myapp"),
                    ("connect_timeout", "10"),
                    ("dbname", "otherdb"),
                    ("host", "localhost"),
                    ("user", "other"),
                ],
            ),
            (
                "postgresql://host1:123,host2:456/somedb",
                &[
                    ("dbname", "somedb"),
                    ("host", "host1,host2"),
                    ("port", "123,456"),
                ],
            ),
            (
                "postgresql://user@localhost:5433/mydb?options=-c%20synchronous_commit%3Doff",
                &[
                    ("dbname", "mydb"),
                    ("host", "localhost"),
                    ("options", "-c synchronous_commit=off"),
                    ("port", "5433"),
                    ("user", "user"),
                ],
            ),
            (
                "postgresql://[2001:db8::1234]/database",
                &[("dbname", "database"), ("host", "2001:db8::1234")],
            ),
            (
                "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
                &[("dbname", "dbname"), ("host", "/var/lib/postgresql")],
            ),
            (
                "postgresql:///dbname?host=/var/lib/postgresql",
                &[("dbname", "dbname"), ("host", "/var/lib/postgresql")],
            ),
            (
                "postgres://a,[::1]:2,c/",
                &[("host", "a,::1,c"), ("port", ",2,")],
            ),
            ("postgres://h?user=me", &[("host", "h"), ("user", "me")]),
            (
                "postgres:///d?user=a@b",
                &[("dbname", "d"), ("user", "a@b")],
            ),
            (
                "postgres://h/d?ssl=true",
                &[("dbname", "d"), ("host", "h"), ("sslmode", "require")],
            ),
            // `#` has no meaning to libpq, and a URL's later word counts.
            (
                "postgres://u:a#b?c@h/d?dbname=e",
                &[
                    ("dbname", "e"),
                    ("host", "h"),
                    ("password", "a#b?c"),
                    ("user", "u"),
                ],
            ),
            ("postgres://h/d\n", &[("dbname", "d"), ("host", "h")]),
            (
                "host=h port = 5433  dbname =d",
                &[("dbname", "d"), ("host", "h"), ("port", "5433")],
            ),
            (
                r"password='it\'s \\ here' user=a\ b dbname=''",
                &[("password", r"it's \ here"), ("user", "a b")],
            ),
            ("host=a host=b", &[("host", "b")]),
            ("password=a=b", &[("password", "a=b")]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(k, v)| (*k, v.to_string())).collect();
            assert_eq!(pairs(text), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_mistake_and_never_the_password() {
        let table = [
            ("", "empty"),
            ("  \n", "empty"),
            ("postgres//x:s3cret@h", "`postgres://`"),
            ("postgres:/x:s3cret", "`postgres://`"),
            ("http://u:s3cret@h/d", "`http://` is not a PostgreSQL"),
            (
                "Postgres://u:s3cret@h/d",
                "`Postgres://` is not a PostgreSQL",
            ),
            ("jdbc:postgresql://h/d?password=s3cret", "`jdbc:`"),
            ("s3cret", "neither a URL nor"),
            ("postgres://u:s3cret", "the port"),
            ("postgres://u:53453453", "the port"),
            ("postgres://h:0/d", "the port"),
            ("postgres://u:s3@cret@h/d", "`@` that is not encoded"),
            ("postgres://u:12/s3cret@h/d", "`@` that is not encoded"),
            ("postgres://u:s3/cret@h/d", "`@` that is not encoded"),
            (
                "postgres://u:s3%cret@h/d",
                "password in the connection URL has a `%`",
            ),
            ("postgres://u:s3cret%00@h/d", "`%00`"),
            ("postgres://u:s3cret%ff@h/d", "not UTF-8"),
            ("postgres://u:s3 cret@h/d", "a space"),
            ("postgres://[::1/d", "lacks its `]`"),
            ("postgres://[::1]x/d", "neither"),
            ("postgres://h/d?sslmode", "lacks its `=`"),
            ("postgres://h/d?options=-csearch_path=x", "second `=`"),
            (
                "postgres://h/d?password=s3&cret=1",
                "unknown keyword follows the password",
            ),
            ("password=s3 cret=1", "unknown keyword follows the password"),
            ("password=a s3cret host=h", "`=` is missing"),
            (
                "password='s3cret",
                "`password` in the connection string has no end",
            ),
            ("host h port=1", "`=` is missing after `host`"),
            ("hots=h", "unknown connection keyword `hots`"),
        ];
        for (text, expected) in table {
            let failure = refusal(text);
            assert!(failure.message.contains(expected), "{text}: {failure:?}");
            let everything = format!("{failure:?}");
            for secret in ["s3cret", "cret", "53453453"] {
                assert!(!everything.contains(secret), "{text}: {failure:?}");
            }
        }
    }

    #[test]
    fn an_unknown_keyword_suggests_the_one_meant() {
        let table = [
            ("hots=h", "`host`"),
            ("sslmod=require", "`sslmode`"),
            ("database=d", "`dbname`"),
            ("postgres://h/d?schema=app", "`options=-csearch_path"),
            ("postgres://h/d?username=u", "`user`"),
        ];
        for (text, expected) in table {
            let failure = refusal(text);
            assert!(failure.hints[0].contains(expected), "{text}: {failure:?}");
        }
        assert!(refusal("pgbouncer=true").hints.is_empty());
    }
}
