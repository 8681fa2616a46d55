//! Which PostgreSQL programs this machine has: their folders and versions. Runs nothing but
//! `--version`, and that only if the version is not in the folder's name.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// A folder with one of these programs contains PostgreSQL: two client programs, two of the server.
const PROGRAMS: [&str; 4] = ["psql", "pg_dump", "initdb", "postgres"];

/// Where packages put the programs without adding the folder to `PATH`. One `*` each at most.
const USUAL_FOLDERS: [&str; 14] = [
    "/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
    "/usr/pgsql-*/bin",                                   // PostgreSQL's own RPMs
    "/usr/lib/postgresql*/bin",                           // openSUSE
    "/usr/lib64/postgresql-*/bin",                        // Gentoo
    "/usr/libexec/postgresql*",                           // Alpine
    "/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew on Apple silicon
    "/opt/homebrew/opt/libpq/bin",                        // … its clients alone
    "/usr/local/opt/postgresql@*/bin",                    // Homebrew on Intel
    "/usr/local/opt/libpq/bin",                           // … its clients alone
    "/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
    "/usr/local/pgsql/bin",                               // built from source, by default
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/usr/bin", // Fedora, Arch
];

/// A PostgreSQL version. A pre-release counts as its major version's `.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `15` of 15.18: the format of a data folder and of a dump depends on it.
    pub major: u32,
    /// `18` of 15.18: bug fixes only.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    /// Parses the output of `--version`, or the server's `server_version`:
    /// `psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `15.18`, `17beta1`, `18devel`.
    fn from_str(text: &str) -> Result<Self> {
        let word = text
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .with_context(|| {
                format!("read a PostgreSQL version in {text:?}: no word of it begins with a digit")
            })?;
        let (major, rest) = leading_number(word).with_context(|| {
            format!("read a PostgreSQL version in {word:?}: the number is too large")
        })?;
        let minor = rest
            .strip_prefix('.')
            .and_then(leading_number)
            .map_or(0, |(minor, _)| minor);
        Ok(Self { major, minor })
    }
}

/// A folder with PostgreSQL programs: those of a server, of a client, or both.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The folder with the programs themselves; symbolic links are resolved.
    pub bin: PathBuf,
    /// The major version. In most places `find` knows it without running a program.
    pub major: u32,
    version: OnceLock<Version>,
}

impl Installation {
    /// The installation in a folder, or `None` if the folder has no PostgreSQL program that works.
    pub fn in_folder(bin: &Path) -> Option<Self> {
        let mut installation = Self {
            bin: bin.to_owned(),
            major: 0,
            version: OnceLock::new(),
        };
        installation.major = match major_by_name(bin) {
            Some(major) => major,
            None => installation.version().ok()?.major,
        };
        Some(installation)
    }

    /// The path of one of its programs, even if it does not exist (see [`has`](Self::has)).
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Whether the program exists.
    pub fn has(&self, name: &str) -> bool {
        self.program(name).is_file()
    }

    /// Whether it can create and run a server.
    pub fn has_server(&self) -> bool {
        ["initdb", "pg_ctl", "postgres"]
            .iter()
            .all(|name| self.has(name))
    }

    /// The exact version. The first call runs one of the programs (about 5 ms).
    ///
    /// # Errors
    /// If no program runs, or its output contains no version.
    pub fn version(&self) -> Result<Version> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let Some(name) = PROGRAMS.iter().find(|name| self.has(name)) else {
            bail!("no PostgreSQL program is in {}", self.bin.display());
        };
        let version = self.version_of(name)?;
        Ok(*self.version.get_or_init(|| version))
    }

    /// The version of one program, from its `--version`: a folder can contain programs of several
    /// versions.
    ///
    /// # Errors
    /// If it does not run, or its output contains no version.
    pub fn version_of(&self, name: &str) -> Result<Version> {
        let program = self.program(name);
        let asked = || format!("run {} --version", program.display());
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .with_context(asked)?;
        String::from_utf8_lossy(&output.stdout)
            .parse()
            .with_context(asked)
    }
}

/// Every installation on `path` (the value of `PATH`) and in the platform's usual places: the
/// newest major version first; of the same version, those on `path` first.
///
/// Takes about a millisecond, plus one `--version` for each folder without a version in its name.
pub fn find(path: Option<&OsStr>) -> Vec<Installation> {
    let on_path = path.into_iter().flat_map(std::env::split_paths);
    let usual = USUAL_FOLDERS.iter().flat_map(|pattern| expand(pattern));
    let mut bins = Vec::new();
    // A relative entry of PATH would be looked up in whatever folder we happen to stand in.
    for folder in on_path.filter(|folder| folder.is_absolute()).chain(usual) {
        for bin in PROGRAMS
            .iter()
            .filter_map(|name| home_of(&folder.join(name)))
        {
            if !bins.contains(&bin) {
                bins.push(bin);
            }
        }
    }
    let mut found: Vec<_> = bins
        .iter()
        .filter_map(|bin| Installation::in_folder(bin))
        .collect();
    found.sort_by_key(|installation| std::cmp::Reverse(installation.major));
    found
}

