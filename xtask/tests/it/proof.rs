//! Proof of backups by restoring them, what becomes of bad ones, and of old ones.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Project, Run, Running, chmod, installation, server, until, url_as};

/// The backups in a folder, oldest name first.
pub(crate) fn backups(project: &Project) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(&project.path("backups"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "sql"))
        .collect();
    found.sort();
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.expect("an entry").path())
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Takes a backup; returns its path relative to the workspace.
pub(crate) fn back_up(project: &Project, table: &str) -> String {
    let run = project.xtask(&["db-backup", table]).succeeds();
    run.stdout.trim().to_owned()
}

pub(crate) fn manifest(project: &Project, file: &str) -> Value {
    let text = std::fs::read_to_string(project.path(&format!("{file}.json"))).expect("a manifest");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn edit_manifest(project: &Project, file: &str, edit: impl FnOnce(&mut Value)) {
    let mut value = manifest(project, file);
    edit(&mut value);
    project.write(&format!("{file}.json"), value.to_string());
}

/// A folder for `PG_BIN_DIR` whose pg_dump is this script; `$REAL` is the real one.
pub(crate) fn fake_pg_dump(project: &Project, script: &str) -> PathBuf {
    let installation = installation();
    let folder = project.path("fake");
    std::fs::create_dir_all(&folder).expect("makes a folder");
    let _ = symlink(installation.program("psql"), folder.join("psql"));
    let real = installation.program("pg_dump");
    let text = format!(
        "#!/bin/sh\nREAL='{}'\ncase \"$*\" in *--version*) exec \"$REAL\" --version;; esac\n{script}\n",
        real.display()
    );
    let file = folder.join("pg_dump");
    std::fs::write(&file, text).expect("writes");
    chmod(0o755, &file);
    folder
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

fn scratch_databases(project: &Project) -> String {
    project.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'xtask\\_scratch\\_%'")
}

#[test]
fn a_backup_is_proven_and_its_manifest_says_what_it_is() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    let manifest = manifest(&project, &file);
    assert_eq!(manifest["proof"], "restore");
    assert_eq!(manifest["rows"], 1_200);
    assert_eq!(manifest["table"], "public.users");
    assert_eq!(manifest["command"], "xtask db-backup");
    assert_eq!(manifest["database"], project.database.as_str());
    assert_eq!(manifest["columns"][0]["type"], "bigint");
    assert_eq!(manifest["sequences"][0]["last_value"], 1_200);
    assert_eq!(
        manifest["system_identifier"],
        project.value("SELECT system_identifier FROM pg_control_system()")
    );
    for key in [
        "sha256",
        "content_hash",
        "wal_lsn",
        "pg_dump_version",
        "created_at",
    ] {
        assert!(
            manifest[key].as_str().is_some_and(|text| !text.is_empty()),
            "{key}"
        );
    }
    assert!(!manifest.to_string().contains(server().password()));
    assert_eq!(scratch_databases(&project), "0");
    assert_eq!(
        std::fs::read_to_string(project.path("backups/.gitignore")).expect("ignored"),
        "*\n"
    );
}

#[test]
fn the_run_that_took_a_backup_is_found_in_the_history() {
    let project = Project::seeded();
    let run = project
        .xtask(&["db-migrate", "--format", "json"])
        .succeeds();
    let backup = &run.json()["backups"][0];
    assert_eq!(backup["proof"], "restore");
    let manifest = manifest(&project, backup["file"].as_str().expect("a file"));
    assert_eq!(manifest["command"], "xtask db-migrate");
    let at = manifest["run_started_at"].as_str().expect("a time");
    assert_eq!(
        project.value(&format!(
            "SELECT count(*) FROM _sqlx_migrations WHERE installed_on = '{at}'"
        )),
        "2"
    );
}

/// Everything that a scratch might lack, in a temporary table and in a database of its own.
#[test]
fn every_type_is_proven_in_every_place() {
    let project = Project::empty();
    project.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"', 'glad');
         CREATE TYPE pair AS (a int, b text);
         CREATE DOMAIN positive AS int CHECK (value > 0);
         CREATE TYPE floats AS RANGE (subtype = float8);
         CREATE EXTENSION citext;
         CREATE EXTENSION hstore;
         CREATE SCHEMA \"odd schema\";
         CREATE TABLE \"odd schema\".\"odd (table)\" (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             \"odd \"\"column\"\", (x)\" text DEFAULT E'tab\\t\\\\. \\n\\r\\x01',
             m mood DEFAULT 'it''s \"ok\"', ms mood[] DEFAULT '{sad,glad}', p pair DEFAULT '(1,\"x y\")',
             d positive DEFAULT 3, ds positive[] DEFAULT '{1,2}', r int4range DEFAULT '[1,5)',
             fr floats DEFAULT '[0.1,0.3)', c citext DEFAULT 'MiXeD', h hstore DEFAULT 'a=>1,b=>NULL',
             j json DEFAULT '{\"a\" :  1}', jb jsonb DEFAULT '{\"b\": [1.0, null]}', x xml DEFAULT '<a/>',
             mo money DEFAULT 12.34, rc regclass DEFAULT 'pg_class', ch char(5) DEFAULT 'ab', vc varchar(9) DEFAULT '',
             f4 real DEFAULT 0.1, f8 float8 DEFAULT '-0', n numeric DEFAULT '1.00', i interval DEFAULT '1 mon -3 days 04:05:06.7',
             ts timestamp DEFAULT '2026-02-28 23:59:59.999999', tz timestamptz DEFAULT '2026-02-28 23:59:59+05:30',
             da date DEFAULT 'infinity', b bytea DEFAULT '\\x00ff5c0a', u uuid DEFAULT '00000000-0000-0000-0000-000000000001',
             ip inet DEFAULT '10.0.0.1', bi bit(3) DEFAULT '101', po point DEFAULT '(1,2)', nothing text,
             twice bigint GENERATED ALWAYS AS (id * 2) STORED
         );
         INSERT INTO \"odd schema\".\"odd (table)\" (nothing) SELECT NULL FROM generate_series(1, 100);
         CREATE TABLE \"odd schema\".child () INHERITS (\"odd schema\".\"odd (table)\");
         INSERT INTO \"odd schema\".child (id) VALUES (1);",
    );
    let table = "\"odd schema\".\"odd (table)\"";
    // As somebody to whom values look otherwise.
    let database = &project.database;
    project.sql(&format!(
        "ALTER DATABASE {database} SET DateStyle = 'German, DMY'; ALTER DATABASE {database} SET TimeZone = 'Asia/Kolkata';
         ALTER DATABASE {database} SET extra_float_digits = -5; ALTER DATABASE {database} SET bytea_output = 'escape';
         ALTER DATABASE {database} SET IntervalStyle = 'iso_8601'"
    ));
    project
        .xtask(&["db-backup", "--verbose", table])
        .succeeds()
        .says("restored in a temporary table and compared");

    let role = format!("backupper_{database}");
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw' CREATEDB;
         REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
         GRANT USAGE ON SCHEMA \"odd schema\" TO {role};
         GRANT SELECT ON ALL TABLES IN SCHEMA \"odd schema\" TO {role};
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA \"odd schema\" TO {role}"
    ));
    let url = url_as(&role, "pw", database);
    project
        .xtask(&["db-backup", "--verbose", "--database-url", &url, table])
        .succeeds()
        .says("restored in a database of its own and compared");
    let hashes: Vec<Value> = backups(&project)
        .iter()
        .map(|file| {
            let name = file.strip_prefix(project.path("")).expect("inside");
            manifest(&project, &name.display().to_string())["content_hash"].clone()
        })
        .collect();
    assert_eq!(hashes.len(), 2);
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(scratch_databases(&project), "0");

    project.sql(&format!("ALTER ROLE {role} NOCREATEDB"));
    project
        .xtask(&["db-backup", "--database-url", &url, table])
        .exits(1)
        .says("there is no place to restore the backup and prove it")
        .says("GRANT TEMPORARY");
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_private_server_takes_the_scratch() {
    let project = Project::seeded();
    project
        .unconfigured_run(&["db-setup", "--no-migrate", "--users", "10"])
        .succeeds();
    let run = project.xtask(&["db-backup", "--verbose", "users"]);
    project
        .unconfigured_run(&["db-destroy", "--yes"])
        .succeeds();
    run.succeeds()
        .says("restored on the private server and compared");
}

