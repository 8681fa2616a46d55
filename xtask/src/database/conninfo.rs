//! Which database, as who, by which way: a connection string and the environment resolved into
//! one [`ConnInfo`], understood alike by the native client and by `psql` and `pg_dump`.
//!
//! The order of defaults is libpq's: the string, the service file, the `PG…` variables, then what
//! is built in; at last the password file. Nothing here connects (see `connect`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::ChannelBinding;

use super::connstring::{self, Origin, Settings};
use super::passfile::PasswordFile;
use super::servicefile;
use super::tls::TlsSettings;
use crate::error::{Failure, Result};

/// The process's environment, or a test's.
pub(crate) type Env = BTreeMap<String, String>;

/// Where servers put their socket: Debian and the RPMs (twice the same folder), a source build.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// A password, which shows itself to no one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Password(text.into())
    }

    /// The text itself, for a server or for a child's environment; never for an argument or a message.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One server to try: a host name, an address or the folder of a socket, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Empty where only `hostaddr` was given.
    pub(crate) name: String,
    /// From `hostaddr`, or what the name resolved to once connected.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

impl Host {
    /// Whether this is a Unix socket: libpq takes `/…` as its folder, `@…` as an abstract one.
    pub(crate) fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with(['/', '@'])
    }

    /// The name as given, else the address.
    pub(crate) fn shown(&self) -> String {
        match self.address {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ => self.name.clone(),
        }
    }

    /// What the password file calls this host: `localhost` for a socket in a default folder.
    fn passfile_name(&self) -> String {
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

/// Which of several servers will do (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// How the kernel watches over an idle connection. `None` is the system's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSettings {
    pub(crate) keepalives: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) count: Option<u32>,
    pub(crate) user_timeout: Option<Duration>,
}

/// Where nobody says how long to wait for a server, libpq waits for ever: a command in a pipeline
/// must not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything needed to reach a database, complete: no later reader looks at the environment.
#[derive(Clone, Debug)]
pub(crate) struct ConnInfo {
    hosts: Vec<Host>,
    user: String,
    dbname: String,
    password: Option<(Password, Origin)>,
    passfile: PasswordFile,
    pub(crate) target: Target,
    /// For one attempt at one address, from the first packet until the login is done. `None` is for
    /// ever, as `connect_timeout=0` asks for.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) tcp: TcpSettings,
    pub(crate) tls: TlsSettings,
    /// Everything else, passed on to the tools as it was given.
    settings: Settings,
    warnings: Vec<String>,
}

impl ConnInfo {
    /// Resolves a connection string. `os_user` is the default user, as libpq asks the system for it.
    ///
    /// Fails with a usage error on a string, service file or variable that makes no sense, and on
    /// a setting whose promise the native client could not keep.
    pub(crate) fn resolve(given: &str, env: &Env, os_user: Option<&str>) -> Result<ConnInfo> {
        let mut settings = connstring::parse(given)?;
        servicefile::fill(&mut settings, env)?;
        settings.fill_from(env);
        settings.take("service");
        settings.take("servicefile");
        refuse_unsupported(&settings)?;

        let hosts = take_hosts(&mut settings, &SOCKET_FOLDERS)?;
        let user = match settings.take("user") {
            Some((user, _)) => user,
            None => os_user.map(str::to_owned).ok_or_else(|| {
                Failure::usage("the connection string names no user, and the system knows none")
                    .hint("add `user=…`, or set `PGUSER`")
            })?,
        };
        let dbname = settings
            .take("dbname")
            .map_or_else(|| user.clone(), |(name, _)| name);
        let password = settings
            .take("password")
            .map(|(text, origin)| (Password::new(text), origin));
        let (passfile, warning) = match password {
            // As in libpq, the file is not even looked at.
            Some(_) => Default::default(),
            None => passfile_path(&settings, env)
                .map(|path| PasswordFile::read(&path))
                .unwrap_or_default(),
        };

        Ok(ConnInfo {
            hosts,
            user,
            dbname,
            password,
            passfile,
            target: target(&settings)?,
            connect_timeout: match settings.get("connect_timeout") {
                Some(_) => seconds(&settings, "connect_timeout")?,
                None => Some(CONNECT_TIMEOUT),
            },
            channel_binding: channel_binding(&settings)?,
            tcp: tcp_settings(&settings)?,
            tls: TlsSettings::resolve(&mut settings, env)?,
            settings,
            warnings: warning.into_iter().collect(),
        })
    }

    /// The servers to try, in their order; at least one.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The server settings that the user asked for, in the form of `options`.
    pub(crate) fn options(&self) -> &str {
        self.settings.get("options").unwrap_or_default()
    }

