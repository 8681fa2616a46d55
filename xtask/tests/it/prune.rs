//! Pruning deletes what is due, its own, and held by a newer backup too; and nothing else.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use private_server::ThrowawayServer;
use private_server::cluster::Stop;

use crate::common::{Project, Run, chmod, installation, own_server, start_server};
use crate::proof::{back_up, edit_manifest, manifest};
use crate::terminal::Terminal;

/// A table of 100 rows, whose `v` has a value in each.
fn hundred() -> Project {
    let project = Project::empty();
    project.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text, w int);
         INSERT INTO t SELECT n, 'value ' || n, n FROM generate_series(1, 100) AS n",
    );
    project
}

/// Takes a backup that is this old.
fn aged(project: &Project, days: u64) -> String {
    let file = back_up(project, "t");
    make_old(project, &file, days);
    file
}

fn make_old(project: &Project, file: &str, days: u64) {
    let at = jiff::Timestamp::now() - Duration::from_secs(days * 24 * 3600);
    edit_manifest(project, file, |manifest| {
        manifest["created_at"] = at.to_string().into();
    });
}

fn prune(project: &Project) -> Run {
    project.xtask(&["db-backups", "prune", "--yes"]).succeeds()
}

fn is_there(project: &Project, file: &str) -> bool {
    let there = |file: &str| std::fs::symlink_metadata(project.path(file)).is_ok();
    assert_eq!(there(file), there(&format!("{file}.json")), "{file}");
    there(file)
}

#[test]
fn a_backup_is_kept_while_no_newer_one_holds_its_values() {
    let table = [
        // What happens to the table between the two backups, and whether the older one stays.
        ("INSERT INTO t VALUES (101, 'x', 1)", false),
        ("UPDATE t SET v = 'other'", false),
        ("ALTER TABLE t RENAME v TO name", false),
        ("ALTER TABLE t ADD COLUMN x int DEFAULT 7", false),
        (
            "ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN v text",
            true,
        ),
        (
            "ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN v text DEFAULT 'lost'",
            true,
        ),
        ("ALTER TABLE t DROP COLUMN v", true),
        (
            "ALTER TABLE t ALTER v TYPE varchar(3) USING left(v, 3)",
            true,
        ),
        ("UPDATE t SET v = NULL WHERE id = 1", true),
        ("DELETE FROM t WHERE id = 1", true),
        ("TRUNCATE t", true),
        (
            "DROP TABLE t; CREATE TABLE t AS SELECT n AS id, 'v' AS v, 1 AS w FROM generate_series(1, 200) AS n",
            true,
        ),
    ];
    let mut wrong = Vec::new();
    for (change, stays) in table {
        let project = hundred();
        let oldest = aged(&project, 50);
        let old = aged(&project, 40);
        project.sql(change);
        let newer = aged(&project, 30);
        let run = prune(&project);
        // Another one that has the same is enough.
        assert!(!is_there(&project, &oldest), "{change}: {}", run.stderr);
        assert!(is_there(&project, &newer), "{change}");
        if is_there(&project, &old) != stays {
            wrong.push(change);
        }
        if stays {
            run.says(&format!("Keeping {old}"));
        }
    }
    assert_eq!(wrong, Vec::<&str>::new());
}

