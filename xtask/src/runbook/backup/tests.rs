//! What is decided of backups without a server: which may be pruned, and what their names mean.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::folder::file_safe;
use super::listing::{Found, State};
use super::manifest::{Manifest, lsn, place};
use super::prune::prunable;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A backup of `t (id, v)`, so many days old, with so many rows and values of `v`.
fn backup(days: u32, rows: u64, values: u64) -> Found {
    let file = format!("t_backup_{days}.sql");
    let manifest = json!({
        "file": file, "table": "public.t", "table_oid": 16384, "rows": rows, "bytes": 100, "sha256": "00",
        "proof": "restore", "content_hash": "1", "columns": [
            { "name": "id", "type": "integer", "number": 1, "values": rows },
            { "name": "v", "type": "text", "number": 2, "values": values },
        ],
        "sequences": [], "created_at": now() - DAY * days, "wal_lsn": format!("0/{:X}", 1000 - days),
        "timeline": 1, "database": "d", "database_oid": 5, "system_identifier": "7", "host": "h", "port": 5432,
        "server_version": "15.18", "pg_dump_version": "15.18", "command": "xtask db-backup",
        "run_started_at": now() - DAY * days,
    });
    Found {
        file: format!("/backups/{file}").into(),
        manifest: serde_json::from_value(manifest).expect("a manifest"),
        state: State::Good,
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn with(mut backup: Found, change: impl FnOnce(&mut Manifest)) -> Found {
    change(&mut backup.manifest);
    backup
}

/// The ages in days of those that may be deleted, of backups that are given newest first.
fn deleted(backups: Vec<Found>) -> Vec<String> {
    let check = |backup: &mut Found| Ok(backup.state);
    let prunable = prunable(backups, DAY * 7, now(), check).expect("sorts");
    let name = |of: &Found| of.manifest.file.clone();
    prunable.delete.iter().map(name).collect()
}

#[test]
fn an_old_backup_goes_only_where_a_newer_one_has_everything_that_it_has() {
    let old = || backup(30, 10, 10);
    let goes: &[&str] = &["t_backup_30.sql"];
    let table: [(&str, Vec<Found>, &[&str]); 11] = [
        ("alone", vec![old()], &[]),
        ("the same again", vec![backup(1, 10, 10), old()], goes),
        ("more rows", vec![backup(1, 11, 10), old()], goes),
        ("fewer rows", vec![backup(1, 9, 9), old()], &[]),
        ("fewer values", vec![backup(1, 11, 9), old()], &[]),
        (
            "another table of the name",
            vec![with(backup(1, 10, 10), |of| of.table_oid = Some(9)), old()],
            &[],
        ),
        (
            "a column that was made anew",
            vec![
                with(backup(1, 10, 10), |of| of.columns[1].number = Some(3)),
                old(),
            ],
            &[],
        ),
        (
            "not proven",
            vec![
                with(backup(1, 10, 10), |of| {
                    of.proof = crate::options::Proof::None
                }),
                old(),
            ],
            &[],
        ),
        (
            "the newer one was cut",
            vec![
                Found {
                    state: State::Cut,
                    ..backup(1, 10, 10)
                },
                old(),
            ],
            &[],
        ),
        (
            "renamed",
            vec![
                backup(1, 10, 10),
                with(old(), |of| of.file = "other.sql".to_owned()),
            ],
            &[],
        ),
        ("not old", vec![backup(1, 10, 10), backup(6, 10, 10)], &[]),
    ];
    for (what, backups, expected) in table {
        assert_eq!(deleted(backups), expected, "{what}");
    }
}

/// Reading a file of gigabytes is for the one that others are to be deleted for.
#[test]
fn only_what_stays_in_place_of_others_is_read_whole() {
    let checked = RefCell::new(Vec::new());
    let check = |backup: &mut Found| {
        checked.borrow_mut().push(backup.manifest.file.clone());
        Ok(backup.state)
    };
    let backups = vec![backup(1, 10, 10), backup(20, 10, 10), backup(30, 10, 10)];
    let prunable = prunable(backups, DAY * 7, now(), check).expect("sorts");
    assert_eq!(prunable.delete.len(), 2);
    assert!(prunable.keep.is_empty());
    assert_eq!(*checked.borrow(), ["t_backup_1.sql"]);
}

#[test]
fn a_place_in_the_wal_is_a_number() {
    assert_eq!(lsn("16/B374D848"), Some(0x16_B374_D848));
    assert!(lsn("1/0") > lsn("0/FFFFFFFF"));
    for text in ["", "16", "16/", "/1", "x/1", "1/100000000"] {
        assert_eq!(lsn(text), None, "{text}");
    }
}

#[test]
fn this_machine_has_several_names() {
    for host in ["localhost", "127.0.0.1", "127.8.0.1", "::1", "/tmp"] {
        assert_eq!(place(host, 5432), ("localhost", 5432), "{host}");
    }
    assert_ne!(place("localhost", 5432), place("localhost", 5433));
    assert_eq!(place("db.example.com", 5432), ("db.example.com", 5432));
}

#[test]
fn a_tables_name_becomes_a_files() {
    for (table, file) in [
        ("users", "users"),
        ("a/b", "a_b"),
        ("../x", "_._x"),
        (".hidden", "_hidden"),
        ("two\nlines", "two_lines"),
        ("Größe", "Größe"),
    ] {
        assert_eq!(file_safe(table), file, "{table}");
    }
}
