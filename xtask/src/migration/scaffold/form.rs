//! The forms of a change, read from how they are typed: `users(last_login_at DESC)`.

use squawk_lexer::TokenKind;

use super::input::{self, column_of_table, columns, end, list, quoted, table};
use super::names::joined;
use super::templates::{definition_like, oid};
use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::migration::effects::{Cursor, ObjectName};
use crate::migration::quote::{is_reserved, quote_if_needed};

/// What a new migration does.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Nobody has said yet.
    Unwritten,
    Columns(Vec<Column>),
    Index(Index),
    /// A constraint that is made of an index of plain columns.
    Unique(Index),
    /// A constraint that is added without looking at the rows that exist, and validated later.
    Constraint(Constraint),
    NotNull {
        table: ObjectName,
        column: String,
    },
}

/// A nullable column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(super) table: ObjectName,
    pub(super) name: String,
    /// As written: `numeric(10, 2)`.
    pub(super) kind: String,
    /// A constant.
    pub(super) default: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(super) table: ObjectName,
    pub(crate) name: String,
    pub(super) unique: bool,
    pub(super) method: String,
    pub(super) keys: Vec<Key>,
    /// `WHERE …`, or whatever else follows the keys.
    pub(super) rest: String,
    pub(super) partial: bool,
}

/// A column or an expression of an index.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// As SQL.
    pub(super) text: String,
    /// As `pg_get_indexdef` shows it, without quotes; `None` for what it may write differently.
    pub(super) shown: Option<String>,
    /// What stands for it in the index's name.
    word: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Constraint {
    pub(super) table: ObjectName,
    pub(super) name: String,
    /// `check`, `foreign key`.
    pub(super) kind: &'static str,
    /// `CHECK (age >= 0)`.
    pub(super) definition: String,
    /// The conditions by which a row of `pg_constraint` is it.
    pub(super) conditions: Vec<String>,
}

impl Form {
    /// Columns of one table: `users.last_login_at:timestamptz`.
    ///
    /// # Errors
    /// As of all that follow, if it is not read.
    pub(crate) fn columns(given: &[String], default: Option<&str>) -> Result<Form> {
        let columns = given.iter().map(|column| Column::read(column));
        let mut columns: Vec<Column> = columns.collect::<Result<_>>()?;
        let several = columns
            .windows(2)
            .any(|pair| pair[0].table != pair[1].table);
        if several || default.is_some() && columns.len() > 1 {
            return Err(Failure::usage("cannot add these columns in one migration")
                .cause("one migration alters one table, so that it waits for one lock only; `--default` is for one column")
                .state("no file was written")
                .hint(Hint::to("make a migration for each", "db-new NAME --column TABLE.COLUMN:TYPE"))
                .into());
        }
        if let (Some(column), Some(default)) = (columns.first_mut(), default) {
            column.default = Some(input::read("--default", "false", default, constant)?);
        }
        Ok(Form::Columns(columns))
    }

    /// `users(last_login_at DESC NULLS LAST)`.
    pub(crate) fn index(given: &str, unique: bool, own_name: Option<String>) -> Result<Form> {
        let (flag, example) = match unique {
            true => ("--unique-index", "users(lower(email))"),
            false => ("--index", "users(last_login_at DESC NULLS LAST)"),
        };
        input::read(flag, example, given, |form| {
            Index::read(form, unique, own_name)
        })
        .map(Form::Index)
    }

    /// `users(email)`.
    pub(crate) fn unique(given: &str, own_name: Option<String>) -> Result<Form> {
        input::read("--unique", "users(email)", given, |form| {
            let columns = columns(&mut after_table(form.clone())).map_err(|why| {
                format!("{why}; an expression can be unique by an index only, with --unique-index")
            })?;
            let mut index = Index::read(form, true, own_name.clone())?;
            if !index.rest.is_empty() {
                return Err(format!("`{}` is not understood", index.rest));
            }
            index.name = own_name.unwrap_or_else(|| joined(&index.table, &columns, "key"));
            Ok(Form::Unique(index))
        })
    }

