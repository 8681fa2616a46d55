//! A change as it was typed, `users(last_login_at DESC)`, and the values that it gives to the templates.

use squawk_lexer::TokenKind;

use crate::hex;
use crate::migration::effects::{Cursor, IndexShape, ObjectName, identifiers};
use crate::migration::history::checksum;
use crate::migration::quote::{is_reserved, quote_if_needed};
use crate::migration::sql;

/// What the server keeps of a name (NAMEDATALEN - 1).
const LONGEST: usize = 63;

/// What is more than a type of a column: it could read or rewrite the table, or has a form of its own.
const MORE_THAN_A_TYPE: &str = "not default check constraint unique primary references generated collate storage \
    compression serial serial2 serial4 serial8 bigserial smallserial";

/// What a new migration does.
#[derive(Default)]
pub(super) struct Change {
    table: ObjectName,
    columns: Vec<String>,
    /// Of the index or constraint.
    pub(super) name: String,
    /// `UNIQUE ` for an index that is.
    unique: &'static str,
    /// As SQL: of a column, an index or a constraint.
    definition: String,
    /// The same as the catalog shows it, for LIKE; `%` stands for what can be written in many ways.
    shown: String,
    /// The table that a foreign key points to.
    referenced: String,
}

impl Change {
    /// Of an index or a constraint, named by its table and columns: `idx_users_email`, `users_email_key`.
    fn new(table: ObjectName, columns: Vec<String>, before: &str, after: &str) -> Change {
        let words = columns.join("_");
        Change {
            name: within_limit(format!("{before}{}_{words}{after}", table.name)),
            table,
            columns,
            ..Change::default()
        }
    }

    /// A template with its `{placeholders}` filled. In a string literal, names stand without their own quotes, and a
    /// quote in a value is doubled.
    pub(super) fn fill(&self, template: &str) -> String {
        let mut text = String::new();
        let mut in_literal = false;
        for (place, part) in template.split(['{', '}']).enumerate() {
            let is_placeholder = place % 2 == 1;
            match (is_placeholder, in_literal) {
                (true, true) => text += &self.value(part, true).replace('\'', "''"),
                (true, false) => text += &self.value(part, false),
                (false, _) => {
                    text += part;
                    in_literal ^= part.matches('\'').count() % 2 == 1;
                }
            }
        }
        text
    }

    fn value(&self, placeholder: &str, in_literal: bool) -> String {
        // The catalog's text is compared without quotes: which words are quoted depends on the server's version.
        // A `\` would be an escape; `_` matches it.
        let like = |shown: &str| shown.replace('\\', "_").replace('"', "");
        match (placeholder, in_literal) {
            ("table", _) => self.table.to_string(),
            ("column", _) => self.columns.concat(),
            ("columns", true) => like(&self.columns.join(", ")),
            ("columns", false) => quoted(&self.columns),
            ("name", true) => self.name.clone(),
            ("name", false) => quote_if_needed(&self.name),
            // An index is in the schema of its table.
            ("index", _) => {
                let (schema, name) = (self.table.schema.clone(), self.name.clone());
                ObjectName { schema, name }.to_string()
            }
            ("unique", _) => self.unique.to_owned(),
            ("definition", _) => self.definition.clone(),
            ("shown", _) => like(&self.shown),
            ("referenced", _) => self.referenced.clone(),
            (other, _) => unreachable!("no value for {other}"),
        }
    }
}

/// `users.last_login_at:timestamptz`.
pub(super) fn column(form: &mut Cursor<'_>) -> Result<Change, String> {
    let (table, column) = column_of_table(form)?;
    if !form.eat_kind(TokenKind::Colon) {
        return Err("expected `:` and a type after the column".to_owned());
    }
    let kind = form.rest();
    form.clone().identifier().ok_or("the type is missing")?;
    let mut more = MORE_THAN_A_TYPE.split_whitespace();
    if let Some(word) = more.find(|word| form.contains(word)) {
        return Err(format!(
            "`{word}` is more than a type: it can rewrite every row under an ACCESS EXCLUSIVE lock, or is to be added \
             later, with --not-null, --constraint, --unique or --foreign-key"
        ));
    }
    let size = match kind.contains('(') {
        true => ", size not compared",
        false => "",
    };
    Ok(Change {
        definition: kind.to_owned(),
        shown: format!("{kind}{size}"),
        ..Change::new(table, vec![column], "", "")
    })
}

/// `users(last_login_at DESC NULLS LAST)`, `UNIQUE users(lower(email))`.
pub(super) fn index(form: &mut Cursor<'_>) -> Result<Change, String> {
    let unique = if form.eat("unique") { "UNIQUE " } else { "" };
    let table = table(form)?;
    let definition = form.rest().to_owned();
    let shape = IndexShape::parse(unique != "", &definition);
    let shape = shape.map(|shape| shape.pattern()).unwrap_or_default();
    let has_settings = form.contains("with") || form.contains("tablespace");
    if form.eat("using") {
        form.identifier();
    }
    let first_word = |key: Cursor<'_>| identifiers(key.rest()).next();
    let words = list(form)?.into_iter().filter_map(first_word).collect();
    Ok(Change {
        unique,
        definition,
        shown: shape + if has_settings { "%" } else { "" },
        ..Change::new(table, words, "idx_", "")
    })
}