    /// What a person should hear once, such as a password file that was ignored.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The password for the first host, and where it was found.
    ///
    /// In a password file it depends on the host and the database, so that a pinned [`ConnInfo`]
    /// or one for another database may have another.
    pub(crate) fn password(&self) -> Option<(&Password, Origin)> {
        if let Some((password, origin)) = &self.password {
            return Some((password, origin.clone()));
        }
        let host = &self.hosts[0];
        let (password, line) =
            self.passfile
                .find(&host.passfile_name(), host.port, &self.dbname, &self.user)?;
        let file = self.passfile.path.display().to_string();
        Some((password, Origin::PasswordFile(file, line)))
    }

    /// The same server, another database.
    pub(crate) fn with_dbname(&self, dbname: &str) -> ConnInfo {
        ConnInfo {
            dbname: dbname.to_owned(),
            ..self.clone()
        }
    }

    /// The same database on this host only.
    pub(crate) fn pinned_to(&self, host: Host) -> ConnInfo {
        ConnInfo {
            hosts: vec![host],
            ..self.clone()
        }
    }

    /// For people: `` `myapp_dev` on `127.0.0.1:5432` as `admin` ``.
    pub(crate) fn summary(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(|host| format!("`{host}`")).collect();
        format!(
            "`{}` on {} as `{}`",
            self.dbname,
            hosts.join(", "),
            self.user
        )
    }

    /// The connection string for `psql` and `pg_dump`, as one argument: everything that was
    /// resolved here but the password, which goes by [`ConnInfo::tool_env`].
    pub(crate) fn psql_conninfo(&self) -> String {
        let list = |part: &dyn Fn(&Host) -> String| {
            self.hosts.iter().map(part).collect::<Vec<_>>().join(",")
        };
        let address = |host: &Host| host.address.map(|ip| ip.to_string()).unwrap_or_default();
        let host_lists = [
            ("host", list(&|host| host.name.clone())),
            ("hostaddr", list(&address)),
            ("port", list(&|host| host.port.to_string())),
        ];
        let own = [("user", self.user.clone()), ("dbname", self.dbname.clone())];
        host_lists
            .iter()
            .filter(|(_, list)| list.chars().any(|c| c != ','))
            .chain(&own)
            .map(|(keyword, value)| (*keyword, value.as_str()))
            .chain(self.settings.iter())
            .map(|(keyword, value)| format!("{keyword}={}", quoted(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What to add to the environment of `psql` and `pg_dump`, after [`removed_variables`].
    pub(crate) fn tool_env(&self) -> Vec<(String, String)> {
        self.password()
            .map(|(password, _)| ("PGPASSWORD".to_owned(), password.expose().to_owned()))
            .into_iter()
            .collect()
    }
}

/// The variables to remove from a tool's environment, since their values are in
/// [`ConnInfo::psql_conninfo`] already.
///
/// `PGTZ`, `PGDATESTYLE` and `PGGEQO` stay: they have no keyword, and only libpq reads them.
pub(crate) fn removed_variables() -> impl Iterator<Item = &'static str> {
    connstring::variables()
}

/// A value in single quotes, by the rules of `keyword=value` strings.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What `psql` could do but the native client could not, so that the two would differ; or what
/// could be handed to `psql` only where every local user can read it. Each with the values that are harmless.
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
        "replication",
        &["false", "off", "no", "0"],
        "connect to a database",
    ),
];

fn refuse_unsupported(settings: &Settings) -> Result {
    for (keyword, harmless, hint) in UNSUPPORTED {
        let refused = settings
            .get(keyword)
            .filter(|value| !harmless.contains(value));
        if let (Some(_), Some(origin)) = (refused, settings.origin(keyword)) {
            return Err(
                Failure::usage(format!("`{keyword}` in {origin} is not supported"))
                    .hint(*hint)
                    .into(),
            );
        }
    }
    Ok(())
}

/// Pairs up the lists of hosts, addresses and ports as libpq's `connectOptions2` does.
fn take_hosts(settings: &mut Settings, socket_folders: &[&str]) -> Result<Vec<Host>> {
    let list = |keyword| -> Vec<String> {
        let value = settings.get(keyword).unwrap_or_default();
        value
            .split(',')
            .map(|part| part.trim().to_owned())
            .collect()
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
                .cause(format!("{length} values do not match {count} hosts"))
                .into());
        }
    }

    let mut hosts = Vec::new();
    for index in 0..count {
        let port = match ports.get(index).unwrap_or(&ports[0]).as_str() {
            "" => DEFAULT_PORT,
            text => match text.parse() {
                Ok(port) if port > 0 => port,
                _ => {
                    return Err(settings
                        .invalid("port")
                        .cause(format!("`{text}` is not a number from 1 to 65535"))
                        .into());
                }
            },
        };
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
        });
    }
    for keyword in ["host", "hostaddr", "port"] {
        settings.take(keyword);
    }
    Ok(hosts)
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

