//! The way back undoes what was meant, and only what was run: nothing that was merely recorded, and
//! not the run that came while the command waited.

use crate::common::{Project, blocker};
use crate::flow::has;

/// A project with this many migrations, each of which makes a table; the second has this head.
fn tables(count: usize, head: &str) -> Project {
    let project = Project::empty();
    for number in 1..=count {
        write(&project, number, if number == 2 { head } else { "" });
    }
    project
}

fn write(project: &Project, number: usize, head: &str) {
    project.write(
        &format!("migrations/{number}_make.up.sql"),
        format!("{head}{}", make(number)),
    );
    project.write(
        &format!("migrations/{number}_make.down.sql"),
        format!("DROP TABLE t{number};\n"),
    );
}

fn make(number: usize) -> String {
    format!("CREATE TABLE t{number} (id int);\n")
}

/// As [`tables`], where three tables were there before, with rows, and only db-baseline was told.
fn adopted(head: &str) -> Project {
    let project = tables(3, head);
    for number in 1..=3 {
        project.sql(&make(number));
        project.sql(&format!(
            "INSERT INTO t{number} SELECT generate_series(1, 100)"
        ));
    }
    project.xtask(&["db-baseline", "3"]).succeeds();
    project
}

#[test]
fn what_was_recorded_without_being_run_is_undone_only_by_name() {
    for head in ["", "-- xtask: baseline\n"] {
        let project = adopted(head);
        for (arguments, status) in [
            (&["db-rollback"][..], 0),
            (&["db-rollback", "--all"], 0),
            (&["db-rollback", "--steps", "3"], 0),
            (&["db-redo"], 0),
            (&["db-rollback", "--to", "0"], 2),
            (&["db-rollback", "--to", "1"], 2),
        ] {
            let run = project.xtask(&[arguments, &["--yes"]].concat());
            run.exits(status).says("db-rollback --only 3");
            has(&project, "123");
        }
        assert_eq!(project.value("SELECT count(*) FROM t3"), "100");

        // What is run on top of it has a way back, and no further.
        write(&project, 4, "");
        write(&project, 5, "");
        project.xtask(&["db-migrate"]).succeeds();
        project.xtask(&["db-redo", "--yes"]).succeeds();
        has(&project, "12345");
        project
            .xtask(&["db-rollback", "--to", "2", "--yes"])
            .exits(2)
            .says("`3` was recorded without being run")
            .says("cargo xtask db-rollback --to 3")
            .says("cargo xtask db-rollback --only 5 --only 4 --only 3\n");
        has(&project, "12345");
        project
            .xtask(&["db-rollback", "--steps", "9", "--yes"])
            .succeeds();
        has(&project, "123");
        project.xtask(&["db-migrate"]).succeeds();
        project
            .xtask(&["db-rollback", "--to", "3", "--yes"])
            .succeeds();
        has(&project, "123");

        project
            .xtask(&["db-rollback", "--only", "9", "--yes"])
            .exits(2)
            .says("there is no migration `9`");
        project
            .xtask(&["db-rollback", "--only", "3", "--only", "1", "--yes"])
            .succeeds();
        has(&project, "2");
        project
            .xtask(&["db-rollback", "--only", "3", "--yes"])
            .exits(2)
            .says("`3` is not applied");
    }
}

/// What sqlx writes, and what people insert.
#[test]
fn rows_that_somebody_else_wrote_at_once_are_no_run() {
    for (execution_time, left) in [(-1, "123"), (0, "123"), (1_000_000, "12")] {
        let project = tables(3, "");
        project.xtask(&["db-migrate"]).succeeds();
        project.sql(&format!(
            "BEGIN;
             CREATE TEMP TABLE rows ON COMMIT DROP AS TABLE _sqlx_migrations;
             DELETE FROM _sqlx_migrations;
             INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT version, description, success, checksum, {execution_time} FROM rows;
             COMMIT"
        ));
        assert_eq!(
            project.value("SELECT count(DISTINCT installed_on) FROM _sqlx_migrations"),
            "1"
        );
        project.xtask(&["db-rollback", "--yes"]).succeeds();
        has(&project, left);
    }
}

#[test]
fn the_last_run_is_the_last_also_where_the_clock_was_set_back() {
    let project = tables(2, "");
    project.xtask(&["db-migrate", "--to", "1"]).succeeds();
    project.sql("UPDATE _sqlx_migrations SET installed_on = now() + interval '1 hour'");
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    has(&project, "1");

    // Rows of a tool that does not see to that.
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("UPDATE _sqlx_migrations SET installed_on = now() - version * interval '1 minute'");
    for command in ["db-rollback", "db-redo"] {
        project
            .xtask(&[command, "--yes"])
            .exits(3)
            .says("cannot tell which run was the last")
            .says("cargo xtask db-rollback --only 2");
        has(&project, "12");
    }
    project
        .xtask(&["db-rollback", "--only", "2", "--yes"])
        .succeeds();
    has(&project, "1");
}

/// Each migration a run of its own.
fn runs(count: usize) -> Project {
    let project = tables(count, "");
    for number in 1..=count {
        project
            .xtask(&["db-migrate", "--to", &number.to_string()])
            .succeeds();
    }
    project
}

