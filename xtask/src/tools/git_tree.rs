//! What git holds at a commit.

use std::path::Path;
use std::process::{Command, Output};

use crate::error::{Failure, Result};

/// The names in the folder `dir` at a commit; none if the commit does not have the folder.
///
/// # Errors
/// If there is no git, no repository, or no such commit.
pub(crate) fn names_in(dir: &Path, reference: &str) -> Result<Vec<String>> {
    let place = dir
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(dir);
    let below = dir.strip_prefix(place).unwrap_or(dir);
    let at = format!("`{reference}`");
    git(place, &["rev-parse", "--git-dir"])?.ok_or_else(|| {
        refused(&at)
            .cause(format!("`{}` is in no git repository", place.display()))
            .hint("leave out `--against`, or name a folder of a repository with `--migrations DIR`")
    })?;
    let commit = format!("{reference}^{{commit}}");
    let found = git(
        place,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &commit,
        ],
    )?;
    let commit = found.ok_or_else(|| {
        refused(&at)
            .cause(format!("{at} names no commit here"))
            .hint("fetch it: git fetch --all")
            .hint("or see which branches there are: git branch --all")
    })?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let folder = below.to_string_lossy();
    let mut arguments = vec!["ls-tree", "-z", "--name-only", commit.as_str()];
    let folder = format!("{folder}/");
    if !below.as_os_str().is_empty() {
        arguments.push(&folder);
    }
    let names = git(place, &arguments)?.ok_or_else(|| {
        refused(&at)
            .cause("git cannot list its files")
            .hint("look yourself: git ls-tree HEAD")
    })?;
    let names = names.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let names = names.filter_map(|path| {
        Some(
            Path::new(&*path)
                .file_name()?
                .to_string_lossy()
                .into_owned(),
        )
    });
    Ok(names.collect())
}

/// What git prints; `None` if it says no.
fn git(place: &Path, arguments: &[&str]) -> Result<Option<Vec<u8>>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(place)
        .args(arguments)
        .output();
    let Output { status, stdout, .. } = output.map_err(|error| {
        Failure::failed("cannot start `git`")
            .cause(error.to_string())
            .state("no file was written")
            .hint("install git, or leave out `--against`")
    })?;
    Ok(status.success().then_some(stdout))
}

fn refused(at: &str) -> Failure {
    Failure::usage(format!("cannot look at the migrations on {at}")).state("no file was written")
}
