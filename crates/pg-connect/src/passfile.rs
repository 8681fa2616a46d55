//! The password file, `~/.pgpass`: which password goes to which server.
//!
//! The format and its rules are those of the manual, *The Password File*.

use std::fs;
use std::path::{Path, PathBuf};

use crate::password::Password;

/// The lines of a password file, in their order: the first that matches counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct PasswordFile {
    pub(crate) path: PathBuf,
    lines: Vec<Line>,
}

/// `host:port:dbname:user:password`; a `None` is the `*` that matches anything.
#[derive(Clone, Debug)]
struct Line {
    number: usize,
    fields: [Option<String>; 4],
    password: Password,
}

impl PasswordFile {
    /// Reads the file. One that does not exist is like an empty one; one that cannot or must not be
    /// used is like an empty one too, with a warning that says why.
    pub(crate) fn read(path: &Path) -> (PasswordFile, Option<String>) {
        let mut file = PasswordFile {
            path: path.to_owned(),
            lines: Vec::new(),
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
                file.lines = parse(&String::from_utf8_lossy(&bytes));
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
        port: u16,
        dbname: &str,
        user: &str,
    ) -> Option<(&Password, usize)> {
        let port = port.to_string();
        let wanted = [host, &port, dbname, user];
        let matches = |line: &&Line| {
            let mut fields = line.fields.iter().zip(wanted);
            fields.all(|(field, wanted)| field.as_ref().is_none_or(|field| field == wanted))
        };
        let line = self.lines.iter().find(matches)?;
        Some((&line.password, line.number))
    }
}

/// Whether group or world have any access, which libpq takes as a reason not to trust the file.
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

/// Parses the lines; comments and lines with too few fields are left out, as libpq does.
fn parse(text: &str) -> Vec<Line> {
    let numbered = text.lines().enumerate();
    numbered
        .filter(|(_, line)| !line.starts_with('#'))
        .filter_map(|(index, line)| parse_line(index + 1, line))
        .collect()
}

fn parse_line(number: usize, line: &str) -> Option<Line> {
    let mut rest = line;
    let mut fields = [const { None }; 4];
    for field in &mut fields {
        let raw;
        (raw, rest) = split_field(rest)?;
        *field = (raw != "*").then(|| unescape(raw));
    }
    Some(Line {
        number,
        fields,
        password: Password::new(unescape(rest)),
    })
}

/// Splits at the first `:` that no backslash precedes.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b':' if !escaped => return Some((&text[..at], &text[at + 1..])),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
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
::1:5432:app:admin:not this, its colons are not escaped
\\:\\:1:5432:app:admin:ip6
short:line
*:*:*:guest:
";

    fn find(host: &str, port: u16, dbname: &str, user: &str) -> Option<String> {
        let file = PasswordFile {
            path: PathBuf::new(),
            lines: parse(FILE),
        };
        let (password, line) = file.find(host, port, dbname, user)?;
        Some(format!("{line}: {}", password.expose()))
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        let table = [
            (("db1", 5432, "app", "admin"), Some("2: first")),
            (("db1", 5432, "other", "admin"), Some("3: any of db1")),
            (("db1", 1, "app", "admin"), Some("3: any of db1")),
            (("db1", 5432, "app", "other"), None),
            (("localhost", 5432, "we:ird\\", "x"), Some("4: a:b\\c:d")),
            (("::1", 5432, "app", "admin"), Some("6: ip6")),
            (("anywhere", 9, "x", "guest"), Some("8: ")),
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
        assert!(file.find("h", 1, "d", "u").is_none());
        assert!(warning.unwrap().contains("chmod 600"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (file, warning) = PasswordFile::read(&path);
        assert_eq!(file.find("h", 1, "d", "u").unwrap().0.expose(), "s3cret");
        assert_eq!(warning, None);
        assert!(!format!("{file:?}").contains("s3cret"));

        let (_, warning) = PasswordFile::read(folder.path());
        assert!(warning.unwrap().contains("not a plain file"));
        let (_, warning) = PasswordFile::read(&folder.path().join("none"));
        assert_eq!(warning, None);
    }
}
