//! The password file, `~/.pgpass`.
//!
//! The format and its rules are those of the manual, *The Password File*.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::password::Password;

/// A password file. `Debug` shows its path only.
#[derive(Clone, Default)]
pub(crate) struct PasswordFile {
    pub(crate) path: PathBuf,
    text: String,
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl PasswordFile {
    /// Reads the file. A file that does not exist is the same as an empty one. So is one that cannot or
    /// must not be used, but with a warning that says why.
    pub(crate) fn read(path: &Path) -> (PasswordFile, Option<String>) {
        let mut file = PasswordFile {
            path: path.to_owned(),
            text: String::new(),
        };
        let shown = path.display();
        let Ok(metadata) = fs::metadata(path) else {
            return (file, None);
        };
        if !metadata.is_file() {
            let warning = format!("password file `{shown}` is not a plain file, so it is ignored");
            return (file, Some(warning));
        }
        if is_open_to_others(&metadata) {
            let warning = format!(
                "password file `{shown}` can be read by others, so it is ignored; \
                 run `chmod 600 {shown}`"
            );
            return (file, Some(warning));
        }
        match fs::read(path) {
            Ok(bytes) => {
                file.text = String::from_utf8_lossy(&bytes).into_owned();
                (file, None)
            }
            Err(error) => {
                let warning = format!("password file `{shown}` cannot be read: {error}");
                (file, Some(warning))
            }
        }
    }

    /// The password of the first line that matches, and the line's number.
    pub(crate) fn find(
        &self,
        host: &str,
        port: &str,
        dbname: &str,
        user: &str,
    ) -> Option<(Password, usize)> {
        let wanted = [host, port, dbname, user];
        let mut lines = (1..).zip(self.text.split('\n'));
        lines.find_map(|(number, line)| {
            let line = line.trim_end_matches('\r');
            if line.starts_with('#') {
                return None;
            }
            let password = wanted.into_iter().try_fold(line, after_field)?;
            Some((Password::new(unescape(password)), number))
        })
    }
}

/// The rest of the line after a field that matches: `*:`, or the wanted text and `:`, compared as libpq
/// does (`passwordFromFile` and `pwdfMatchesString` in `fe-connect.c`). A `:` in the text needs no
/// backslash: `::1:5432:…` is a line for `::1`.
fn after_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut rest = line;
    for c in wanted.chars() {
        rest = rest.strip_prefix('\\').unwrap_or(rest).strip_prefix(c)?;
    }
    rest.strip_prefix(':')
}

/// Whether group or others have any access: libpq then ignores the file.
#[cfg(unix)]
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o077 != 0
}

/// Elsewhere libpq makes no such check.
#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

/// The password: the text up to the next `:`, if there is one, with its backslash escapes removed.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next().filter(|c| *c != ':') {
        plain.push(match c {
            '\\' => chars.next().unwrap_or(c),
            c => c,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# host:port:dbname:user:password
db1:5432:app:admin:first
db1:*:*:admin:any of db1
localhost:5432:we\\:ird\\\\:*:a\\:b\\\\c:d
::1:5432:app:admin:its colons need no backslash:and what follows another is not read
\\:\\:1:5432:app:other:ip6
short:line
*:*:*:guest:
";

    fn find(host: &str, port: &str, dbname: &str, user: &str) -> Option<String> {
        let file = PasswordFile {
            path: PathBuf::new(),
            text: FILE.to_owned(),
        };
        let (password, line) = file.find(host, port, dbname, user)?;
        Some(format!("{line}: {}", password.expose()))
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        let table = [
            (("db1", "5432", "app", "admin"), Some("2: first")),
            (("db1", "5432", "other", "admin"), Some("3: any of db1")),
            (("db1", "1", "app", "admin"), Some("3: any of db1")),
            (("db1", "5432", "app", "other"), None),
            (("localhost", "5432", "we:ird\\", "x"), Some("4: a:b\\c")),
            (
                ("::1", "5432", "app", "admin"),
                Some("5: its colons need no backslash"),
            ),
            (("::1", "5432", "app", "other"), Some("6: ip6")),
            (("anywhere", "9", "x", "guest"), Some("8: ")),
        ];
        for ((host, port, dbname, user), expected) in table {
            assert_eq!(
                find(host, port, dbname, user).as_deref(),
                expected,
                "{host} {user}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored_with_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        fs::write(&path, "*:*:*:*:s3cret\n").unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let (file, warning) = PasswordFile::read(&path);
        assert!(file.find("h", "1", "d", "u").is_none());
        assert!(warning.unwrap().contains("chmod 600"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (file, warning) = PasswordFile::read(&path);
        assert_eq!(file.find("h", "1", "d", "u").unwrap().0.expose(), "s3cret");
        assert_eq!(warning, None);
        assert!(!format!("{file:?}").contains("s3cret"));

        let (_, warning) = PasswordFile::read(folder.path());
        assert!(warning.unwrap().contains("not a plain file"));
        let (_, warning) = PasswordFile::read(&folder.path().join("none"));
        assert_eq!(warning, None);
    }
}
