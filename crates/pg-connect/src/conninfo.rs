//! A connection string and the environment, resolved into one [`ConnInfo`] that means the same for
//! this crate, for `psql` and for `pg_dump`.
//!
//! The order of precedence is libpq's (`conninfo_add_defaults` in `fe-connect.c`): the string, the
//! service file, the `PG…` variables, the built-in defaults; the password file last. Nothing here
//! connects (see `connect`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

use crate::connstring;
use crate::environment::Env;
use crate::error::{Error, Result};
use crate::host::{Host, SOCKET_FOLDERS, take_hosts};
use crate::keywords;
use crate::passfile::PasswordFile;
use crate::password::Password;
use crate::service;
use crate::settings::{Origin, Settings};
use crate::tcp::{self, TcpSettings};
use crate::tls::TlsSettings;
use crate::unsupported::refuse_unsupported;

/// Which servers are acceptable: the values of `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// Resolved connection parameters: everything that is needed to connect. Nothing is read from the
/// environment afterwards.
///
/// The keywords and their meaning are those of the manual, *Parameter Key Words*.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    hosts: Vec<Host>,
    user: String,
    dbname: String,
    password: Option<(Password, Origin)>,
    passfile: PasswordFile,
    pub(crate) target_session_attrs: TargetSessionAttrs,
    /// The time for one attempt at one address, until the login is done (`connect_timeout`). `None` is
    /// no limit: libpq's default, and the meaning of `connect_timeout=0`.
    pub connect_timeout: Option<Duration>,
    pub(crate) channel_binding: ChannelBinding,
    /// The `keepalives…` keywords and `tcp_user_timeout`.
    pub tcp: TcpSettings,
    pub(crate) tls: TlsSettings,
    /// All other keywords, passed to psql and pg_dump as they were given.
    settings: Settings,
    warnings: Vec<String>,
}

