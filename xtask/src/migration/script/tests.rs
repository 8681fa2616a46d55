use super::directives::suggestion;
use super::*;

fn parse(text: impl AsRef<[u8]>, role: Role) -> Result<Script, Vec<String>> {
    Script::parse(Path::new("m/1_a.up.sql"), text.as_ref().to_vec(), role)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn problems(text: impl AsRef<[u8]>, role: Role) -> Vec<String> {
    parse(text, role).map(|_| ()).err().unwrap_or_default()
}

#[test]
fn the_first_line_decides_about_the_transaction() {
    let table = [
        ("SELECT 1;", true),
        ("-- no-transaction\nSELECT 1;", false),
        ("-- no-transaction\r\nSELECT 1;", false),
        ("-- no-transaction", false),
        ("-- no-transaction needed? no.\n", false),
        ("-- about no-transaction\nSELECT 1;", true),
        (
            "\n-- why no-transaction would be wrong here\nSELECT 1;",
            true,
        ),
    ];
    for (text, transactional) in table {
        match parse(text, Role::Up) {
            Ok(script) => assert_eq!(script.transactional, transactional, "{text}"),
            Err(problems) => {
                assert!(text.contains("needed?"), "{problems:?}");
                assert_eq!(
                    problems,
                    [
                        "m/1_a.up.sql:1:1: sqlx takes the first line `-- no-transaction needed? no.` for `-- no-transaction`"
                    ]
                );
            }
        }
    }
}

#[test]
fn a_first_line_that_only_looks_like_it_is_refused() {
    let table = [
        ("-- no-transactions\n", "1:1: sqlx takes"),
        ("-- no-transaction \n", "1:1: sqlx takes"),
        (
            "\n-- no-transaction\nSELECT 1;",
            "2:1: `-- no-transaction` has no effect",
        ),
        (
            " -- no-transaction\nSELECT 1;",
            "1:2: `-- no-transaction` has no effect",
        ),
        (
            "--no-transaction\nSELECT 1;",
            "1:1: `--no-transaction` has no effect",
        ),
        (
            "-- No Transaction\nSELECT 1;",
            "1:1: `-- No Transaction` has no effect",
        ),
        (
            "SELECT 1;\n-- no-transaction\n",
            "2:1: `-- no-transaction` has no effect",
        ),
    ];
    for (text, expected) in table {
        let found = problems(text, Role::Up);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let expected = format!("m/1_a.up.sql:{expected}");
        assert!(found[0].starts_with(&expected), "{text}: {found:?}");
    }
}

#[test]
fn directives_are_read_from_the_head() {
    let text = "-- no-transaction\n\n-- xtask: backup users, App.\"E v\"\n/* why */\n\
                --xtask:backup sessions\r\n-- xtask: baseline\nSELECT 1;\n-- xtasks: prose\n";
    let script = parse(text, Role::Up).unwrap();
    assert_eq!(
        script.directives.backup,
        ["users", "App.\"E v\"", "sessions"]
    );
    assert!(script.directives.baseline);
    let lossless = "-- no-transaction\n-- xtask: lossless\nCALL p();";
    assert!(parse(lossless, Role::Down).unwrap().directives.lossless);
    let down = parse("-- xtask: backup users\n", Role::Down).unwrap();
    assert_eq!(down.directives.backup, ["users"]);
    let prose = parse("-- xtask makes a backup first\nSELECT 1;", Role::Up).unwrap();
    assert_eq!(prose.directives, Directives::default());
}

#[test]
fn doubtful_directives_are_refused_with_their_place() {
    let table = [
        (
            Role::Up,
            "-- a\n-- xtask: bakcup users\n",
            "2:1: unknown directive `bakcup`",
        ),
        (
            Role::Up,
            "-- xtask: Backup users\n",
            "1:1: unknown directive `Backup`",
        ),
        (
            Role::Up,
            "-- xtask: baseline,\n",
            "1:1: unknown directive `baseline,`",
        ),
        (Role::Up, "-- xtask:\n", "1:1: unknown directive ``"),
        (
            Role::Up,
            "-- xtask: backup\n",
            "1:1: the directive `backup` names no table",
        ),
        (
            Role::Up,
            "-- xtask: backup users;\n",
            "1:1: `users;` is not a list of table names",
        ),
        (
            Role::Up,
            "-- xtask: baseline now\n",
            "1:1: the directive `baseline` takes nothing",
        ),
        (
            Role::Down,
            "-- xtask: lossless\nDO $$ $$;",
            "1:1: the directive `lossless` has no effect",
        ),
        (
            Role::Up,
            "-- no-transaction\n-- xtask: lossless, really\nCALL p();",
            "2:1: unknown directive `lossless,`",
        ),
        (
            Role::Down,
            "-- xtask: baseline\n",
            "1:1: a down file cannot be a baseline",
        ),
        (
            Role::Up,
            "-- Xtask: backup users\n",
            "1:1: `-- Xtask: backup users` is not read",
        ),
        (
            Role::Up,
            "-- xtask backup users\n",
            "1:1: `-- xtask backup users` is not read",
        ),
        (
            Role::Up,
            "/* xtask: backup users */\n",
            "1:1: a directive in a block comment",
        ),
        (
            Role::Up,
            "SELECT 1; -- xtask: backup users\n",
            "1:11: the directive `backup users` stands after the first SQL",
        ),
        (
            Role::Verify,
            "-- xtask: backup users\nSELECT 1;",
            "1:1: a verify file takes no",
        ),
        (
            Role::Verify,
            "-- no-transaction\nSELECT 1;",
            "1:1: `-- no-transaction` has no effect",
        ),
    ];
    for (role, text, expected) in table {
        let found = problems(text, role);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let expected = format!("m/1_a.up.sql:{expected}");
        assert!(found[0].starts_with(&expected), "{text}: {found:?}");
    }
    assert_eq!(suggestion("bakcup"), "did you mean `-- xtask: backup`?");
    assert_eq!(suggestion("Baseline"), "did you mean `-- xtask: baseline`?");
    assert!(suggestion("wibble").starts_with("the directives are"));
}

#[test]
fn encodings_that_cannot_run_are_named() {
    let table: &[(&[u8], &str)] = &[
        (
            b"\xEF\xBB\xBFSELECT 1;",
            "m/1_a.up.sql:1: begins with a byte order mark",
        ),
        (b"a\n\xFFb", "m/1_a.up.sql:2: is not UTF-8: byte 2"),
        (b"a\nb\n\0", "m/1_a.up.sql:3: holds a NUL byte at byte 4"),
        (
            b"\xFF\xFES\0E\0",
            "m/1_a.up.sql:1: holds a NUL byte at byte 3",
        ),
    ];
    for (bytes, expected) in table {
        let found = problems(bytes, Role::Up);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(expected), "{found:?}");
    }
    assert!(parse("SELECT 1;\r\nSELECT 'ü';\r\n", Role::Up).is_ok());
}