/// What pg_dump hands over is not what the table holds.
#[test]
fn a_bad_dump_is_never_called_good() {
    let project = Project::seeded();
    let table = [
        (
            "a changed value",
            "\"$REAL\" \"$@\" | sed 's/\\tUser 77\\t/\\tUser 78\\t/'",
            "their content is not the table's",
        ),
        (
            "a swapped pair",
            "\"$REAL\" \"$@\" | sed 's/^\\([0-9]*\\)\\t\\(user5@[^\\t]*\\)\\t\\([^\\t]*\\)\\t\\([^\\t]*\\)\\t/\\1\\t\\2\\t\\4\\t\\3\\t/'",
            "their content is not the table's",
        ),
        (
            "a NULL made empty",
            "\"$REAL\" \"$@\" | sed 's/User 9\\t/\\t/'",
            "their content is not the table's",
        ),
        (
            "a lost row",
            "\"$REAL\" \"$@\" | sed '/^77\\t/d'",
            "1,199 of 1,200 rows",
        ),
        (
            "a doubled row",
            "\"$REAL\" \"$@\" | sed '/^77\\t/p'",
            "1,201 of 1,200 rows",
        ),
        (
            "no rows",
            "\"$REAL\" \"$@\" | sed '/^[0-9]*\\t/d'",
            "0 of 1,200 rows",
        ),
        ("a cut", "\"$REAL\" \"$@\" | head -c 50000", "ended early"),
        (
            "a broken row",
            "\"$REAL\" \"$@\" | sed 's/^77\\t/x77\\t/'",
            "invalid input syntax",
        ),
        (
            "a failure",
            "\"$REAL\" \"$@\" | head -c 50000; exit 3",
            "failed",
        ),
        (
            "a kill",
            "\"$REAL\" \"$@\" | head -c 50000; kill -9 $$",
            "failed",
        ),
        ("silence", "exit 0", "ended early"),
    ];
    for (what, script, says) in table {
        let folder = fake_pg_dump(&project, script);
        let run = Run::of(project.command(&["db-migrate"]).env("PG_BIN_DIR", &folder));
        let run = run.exits(1);
        assert!(run.stderr.contains(says), "{what}: {}", run.stderr);
        let run = run.says("nothing was changed");
        assert!(!run.stderr.contains("Backed up"), "{what}");
        assert_eq!(backups(&project), Vec::<PathBuf>::new(), "{what}");
        assert_eq!(
            project.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'last_login_at'"),
            "0",
            "{what}"
        );
    }
    let names: Vec<String> = entries(&project.path("backups"))
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(names, [".gitignore"]);
    // The weaker proof sees less, and says which it was.
    let folder = fake_pg_dump(&project, table[0].1);
    Run::of(
        project
            .command(&["db-backup", "--proof", "rows"])
            .env("PG_BIN_DIR", &folder),
    )
    .succeeds()
    .says("row count compared");
}

