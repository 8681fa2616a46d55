use super::*;
use crate::migration::quote::quote_if_needed;
use crate::migration::sql;

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
                quote_if_needed(column),
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
        ("SELECT * INTO TEMP x FROM y", &["other"]),
        ("CREATE TEMP TABLE x (a int)", &["other"]),
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
fn what_reaches_further_than_its_words_is_not_shown() {
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
        assert_eq!(
            shows_what_it_destroys(text, &statements[0]),
            expected,
            "{text}"
        );
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
        let expected = expected.map(|names| names.iter().map(|&name| name.to_owned()).collect());
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