fn passfile_path(settings: &Settings, env: &Env) -> Option<PathBuf> {
    match settings.get("passfile") {
        Some(path) => Some(PathBuf::from(path)),
        None => env.get("HOME").map(|home| Path::new(home).join(".pgpass")),
    }
}

fn target(settings: &Settings) -> Result<Target> {
    let values = [
        ("any", Target::Any),
        ("read-write", Target::ReadWrite),
        ("read-only", Target::ReadOnly),
        ("primary", Target::Primary),
        ("standby", Target::Standby),
        ("prefer-standby", Target::PreferStandby),
    ];
    settings.choice("target_session_attrs", &values, Target::Any)
}

fn channel_binding(settings: &Settings) -> Result<ChannelBinding> {
    let values = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    settings.choice("channel_binding", &values, ChannelBinding::Prefer)
}

fn tcp_settings(settings: &Settings) -> Result<TcpSettings> {
    let count = settings.number("keepalives_count")?;
    let user_timeout = settings.number("tcp_user_timeout")?.and_then(positive);
    Ok(TcpSettings {
        keepalives: settings.number("keepalives")? != Some(0),
        idle: seconds(settings, "keepalives_idle")?,
        interval: seconds(settings, "keepalives_interval")?,
        count: count.and_then(positive),
        user_timeout: user_timeout.map(|ms| Duration::from_millis(ms.into())),
    })
}