    /// `users CHECK (age >= 0)`, `users CONSTRAINT adults CHECK (age >= 18)`.
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
                    "expected `CHECK` after the table, found `{}`",
                    form.rest()
                ));
            }
            let condition = form
                .take_parenthesized()
                .filter(|condition| !condition.at_end());
            let condition = condition.ok_or("expected a condition in parentheses after `CHECK`")?;
            let inherits = if form.eat_all(&["no", "inherit"]) {
                " NO INHERIT"
            } else {
                ""
            };
            validated_later(form)?;
            let column: Vec<String> = first_column(condition.clone()).into_iter().collect();
            Ok(Form::Constraint(Constraint {
                name: own_name
                    .or(written_name)
                    .unwrap_or_else(|| joined(&table, &column, "check")),
                table,
                kind: "check",
                definition: format!("CHECK ({}){inherits}", condition.rest()),
                // A condition can be written in many ways: it is not compared.
                conditions: vec!["contype = 'c'".to_owned()],
            }))
        })
    }

    /// `orders(user_id) REFERENCES users(id)`, with its actions.
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
                let referenced = form.name().ok_or("a table is missing after `REFERENCES`")?;
                let (to, to_shown) = match form.clone().eat_kind(TokenKind::OpenParen) {
                    true => {
                        let to = input::columns(form)?;
                        (
                            format!(" ({})", quoted(&to)),
                            format!("({})", to.join(", ")),
                        )
                    }
                    false => (String::new(), String::new()),
                };
                let actions = form.rest().to_owned();
                while key_action(form)? {}
                validated_later(form)?;
                let key = format!("FOREIGN KEY ({}) REFERENCES", columns.join(", "));
                let written = format!(
                    "FOREIGN KEY ({}) REFERENCES {referenced}{to} {actions}",
                    quoted(&columns)
                );
                Ok(Form::Constraint(Constraint {
                    name: own_name.unwrap_or_else(|| joined(&table, &columns, "fkey")),
                    table,
                    kind: "foreign key",
                    definition: written.trim_end().to_owned(),
                    conditions: vec![
                        format!("contype = 'f' AND confrelid = {}", oid(&referenced)),
                        definition_like("constraintdef(oid)", &format!("{key} %{to_shown}%")),
                    ],
                }))
            },
        )
    }

    /// `users.email`.
    pub(crate) fn not_null(given: &str) -> Result<Form> {
        input::read("--not-null", "users.email", given, |form| {
            let (table, column) = column_of_table(form)?;
            end(form).map(|()| Form::NotNull { table, column })
        })
    }

    /// The index that it makes.
    pub(crate) fn new_index(&self) -> Option<&Index> {
        match self {
            Form::Index(index) | Form::Unique(index) => Some(index),
            _ => None,
        }
    }
}