#[test]
fn a_backup_whose_values_nobody_has_counted_stays() {
    let project = hundred();
    let old = aged(&project, 40);
    aged(&project, 1);
    edit_manifest(&project, &old, |manifest| {
        manifest
            .as_object_mut()
            .expect("an object")
            .remove("table_oid");
    });
    prune(&project).says(&format!("Keeping {old}"));
    // It is read all the same.
    project.sql("DELETE FROM t WHERE id = 7");
    project.xtask(&["db-restore", &old]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM t"), "100");
}

#[test]
fn values_are_counted_whatever_the_proof() {
    let project = hundred();
    project.sql("UPDATE t SET v = NULL WHERE id <= 60; ALTER TABLE t ALTER w SET NOT NULL");
    for (proof, id, v, w) in [
        ("restore", 100.into(), 40.into(), 100.into()),
        ("rows", 100.into(), 40.into(), 100.into()),
        (
            "none",
            serde_json::Value::Null,
            serde_json::Value::Null,
            serde_json::Value::Null,
        ),
    ] {
        let run = project
            .xtask(&["db-backup", "t", "--proof", proof])
            .succeeds();
        let manifest = manifest(&project, run.stdout.trim());
        let values: Vec<_> = (0..3)
            .map(|n| manifest["columns"][n]["values"].clone())
            .collect();
        assert_eq!(values, [id, v, w], "{proof}");
        assert_eq!(manifest["columns"][1]["number"], 2);
    }
}

#[test]
fn only_what_lies_there_as_it_was_written_is_deleted() {
    let project = hundred();
    let files: Vec<String> = (0..6).map(|n| aged(&project, 50 - n)).collect();
    let path = |n: usize| project.path(&files[n]);
    // A link to where it was moved; compressed; cut; something else; renamed with its manifest.
    std::fs::rename(path(0), project.path("elsewhere")).expect("moves");
    symlink(project.path("elsewhere"), path(0)).expect("links");
    std::fs::rename(path(1), project.path(&format!("{}.gz", files[1]))).expect("moves");
    std::fs::write(path(2), "cut").expect("writes");
    std::fs::remove_file(path(3)).expect("removes");
    std::fs::create_dir(path(3)).expect("makes a folder");
    std::fs::rename(path(4), project.path("backups/keep_backup_.sql")).expect("moves");
    std::fs::rename(
        project.path(&format!("{}.json", files[4])),
        project.path("backups/keep_backup_.sql.json"),
    )
    .expect("moves");
    let run = prune(&project);
    for file in &files[..4] {
        assert!(
            project.path(&format!("{file}.json")).exists(),
            "{}",
            run.stderr
        );
        assert!(
            run.stderr.contains(&format!("Keeping {file}")),
            "{}",
            run.stderr
        );
    }
    assert!(project.path("backups/keep_backup_.sql").exists());
    assert!(
        project.path("elsewhere").exists() && project.path(&format!("{}.gz", files[1])).exists()
    );
    // The newest that is left as it was.
    assert!(is_there(&project, &files[5]));

    // The newest of all is a link: nothing is proven and unharmed but an old one.
    let project = hundred();
    let (old, new) = (aged(&project, 40), back_up(&project, "t"));
    std::fs::rename(project.path(&new), project.path("elsewhere")).expect("moves");
    symlink(project.path("elsewhere"), project.path(&new)).expect("links");
    prune(&project).says(&format!("Keeping {old}"));
    assert!(is_there(&project, &old) && is_there(&project, &new));
}

#[test]
fn what_changes_while_prune_asks_is_looked_at_again() {
    let project = hundred();
    let (old, newer) = (aged(&project, 40), aged(&project, 30));
    let Some(mut terminal) = Terminal::run(&project.command(&["db-backups", "prune"])) else {
        println!("SKIPPED: no terminal");
        return;
    };
    terminal.read_until("[y/N]");
    // The one for whose sake the other may go is harmed meanwhile.
    project.write(&newer, "harmed");
    terminal.press("y\n");
    let (status, said) = terminal.end();
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("it has changed since it was shown"), "{said}");
    assert!(is_there(&project, &old));
}

/// Between the manifest's name and the file's, a backup looks as if its file were missing.
#[test]
fn a_backup_that_is_being_named_is_neither_pruned_nor_missing() {
    let project = hundred();
    let (naming, _newer) = (aged(&project, 40), aged(&project, 30));
    std::fs::rename(project.path(&naming), project.path("aside")).expect("moves");
    let lock = std::fs::File::open(project.path(&format!("{naming}.json"))).expect("opens");
    lock.lock().expect("locks");
    project.xtask(&["db-backups", "--check"]).succeeds();
    prune(&project).says("no backup is due");
    std::fs::rename(project.path("aside"), project.path(&naming)).expect("moves");
    assert!(is_there(&project, &naming));
    drop(lock);
    // Without a lock it is missing indeed.
    std::fs::remove_file(project.path(&naming)).expect("removes");
    project
        .xtask(&["db-backups", "--check"])
        .exits(3)
        .says("missing");
    prune(&project).says("Deleted 1 backup");
}

