//! `db-new`: the files of a new migration, in the form that does not keep readers and writers waiting. It needs no
//! database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use super::args::Output;
use crate::Context;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::Effect;
use crate::migration::scaffold::{self, Draft, Form};
use crate::migration::source::Folder;
use crate::migration::source::new_files::{self, NewFiles};
use crate::tools::git_tree;

/// Arguments of `db-new`.
#[derive(Args, Debug)]
pub struct New {
    /// What the migration does, as a name: letters, digits and underscores
    name: String,
    #[command(flatten)]
    change: Change,
    /// Default of the new column, a constant
    #[arg(
        long,
        value_name = "CONSTANT",
        requires = "columns",
        allow_hyphen_values = true
    )]
    default: Option<String>,
    /// Name of the index or constraint [default: made of the table and its columns]
    #[arg(long = "as", value_name = "NAME", conflicts_with_all = ["columns", "not_null"], requires = "Change")]
    own_name: Option<String>,
    /// What is left to do after the migration; adds a line `-- xtask: next TEXT`; can be repeated
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    next: Vec<String>,
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
    /// A nullable column; can be repeated for columns of the same table
    #[arg(long = "column", value_name = "TABLE.COLUMN:TYPE")]
    columns: Vec<String>,
    /// An index, built concurrently
    #[arg(long, value_name = "TABLE(COLUMNS)")]
    index: Option<String>,
    /// A unique index, built concurrently
    #[arg(long, value_name = "TABLE(COLUMNS)")]
    unique_index: Option<String>,
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
    files: Vec<NewFile>,
}

#[derive(Serialize)]
struct NewFile {
    /// Relative to the workspace.
    file: String,
    /// Relative to the migrations folder.
    #[serde(skip)]
    within: String,
    sql: String,
}

/// Versions and names.
type Names = BTreeMap<i64, String>;

pub(crate) fn run(ctx: &Context, flags: &New) -> Result {
    let dir = &ctx.config.migrations;
    let shown = ctx.config.shown(dir);
    let name = scaffold::migration_name(&flags.name)?;
    let form = flags.form()?;
    let theirs = match &flags.against {
        Some(reference) => new_files::names_by_version(git_tree::names_in(dir, reference)?),
        None => Names::new(),
    };
    let cannot_write = |(path, error): (PathBuf, std::io::Error)| {
        Failure::failed(format!(
            "cannot write `{}`",
            ctx.config.shown(&path).display()
        ))
        .cause(error.to_string())
        .state("no file was written")
        .hint(Hint::again("check who may write there, then"))
    };
    // From here on no other command chooses a version.
    let mut new = match flags.dry_run {
        true => None,
        false => Some(NewFiles::begin(dir).map_err(cannot_write)?),
    };
    let ours = new_files::names_in(dir).map_err(|error| {
        Failure::usage(format!(
            "cannot read the migrations folder `{}`",
            shown.display()
        ))
        .cause(error.to_string())
        .state("no file was written")
        .hint(Hint::again_with(
            "name the folder that holds them",
            "--migrations DIR",
        ))
    })?;
    let newest = ours.keys().chain(theirs.keys()).max().copied();
    let drafts = scaffold::drafts(&name, &form, &flags.next);
    let migrations = numbered(&shown, drafts, newest)?;
    if let Some(mut new) = new.take() {
        // The up file last: checks without their migration are refused, a migration without its checks runs.
        for file in migrations
            .iter()
            .flat_map(|migration| migration.files.iter().rev())
        {
            new.add(&file.within, &file.sql).map_err(cannot_write)?;
        }
        new.keep();
    }
    if newest
        > Some(new_files::version_at(
            Timestamp::now().checked_add(1.minute())?,
        ))
    {
        ctx.ui.warn(
            "the newest version is in the future by this computer's clock; the new one follows it",
        );
    }
    warn_about_names(ctx, &format!("`{}`", shown.display()), &ours, &migrations);
    if let Some(reference) = &flags.against {
        warn_about_names(ctx, &format!("`{reference}`"), &theirs, &migrations);
        compare(ctx, reference, &ours, &theirs);
    }
    if let Some(index) = form.new_index() {
        warn_about_index(ctx, &shown, &index.name, migrations[0].version);
    }
    announce(ctx, &migrations, flags.dry_run, &form);
    ctx.ui.json(&Report {
        migrations,
        dry_run: flags.dry_run,
    })
}

