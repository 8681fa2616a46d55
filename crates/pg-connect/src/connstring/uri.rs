//! `postgres://user:password@host:port,…/dbname?keyword=value&…`

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::keywords::known_keyword;
use crate::settings::{Origin, Settings};

const ENCODE: &str = "in a URL these characters of a user name or password are written as codes: \
                      `@` `%40`, `:` `%3A`, `/` `%2F`, `?` `%3F`, `#` `%23`, `%` `%25`, \
                      space `%20`";

/// Parses what follows the scheme: `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`.
///
/// As in libpq (`conninfo_uri_parse_options`) the first `@` before the first `/` ends the
/// credentials. So the `@` of a password that was not encoded lands among the hosts, and its `/` turns
/// the `@` into a piece of the path; both are refused here, since a password would become a host or
/// database name, and be shown.
pub(super) fn parse(uri: &str) -> Result<Settings> {
    if uri.contains(char::is_whitespace) {
        return Err(Error::invalid("the connection URL contains a space").hint(ENCODE));
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
            Error::invalid("the connection URL has an `@` that is not encoded")
                .cause(
                    "one of the user name, the password or the database name contains it, or a `/`",
                )
                .hint(ENCODE),
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
                    Error::invalid("an IPv6 address in the connection URL lacks its `]`")
                })?;
                match (rest, rest.strip_prefix(':')) {
                    ("", _) => (address, ""),
                    (_, Some(port)) => (address, port),
                    _ => {
                        return Err(Error::invalid(
                            "an IPv6 address in the connection URL is followed by neither `:` nor `/`",
                        ));
                    }
                }
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        if !(port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(Error::invalid(
                "the port in the connection URL is not a number from 1 to 65535",
            )
            .cause("what follows `:` is a port, unless an `@` further on makes it a password")
            .hint("write an IPv6 address in brackets, as in `postgres://user@[::1]:5432/dbname`")
            .hint(ENCODE)
            .hint("quote the value in `.env`: there a `#` or a space can cut it short"));
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
            Error::invalid("a parameter after `?` in the connection URL lacks its `=`")
                .hint("write `?keyword=value&keyword=value`; a `&` within a value is `%26`"),
        );
    };
    if value.contains('=') {
        return Err(
            Error::invalid("a parameter after `?` in the connection URL has a second `=`")
                .hint("write a `=` within a value as `%3D`, as in `?options=-csearch_path%3Dapp`"),
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
        |why: &str| Error::invalid(format!("the {what} in the connection URL {why}")).hint(ENCODE);
    for (at, _) in text.match_indices('%') {
        match text.as_bytes().get(at + 1..at + 3) {
            Some(b"00") => return Err(bad("contains `%00`")),
            Some(code) if code.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(bad("has a `%` that two hexadecimal digits do not follow")),
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(bad("is not UTF-8 once decoded")),
    }
}
