//! Tables that refer to each other: their backups are restored in one transaction.

use crate::common::Project;
use crate::proof::back_up;

/// Two tables of which neither can be restored first, with the sums of their rows.
fn cycle(project: &Project) -> (String, String) {
    project.sql(
        "CREATE TABLE teams (id int PRIMARY KEY, name text UNIQUE, lead int);
         CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE, team int NOT NULL REFERENCES teams);
         INSERT INTO teams SELECT n, 'team' || n FROM generate_series(1, 20) AS n;
         INSERT INTO people SELECT n, 'p' || n, 1 + n % 20 FROM generate_series(1, 500) AS n;
         UPDATE teams SET lead = id; ALTER TABLE teams ALTER lead SET NOT NULL;
         ALTER TABLE teams ADD CONSTRAINT teams_lead_fkey FOREIGN KEY (lead) REFERENCES people",
    );
    (back_up(project, "teams"), back_up(project, "people"))
}

fn content(project: &Project) -> String {
    project.value(
        "SELECT (SELECT string_agg(t::text, ';' ORDER BY id) FROM teams AS t)
             || (SELECT string_agg(p::text, ';' ORDER BY id) FROM people AS p)",
    )
}

/// All of both is lost, and a little, and nothing.
const DAMAGE: [&str; 3] = [
    "TRUNCATE teams, people",
    "ALTER TABLE teams DISABLE TRIGGER ALL; ALTER TABLE people DISABLE TRIGGER ALL;
     DELETE FROM teams WHERE id < 9; DELETE FROM people WHERE id < 30;
     DELETE FROM people WHERE id = 500; UPDATE people SET email = 'p' || (id + 1) WHERE id = 499;
     ALTER TABLE teams ENABLE TRIGGER ALL; ALTER TABLE people ENABLE TRIGGER ALL",
    "SELECT",
];

#[test]
fn tables_that_refer_to_each_other_are_restored_together() {
    let project = Project::seeded();
    let (teams, people) = cycle(&project);
    let whole = content(&project);
    for damage in DAMAGE {
        project.sql(damage);
        for files in [[&*teams, &*people], [&*people, &*teams]] {
            project.sql(damage);
            let looked = project.xtask(&["db-restore", files[0], files[1], "--dry-run"]);
            looked.succeeds().says("public.teams").says("public.people");
            let run = project.xtask(&[
                "db-restore",
                files[0],
                files[1],
                "--yes",
                "--format",
                "json",
            ]);
            let report = run.succeeds().json();
            assert_eq!(report["restored"][0]["file"], files[0]);
            assert_eq!(report["restored"][1]["file"], files[1]);
            assert_eq!(report["dry_run"], false);
            assert_eq!(content(&project), whole, "{damage}");
        }
    }
}

