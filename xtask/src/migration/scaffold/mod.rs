//! New migrations as text: what `db-new` writes. Each form of a change has one safe way, with a down file that takes
//! back exactly what its up file did and a verify file that fails without it. Nothing here touches the disk.
//!
//! What is typed is SQL, and only what the templates need is read of it: a mistake in the rest is found by the server.

mod change;
mod forms;

#[cfg(test)]
mod tests;

pub(crate) use forms::{CHECK, COLUMN, FOREIGN_KEY, INDEX, NOT_NULL, UNIQUE, UNWRITTEN};

use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::shell::shell_word;
use change::{Change, one_line};

use super::effects::{Cursor, significant};

/// Leaves room for the version, `_check` and `.down.sql` in the 255 bytes of a file name.
const LONGEST_NAME: usize = 150;

/// A way to make a change.
pub(crate) struct Form {
    flag: &'static str,
    /// What can be given with the flag.
    example: &'static str,
    read: fn(&mut Cursor<'_>) -> Result<Change, String>,
    /// One for each migration, in the order in which they run.
    templates: &'static [Template],
}

/// The files of one new migration, with placeholders: see [`Change::fill`].
struct Template {
    /// What is added to the migration's name.
    suffix: &'static str,
    /// What both the up and the down file begin with.
    head: &'static str,
    up: &'static str,
    down: &'static str,
    verify: &'static str,
}

/// The files of one new migration.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) up: String,
    pub(crate) down: String,
    pub(crate) verify: String,
}

/// The migrations that make the change that was `given` with a form's flag, in the order in which they run.
/// `own_name` is that of the index or constraint.
///
/// # Errors
/// If a name or the change is not understood.
pub(crate) fn drafts(
    name: &str,
    form: &Form,
    given: &str,
    own_name: Option<&str>,
) -> Result<Vec<Draft>> {
    let name = migration_name(name)?;
    let mut change = read(form.flag, form.example, given, form.read)?;
    if let Some(given) = own_name {
        change.name = read("--as", "users_email_idx", given, |name| {
            let own = name.identifier().filter(|_| name.at_end());
            own.ok_or_else(|| "it is not one name without a schema".to_owned())
        })?;
    }
    let drafts = form.templates.iter().map(|template| Draft {
        name: name.clone() + template.suffix,
        up: change.fill(template.head) + &change.fill(template.up),
        down: change.fill(template.head) + &change.fill(template.down),
        verify: change.fill(template.verify),
    });
    Ok(drafts.collect())
}

/// Reads what was `given` with a flag.
fn read<T>(
    flag: &str,
    example: &str,
    given: &str,
    read: impl FnOnce(&mut Cursor<'_>) -> Result<T, String>,
) -> Result<T> {
    let value = one_line(given).and_then(|text| {
        let tokens = significant(&text);
        let mut all = Cursor::new(&text, &tokens);
        let mut first = all.take_list_item();
        let value = read(&mut first)?;
        // Behind a comma, another action could follow.
        change::end(&all).map(|()| value)
    });
    value.map_err(|why| {
        let hint = Hint::again_with("for example", format!("{flag} {}", shell_word(example)));
        let what = format!("cannot read `{flag} {}`", shell_word(visible(given)));
        refused(what, why, hint)
    })
}

/// The name as it stands in file names: spaces and dashes become underscores.
fn migration_name(given: &str) -> Result<String> {
    let name = given.trim().replace([' ', '-'], "_");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(is_word)
        && name.contains(char::is_alphanumeric)
        && name.len() <= LONGEST_NAME
    {
        return Ok(name);
    }
    let why = format!("a name has ASCII letters, digits and underscores, {LONGEST_NAME} at most");
    let hint = Hint::to("for example", "db-new add_users_last_login_at");
    let what = format!("cannot name a migration `{}`", visible(given));
    Err(refused(what, why, hint))
}

fn refused(what: String, why: String, hint: Hint) -> anyhow::Error {
    let failure = Failure::usage(what).cause(why).hint(hint);
    failure.state("no file was written").into()
}

/// As one line of a message.
fn visible(given: &str) -> String {
    given.replace(char::is_control, " ")
}
