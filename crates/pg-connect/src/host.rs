//! The servers to try: the lists of `host`, `hostaddr` and `port`.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::ServerName;

use crate::error::Result;
use crate::settings::Settings;

/// The default socket folders: of Debian and the RPMs (both name the same folder), of a source build.
pub(crate) const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

const DEFAULT_PORT: &str = "5432";

/// One server to try: a host name, an address or a socket folder, and a port (manual, *Parameter Key
/// Words*: `host`, `hostaddr`, `port`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `host`: a name, an address or a socket folder. Empty if only `hostaddr` was given.
    pub name: String,
    /// `hostaddr`; of a connection, the address that the name resolved to.
    pub address: Option<IpAddr>,
    /// `port`: the TCP port, or the number in the socket's file name.
    pub port: u16,
    /// `port` as it was written: a password file's lines are compared with that.
    pub(crate) written_port: String,
}

impl Host {
    /// Whether this is a Unix-domain socket: a `host` that begins with `/`, or with `@` for one in the
    /// abstract namespace (manual, *Parameter Key Words*: `host`).
    pub fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with(['/', '@'])
    }

    /// Whether `host` is a name or address that a certificate can be issued for. With `hostaddr` it can
    /// be anything, such as a socket folder, which is then not used.
    pub(crate) fn has_name(&self) -> bool {
        ServerName::try_from(self.name.as_str()).is_ok()
    }

    /// `host` as it was given; if it was not given, the address.
    pub fn name_or_address(&self) -> String {
        match self.address {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ => self.name.clone(),
        }
    }

    /// The host name to look for in a password file: `localhost` for a socket in a default folder
    /// (manual, *The Password File*).
    pub(crate) fn passfile_name(&self) -> String {
        match SOCKET_FOLDERS.contains(&self.name.as_str()) {
            true => "localhost".to_owned(),
            false => self.name_or_address(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.name_or_address();
        match shown.contains(':') {
            true => write!(f, "[{shown}]:{}", self.port),
            false => write!(f, "{shown}:{}", self.port),
        }
    }
}

/// Combines the lists of hosts, addresses and ports as libpq's `connectOptions2` does.
pub(crate) fn take_hosts(settings: &mut Settings, socket_folders: &[&str]) -> Result<Vec<Host>> {
    let list = |keyword| -> Vec<String> {
        let value = settings.get(keyword).unwrap_or_default();
        value.split(',').map(str::to_owned).collect()
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len());
    for (keyword, length) in [
        ("host", names.len()),
        ("hostaddr", addresses.len()),
        ("port", ports.len()),
    ] {
        let missing = settings.get(keyword).is_none();
        if !(missing || length == count || (keyword == "port" && length == 1)) {
            return Err(settings
                .invalid(keyword)
                .cause(format!("{length} values do not match {count} hosts")));
        }
    }

    let mut hosts = Vec::new();
    for index in 0..count {
        let written_port = match ports.get(index).unwrap_or(&ports[0]).as_str() {
            "" => DEFAULT_PORT,
            text => text,
        };
        let port = port_number(written_port).ok_or_else(|| {
            settings
                .invalid("port")
                .cause(format!("`{written_port}` is not a number from 1 to 65535"))
        })?;
        let address = match addresses.get(index).map_or("", String::as_str) {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                settings
                    .invalid("hostaddr")
                    .cause(format!("`{text}` is not an IP address"))
                    .hint("put a host name into `host`")
            })?),
        };
        let name = match names.get(index).map_or("", String::as_str) {
            "" if address.is_none() => default_host(socket_folders, port),
            name => name.to_owned(),
        };
        hosts.push(Host {
            name,
            address,
            port,
            written_port: written_port.to_owned(),
        });
    }
    for keyword in ["host", "hostaddr", "port"] {
        settings.take(keyword);
    }
    Ok(hosts)
}

/// A port number; white space around it is allowed (`parse_int_param` in `fe-connect.c`).
pub(crate) fn port_number(text: &str) -> Option<u16> {
    text.trim_ascii().parse().ok().filter(|port| *port > 0)
}

/// The first default folder with a socket for the port; if there is none, `localhost`.
///
/// libpq knows only the one folder that it was built with. psql and pg_dump get ours in the connection
/// string.
fn default_host(socket_folders: &[&str], port: u16) -> String {
    let socket = format!(".s.PGSQL.{port}");
    let folder = socket_folders
        .iter()
        .find(|folder| Path::new(folder).join(&socket).exists());
    folder.unwrap_or(&"localhost").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_host_is_where_a_socket_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(default_host(&["/nonexistent", path], 5432), "localhost");
        std::fs::write(folder.path().join(".s.PGSQL.5432"), "").unwrap();
        assert_eq!(default_host(&["/nonexistent", path], 5432), path);
        assert_eq!(default_host(&["/nonexistent", path], 5433), "localhost");
    }
}
