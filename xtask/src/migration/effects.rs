//! What a statement does to tables and indexes, read from its tokens: for the preflight, the
//! preview of a rollback and the rules about locks. Not a parser. What it does not understand it
//! calls [`Effect::Opaque`], never harmless.

use std::fmt;

use squawk_lexer::TokenKind;

use super::quote::{is_reserved, quote};
use super::sql::{self, Statement, Token};

/// A name as the server looks it up: without quotes, lowercase unless it was quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    /// `None`: whatever the search path finds first.
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// One thing that a statement does. A statement may do several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// `CREATE TABLE`, also `AS SELECT`, and `SELECT … INTO`.
    CreateTable {
        table: ObjectName,
        if_not_exists: bool,
    },
    /// Any `ALTER TABLE`, once per statement and before its actions; also the parent of a new
    /// partition, which is locked the same.
    AlterTable {
        table: ObjectName,
        if_exists: bool,
    },
    AddColumn {
        table: ObjectName,
        column: String,
        if_not_exists: bool,
    },
    DropColumn {
        table: ObjectName,
        column: String,
        if_exists: bool,
    },
    /// `ALTER COLUMN … TYPE`: may rewrite the table and shorten its values.
    AlterColumnType {
        table: ObjectName,
        column: String,
    },
    /// `ALTER TABLE … RENAME TO`.
    RenameTable {
        table: ObjectName,
        to: ObjectName,
    },
    /// A foreign key that points to this table and locks it against writes.
    References {
        table: ObjectName,
    },
    DropTable {
        table: ObjectName,
        if_exists: bool,
    },
    /// With `cascade` everything in it goes too.
    DropSchema {
        schema: String,
        cascade: bool,
    },
    CreateIndex {
        /// `None` where the server is to choose one.
        name: Option<String>,
        table: ObjectName,
        unique: bool,
        concurrently: bool,
        if_not_exists: bool,
    },
    DropIndex {
        name: ObjectName,
        concurrently: bool,
        if_exists: bool,
    },
    Reindex {
        target: ReindexTarget,
        concurrently: bool,
    },
    /// All rows go.
    Truncate {
        table: ObjectName,
    },
    /// Rows may go.
    Delete {
        table: ObjectName,
    },
    /// Values may change: `UPDATE`, `MERGE`, `ON CONFLICT DO UPDATE`.
    Update {
        table: ObjectName,
    },
    /// `DROP` of anything that is neither table, index nor schema: `view`, `type`, `function`, ….
    DropObject {
        kind: String,
        name: ObjectName,
    },
    /// Code runs that cannot be seen from here (`DO`, `CALL`, a function in a `SELECT`,
    /// `CREATE EXTENSION`, a cascade), or the statement was not understood: may do anything.
    Opaque,
    /// None of the above: comments, grants, settings, inserts, views, functions, types.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReindexTarget {
    Index(ObjectName),
    Table(ObjectName),
    /// A schema, or the whole database.
    Many,
}

impl ObjectName {
    /// Without its schema where that is the one to which names without one lead: `public.users` and
    /// `users` are one table.
    pub(crate) fn within(&self, schema: Option<&str>) -> ObjectName {
        ObjectName {
            schema: self.schema.clone().filter(|own| Some(&**own) != schema),
            name: self.name.clone(),
        }
    }

    /// Reads a name as it would be written in SQL; `None` if it is not one name.
    pub(crate) fn parse(written: &str) -> Option<ObjectName> {
        let tokens = significant(written);
        let mut cursor = Cursor::new(written, &tokens);
        let name = cursor.name()?;
        cursor.at_end().then_some(name)
    }
}

impl fmt::Display for ObjectName {
    /// As SQL: quoted where that is needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote(schema))?;
        }
        f.write_str(&quote(&self.name))
    }
}