#[test]
fn transactional_files_do_not_control_their_transaction() {
    let refused = [
        ("BEGIN", "BEGIN"),
        ("begin work", "BEGIN"),
        ("START TRANSACTION", "START TRANSACTION"),
        ("COMMIT", "COMMIT"),
        ("END", "END"),
        ("ROLLBACK", "ROLLBACK"),
        ("ROLLBACK WORK AND CHAIN", "ROLLBACK"),
        ("ABORT", "ABORT"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
    ];
    for (statement, verb) in refused {
        let text = format!("SELECT 1;\n  {statement};\n");
        let expected = format!("m/1_a.up.sql:2:3: `{verb}` in a file that runs inside one");
        let found = problems(&text, Role::Up);
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "{found:?}"
        );
        let found = problems(&text, Role::Down);
        assert_eq!(found.len(), 1, "{found:?}");
    }
    for allowed in [
        "SAVEPOINT a",
        "RELEASE a",
        "ROLLBACK TO a",
        "ROLLBACK WORK TO SAVEPOINT a",
        "PREPARE p AS SELECT 1",
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "DO $$ BEGIN END $$",
    ] {
        assert!(parse(allowed, Role::Up).is_ok(), "{allowed}");
    }
}

#[test]
fn a_files_own_transactions_are_known() {
    for (text, transactions) in [
        ("SELECT 1; SELECT 2", vec![]),
        ("SELECT 1; BEGIN; SELECT 2; COMMIT; SELECT 3", vec![1..=3]),
        (
            "START TRANSACTION; SAVEPOINT a; ROLLBACK TO a; END; BEGIN; ABORT",
            vec![0..=3, 4..=5],
        ),
        ("BEGIN; BEGIN; COMMIT; COMMIT", vec![0..=2]),
        ("BEGIN; COMMIT AND CHAIN; SELECT 1; COMMIT", vec![0..=3]),
    ] {
        let script = parse(format!("-- no-transaction\n{text}"), Role::Up).expect("parses");
        assert_eq!(script.own_transactions(), transactions, "{text}");
    }
}