#[test]
fn two_rollbacks_at_once_do_not_undo_two_runs() {
    for (arguments, second) in [
        (&["db-rollback", "--yes"][..], 3),
        (&["db-rollback", "--yes", "--steps", "1"], 3),
        (&["db-redo", "--yes"], 3),
        // What these mean is the same whoever does it.
        (&["db-rollback", "--yes", "--to", "2"], 0),
    ] {
        let project = runs(3);
        let (holder, _) = blocker(&project, "BEGIN; LOCK TABLE t3 IN ACCESS SHARE MODE");
        let mut first = project.start(&["db-rollback", "--yes"]);
        first.says("the table is in use by");
        let mut waits = project.start(arguments);
        waits.says("To undo 3_make");
        waits.says("another run holds the migration lock");
        drop(holder);
        first.ends().succeeds();
        let run = waits.ends().exits(second);
        if second == 3 {
            run.says("the history has changed while this rollback waited")
                .says("it was to undo: `3_make`")
                .says("it would undo now: `2_make`");
        }
        has(&project, "12");
    }
    // Nor is it well where there was but one run: what this was to undo is undone.
    for (arguments, second) in [(&["--steps", "1"][..], 3), (&[], 3), (&["--all"], 0)] {
        let project = runs(1);
        let (holder, _) = blocker(&project, "BEGIN; LOCK TABLE t1 IN ACCESS SHARE MODE");
        let mut first = project.start(&["db-rollback", "--yes"]);
        first.says("the table is in use by");
        let mut waits = project.start(&[&["db-rollback", "--yes"], arguments].concat());
        waits.says("another run holds the migration lock");
        drop(holder);
        first.ends().succeeds();
        let run = waits.ends().exits(second);
        let said = match second {
            0 => "nothing to roll back",
            _ => "it would undo now: nothing",
        };
        run.says(said);
    }
}

#[test]
fn a_rollback_that_waited_behind_a_run_does_not_undo_it() {
    for arguments in [
        &["db-rollback", "--yes"][..],
        &["db-rollback", "--yes", "--steps", "1"],
        &["db-rollback", "--yes", "--to", "1"],
        &["db-rollback", "--yes", "--all"],
        &["db-redo", "--yes"],
    ] {
        let project = runs(2);
        project.write(
            "migrations/3_make.up.sql",
            format!("ALTER TABLE t1 ADD COLUMN x int;\n{}", make(3)),
        );
        project.write("migrations/3_make.down.sql", "DROP TABLE t3;\n");
        let (holder, _) = blocker(&project, "BEGIN; LOCK TABLE t1 IN ACCESS SHARE MODE");
        let mut first = project.start(&["db-migrate"]);
        first.says("the table is in use by");
        let mut waits = project.start(arguments);
        waits.says("another run holds the migration lock");
        drop(holder);
        first.ends().succeeds();
        waits
            .ends()
            .exits(3)
            .says("the history has changed while this rollback waited");
        has(&project, "123");
    }
}

#[test]
fn whoever_would_write_waits_for_a_run_at_work_also_to_learn_that_nothing_is_to_be_done() {
    // What a rollback takes away while this looks is pending when it has ended.
    let project = runs(2);
    let (holder, _) = blocker(&project, "BEGIN; LOCK TABLE t2 IN ACCESS SHARE MODE");
    let mut first = project.start(&["db-rollback", "--yes"]);
    first.says("the table is in use by");
    let mut waits = project.start(&["db-migrate"]);
    waits.says("another run holds the migration lock");
    project
        .xtask(&["db-migrate", "--lock-deadline", "200ms"])
        .exits(4)
        .says("another run holds the migration lock");
    // Who only looks does not wait.
    project.xtask(&["db-migrate", "--dry-run"]).succeeds();
    drop(holder);
    first.ends().succeeds();
    waits.ends().succeeds().says("Applied 2 make");
    has(&project, "12");

    // The first run of all.
    let project = tables(1, "");
    project.sql("CREATE TABLE held (id int)");
    project.write(
        "migrations/1_make.up.sql",
        format!("ALTER TABLE held ADD COLUMN x int;\n{}", make(1)),
    );
    let (holder, _) = blocker(&project, "BEGIN; LOCK TABLE held IN ACCESS SHARE MODE");
    let mut first = project.start(&["db-migrate"]);
    first.says("the table is in use by");
    let mut waits = project.start(&["db-rollback", "--yes"]);
    waits.says("another run holds the migration lock");
    drop(holder);
    first.ends().succeeds();
    waits
        .ends()
        .exits(3)
        .says("it was to undo: nothing")
        .says("it would undo now: `1_make`");
    has(&project, "1");
}

#[test]
fn the_way_forward_again_can_be_pasted_whatever_the_folder_is_called() {
    let project = tables(1, "");
    project.write(
        "migrations/2_note.up.sql",
        "ALTER TABLE t1 ADD COLUMN note text;",
    );
    project.write(
        "migrations/2_note.down.sql",
        "-- xtask: backup t1\nALTER TABLE t1 DROP COLUMN note;",
    );
    project.write(
        "migrations/1_make.up.sql",
        "CREATE TABLE t1 (id int PRIMARY KEY);",
    );
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("INSERT INTO t1 VALUES (1, 'kept')");
    let backups = project.path("it's my folder").display().to_string();
    let run = project
        .xtask(&[
            "db-rollback",
            "--steps",
            "1",
            "--yes",
            "--backups",
            &backups,
        ])
        .succeeds();
    let run = run.says(r"--file='it'\''s my folder/");
    project.xtask(&["db-migrate"]).succeeds();
    let restore = run
        .stdout
        .lines()
        .find(|line| line.contains("cargo xtask db-restore "));
    let restore = restore
        .expect("a way forward")
        .replace("cargo xtask", "\"$XTASK\"");
    let command = project.command(&[]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .args(["-c", &format!("{} --yes", restore.trim())])
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("XTASK", command.get_program())
        .current_dir(project.path(""));
    crate::common::Run::of(&mut shell).succeeds();
    assert_eq!(project.value("SELECT note FROM t1"), "kept");
}
