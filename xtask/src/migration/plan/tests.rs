use jiff::Timestamp;

use super::*;
use crate::error::{Failure, Kind, Result};
use crate::migration::history::Applied;
use crate::migration::script::Role;
use crate::migration::source::{File, Folder, Migration};

/// Migrations from words such as `1`, `2!` (irreversible) or `3^` (baseline).
fn folder(words: &str) -> Folder {
    Folder {
        shown_as: "m".into(),
        ignored: Vec::new(),
        shares_history: false,
        migrations: words.split_whitespace().map(migration).collect(),
    }
}

fn migration(word: &str) -> Migration {
    let version: i64 = word.trim_end_matches(['!', '^']).parse().unwrap();
    let file = |ending: &str, role, text: &str| {
        File::in_memory(&format!("m/{version}_x{ending}"), text, role)
    };
    let baseline = if word.ends_with('^') {
        "-- xtask: baseline\n"
    } else {
        ""
    };
    let down = (!word.ends_with('!')).then(|| file(".down.sql", Role::Down, ""));
    Migration {
        version,
        name: "x".to_owned(),
        stem: format!("{version}_x"),
        up: file(".up.sql", Role::Up, baseline),
        down,
        verify: None,
        checksum: [version as u8; 48],
        is_baseline_by_settings: false,
        misnamed_down: Vec::new(),
        misnamed_up: Vec::new(),
    }
}

/// Rows from words such as `1`, `2?` (other checksum), `3-` (failed), `4=` (recorded, not run) or
/// `5+` (inserted together with others); `|` begins a new run, a second later, `~` one that is a
/// second earlier.
fn history(words: &str) -> Vec<Applied> {
    let mut second = 0;
    let mut rows = Vec::new();
    for word in words.split_whitespace() {
        if word == "|" || word == "~" {
            second += if word == "|" { 1 } else { -1 };
            continue;
        }
        let version: i64 = word.trim_end_matches(['?', '-', '=', '+']).parse().unwrap();
        let edited = word.ends_with('?');
        rows.push(Applied {
            version,
            description: "y".to_owned(),
            installed_on: Timestamp::from_second(second).unwrap(),
            success: !word.ends_with('-'),
            checksum: vec![if edited { 0xff } else { version as u8 }; 48],
            execution_time_ns: if word.ends_with('=') { -1 } else { 3_200_000 },
            own_transaction: !word.ends_with('+'),
        });
    }
    rows
}

/// The versions, or the kind of the failure and what it names.
fn outcome(result: Result<Vec<&Migration>>) -> std::result::Result<Vec<i64>, (Kind, String)> {
    match result {
        Ok(migrations) => Ok(migrations.iter().map(|one| one.version).collect()),
        Err(error) => {
            let failure: Failure = error.downcast().unwrap();
            assert!(!failure.hints.is_empty(), "{failure:?}");
            let reported = [vec![failure.message], failure.causes].concat().join(" / ");
            Err((failure.kind, reported))
        }
    }
}

fn check(
    outcome: std::result::Result<Vec<i64>, (Kind, String)>,
    expected: std::result::Result<&[i64], (Kind, &[&str])>,
    case: &str,
) {
    match (outcome, expected) {
        (Ok(versions), Ok(expected)) => assert_eq!(versions, expected, "{case}"),
        (Err((kind, reported)), Err((expected, parts))) => {
            assert_eq!(kind, expected, "{case}: {reported}");
            for part in parts {
                assert!(reported.contains(part), "{case}: {reported}");
            }
            if kind == Kind::Finding {
                assert_eq!(
                    reported.split(" / ").count(),
                    parts.len() + 1,
                    "{case}: {reported}"
                );
            }
        }
        (outcome, expected) => panic!("{case}: {outcome:?}, expected {expected:?}"),
    }
}

