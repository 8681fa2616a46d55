//! The text of a form, as it was typed, ready to be read token by token.

use squawk_lexer::TokenKind;

use super::names::LONGEST_IN_DATABASE;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::{Cursor, ObjectName, significant};
use crate::migration::quote::quote_if_needed;
use crate::migration::sql;
use crate::shell::shell_word;

/// Reads what was `given` with a flag.
///
/// # Errors
/// A usage failure that says what is wrong with it and shows an example.
pub(super) fn read<T>(
    flag: &str,
    example: &str,
    given: &str,
    read: impl FnOnce(&mut Cursor<'_>) -> Result<T, String>,
) -> Result<T> {
    let value = one_line(given).and_then(|text| {
        let tokens = significant(&text);
        read(&mut Cursor::new(&text, &tokens))
    });
    value.map_err(|why| {
        Failure::usage(format!(
            "cannot read `{flag} {}`",
            shell_word(visible(given))
        ))
        .cause(why)
        .state("no file was written")
        .hint(Hint::again_with(
            "for example",
            format!("{flag} {}", shell_word(example)),
        ))
        .into()
    })
}

/// As one line of a message.
pub(super) fn visible(given: &str) -> String {
    given.replace(char::is_control, " ")
}

/// The text with its white space as single spaces, if it can be a part of one statement.
fn one_line(given: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut depth = 0_usize;
    for token in sql::lex(given) {
        let written = token.text(given);
        match token.kind {
            TokenKind::Whitespace => {
                text.push(' ');
                continue;
            }
            TokenKind::LineComment | TokenKind::BlockComment { .. } => {
                return Err("a comment cannot stand in it".to_owned());
            }
            TokenKind::Semi => return Err("`;` would end the statement".to_owned()),
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => {
                let closed = depth.checked_sub(1);
                depth = closed.ok_or("a `)` closes nothing")?;
            }
            TokenKind::Ident | TokenKind::QuotedIdent { .. } => {
                let name = written.trim_matches('"');
                if name.len() > LONGEST_IN_DATABASE {
                    return Err(format!(
                        "the server cuts names off after {LONGEST_IN_DATABASE} bytes, and `{name}` is longer"
                    ));
                }
            }
            _ => {}
        }
        if written.chars().any(char::is_control) {
            return Err("a control character cannot stand in it".to_owned());
        }
        text.push_str(written);
    }
    // A quote that is never closed, a backslash.
    sql::split(&text).map_err(|problem| problem.what)?;
    Ok(text.trim().to_owned())
}

pub(super) fn table(form: &mut Cursor<'_>) -> Result<ObjectName, String> {
    form.name()
        .ok_or_else(|| "it does not begin with a table".to_owned())
}

/// `users.email`, `public.users.email`.
pub(super) fn column_of_table(form: &mut Cursor<'_>) -> Result<(ObjectName, String), String> {
    let mut names = Vec::new();
    loop {
        names.extend(form.identifier());
        if !form.eat_kind(TokenKind::Dot) {
            break;
        }
    }
    let (schema, name, column) = match <[String; 3]>::try_from(names) {
        Ok([schema, name, column]) => (Some(schema), name, column),
        Err(names) => match <[String; 2]>::try_from(names) {
            Ok([name, column]) => (None, name, column),
            Err(_) => {
                return Err("it does not begin with TABLE.COLUMN or SCHEMA.TABLE.COLUMN".to_owned());
            }
        },
    };
    Ok((ObjectName { schema, name }, column))
}

/// What stands between the parentheses that come next, one cursor for each item.
pub(super) fn list<'a>(form: &mut Cursor<'a>) -> Result<Vec<Cursor<'a>>, String> {
    let inside = form.take_parenthesized().filter(|inside| !inside.at_end());
    let mut inside = inside.ok_or("expected columns in parentheses after the table")?;
    let mut items = Vec::new();
    while !inside.at_end() {
        items.push(inside.take_list_item());
    }
    Ok(items)
}

/// `(a, "B")`.
pub(super) fn columns(form: &mut Cursor<'_>) -> Result<Vec<String>, String> {
    let names = list(form)?.into_iter().map(|mut item| {
        let written = item.rest();
        let name = item.identifier().filter(|_| item.at_end());
        name.ok_or_else(|| format!("`{written}` is not the name of a column"))
    });
    names.collect()
}

pub(super) fn end(form: &Cursor<'_>) -> Result<(), String> {
    match form.rest() {
        "" => Ok(()),
        rest => Err(format!("`{rest}` is not understood")),
    }
}

/// Names as SQL, quoted where necessary, with commas between them.
pub(super) fn quoted(columns: &[String]) -> String {
    let columns = columns.iter().map(|column| quote_if_needed(column));
    columns.collect::<Vec<_>>().join(", ")
}
