use std::borrow::Cow;

use super::*;

fn statements(text: &str) -> Vec<&str> {
    let statements = split(text).unwrap();
    statements.iter().map(|one| one.text(text)).collect()
}

fn fed(text: &str) -> Cow<'_, str> {
    for_psql(text, &split(text).unwrap())
}

#[test]
fn splits_where_psql_does() {
    let atomic = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql \
                  BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END";
    let schema = "CREATE TABLE t (a int DEFAULT (1), CHECK (a > ';'::text::int))";
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("-- nothing\n/* at all */ ;;\n", &[]),
        ("SELECT 1", &["SELECT 1"]),
        ("SELECT 1; ; SELECT 2 ;", &["SELECT 1", "SELECT 2"]),
        ("a; -- b; c\n/* ; /* ; */ ; */ d;", &["a", "d"]),
        ("/* x */ a /* y */ -- z\n;", &["a"]),
        (
            "SELECT ';', E'\\';', U&';', \";\", B'0', X'0'; b",
            &["SELECT ';', E'\\';', U&';', \";\", B'0', X'0'", "b"],
        ),
        ("SELECT 'it''s;'; b", &["SELECT 'it''s;'", "b"]),
        ("SELECT '\\'; b", &["SELECT '\\'", "b"]),
        ("DO $$ a; $x$ ; $$; b", &["DO $$ a; $x$ ; $$", "b"]),
        ("DO $é$ $é ; $$ $é$; b", &["DO $é$ $é ; $$ $é$", "b"]),
        ("SELECT a$b$;c$b$", &["SELECT a$b$", "c$b$"]),
        ("SELECT $1; b", &["SELECT $1", "b"]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (a; b); c",
            &["CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"],
        ),
        ("a); b", &["a)", "b"]),
        (atomic, &[atomic]),
        (schema, &[schema]),
        (
            "CREATE TABLE begin (a int); b",
            &["CREATE TABLE begin (a int)", "b"],
        ),
        (
            "BEGIN; END; BEGIN; COMMIT",
            &["BEGIN", "END", "BEGIN", "COMMIT"],
        ),
        ("SELECT E'a'\n'b;'; c", &["SELECT E'a'\n'b;'", "c"]),
        ("a;\r\nb;\r\n", &["a", "b"]),
    ];
    for (text, expected) in table {
        assert_eq!(statements(text), *expected, "{text}");
    }
    let both = format!("{atomic};\nSELECT 1;");
    assert_eq!(statements(&both), [atomic, "SELECT 1"]);
}

#[test]
fn knows_where_a_statement_stands() {
    let text = "-- a\n/* b */ c /* d */;\n-- e\nf";
    let statements = split(text).unwrap();
    let facts: Vec<_> = statements
        .iter()
        .map(|one| (one.range.clone(), one.sent_from, one.terminated))
        .collect();
    assert_eq!(facts, [(13..14, 5, true), (29..30, 29, false)]);
}

#[test]
fn refuses_what_psql_would_not_send() {
    let table = [
        (r"\echo hi", 0, r"`\echo` is a command of psql"),
        ("SELECT 1 \\gexec\n", 9, r"`\gexec` is a command of psql"),
        ("SELECT 1\\;SELECT 2;", 8, "`\\;SELECT` is a command"),
        (
            "a; COPY t FROM STDIN;\nit's\n\\.\n",
            3,
            "`COPY … FROM STDIN` needs rows",
        ),
        ("\\restrict abc\n", 0, r"`\restrict` is a command"),
        ("a; SELECT 'x;\n", 10, "the string opened here"),
        ("a; SELECT E'x\\'", 10, "the string opened here"),
        ("a; SELECT U&'x", 10, "the string opened here"),
        ("a; SELECT N'x", 10, "the string opened here"),
        ("a; SELECT B'x", 10, "the string opened here"),
        ("a; SELECT \"x", 10, "the quoted identifier opened here"),
        ("DO $do$ x $$", 3, "the dollar-quoted string opened here"),
        ("a /* /* */", 2, "the block comment opened here"),
        ("a; f((1); b;", 4, "the `(` opened here"),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; ",
            32,
            "the `BEGIN` opened here",
        ),
        ("a; SELECT 1e$$ $$", 10, "nothing separates the number `1e`"),
        ("SELECT 0x1$a$ $a$", 7, "nothing separates the number `0x1`"),
        ("SELECT E'a' -- b\n 'c\\'d'", 18, "psql reads the backslash"),
        ("SELECT E'a'\n'b'\n'c\\'d'", 16, "psql reads the backslash"),
    ];
    for (text, at, what) in table {
        let error = split(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {}", error.what);
        assert!(error.what.starts_with(what), "{text}: {}", error.what);
        assert!(!error.hint.is_empty(), "{text}");
    }
    let hint = split("DO $do$ x").unwrap_err().hint;
    assert_eq!(hint, "add the missing `$do$`");
}