/// The names in a list separated by commas or spaces, each as written; `None` if something in it
/// is no name.
pub(crate) fn split_names(list: &str) -> Option<Vec<String>> {
    let tokens = significant(list);
    let mut cursor = Cursor::new(list, &tokens);
    let mut names = Vec::new();
    while let Some(first) = cursor.tokens.first() {
        let rest = cursor.tokens;
        cursor.name()?;
        let last = &rest[rest.len() - cursor.tokens.len() - 1];
        names.push(list[first.range.start..last.range.end].to_owned());
        if cursor.eat_kind(TokenKind::Comma) && cursor.at_end() {
            return None;
        }
    }
    Some(names)
}

fn significant(text: &str) -> Vec<Token> {
    sql::lex(text).filter(|token| !token.is_trivia()).collect()
}

/// What a statement of `text` does; never empty.
pub(crate) fn of(text: &str, statement: &Statement) -> Vec<Effect> {
    let cursor = Cursor::new(text, &statement.tokens);
    match read(cursor) {
        Some(effects) if effects.is_empty() => vec![Effect::Other],
        Some(effects) => effects,
        None => vec![Effect::Opaque],
    }
}

/// Whether a statement says by its words alone what it destroys, where nobody can be asked: not where it
/// runs code, reaches further than it names, or names things in a way that is not followed here.
pub(crate) fn is_readable(text: &str, statement: &Statement) -> bool {
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
        // ALTER INDEX and the like rename tables too.
        Some("alter") => cursor.eat("table") || !cursor.contains("rename"),
        Some("copy" | "values" | "refresh" | "table") => false,
        // Not from a query: what that does is nobody's effect.
        Some("create") => !effects.iter().any(makes_table),
        _ => true,
    };
    readable && !reaches_further && !effects.contains(&Effect::Opaque)
}

