//! A file while it is checked: its bytes as text, and the problems found in it.

use std::fmt;
use std::path::Path;

use crate::migration::sql;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Up,
    Down,
    Verify,
}

/// One thing wrong with the folder or a file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `path`, `path:line` or `path:line:column`.
    pub(crate) place: String,
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// The bytes as UTF-8. A byte order mark and NUL are refused: neither the server nor psql accepts them.
pub(super) fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Problem> {
    let at_line = |byte: usize, bytes: &[u8]| {
        let line = 1 + bytes[..byte].iter().filter(|&&b| b == b'\n').count();
        format!("{}:{line}", path.display())
    };
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Problem {
            place: at_line(0, &bytes),
            what: "begins with a byte order mark (BOM), which the server refuses as a syntax error"
                .to_owned(),
            hint: "save it as UTF-8 without BOM".to_owned(),
        });
    }
    if let Some(byte) = memchr::memchr(0, &bytes) {
        return Err(Problem {
            place: at_line(byte, &bytes),
            what: format!("holds a NUL byte at byte {byte}, which SQL text cannot"),
            hint: "remove it, or save the file as UTF-8 if it is UTF-16".to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Problem {
            place: at_line(byte, error.as_bytes()),
            what: format!("is not UTF-8: byte {byte} does not belong there"),
            hint: "save it as UTF-8".to_owned(),
        }
    })
}

/// The text of one file, and the problems found in it so far.
pub(super) struct Check<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) role: Role,
    pub(super) problems: Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn problem(
        &mut self,
        byte: usize,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (line, column) = sql::position(self.text, byte);
        self.problems.push(Problem {
            place: format!("{}:{line}:{column}", self.path.display()),
            what: what.into(),
            hint: hint.into(),
        });
    }
}