#[test]
fn a_check_does_not_miss_what_is_pruned_or_taken_beside_it() {
    let project = hundred();
    aged(&project, 40);
    project.sql("UPDATE t SET v = repeat('x', 700000)");
    let newest = aged(&project, 30);
    // It reads the newest first, and is held there.
    let check = project.start(&["db-backups", "--check"]);
    let open_files = format!("/proc/{}/fd", check.id());
    let began = std::time::Instant::now();
    let is_reading = || {
        let entries = std::fs::read_dir(&open_files)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|path| path.ends_with(&newest))
    };
    while !is_reading() {
        assert!(began.elapsed() < Duration::from_secs(20), "never reads");
    }
    check.signal("STOP");
    prune(&project).says("Deleted 1 backup");
    back_up(&project, "t");
    check.signal("CONT");
    check.ends().succeeds();
}

/// A copy of a server's files has the same system identifier, and its databases the same oids.
#[test]
fn a_physical_copy_of_a_server_is_told_from_its_origin() {
    let origin = own_server(&[]);
    let project = Project::seeded_on(origin);
    let copy = start_server(&[]);
    for server in [origin, &copy] {
        server.cluster().stop(Stop::Fast).expect("stops");
    }
    let data = copy.cluster().folder().join("data");
    std::fs::remove_dir_all(&data).expect("removes");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&origin.cluster().folder().join("data"), &data])
        .status();
    assert!(copied.expect("cp starts").success());
    let start =
        |server: &ThrowawayServer| server.cluster().start(&[installation()]).expect("starts");
    assert_eq!(start(origin), origin.port());
    let port = start(&copy);
    assert_ne!(port, origin.port());
    let there = project
        .url
        .replace(&origin.port().to_string(), &port.to_string());

    let of_origin = project.xtask(&["db-backup", "users"]).succeeds().stdout;
    let of_origin = of_origin.trim();
    make_old(&project, of_origin, 40);
    let newer = project
        .xtask(&["db-backup", "users", "--database-url", &there])
        .succeeds();
    assert_eq!(
        manifest(&project, of_origin)["system_identifier"],
        manifest(&project, newer.stdout.trim())["system_identifier"]
    );
    // The copy's is newer, and holds as much; it is no reason to delete the origin's only one.
    prune(&project).says(&format!("Keeping {of_origin}"));
    assert!(is_there(&project, of_origin));

    project.sql("DELETE FROM users WHERE id = 7");
    for arguments in [
        &["db-restore", newer.stdout.trim(), "--yes"] as &[_],
        &["db-restore", newer.stdout.trim(), "--dry-run"],
    ] {
        project
            .xtask(arguments)
            .exits(1)
            .says("the backup may be of another server")
            .says("nothing was restored")
            .says("--force-other-database");
    }
    assert_eq!(project.value("SELECT count(*) FROM users"), "1199");
    // The same server by another name of this machine is the same.
    let named = project.url.replace("127.0.0.1", "localhost");
    project
        .xtask(&[
            "db-restore",
            of_origin,
            "--dry-run",
            "--database-url",
            &named,
        ])
        .succeeds();
    // If it is meant, it works.
    project
        .xtask(&[
            "db-restore",
            newer.stdout.trim(),
            "--force-other-database",
            "--yes",
        ])
        .succeeds();
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");

    // The copy in the origin's place: it is not as far, and once it is promoted it has another timeline.
    project.sql("CREATE TABLE more AS SELECT n FROM generate_series(1, 10000) AS n");
    let last = project.xtask(&["db-backup", "users"]).succeeds().stdout;
    for server in [origin, &copy] {
        server.cluster().stop(Stop::Fast).expect("stops");
    }
    let signal = data.join("standby.signal");
    std::fs::write(&signal, "").expect("writes");
    chmod(0o666, &signal);
    for promoted in [false, true] {
        if !promoted {
            std::fs::rename(&signal, data.join("later")).expect("moves");
        } else {
            copy.cluster().stop(Stop::Fast).expect("stops");
            std::fs::rename(data.join("later"), &signal).expect("moves");
        }
        let port = format!("port = {}\n", origin.port());
        std::fs::write(data.join("port.conf"), port).expect("writes");
        assert_eq!(start(&copy), origin.port());
        if promoted {
            assert_eq!(project.value("SELECT pg_promote()"), "true");
        }
        project
            .xtask(&["db-restore", last.trim(), "--dry-run"])
            .exits(1)
            .says("the backup may be of another server")
            .says(if promoted {
                "promoted or recovered"
            } else {
                "WAL is at"
            });
    }
}