impl Column {
    fn read(given: &str) -> Result<Column> {
        input::read(
            "--column",
            "users.last_login_at:timestamptz",
            given,
            |form| {
                let (table, name) = column_of_table(form)?;
                if !form.eat_kind(TokenKind::Colon) {
                    return Err("expected `:` and a type after the column".to_owned());
                }
                let kind = form.rest().to_owned();
                only_a_type(form.clone())?;
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

/// Refuses what is more than a type: it would read or rewrite the table, or has a form of its own.
fn only_a_type(mut written: Cursor<'_>) -> Result<(), String> {
    if written.clone().identifier().is_none() {
        return Err("the type is missing".to_owned());
    }
    let mut kind = written.take_list_item();
    if !written.at_end() {
        return Err(
            "the type ends at the comma: give each column a --column of its own".to_owned(),
        );
    }
    while !kind.at_end() {
        let instead = match kind.word().as_deref() {
            Some("not") => "use --not-null",
            Some("default") => "use --default with a constant",
            Some("check" | "constraint") => "use --constraint",
            Some("unique" | "primary") => "use --unique",
            Some("references") => "use --foreign-key",
            Some(
                "serial" | "serial2" | "serial4" | "serial8" | "bigserial" | "smallserial"
                | "generated",
            ) => "it would rewrite every row under an ACCESS EXCLUSIVE lock",
            Some("collate" | "as") => "write that migration by hand",
            _ => {
                kind.skip();
                continue;
            }
        };
        return Err(format!("`{}` is more than a type: {instead}", kind.rest()));
    }
    Ok(())
}

/// A literal, which the catalog keeps for the rows that exist.
fn constant(form: &mut Cursor<'_>) -> Result<String, String> {
    let written = form.rest().to_owned();
    let _sign = form.eat_kind(TokenKind::Minus) || form.eat_kind(TokenKind::Plus);
    let is_word = form.clone().identifier().is_some();
    let mut is_constant = match is_word {
        true => form.eat_any(&["true", "false", "null"]),
        false => form.identifier_or_number().is_some(),
    };
    while is_constant && form.eat_kind(TokenKind::Colon) {
        is_constant = form.eat_kind(TokenKind::Colon) && form.name().is_some();
        form.take_parenthesized();
        while form.eat_kind(TokenKind::OpenBracket) && form.eat_kind(TokenKind::CloseBracket) {}
    }
    match is_constant && form.at_end() {
        true => Ok(written),
        false => Err(format!(
            "`{written}` is not a constant; a computed value can rewrite every row under an ACCESS EXCLUSIVE lock"
        )),
    }
}

impl Index {
    fn read(
        form: &mut Cursor<'_>,
        unique: bool,
        own_name: Option<String>,
    ) -> Result<Index, String> {
        let table = table(form)?;
        let method = match form.eat("using") {
            true => form
                .identifier()
                .ok_or("the index method is missing after `USING`")?,
            false => "btree".to_owned(),
        };
        let keys = list(form)?.into_iter().map(Key::read);
        let keys: Vec<Key> = keys.collect::<Result<_, String>>()?;
        if !matches!(
            form.word().as_deref(),
            Some("include" | "nulls" | "with" | "tablespace" | "where")
        ) {
            end(form)?;
        }
        let words: Vec<&str> = keys.iter().map(|key| key.word.as_str()).collect();
        Ok(Index {
            name: own_name.unwrap_or_else(|| joined_index(&table, &words)),
            table,
            unique,
            method,
            keys,
            partial: form.contains("where"),
            rest: form.rest().to_owned(),
        })
    }
}

fn joined_index(table: &ObjectName, words: &[&str]) -> String {
    super::names::within_limit(format!("idx_{}_{}", table.name, words.join("_")))
}

impl Key {
    /// `email`, `lower(email)`, `(data ->> 'id')`, each with what CREATE INDEX allows after it.
    fn read(mut item: Cursor<'_>) -> Result<Key, String> {
        let written = item.rest();
        let refused = || {
            format!(
                "`{written}` is neither a column nor an expression in parentheses of its own, such as `((a + b))`"
            )
        };
        let mut column = None;
        let mut ahead = item.clone();
        let word = if let Some(mut inside) = item.take_parenthesized() {
            inside.identifier().unwrap_or_else(|| "expr".to_owned())
        } else if let Some(function) = ahead
            .name()
            .filter(|_| ahead.take_parenthesized().is_some())
        {
            item = ahead;
            function.name
        } else {
            column = item.identifier();
            column.clone().ok_or_else(refused)?
        };
        let after = item.rest();
        let (order, is_default_class) = order(item).ok_or_else(refused)?;
        Ok(Key {
            text: match &column {
                Some(column) => format!("{} {after}", quote_if_needed(column))
                    .trim_end()
                    .to_owned(),
                None => written.to_owned(),
            },
            shown: column
                .filter(|_| is_default_class)
                .map(|column| column + order),
            word,
        })
    }
}

/// What follows a key, as `pg_get_indexdef` shows it, and whether there is no collation and no operator class, of
/// which it shows those that are not the default.
fn order(mut after: Cursor<'_>) -> Option<(&'static str, bool)> {
    let all = after.rest().len();
    if after.eat("collate") {
        after.name()?;
    }
    if !after.at_end() && !matches!(after.word().as_deref(), Some("asc" | "desc" | "nulls")) {
        after.name()?;
        after.take_parenthesized();
    }
    let is_default_class = after.rest().len() == all;
    let descending = !after.eat("asc") && after.eat("desc");
    let nulls_first = match after.eat("nulls") {
        true if after.eat("first") => true,
        true => !after.eat("last").then_some(true)?,
        false => descending,
    };
    let shown = match (descending, nulls_first) {
        (false, true) => " NULLS FIRST",
        (false, false) => "",
        (true, true) => " DESC",
        (true, false) => " DESC NULLS LAST",
    };
    after.at_end().then_some((shown, is_default_class))
}

fn after_table(mut form: Cursor<'_>) -> Cursor<'_> {
    form.name();
    form
}

/// Reads one thing that can follow a foreign key; whether there is one.
fn key_action(form: &mut Cursor<'_>) -> Result<bool, String> {
    let rest = form.rest();
    let complete = if form.eat("on") {
        form.eat_any(&["delete", "update"])
            && (form.eat_any(&["cascade", "restrict"])
                || form.eat_all(&["no", "action"])
                || form.eat("set") && form.eat_any(&["null", "default"]))
    } else if form.eat("match") {
        form.eat_any(&["full", "partial", "simple"])
    } else if form.eat("initially") {
        form.eat_any(&["deferred", "immediate"])
    } else {
        return Ok(form.eat("deferrable") || form.eat_all(&["not", "deferrable"]));
    };
    // SET NULL can name columns.
    form.take_parenthesized();
    match complete {
        true => Ok(true),
        false => Err(format!("`{rest}` is not understood")),
    }
}

fn validated_later(form: &Cursor<'_>) -> Result<(), String> {
    match form.clone().eat_all(&["not", "valid"]) {
        true => Err(
            "leave out `NOT VALID`: the first migration has it, and the second one validates"
                .to_owned(),
        ),
        false => end(form),
    }
}

/// The first word of a condition that looks like a column, for the constraint's name.
fn first_column(mut condition: Cursor<'_>) -> Option<String> {
    while !condition.at_end() {
        let keyword = condition.word().is_some_and(|word| is_reserved(&word));
        match condition.identifier() {
            Some(name) if !keyword && !condition.clone().eat_kind(TokenKind::OpenParen) => {
                return Some(name);
            }
            Some(_) => {}
            None => {
                condition.skip();
            }
        }
    }
    None
}
