//! What an index is, as far as its text says: how a migration writes it and what `pg_get_indexdef` says are
//! compared by it, and the server need not be asked.

use squawk_lexer::TokenKind;

use super::cursor::{Cursor, significant};

/// What of an index can be told from its text. Of expressions and predicates cannot: there are many ways to
/// write each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IndexShape {
    unique: bool,
    method: String,
    keys: Vec<Key>,
    included: Vec<Key>,
    nulls_not_distinct: bool,
    partial: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    /// `None` for an expression.
    column: Option<String>,
    /// Whether a collation or an operator class is written. PostgreSQL writes those that are not the default.
    has_class: bool,
    descending: bool,
    nulls_first: bool,
}

impl IndexShape {
    /// Of what follows the table's name in a `CREATE INDEX`: `USING btree (…) WHERE …`. `None` if it is not
    /// understood.
    pub(crate) fn parse(unique: bool, definition: &str) -> Option<IndexShape> {
        let tokens = significant(definition);
        let mut rest = Cursor::new(definition, &tokens);
        let method = match rest.eat("using") {
            true => rest.identifier()?,
            false => "btree".to_owned(),
        };
        // The server takes this name for that of the method that has replaced it (`indexcmds.c`).
        let method = match method.as_str() {
            "rtree" => "gist".to_owned(),
            _ => method,
        };
        let keys = keys(rest.take_parenthesized()?);
        let included = match rest.eat("include") {
            true => self::keys(rest.take_parenthesized()?),
            false => Vec::new(),
        };
        Some(IndexShape {
            unique,
            method,
            keys,
            included,
            nulls_not_distinct: rest.eat_all(&["nulls", "not", "distinct"]),
            partial: rest.contains("where"),
        })
    }

    /// Whether the index that is `there`, in PostgreSQL's own words, is certainly another one.
    pub(crate) fn differs(&self, there: &IndexShape) -> bool {
        let shape = |of: &IndexShape| (of.unique, of.method.clone(), of.nulls_not_distinct);
        let lists = [(&self.keys, &there.keys), (&self.included, &there.included)];
        shape(self) != shape(there)
            // The other way round, PostgreSQL may have found its condition always true.
            || there.partial && !self.partial
            || lists.into_iter().any(|(ours, theirs)| {
                ours.len() != theirs.len() || ours.iter().zip(theirs).any(|(a, b)| a.differs(b))
            })
    }

    /// What `pg_get_indexdef` says of it after `USING`, without quotes, as a pattern for `LIKE`.
    pub(crate) fn pattern(&self) -> String {
        let list = |keys: &[Key]| keys.iter().map(Key::pattern).collect::<Vec<_>>().join(", ");
        let mut pattern = format!("{} ({})", self.method, list(&self.keys));
        if !self.included.is_empty() {
            pattern += &format!(" INCLUDE ({})", list(&self.included));
        }
        if self.nulls_not_distinct {
            pattern += " NULLS NOT DISTINCT";
        }
        if self.partial {
            pattern += "% WHERE %";
        }
        pattern
    }
}

fn keys(mut list: Cursor<'_>) -> Vec<Key> {
    let mut keys = Vec::new();
    while !list.at_end() {
        keys.push(Key::of(list.take_list_item()));
    }
    keys
}

impl Key {
    fn of(mut written: Cursor<'_>) -> Key {
        let descending = written.contains("desc");
        // As DESC has it, unless it is written.
        let nulls_first = written.contains_phrase(&["nulls", "first"])
            || descending && !written.contains_phrase(&["nulls", "last"]);
        let column = column(&mut written);
        // What is left is a collation, an operator class, or the order.
        let has_class = written
            .word()
            .is_none_or(|word| !["asc", "desc", "nulls"].contains(&word.as_str()));
        Key {
            has_class: has_class && !written.at_end(),
            column,
            descending,
            nulls_first,
        }
    }

    fn pattern(&self) -> String {
        // PostgreSQL does not write a class that is the default.
        let class = if self.has_class { "%" } else { "" };
        let order = match (self.descending, self.nulls_first) {
            (false, false) => "",
            (false, true) => " NULLS FIRST",
            (true, true) => " DESC",
            (true, false) => " DESC NULLS LAST",
        };
        match &self.column {
            Some(column) => format!("{column}{class}{order}"),
            None => format!("%{order}"),
        }
    }

    fn differs(&self, there: &Key) -> bool {
        let order = |key: &Key| (key.descending, key.nulls_first);
        let both_columns = self.column.is_some() && there.column.is_some();
        order(self) != order(there)
            || self.column.is_some() && self.column != there.column
            || both_columns && there.has_class && !self.has_class
    }
}

