//! `postgres://user:password@host:port,…/dbname?keyword=value&…`, as libpq reads it
//! (`conninfo_uri_parse_options`).

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::host::port_number;
use crate::settings::{Origin, Settings};

const ENCODE: &str = "in a URL these characters of a user name or password are written as codes: \
                      `@` `%40`, `:` `%3A`, `/` `%2F`, `?` `%3F`, `#` `%23`, `%` `%25`, \
                      space `%20`";

/// Parses what follows the scheme: `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`.
///
/// The first `@` before the first `/` ends the credentials. So a password with an unencoded `@` or `/`
/// leaves an `@` among the hosts or in the path. That is refused: a part of the password would become a
/// host or database name, and be shown.
pub(super) fn parse(uri: &str) -> Result<Settings> {
    if uri.contains(char::is_whitespace) {
        return Err(Error::invalid("the connection URL contains a space").hint(ENCODE));
    }

    let slash = uri.find('/').unwrap_or(uri.len());
    let (credentials, rest) = match uri[..slash].find('@') {
        Some(at) => (&uri[..at], &uri[at + 1..]),
        None => ("", uri),
    };
    if until(rest, &['?']).0.contains('@') {
        return Err(
            Error::invalid("the connection URL has an `@` that is not encoded")
                .cause(
                    "one of the user name, the password or the database name contains it, or a `/`",
                )
                .hint(ENCODE),
        );
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (names, ports, rest) = take_hosts(rest)?;
    let (dbname, rest) = until(rest.strip_prefix('/').unwrap_or(rest), &['?']);

    let mut settings = Settings::default();
    let parts = [
        ("user", decode(user, "user name")?),
        ("password", decode(password, "password")?),
        ("host", decode(&names, "host")?),
        ("port", ports),
        ("dbname", decode(dbname, "database name")?),
    ];
    for (keyword, value) in parts {
        if !value.is_empty() {
            settings.set(keyword, value, Origin::ConnectionString);
        }
    }
    let mut parameters = rest.strip_prefix('?').unwrap_or(rest);
    while !parameters.is_empty() {
        let (parameter, rest) = parameters.split_once('&').unwrap_or((parameters, ""));
        take_parameter(parameter, &mut settings)?;
        parameters = rest;
    }
    Ok(settings)
}

/// Splits before the first of these characters.
fn until<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Takes `host:port,host:port` off the front, as libpq's two lists, `host,host` and `port,port`.
///
/// An invalid port is not shown: in `postgres://user:secret` the port is `secret`.
fn take_hosts(mut rest: &str) -> Result<(String, String, &str)> {
    let (mut names, mut ports) = (String::new(), String::new());
    loop {
        let name;
        (name, rest) = match rest.strip_prefix('[') {
            Some(address) => take_bracketed(address)?,
            None => until(rest, &[':', '/', '?', ',']),
        };
        names.push_str(name);
        if let Some(port) = rest.strip_prefix(':') {
            let port_text;
            (port_text, rest) = until(port, &['/', '?', ',']);
            ports.push_str(&port_of(port_text)?);
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok((names, ports, rest)),
        }
        names.push(',');
        ports.push(',');
    }
}

/// Takes `address]` off the front; the `[` is already removed.
fn take_bracketed(text: &str) -> Result<(&str, &str)> {
    let Some((address, rest)) = text.split_once(']') else {
        return Err(Error::invalid(
            "an IPv6 address in the connection URL lacks its `]`",
        ));
    };
    if address.is_empty() {
        return Err(Error::invalid(
            "an IPv6 address in the connection URL is empty",
        ));
    }
    match rest.is_empty() || rest.starts_with([':', '/', '?', ',']) {
        true => Ok((address, rest)),
        false => Err(Error::invalid(
            "an IPv6 address in the connection URL is followed by neither `:` nor `/`",
        )),
    }
}

fn port_of(text: &str) -> Result<String> {
    match decode(text, "port") {
        Ok(port) if port.is_empty() || port_number(&port).is_some() => Ok(port),
        _ => Err(
            Error::invalid("the port in the connection URL is not a number from 1 to 65535")
                .cause("what follows `:` is a port, unless an `@` further on makes it a password")
                .hint(
                    "write an IPv6 address in brackets, as in `postgres://user@[::1]:5432/dbname`",
                )
                .hint(ENCODE)
                .hint("quote the value in `.env`: there a `#` or a space can cut it short"),
        ),
    }
}

/// Reads one `keyword=value` after the `?`.
fn take_parameter(parameter: &str, settings: &mut Settings) -> Result {
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
    let value = decode(value, "value of a parameter")?;
    // JDBC's spelling, which libpq accepts in this one form.
    if (name.as_str(), value.as_str()) == ("ssl", "true") {
        settings.set_from_string("sslmode", "require".to_owned());
        return Ok(());
    }
    let keyword = settings.keyword(&name)?;
    settings.set_from_string(keyword, value);
    Ok(())
}

/// Decodes the `%XX` of one part of a URL. Incomplete codes and `%00` are errors (`conninfo_uri_decode`
/// in `fe-connect.c`).
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
