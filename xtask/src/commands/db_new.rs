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
    #[arg(long, value_name = "TEXT")]
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

/// The names of migrations by version, and where they were found.
struct Known<'a> {
    place: String,
    names: &'a BTreeMap<i64, String>,
}

pub(crate) fn run(ctx: &Context, flags: &New) -> Result {
    let dir = &ctx.config.migrations;
    let shown = ctx.config.shown(dir);
    let name = scaffold::migration_name(&flags.name)?;
    let form = flags.form()?;
    let drafts = scaffold::drafts(&name, &form, &flags.next)?;
    let there = match &flags.against {
        Some(reference) => new_files::names_by_version(git_tree::names_in(dir, reference)?),
        None => BTreeMap::new(),
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
    let mut new = match flags.dry_run {
        true => None,
        false => Some(NewFiles::begin(dir).map_err(cannot_write)?),
    };
    let here = new_files::names_in(dir).map_err(|error| {
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
    let first = first_version(ctx, &here, &there)?;
    let migrations = numbered(&shown, drafts, first)?;
    for migration in &migrations {
        // The up file last: checks without their migration are refused, a migration without its checks runs.
        for file in migration.files.iter().rev() {
            if let Some(new) = &mut new {
                new.add(&file.within, &file.sql).map_err(cannot_write)?;
            }
        }
    }
    let written = new.is_some();
    if let Some(new) = new {
        new.keep();
    }
    let known = [
        Known {
            place: format!("`{}`", shown.display()),
            names: &here,
        },
        Known {
            place: format!("`{}`", flags.against.as_deref().unwrap_or_default()),
            names: &there,
        },
    ];
    for known in &known {
        known.warn_about_names(ctx, &migrations);
    }
    if flags.against.is_some() {
        compare(ctx, &known);
    }
    warn_about_index(ctx, &shown, &form, first);
    announce(ctx, &migrations, written, &form);
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
        let Change {
            columns,
            index,
            unique_index,
            unique,
            constraint,
            foreign_key,
            not_null,
        } = &self.change;
        if !columns.is_empty() {
            Form::columns(columns, self.default.as_deref())
        } else if let Some(given) = index {
            Form::index(given, false, own_name)
        } else if let Some(given) = unique_index {
            Form::index(given, true, own_name)
        } else if let Some(given) = unique {
            Form::unique(given, own_name)
        } else if let Some(given) = constraint {
            Form::check(given, own_name)
        } else if let Some(given) = foreign_key {
            Form::foreign_key(given, own_name)
        } else if let Some(given) = not_null {
            Form::not_null(given)
        } else {
            Ok(Form::Unwritten)
        }
    }
}

/// Now, or right after the newest version that is known.
fn first_version(
    ctx: &Context,
    here: &BTreeMap<i64, String>,
    there: &BTreeMap<i64, String>,
) -> Result<i64> {
    let now = Timestamp::now();
    let Some(newest) = here.keys().chain(there.keys()).max().copied() else {
        return Ok(new_files::version_at(now));
    };
    // Several migrations of one command have the seconds after it.
    if newest > new_files::version_at(now.checked_add(1.minute())?) {
        ctx.ui.warn(format_args!(
            "the newest version, {newest}, is in the future by this computer's clock; the new one follows it"
        ));
    }
    let after = new_files::version_after(newest).ok_or_else(|| no_version_after(newest))?;
    Ok(new_files::version_at(now).max(after))
}

fn no_version_after(version: i64) -> Failure {
    Failure::usage(format!("there is no version after {version}"))
        .cause("a version is a 64-bit number")
        .state("no file was written")
        .hint(Hint::to(
            "give that migration a smaller version: rename its files, unless it is applied",
            "db-status",
        ))
}

/// The drafts with their versions and files.
fn numbered(shown: &Path, drafts: Vec<Draft>, first: i64) -> Result<Vec<NewMigration>> {
    let mut version = first;
    let mut migrations = Vec::new();
    for draft in drafts {
        if !migrations.is_empty() {
            version = new_files::version_after(version).ok_or_else(|| no_version_after(version))?;
        }
        let stem = format!("{version}_{}", draft.name);
        let file = |within: String, sql| NewFile {
            file: shown.join(&within).display().to_string(),
            within,
            sql,
        };
        migrations.push(NewMigration {
            version,
            name: draft.name,
            files: vec![
                file(format!("{stem}.up.sql"), draft.up),
                file(format!("{stem}.down.sql"), draft.down),
                file(format!("verify/{stem}.sql"), draft.verify),
            ],
        });
    }
    Ok(migrations)
}

impl Known<'_> {
    fn warn_about_names(&self, ctx: &Context, migrations: &[NewMigration]) {
        for (version, name) in self.names {
            if migrations.iter().any(|new| new.name == *name) {
                ctx.ui.warn(format_args!(
                    "{} has a migration of this name already: {version}_{name}",
                    self.place
                ));
            }
        }
    }
}

/// Says how the folder and the other branch differ.
fn compare(ctx: &Context, [here, there]: &[Known<'_>; 2]) {
    let mut missing = Vec::new();
    for (version, theirs) in there.names {
        match here.names.get(version) {
            Some(ours) if ours == theirs => {}
            Some(ours) => ctx.ui.warn(format_args!(
                "version {version} is `{ours}` here and `{theirs}` on {}: rename the files of the one that is \
                 applied nowhere",
                there.place
            )),
            None => missing.push(format!("{version}_{theirs}")),
        }
    }
    if there.names.is_empty() {
        ctx.ui.warn(format_args!(
            "{} has no migrations in {}",
            there.place, here.place
        ));
    }
    if !missing.is_empty() {
        let which = missing.join(", ");
        ctx.ui.info(
            "Not here",
            format_args!("{which}: on {}, and before the new one", there.place),
        );
    }
}

/// An index is found by its name: another one of that name is in the way.
fn warn_about_index(ctx: &Context, shown: &Path, form: &Form, first: i64) {
    let Some(name) = form.new_index() else { return };
    let Ok(folder) = Folder::load(&ctx.config.migrations, shown) else {
        return;
    };
    let makes_it = |effect: &Effect| matches!(effect, Effect::CreateIndex { name: Some(made), .. } if made == name);
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
                "`{}` makes an index `{name}` too: unless it is dropped by then, choose another name with --as",
                migration.up.path.display()
            ));
        }
    }
}

fn announce(ctx: &Context, migrations: &[NewMigration], written: bool, form: &Form) {
    for NewMigration {
        version,
        name,
        files,
    } in migrations
    {
        if written {
            ctx.ui.status(
                "Created",
                format_args!("{version} {}", name.replace('_', " ")),
            );
        }
        for NewFile { file, sql, .. } in files {
            match written {
                true => ctx.ui.data(file),
                false => ctx.ui.data(format_args!("-- {file}\n{sql}")),
            }
        }
    }
    let purpose = match (written, form) {
        (false, _) => return ctx.ui.info("Dry run", "no file was written"),
        (true, Form::Unwritten) => "write the three files; then see what a run would do",
        (true, _) => "read the files; then see what a run would do",
    };
    ctx.ui.hint(Hint::to(purpose, "db-migrate --dry-run"));
}
