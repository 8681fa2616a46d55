//! The effects of a statement, read from its first word on.

use squawk_lexer::TokenKind;

use super::cursor::Cursor;
use super::effect::{Effect, ReindexTarget};
use super::name::ObjectName;
use crate::migration::sql::{Statement, Token};

/// What a statement of `text` does; never empty.
pub(crate) fn of(text: &str, statement: &Statement) -> Vec<Effect> {
    let cursor = Cursor::new(text, &statement.tokens);
    match read(cursor) {
        Some(effects) if effects.is_empty() => vec![Effect::Other],
        Some(effects) => effects,
        None => vec![Effect::Opaque],
    }
}

/// `None` if it was not understood, an empty list if it has no effect of interest.
fn read(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    let whole = cursor.clone();
    match cursor.next_word()?.as_str() {
        "alter" => alter(cursor),
        "create" => create(cursor),
        "drop" => drop_objects(cursor),
        "reindex" => reindex(cursor),
        "truncate" => truncate(cursor),
        "select" => select(whole),
        "delete" | "insert" | "merge" | "update" => row_changes(whole),
        "with" => {
            let effects = row_changes(whole.clone())?;
            let unseen = effects.is_empty() && whole.calls_function();
            (!unseen).then_some(effects)
        }
        "abort" | "analyze" | "begin" | "checkpoint" | "close" | "cluster" | "comment"
        | "commit" | "copy" | "deallocate" | "declare" | "discard" | "end" | "fetch" | "grant"
        | "listen" | "lock" | "move" | "notify" | "refresh" | "release" | "reset" | "revoke"
        | "rollback" | "savepoint" | "security" | "set" | "show" | "start" | "table"
        | "unlisten" | "vacuum" | "values" => Some(Vec::new()),
        // DO, CALL, EXECUTE, PREPARE, EXPLAIN, IMPORT, LOAD, REASSIGN, and what later versions add.
        _ => None,
    }
}

fn create(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    cursor.eat_all(&["or", "replace"]);
    let unique = cursor.eat("unique");
    cursor.eat_any(&["global", "local"]);
    let temporary = cursor.eat_any(&["temp", "temporary"]);
    while cursor.eat_any(&["unlogged", "foreign"]) {}
    match cursor.next_word()?.as_str() {
        // Nobody else sees it, and it is gone with the session.
        "table" if temporary => Some(Vec::new()),
        "table" => create_table(cursor),
        "index" => create_index(cursor, unique),
        // CREATE SCHEMA may contain further CREATE commands.
        "schema" => (!cursor.contains("create")).then(Vec::new),
        "extension" | "database" => None,
        _ => Some(Vec::new()),
    }
}

fn create_table(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let table = cursor.name()?;
    let mut effects = vec![Effect::CreateTable {
        table,
        if_not_exists,
    }];
    if cursor.eat_all(&["partition", "of"]) {
        effects.push(Effect::AlterTable {
            table: cursor.name()?,
            if_exists: false,
        });
    }
    effects.extend(references(cursor)?);
    Some(effects)
}

fn create_index(mut cursor: Cursor<'_>, unique: bool) -> Option<Vec<Effect>> {
    let concurrently = cursor.eat("concurrently");
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let name = if cursor.eat("on") {
        None
    } else {
        let name = cursor.identifier()?;
        cursor.eat("on").then_some(())?;
        Some(name)
    };
    Some(vec![Effect::CreateIndex {
        name,
        table: cursor.relation()?,
        unique,
        concurrently,
        if_not_exists,
    }])
}

/// The tables that foreign keys in the rest of the statement point to.
fn references(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    let mut effects = Vec::new();
    while !cursor.at_end() {
        if cursor.eat("references") {
            let table = cursor.name()?;
            effects.push(Effect::References { table });
        } else {
            cursor.skip();
        }
    }
    Some(effects)
}

fn alter(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    match cursor.next_word()?.as_str() {
        "table" => alter_table(cursor),
        // DROP ATTRIBUTE … CASCADE changes tables of that type.
        "type" => (!cursor.contains("drop")).then(Vec::new),
        "extension" | "system" => None,
        _ => Some(Vec::new()),
    }
}

fn alter_table(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    if cursor.eat("all") {
        // ALL IN TABLESPACE: only the catalog knows which tables.
        return None;
    }
    let if_exists = cursor.eat_all(&["if", "exists"]);
    let table = cursor.relation()?;
    let mut effects = vec![Effect::AlterTable {
        table: table.clone(),
        if_exists,
    }];
    while !cursor.at_end() {
        effects.extend(alter_table_action(cursor.take_list_item(), &table)?);
    }
    Some(effects)
}

fn alter_table_action(mut cursor: Cursor<'_>, table: &ObjectName) -> Option<Vec<Effect>> {
    let table = table.clone();
    let whole = cursor.clone();
    let effect = match cursor.word().as_deref() {
        Some("add") => {
            cursor.skip();
            let has_column_keyword = cursor.eat("column");
            let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
            if !has_column_keyword && cursor.at_constraint() {
                return references(whole);
            }
            Effect::AddColumn {
                table,
                column: cursor.identifier()?,
                if_not_exists,
            }
        }
        Some("drop") => {
            cursor.skip();
            if cursor.eat("constraint") {
                return Some(Vec::new());
            }
            cursor.eat("column");
            let if_exists = cursor.eat_all(&["if", "exists"]);
            Effect::DropColumn {
                table,
                column: cursor.identifier()?,
                if_exists,
            }
        }
        Some("alter") => {
            cursor.skip();
            if cursor.eat("constraint") {
                return Some(Vec::new());
            }
            cursor.eat("column");
            let column = cursor.identifier_or_number()?;
            cursor.eat_all(&["set", "data"]);
            if !cursor.eat("type") {
                return Some(Vec::new());
            }
            Effect::AlterColumnType { table, column }
        }
        Some("rename") => {
            cursor.skip();
            if !cursor.eat("to") {
                return Some(Vec::new());
            }
            let to = ObjectName {
                schema: table.schema.clone(),
                name: cursor.identifier()?,
            };
            Effect::RenameTable { table, to }
        }
        _ => return Some(Vec::new()),
    };
    let mut effects = vec![effect];
    effects.extend(references(whole)?);
    Some(effects)
}