#[test]
fn a_large_table_is_counted_only_and_that_is_said() {
    let project = Project::seeded();
    let run = project
        .xtask(&["db-backup", "--proof-limit", "10kB"])
        .succeeds()
        .says("above the limit of 10.0 kB: proving its row count only");
    assert_eq!(manifest(&project, run.stdout.trim())["proof"], "rows");
}

#[test]
fn a_umask_that_takes_everything_leaves_the_owner_what_is_needed() {
    let project = Project::seeded();
    let script = "umask 777; exec \"$@\"";
    let run = Run::of(&mut project.in_shell(script, &["db-backup"])).succeeds();
    let file = run.stdout.trim();
    assert_eq!(mode(&project.path("backups")), 0o700);
    assert_eq!(mode(&project.path(file)), 0o600);
    assert_eq!(mode(&project.path(&format!("{file}.json"))), 0o600);
}

#[test]
fn a_backup_goes_through_no_symbolic_link() {
    let project = Project::seeded();
    std::fs::create_dir(project.path("else where")).expect("makes a folder");
    symlink(project.path("else where"), project.path("backups")).expect("links");
    project
        .xtask(&["db-backup"])
        .exits(1)
        .says("is a symbolic link")
        .says(&format!(
            "--backups '{}'\n",
            project.path("else where").display()
        ));
    assert_eq!(entries(&project.path("else where")), Vec::<PathBuf>::new());

    std::fs::remove_file(project.path("backups")).expect("removes");
    std::fs::create_dir(project.path("backups")).expect("makes a folder");
    chmod(0o777, project.path("backups"));
    project.xtask(&["db-backup"]).exits(1).says("chmod 700");

    chmod(0o700, project.path("backups"));
    let file = back_up(&project, "users");
    std::fs::rename(project.path(&file), project.path("moved")).expect("moves");
    symlink(project.path("moved"), project.path(&file)).expect("links");
    project
        .xtask(&["db-restore", &file])
        .exits(2)
        .says("is a symbolic link");
}

