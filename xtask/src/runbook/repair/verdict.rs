//! What is to be done about a migration whose file is not what was applied.

use super::search::{Found, LineEnds, Looked, Place};
use super::{Refusal, Restamp};
use crate::error::Result;
use crate::hex;
use crate::hint::Hint;
use crate::migration::history::Applied;
use crate::migration::script::{NO_TRANSACTION, plain_sql};
use crate::migration::source::{Folder, Migration};
use crate::migration::sql;
use crate::shell::shell_word;
use crate::tools::git::{self, FileVersion};
use crate::ui;

/// How much of an object's id is shown.
const SHORT: usize = 12;

/// Compares what was applied with the file.
///
/// # Errors
/// If the difference cannot be shown.
pub(super) fn compare(
    folder: &Folder,
    migration: &Migration,
    row: &Applied,
    found: &Found,
) -> Result<Result<Restamp, Refusal>> {
    let diff = shown_difference(migration, &found.bytes)?;
    let path = &migration.up.path;
    Ok(match same_sql(migration, &found.bytes) {
        Ok(()) => Ok(Restamp {
            version: row.version,
            path: path.clone(),
            from: row.checksum.clone(),
            to: migration.checksum,
            found_in: found_in(folder, found),
            diff,
        }),
        Err(why) => Err(Refusal {
            version: row.version,
            why: format!("`{}` is not what was applied: {why}", path.display()),
            found_in: Some(found_in(folder, found)),
            diff: Some(diff),
            hints: vec![
                "make the change a migration of its own, with a version above the newest".into(),
                Hint::say(put_back(folder, found, migration)),
            ],
        }),
    })
}

/// # Errors
/// Why the file is not the SQL that was applied.
fn same_sql(migration: &Migration, applied: &[u8]) -> Result<(), String> {
    let path = &migration.up.path;
    match (
        applied.starts_with(NO_TRANSACTION.as_bytes()),
        migration.transactional(),
    ) {
        (true, true) => return Err(format!("the first line was `{NO_TRANSACTION}`")),
        (false, false) => return Err(format!("the first line was not `{NO_TRANSACTION}`")),
        _ => {}
    }
    let applied = plain_sql(path, applied)
        .map_err(|what| format!("what was applied cannot be compared: {what}"))?;
    let now = plain_sql(path, migration.up_bytes())
        .map_err(|what| format!("as it is now, it cannot be compared: {what}"))?;
    match sql::difference(&applied, &now) {
        Some((at, what)) => Err(format!("at {}, {what}", sql::place(&now, at))),
        None => Ok(()),
    }
}

fn shown_difference(migration: &Migration, applied: &[u8]) -> Result<String> {
    let now = migration.up_bytes();
    if LineEnds::Lf.in_all(applied) == LineEnds::Lf.in_all(now) {
        return Ok(format!(
            "{}: only line ends differ, {} when it was applied, {} now",
            migration.up.path.display(),
            LineEnds::of(applied).name(),
            LineEnds::of(now).name()
        ));
    }
    git::diff(&file_name(migration), applied, now)
}

fn file_name(migration: &Migration) -> String {
    let name = migration.up.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// As git names it, `COMMIT:PATH`; or the file.
fn found_in(folder: &Folder, found: &Found) -> String {
    match &found.place {
        Place::Folder(version) => shown_path(folder, *version),
        Place::Git { file, .. } => format!("{}:{}", short(&file.commit), file.path),
    }
}

/// The path of the up file with this version.
fn shown_path(folder: &Folder, version: i64) -> String {
    let path = folder.get(version).map(|migration| &migration.up.path);
    path.map_or(String::new(), |path| path.display().to_string())
}

fn short(id: &str) -> &str {
    &id[..id.len().min(SHORT)]
}

/// What a person types to have the file again as it was applied.
fn put_back(folder: &Folder, found: &Found, migration: &Migration) -> String {
    let path = shell_word(migration.up.path.display());
    let command = match (&found.place, found.line_ends) {
        (Place::Git { file, .. }, line_ends) => from_git(file, line_ends, &path),
        (Place::Folder(_), Some(line_ends)) => format!("perl -pi -e {} {path}", line_ends.filter()),
        (Place::Folder(other), None) => {
            format!("cp {} {path}", shell_word(shown_path(folder, *other)))
        }
    };
    format!("then put the file back as it was applied: {command}")
}

fn from_git(file: &FileVersion, line_ends: Option<LineEnds>, path: &str) -> String {
    let filter = line_ends.map(|ends| format!(" | perl -pe {}", ends.filter()));
    let filter = filter.unwrap_or_default();
    format!("git cat-file blob {}{filter} > {path}", short(&file.object))
}

/// What was applied is nowhere.
pub(super) fn not_found(migration: Option<&Migration>, row: &Applied, looked: &Looked) -> Refusal {
    let what = match migration {
        Some(migration) => format!("`{}` was edited", migration.up.path.display()),
        None => gone(row),
    };
    let checksum = hex::encode(&row.checksum[..row.checksum.len().min(4)]);
    let versions = ui::plural(looked.versions as u64, "version");
    let hint = match looked.shallow {
        true => "this clone is shallow, older commits are not in it: git fetch --unshallow",
        false => "it may be on a branch or a machine that this clone has not seen: git fetch --all",
    };
    Refusal {
        version: row.version,
        why: format!(
            "{what}, and what was applied (SHA-384 `{checksum}…`) was not found: looked in git at {versions} of migration files, in all branches, tags, stashes and reflogs"
        ),
        found_in: None,
        diff: None,
        hints: vec![hint.into(), Hint::again("then")],
    }
}

/// The file is gone, and what was in it was found.
pub(super) fn missing(folder: &Folder, row: &Applied, found: &Found) -> Refusal {
    let (why, hint) = match &found.place {
        Place::Folder(other) => {
            let now = shown_path(folder, *other);
            let name = now.rsplit('/').next().unwrap_or_default();
            let was = in_folder(folder, name, row.version);
            let now_word = shell_word(&now);
            (
                format!("`{now}` holds the same bytes under another version"),
                format!("give it and its down and verify files their version: mv {now_word} {was}"),
            )
        }
        Place::Git {
            file,
            name,
            pathspec,
        } => {
            let (revision, place) = match name {
                Some(name) => (&name[..], format!("it is in `{name}`")),
                None => {
                    let commit = short(&file.commit);
                    (commit, format!("commit `{commit}` has it, and no branch"))
                }
            };
            let command = match pathspec {
                Some(files) => format!(
                    "git checkout {} -- {}",
                    shell_word(revision),
                    shell_word(files)
                ),
                None => {
                    let path = in_folder(folder, file.file_name(), row.version);
                    from_git(file, found.line_ends, &path)
                }
            };
            (
                format!("{place}, as `{}`", file.path),
                format!("bring it back: {command}"),
            )
        }
    };
    Refusal {
        version: row.version,
        why: format!("{}: {why}", gone(row)),
        found_in: Some(found_in(folder, found)),
        diff: None,
        hints: vec![hint.into(), Hint::to("then", "db-status")],
    }
}

fn gone(row: &Applied) -> String {
    format!(
        "the file of `{}` ({}) is gone",
        row.version, row.description
    )
}

/// The path of a file of this name in the folder, with this version, as one word.
fn in_folder(folder: &Folder, name: &str, version: i64) -> String {
    let name = match name.split_once('_') {
        Some((number, rest)) if number.parse() != Ok(version) => format!("{version}_{rest}"),
        _ => name.to_owned(),
    };
    shell_word(folder.shown_as.join(name).display())
}
