//! What git holds at a commit.

use std::path::Path;
use std::process::Command;

use crate::error::{Failure, Result};

/// The names in the folder `dir` at a commit; none if the commit does not have the folder.
///
/// # Errors
/// If there is no git, no repository, or no such commit.
pub(crate) fn names_in(dir: &Path, reference: &str) -> Result<Vec<String>> {
    // A branch may have the folder where it is still to be made here.
    let mut places = dir.ancestors();
    let place = places.find(|folder| folder.is_dir()).unwrap_or(dir);
    let mut git = Command::new("git");
    git.arg("-C").arg(place);
    git.args(["ls-tree", "-z", "--name-only", "--end-of-options"]);
    git.arg(format!("{reference}^{{commit}}"));
    if let Ok(below) = dir.strip_prefix(place)
        && below != ""
    {
        git.arg(below.join(""));
    }
    let cause = match git.output() {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8_lossy(&output.stdout);
            let names = names.split_terminator('\0');
            // git writes them with the folder.
            let names = names.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned());
            return Ok(names.collect());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("cannot start `git`: {error}"),
    };
    let what = format!("cannot look at the migrations on `{reference}`");
    Err(Failure::usage(what)
        .cause(cause)
        .state("no file was written")
        .hint("fetch it: git fetch --all")
        .hint("or leave out `--against`")
        .into())
}