#[test]
fn states_join_folder_and_history() {
    use State::{Applied, Divergent, Failed, Missing, Pending};
    let entries = states(&folder("1 3 4! 5 7"), &history("1= 2 | 3? 5- 6-"));
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.version, entry.state))
        .collect();
    assert_eq!(
        found,
        [
            (1, Applied),
            (2, Missing),
            (3, Divergent),
            (4, Pending),
            (5, Failed),
            (6, Failed),
            (7, Pending),
        ]
    );
    let json = |version: i64| {
        let entry = entries
            .iter()
            .find(|entry| entry.version == version)
            .unwrap();
        serde_json::to_string(entry).unwrap()
    };
    assert_eq!(
        json(3),
        r#"{"version":3,"name":"x","state":"divergent","reversible":true,"transactional":true,"installed_on":"1970-01-01T00:00:01Z","execution_time_ms":3.2}"#
    );
    assert_eq!(
        json(2),
        r#"{"version":2,"name":"y","state":"missing","reversible":false,"transactional":null,"installed_on":"1970-01-01T00:00:00Z","execution_time_ms":3.2}"#
    );
    assert_eq!(
        json(4),
        r#"{"version":4,"name":"x","state":"pending","reversible":false,"transactional":true,"installed_on":null,"execution_time_ms":null}"#
    );
    assert_eq!(entries[0].execution_time_ms, None);
}

#[test]
fn up_selects_what_is_pending() {
    use Kind::{Finding, Usage};
    type Case<'a> = (
        &'a str,
        &'a str,
        Option<i64>,
        bool,
        std::result::Result<&'a [i64], (Kind, &'a [&'a str])>,
    );
    let table: &[Case] = &[
        ("1 2 3", "", None, false, Ok(&[1, 2, 3])),
        ("1 2 3", "1", None, false, Ok(&[2, 3])),
        ("1 2 3", "1 2 3", None, false, Ok(&[])),
        ("1 2 3", "1", Some(2), false, Ok(&[2])),
        ("1 2 3", "1 2", Some(2), false, Ok(&[])),
        (
            "1 2 3",
            "1",
            Some(9),
            false,
            Err((Usage, &["no migration `9`"])),
        ),
        (
            "1 2 3",
            "1 2",
            Some(1),
            false,
            Err((Usage, &["already at `2`"])),
        ),
        (
            "1 2 3",
            "1 2",
            Some(1),
            true,
            Err((Usage, &["already at `2`"])),
        ),
        (
            "1 2 3",
            "1 3",
            None,
            false,
            Err((Finding, &["`m/2_x.up.sql` is pending, yet older"])),
        ),
        ("1 2 3 4", "1 3", None, true, Ok(&[2, 4])),
        ("1 2 3 4", "1 3", Some(2), true, Ok(&[2])),
        (
            "1 2 3 4",
            "1 3",
            Some(2),
            false,
            Err((Finding, &["`m/2_x.up.sql` is pending"])),
        ),
        (
            "2 3",
            "1 2? 3-",
            None,
            true,
            Err((
                Finding,
                &[
                    "`1` (y) was applied",
                    "`m/2_x.up.sql` was edited",
                    "`3` (y) is recorded as failed",
                ],
            )),
        ),
        (
            "1 3 4",
            "2? 5 3?",
            Some(4),
            false,
            Err((
                Finding,
                &["`m/1_x", "`2` (y)", "`m/3_x", "`m/4_x", "`5` (y)"],
            )),
        ),
    ];
    for (files, rows, to, allow, expected) in table {
        let (folder, rows) = (folder(files), history(rows));
        let found = outcome(up(&folder, &rows, *to, *allow));
        let case = format!("{files}; {rows:?}; {to:?}");
        check(found, *expected, &case);
    }
}