/// Whether a statement destroys nothing, whatever it meets: it makes things, or changes rules without
/// touching a value, and runs no code. Whatever is not known to be like that may destroy something.
pub(crate) fn destroys_nothing(text: &str, statement: &Statement) -> bool {
    let mut cursor = Cursor::new(text, &statement.tokens);
    match cursor.next_word().as_deref() {
        Some("comment" | "grant" | "revoke" | "analyze" | "lock" | "savepoint" | "release") => true,
        // What an index holds is in its table.
        Some("reindex" | "vacuum") => true,
        Some("drop") => cursor.eat("index"),
        Some("set") => !cursor.contains("track_counts"),
        Some("create") => {
            cursor.eat_all(&["or", "replace"]);
            match cursor.next_word().as_deref() {
                // A default is computed when a row comes; rows come with AS.
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

/// Whether an index is one of columns, without a function.
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

/// Whether every action of an `ALTER TABLE` is one that keeps every value, and runs no code.
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
                // A type may look like a call, `numeric(3)`; what is computed comes behind.
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

/// What follows the table's name in a `CREATE INDEX`: `USING btree (…) WHERE …`.
pub(crate) fn index_definition<'a>(text: &'a str, statement: &Statement) -> Option<&'a str> {
    let mut tokens = statement
        .tokens
        .iter()
        .filter(|token| !token.is_trivia())
        .peekable();
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

/// `None` where it was not understood, an empty list where it does nothing of interest.
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
        // DO, CALL, EXECUTE, PREPARE, EXPLAIN, IMPORT, LOAD, REASSIGN, and what is yet to come.
        _ => None,
    }
}

fn create(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    cursor.eat_all(&["or", "replace"]);
    let unique = cursor.eat("unique");
    while cursor.eat_any(&[
        "global",
        "local",
        "temp",
        "temporary",
        "unlogged",
        "foreign",
    ]) {}
    match cursor.next_word()?.as_str() {
        "table" => create_table(cursor),
        "index" => create_index(cursor, unique),
        // With elements, each of them a CREATE of its own.
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
        // DROP ATTRIBUTE … CASCADE reaches into tables of that type.
        "type" => (!cursor.contains("drop")).then(Vec::new),
        "extension" | "system" => None,
        _ => Some(Vec::new()),
    }
}

fn alter_table(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    if cursor.eat("all") {
        // ALL IN TABLESPACE: tables that only the catalog knows.
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
            let said = cursor.eat("column");
            let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
            if !said && cursor.at_constraint() {
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
        // Columns of a dropped type, a sequence's defaults: only the catalog knows.
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

/// A `SELECT` without functions only reads.
fn select(mut cursor: Cursor<'_>) -> Option<Vec<Effect>> {
    if cursor.calls_function() {
        return None;
    }
    while !cursor.at_end() {
        if cursor.eat("into") {
            while cursor.eat_any(&["temp", "temporary", "unlogged", "table"]) {}
            return Some(vec![Effect::CreateTable {
                table: cursor.name()?,
                if_not_exists: false,
            }]);
        }
        cursor.skip();
    }
    Some(Vec::new())
}

/// Every `DELETE FROM`, `UPDATE`, `MERGE` and `ON CONFLICT DO UPDATE` in a statement, at whatever
/// depth: a `WITH` may hold several.
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
            // Row locks (FOR UPDATE, FOR NO KEY UPDATE) and a column of that name (t.update).
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

/// The tokens still to be read.
#[derive(Clone)]
struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Cursor { text, tokens }
    }

    fn at_end(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Passes over one token; `false` at the end.
    fn skip(&mut self) -> bool {
        let any = !self.at_end();
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        any
    }

    /// The next token in lowercase, if it is an unquoted word.
    fn word(&self) -> Option<String> {
        self.tokens.first()?.word(self.text)
    }

    fn next_word(&mut self) -> Option<String> {
        let word = self.word()?;
        self.skip();
        Some(word)
    }

    fn eat(&mut self, word: &str) -> bool {
        self.eat_all(&[word])
    }

    fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    /// Passes over these words if all of them come next, else over nothing.
    fn eat_all(&mut self, words: &[&str]) -> bool {
        let matches = words.len() <= self.tokens.len()
            && words.iter().zip(self.tokens).all(|(word, token)| {
                token.kind == TokenKind::Ident && token.text(self.text).eq_ignore_ascii_case(word)
            });
        if matches {
            self.tokens = &self.tokens[words.len()..];
        }
        matches
    }

    fn eat_kind(&mut self, kind: TokenKind) -> bool {
        let matches = self.tokens.first().is_some_and(|token| token.kind == kind);
        if matches {
            self.skip();
        }
        matches
    }

    /// Whether this unquoted word comes anywhere.
    fn contains(&self, word: &str) -> bool {
        let mut words = self.tokens.iter().filter_map(|token| token.word(self.text));
        words.any(|found| found == word)
    }

    /// Whether these unquoted words come anywhere, one after the other.
    fn contains_phrase(&self, words: &[&str]) -> bool {
        let mut ahead = self.clone();
        while !ahead.at_end() {
            if ahead.eat_all(words) {
                return true;
            }
            ahead.skip();
        }
        false
    }

    /// Whether a constraint of a table comes next, where a column could.
    fn at_constraint(&self) -> bool {
        let mut ahead = self.clone();
        match ahead.next_word().as_deref() {
            Some("constraint" | "check" | "unique" | "primary" | "foreign" | "not") => true,
            // May name a column as well.
            Some("exclude") => ahead.eat("using") || ahead.eat_kind(TokenKind::OpenParen),
            _ => false,
        }
    }

    /// Whether a word comes directly before a parenthesis that only a function's would.
    fn calls_function(&self) -> bool {
        self.tokens.windows(2).any(|pair| {
            let name = &pair[0];
            let callable = match name.kind {
                TokenKind::QuotedIdent { .. } => true,
                TokenKind::Ident => {
                    let word = name.text(self.text).to_ascii_lowercase();
                    // EXISTS (…), VALUES (…) and ROW (…) are syntax, though not reserved.
                    !is_reserved(&word) && !["exists", "row", "values"].contains(&word.as_str())
                }
                _ => false,
            };
            callable && pair[1].kind == TokenKind::OpenParen
        })
    }

    /// Takes everything up to the next comma outside of parentheses, and passes over the comma.
    fn take_list_item(&mut self) -> Cursor<'a> {
        let mut depth = 0_usize;
        let end = self.tokens.iter().position(|token| {
            match token.kind {
                TokenKind::OpenParen | TokenKind::OpenBracket => depth += 1,
                TokenKind::CloseParen | TokenKind::CloseBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.kind == TokenKind::Comma
        });
        let (item, rest) = match end {
            Some(comma) => (&self.tokens[..comma], &self.tokens[comma + 1..]),
            None => (self.tokens, &self.tokens[..0]),
        };
        self.tokens = rest;
        Cursor::new(self.text, item)
    }

    /// A name without a schema.
    fn identifier(&mut self) -> Option<String> {
        let token = self.tokens.first()?;
        let written = token.text(self.text);
        let name = match token.kind {
            TokenKind::Ident => written.to_ascii_lowercase(),
            TokenKind::QuotedIdent {
                terminated: true,
                uescape: false,
            } => written[1..written.len() - 1].replace("\"\"", "\""),
            // U&"…" spells characters by number: rare enough not to be understood.
            _ => return None,
        };
        self.skip();
        // The server cuts names to 63 bytes (NAMEDATALEN - 1).
        Some(name[..name.floor_char_boundary(63)].to_owned())
    }

    /// `ALTER INDEX`-like statements may call a column by its number.
    fn identifier_or_number(&mut self) -> Option<String> {
        if let Some(Token {
            kind: TokenKind::Literal { .. },
            ..
        }) = self.tokens.first()
        {
            let number = self.tokens[0].text(self.text).to_owned();
            self.skip();
            return Some(number);
        }
        self.identifier()
    }

    /// `name`, `schema.name`, or `database.schema.name`, whose database can only be the current.
    fn name(&mut self) -> Option<ObjectName> {
        let mut name = ObjectName {
            schema: None,
            name: self.identifier()?,
        };
        while self.eat_kind(TokenKind::Dot) {
            let next = self.identifier()?;
            name.schema = Some(std::mem::replace(&mut name.name, next));
        }
        Some(name)
    }

    /// A table with the marks for its children: `ONLY name`, `ONLY (name)`, `name *`.
    fn relation(&mut self) -> Option<ObjectName> {
        let only = self.eat("only");
        let parenthesis = only && self.eat_kind(TokenKind::OpenParen);
        let name = self.name()?;
        if parenthesis {
            self.eat_kind(TokenKind::CloseParen).then_some(())?;
        }
        self.eat_kind(TokenKind::Star);
        Some(name)
    }

    /// `a, b.c, ONLY d`.
    fn names(&mut self) -> Option<Vec<ObjectName>> {
        let mut names = vec![self.relation()?];
        while self.eat_kind(TokenKind::Comma) {
            names.push(self.relation()?);
        }
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The effects of all statements of a text, in the notation of [`note`].
    fn effects(text: &str) -> Vec<String> {
        let statements = sql::split(text).unwrap();
        let effects = statements.iter().flat_map(|statement| of(text, statement));
        effects.map(|effect| note(&effect)).collect()
    }

    fn note(effect: &Effect) -> String {
        let flags = |flags: &[(bool, &str)]| -> String {
            let set = flags.iter().filter(|flag| flag.0);
            set.map(|flag| format!(" {}", flag.1)).collect()
        };
        match effect {
            Effect::CreateTable {
                table,
                if_not_exists,
            } => {
                format!("create {table}{}", flags(&[(*if_not_exists, "ine")]))
            }
            Effect::AlterTable { table, if_exists } => {
                format!("alter {table}{}", flags(&[(*if_exists, "ie")]))
            }
            Effect::AddColumn {
                table,
                column,
                if_not_exists,
            } => {
                format!("add {table} {column}{}", flags(&[(*if_not_exists, "ine")]))
            }
            Effect::DropColumn {
                table,
                column,
                if_exists,
            } => {
                format!(
                    "drop column {table} {}{}",
                    quote(column),
                    flags(&[(*if_exists, "ie")])
                )
            }
            Effect::AlterColumnType { table, column } => format!("type {table} {column}"),
            Effect::RenameTable { table, to } => format!("rename {table} to {to}"),
            Effect::References { table } => format!("references {table}"),
            Effect::DropTable { table, if_exists } => {
                format!("drop {table}{}", flags(&[(*if_exists, "ie")]))
            }
            Effect::DropSchema { schema, cascade } => {
                format!("drop schema {schema}{}", flags(&[(*cascade, "cascade")]))
            }
            Effect::CreateIndex {
                name,
                table,
                unique,
                concurrently,
                if_not_exists,
            } => format!(
                "index {} on {table}{}",
                name.as_deref().unwrap_or("?"),
                flags(&[
                    (*unique, "unique"),
                    (*concurrently, "conc"),
                    (*if_not_exists, "ine")
                ])
            ),
            Effect::DropIndex {
                name,
                concurrently,
                if_exists,
            } => {
                format!(
                    "drop index {name}{}",
                    flags(&[(*concurrently, "conc"), (*if_exists, "ie")])
                )
            }
            Effect::Reindex {
                target,
                concurrently,
            } => {
                format!("reindex {target:?}{}", flags(&[(*concurrently, "conc")]))
            }
            Effect::Truncate { table } => format!("truncate {table}"),
            Effect::Delete { table } => format!("delete {table}"),
            Effect::Update { table } => format!("update {table}"),
            Effect::DropObject { kind, name } => format!("drop {kind} {name}"),
            Effect::Opaque => "opaque".to_owned(),
            Effect::Other => "other".to_owned(),
        }
    }

    #[test]
    fn reads_what_statements_do() {
        let table: &[(&str, &[&str])] = &[
            ("CREATE TABLE users (id int)", &["create users"]),
            (
                "create table IF NOT EXISTS App.Users ()",
                &["create app.users ine"],
            ),
            (
                "CREATE UNLOGGED TABLE \"Weird\"\"Name\" ()",
                &["create \"Weird\"\"Name\""],
            ),
            (
                "CREATE TABLE s (u int REFERENCES users, FOREIGN KEY (x) REFERENCES a.b (c))",
                &["create s", "references users", "references a.b"],
            ),
            (
                "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
                &["create p1", "alter p"],
            ),
            ("CREATE TABLE t AS SELECT f()", &["create t"]),
            (
                "ALTER TABLE users ADD COLUMN IF NOT EXISTS a timestamptz",
                &["alter users", "add users a ine"],
            ),
            (
                "ALTER TABLE users ADD a int",
                &["alter users", "add users a"],
            ),
            (
                "ALTER TABLE IF EXISTS ONLY app.users ADD a numeric(3, 2), DROP b, DROP COLUMN IF EXISTS \"C\" CASCADE",
                &[
                    "alter app.users ie",
                    "add app.users a",
                    "drop column app.users b",
                    "drop column app.users \"C\" ie",
                ],
            ),
            (
                "ALTER TABLE t * ADD COLUMN check_it int",
                &["alter t", "add t check_it"],
            ),
            (
                "ALTER TABLE t ADD COLUMN u int REFERENCES users",
                &["alter t", "add t u", "references users"],
            ),
            (
                "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (u) REFERENCES users, ADD CHECK (a > 0), ADD PRIMARY KEY (a, b), ADD EXCLUDE USING gist (c WITH &&), ADD UNIQUE (a)",
                &["alter t", "references users"],
            ),
            (
                "ALTER TABLE t ADD exclude int",
                &["alter t", "add t exclude"],
            ),
            (
                "ALTER TABLE t DROP CONSTRAINT c, DROP CONSTRAINT IF EXISTS d",
                &["alter t"],
            ),
            (
                "ALTER TABLE t ALTER a TYPE int USING (a, 1), ALTER COLUMN b SET DATA TYPE text, ALTER c SET NOT NULL, ALTER COLUMN d DROP DEFAULT",
                &["alter t", "type t a", "type t b"],
            ),
            ("ALTER TABLE t RENAME COLUMN a TO b", &["alter t"]),
            ("ALTER TABLE t RENAME a TO b", &["alter t"]),
            (
                "ALTER TABLE IF EXISTS app.t RENAME TO \"T 2\"",
                &["alter app.t ie", "rename app.t to app.\"T 2\""],
            ),
            (
                "ALTER TABLE ALL IN TABLESPACE x SET TABLESPACE y",
                &["opaque"],
            ),
            ("ALTER TABLE t DROP COLUMN U&\"\\0061\"", &["opaque"]),
            (
                "DROP TABLE IF EXISTS a, b.c, \"D\" CASCADE",
                &["drop a ie", "drop b.c ie", "drop \"D\" ie"],
            ),
            ("DROP TABLE db.public.users", &["drop public.users"]),
            (
                "DROP SCHEMA IF EXISTS a, b CASCADE",
                &["drop schema a cascade", "drop schema b cascade"],
            ),
            ("DROP VIEW v", &["drop view v"]),
            (
                "DROP MATERIALIZED VIEW IF EXISTS a.v; DROP FUNCTION f(int); DROP ROLE r",
                &["drop materialized view a.v", "drop function f", "other"],
            ),
            ("DROP TYPE t CASCADE", &["opaque"]),
            ("DROP OWNED BY x", &["opaque"]),
            (
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx ON users (a DESC NULLS LAST)",
                &["index idx on users conc ine"],
            ),
            (
                "CREATE UNIQUE INDEX ON ONLY app.users USING btree (a)",
                &["index ? on app.users unique"],
            ),
            (
                "CREATE INDEX CONCURRENTLY ON users (a)",
                &["index ? on users conc"],
            ),
            ("CREATE INDEX i users", &["opaque"]),
            (
                "DROP INDEX CONCURRENTLY IF EXISTS app.idx",
                &["drop index app.idx conc ie"],
            ),
            ("DROP INDEX a, b", &["drop index a", "drop index b"]),
            (
                "REINDEX INDEX CONCURRENTLY i; REINDEX (VERBOSE, CONCURRENTLY) TABLE t; REINDEX (CONCURRENTLY off) DATABASE",
                &[
                    "reindex Index(ObjectName { schema: None, name: \"i\" }) conc",
                    "reindex Table(ObjectName { schema: None, name: \"t\" }) conc",
                    "reindex Many",
                ],
            ),
            (
                "TRUNCATE a, ONLY b *; TRUNCATE TABLE c CASCADE",
                &["truncate a", "truncate b", "truncate c"],
            ),
            ("DELETE FROM ONLY (users) WHERE true", &["delete users"]),
            ("DELETE FROM users * u", &["delete users"]),
            ("UPDATE users AS u SET a = 1", &["update users"]),
            ("INSERT INTO t SELECT * FROM u FOR UPDATE", &["other"]),
            (
                "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1",
                &["update t"],
            ),
            (
                "WITH a AS (DELETE FROM x RETURNING *), b AS (UPDATE y SET a = 1) SELECT * FROM a FOR NO KEY UPDATE",
                &["delete x", "update y"],
            ),
            (
                "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING",
                &["delete t"],
            ),
            (
                "SELECT 1; SELECT a FROM b WHERE c IN (1) AND EXISTS (SELECT 1)",
                &["other", "other"],
            ),
            ("SELECT * INTO TEMP x FROM y", &["create x"]),
            ("SELECT pg_catalog.set_config('a', 'b', false)", &["opaque"]),
            ("SELECT \"F\"(1)", &["opaque"]),
            (
                "WITH a AS (SELECT f()) SELECT 1; WITH a AS (SELECT 1) SELECT 1",
                &["opaque", "other"],
            ),
            (
                "DO $$ $$; CALL p(); EXECUTE x; CREATE EXTENSION y; EXPLAIN ANALYZE DELETE FROM t",
                &["opaque"; 5],
            ),
            (
                "COMMENT ON TABLE t IS 'x'; GRANT SELECT ON t TO u; SET a = b",
                &["other"; 3],
            ),
            (
                "CREATE SCHEMA s; CREATE SCHEMA s CREATE TABLE t ()",
                &["other", "opaque"],
            ),
            ("CREATE OR REPLACE VIEW v AS SELECT f()", &["other"]),
            ("nonsense; 1; (SELECT 1)", &["opaque"; 3]),
        ];
        for (text, expected) in table {
            assert_eq!(effects(text), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_called_harmless_makes_things_and_runs_no_code() {
        let harmless = [
            "CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now(), CHECK (id > 0))",
            "CREATE UNLOGGED TABLE t (a int GENERATED ALWAYS AS IDENTITY)",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS a numeric(3, 2) DEFAULT 3, ADD b varchar(80)",
            "ALTER TABLE t ALTER COLUMN a SET DEFAULT now()",
            "CREATE INDEX IF NOT EXISTS i ON s.t USING gin (a, b) WHERE a > 3",
            "ALTER TABLE t ALTER a SET NOT NULL, ALTER COLUMN b DROP DEFAULT, DROP CONSTRAINT c",
            "ALTER TABLE t RENAME TO u",
            "CREATE UNIQUE INDEX ON t (a)",
            "DROP INDEX CONCURRENTLY i",
            "REINDEX TABLE t",
            "COMMENT ON TABLE t IS 'x'",
            "SET LOCAL lock_timeout = 100",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t'",
        ];
        let doubtful = [
            "CREATE TABLE t AS SELECT f()",
            "CREATE TABLE t AS TABLE u",
            "CREATE TABLE t AS EXECUTE p",
            "ALTER TABLE t ADD COLUMN a uuid DEFAULT gen_random_uuid()",
            "ALTER TABLE t ADD a int GENERATED ALWAYS AS (b + 1) STORED",
            "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)",
            "ALTER TABLE t ADD COLUMN a int, DROP COLUMN b",
            "ALTER TABLE t ALTER a TYPE int",
            "ALTER TABLE t DROP CONSTRAINT c CASCADE",
            "ALTER TABLE t SET UNLOGGED",
            "ALTER TYPE t DROP ATTRIBUTE a CASCADE",
            "CREATE INDEX ON t (f(a))",
            "CREATE SCHEMA s CREATE TABLE t ()",
            "CREATE EXTENSION e",
            "SET track_counts = off",
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "TRUNCATE t",
            "DROP TABLE t",
            "DROP VIEW v",
            "SELECT 1",
            "DO $$ $$",
            "REFRESH MATERIALIZED VIEW v",
            "COPY t FROM '/file'",
            "nonsense",
        ];
        for (texts, expected) in [(&harmless[..], true), (&doubtful[..], false)] {
            for text in texts {
                let statements = sql::split(text).unwrap();
                assert_eq!(destroys_nothing(text, &statements[0]), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_reaches_further_than_its_words_is_not_readable() {
        for (text, expected) in [
            ("DELETE FROM t WHERE a > 3", true),
            ("DROP TABLE t", true),
            ("ALTER TABLE t DROP COLUMN a", true),
            ("CREATE INDEX CONCURRENTLY i ON t (a)", true),
            ("SET search_path = x", true),
            ("SELECT 1", true),
            ("BEGIN", true),
            ("TRUNCATE t CASCADE", false),
            ("DROP TABLE t CASCADE", false),
            ("ALTER TABLE t SET SCHEMA x", false),
            ("ALTER SCHEMA x RENAME TO y", false),
            ("ALTER INDEX t RENAME TO u", false),
            ("ALTER INDEX i ATTACH PARTITION j", true),
            (
                "CREATE TABLE u AS WITH d AS (DELETE FROM t RETURNING a) SELECT a FROM d",
                false,
            ),
            ("COPY (DELETE FROM t RETURNING *) TO STDOUT", false),
            ("VALUES (f())", false),
            ("UPDATE t SET a = f(a)", false),
            ("REFRESH MATERIALIZED VIEW v", false),
            ("DO $$ $$", false),
        ] {
            let statements = sql::split(text).unwrap();
            assert_eq!(is_readable(text, &statements[0]), expected, "{text}");
        }
    }

    #[test]
    fn names_are_looked_up_as_the_server_does() {
        let table = [
            ("Users", Some((None, "users"))),
            ("\"Users\"", Some((None, "Users"))),
            ("App . \"a\"\"b\"", Some((Some("app"), "a\"b"))),
            ("ÄB", Some((None, "Äb"))),
            ("", None),
            ("a b", None),
            ("a.", None),
            ("\"a", None),
            ("1", None),
        ];
        for (written, expected) in table {
            let expected = expected.map(|(schema, name): (Option<&str>, &str)| ObjectName {
                schema: schema.map(str::to_owned),
                name: name.to_owned(),
            });
            assert_eq!(ObjectName::parse(written), expected, "{written}");
        }
        let long = "x".repeat(100);
        assert_eq!(ObjectName::parse(&long).unwrap().name.len(), 63);
    }

    #[test]
    fn a_name_is_read_back_as_it_was_shown() {
        for name in ["users", "user", "_a1", "1a", "A", "a b", "a\"b", "ä", ""] {
            let name = ObjectName {
                schema: None,
                name: name.to_owned(),
            };
            assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn lists_of_names_are_split_as_written() {
        let table: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&[])),
            ("users", Some(&["users"])),
            ("users sessions", Some(&["users", "sessions"])),
            (
                "Users, app.\"A, b\",c",
                Some(&["Users", "app.\"A, b\"", "c"]),
            ),
            ("users,", None),
            (",users", None),
            ("users;", None),
            ("\"users", None),
            ("users (all)", None),
        ];
        for (list, expected) in table {
            let expected =
                expected.map(|names| names.iter().map(|&name| name.to_owned()).collect());
            assert_eq!(split_names(list), expected, "{list}");
        }
    }

    #[test]
    fn any_soup_of_tokens_is_read_without_panic() {
        const WORDS: &str = "\
            ALTER TABLE CREATE DROP INDEX CONCURRENTLY IF NOT EXISTS ON ONLY ADD COLUMN TYPE SET \
            DELETE FROM UPDATE MERGE INTO THEN DO WITH SELECT REINDEX TRUNCATE CASCADE PARTITION \
            OF REFERENCES FUNCTION BEGIN END CASE OR REPLACE users";
        const MARKS: &str =
            r#"" "U" U&"x" '' ' E' $$ $a$ . , ( ) [ ] * : :: := {? 1 1e 0x $1 é \ -- /* */ ;"#;
        let words: Vec<&str> = [WORDS, MARKS, "\u{feff}"]
            .iter()
            .flat_map(|words| words.split(' '))
            .chain(["\n"])
            .collect();
        // xorshift: the same soup in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut split_well = 0;
        for _ in 0..20_000 {
            let length = 1 + random(12);
            let glue = if random(4) == 0 { "" } else { " " };
            let soup: Vec<&str> = (0..length).map(|_| words[random(words.len())]).collect();
            let soup = soup.join(glue);
            ObjectName::parse(&soup);
            split_names(&soup);
            let Ok(statements) = sql::split(&soup) else {
                continue;
            };
            split_well += 1;
            let fed = sql::for_psql(&soup, &statements);
            assert!(fed.lines().count() >= soup.lines().count(), "{soup}");
            for statement in &statements {
                assert!(!of(&soup, statement).is_empty(), "{soup}");
            }
        }
        assert!(split_well > 5_000, "{split_well}");
    }
}
