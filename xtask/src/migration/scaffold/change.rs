//! A change as it was typed, `users(last_login_at DESC)`, and the values that it gives to the templates.

use squawk_lexer::TokenKind;

use crate::hex;
use crate::migration::effects::{Cursor, IndexShape, ObjectName, identifiers};
use crate::migration::history::checksum;
use crate::migration::quote::{is_reserved, quote_if_needed};

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
pub(super) fn column(form: &mut Cursor<'_>) -> Option<Change> {
    let (table, column) = column_of_table(form)?;
    form.eat_kind(TokenKind::Colon).then_some(())?;
    let definition = form.rest().to_owned();
    form.clone().identifier()?;
    while !form.at_end() {
        let more = |word| MORE_THAN_A_TYPE.split(' ').any(|more| more == word);
        if form.word().is_some_and(more) {
            return None;
        }
        form.skip();
    }
    let size = match definition.contains('(') {
        true => ", size not compared",
        false => "",
    };
    Some(Change {
        shown: format!("{definition}{size}"),
        definition,
        ..Change::new(table, vec![column], "", "")
    })
}

/// `users(last_login_at DESC NULLS LAST)`, `UNIQUE users(lower(email))`.
pub(super) fn index(form: &mut Cursor<'_>) -> Option<Change> {
    let unique = if form.eat("unique") { "UNIQUE " } else { "" };
    let table = form.name()?;
    let definition = form.rest().to_owned();
    let shape = IndexShape::parse(!unique.is_empty(), &definition)?;
    let has_settings = form.contains("with") || form.contains("tablespace");
    if form.eat("using") {
        form.identifier()?;
    }
    let mut keys = form.take_parenthesized().filter(|keys| !keys.at_end())?;
    let mut words = Vec::new();
    while !keys.at_end() {
        words.extend(identifiers(keys.take_list_item().rest()).next());
    }
    form.take_list_item();
    Some(Change {
        unique,
        definition,
        shown: shape.pattern() + if has_settings { "%" } else { "" },
        ..Change::new(table, words, "idx_", "")
    })
}

/// `users(email)`.
pub(super) fn unique(form: &mut Cursor<'_>) -> Option<Change> {
    let table = form.name()?;
    let columns = columns(form)?;
    Some(Change {
        unique: "UNIQUE ",
        definition: format!("({})", quoted(&columns)),
        shown: format!("btree ({})", columns.join(", ")),
        ..Change::new(table, columns, "", "_key")
    })
}

/// `users CHECK (age >= 0)`.
pub(super) fn check(form: &mut Cursor<'_>) -> Option<Change> {
    let table = form.name()?;
    let definition = form.rest().to_owned();
    form.eat("check").then_some(())?;
    let condition = form.take_parenthesized()?;
    form.eat_all(&["no", "inherit"]);
    let word = identifiers(condition.rest()).find(|word| !is_reserved(word));
    Some(Change {
        definition,
        ..Change::new(table, word.into_iter().collect(), "", "_check")
    })
}

/// `orders(user_id) REFERENCES users(id)`, with its actions.
pub(super) fn foreign_key(form: &mut Cursor<'_>) -> Option<Change> {
    let table = form.name()?;
    let from = columns(form)?;
    let definition = format!("FOREIGN KEY ({}) {}", quoted(&from), form.rest());
    form.eat("references").then_some(())?;
    let referenced = form.name()?;
    let to = match form.at_kind(TokenKind::OpenParen) {
        true => format!("({})", columns(form)?.join(", ")),
        false => String::new(),
    };
    form.take_list_item();
    Some(Change {
        definition,
        shown: format!("FOREIGN KEY ({}) REFERENCES %{to}%", from.join(", ")),
        referenced: referenced.to_string(),
        ..Change::new(table, from, "", "_fkey")
    })
}

/// `users.email`.
pub(super) fn not_null(form: &mut Cursor<'_>) -> Option<Change> {
    let (table, column) = column_of_table(form)?;
    Some(Change {
        definition: format!("CHECK ({} IS NOT NULL)", quote_if_needed(&column)),
        ..Change::new(table, vec![column], "", "_not_null_check")
    })
}

/// `users.email`, `public.users.email`.
fn column_of_table(form: &mut Cursor<'_>) -> Option<(ObjectName, String)> {
    let first = form.identifier()?;
    form.eat_kind(TokenKind::Dot).then_some(())?;
    let rest = form.name()?;
    let (schema, name) = match rest.schema {
        Some(table) => (Some(first), table),
        None => (None, first),
    };
    Some((ObjectName { schema, name }, rest.name))
}

/// `(a, "B")`.
fn columns(form: &mut Cursor<'_>) -> Option<Vec<String>> {
    let mut ahead = form.clone();
    let mut inside = ahead.take_parenthesized()?;
    let mut names = vec![inside.identifier()?];
    while inside.eat_kind(TokenKind::Comma) {
        names.push(inside.identifier()?);
    }
    inside.at_end().then_some(())?;
    *form = ahead;
    Some(names)
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
