//! Finds the bytes of which the history has the checksum.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::migration::history::{Applied, checksum};
use crate::migration::source::{self, Folder, Migration};
use crate::tools::git::{FileVersion, Git};

/// What was applied, and where it is.
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    pub(super) place: Place,
    /// If they were applied with other line ends than they have there: a checkout may change them.
    pub(super) line_ends: Option<LineEnds>,
}

#[derive(Clone)]
pub(super) enum Place {
    /// The up file of this version.
    Folder(i64),
    Git {
        file: FileVersion,
        /// What its commit is called by a branch, a tag or a stash, if one reaches it.
        name: Option<String>,
        /// What a checkout that brings it to the folder has to name, if one does.
        pathspec: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnds {
    Lf,
    Crlf,
}

impl LineEnds {
    pub(super) fn name(self) -> &'static str {
        match self {
            LineEnds::Lf => "LF",
            LineEnds::Crlf => "CRLF",
        }
    }

    /// What makes them so, as an argument of perl, which git brings along.
    pub(super) fn filter(self) -> &'static str {
        match self {
            LineEnds::Lf => r"'s/\r\n/\n/'",
            LineEnds::Crlf => r"'s/\r?\n/\r\n/'",
        }
    }

    /// The text with these line ends.
    pub(super) fn in_all(self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (line, end) = match line {
                [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => (line, true),
                line => (line, false),
            };
            text.extend_from_slice(line);
            text.extend_from_slice(match (end, self) {
                (false, _) => b"",
                (true, LineEnds::Lf) => b"\n",
                (true, LineEnds::Crlf) => b"\r\n",
            });
        }
        text
    }

    pub(super) fn of(bytes: &[u8]) -> LineEnds {
        match memchr::memmem::find(bytes, b"\r\n") {
            Some(_) => LineEnds::Crlf,
            None => LineEnds::Lf,
        }
    }
}

/// Where git was looked through.
#[derive(Default)]
pub(super) struct Looked {
    /// How many versions of migration files.
    pub(super) versions: usize,
    /// Whether this clone has only the newest commits.
    pub(super) shallow: bool,
}

/// In its own file, with other line ends, or in one that is pending, since it was given another version.
pub(super) fn in_folder(folder: &Folder, history: &[Applied], row: &Applied) -> Option<Found> {
    let found = |migration: &Migration, bytes: &[u8], line_ends| Found {
        bytes: bytes.to_vec(),
        place: Place::Folder(migration.version),
        line_ends,
    };
    let own = folder.get(row.version).and_then(|migration| {
        let forms = forms(migration.up_bytes());
        let mut forms = forms
            .iter()
            .filter(|(_, bytes)| row.checksum == checksum(bytes));
        forms
            .next()
            .map(|(line_ends, bytes)| found(migration, bytes, *line_ends))
    });
    own.or_else(|| {
        let pending =
            |migration: &&Migration| history.iter().all(|row| row.version != migration.version);
        let mut same = folder
            .migrations
            .iter()
            .filter(|migration| row.checksum == migration.checksum);
        same.find(pending)
            .map(|migration| found(migration, migration.up_bytes(), None))
    })
}