/// TRUNCATE takes rows away from a snapshot that was taken before it.
#[test]
fn between_the_dump_and_its_proof_nobody_empties_the_table() {
    let project = Project::seeded();
    let folder = fake_pg_dump(
        &project,
        "\"$REAL\" \"$@\"; touch dumped; while [ ! -e go ]; do sleep 0.05; done",
    );
    let backup = Running::of(
        project
            .command(&["db-backup", "users"])
            .env("PG_BIN_DIR", &folder),
    );
    until("pg_dump has ended", || project.path("dumped").exists());
    until("the table is locked all the same", || {
        project.value("SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass") != "0"
    });
    let truncate = "SET lock_timeout = '500ms'; TRUNCATE users CASCADE";
    let refused = project.client().batch_execute(truncate);
    project.write("go", "");
    let refused = refused.expect_err("it does not get its lock");
    assert_eq!(refused.code().map(|code| code.code()), Some("55P03"));
    backup.ends().succeeds().says("1,200 rows");
}

#[test]
fn what_a_killed_backup_has_left_is_cleaned() {
    let project = Project::seeded();
    let role = format!("killed_{}", project.database);
    let database = &project.database;
    // Without temporary tables, so that a database would be left.
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw' CREATEDB; REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}"
    ));
    let url = url_as(&role, "pw", database);
    let folder = fake_pg_dump(
        &project,
        "\"$REAL\" \"$@\" | head -c 90000; touch half; exec sleep 20",
    );
    let arguments = ["db-backup", "--database-url", &url];
    let mut child = project
        .command(&arguments)
        .env("PG_BIN_DIR", &folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    until("the dump is half way", || project.path("half").exists());
    // While it lives, what it writes is nobody else's.
    project.xtask(&["db-backup"]).succeeds();
    assert_eq!(partials(&project), 1);
    child.kill().expect("kills");
    child.wait().expect("waits");
    assert_eq!(partials(&project), 1);
    until("the server has noticed", || {
        project.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND datname = '{database}' AND application_name LIKE 'xtask%'")) == "0"
    });
    assert_ne!(scratch_databases(&project), "0");

    project
        .xtask(&arguments)
        .succeeds()
        .says("which a killed run has left");
    assert_eq!(partials(&project), 0);
    assert_eq!(
        project.value(&format!("SELECT count(*) FROM pg_database WHERE datname LIKE 'xtask\\_scratch\\_%' AND datdba = '{role}'::regrole")),
        "0"
    );
    project.xtask(&["db-backups", "--check"]).succeeds();
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

fn partials(project: &Project) -> usize {
    entries(&project.path("backups"))
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".partial"))
        .count()
}

