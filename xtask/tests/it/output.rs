//! Every line that the main job prints, as a person sees it. `UPDATE_EXPECT=1 cargo test` accepts a
//! change of words.

use expect_test::expect_file;

use crate::common::{COLUMN, Project, Run, commands};

#[test]
fn from_the_plan_to_the_way_back() {
    let project = Project::seeded();
    for (arguments, file) in [
        (
            &["db-status"][..],
            expect_file!["snapshots/status_pending.txt"],
        ),
        (
            &["db-status", "--check"],
            expect_file!["snapshots/status_check.txt"],
        ),
        (
            &["db-migrate", "--dry-run"],
            expect_file!["snapshots/migrate_dry_run.txt"],
        ),
        (&["db-migrate"], expect_file!["snapshots/migrate.txt"]),
        (&["db-migrate"], expect_file!["snapshots/migrate_again.txt"]),
        (&["db-status"], expect_file!["snapshots/status_applied.txt"]),
        (&["db-verify"], expect_file!["snapshots/verify.txt"]),
        (&["db-backups"], expect_file!["snapshots/backups.txt"]),
        (
            &["db-rollback", "--dry-run"],
            expect_file!["snapshots/rollback_dry_run.txt"],
        ),
        (
            &["db-rollback"],
            expect_file!["snapshots/rollback_unattended.txt"],
        ),
        (
            &["db-rollback", "--yes"],
            expect_file!["snapshots/rollback.txt"],
        ),
    ] {
        let run = project.xtask(arguments);
        file.assert_eq(&project.snapshot(&run));
    }
}

#[test]
fn what_failing_checks_look_like() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("DROP INDEX idx_users_last_login_at");
    let run = project.xtask(&["db-verify"]);
    expect_file!["snapshots/verify_failing.txt"].assert_eq(&project.snapshot(&run));
}

#[test]
fn what_nothing_looks_like() {
    let project = Project::new();
    let run = project.xtask(&["db-backups"]);
    expect_file!["snapshots/backups_none.txt"].assert_eq(&project.snapshot(&run));
    let run = project.xtask(&["db-verify"]);
    expect_file!["snapshots/verify_nothing.txt"].assert_eq(&project.snapshot(&run));
    let run = project.xtask(&["db-rollback"]);
    expect_file!["snapshots/rollback_nothing.txt"].assert_eq(&project.snapshot(&run));
    let run = Run::of(&mut project.unconfigured(&["db-migrate"]));
    expect_file!["snapshots/migrate_unconfigured.txt"].assert_eq(&project.snapshot(&run));
}

#[test]
fn a_doctor_has_a_line_for_every_precondition() {
    let project = Project::seeded();
    let run = project.xtask(&["db-doctor"]);
    let text = project.snapshot(&run);
    // Where the tools are and how much room there is differs from machine to machine.
    let text = regex::Regex::new(r"/\S+/(psql|pg_dump)")
        .expect("a pattern")
        .replace_all(&text, "[BIN]/$1")
        .into_owned();
    let text = regex::Regex::new(r"(\[BIN\]/\w+ \()[^)]*")
        .expect("a pattern")
        .replace_all(&text, "$1[VERSION]")
        .into_owned();
    expect_file!["snapshots/doctor.txt"].assert_eq(&text);
}

#[test]
fn every_help_page() {
    let project = Project::new();
    for command in commands() {
        let run = Run::of(&mut project.unconfigured(&[&command, "--help"])).succeeds();
        let file = format!("snapshots/help/{command}.txt");
        expect_file![file].assert_eq(&run.stdout);
    }
}

/// Snapshots collapse runs of spaces: a column is as wide as its widest cell, and times differ.
#[test]
fn the_columns_of_every_table_are_aligned() {
    let project = Project::seeded();
    project
        .xtask(&["db-backup", "users", "sessions"])
        .succeeds();
    project.xtask(&["db-migrate", "--to", COLUMN]).succeeds();
    for command in ["db-status", "db-verify", "db-backups", "db-doctor"] {
        let text = project.xtask(&[command]).succeeds().stdout;
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let rule = lines.iter().position(|line| line.contains(&'─'));
        let rule = rule.expect("a table");
        let columns = lines[rule]
            .split(|&c| c == ' ')
            .filter(|run| !run.is_empty());
        let widths: Vec<usize> = columns.map(<[char]>::len).collect();
        assert!(widths.len() > 2, "{text}");
        let rows = lines[rule + 1..].iter().take_while(|line| !line.is_empty());
        let rows: Vec<&Vec<char>> = std::iter::once(&lines[rule - 1]).chain(rows).collect();
        assert!(rows.len() > 2, "{text}");
        for row in rows {
            let mut rest = &row[..];
            for width in &widths {
                // A cell begins where its column does, or is empty; two spaces are behind it.
                let (cell, behind) = rest.split_at((*width).min(rest.len()));
                let (gap, next) = behind.split_at(2.min(behind.len()));
                let is_blank = |run: &[char]| run.iter().all(|&c| c == ' ');
                assert!(is_blank(cell) || cell[0] != ' ', "{cell:?} in\n{text}");
                assert!(is_blank(gap), "{gap:?} behind {cell:?} in\n{text}");
                rest = next;
            }
            assert!(rest.is_empty(), "{rest:?} behind all columns of\n{text}");
        }
    }
}
