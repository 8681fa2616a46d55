//! Whether a statement destroys anything, and whether its text alone says what.

use super::cursor::Cursor;
use super::effect::Effect;
use super::read::of;
use crate::migration::sql::Statement;

/// Whether the text alone says what a statement destroys, without asking the server. It does not where
/// the statement runs code, affects objects that it does not name (`CASCADE`), or changes what a name
/// means in a way that is not tracked here.
pub(crate) fn shows_what_it_destroys(text: &str, statement: &Statement) -> bool {
    if destroys_nothing(text, statement) {
        return true;
    }
    let mut cursor = Cursor::new(text, &statement.tokens);
    let reaches_further = cursor.contains("cascade")
        || cursor.contains_phrase(&["set", "schema"])
        || cursor.contains("search_path");
    let runs_code = cursor.calls_function();
    let effects = of(text, statement);
    let makes_table = |effect: &Effect| matches!(effect, Effect::CreateTable { .. });
    let readable = match cursor.next_word().as_deref() {
        Some("insert" | "update" | "delete" | "merge" | "with" | "select") => !runs_code,
        // ALTER INDEX, ALTER VIEW and so on can rename tables too.
        Some("alter") => cursor.eat("table") || !cursor.contains("rename"),
        Some("copy" | "values" | "refresh" | "table") => false,
        // Not from a query, whose own changes are not among the effects.
        Some("create") => !effects.iter().any(makes_table),
        _ => true,
    };
    readable && !reaches_further && !effects.contains(&Effect::Opaque)
}

/// Whether a statement destroys nothing, whatever state the database is in: it creates objects, or changes
/// rules without changing a value, and it runs no code. A statement that is not known to be like that may
/// destroy something.
pub(crate) fn destroys_nothing(text: &str, statement: &Statement) -> bool {
    let mut cursor = Cursor::new(text, &statement.tokens);
    match cursor.next_word().as_deref() {
        Some("comment" | "grant" | "revoke" | "analyze" | "lock" | "savepoint" | "release") => true,
        // Everything in an index is in its table too.
        Some("reindex" | "vacuum") => true,
        Some("drop") => cursor.eat("index"),
        Some("set") => !cursor.contains("track_counts"),
        Some("create") => {
            cursor.eat_all(&["or", "replace"]);
            match cursor.next_word().as_deref() {
                // A default is computed only when a row is inserted, and only AS inserts rows.
                Some("table" | "unlogged") => {
                    !["select", "execute", "values", "with"]
                        .iter()
                        .any(|word| cursor.contains(word))
                        && !cursor.contains_phrase(&["as", "table"])
                }
                Some("index") => indexes_without_code(cursor).unwrap_or(false),
                Some("unique") => {
                    cursor.eat("index") && indexes_without_code(cursor).unwrap_or(false)
                }
                Some("schema") => !cursor.contains("create"),
                Some("view" | "function" | "procedure" | "type" | "domain" | "sequence") => true,
                _ => false,
            }
        }
        Some("alter") => cursor.eat("table") && alters_without_loss(cursor).unwrap_or(false),
        _ => false,
    }
}

/// Whether an index is on plain columns, without a function.
fn indexes_without_code(mut cursor: Cursor<'_>) -> Option<bool> {
    cursor.eat("concurrently");
    cursor.eat_all(&["if", "not", "exists"]);
    if !cursor.eat("on") {
        cursor.identifier()?;
        cursor.eat("on").then_some(())?;
    }
    cursor.relation()?;
    if cursor.eat("using") {
        cursor.identifier()?;
    }
    Some(!cursor.calls_function())
}

/// Whether every action of an `ALTER TABLE` keeps every value, and runs no code.
fn alters_without_loss(mut cursor: Cursor<'_>) -> Option<bool> {
    cursor.eat_all(&["if", "exists"]);
    cursor.relation()?;
    while !cursor.at_end() {
        let mut action = cursor.take_list_item();
        let harmless = match action.next_word()?.as_str() {
            "add" => {
                let column = action.eat("column");
                action.eat_all(&["if", "not", "exists"]);
                let adds_column = column || !action.at_constraint();
                // A type may look like a function call, `numeric(3)`; a computed value comes after it.
                let mut computed = action.clone();
                while !computed.at_end() && !computed.eat_any(&["default", "generated", "check"]) {
                    computed.skip();
                }
                let identity = action.contains_phrase(&["as", "identity"]);
                adds_column
                    && !action.contains("check")
                    && (identity || !action.contains("generated"))
                    && !computed.calls_function()
            }
            "rename" | "owner" | "validate" | "enable" | "disable" => true,
            "drop" => action.eat("constraint") && !action.contains("cascade"),
            "alter" => {
                action.eat("column");
                action.identifier()?;
                action.eat_all(&["set", "not", "null"])
                    || action.eat_all(&["drop", "not", "null"])
                    || action.eat_all(&["set", "default"])
                    || action.eat_all(&["drop", "default"])
            }
            _ => false,
        };
        if !harmless {
            return Some(false);
        }
    }
    Some(true)
}