fn drop_objects(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    let kind = cursor.next_word()?;
    let concurrently = cursor.eat("concurrently");
    let if_exists = cursor.eat_all(&["if", "exists"]);
    let cascade = cursor.contains("cascade");
    let one = |name: ObjectName| match kind.as_str() {
        "table" => Effect::DropTable {
            table: name,
            if_exists,
        },
        "index" => Effect::DropIndex {
            name,
            concurrently,
            if_exists,
        },
        _ => Effect::DropSchema {
            schema: name.name,
            cascade,
        },
    };
    match kind.as_str() {
        "table" | "index" | "schema" => Some(cursor.names()?.into_iter().map(one).collect()),
        "owned" | "database" => None,
        // Columns of a dropped type, defaults from a sequence: only the catalog knows which.
        _ if cascade => None,
        "view" | "type" | "domain" | "sequence" | "extension" | "function" | "procedure"
        | "routine" | "aggregate" => {
            let name = cursor.name()?;
            Some(vec![Effect::DropObject { kind, name }])
        }
        "materialized" | "foreign" => {
            let what = cursor.next_word()?;
            cursor.eat_all(&["if", "exists"]);
            let kind = format!("{kind} {what}");
            Some(vec![Effect::DropObject {
                kind,
                name: cursor.name()?,
            }])
        }
        _ => Some(Vec::new()),
    }
}

fn reindex(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    let mut concurrently = false;
    if cursor.eat_kind(TokenKind::OpenParen) {
        while !cursor.eat_kind(TokenKind::CloseParen) {
            if cursor.eat("concurrently") {
                concurrently = !cursor.eat_any(&["false", "off"]);
            } else {
                cursor.skip().then_some(())?;
            }
        }
    }
    let kind = cursor.next_word()?;
    concurrently |= cursor.eat("concurrently");
    let target = match kind.as_str() {
        "index" => ReindexTarget::Index(cursor.name()?),
        "table" => ReindexTarget::Table(cursor.name()?),
        _ => ReindexTarget::Many,
    };
    Some(vec![Effect::Reindex {
        target,
        concurrently,
    }])
}

fn truncate(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    cursor.eat("table");
    let tables = cursor.names()?;
    let effect = |table| Effect::Truncate { table };
    Some(tables.into_iter().map(effect).collect())
}

/// A `SELECT` that calls no function only reads.
fn select(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    if cursor.calls_function() {
        return None;
    }
    while !cursor.at_end() {
        if cursor.eat("into") {
            if cursor.eat_any(&["temp", "temporary"]) {
                return Some(Vec::new());
            }
            while cursor.eat_any(&["unlogged", "table"]) {}
            return Some(vec![Effect::CreateTable {
                table: cursor.name()?,
                if_not_exists: false,
            }]);
        }
        cursor.skip();
    }
    Some(Vec::new())
}

/// Every `DELETE FROM`, `UPDATE`, `MERGE` and `ON CONFLICT DO UPDATE` in a statement, at any
/// depth: a `WITH` may contain several.
fn row_changes(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    let mut effects = Vec::new();
    let mut target = None;
    let mut before = String::new();
    while !cursor.at_end() {
        let word = cursor.word().unwrap_or_default();
        cursor.skip();
        match (before.as_str(), word.as_str()) {
            ("insert" | "merge", "into") => target = Some(cursor.relation()?),
            ("delete", "from") => {
                let table = cursor.relation()?;
                effects.push(Effect::Delete { table });
            }
            ("then", "delete") => {
                let table = target.clone()?;
                effects.push(Effect::Delete { table });
            }
            ("then" | "do", "update") => {
                let table = target.clone()?;
                effects.push(Effect::Update { table });
            }
            // Row locks (FOR UPDATE, FOR NO KEY UPDATE) and a column with that name (t.update).
            ("for" | "key" | ".", "update") => {}
            (_, "update") => {
                let table = cursor.relation()?;
                effects.push(Effect::Update { table });
            }
            _ => {}
        }
        before = word;
    }
    Some(effects)
}

/// What follows the table's name in a `CREATE INDEX`: `USING btree (…) WHERE …`.
pub(crate) fn index_definition<'a>(text: &'a str, statement: &Statement) -> Option<&'a str> {
    let mut tokens = statement.tokens.iter().peekable();
    let is = |token: &Token, word: &str| token.word(text).as_deref() == Some(word);
    tokens.find(|token| is(token, "on"))?;
    tokens.next_if(|token| is(token, "only"));
    let mut last = tokens.next()?;
    while tokens
        .next_if(|token| token.kind == TokenKind::Dot)
        .is_some()
    {
        last = tokens.next()?;
    }
    Some(&text[last.range.end..statement.range.end])
}