#[test]
fn no_transaction_files_close_what_they_open() {
    let table = [
        ("BEGIN; COMMIT;", None),
        ("BEGIN; ROLLBACK TO a; END;", None),
        ("BEGIN; COMMIT AND NO CHAIN;", None),
        ("BEGIN;", Some("2:1")),
        ("BEGIN; COMMIT; BEGIN;", Some("2:16")),
        ("BEGIN; COMMIT AND CHAIN;", Some("2:8")),
    ];
    for (text, place) in table {
        let found = problems(format!("-- no-transaction\n{text}"), Role::Up);
        let expected = place.map(|place| {
            format!("m/1_a.up.sql:{place}: the transaction begun here is never committed")
        });
        assert_eq!(found, Vec::from_iter(expected), "{text}");
    }
}

#[test]
fn statements_that_need_psql_or_change_the_rules_are_refused() {
    let table = [
        (
            "COPY t FROM STDIN;",
            Some("1:1: `COPY … FROM STDIN` needs rows"),
        ),
        (
            "copy t (a, b) from stdin with csv;",
            Some("1:1: `COPY … FROM STDIN` needs rows"),
        ),
        ("COPY t FROM '/file';", None),
        ("COPY (SELECT 1) TO STDOUT;", None),
        (
            "SET standard_conforming_strings = off;",
            Some("1:1: changes how quotes are read"),
        ),
        ("SET standard_conforming_strings = on;", None),
        (
            "SELECT 1;\n\\i more.sql\n",
            Some("2:1: `\\i` is a command of psql"),
        ),
        (
            "SELECT 'ü' \\gset",
            Some("1:12: `\\gset` is a command of psql"),
        ),
    ];
    for (text, expected) in table {
        let found = problems(text, Role::Up);
        assert_eq!(
            found.len(),
            usize::from(expected.is_some()),
            "{text}: {found:?}"
        );
        if let Some(expected) = expected {
            assert!(
                found[0].starts_with(&format!("m/1_a.up.sql:{expected}")),
                "{found:?}"
            );
        }
    }
}

#[test]
fn verify_files_hold_only_queries() {
    for text in [
        "SELECT 1;",
        "(SELECT 1)",
        "WITH a AS (SELECT 1) SELECT",
        "VALUES (1)",
        "TABLE t",
    ] {
        assert!(parse(text, Role::Verify).is_ok(), "{text}");
    }
    for (text, expected) in [
        (
            "SELECT 1; DROP TABLE t",
            "1:11: a verify file holds only queries, and this begins with `DROP`",
        ),
        ("DO $$ $$", "1:1: a verify file holds only queries"),
        ("BEGIN", "1:1: a verify file holds only queries"),
        ("-- later\n", "1:1: holds no check"),
    ] {
        let found = problems(text, Role::Verify);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(
            found[0].starts_with(&format!("m/1_a.up.sql:{expected}")),
            "{found:?}"
        );
    }
}

#[test]
fn everything_wrong_with_a_file_is_reported_at_once() {
    let text = "-- no-transactions\n-- xtask: wibble\nBEGIN;\nBEGIN;\n";
    assert_eq!(problems(text, Role::Up).len(), 3);
}