/// The installation in the folder `only_in`, if one is named; otherwise every one that [`find`] finds.
pub fn find_or_only_in(path: Option<&OsStr>, only_in: Option<&Path>) -> Vec<Installation> {
    match only_in {
        Some(folder) => Installation::in_folder(folder).into_iter().collect(),
        None => find(path),
    }
}

/// The newest installation that can create and run a server. `path` and `only_in` as in [`find_or_only_in`].
///
/// # Errors
/// If there is none; the message names the command that installs one.
pub fn newest_server(path: Option<&OsStr>, only_in: Option<&Path>) -> Result<Installation> {
    find_or_only_in(path, only_in).into_iter().find(Installation::has_server).with_context(|| {
        let commands = crate::Platform::detect().install_commands();
        let typed: Vec<_> = commands.iter().map(ToString::to_string).collect();
        match typed.is_empty() {
            true => "look for a PostgreSQL server: none is installed; install PostgreSQL 14 or newer".to_owned(),
            false => format!("look for a PostgreSQL server: none is installed; try: {}", typed.join(" && ")),
        }
    })
}

/// The folder of a program, with symbolic links resolved.
///
/// A link to a file of another name is a wrapper, and is not used: Debian's `/usr/bin/psql` is a link to
/// `pg_wrapper`, a Perl script that reads settings of its own and takes 40 ms per run.
fn home_of(program: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(program).ok()?;
    let same_name = real.file_name() == program.file_name();
    (same_name && real.is_file()).then(|| real.parent().map(Path::to_owned))?
}

/// The folders that match a pattern with at most one `*`.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let after = after.trim_start_matches('/');
    let Ok(entries) = fs::read_dir(format!("{parent}/")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        })
        .map(|path| {
            if after.is_empty() {
                path
            } else {
                path.join(after)
            }
        })
        .collect()
}

/// The major version that a folder is named after: `/usr/lib/postgresql/15/bin`,
/// `/usr/pgsql-15/bin`, `…/Cellar/postgresql@15/15.18/bin`, `/usr/libexec/postgresql15`.
///
/// Only in a path that names PostgreSQL: `/opt/42/bin` is not version 42.
fn major_by_name(bin: &Path) -> Option<u32> {
    let path = bin.to_str()?.to_ascii_lowercase();
    if !["postgres", "pgsql", "libpq"]
        .iter()
        .any(|word| path.contains(word))
    {
        return None;
    }
    let name = path.trim_end_matches("/bin").rsplit('/').next()?;
    let number = ["pgsql-", "postgresql@", "postgresql-", "postgresql"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    let (major, rest) = leading_number(number)?;
    (rest.is_empty() || rest.starts_with('.')).then_some(major)
}

/// The decimal number that a text begins with, and the text after it.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn versions_are_read_from_what_programs_say() {
        let table = [
            ("psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
            ("pg_dump (PostgreSQL) 17beta1", "17.0"),
            ("postgres (PostgreSQL) 18devel\n", "18.0"),
            ("16.4 (Ubuntu 16.4-1)", "16.4"),
            ("14", "14.0"),
        ];
        for (said, version) in table {
            assert_eq!(
                said.parse::<Version>().unwrap().to_string(),
                version,
                "{said}"
            );
        }
        assert!("psql: error".parse::<Version>().is_err());
        assert!("99999999999999".parse::<Version>().is_err());
        assert!("9.6".parse::<Version>().unwrap() < "15.2".parse().unwrap());
    }

    #[test]
    fn a_folder_name_tells_the_major_version_only_where_it_names_postgresql() {
        let table = [
            ("/usr/lib/postgresql/15/bin", Some(15)),
            ("/usr/pgsql-16/bin", Some(16)),
            ("/usr/lib/postgresql17/bin", Some(17)),
            ("/usr/libexec/postgresql16", Some(16)),
            ("/opt/homebrew/Cellar/postgresql@14/14.18_1/bin", Some(14)),
            ("/opt/homebrew/Cellar/libpq/18.0/bin", Some(18)),
            (
                "/Applications/Postgres.app/Contents/Versions/17/bin",
                Some(17),
            ),
            ("/nix/store/0kx4-postgresql-15.5/bin", None),
            ("/usr/local/pgsql/bin", None),
            ("/opt/42/bin", None),
            ("/usr/bin", None),
        ];
        for (folder, major) in table {
            assert_eq!(major_by_name(Path::new(folder)), major, "{folder}");
        }
    }

    #[test]
    fn links_are_followed_and_wrappers_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (real, path) = (root.join("real"), root.join("path"));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(
            real.join("pg_dump"),
            "#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.7'\n",
        )
        .unwrap();
        fs::set_permissions(real.join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("pg_wrapper"), "not to be run").unwrap();
        symlink(root.join("pg_wrapper"), path.join("psql")).unwrap();
        symlink(real.join("pg_dump"), path.join("pg_dump")).unwrap();

        let newest = &find(Some(path.as_os_str()))[0];
        assert_eq!((&newest.bin, newest.major), (&real, 99));
        assert_eq!(
            newest.version().unwrap(),
            Version {
                major: 99,
                minor: 7
            }
        );
        assert!(newest.has("pg_dump") && !newest.has("psql") && !newest.has_server());
    }
}