/// `users(email)`.
pub(super) fn unique(form: &mut Cursor<'_>) -> Result<Change, String> {
    let table = table(form)?;
    let columns = columns(form).map_err(|why| {
        format!("{why}; an expression can be unique by an index only: --index 'UNIQUE TABLE(…)'")
    })?;
    end(form)?;
    Ok(Change {
        unique: "UNIQUE ",
        definition: format!("({})", quoted(&columns)),
        shown: format!("btree ({})", columns.join(", ")),
        ..Change::new(table, columns, "", "_key")
    })
}

/// `users CHECK (age >= 0)`.
pub(super) fn check(form: &mut Cursor<'_>) -> Result<Change, String> {
    let table = table(form)?;
    let definition = form.rest().to_owned();
    expect(form, "CHECK")?;
    let condition = form.take_parenthesized().filter(|inside| !inside.at_end());
    let condition = condition.ok_or("expected a condition in parentheses after `CHECK`")?;
    form.eat_all(&["no", "inherit"]);
    end(form)?;
    let word = identifiers(condition.rest()).find(|word| !is_reserved(word));
    Ok(Change {
        definition,
        ..Change::new(table, word.into_iter().collect(), "", "_check")
    })
}

/// `orders(user_id) REFERENCES users(id)`, with its actions.
pub(super) fn foreign_key(form: &mut Cursor<'_>) -> Result<Change, String> {
    let table = table(form)?;
    let from = columns(form)?;
    let definition = format!("FOREIGN KEY ({}) {}", quoted(&from), form.rest());
    expect(form, "REFERENCES")?;
    let referenced = form.name().ok_or("a table is missing after `REFERENCES`")?;
    let to = match form.at_kind(TokenKind::OpenParen) {
        true => format!("({})", columns(form)?.join(", ")),
        false => String::new(),
    };
    Ok(Change {
        definition,
        shown: format!("FOREIGN KEY ({}) REFERENCES %{to}%", from.join(", ")),
        referenced: referenced.to_string(),
        ..Change::new(table, from, "", "_fkey")
    })
}

/// `users.email`.
pub(super) fn not_null(form: &mut Cursor<'_>) -> Result<Change, String> {
    let (table, column) = column_of_table(form)?;
    end(form)?;
    Ok(Change {
        definition: format!("CHECK ({} IS NOT NULL)", quote_if_needed(&column)),
        ..Change::new(table, vec![column], "", "_not_null_check")
    })
}

/// The text with its white space as single spaces, if it can be a part of one statement.
pub(super) fn one_line(given: &str) -> Result<String, String> {
    let tokens = sql::lex(given).map(|token| match token.kind {
        TokenKind::Whitespace => " ",
        _ => token.text(given),
    });
    let text = tokens.collect::<String>();
    let text = text.trim();
    let statements = sql::split(text).map_err(|problem| problem.what)?;
    // Comments are no part of a statement.
    let is_all = statements
        .iter()
        .all(|statement| statement.text(text) == text);
    match is_all && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("`;`, comments and control characters cannot stand in it".to_owned()),
    }
}

fn table(form: &mut Cursor<'_>) -> Result<ObjectName, String> {
    form.name()
        .ok_or_else(|| "it does not begin with a table".to_owned())
}

/// `users.email`, `public.users.email`.
fn column_of_table(form: &mut Cursor<'_>) -> Result<(ObjectName, String), String> {
    let first = form.identifier().filter(|_| form.eat_kind(TokenKind::Dot));
    let names = first.and_then(|first| Some((first, form.name()?)));
    let (first, rest) =
        names.ok_or("it does not begin with TABLE.COLUMN or SCHEMA.TABLE.COLUMN")?;
    let (schema, name) = match rest.schema {
        Some(table) => (Some(first), table),
        None => (None, first),
    };
    Ok((ObjectName { schema, name }, rest.name))
}

/// What stands between the parentheses that come next, one cursor for each item.
fn list<'a>(form: &mut Cursor<'a>) -> Result<Vec<Cursor<'a>>, String> {
    let inside = form.take_parenthesized().filter(|inside| !inside.at_end());
    let mut inside = inside.ok_or("expected columns in parentheses after the table")?;
    let mut items = Vec::new();
    while !inside.at_end() {
        items.push(inside.take_list_item());
    }
    Ok(items)
}

/// `(a, "B")`.
fn columns(form: &mut Cursor<'_>) -> Result<Vec<String>, String> {
    let names = list(form)?.into_iter().map(|mut item| {
        let written = item.rest();
        let name = item.identifier().filter(|_| item.at_end());
        name.ok_or_else(|| format!("`{written}` is not the name of a column"))
    });
    names.collect()
}

fn expect(form: &mut Cursor<'_>, word: &str) -> Result<(), String> {
    match form.eat(word) {
        true => Ok(()),
        false => Err(format!("expected `{word}`, found `{}`", form.rest())),
    }
}

pub(super) fn end(form: &Cursor<'_>) -> Result<(), String> {
    match form.rest() {
        "" => Ok(()),
        rest => Err(format!("`{rest}` is not understood")),
    }
}

/// Names as SQL, quoted where necessary, with commas between them.
fn quoted(columns: &[String]) -> String {
    let columns = columns.iter().map(|column| quote_if_needed(column));
    columns.collect::<Vec<_>>().join(", ")
}

/// A name that the server would cut off ends with digits of its own, so that two long names stay different.
fn within_limit(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let digits = &hex::encode(&checksum(name.as_bytes()))[..8];
    let kept = name.floor_char_boundary(LONGEST - 1 - digits.len());
    format!("{}_{digits}", &name[..kept])
}