impl New {
    fn form(&self) -> Result<Form> {
        let own_name = self
            .own_name
            .as_deref()
            .map(scaffold::own_name)
            .transpose()?;
        let change = &self.change;
        if !change.columns.is_empty() {
            Form::columns(&change.columns, self.default.as_deref())
        } else if let Some(given) = &change.index {
            Form::index(given, false, own_name)
        } else if let Some(given) = &change.unique_index {
            Form::index(given, true, own_name)
        } else if let Some(given) = &change.unique {
            Form::unique(given, own_name)
        } else if let Some(given) = &change.constraint {
            Form::check(given, own_name)
        } else if let Some(given) = &change.foreign_key {
            Form::foreign_key(given, own_name)
        } else if let Some(given) = &change.not_null {
            Form::not_null(given)
        } else {
            Ok(Form::Unwritten)
        }
    }
}

/// The drafts with their files. The first version is now, or follows the newest.
fn numbered(shown: &Path, drafts: Vec<Draft>, newest: Option<i64>) -> Result<Vec<NewMigration>> {
    let mut version = new_files::version_at(Timestamp::now());
    let mut last = newest;
    let mut migrations = Vec::new();
    for Draft {
        name,
        up,
        down,
        verify,
    } in drafts
    {
        if let Some(last) = last.filter(|last| *last >= version) {
            version = new_files::version_after(last).ok_or_else(|| {
                Failure::usage(format!("there is no version after {last}"))
                    .cause("a version is a 64-bit number")
                    .state("no file was written")
                    .hint(Hint::to(
                        "rename that migration, unless it is applied",
                        "db-status",
                    ))
            })?;
        }
        last = Some(version);
        let file = |within: String, sql| NewFile {
            file: shown.join(&within).display().to_string(),
            within,
            sql,
        };
        let files = vec![
            file(format!("{version}_{name}.up.sql"), up),
            file(format!("{version}_{name}.down.sql"), down),
            file(format!("verify/{version}_{name}.sql"), verify),
        ];
        migrations.push(NewMigration {
            version,
            name,
            files,
        });
    }
    Ok(migrations)
}

fn warn_about_names(ctx: &Context, place: &str, names: &Names, migrations: &[NewMigration]) {
    for (version, name) in names {
        if migrations.iter().any(|new| new.name == *name) {
            ctx.ui.warn(format_args!(
                "{place} has a migration of this name already: {version}_{name}"
            ));
        }
    }
}

/// Says how the folder and the other branch differ.
fn compare(ctx: &Context, reference: &str, ours: &Names, theirs: &Names) {
    if theirs.is_empty() {
        ctx.ui.warn(format_args!(
            "`{reference}` has no migrations in this folder"
        ));
    }
    for (version, name) in theirs {
        match ours.get(version) {
            None => ctx.ui.info("Not here", format_args!("{version}_{name}, which `{reference}` has")),
            Some(our_name) if our_name != name => ctx.ui.warn(format_args!(
                "version {version} is `{our_name}` here and `{name}` on `{reference}`: rename the files of the \
                 one that is applied nowhere"
            )),
            Some(_) => {}
        }
    }
}

/// An index is found by its name: another one of that name is in the way.
fn warn_about_index(ctx: &Context, shown: &Path, index: &str, first: i64) {
    let Ok(folder) = Folder::load(&ctx.config.migrations, shown) else {
        return;
    };
    let makes_it = |effect: &Effect| matches!(effect, Effect::CreateIndex { name: Some(name), .. } if name == index);
    for migration in folder
        .migrations
        .iter()
        .filter(|migration| migration.version < first)
    {
        let Ok(up) = migration.up.script() else {
            continue;
        };
        if up
            .effects()
            .any(|(_, effects)| effects.iter().any(makes_it))
        {
            ctx.ui.warn(format_args!(
                "`{}` makes an index `{index}` too: unless it is dropped by then, choose another name with --as",
                migration.up.path.display()
            ));
        }
    }
}

fn announce(ctx: &Context, migrations: &[NewMigration], dry_run: bool, form: &Form) {
    for NewMigration {
        version,
        name,
        files,
    } in migrations
    {
        if !dry_run {
            ctx.ui.status(
                "Created",
                format_args!("{version} {}", name.replace('_', " ")),
            );
        }
        for NewFile { file, sql, .. } in files {
            match dry_run {
                true => ctx.ui.data(format_args!("-- {file}\n{sql}")),
                false => ctx.ui.data(file),
            }
        }
    }
    if dry_run {
        return ctx.ui.info("Dry run", "no file was written");
    }
    let purpose = match form {
        Form::Unwritten => "write the three files; then see what a run would do",
        _ => "read the files; then see what a run would do",
    };
    ctx.ui.hint(Hint::to(purpose, "db-migrate --dry-run"));
}

/// The text of a line `-- xtask: next`.
fn one_line(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("one line of text is needed".to_owned()),
        false => Ok(text.to_owned()),
    }
}
