//! Where a script looks up names without a schema, if it says so itself.

use squawk_lexer::TokenKind;

use super::cursor::{Cursor, significant};
use crate::migration::script::Script;
use crate::migration::sql::Statement;

/// What a statement makes the search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SearchPath {
    /// These schemas, in this order.
    Schemas(Vec<String>),
    /// What it was when the session began.
    Default,
    /// Only the session knows.
    Computed,
}

impl SearchPath {
    /// `None` if the statement does not set it, as far as its text says.
    pub(crate) fn set_by(script: &Script, statement: &Statement) -> Option<SearchPath> {
        let mut cursor = Cursor::new(&script.text, &statement.tokens);
        match cursor.next_word()?.as_str() {
            "set" => {
                cursor.eat_any(&["session", "local"]);
                match cursor.next_word()?.as_str() {
                    "schema" => {}
                    "search_path" => {
                        if !cursor.eat("to") {
                            cursor.eat_kind(TokenKind::Eq);
                        }
                    }
                    _ => return None,
                }
                Some(schemas(cursor))
            }
            "reset" => {
                let is_path = cursor.eat_any(&["search_path", "all"]);
                is_path.then_some(SearchPath::Default)
            }
            "select" | "do" | "call" => {
                let text = statement.text(&script.text).to_ascii_lowercase();
                let may_set_it = text.contains("search_path");
                may_set_it.then(|| set_config(cursor).unwrap_or(SearchPath::Computed))
            }
            _ => None,
        }
    }
}

/// `pg_catalog.set_config('search_path', 'a, b', …)`, as pg_dump writes it.
fn set_config(mut call: Cursor<'_>) -> Option<SearchPath> {
    if call.eat("pg_catalog") {
        call.eat_kind(TokenKind::Dot).then_some(())?;
    }
    call.eat("set_config").then_some(())?;
    let mut arguments = call.take_parenthesized()?;
    let mut string = || arguments.take_list_item().string();
    let (name, value) = (string()?, string()?);
    let is_path = call.at_end() && name.eq_ignore_ascii_case("search_path");
    is_path.then(|| value_of(&value))
}

fn value_of(value: &str) -> SearchPath {
    let tokens = significant(value);
    schemas(Cursor::new(value, &tokens))
}

fn schemas(mut list: Cursor<'_>) -> SearchPath {
    if list.eat("default") {
        return SearchPath::Default;
    }
    let mut schemas = Vec::new();
    while !list.at_end() {
        let mut item = list.take_list_item();
        match item.identifier().or_else(|| item.string()) {
            Some(schema) if item.at_end() => schemas.push(schema),
            _ => return SearchPath::Computed,
        }
    }
    SearchPath::Schemas(schemas)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::migration::script::Role;

    #[test]
    fn a_search_path_is_read_from_the_statement_that_sets_it() {
        let schemas = |names: &[&str]| {
            Some(SearchPath::Schemas(
                names.iter().map(|&name| name.to_owned()).collect(),
            ))
        };
        for (text, expected) in [
            ("SET search_path = a, \"B\", 'c'", schemas(&["a", "B", "c"])),
            ("SET LOCAL search_path TO public", schemas(&["public"])),
            ("SET SESSION search_path = ''", schemas(&[""])),
            ("SET SCHEMA 'a'", schemas(&["a"])),
            ("SET search_path TO DEFAULT", Some(SearchPath::Default)),
            ("RESET search_path", Some(SearchPath::Default)),
            ("RESET ALL", Some(SearchPath::Default)),
            ("SET search_path = E'a'", Some(SearchPath::Computed)),
            (
                "SELECT pg_catalog.set_config('search_path', '', false)",
                schemas(&[]),
            ),
            (
                "SELECT set_config('search_path', 'a, \"B\"', true)",
                schemas(&["a", "B"]),
            ),
            (
                "SELECT set_config('search_path', current_setting('x'), true)",
                Some(SearchPath::Computed),
            ),
            (
                "DO $$ BEGIN PERFORM set_config('search_path', 'a', true); END $$",
                Some(SearchPath::Computed),
            ),
            ("SET CONSTRAINTS ALL IMMEDIATE", None),
            ("SET lock_timeout = 1", None),
            (
                "CREATE FUNCTION f() RETURNS int SET search_path = a LANGUAGE sql AS ''",
                None,
            ),
        ] {
            let script = Script::parse(Path::new("a.sql"), text.into(), Role::Up).expect("parses");
            let found = SearchPath::set_by(&script, &script.statements[0]);
            assert_eq!(found, expected, "{text}");
        }
    }
}