/// A column, also in parentheses; `None` for an expression.
fn column(written: &mut Cursor<'_>) -> Option<String> {
    let mut ahead = written.clone();
    let column = match ahead.take_parenthesized() {
        Some(mut inside) => inside.identifier().filter(|_| inside.at_end()),
        None => ahead
            .identifier()
            .filter(|_| !ahead.at_kind(TokenKind::OpenParen) && !ahead.at_kind(TokenKind::Dot)),
    };
    if column.is_some() {
        *written = ahead;
    }
    column
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_get_indexdef_shows_is_known_of_plain_columns_only() {
        for (written, pattern) in [
            ("(a)", "btree (a)"),
            ("(a ASC)", "btree (a)"),
            ("(a NULLS LAST)", "btree (a)"),
            ("(a asc nulls first)", "btree (a NULLS FIRST)"),
            ("(a DESC)", "btree (a DESC)"),
            ("(a DESC NULLS FIRST)", "btree (a DESC)"),
            ("(\"A b\" DESC NULLS LAST)", "btree (A b DESC NULLS LAST)"),
            ("(a text_ops, b)", "btree (a%, b)"),
            ("(a COLLATE \"C\" desc)", "btree (a% DESC)"),
            ("(lower(a) desc, (b))", "btree (% DESC, b)"),
            ("using gin (a) include (b)", "gin (a) INCLUDE (b)"),
            ("(a) nulls not distinct", "btree (a) NULLS NOT DISTINCT"),
            ("(a) where b > 0", "btree (a)% WHERE %"),
        ] {
            let shape = IndexShape::parse(false, written).expect("parses");
            assert_eq!(shape.pattern(), pattern, "{written}");
        }
    }

    #[test]
    fn what_is_certainly_another_index_is_told() {
        let same = [
            ("(a)", "USING btree (a)"),
            ("( A ,\"B\")", "USING btree (a, \"B\")"),
            ("(a ASC NULLS LAST)", "USING btree (a)"),
            ("(a DESC NULLS FIRST)", "USING btree (a DESC)"),
            ("(a desc nulls last)", "USING btree (a DESC NULLS LAST)"),
            // Expressions are not compared.
            ("(lower(a), b)", "USING btree (lower((a)::text), b)"),
            ("((a))", "USING btree (a)"),
            ("(( (a) ))", "USING btree (a)"),
            ("(a int4_ops)", "USING btree (a)"),
            ("(public.f(a))", "USING btree (f(a))"),
            ("(b, pg_catalog.lower(a))", "USING btree (b, lower(a))"),
            ("(a COLLATE \"C\")", "USING btree (a)"),
            ("(a) WHERE true", "USING btree (a)"),
            ("(a) NULLS DISTINCT", "USING btree (a)"),
            ("(a text_pattern_ops)", "USING btree (a)"),
            ("(a) WHERE b IS NULL", "USING btree (a) WHERE (b IS NULL)"),
            ("USING GIN (a)", "USING gin (a)"),
            ("USING rtree (a)", "USING gist (a)"),
            ("(a) INCLUDE (b)", "USING btree (a) INCLUDE (b)"),
            (
                "(a) WITH (fillfactor = 70)",
                "USING btree (a) WITH (fillfactor='70')",
            ),
        ];
        let different = [
            ("(a)", "USING btree (b)"),
            ("(a, b)", "USING btree (a)"),
            ("(a, b)", "USING btree (b, a)"),
            ("(a DESC)", "USING btree (a)"),
            ("(a DESC NULLS LAST)", "USING btree (a DESC)"),
            ("(lower(a) DESC)", "USING btree (lower(a))"),
            ("(a)", "USING btree (lower(a))"),
            ("((a))", "USING btree (b)"),
            ("(a)", "USING btree (a text_pattern_ops)"),
            ("(a DESC)", "USING btree (a COLLATE \"C\" DESC)"),
            ("(a)", "USING btree (a) WHERE (b > 0)"),
            ("(a)", "USING btree (a) NULLS NOT DISTINCT"),
            ("(a) NULLS NOT DISTINCT", "USING btree (a)"),
            ("(a)", "USING hash (a)"),
            ("(a)", "USING btree (a) INCLUDE (b)"),
            ("(\"A\")", "USING btree (a)"),
        ];
        let differ = |written: &str, there: &str| {
            let shape = |text| IndexShape::parse(false, text).expect("parses");
            shape(written).differs(&shape(there))
        };
        for (written, there) in same {
            assert!(!differ(written, there), "{written}: {there}");
        }
        for (written, there) in different {
            assert!(differ(written, there), "{written}: {there}");
        }
        let unique = |unique| IndexShape::parse(unique, "(a)").expect("parses");
        assert!(unique(true).differs(&unique(false)));
        assert_eq!(IndexShape::parse(false, "a, b"), None);
        assert_eq!(IndexShape::parse(false, "(a"), None);
    }
}
