//! Connection strings, environments, service and password files: as people write them, and a little
//! as they should not.

use std::fmt;

use fastrand::Rng;
use pg_connect::Env;

/// What a case is made from: files and servers that exist.
pub(crate) struct World {
    /// The ports: with TLS, without, a standby.
    pub(crate) ports: [u16; 3],
    /// The folders of their sockets.
    pub(crate) sockets: [String; 3],
    /// A folder with certificates: `root`, `other`, `client`, and what is made of them.
    pub(crate) certificates: String,
    /// What may lie in the home folder: a name there, and the file's text.
    pub(crate) home: Vec<(&'static str, String)>,
}

/// One thing that a person may have set up. Files are named by where they lie in the home folder.
pub(crate) struct Case {
    pub(crate) given: String,
    pub(crate) env: Env,
    pub(crate) files: Vec<(&'static str, String, u32)>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  given: {:?}", self.given)?;
        for (name, value) in &self.env {
            writeln!(f, "  {name}={value:?}")?;
        }
        for (name, text, mode) in &self.files {
            match text.starts_with("-----BEGIN") {
                true => writeln!(f, "  ~/{name} ({mode:o})")?,
                false => writeln!(f, "  ~/{name} ({mode:o}): {text:?}")?,
            }
        }
        Ok(())
    }
}

/// Where keywords get their default from, as the manual lists it; those that a case uses.
const VARIABLES: &[(&str, &str)] = &[
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("gssencmode", "PGGSSENCMODE"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("requiressl", "PGREQUIRESSL"),
    ("service", "PGSERVICE"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslsni", "PGSSLSNI"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("user", "PGUSER"),
];

/// The users, each with the password that lets it in; see `against_psql`.
pub(crate) const USERS: &[(&str, &str)] = &[
    ("trusted", ""),
    ("known", "s3cret"),
    ("known", "s3cret"),
    ("odd u:s@r%'\\", "p:a@s/s%w?o#r'd\\ &=,"),
    ("plain", "pl'ain:"),
    ("hashed", "hashed"),
    ("tlsonly", ""),
    ("plainonly", ""),
    ("tlsknown", "s3cret"),
    ("trusted", ""),
    ("certified", ""),
    ("reader", ""),
];

pub(crate) const DATABASES: &[&str] = &["postgres", "my db", "d:a'ta\\/%?"];

type Settings = Vec<(&'static str, String)>;

impl Case {
    pub(crate) fn generate(seed: u64, world: &World) -> Case {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let (user, password) = match rng.u8(..30) {
            0 => ("nobody", ""),
            _ => one(rng, USERS),
        };
        let dbname = match rng.u8(..30) {
            0 => "none",
            _ => one(rng, DATABASES),
        };
        let mut settings = servers(rng, world);
        if rng.u8(..10) > 0 {
            settings.push(("user", user.to_owned()));
        }
        if rng.u8(..4) > 0 {
            settings.push(("dbname", dbname.to_owned()));
        }
        let mut files = Vec::new();
        match rng.u8(..20) {
            0 => settings.push(("password", "wr0ng".to_owned())),
            1..14 if !password.is_empty() => settings.push(("password", password.to_owned())),
            14..20 => files.push((
                ".pgpass",
                password_file(rng, &settings, user, dbname, password),
                one(rng, &[0o600, 0o600, 0o600, 0o400, 0o640, 0o604]),
            )),
            _ => {}
        }
        for _ in 0..rng.usize(..5) {
            settings.push(another(rng, world));
        }
        if rng.u8(..6) == 0 {
            settings.push(("sslrootcert", format!("{}/root.crt", world.certificates)));
            settings.push((
                "sslmode",
                (one(rng, &["verify-ca", "verify-full"])).to_owned(),
            ));
        }
        if user == "certified" || rng.u8(..30) == 0 {
            settings.push(("sslcert", format!("{}/client.crt", world.certificates)));
            settings.push(("sslkey", format!("{}/client.key", world.certificates)));
        }

        if rng.u8(..8) == 0 {
            for (name, text) in &world.home {
                if rng.bool() {
                    let mode = one(rng, &[0o600, 0o600, 0o640, 0o644]);
                    files.push((*name, text.clone(), mode));
                }
            }
        }

        let (mut given, mut service, mut env) = (Settings::new(), Settings::new(), Env::new());
        for (keyword, value) in settings {
            let variable = VARIABLES.iter().find(|(name, _)| *name == keyword);
            match rng.u8(..10) {
                0..2 => service.push((keyword, value)),
                2..5 if let Some((_, variable)) = variable => {
                    env.insert((*variable).to_owned(), value);
                }
                _ => given.push((keyword, value)),
            }
        }
        // What must not win, or does since it comes first.
        for _ in 0..rng.usize(..3) {
            let (keyword, value) = another(rng, world);
            if let Some((_, variable)) = VARIABLES.iter().find(|(name, _)| *name == keyword) {
                env.entry((*variable).to_owned()).or_insert(value);
            }
        }
        if !service.is_empty() || rng.u8(..20) == 0 {
            let name = one(rng, &["app", "app", "app", "a b", "x]y", ""]);
            files.push((".pg_service.conf", service_file(rng, name, &service), 0o644));
            let asked = if rng.u8(..30) == 0 { "other" } else { name };
            match rng.bool() {
                true => given.push(("service", asked.to_owned())),
                false => drop(env.insert("PGSERVICE".to_owned(), asked.to_owned())),
            }
        }
        rng.shuffle(&mut given);
        let mut given = match rng.bool() {
            true => as_pairs(rng, &given),
            false => as_uri(rng, &given),
        };
        if rng.u8(..10) == 0 {
            given = mutated(rng, &given);
        }
        if rng.u8(..12) == 0
            && let Some(value) = one_value(rng, &mut env)
        {
            *value = mutated(rng, value);
        }
        Case { given, env, files }
    }
}

fn one<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn one_value<'a>(rng: &mut Rng, env: &'a mut Env) -> Option<&'a mut String> {
    let at = rng.usize(..env.len().max(1));
    env.values_mut().nth(at)
}

/// `host`, `hostaddr` and `port`, mostly such that they fit together.
fn servers(rng: &mut Rng, world: &World) -> Settings {
    let count = one(rng, &[1, 1, 1, 1, 2, 2, 3]);
    let (mut hosts, mut addresses, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let which = one(rng, &[0, 0, 0, 1, 2]);
        let (host, address) = match rng.u8(..16) {
            0..5 => ("127.0.0.1", ""),
            5..8 => ("localhost", ""),
            8..10 => (world.sockets[which].as_str(), ""),
            10 => ("db.example", "127.0.0.1"),
            11 => ("a.wild.example", "127.0.0.1"),
            12 => ("", "127.0.0.1"),
            13 => ("other.example", "127.0.0.1"),
            14 if rng.bool() => one(rng, &[("::1", ""), ("", "::1"), ("/nonexistent", "")]),
            _ => (world.sockets[rng.usize(..3)].as_str(), "127.0.0.1"),
        };
        let port = match rng.u8(..12) {
            0 if count > 1 => "1".to_owned(),
            1 if rng.u8(..4) == 0 => String::new(),
            _ => world.ports[which].to_string(),
        };
        hosts.push(host);
        addresses.push(address);
        ports.push(port);
    }
    if rng.u8(..15) == 0 {
        ports.truncate(1);
    }
    if rng.u8(..40) == 0 {
        hosts.push("127.0.0.1");
    }
    let mut settings = Settings::new();
    if hosts.iter().any(|host| !host.is_empty()) {
        settings.push(("host", hosts.join(",")));
    }
    if addresses.iter().any(|address| !address.is_empty()) {
        settings.push(("hostaddr", addresses.join(",")));
    }
    settings.push(("port", ports.join(",")));
    settings
}

/// Any setting that has nothing to do with who connects where; one in twenty makes no sense.
fn another(rng: &mut Rng, world: &World) -> (&'static str, String) {
    const SENSIBLE: &[(&str, &[&str])] = &[
        (
            "sslmode",
            &[
                "disable",
                "allow",
                "prefer",
                "require",
                "verify-ca",
                "verify-full",
            ],
        ),
        ("sslmode", &["disable", "allow", "prefer", "require"]),
        (
            "sslrootcert",
            &["root", "root", "both", "other", "none", ""],
        ),
        ("sslcrl", &["root.empty.crl", "root.crl", "none", ""]),
        ("sslcert", &["none", "client"]),
        ("sslkey", &["client.key", "none"]),
        ("channel_binding", &["disable", "prefer", "require"]),
        (
            "target_session_attrs",
            &[
                "any",
                "read-write",
                "read-only",
                "primary",
                "standby",
                "prefer-standby",
            ],
        ),
        ("connect_timeout", &["3", "0", "-1", " 4 "]),
        (
            "options",
            &[
                "-c work_mem=5MB",
                "-cwork_mem=6MB -c statement_timeout=7s",
                "-c search_path=\"a\\ b\",c",
                " ",
                "--statement-timeout=3s",
            ],
        ),
        (
            "application_name",
            &[
                "app",
                "two words",
                "it's 'quoted'\\",
                "50%",
                "ünï",
                "",
                "a=b&c?d#e/f",
            ],
        ),
        (
            "ssl_min_protocol_version",
            &["TLSv1.2", "TLSv1.3", "tlsv1.3", "TLSv1", ""],
        ),
        (
            "ssl_max_protocol_version",
            &["TLSv1.2", "TLSv1.3", "tlsv1.2", ""],
        ),
        ("keepalives", &["0", "1", ""]),
        ("keepalives_idle", &["30"]),
        ("tcp_user_timeout", &["30000", "0"]),
        ("gssencmode", &["disable", "prefer"]),
        ("sslsni", &["0", "1", ""]),
        ("sslcompression", &["0", "1"]),
        ("requiressl", &["1", "0", ""]),
        ("krbsrvname", &["postgres"]),
        ("dbname", &["postgres", ""]),
        ("port", &[" PORT1 ", "+PORT0"]),
        ("passfile", &["/nonexistent", ""]),
    ];
    const ODD: &[(&str, &[&str])] = &[
        ("sslmode", &["", "Require", " require", "on"]),
        ("sslcert", &["foreign"]),
        ("sslkey", &["open.key"]),
        ("channel_binding", &["", "Prefer"]),
        ("target_session_attrs", &["", "rw"]),
        ("connect_timeout", &["3s", "", "99999999999"]),
        ("options", &["-c nonsense=1"]),
        ("ssl_min_protocol_version", &["TLSv9"]),
        ("ssl_max_protocol_version", &["TLSv1.1"]),
        ("gssencmode", &["", "maybe"]),
        ("user", &["trusted", ""]),
        ("host", &["127.0.0.1", ""]),
        ("hostaddr", &["127.0.0.1", "127.0.0.1 ", "localhost", ""]),
        ("port", &["PORT0", "PORT1", "", "0", "99999", "x"]),
        ("service", &["app", ""]),
        ("no_such", &["1"]),
    ];
    let files = &world.certificates;
    let (keyword, values) = match rng.u8(..10) {
        0 if rng.bool() => one(rng, ODD),
        _ => one(rng, SENSIBLE),
    };
    let value = match (keyword, one(rng, values)) {
        (_, "") => String::new(),
        ("sslrootcert" | "sslcert", name) => format!("{files}/{name}.crt"),
        ("sslcrl" | "sslkey", name) => format!("{files}/{name}"),
        (_, value) => value
            .replace("PORT0", &world.ports[0].to_string())
            .replace("PORT1", &world.ports[1].to_string()),
    };
    (keyword, value)
}

/// Lines of which none, one or several match.
fn password_file(
    rng: &mut Rng,
    settings: &Settings,
    user: &str,
    dbname: &str,
    password: &str,
) -> String {
    let value = |keyword| {
        let found = settings.iter().find(|(name, _)| *name == keyword);
        found.map_or("", |(_, value)| value.split(',').next().unwrap_or_default())
    };
    let (host, port) = (value("host"), value("port"));
    let mut text = String::new();
    for _ in 0..rng.usize(1..4) {
        let host = match rng.u8(..4) {
            0 | 1 => "*".to_owned(),
            2 if rng.bool() => (one(rng, &["localhost", "127.0.0.1", "::1", "\\:\\:1"])).to_owned(),
            _ => escaped(rng, host),
        };
        let fields = [
            host,
            wild(rng, port),
            wild(rng, dbname),
            wild(rng, user),
            match rng.u8(..8) {
                0 => "wr0ng".to_owned(),
                1 => password.to_owned(),
                _ => escaped(rng, password),
            },
        ];
        match rng.u8(..12) {
            0 => text.push_str("# a remark\n\n"),
            1 => text.push_str("#*:*:*:*:wr0ng\nshort:line\n"),
            _ => {}
        }
        text.push_str(&fields.join(":"));
        text.push_str(one(
            rng,
            &["\n", "\n", "\n", "\r\n", "", ":\n", ":more\n", " \n"],
        ));
    }
    text
}

fn wild(rng: &mut Rng, value: &str) -> String {
    match rng.bool() {
        true => "*".to_owned(),
        false => escaped(rng, value),
    }
}

/// With a backslash where one must be, and where one may be.
fn escaped(rng: &mut Rng, value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        if c == ':' || c == '\\' || rng.u8(..20) == 0 {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn service_file(rng: &mut Rng, name: &str, settings: &Settings) -> String {
    let mut text = String::new();
    if rng.bool() {
        text.push_str("# services\n[before]\nhost=nowhere.invalid\n\n");
    }
    let indent = one(rng, &["", "", "", "  ", "\t"]);
    text.push_str(&format!(
        "{indent}[{name}]{}\n",
        one(rng, &["", "", "", " ", " # it", "x"])
    ));
    for (keyword, value) in settings {
        let (before, after) = match rng.u8(..80) {
            0 => (" ", ""),
            1 => ("", " "),
            _ => ("", ""),
        };
        text.push_str(&format!("{indent}{keyword}{before}={after}{value}\n"));
        match rng.u8(..60) {
            0 | 1 => text.push_str(&format!("{keyword}=second\n")),
            2 | 3 => text.push_str("# remark\n\r\n"),
            4 => text.push_str(one(rng, &["broken\n", "service=again\n", "=\n"])),
            _ => {}
        }
    }
    if rng.bool() {
        text.push_str("[after]\nbroken\n");
    }
    text
}

const SPACES: &[&str] = &["", "", "", " ", "  ", "\t", "\n", " \r\n", "\x0b"];

fn as_pairs(rng: &mut Rng, settings: &Settings) -> String {
    let mut text = (one(rng, SPACES)).to_owned();
    for (keyword, value) in settings {
        let (before, after) = (one(rng, SPACES), one(rng, SPACES));
        text.push_str(&format!("{keyword}{before}={after}"));
        let needs_quotes = value.is_empty() || value.starts_with('\'');
        if needs_quotes || rng.bool() {
            text.push('\'');
            for c in value.chars() {
                if c == '\'' || c == '\\' || rng.u8(..25) == 0 {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('\'');
            // After the quote nothing needs to stand between it and the next keyword.
            text.push_str(one(rng, SPACES));
        } else {
            for c in value.chars() {
                if c == '\\' || c.is_ascii_whitespace() || c == '\x0b' || rng.u8(..25) == 0 {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push_str(one(rng, &[" ", " ", "\t", "\n", "  "]));
        }
    }
    text
}

fn as_uri(rng: &mut Rng, settings: &Settings) -> String {
    let mut text = (one(rng, &["postgres://", "postgresql://"])).to_owned();
    let mut rest: Vec<&(&str, String)> = settings.iter().collect();
    let mut taken = |rng: &mut Rng, keyword: &str| {
        let at = rest.iter().position(|(name, _)| *name == keyword)?;
        (rng.u8(..4) > 0).then(|| rest.remove(at).1.as_str())
    };
    let user = taken(rng, "user");
    let password = user.and_then(|_| taken(rng, "password"));
    let (host, port) = (taken(rng, "host"), None);
    let port = port.or_else(|| host.and_then(|_| taken(rng, "port")));
    let dbname = taken(rng, "dbname");
    if let Some(user) = user {
        text.push_str(&encoded(rng, user));
        if let Some(password) = password {
            text.push(':');
            text.push_str(&encoded(rng, password));
        }
        text.push('@');
    }
    let hosts: Vec<&str> = host
        .map(|host| host.split(',').collect())
        .unwrap_or_default();
    let ports: Vec<&str> = port
        .map(|port| port.split(',').collect())
        .unwrap_or_default();
    for (at, host) in hosts.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match host.contains(':') {
            true => text.push_str(&format!("[{host}]")),
            false => text.push_str(&encoded(rng, host)),
        }
        // One port for all hosts cannot be written here: it counts for the last alone.
        match ports.get(at) {
            Some(port) if !port.is_empty() || rng.bool() => text.push_str(&format!(":{port}")),
            _ => {}
        }
    }
    if let Some(dbname) = dbname {
        text.push('/');
        text.push_str(&encoded(rng, dbname));
    } else if rng.bool() {
        text.push('/');
    }
    let mut separator = '?';
    for (keyword, value) in rest {
        text.push(separator);
        text.push_str(&format!(
            "{}={}",
            encoded(rng, keyword),
            encoded(rng, value)
        ));
        separator = '&';
    }
    match rng.u8(..20) {
        0 => text.push(separator),
        1 => text.push_str(&format!("{separator}ssl=true")),
        2 => text.push_str(&format!("{separator}ssl=tr%75e")),
        _ => {}
    }
    text
}

/// Percent codes where they must be, and where they may be.
fn encoded(rng: &mut Rng, value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        match plain && rng.u8(..25) > 0 {
            true => text.push(char::from(byte)),
            false if rng.bool() => text.push_str(&format!("%{byte:02X}")),
            false => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

/// A slip of the pen.
fn mutated(rng: &mut Rng, text: &str) -> String {
    const SLIPS: &[&str] = &[
        "%", "'", "\\", "=", "@", ":", "/", "?", "&", "[", "]", ",", " ", "\t", "\n", "#", "%00",
        "%2", "\u{a0}", "0", "a", "'=", "&&", "%20", "==",
    ];
    let mut chars: Vec<String> = text.chars().map(String::from).collect();
    for _ in 0..rng.usize(1..3) {
        let at = rng.usize(..=chars.len());
        match rng.u8(..3) {
            0 if at < chars.len() => drop(chars.remove(at)),
            1 if at < chars.len() => chars[at] = (one(rng, SLIPS)).to_owned(),
            _ => chars.insert(at, (one(rng, SLIPS)).to_owned()),
        }
    }
    chars.concat()
}
