//! The forms of a change, and how columns and indexes are read.

use squawk_lexer::TokenKind;

use super::constraint::Constraint;
use super::input::{self, end, list, table};
use super::names::joined;
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::{Cursor, Effect, ObjectName, significant};
use crate::migration::quote::quote_if_needed;
use crate::shell::shell_word;

/// What a new migration does.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Nobody has said yet.
    Unwritten,
    Columns {
        table: ObjectName,
        columns: Vec<Column>,
    },
    Index(Index),
    Constraint(Constraint),
    NotNull {
        table: ObjectName,
        column: String,
    },
}

/// A nullable column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) table: ObjectName,
    pub(crate) name: String,
    /// As written: `numeric(10, 2)`.
    pub(crate) kind: String,
    /// A constant.
    pub(crate) default: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) table: ObjectName,
    pub(crate) name: String,
    pub(crate) unique: bool,
    pub(crate) method: String,
    pub(crate) keys: Vec<Key>,
    /// `WHERE …` and whatever else follows the columns.
    pub(crate) rest: String,
    pub(crate) partial: bool,
}

/// A column or an expression of an index.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// As SQL.
    pub(crate) text: String,
    /// As `pg_get_indexdef` shows it, without quotes; `None` for what the server may write differently.
    pub(crate) shown: Option<String>,
    /// What stands for it in the index's name.
    word: String,
}