/// In git: first what was ever named by one of these versions, in any folder, then every other migration.
pub(super) fn in_git(
    git: &Git,
    rows: &[&Applied],
    found: &mut HashMap<i64, Found>,
) -> Result<Looked> {
    let mut files: Vec<(i64, FileVersion)> = Vec::new();
    for file in git.sql_files()? {
        files.extend(source::version_of(file.file_name()).map(|version| (version, file)));
    }
    let is_wanted = |version: i64| rows.iter().any(|row| row.version == version);
    let mut contents: HashMap<Vec<u8>, (String, Vec<u8>, Option<LineEnds>)> = HashMap::new();
    let mut read: HashSet<&str> = HashSet::new();
    for of_wanted in [true, false] {
        if rows.iter().all(|row| contents.contains_key(&row.checksum)) {
            break;
        }
        let these = files
            .iter()
            .filter(|(version, _)| is_wanted(*version) == of_wanted);
        let objects = these.map(|(_, file)| file.object.as_str());
        let objects: Vec<&str> = objects.filter(|object| read.insert(object)).collect();
        git.contents(&objects, |object, bytes| {
            for (line_ends, form) in forms(&bytes) {
                let checksum = checksum(&form);
                let is_wanted = rows.iter().any(|row| row.checksum == checksum);
                let known = contents.get(&checksum[..]);
                // Rather as it is there than with other line ends.
                if is_wanted && known.is_none_or(|known| line_ends.is_none() && known.2.is_some()) {
                    let content = (object.to_owned(), form.into_owned(), line_ends);
                    contents.insert(checksum.to_vec(), content);
                }
            }
        })?;
    }
    let chosen = rows.iter().filter_map(|row| {
        let content = contents.get(&row.checksum)?;
        let with_it = files.iter().filter(|(_, file)| file.object == content.0);
        // The newest, and rather under its own version.
        let (_, file) = with_it.min_by_key(|(version, _)| *version != row.version)?;
        Some((row.version, file, content))
    });
    let chosen: Vec<_> = chosen.collect();
    let commits: Vec<&str> = chosen.iter().map(|(_, file, _)| &file.commit[..]).collect();
    let names = git.names(&commits)?;
    for ((version, file, (_, bytes, line_ends)), name) in chosen.into_iter().zip(names) {
        let file_name = file.file_name();
        let is_here = line_ends.is_none()
            && file.path == format!("{}{file_name}", git.prefix)
            && source::version_of(file_name) == Some(version);
        let place = Place::Git {
            file: file.clone(),
            name,
            pathspec: is_here.then(|| pathspec(git, file)),
        };
        let (bytes, line_ends) = (bytes.clone(), *line_ends);
        let there = Found {
            bytes,
            place,
            line_ends,
        };
        found.insert(version, there);
    }
    Ok(Looked {
        versions: read.len(),
        shallow: git.shallow,
    })
}

/// A migration's files, up, down and verify, as one argument of git, from wherever in the repository. The
/// up file alone, if its down file is there: a checkout would undo what was changed in it.
fn pathspec(git: &Git, up: &FileVersion) -> String {
    let name = up.file_name();
    let stem = name.strip_suffix(".sql").unwrap_or(name);
    let stem = stem.strip_suffix(".up").unwrap_or(stem);
    if git.dir.join(format!("{stem}.down.sql")).exists() {
        return format!(":(top,literal){}", up.path);
    }
    let literal = |text: &str| -> String {
        let escape = |c| ("*?[\\".contains(c)).then_some('\\');
        text.chars()
            .flat_map(|c| escape(c).into_iter().chain([c]))
            .collect()
    };
    format!(":(top,glob){}**/{}.*", literal(&git.prefix), literal(stem))
}

/// A text as it is, and with every line end as on another platform: git may have checked it out so.
fn forms(bytes: &[u8]) -> Vec<(Option<LineEnds>, Cow<'_, [u8]>)> {
    let mut forms = vec![(None, Cow::Borrowed(bytes))];
    for ends in [LineEnds::Lf, LineEnds::Crlf] {
        let form = ends.in_all(bytes);
        if form != bytes {
            forms.push((Some(ends), Cow::Owned(form)));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_line_ends_of_other_platforms_too() {
        for (text, others) in [
            ("a\nb", &["a\r\nb"][..]),
            ("a\r\nb\r\n", &["a\nb\n"]),
            ("a\nb\r\n", &["a\nb\n", "a\r\nb\r\n"]),
            ("a\rb", &[]),
            ("", &[]),
        ] {
            let forms = forms(text.as_bytes());
            let forms: Vec<&str> = forms
                .iter()
                .map(|(_, form)| std::str::from_utf8(form).expect("UTF-8"))
                .collect();
            assert_eq!(forms[0], text);
            assert_eq!(&forms[1..], others, "{text:?}");
        }
    }
}