#[test]
fn a_row_that_refers_to_nothing_is_told_by_the_dry_run_with_the_command_that_restores_both() {
    let project = Project::seeded();
    let (teams, people) = cycle(&project);
    let whole = content(&project);
    project.sql(DAMAGE[0]);
    for (file, other, constraint) in [
        (&teams, &people, "teams_lead_fkey"),
        (&people, &teams, "people_team_fkey"),
    ] {
        for dry_run in [true, false] {
            let mut arguments = vec!["db-restore", &**file, "--yes"];
            arguments.extend(dry_run.then_some("--dry-run"));
            project
                .xtask(&arguments)
                .exits(1)
                .says("23503")
                .says(&format!("{constraint}: row (1)"))
                .says("which is not there")
                .says("nothing was restored")
                .says(&format!("cargo xtask db-restore {file} {other}"));
            assert_eq!(project.value("SELECT count(*) FROM teams"), "0");
        }
    }
    project.xtask(&["db-restore", &teams, &people]).succeeds();
    assert_eq!(content(&project), whole);

    // A reference that the live table satisfies, one to a row that the same backup brings, and none.
    project.sql("DELETE FROM people WHERE id = 400; UPDATE people SET team = 7 WHERE id = 401");
    project
        .xtask(&["db-restore", &people, "--dry-run"])
        .succeeds();
    // Rows that broke a constraint before it was there are no reason to refuse.
    project.sql(
        "ALTER TABLE people ADD sponsor int; UPDATE people SET sponsor = 4711 WHERE id = 3;
         ALTER TABLE people ADD FOREIGN KEY (sponsor) REFERENCES teams NOT VALID",
    );
    let people = back_up(&project, "people");
    project.sql("UPDATE people SET email = 'x' WHERE id = 3; DELETE FROM people WHERE id = 400");
    project
        .xtask(&["db-restore", &people, "--yes", "--dry-run"])
        .succeeds();
    project.xtask(&["db-restore", &people, "--yes"]).succeeds();
    // Without a backup of what is missing.
    project.sql("CREATE TABLE lonely (id int PRIMARY KEY); INSERT INTO lonely VALUES (1); CREATE TABLE refers (id int PRIMARY KEY, lonely int REFERENCES lonely); INSERT INTO refers VALUES (1, 1), (2, NULL)");
    let refers = back_up(&project, "refers");
    project.sql("TRUNCATE lonely, refers");
    project
        .xtask(&["db-restore", &refers, "--dry-run"])
        .exits(1)
        .says("cargo xtask db-backups");
}

#[test]
fn several_backups_are_all_restored_or_none() {
    let project = Project::seeded();
    let (teams, people) = cycle(&project);
    project
        .sql("DELETE FROM people WHERE id = 400; UPDATE teams SET name = 'renamed' WHERE id = 3");
    let damaged = content(&project);
    // The second's lock is not to be had.
    let mut holder = project.client();
    holder
        .batch_execute("BEGIN; UPDATE people SET email = 'newer' WHERE id = 77")
        .expect("holds");
    project
        .xtask(&[
            "db-restore",
            &teams,
            &people,
            "--yes",
            "--lock-deadline",
            "300ms",
        ])
        .exits(4)
        .says(&format!("cargo xtask db-restore {teams} {people}"));
    holder.batch_execute("ROLLBACK").expect("lets go");
    assert_eq!(content(&project), damaged);
    // The second's row is refused.
    project.sql("ALTER TABLE people ADD CONSTRAINT odd CHECK (id <> 400)");
    project
        .xtask(&["db-restore", &teams, &people, "--yes"])
        .exits(1)
        .says("nothing was restored");
    assert_eq!(content(&project), damaged);
    project.sql("ALTER TABLE people DROP CONSTRAINT odd");
    // Nobody agrees for two tables at once without being told of both.
    project.sql("UPDATE people SET email = 'other' WHERE id = 5");
    project
        .xtask(&["db-restore", &teams, &people])
        .exits(2)
        .says(&format!("cargo xtask db-restore {teams} {people} --yes"));
    project
        .xtask(&["db-restore", &teams, &people, "--yes"])
        .succeeds();
    let renamed = project.value("SELECT count(*) FROM teams WHERE name = 'renamed'");
    assert_eq!(renamed, "0");
}

#[test]
fn one_table_is_not_restored_from_two_backups_at_once() {
    let project = Project::seeded();
    let (one, two) = (back_up(&project, "users"), back_up(&project, "users"));
    project
        .xtask(&["db-restore", &one, &two])
        .exits(2)
        .says("are both backups of `public.users`");
    let sessions = back_up(&project, "sessions");
    for flag in [["--column", "role"], ["--convert", "role=role"]] {
        project
            .xtask(&["db-restore", &one, &sessions, flag[0], flag[1]])
            .exits(2)
            .says("for one backup at a time");
    }
}

#[test]
fn a_hint_repeats_what_was_asked_for() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    project.sql("UPDATE users SET display_name = 'x', role = 'admin' WHERE id = 7");
    project
        .xtask(&["db-restore", &file, "--column", "role"])
        .exits(2)
        .says(&format!(
            "cargo xtask db-restore {file} --column role --yes"
        ));
}