#[test]
fn down_selects_what_to_undo() {
    use Kind::{Finding, Usage};
    use RollbackScope::{All, LastRun, Only, Steps, To};
    type Case<'a> = (
        &'a str,
        &'a str,
        RollbackScope,
        std::result::Result<&'a [i64], (Kind, &'a [&'a str])>,
    );
    let table: &[Case] = &[
        ("1 2 3", "", LastRun, Ok(&[])),
        ("1 2 3 4", "1 | 2 3", LastRun, Ok(&[3, 2])),
        ("1 2 3", "1 | 2 | 3", LastRun, Ok(&[3])),
        (
            "1 2 3",
            "1 3 | 2",
            LastRun,
            Err((Finding, &["`2` was applied after the newer `3`"])),
        ),
        ("1 2 3", "1 3 | 2", Only(vec![2]), Ok(&[2])),
        ("1 2 3", "1 2 ~ 3", Steps(1), Ok(&[3])),
        (
            "1 2 3",
            "1 2 ~ 3",
            LastRun,
            Err((Finding, &["`2` was applied after the newer `3`"])),
        ),
        // What was recorded without being run is undone only by name, whatever the files say.
        ("1 2 3", "1= 2= 3=", LastRun, Ok(&[])),
        ("1 2 3", "1= 2= 3=", All, Ok(&[])),
        ("1 2 3", "1= 2= 3=", Steps(2), Ok(&[])),
        ("1^ 2 3", "1= | 2 3", LastRun, Ok(&[3, 2])),
        ("1 2 3", "1= 2= 3", LastRun, Ok(&[3])),
        ("1 2 3", "1 2= 3", All, Ok(&[3])),
        ("1 2 3", "1 2 | 3=", LastRun, Ok(&[])),
        ("1 2 3", "1= 2= | 3", To(2), Ok(&[3])),
        (
            "1^ 2 3",
            "1= 2 3",
            To(0),
            Err((Usage, &["`1` was recorded without being run"])),
        ),
        (
            "1 2 3",
            "1 2= 3",
            To(1),
            Err((Usage, &["`2` was recorded without being run"])),
        ),
        ("1^ 2 3", "1= 2= 3=", Only(vec![1, 3]), Ok(&[3, 1])),
        ("1^ 2", "1 2", Only(vec![1]), Ok(&[1])),
        (
            "1 2 3",
            "1 2",
            Only(vec![2, 3]),
            Err((Usage, &["`3` is not applied"])),
        ),
        // Rows that were inserted together are no run.
        ("1 2 3", "1+ 2+ 3+", LastRun, Ok(&[3])),
        ("1 2 3", "1+ 2+ 3", LastRun, Ok(&[3])),
        ("1^ 2 3", "1 2 3", LastRun, Ok(&[3, 2])),
        ("1^ 2", "1", LastRun, Ok(&[])),
        ("1 2 3", "1 | 2 | 3", Steps(2), Ok(&[3, 2])),
        ("1^ 2 3", "1 | 2 | 3", Steps(9), Ok(&[3, 2])),
        ("1 2 3", "1 2 3", Steps(0), Ok(&[])),
        ("1 2 3", "1 2 3", All, Ok(&[3, 2, 1])),
        ("1^ 2 3", "1 2 3", All, Ok(&[3, 2])),
        ("1 2^ 3", "1 2 3", All, Ok(&[3])),
        ("1^ 2 3", "1 2 3", To(1), Ok(&[3, 2])),
        ("1^ 2 3", "1 2 3", To(3), Ok(&[])),
        ("1^ 2 3", "1 2 3", To(0), Ok(&[3, 2, 1])),
        ("1^ 2 3", "", To(0), Ok(&[])),
        (
            "1 2^ 3",
            "1 2 3",
            To(1),
            Err((Usage, &["the baseline `2` lies above"])),
        ),
        ("1 2 3", "1 2", To(3), Err((Usage, &["`3` is not applied"]))),
        ("1 2 3", "1 2", To(7), Err((Usage, &["no migration `7`"]))),
        (
            "1 2! 3",
            "1 2 3",
            All,
            Err((Finding, &["`m/2_x.up.sql` has no down file"])),
        ),
        ("1 2! 3", "1 2 3", To(2), Ok(&[3])),
        (
            "1 2!",
            "1 2? 3",
            Steps(3),
            Err((
                Finding,
                &[
                    "`3` (y) was applied",
                    "`m/2_x.up.sql` was edited",
                    "`m/2_x.up.sql` has no down file",
                ],
            )),
        ),
        ("1 2 3", "1 2? 3", Steps(1), Ok(&[3])),
        (
            "1 2",
            "1 2-",
            LastRun,
            Err((Finding, &["`2` (y) is recorded as failed"])),
        ),
    ];
    for (files, rows, selection, expected) in table {
        let (folder, rows) = (folder(files), history(rows));
        let found = outcome(down(&folder, &rows, selection));
        check(
            found,
            *expected,
            &format!("{files}; {rows:?}; {selection:?}"),
        );
    }
}