/// A small file system at a folder, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, loudly, where this account may not mount.
    fn at(path: PathBuf, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(&path).expect("makes a folder");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=0700"),
                "tmpfs",
            ])
            .arg(&path)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(path));
        }
        println!("SKIPPED: only root can mount a small disk to fill");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_disk_without_room_is_refused_early_and_a_full_one_late() {
    let project = Project::seeded();
    {
        let Some(_disk) = SmallDisk::at(project.path("backups"), "64k") else {
            return;
        };
        project
            .xtask(&["db-migrate"])
            .exits(1)
            .says("not enough disk space for the backup")
            .says("--backups DIR");
        project
            .xtask(&["db-doctor"])
            .exits(3)
            .says("not ready: disk");
    }
    // Compressed, it takes less than its text does.
    project.sql("UPDATE users SET display_name = repeat(id::text, 50000) WHERE id <= 40");
    let Some(_disk) = SmallDisk::at(project.path("backups"), "2M") else {
        return;
    };
    let run = project
        .xtask(&["db-migrate"])
        .exits(1)
        .says("nothing was changed");
    assert!(run.stderr.contains("No space left"), "{}", run.stderr);
    assert_eq!(backups(&project), Vec::<PathBuf>::new());
    assert_eq!(partials(&project), 0);
}

#[test]
fn a_changed_a_cut_and_a_missing_backup_are_told_apart() {
    let project = Project::seeded();
    let files: Vec<String> = (0..4).map(|_| back_up(&project, "users")).collect();
    let path = |index: usize| project.path(&files[index]);
    let mut bytes = std::fs::read(path(0)).expect("reads");
    bytes[40_000] ^= 1;
    std::fs::write(path(0), &bytes).expect("writes");
    std::fs::write(path(1), &bytes[..bytes.len() - 100]).expect("writes");
    std::fs::remove_file(path(2)).expect("removes");
    let run = project
        .xtask(&["db-backups", "--check", "--format", "json"])
        .exits(3);
    let first = run.stdout.lines().next().unwrap_or_default();
    let report: Value = serde_json::from_str(first).expect("JSON");
    let state = |file: &str| {
        let backups = report["backups"].as_array().expect("a list");
        let found = backups.iter().find(|entry| entry["file"] == file);
        found
            .map(|entry| entry["state"].clone())
            .unwrap_or_default()
    };
    assert_eq!(state(&files[0]), "changed");
    assert_eq!(state(&files[1]), "cut");
    assert_eq!(state(&files[2]), "missing");
    assert_eq!(state(&files[3]), "good");
}

#[test]
fn a_backup_without_a_readable_manifest_is_found_by_the_check() {
    let project = Project::seeded();
    let files: Vec<String> = (0..3).map(|_| back_up(&project, "users")).collect();
    project.xtask(&["db-backups", "--check"]).succeeds();
    let manifest = |index: usize| project.path(&format!("{}.json", files[index]));
    std::fs::remove_file(manifest(0)).expect("removes");
    std::fs::write(manifest(1), "{").expect("writes");
    project
        .xtask(&["db-backups", "--check"])
        .exits(3)
        .says(&format!("{}: without a manifest", files[0]))
        .says(&format!("{}: without a manifest", files[1]));
}

