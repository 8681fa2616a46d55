//! `db-new`: the files of a new migration, in the form that does not keep readers and writers waiting. It needs no
//! database.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::args::Output;
use crate::Context;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::scaffold::{self, Draft, Form};
use crate::migration::source::new_files;
use crate::tools::git;

/// Arguments of `db-new`.
#[derive(Args, Debug)]
pub struct New {
    /// What the migration does, as a name: letters, digits and underscores
    name: String,
    #[command(flatten)]
    change: Change,
    /// Name of the index or constraint [default: made of the table and its columns]
    #[arg(
        long = "as",
        value_name = "NAME",
        conflicts_with = "column",
        requires = "Change"
    )]
    own_name: Option<String>,
    /// Also look at the migrations of this commit or branch, such as origin/main
    #[arg(long, value_name = "REF")]
    against: Option<String>,
    /// Print the files, write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

/// The change; without one, the files are to be written by hand.
#[derive(Args, Debug)]
#[group(multiple = false)]
struct Change {
    /// A nullable column
    #[arg(long, value_name = "TABLE.COLUMN:TYPE")]
    column: Option<String>,
    /// An index, built concurrently
    #[arg(long, value_name = "[UNIQUE] TABLE(COLUMNS)")]
    index: Option<String>,
    /// A UNIQUE constraint: its index is built concurrently, then it becomes the constraint's
    #[arg(long, value_name = "TABLE(COLUMNS)")]
    unique: Option<String>,
    /// A CHECK constraint: NOT VALID, then validated
    #[arg(long, value_name = "TABLE CHECK (…)")]
    constraint: Option<String>,
    /// A foreign key: NOT VALID, then validated
    #[arg(long, value_name = "TABLE(COLUMNS) REFERENCES …")]
    foreign_key: Option<String>,
    /// NOT NULL for a column that exists: a CHECK, validated, then SET NOT NULL
    #[arg(long, value_name = "TABLE.COLUMN")]
    not_null: Option<String>,
}

#[derive(Serialize)]
struct Report {
    migrations: Vec<NewMigration>,
    dry_run: bool,
}

#[derive(Serialize)]
struct NewMigration {
    version: i64,
    name: String,
    /// Up, down and verify, relative to the workspace.
    files: Vec<String>,
    #[serde(skip)]
    texts: Vec<(PathBuf, String)>,
}

/// Versions and names.
type Names = BTreeMap<i64, String>;

pub(crate) fn run(ctx: &Context, flags: &New) -> Result {
    let dir = &ctx.config.migrations;
    let (form, given) = flags.change.form();
    let drafts = scaffold::drafts(&flags.name, form, given, flags.own_name.as_deref())?;
    let theirs = match &flags.against {
        Some(reference) => new_files::names_by_version(git::names_in(dir, reference)?),
        None => Names::new(),
    };
    // From here on no other command chooses a version.
    let _lock = match flags.dry_run {
        true => None,
        false => new_files::lock(dir).map_err(|at| cannot("write", ctx, at))?,
    };
    let ours = new_files::names_in(dir).map_err(|at| cannot("read", ctx, at))?;
    let newest = ours.keys().chain(theirs.keys()).max().copied();
    let migrations = numbered(ctx, drafts, newest)?;
    if !flags.dry_run {
        // The up file last: checks without their migration are ignored, a migration without its checks runs.
        let files = migrations.iter().flat_map(|new| new.texts.iter().rev());
        new_files::write(files).map_err(|at| cannot("write", ctx, at))?;
    }
    if let Some(reference) = &flags.against {
        compare(ctx, reference, &ours, &theirs);
    }
    announce(ctx, &migrations, flags);
    ctx.ui.json(&Report {
        migrations,
        dry_run: flags.dry_run,
    })
}

impl Change {
    /// The form of the change, and what was given with its flag.
    fn form(&self) -> (&'static Form, &str) {
        let forms: [(&Form, &Option<String>); 6] = [
            (&scaffold::COLUMN, &self.column),
            (&scaffold::INDEX, &self.index),
            (&scaffold::UNIQUE, &self.unique),
            (&scaffold::CHECK, &self.constraint),
            (&scaffold::FOREIGN_KEY, &self.foreign_key),
            (&scaffold::NOT_NULL, &self.not_null),
        ];
        let mut forms = forms.into_iter();
        let given = forms.find_map(|(form, given)| Some((form, given.as_deref()?)));
        given.unwrap_or((&scaffold::UNWRITTEN, ""))
    }
}

/// The drafts with their files. The first version is now, or follows the newest.
fn numbered(
    ctx: &Context,
    drafts: Vec<Draft>,
    mut newest: Option<i64>,
) -> Result<Vec<NewMigration>> {
    let mut migrations = Vec::new();
    for draft in drafts {
        newest = new_files::next_version(Timestamp::now(), newest);
        let version = newest.ok_or_else(|| {
            Failure::usage(format!("there is no version after {}", i64::MAX))
                .cause("a version is a 64-bit number")
                .state("no file was written")
                .hint(Hint::to("see which migration has it", "db-status"))
        })?;
        let stem = format!("{version}_{}", draft.name);
        let (up, down) = (format!("{stem}.up.sql"), format!("{stem}.down.sql"));
        let files = [up, down, format!("verify/{stem}.sql")];
        let paths = files.map(|file| ctx.config.migrations.join(file));
        let shown = paths.iter().map(|path| ctx.config.shown(path));
        migrations.push(NewMigration {
            version,
            name: draft.name,
            files: shown.map(|path| path.display().to_string()).collect(),
            texts: paths.into_iter().zip(draft.texts).collect(),
        });
    }
    Ok(migrations)
}

/// Names the versions that stand for different migrations here and there.
fn compare(ctx: &Context, reference: &str, ours: &Names, theirs: &Names) {
    if theirs.is_empty() {
        ctx.ui.warn(format_args!(
            "`{reference}` has no migrations in this folder"
        ));
    }
    for (version, here) in ours {
        if let Some(there) = theirs.get(version).filter(|there| *there != here) {
            ctx.ui.warn(format_args!(
                "version {version} is `{here}` here and `{there}` on `{reference}`: rename the files of the one that \
                 is applied nowhere"
            ));
        }
    }
}

fn announce(ctx: &Context, migrations: &[NewMigration], flags: &New) {
    for new in migrations {
        if !flags.dry_run {
            let (version, name) = (new.version, new.name.replace('_', " "));
            ctx.ui.status("Created", format_args!("{version} {name}"));
        }
        for (file, (_, text)) in new.files.iter().zip(&new.texts) {
            match flags.dry_run {
                true => ctx.ui.data(format_args!("-- {file}\n{text}")),
                false => ctx.ui.data(file),
            }
        }
    }
    if flags.dry_run {
        return ctx.ui.info("Dry run", "no file was written");
    }
    let purpose = "read the files; then see what a run would do";
    ctx.ui.hint(Hint::to(purpose, "db-migrate --dry-run"));
}

fn cannot(what: &str, ctx: &Context, (path, error): (PathBuf, io::Error)) -> Failure {
    let path = ctx.config.shown(&path);
    Failure::failed(format!("cannot {what} `{}`", path.display()))
        .cause(error.to_string())
        .state("no file was written")
        .hint(Hint::again(format!("check who may {what} there, then")))
}