/// A number of seconds, where zero and less mean the default.
fn seconds(settings: &Settings, keyword: &str) -> Result<Option<Duration>> {
    let number = settings.number(keyword)?.and_then(positive);
    Ok(number.map(|seconds| Duration::from_secs(seconds.into())))
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn env(pairs: Pairs<'_>) -> Env {
        let pairs = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        pairs
            .chain([("PGSYSCONFDIR".into(), "/nonexistent".into())])
            .collect()
    }

    fn resolve(given: &str, pairs: Pairs<'_>) -> ConnInfo {
        ConnInfo::resolve(given, &env(pairs), Some("me")).unwrap()
    }

    fn refusal(given: &str, pairs: Pairs<'_>) -> String {
        let error = ConnInfo::resolve(given, &env(pairs), Some("me")).expect_err(given);
        format!("{:?}", error.downcast_ref::<Failure>().unwrap())
    }

    #[test]
    fn the_string_goes_before_the_environment_and_that_before_what_is_built_in() {
        let table: &[(&str, Pairs<'_>, &str)] = &[
            (
                "postgres://a@h:1/d",
                &[("PGHOST", "x"), ("PGUSER", "y")],
                "`d` on `h:1` as `a`",
            ),
            ("host=h", &[], "`me` on `h:5432` as `me`"),
            (
                "host=h user=u",
                &[("PGDATABASE", "d")],
                "`d` on `h:5432` as `u`",
            ),
            (
                "host=h",
                &[("PGUSER", "u"), ("PGPORT", "7")],
                "`u` on `h:7` as `u`",
            ),
            (
                "postgres:///d",
                &[("PGHOST", "h"), ("PGPORT", "")],
                "`d` on `h:5432` as `me`",
            ),
            (
                "postgres:///d",
                &[("PGHOSTADDR", "::1")],
                "`d` on `[::1]:5432` as `me`",
            ),
            ("postgres:///d?host=/s&port=9", &[], "`d` on `/s:9` as `me`"),
            ("postgres://a:1,b/d", &[], "`d` on `a:1`, `b:5432` as `me`"),
            ("host=a,b port=7", &[], "`me` on `a:7`, `b:7` as `me`"),
        ];
        for (given, pairs, expected) in table {
            assert_eq!(resolve(given, pairs).summary(), *expected, "{given}");
        }
    }

    #[test]
    fn the_default_host_is_where_a_socket_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(default_host(&["/nonexistent", path], 5432), "localhost");
        std::fs::write(folder.path().join(".s.PGSQL.5432"), "").unwrap();
        assert_eq!(default_host(&["/nonexistent", path], 5432), path);
        assert_eq!(default_host(&["/nonexistent", path], 5433), "localhost");
    }

    #[test]
    fn a_service_goes_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".pg_service.conf");
        std::fs::write(
            &file,
            "[app]\nhost=h\nuser=u\npassword=s3cret\nsslmode=disable\n",
        )
        .unwrap();
        let home = folder.path().to_str().unwrap();
        let info = resolve(
            "user=v",
            &[("HOME", home), ("PGSERVICE", "app"), ("PGHOST", "x")],
        );
        assert_eq!(info.summary(), "`v` on `h:5432` as `v`");
        let (password, origin) = info.password().unwrap();
        assert_eq!(password.expose(), "s3cret");
        assert_eq!(
            origin.to_string(),
            format!("service `app` of `{}`", file.display())
        );
        assert_eq!(
            info.psql_conninfo(),
            "host='h' port='5432' user='v' dbname='v' sslmode='disable'"
        );
    }

    #[test]
    fn nothing_shows_the_password() {
        let info = resolve("postgres://u:s3cret@h/d?sslmode=require", &[]);
        assert!(!format!("{info:?}").contains("s3cret"));
        assert!(!info.summary().contains("s3cret"));
        assert!(!info.psql_conninfo().contains("s3cret"));
        assert_eq!(
            info.tool_env(),
            [("PGPASSWORD".to_owned(), "s3cret".to_owned())]
        );
        assert!(removed_variables().any(|name| name == "PGSERVICE"));
    }

    #[test]
    fn the_tools_get_everything_quoted_as_one_argument() {
        let info = resolve(
            r"host=a,/run/pg hostaddr=::1, port=1,2 user='it\'s' dbname='a\\b c' options='-c x=y'",
            &[("PGAPPNAME", "app"), ("PGPASSWORD", "s3cret")],
        );
        assert_eq!(
            info.psql_conninfo(),
            r"host='a,/run/pg' hostaddr='::1,' port='1,2' user='it\'s' dbname='a\\b c' application_name='app' options='-c x=y'"
        );
        let again = resolve(&info.psql_conninfo(), &[]);
        assert_eq!(again.psql_conninfo(), info.psql_conninfo());
        assert_eq!(
            info.pinned_to(info.hosts()[1].clone())
                .with_dbname("postgres")
                .psql_conninfo(),
            r"host='/run/pg' port='2' user='it\'s' dbname='postgres' application_name='app' options='-c x=y'"
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_password_file_is_asked_for_each_host_and_database() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".pgpass");
        let text = "a:*:d:*:for a\nb:*:d:*:for b\nlocalhost:*:*:*:local\n*:*:postgres:*:admin\n";
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let pairs = [("HOME", folder.path().to_str().unwrap())];

        let info = resolve("host=a,b dbname=d", &pairs);
        let found = |info: &ConnInfo| {
            info.password()
                .map(|(password, _)| password.expose().to_owned())
        };
        assert_eq!(found(&info).as_deref(), Some("for a"));
        assert_eq!(
            found(&info.pinned_to(info.hosts()[1].clone())).as_deref(),
            Some("for b")
        );
        assert_eq!(
            found(&info.with_dbname("postgres")).as_deref(),
            Some("admin")
        );
        assert_eq!(found(&info.with_dbname("other")), None);
        let socket = resolve("host=/run/postgresql", &pairs);
        assert_eq!(found(&socket).as_deref(), Some("local"));
        assert_eq!(found(&resolve("host=/elsewhere", &pairs)), None);
        let origin = info.password().unwrap().1.to_string();
        assert_eq!(origin, format!("`{}`, line 1", path.display()));

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let info = resolve("host=a,b dbname=d", &pairs);
        assert_eq!(found(&info), None);
        assert!(info.warnings()[0].contains("chmod 600"));
        assert!(resolve("host=a password=x", &pairs).warnings().is_empty());
    }

    #[test]
    fn values_that_make_no_sense_say_where_they_stand() {
        let table: &[(&str, Pairs<'_>, &str)] = &[
            (
                "host=h port=abc",
                &[],
                "invalid `port` in the connection string",
            ),
            (
                "host=h",
                &[("PGPORT", "99999")],
                "invalid `port` in `PGPORT`",
            ),
            ("host=a,b port=1,2,3", &[], "3 values do not match 2 hosts"),
            (
                "host=a,b hostaddr=::1",
                &[],
                "1 values do not match 2 hosts",
            ),
            ("hostaddr=localhost", &[], "not an IP address"),
            ("host=h sslmode=on", &[], "`verify-full`"),
            (
                "host=h",
                &[("PGSSLMODE", "on")],
                "invalid `sslmode` in `PGSSLMODE`",
            ),
            ("host=h target_session_attrs=rw", &[], "`read-write`"),
            ("host=h connect_timeout=5s", &[], "not a whole number"),
            ("host=h sslpassword=s3cret", &[], "openssl pkey"),
            (
                "host=h require_auth=none",
                &[],
                "`require_auth` in the connection string is not",
            ),
            ("host=h replication=database", &[], "not supported"),
        ];
        for (given, pairs, expected) in table {
            let shown = refusal(given, pairs);
            assert!(shown.contains(expected), "{given}: {shown}");
            assert!(!shown.contains("s3cret"), "{given}: {shown}");
        }
        let error = ConnInfo::resolve("host=h", &env(&[]), None).unwrap_err();
        assert!(error.to_string().contains("names no user"));
    }
}
