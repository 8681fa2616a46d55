//! How constraints are read: `users CHECK (age >= 0)`, `orders(user_id) REFERENCES users(id)`, `users(email)`.

use squawk_lexer::TokenKind;

use super::form::Form;
use super::input::{self, columns, end, list, quoted, table};
use super::names::joined;
use crate::error::Result;
use crate::migration::effects::{Cursor, ObjectName};
use crate::migration::quote::is_reserved;

/// A constraint that is added without checking the rows that exist, and validated later, or one whose index is
/// built first.
#[derive(Clone, Debug)]
pub(crate) enum Constraint {
    Check {
        table: ObjectName,
        name: String,
        /// `CHECK (age >= 0)`.
        definition: String,
    },
    ForeignKey {
        table: ObjectName,
        name: String,
        columns: Vec<String>,
        referenced: ObjectName,
        /// Empty: its primary key.
        referenced_columns: Vec<String>,
        /// `ON DELETE CASCADE`.
        actions: String,
    },
    Unique {
        table: ObjectName,
        name: String,
        columns: Vec<String>,
    },
}

impl Form {
    /// `users CHECK (age >= 0)`, `users CONSTRAINT adults CHECK (age >= 18)`.
    ///
    /// # Errors
    /// If it is not read.
    pub(crate) fn check(given: &str, own_name: Option<String>) -> Result<Form> {
        input::read("--constraint", "users CHECK (age >= 0)", given, |form| {
            let table = table(form)?;
            let written_name = match form.eat("constraint") {
                true => Some(
                    form.identifier()
                        .ok_or("a name is missing after `CONSTRAINT`")?,
                ),
                false => None,
            };
            if !form.eat("check") {
                return Err(format!(
                    "expected `CHECK` after the table, found `{}`; --unique and --foreign-key make other constraints",
                    form.rest()
                ));
            }
            let mut expression = form.clone();
            list(&mut expression, "conditions")?;
            let inside = form
                .take_parenthesized()
                .ok_or("the condition is missing")?;
            let heirs = if form.eat_all(&["no", "inherit"]) {
                " NO INHERIT"
            } else {
                ""
            };
            not_valid_is_ours(form)?;
            let words = columns_in(inside.clone());
            let parts = [&table.name].into_iter().chain(&words).map(String::as_str);
            let parts: Vec<&str> = parts.chain(["check"]).collect();
            Ok(Form::Constraint(Constraint::Check {
                name: own_name.or(written_name).unwrap_or_else(|| joined(&parts)),
                table,
                definition: format!("CHECK ({}){heirs}", inside.rest()),
            }))
        })
    }

    /// `orders(user_id) REFERENCES users(id)`, with its actions.
    ///
    /// # Errors
    /// If it is not read.
    pub(crate) fn foreign_key(given: &str, own_name: Option<String>) -> Result<Form> {
        input::read(
            "--foreign-key",
            "orders(user_id) REFERENCES users(id)",
            given,
            |form| {
                let table = table(form)?;
                let columns = columns(form)?;
                if !form.eat("references") {
                    return Err(format!(
                        "expected `REFERENCES` after the columns, found `{}`",
                        form.rest()
                    ));
                }
                let referenced = form
                    .name()
                    .ok_or("the table after `REFERENCES` is missing")?;
                let referenced_columns = match form.clone().eat_kind(TokenKind::OpenParen) {
                    true => input::columns(form)?,
                    false => Vec::new(),
                };
                let actions = form.rest().to_owned();
                while form.eat_any(&[
                    "on",
                    "delete",
                    "update",
                    "cascade",
                    "set",
                    "null",
                    "default",
                    "restrict",
                    "no",
                    "action",
                    "match",
                    "full",
                    "partial",
                    "simple",
                    "deferrable",
                    "initially",
                    "deferred",
                    "immediate",
                ]) || form.take_parenthesized().is_some()
                {}
                not_valid_is_ours(form)?;
                Ok(Form::Constraint(Constraint::ForeignKey {
                    name: own_name.unwrap_or_else(|| for_columns(&table, &columns, "fkey")),
                    table,
                    columns,
                    referenced,
                    referenced_columns,
                    actions,
                }))
            },
        )
    }

    /// `users(email)`.
    ///
    /// # Errors
    /// If it is not read.
    pub(crate) fn unique(given: &str, own_name: Option<String>) -> Result<Form> {
        input::read("--unique", "users(email)", given, |form| {
            let table = table(form)?;
            let columns = columns(form).map_err(|why| {
                format!("{why}; an expression can be unique by an index only, with --unique-index")
            })?;
            end(form)?;
            Ok(Form::Constraint(Constraint::Unique {
                name: own_name.unwrap_or_else(|| for_columns(&table, &columns, "key")),
                table,
                columns,
            }))
        })
    }
}

impl Constraint {
    pub(super) fn table(&self) -> &ObjectName {
        let (Constraint::Check { table, .. }
        | Constraint::ForeignKey { table, .. }
        | Constraint::Unique { table, .. }) = self;
        table
    }

    pub(super) fn name(&self) -> &str {
        let (Constraint::Check { name, .. }
        | Constraint::ForeignKey { name, .. }
        | Constraint::Unique { name, .. }) = self;
        name
    }

    /// As SQL, without its name.
    pub(super) fn definition(&self) -> String {
        match self {
            Constraint::Check { definition, .. } => definition.clone(),
            Constraint::ForeignKey {
                columns,
                referenced,
                referenced_columns,
                actions,
                ..
            } => {
                let to = match referenced_columns.is_empty() {
                    true => String::new(),
                    false => format!(" ({})", quoted(referenced_columns)),
                };
                let key = format!(
                    "FOREIGN KEY ({}) REFERENCES {referenced}{to} {actions}",
                    quoted(columns)
                );
                key.trim_end().to_owned()
            }
            Constraint::Unique { columns, .. } => format!("UNIQUE ({})", quoted(columns)),
        }
    }
}

/// `orders_user_id_fkey`, as PostgreSQL names it.
fn for_columns(table: &ObjectName, columns: &[String], kind: &str) -> String {
    let columns = columns.iter().map(String::as_str);
    let parts: Vec<&str> = [&*table.name]
        .into_iter()
        .chain(columns)
        .chain([kind])
        .collect();
    joined(&parts)
}

fn not_valid_is_ours(form: &Cursor<'_>) -> Result<(), String> {
    match form.clone().eat_all(&["not", "valid"]) {
        true => Err(
            "leave out `NOT VALID`: the first migration has it, and the second one validates"
                .to_owned(),
        ),
        false => end(form),
    }
}

/// The words of a condition that look like columns, each once, for the constraint's name.
fn columns_in(mut condition: Cursor<'_>) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    while !condition.at_end() {
        // A type, or what stands in a row or a schema.
        if condition.eat_kind(TokenKind::Colon) || condition.eat_kind(TokenKind::Dot) {
            condition.eat_kind(TokenKind::Colon);
            condition.skip();
            continue;
        }
        let keyword = condition.word().is_some_and(|word| {
            is_reserved(&word)
                || [
                    "between",
                    "date",
                    "exists",
                    "interval",
                    "row",
                    "timestamp",
                    "values",
                ]
                .contains(&word.as_str())
        });
        let Some(name) = condition.identifier() else {
            condition.skip();
            continue;
        };
        let function = condition.clone().eat_kind(TokenKind::OpenParen);
        if !keyword && !function && !columns.contains(&name) {
            columns.push(name);
        }
    }
    columns
}
