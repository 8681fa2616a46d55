//! The backup's file: found with its manifest, checked, and its rows loaded into the staging table.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use postgres::Client;

use super::plan::Plan;
use super::request::Request;
use super::session::MergeSession;
use crate::Context;
use crate::database::Database;
use crate::error::{Failure, Result};
use crate::failures;
use crate::hint::Hint;
use crate::interrupt;
use crate::runbook::backup::{self, Loader, Manifest, State};
use crate::shell::shell_word;
use crate::tools::pg_dump;
use crate::ui;

/// Bytes read from the file at once.
const BUFFER: usize = 256 * 1024;

/// The file and its manifest, which agree as far as can be seen without reading it all.
pub(super) fn find(ctx: &Context, given: &Path) -> Result<(PathBuf, Manifest)> {
    // As db-backups prints it, from wherever in the workspace.
    let file = match given.exists() {
        true => given.to_owned(),
        false => ctx.config.root.join(given),
    };
    let shown = given.display();
    let found = std::fs::symlink_metadata(&file)
        .with_context(|| format!("cannot read the backup `{shown}`"))?;
    if found.is_symlink() {
        return Err(
            Failure::usage(format!("the backup `{shown}` is a symbolic link"))
                .hint(Hint::to("name the file itself", "db-backups"))
                .into(),
        );
    }
    let Some(manifest) = Manifest::of(&file)? else {
        return Err(without_manifest(ctx, &file, given)?.into());
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if manifest.file != name {
        ctx.ui.info(
            "Notice",
            format_args!("this backup was renamed: it was `{}`", manifest.file),
        );
    }
    match State::by_size(found.len(), &manifest) {
        State::Good => Ok((file, manifest)),
        state => Err(not_what_was_written(given, state)
            .cause(format!(
                "it has {} bytes, and was written with {}",
                ui::count(found.len()),
                ui::count(manifest.bytes)
            ))
            .into()),
    }
}

/// A file without a manifest may be a backup that was renamed without it.
fn without_manifest(ctx: &Context, file: &Path, given: &Path) -> Result<Failure> {
    let failure = Failure::usage(format!("`{}` has no manifest", given.display()))
        .cause(format!("there is no `{}`", Manifest::path(given).display()));
    let folder = file.parent().unwrap_or(Path::new("."));
    let bytes = std::fs::metadata(file)?.len();
    for found in backup::list(folder, &ctx.ui)? {
        if matches!(found.state, State::Missing | State::Replaced)
            && found.manifest.bytes == bytes
            && backup::sha256(file)? == found.manifest.sha256
        {
            return Ok(failure
                .cause(format!("it is `{}`, renamed", found.manifest.file))
                .hint(format!(
                    "mv {} {}",
                    shell_word(given.display()),
                    shell_word(given.with_file_name(&found.manifest.file).display())
                )));
        }
    }
    Ok(failure
        .cause("without one it cannot be told whether it is whole")
        .hint(Hint::to(
            "restore a backup that this tool has taken",
            "db-backups",
        )))
}

fn not_what_was_written(file: &Path, state: State) -> Failure {
    let what = match state {
        State::Cut => "was cut off",
        _ => "was changed",
    };
    Failure::usage(format!(
        "the backup `{}` {what} since it was taken",
        file.display()
    ))
    .state("nothing was restored")
    .hint(Hint::to("choose another", "db-backups --check"))
}

/// The backup is of this very database.
pub(super) fn same_database(db: &mut Database, manifest: &Manifest, request: &Request) -> Result {
    let Some(doubt) = manifest.doubts(&mut db.client, &db.server)? else {
        return Ok(());
    };
    if request.force_other_database {
        return Ok(());
    }
    Err(doubt
        .state("nothing was restored")
        .hint(Hint::again_with(
            "if it is meant for this one",
            "--force-other-database",
        ))
        .into())
}

/// Loads the file's rows into the temporary table, and checks on the way that it is what was written.
pub(super) fn stage(
    ctx: &Context,
    session: &mut MergeSession,
    file: &Path,
    manifest: &Manifest,
    plan: &Plan,
) -> Result {
    let shown = ctx.config.shown(file);
    let loaded = load(ctx, &mut session.client, file, manifest, plan);
    let dump = match loaded {
        Ok(dump) => dump,
        Err(error) if interrupt::requested() => return Err(error),
        // What the server could not read may be what a disk has made of it.
        Err(error) if backup::sha256(file).is_ok_and(|sha256| sha256 != manifest.sha256) => {
            let seen = failures::from_error(&error).one_line();
            return Err(not_what_was_written(&shown, State::Changed)
                .cause("its checksum is not that of its manifest")
                .cause(seen)
                .into());
        }
        Err(error) => {
            return Err(error.context(format!("cannot read `{}`", shown.display())));
        }
    };
    if dump.sha256 != manifest.sha256 {
        return Err(not_what_was_written(&shown, State::Changed)
            .cause("its checksum is not that of its manifest")
            .into());
    }
    if dump.rows != manifest.rows {
        return Err(
            Failure::usage(format!("`{}` and its manifest disagree", shown.display()))
                .cause(format!(
                    "it holds {} rows, not {}",
                    dump.rows, manifest.rows
                ))
                .state("nothing was restored")
                .hint(Hint::to("choose another", "db-backups --check"))
                .into(),
        );
    }
    plan.convert(session)?;
    plan.check_keys(&mut session.client)?;
    session
        .client
        .batch_execute(&format!("ANALYZE {}; COMMIT", plan.staging))?;
    Ok(())
}

fn load(
    ctx: &Context,
    client: &mut Client,
    file: &Path,
    manifest: &Manifest,
    plan: &Plan,
) -> Result<pg_dump::Dump> {
    let from = BufReader::with_capacity(BUFFER, backup::open(file)?);
    client.batch_execute(&format!(
        "BEGIN; CREATE TABLE {} ({})",
        plan.staging,
        backup::definition(&plan.staged, |column| &column.type_name)
    ))?;
    let progress = ctx.ui.progress("Reading");
    let mut loader = Loader::begin(client, &plan.staging, &plan.staged)?;
    let (dump, _) = pg_dump::read(from, &mut loader, &mut |rows, _| {
        progress.update(format_args!(
            "{} of {} rows",
            ui::count(rows),
            ui::count(manifest.rows)
        ));
    })?;
    loader.finish()?;
    Ok(dump)
}