#[test]
fn leaves_backslashes_inside_quotes_alone() {
    for text in [
        r"SELECT '\echo'",
        r"SELECT E'\n', E'a' '\'",
        r#"SELECT "\x", $$\d$$ -- \i"#,
        r"/* \q */ SELECT 1",
        "SELECT E'a', b\n'\\'",
    ] {
        assert!(split(text).is_ok(), "{text}");
    }
}

#[test]
fn feeds_psql_the_same_sql() {
    let table = [
        ("SELECT 1;\n", "SELECT 1;\n"),
        ("", ""),
        ("-- only a comment", "-- only a comment\n"),
        ("SELECT 1;", "SELECT 1;\n"),
        ("SELECT 1", "SELECT 1\n;\n"),
        ("SELECT 1 -- end", "SELECT 1 -- end\n;\n"),
        ("SELECT 1\n", "SELECT 1\n;\n"),
        ("SELECT a[1:two];\n", "SELECT a[1\\:two];\n"),
        ("SELECT a[1:2];\n", "SELECT a[1\\:2];\n"),
        ("SELECT a[1 : two];\n", "SELECT a[1 : two];\n"),
        (
            "SELECT a[x:'1'], b[x:\"y\"], c:{d;\n",
            "SELECT a[x\\:'1'], b[x\\:\"y\"], c\\:{d;\n",
        ),
        ("SELECT a[:é];\n", "SELECT a[\\:é];\n"),
        (
            "SELECT a::int, f(b := 1), f(b:=c);\n",
            "SELECT a::int, f(b := 1), f(b:=c);\n",
        ),
        ("SELECT a:::b, a::::b;\n", "SELECT a::\\:b, a::::b;\n"),
        (
            "SELECT ':a', \":b\", $$:c$$ -- :d\n/* :e */;\n",
            "SELECT ':a', \":b\", $$:c$$ -- :d\n/* :e */;\n",
        ),
        ("a\n\n\nb;\n", "a\n \n \nb;\n"),
        ("'\n\n' $$\n\n$$ /*\n\n*/;\n", "'\n\n' $$\n\n$$ /*\n\n*/;\n"),
        ("a\r\n\r\nb;\r\n", "a\r\n\r\nb;\r\n"),
    ];
    for (text, expected) in table {
        assert_eq!(fed(text), expected, "{text}");
    }
    assert!(matches!(fed("SELECT a::int;\n"), Cow::Borrowed(_)));
}

#[test]
fn position_counts_characters_from_one() {
    let text = "aé\nüb\r\nc";
    let table = [
        (0, (1, 1)),
        (1, (1, 2)),
        (2, (1, 2)),
        (3, (1, 3)),
        (4, (2, 1)),
        (6, (2, 2)),
    ];
    for (byte, expected) in table {
        assert_eq!(position(text, byte), expected, "{byte}");
    }
    assert_eq!(position(text, text.len()), (3, 2));
    assert_eq!(position(text, 1000), (3, 2));
}
