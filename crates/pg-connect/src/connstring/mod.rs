//! libpq's connection URIs and `keyword=value` strings, parsed into [`Settings`]. No file is read and
//! no default is added here (see `conninfo`).
//!
//! The grammar is that of the libpq chapter of the manual, *Connection Strings*. No message here
//! repeats a part of the string that could be a part of a password.

mod pairs;
mod uri;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Parses a connection string of either form.
///
/// An error names the place, never the text around it.
pub(crate) fn parse(given: &str) -> Result<Settings> {
    let trimmed = given.trim_ascii();
    if trimmed.is_empty() {
        return Err(Error::invalid("the connection string is empty").hint(EXAMPLE));
    }
    for prefix in ["postgresql://", "postgres://"] {
        if let Some(rest) = trimmed.strip_prefix(prefix) {
            return uri::parse(rest);
        }
    }
    refuse_lookalikes(trimmed)?;
    pairs::parse(given)
}

const EXAMPLE: &str = "write it as `postgres://user:password@host:5432/dbname`, or as \
                       `host=… port=5432 dbname=… user=…`";

/// Refuses strings of neither form that look like a URL or a database name.
fn refuse_lookalikes(text: &str) -> Result {
    if text.starts_with("jdbc:") {
        return Err(
            Error::invalid("`jdbc:` URLs are for Java, not a PostgreSQL connection URL")
                .hint(EXAMPLE),
        );
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.is_empty() && scheme.chars().all(is_scheme) {
            return Err(Error::invalid(format!(
                "`{scheme}://` is not a PostgreSQL connection URL"
            ))
            .cause("it must begin with `postgres://` or `postgresql://`, in lowercase")
            .hint(EXAMPLE));
        }
    }
    for scheme in ["postgresql", "postgres"] {
        let rest = text.strip_prefix(scheme);
        if rest.is_some_and(|rest| rest.starts_with([':', '/'])) {
            return Err(Error::invalid(format!(
                "a connection URL begins with `{scheme}://`, and `://` is not complete here"
            ))
            .hint(EXAMPLE));
        }
    }
    if !text.contains('=') {
        return Err(Error::invalid(
            "the connection string is neither a URL nor `keyword=value` pairs: no `=` in it",
        )
        .cause("a database name alone is not enough, write `dbname=…`")
        .hint(EXAMPLE));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&'static str, String)> {
        let settings = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        settings.iter().map(|(k, v)| (k, v.to_owned())).collect()
    }

    fn refusal(text: &str) -> Error {
        parse(text).expect_err(text)
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
                &[
                    ("dbname", ""),
                    ("password", r"it's \ here"),
                    ("user", "a b"),
                ],
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