impl Form {
    /// Columns of one table: `users.last_login_at:timestamptz`.
    ///
    /// # Errors
    /// If one is not read, or they are of several tables.
    pub(crate) fn columns(given: &[String], default: Option<&str>) -> Result<Form> {
        let mut columns = Vec::new();
        for column in given {
            columns.push(Column::read(column)?);
        }
        let table = columns[0].table.clone();
        let other = columns.iter().find(|column| column.table != table);
        let why = match (other, default, columns.len()) {
            (Some(other), ..) => Some(format!(
                "they are of two tables, `{table}` and `{}`; a migration of each waits for one lock only",
                other.table
            )),
            (None, Some(_), 2..) => Some("`--default` is for one column".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            return Err(Failure::usage("cannot add these columns in one migration")
                .cause(why)
                .state("no file was written")
                .hint(Hint::to(
                    "make a migration for each",
                    format!("db-new NAME --column {}", shell_word(&given[0])),
                ))
                .into());
        }
        if let Some(default) = default {
            columns[0].default = Some(constant(default)?);
        }
        Ok(Form::Columns { table, columns })
    }

    /// `users(last_login_at DESC NULLS LAST)`.
    ///
    /// # Errors
    /// If it is not read.
    pub(crate) fn index(given: &str, unique: bool, own_name: Option<String>) -> Result<Form> {
        let (flag, example) = match unique {
            true => ("--unique-index", "users(lower(email))"),
            false => ("--index", "users(last_login_at DESC NULLS LAST)"),
        };
        let index = input::read(flag, example, given, |form| Index::read(form, unique))?;
        Ok(Form::Index(match own_name {
            Some(name) => Index { name, ..index },
            None => index,
        }))
    }

    /// `users.email`.
    ///
    /// # Errors
    /// If it is not read.
    pub(crate) fn not_null(given: &str) -> Result<Form> {
        let (table, column) = input::read("--not-null", "users.email", given, |form| {
            let found = column_of_table(form)?;
            end(form).map(|()| found)
        })?;
        Ok(Form::NotNull { table, column })
    }

    /// The index that it makes.
    pub(crate) fn new_index(&self) -> Option<&str> {
        match self {
            Form::Index(index) => Some(&index.name),
            Form::Constraint(Constraint::Unique { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// Whether nothing but this form shows in what the statements of an up file do.
    pub(super) fn may_do(&self, effects: &[Effect]) -> bool {
        let expected = |effect: &Effect| match self {
            Form::Unwritten => true,
            Form::Columns { .. } => {
                matches!(effect, Effect::AlterTable { .. } | Effect::AddColumn { .. })
            }
            Form::Index(_) => matches!(effect, Effect::CreateIndex { .. }),
            Form::Constraint(_) | Form::NotNull { .. } => matches!(
                effect,
                Effect::AlterTable { .. } | Effect::References { .. } | Effect::CreateIndex { .. }
            ),
        };
        effects.iter().all(expected)
    }
}

impl Column {
    /// The type without what is in parentheses, which the catalog keeps elsewhere, and without a collation.
    pub(super) fn bare_kind(&self) -> String {
        let tokens = significant(&self.kind);
        let mut depth = 0_usize;
        let mut bare = String::new();
        let mut end = 0;
        for token in &tokens {
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth = depth.saturating_sub(1),
                _ if token.word(&self.kind).as_deref() == Some("collate") => break,
                _ if depth == 0 => {
                    let apart = !bare.is_empty() && token.range.start > end;
                    bare.push_str(if apart { " " } else { "" });
                    bare.push_str(token.text(&self.kind));
                }
                _ => {}
            }
            end = token.range.end;
        }
        bare
    }

    fn read(given: &str) -> Result<Column> {
        input::read(
            "--column",
            "users.last_login_at:timestamptz",
            given,
            |form| {
                let (table, name) = column_of_table(form)?;
                if !form.eat_kind(TokenKind::Colon) {
                    return Err(format!(
                        "expected `:` and a type after the column, found `{}`",
                        form.rest()
                    ));
                }
                let kind = form.rest().to_owned();
                column_type(form.clone())?;
                Ok(Column {
                    table,
                    name,
                    kind,
                    default: None,
                })
            },
        )
    }
}

/// `users.email`, `public.users.email`.
fn column_of_table(form: &mut Cursor<'_>) -> Result<(ObjectName, String), String> {
    let mut names = Vec::new();
    loop {
        names.extend(form.identifier());
        if !form.eat_kind(TokenKind::Dot) {
            break;
        }
    }
    let (schema, name, column) = match &mut names[..] {
        [table, column] => (None, table, column),
        [schema, table, column] => (Some(std::mem::take(schema)), table, column),
        _ => return Err("it does not begin with TABLE.COLUMN or SCHEMA.TABLE.COLUMN".to_owned()),
    };
    let table = ObjectName {
        schema,
        name: std::mem::take(name),
    };
    Ok((table, std::mem::take(column)))
}

/// Refuses what is more than a type: a column is added without anything that reads or rewrites the table.
fn column_type(mut written: Cursor<'_>) -> Result<(), String> {
    match written.word().as_deref() {
        Some("serial" | "serial2" | "serial4" | "serial8" | "bigserial" | "smallserial") => {
            return Err(format!(
                "`{}` has a different default for each row, so every row would be rewritten under an \
                 ACCESS EXCLUSIVE lock",
                written.rest()
            ));
        }
        Some(_) => {}
        None if written.clone().identifier().is_some() => {}
        None => return Err("the type is missing".to_owned()),
    }
    let kind = written.take_list_item();
    if !written.at_end() {
        return Err(format!(
            "`{}` comes after the type: give each column a --column of its own",
            written.rest()
        ));
    }
    let mut written = kind;
    while !written.at_end() {
        let instead = match written.word().as_deref() {
            Some("not") => "it with --not-null",
            Some("default") => "a constant with --default",
            Some("check" | "constraint") => "it with --constraint",
            Some("unique" | "primary") => "it with --unique",
            Some("references") => "it with --foreign-key",
            Some("generated" | "as") => "the whole migration by hand: every row would be rewritten",
            _ => {
                written.skip();
                continue;
            }
        };
        return Err(format!(
            "`{}` is more than a type: write {instead}",
            written.rest()
        ));
    }
    Ok(())
}

/// A literal, which the catalog keeps for the rows that exist.
fn constant(given: &str) -> Result<String> {
    input::read("--default", "false", given, |form| {
        let written = form.rest().to_owned();
        let _sign = form.eat_kind(TokenKind::Minus) || form.eat_kind(TokenKind::Plus);
        let is_literal = form.eat_any(&["true", "false", "null"])
            || form.clone().identifier().is_none() && form.identifier_or_number().is_some();
        let mut is_constant = is_literal;
        while is_constant && form.eat_kind(TokenKind::Colon) {
            is_constant = form.eat_kind(TokenKind::Colon) && form.name().is_some();
            form.take_parenthesized();
            while form.eat_kind(TokenKind::OpenBracket) && form.eat_kind(TokenKind::CloseBracket) {}
        }
        match is_constant && form.at_end() {
            true => Ok(written),
            false => Err(format!(
                "`{written}` is not a constant: if the value of each row is computed, every row is rewritten \
                 under an ACCESS EXCLUSIVE lock"
            )),
        }
    })
}

impl Index {
    fn read(form: &mut Cursor<'_>, unique: bool) -> Result<Index, String> {
        let table = table(form)?;
        let method = match form.eat("using") {
            true => form
                .identifier()
                .ok_or("the index method is missing after `USING`")?,
            false => "btree".to_owned(),
        };
        let items = list(form, "columns")?;
        let keys: Vec<Key> = items
            .into_iter()
            .map(Key::read)
            .collect::<Result<_, String>>()?;
        let rest = form.rest().to_owned();
        match form.word().as_deref() {
            Some("include" | "nulls" | "with" | "tablespace" | "where") => {}
            _ => end(form)?,
        }
        let words = keys.iter().map(|key| key.word.as_str());
        let parts: Vec<&str> = ["idx", &table.name].into_iter().chain(words).collect();
        Ok(Index {
            name: joined(&parts),
            table,
            unique,
            method,
            keys,
            partial: form.contains("where"),
            rest,
        })
    }
}

impl Index {
    /// The one that a constraint is made of.
    pub(super) fn unique_columns(table: &ObjectName, name: &str, columns: &[String]) -> Index {
        let key = |column: &String| Key {
            text: quote_if_needed(column),
            shown: is_plain(column).then(|| column.clone()),
            word: column.clone(),
        };
        Index {
            table: table.clone(),
            name: name.to_owned(),
            unique: true,
            method: "btree".to_owned(),
            keys: columns.iter().map(key).collect(),
            rest: String::new(),
            partial: false,
        }
    }
}

impl Key {
    /// `email`, `lower(email)`, `(data ->> 'id')`, each with what CREATE INDEX allows after it.
    fn read(mut item: Cursor<'_>) -> Result<Key, String> {
        let written = item.rest();
        let mut name = None;
        let word;
        let mut ahead = item.clone();
        if let Some(mut inside) = item.take_parenthesized() {
            word = inside.identifier().unwrap_or_else(|| "expr".to_owned());
        } else if let Some(function) = ahead
            .name()
            .filter(|_| ahead.take_parenthesized().is_some())
        {
            word = function.name;
            item = ahead;
        } else {
            let column = item.identifier().ok_or_else(|| not_a_key(written))?;
            word = column.clone();
            name = Some(column);
        }
        let after = item.rest();
        let order = Order::read(item).ok_or_else(|| not_a_key(written))?;
        let text = match &name {
            Some(name) => format!("{} {after}", quote_if_needed(name)),
            None => written.to_owned(),
        };
        let shown = name.filter(|name| !order.more && is_plain(name));
        Ok(Key {
            text: text.trim_end().to_owned(),
            shown: shown.map(|name| name + order.shown),
            word,
        })
    }
}

fn not_a_key(written: &str) -> String {
    format!(
        "`{written}` is neither a column nor an expression in parentheses of its own, such as `((a + b))`"
    )
}

/// Whether a name stands for itself in a pattern of LIKE, once its quotes are removed.
pub(super) fn is_plain(name: &str) -> bool {
    !name.contains(['"', '%', '\\'])
}

/// What follows a key.
struct Order {
    /// As `pg_get_indexdef` shows it.
    shown: &'static str,
    /// A collation or an operator class, which are shown only if they are not the default.
    more: bool,
}

impl Order {
    fn read(mut after: Cursor<'_>) -> Option<Order> {
        let collation = after.eat("collate");
        if collation {
            after.name()?;
        }
        let ordered = matches!(after.word().as_deref(), Some("asc" | "desc" | "nulls"));
        let class = !ordered && !after.at_end();
        if class {
            after.name()?;
            after.take_parenthesized();
        }
        let descending = !after.eat("asc") && after.eat("desc");
        let nulls_first = match after.eat("nulls") {
            true => Some(after.eat("first") || !after.eat("last").then_some(true)?),
            false => None,
        };
        let shown = match (descending, nulls_first) {
            (false, Some(true)) => " NULLS FIRST",
            (false, _) => "",
            (true, Some(false)) => " DESC NULLS LAST",
            (true, _) => " DESC",
        };
        after.at_end().then_some(Order {
            shown,
            more: collation || class,
        })
    }
}
