//! One file of a migration: read when it is asked for, and checked when it is to run.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::migration::script::{Directives, Problem, Role, Script};

/// A file in the folder. Of an applied migration nobody asks what is in it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// As shown to people, relative to their working directory.
    pub(crate) path: PathBuf,
    on_disk: PathBuf,
    role: Role,
    /// What it held when it was read first; what runs is what was hashed.
    bytes: OnceCell<Vec<u8>>,
    script: OnceCell<Result<Script, Vec<Problem>>>,
}

impl File {
    /// The file `name`, which is relative to the folder `dir`; messages call the folder `shown_as`.
    pub(super) fn new(dir: &Path, shown_as: &Path, name: &str, role: Role) -> File {
        File {
            path: shown_as.join(name),
            on_disk: dir.join(name),
            role,
            bytes: OnceCell::new(),
            script: OnceCell::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn in_memory(path: &str, text: &str, role: Role) -> File {
        let file = File::new(Path::new(""), Path::new(""), path, role);
        file.bytes.get_or_init(|| text.into());
        file
    }

    pub(super) fn bytes(&self) -> io::Result<&[u8]> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes);
        }
        let bytes = fs::read(&self.on_disk)?;
        Ok(self.bytes.get_or_init(|| bytes))
    }

    /// What it holds, if it can be run; else everything wrong with it.
    pub(crate) fn script(&self) -> Result<&Script, &[Problem]> {
        let script = self.script.get_or_init(|| match self.bytes() {
            Ok(bytes) => Script::parse(&self.path, bytes.to_vec(), self.role),
            Err(error) => Err(vec![unreadable(&self.path, &error)]),
        });
        script.as_ref().map_err(Vec::as_slice)
    }

    /// What its head asks for, if it can be read, also if it cannot be run.
    pub(crate) fn directives(&self) -> Directives {
        match self.bytes() {
            Ok(bytes) => Script::directives_of(&self.path, bytes, self.role),
            Err(_) => Directives::default(),
        }
    }

    pub(super) fn problems(&self) -> &[Problem] {
        self.script().err().unwrap_or_default()
    }
}

/// A file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        place: path.display().to_string(),
        what: format!("cannot be read: {error}"),
        hint: "check who may read it, or where the link points".to_owned(),
    }
}
