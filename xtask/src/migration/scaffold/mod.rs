//! New migrations as text: what `db-new` writes. Each form of a change has one safe way, with a down file that takes
//! back exactly what its up file did and a verify file that fails without it. Nothing here touches the disk.
//!
//! What is typed is SQL, and only what the templates need is read of it: a mistake in the rest is found by the server.

mod change;
mod forms;

#[cfg(test)]
mod tests;

pub(crate) use forms::{CHECK, COLUMN, FOREIGN_KEY, INDEX, NOT_NULL, UNIQUE, UNWRITTEN};

use change::Change;
use squawk_lexer::TokenKind;

use super::effects::{Cursor, ObjectName, significant};
use super::sql::{self, Statement};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::shell::shell_word;

/// Leaves room for the version, `_check` and `.down.sql` in the 255 bytes of a file name.
const LONGEST_NAME: usize = 150;

/// A way to make a change.
pub(crate) struct Form {
    flag: &'static str,
    /// What is expected with the flag.
    syntax: &'static str,
    /// What can be given with the flag.
    example: &'static str,
    /// Reads to the end, or as far as it is understood.
    read: fn(&mut Cursor<'_>) -> Option<Change>,
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
    /// Up, down and verify.
    pub(crate) texts: [String; 3],
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
    let mut change = read(form, given)?;
    if let Some(given) = own_name {
        let own = ObjectName::parse(given).filter(|own| own.schema.is_none());
        let why = || "it is not one name without a schema".to_owned();
        let own = own.ok_or_else(|| cannot_read("--as", given, why(), "users_email_idx"))?;
        change.name = own.name;
    }
    let drafts = form.templates.iter().map(|template| Draft {
        name: name.clone() + template.suffix,
        texts: [
            change.fill(template.head) + &change.fill(template.up),
            change.fill(template.head) + &change.fill(template.down),
            change.fill(template.verify),
        ],
    });
    Ok(drafts.collect())
}

/// Reads the change that was given with the form's flag; behind a comma, another action could follow.
fn read(form: &Form, given: &str) -> Result<Change> {
    let change = one_line(given).and_then(|text| {
        let tokens = significant(&text);
        let mut after_comma = Cursor::new(&text, &tokens);
        let mut cursor = after_comma.take_list_item();
        let change = (form.read)(&mut cursor);
        match (cursor.rest().to_owned() + after_comma.rest(), change) {
            (rest, Some(change)) if rest.is_empty() => Ok(change),
            (rest, None) if rest.is_empty() => Err(format!("expected {}, found less", form.syntax)),
            (rest, _) => Err(format!("found `{rest}`, expected {}", form.syntax)),
        }
    });
    change.map_err(|why| cannot_read(form.flag, given, why, form.example))
}

/// The text with its white space as single spaces, if it can be a part of one statement.
fn one_line(given: &str) -> Result<String, String> {
    let tokens = sql::lex(given).map(|token| match token.kind {
        TokenKind::Whitespace => " ",
        _ => token.text(given),
    });
    let text = tokens.collect::<String>();
    let text = text.trim();
    let statements = sql::split(text).map_err(|problem| problem.what)?;
    // Comments are no part of a statement.
    let is_all = |statement: &Statement| statement.text(text) == text;
    match statements.iter().all(is_all) && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("`;`, comments and control characters cannot stand in it".to_owned()),
    }
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
    let what = format!("cannot name a migration `{given}`");
    Err(refused(what, why, hint))
}

fn cannot_read(flag: &str, given: &str, why: String, example: &str) -> anyhow::Error {
    let hint = Hint::again_with("for example", format!("{flag} {}", shell_word(example)));
    let given = shell_word(given);
    refused(format!("cannot read `{flag} {given}`"), why, hint)
}

fn refused(what: String, why: String, hint: Hint) -> anyhow::Error {
    let failure = Failure::usage(what.replace(char::is_control, " "));
    let failure = failure.cause(why).state("no file was written");
    failure.hint(hint).into()
}
