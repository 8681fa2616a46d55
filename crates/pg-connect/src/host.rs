//! Which servers there are to try: the lists of `host`, `hostaddr` and `port`.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::ServerName;

use crate::error::Result;
use crate::settings::Settings;

/// Where servers put their socket: Debian and the RPMs (twice the same folder), a source build.
pub(crate) const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

const DEFAULT_PORT: &str = "5432";

/// One server to try: a host name, an address or the folder of a socket, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Empty where only `hostaddr` was given.
    pub name: String,
    /// From `hostaddr`, or what the name resolved to once connected.
    pub address: Option<IpAddr>,
    /// The TCP port, or the number in the socket's name.
    pub port: u16,
    /// As it was written, which is what the lines of a password file are compared with.
    pub(crate) written_port: String,
}

impl Host {
    /// Whether this is a Unix socket: libpq takes `/…` as its folder, `@…` as an abstract one.
    pub fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with(['/', '@'])
    }

    /// Whether there is a name that a certificate could be for. Beside `hostaddr` it may also be
    /// anything else, such as the folder of a socket, which is then not used.
    pub(crate) fn has_name(&self) -> bool {
        ServerName::try_from(self.name.as_str()).is_ok()
    }

    /// The name as given, else the address.
    pub fn shown(&self) -> String {
        match self.address {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ => self.name.clone(),
        }
    }

    /// What the password file calls this host: `localhost` for a socket in a default folder.
    pub(crate) fn passfile_name(&self) -> String {
        match SOCKET_FOLDERS.contains(&self.name.as_str()) {
            true => "localhost".to_owned(),
            false => self.shown(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown();
        match shown.contains(':') {
            true => write!(f, "[{shown}]:{}", self.port),
            false => write!(f, "{shown}:{}", self.port),
        }
    }
}

/// Pairs up the lists of hosts, addresses and ports as libpq's `connectOptions2` does.
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

/// A port, around which there may be white space (`parse_int_param`).
pub(crate) fn port_number(text: &str) -> Option<u16> {
    text.trim_ascii().parse().ok().filter(|port| *port > 0)
}

/// The first folder that has a socket for the port, else `localhost`.
///
/// A libpq knows only the folder that it was built with; the tools get this one by name.
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
