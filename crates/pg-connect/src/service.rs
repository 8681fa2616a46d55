//! The connection service file: sections of settings, chosen by `service=`.
//!
//! The format and the places are those of the manual, *The Connection Service File*.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::environment::Env;
use crate::error::{Error, Result};
use crate::keywords::known_keyword;
use crate::settings::{Origin, Settings};

/// Where the system's `pg_service.conf` is if `PGSYSCONFDIR` is not set: in Debian's packages, in the
/// PostgreSQL project's RPMs, and in a build from source.
const SYSTEM_FOLDERS: [&str; 3] = [
    "/etc/postgresql-common",
    "/etc/sysconfig/pgsql",
    "/usr/local/pgsql/etc",
];

/// Adds the settings of the chosen service that the connection string does not set.
///
/// Fails if the service is not defined, or its section has an error.
pub(crate) fn fill(settings: &mut Settings, env: &Env) -> Result {
    // An empty name counts as a name: libpq looks for the section `[]`.
    let asked = |keyword, variable| {
        let given = settings.raw(keyword).map(str::to_owned);
        given.or_else(|| env.get(variable).cloned())
    };
    let Some(service) = asked("service", "PGSERVICE") else {
        return Ok(());
    };
    let own_file = asked("servicefile", "PGSERVICEFILE").map(PathBuf::from);

    let mut looked_in = Vec::new();
    for path in places(own_file.as_deref(), env) {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Only a file that was named explicitly must exist.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && own_file.as_ref() != Some(&path) =>
            {
                continue;
            }
            Err(error) => {
                return Err(Error::invalid(format!(
                    "cannot read the service file `{}`",
                    path.display()
                ))
                .cause(error.to_string()));
            }
        };
        if read_section(&text, &service, &path, settings)? {
            return Ok(());
        }
        looked_in.push(format!("`{}` has no `[{service}]`", path.display()));
    }
    let mut failure = Error::invalid(format!("the service `{service}` is not defined"));
    if looked_in.is_empty() {
        failure = failure.cause("there is no service file");
    }
    failure.causes.extend(looked_in);
    Err(failure.hint("define it in `~/.pg_service.conf`, or name another file in `PGSERVICEFILE`"))
}

/// The files to read, in libpq's order (`parseServiceInfo` in `fe-connect.c`).
fn places(own_file: Option<&Path>, env: &Env) -> Vec<PathBuf> {
    let user = match own_file {
        Some(path) => Some(path.to_owned()),
        None => env
            .get("HOME")
            .map(|home| Path::new(home).join(".pg_service.conf")),
    };
    let system = match env.get("PGSYSCONFDIR") {
        Some(folder) => vec![folder.as_str()],
        None => SYSTEM_FOLDERS.to_vec(),
    };
    let system = system
        .iter()
        .map(|folder| PathBuf::from(format!("{folder}/pg_service.conf")));
    user.into_iter().chain(system).collect()
}

/// Adds the settings of one section. Returns whether the file has the section.
fn read_section(text: &str, service: &str, path: &Path, settings: &mut Settings) -> Result<bool> {
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            if found {
                break;
            }
            // libpq ignores what follows the closing bracket.
            let rest = rest.strip_prefix(service);
            found = rest.is_some_and(|rest| rest.starts_with(']'));
            continue;
        }
        if !found {
            continue;
        }
        let place = || format!("`{}`, line {}", path.display(), index + 1);
        let mistake = |what: &str| Error::invalid(format!("{}: {what}", place()));
        let Some((name, value)) = line.split_once('=') else {
            return Err(match line.starts_with("ldap") {
                true => mistake("a service that is looked up by LDAP is not supported"),
                false => mistake("`=` is missing"),
            });
        };
        let keyword = known_keyword(name, false)
            .map_err(|error| error.within(format!("{}: unknown keyword", place())))?;
        if keyword.starts_with("service") {
            return Err(mistake("a service cannot name another service"));
        }
        let origin = Origin::Service(service.to_owned(), path.display().to_string());
        settings.set_default(keyword, value, origin);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connstring::parse;

    const FILE: &str = "\
# services
[other]
host=elsewhere
[app]
host=db.example
port=5433
  user=admin
# first wins
user=second
password=a b=c

[after]
dbname=not this one
broken
";

    fn fill_from(file: &str, given: &str) -> Result<Vec<(&'static str, String)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services");
        fs::write(&path, file).unwrap();
        let env = Env::from([
            ("PGSERVICEFILE".to_owned(), path.display().to_string()),
            ("PGSYSCONFDIR".to_owned(), "/nonexistent".to_owned()),
        ]);
        let mut settings = parse(given)?;
        fill(&mut settings, &env)?;
        Ok(settings.iter().map(|(k, v)| (k, v.to_owned())).collect())
    }

    #[test]
    fn a_section_fills_in_what_the_string_leaves_open() {
        let settings = fill_from(FILE, "service=app port=1 dbname=d").unwrap();
        let expected = [
            ("dbname", "d"),
            ("host", "db.example"),
            ("password", "a b=c"),
            ("port", "1"),
            ("service", "app"),
            ("user", "admin"),
        ];
        assert_eq!(settings, expected.map(|(k, v)| (k, v.to_owned())));
    }

    #[test]
    fn mistakes_are_named_by_file_and_line() {
        let table = [
            (FILE, "service=none", "the service `none` is not defined"),
            (FILE, "service=after", "line 14: `=` is missing"),
            ("[s]\nhots=h\n", "service=s", "line 2: unknown keyword"),
            (
                "[s]\nservice=t\n",
                "service=s",
                "line 2: a service cannot name",
            ),
            ("[s]\nldap://x\n", "service=s", "by LDAP"),
            (
                FILE,
                "service=app servicefile=/nonexistent",
                "cannot read the service file",
            ),
        ];
        for (file, given, expected) in table {
            let error = fill_from(file, given).unwrap_err();
            assert!(error.to_string().contains(expected), "{given}: {error}");
        }
    }
}