#[test]
fn pruning_keeps_the_newest_proven_backup_of_each_table() {
    let project = Project::seeded();
    let age = |file: &str, days: i64, proof: &str| {
        let at = jiff::Timestamp::now() - Duration::from_secs(days as u64 * 24 * 3600);
        edit_manifest(&project, file, |manifest| {
            manifest["created_at"] = at.to_string().into();
            manifest["proof"] = proof.into();
        });
    };
    let files: Vec<String> = (0..6).map(|_| back_up(&project, "users")).collect();
    let sessions = back_up(&project, "sessions");
    age(&files[0], 40, "restore");
    age(&files[1], 30, "restore");
    age(&files[2], 20, "restore"); // the newest that is proven, and unharmed
    age(&files[3], 15, "restore"); // harmed
    age(&files[4], 10, "none");
    age(&files[5], 1, "none");
    age(&sessions, 90, "rows");
    let mut bytes = std::fs::read(project.path(&files[3])).expect("reads");
    bytes[40_000] ^= 1;
    std::fs::write(project.path(&files[3]), bytes).expect("writes");
    let there = || backups(&project).len();

    let run = project
        .xtask(&["db-backups", "prune", "--dry-run", "--format", "json"])
        .succeeds();
    assert_eq!(
        run.json()["deleted"],
        serde_json::json!([files[1], files[0]])
    );
    assert_eq!(there(), 7);
    project
        .xtask(&["db-backups", "prune"])
        .exits(2)
        .says("confirmation required, but stdin is not a terminal");
    assert_eq!(there(), 7);
    let run = project
        .xtask(&["db-backups", "prune", "--older-than", "35d", "--yes"])
        .succeeds();
    assert!(run.stderr.contains(&files[0]) && !run.stderr.contains(&files[1]));
    project
        .xtask(&["db-backups", "prune", "--yes"])
        .succeeds()
        .says(&format!("Keeping {}", files[2]))
        .says(&format!("Keeping {sessions}"));
    assert_eq!(there(), 5);
    project
        .xtask(&["db-backups", "prune", "--yes"])
        .succeeds()
        .says("no backup is due");

    // db-migrate reminds of those that are due.
    let newer = back_up(&project, "users");
    age(&newer, 1, "restore");
    project.xtask(&["db-migrate"]).succeeds();
    let run = project
        .xtask(&["db-backups", "prune", "--dry-run"])
        .succeeds();
    assert!(run.stderr.contains(&files[2]), "{}", run.stderr);
}

#[test]
fn a_migration_reminds_of_backups_that_are_due() {
    let project = Project::seeded();
    let file = back_up(&project, "users");
    edit_manifest(&project, &file, |manifest| {
        manifest["created_at"] = "2020-01-01T00:00:00Z".into();
    });
    let run = project.xtask(&["db-migrate"]).succeeds();
    assert!(
        run.stdout
            .contains("1 old backup may be deleted already: cargo xtask db-backups prune"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_partitioned_table_is_refused_before_anything_runs() {
    let project = Project::empty();
    project.sql(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (1)",
    );
    project
        .xtask(&["db-backup", "p"])
        .exits(1)
        .says("is a partitioned table");
    back_up(&project, "p1");
}

/// No password in the arguments of any process, nor in anything that is said.
#[test]
fn no_process_shows_the_password() {
    let project = Project::seeded();
    let seen = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if cmdlines()
                    .iter()
                    .any(|line| line.contains(server().password()))
                {
                    seen.store(true, Ordering::Relaxed);
                }
            }
        });
        // `Run` looks at what is printed.
        project.xtask(&["db-migrate", "--verbose"]).succeeds();
        let file = back_up(&project, "users");
        project.sql("DELETE FROM users WHERE id < 10");
        project
            .xtask(&["db-restore", "--verbose", &file])
            .succeeds();
        project
            .xtask(&["db-rollback", "--yes", "--verbose"])
            .succeeds();
        done.store(true, Ordering::Relaxed);
    });
    assert!(!seen.load(Ordering::Relaxed));
}

fn cmdlines() -> Vec<String> {
    entries(Path::new("/proc"))
        .iter()
        .filter_map(|path| std::fs::read(path.join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}