impl ConnInfo {
    /// Resolves a connection string of either form (manual, *Connection Strings*), with the defaults
    /// that `env` and the files named by it give. `os_user` is the default for `user`; pass
    /// [`os_user()`](crate::os_user) for what libpq takes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for an invalid string, service file or variable,
    /// and for a keyword that is not supported here and would make the session less secure if it were
    /// ignored (see the table in the crate's README).
    pub fn resolve(given: &str, env: &Env, os_user: Option<&str>) -> Result<ConnInfo> {
        let mut settings = connstring::parse(given)?;
        service::fill(&mut settings, env)?;
        settings.fill_from(env);
        settings.take("service");
        settings.take("servicefile");
        refuse_unsupported(&settings)?;
        settings.choice("gssencmode", &[("disable", ()), ("prefer", ())], ())?;

        let hosts = take_hosts(&mut settings, &SOCKET_FOLDERS)?;
        let user = match settings.take("user") {
            Some((user, _)) => user,
            None => os_user.map(str::to_owned).ok_or_else(|| {
                Error::invalid("the connection string names no user, and the system knows none")
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
            // With a password libpq does not read the file either.
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
            target_session_attrs: target_session_attrs(&settings)?,
            connect_timeout: tcp::seconds(&settings, "connect_timeout")?,
            channel_binding: channel_binding(&settings)?,
            tcp: TcpSettings::resolve(&settings)?,
            tls: TlsSettings::resolve(&mut settings, env)?,
            settings,
            warnings: warning.into_iter().collect(),
        })
    }

    /// The servers to try, in this order; at least one (`host`, `hostaddr`, `port`).
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role to log in as (`user`); by default the name of the operating system user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database (`dbname`); by default it has the user's name.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The command-line options for the server that were given (`options`); empty if none were.
    pub fn options(&self) -> &str {
        self.settings.get("options").unwrap_or_default()
    }

    /// The value that was given for any other keyword, such as `sslmode`; `None` if none was given, or
    /// an empty one. `host`, `hostaddr`, `port`, `user`, `dbname` and `password` have methods of their own.
    pub fn setting(&self, keyword: &str) -> Option<&str> {
        self.settings.get(keyword)
    }

    /// `application_name`, even an empty one; if it was not given, `fallback_application_name` (manual,
    /// *Parameter Key Words*).
    pub fn application_name(&self) -> Option<&str> {
        let name = self.settings.raw("application_name");
        name.or(self.setting("fallback_application_name"))
    }

    /// Messages to show to the user once, such as that a password file is ignored because others can
    /// read it. libpq prints the same as `WARNING:` to stderr.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The password for the first host, and where it was found.
    ///
    /// A password file can have a different password for each host and database (manual, *The Password
    /// File*), so [`pinned_to`](Self::pinned_to) and [`with_dbname`](Self::with_dbname) can change it.
    pub fn password(&self) -> Option<(Password, Origin)> {
        if let Some((password, origin)) = &self.password {
            return Some((password.clone(), origin.clone()));
        }
        let host = &self.hosts[0];
        let (password, line) = self.passfile.find(
            &host.passfile_name(),
            &host.written_port,
            &self.dbname,
            &self.user,
        )?;
        let file = self.passfile.path.display().to_string();
        Some((password, Origin::PasswordFile(file, line)))
    }

    /// The same parameters for another database.
    pub fn with_dbname(&self, dbname: &str) -> ConnInfo {
        ConnInfo {
            dbname: dbname.to_owned(),
            ..self.clone()
        }
    }

    /// The same parameters with this host as the only one.
    pub fn pinned_to(&self, host: Host) -> ConnInfo {
        ConnInfo {
            hosts: vec![host],
            ..self.clone()
        }
    }

    /// A description for messages: `` `myapp_dev` on `127.0.0.1:5432` as `admin` ``.
    pub fn summary(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(|host| format!("`{host}`")).collect();
        format!(
            "`{}` on {} as `{}`",
            self.dbname,
            hosts.join(", "),
            self.user
        )
    }

    /// The connection string for `psql` and `pg_dump`, to be passed as one argument. It has everything
    /// except the password, which is in [`ConnInfo::psql_env`].
    pub fn psql_conninfo(&self) -> String {
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
            .map(|(keyword, value)| format!("{keyword}={}", quote_value(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The variables to set for `psql` and `pg_dump`, after [`libpq_variables`] were removed:
    /// `PGPASSWORD`, if there is a password.
    pub fn psql_env(&self) -> Vec<(String, String)> {
        self.password()
            .map(|(password, _)| ("PGPASSWORD".to_owned(), password.expose().to_owned()))
            .into_iter()
            .collect()
    }
}

/// The environment variables that give a keyword its default (manual, *Environment Variables*). Remove
/// them from the environment of `psql` and `pg_dump`: their values are already in
/// [`ConnInfo::psql_conninfo`].
///
/// `PGTZ`, `PGDATESTYLE` and `PGGEQO` are not among them: they have no keyword, and only libpq reads them.
pub fn libpq_variables() -> impl Iterator<Item = &'static str> {
    keywords::variables()
}

/// A value in single quotes, by the rules of the manual, *Keyword/Value Connection Strings*.
pub fn quote_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn passfile_path(settings: &Settings, env: &Env) -> Option<PathBuf> {
    match settings.get("passfile") {
        Some(path) => Some(PathBuf::from(path)),
        None => env.get("HOME").map(|home| Path::new(home).join(".pgpass")),
    }
}

fn target_session_attrs(settings: &Settings) -> Result<TargetSessionAttrs> {
    let values = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("read-only", TargetSessionAttrs::ReadOnly),
        ("primary", TargetSessionAttrs::Primary),
        ("standby", TargetSessionAttrs::Standby),
        ("prefer-standby", TargetSessionAttrs::PreferStandby),
    ];
    settings.choice("target_session_attrs", &values, TargetSessionAttrs::Any)
}

fn channel_binding(settings: &Settings) -> Result<ChannelBinding> {
    let values = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    settings.choice("channel_binding", &values, ChannelBinding::Prefer)
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
        format!("{error:?}")
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
            info.psql_env(),
            [("PGPASSWORD".to_owned(), "s3cret".to_owned())]
        );
        assert!(libpq_variables().any(|name| name == "PGSERVICE"));
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
