//! Backups: who can read them, what stands beside them, and that their numbers are right.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{Project, Run, server, url_as};
use crate::proof::manifest;

/// Every file in the backup folder, sorted.
fn files(project: &Project) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(project.path("backups"))
        .expect("there is a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name != ".gitignore")
        .collect();
    names.sort();
    names
}

#[test]
fn backups_are_their_owners_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let project = Project::seeded();
        let script = format!("umask {umask}; exec \"$@\"");
        Run::of(&mut project.in_shell(&script, &["db-backup"])).succeeds();
        let mode = |path: PathBuf| std::fs::metadata(path).expect("is there").mode() & 0o7777;
        assert_eq!(mode(project.path("backups")), 0o700, "umask {umask}");
        for name in files(&project) {
            assert_eq!(
                mode(project.path(&format!("backups/{name}"))),
                0o600,
                "{name} with umask {umask}"
            );
        }
    }
}

#[test]
fn name_and_manifest_tell_what_the_file_is() {
    let project = Project::seeded();
    let before = Timestamp::now();
    let run = project.xtask(&["db-backup", "--format", "json"]).succeeds();
    let taken = run.json()["backups"][0].clone();
    let names = files(&project);
    let [file, json] = &names[..] else {
        panic!("two files: {names:?}")
    };
    assert_eq!(json, &format!("{file}.json"));
    assert_eq!(taken["file"], format!("backups/{file}"));

    let bytes = std::fs::read(project.path(&format!("backups/{file}"))).expect("reads");
    let sha256: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let manifest = manifest(&project, &format!("backups/{file}"));
    let fields: Vec<&String> = manifest.as_object().expect("an object").keys().collect();
    assert_eq!(
        fields,
        [
            "bytes",
            "columns",
            "command",
            "content_hash",
            "created_at",
            "database",
            "database_oid",
            "file",
            "host",
            "pg_dump_version",
            "port",
            "primary_key",
            "proof",
            "rows",
            "run_started_at",
            "sequences",
            "server_version",
            "sha256",
            "system_identifier",
            "table",
            "table_oid",
            "timeline",
            "wal_lsn"
        ]
    );
    for (field, expected) in [
        ("file", Value::from(file.as_str())),
        ("table", "public.users".into()),
        ("rows", 1_200.into()),
        ("bytes", bytes.len().into()),
        ("sha256", sha256.as_str().into()),
        ("proof", "restore".into()),
        ("database", project.database.as_str().into()),
        ("host", "127.0.0.1".into()),
        ("port", server().port().into()),
    ] {
        assert_eq!(manifest[field], expected, "{field}");
    }
    for field in ["rows", "bytes", "sha256", "table", "proof"] {
        assert_eq!(taken[field], manifest[field], "{field}");
    }
    let created_at: Timestamp = manifest["created_at"]
        .as_str()
        .expect("text")
        .parse()
        .expect("RFC 3339");
    assert!(created_at.as_second() - before.as_second() <= 5);
    // The name's stamp is the snapshot's second, in UTC.
    assert_eq!(
        *file,
        format!("users_backup_{}.sql", created_at.strftime("%Y%m%d_%H%M%S"))
    );
    let password = server().password();
    assert!(!manifest.to_string().contains(password));

    let listed = project
        .xtask(&["db-backups", "--format", "json"])
        .succeeds()
        .json();
    assert_eq!(listed["backups"][0]["sha256"], sha256.as_str());
}

#[test]
fn rows_are_counted_right_however_odd_they_are() {
    let project = Project::empty();
    project.sql(
        r"CREATE TABLE odd (t text);
          INSERT INTO odd VALUES (''), (NULL), (E'\\.'), (E'a\nb'), (E'\\.\n\\.'), (E'\r\n'), (E'\t'), (E'\\'),
              (E'COPY public.odd (t) FROM stdin;\n'), ('-- PostgreSQL database dump complete'), ('ünïcödé 🐘'), (E'\\N'),
              (repeat('x', 1000000)), (repeat(E'\n', 300000));
          CREATE TABLE none (t text);
          CREATE TABLE bare ();
          INSERT INTO bare SELECT FROM generate_series(1, 3);",
    );
    let run = project
        .xtask(&["db-backup", "odd", "none", "bare", "--format", "json"])
        .succeeds();
    let rows: Vec<Value> = run.json()["backups"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|backup| backup["rows"].clone())
        .collect();
    assert_eq!(rows, [14, 0, 3]);
}

#[test]
fn names_that_need_quotes_are_backed_up_too() {
    let project = Project::empty();
    project.sql(
        r#"CREATE SCHEMA "Audit.Log"; CREATE TABLE "Audit.Log"."we/ird ""name""* " (id int); INSERT INTO "Audit.Log"."we/ird ""name""* " VALUES (1);
           CREATE TABLE "Users" (id int); CREATE TABLE users (id int); INSERT INTO "Users" VALUES (1), (2);"#,
    );
    let run = project
        .xtask(&[
            "db-backup",
            r#""Audit.Log"."we/ird ""name""* ""#,
            "\"Users\"",
            "--format",
            "json",
        ])
        .succeeds();
    let backups = run.json()["backups"].clone();
    assert_eq!(
        (&backups[0]["rows"], &backups[1]["rows"]),
        (&1.into(), &2.into())
    );
    let file = project.path(backups[0]["file"].as_str().expect("text"));
    assert_eq!(file.parent(), Some(project.path("backups").as_path()));
    assert_eq!(files(&project).len(), 4);
}

#[test]
fn a_name_that_exists_is_never_written_over() {
    let project = Project::empty();
    project.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| project.xtask(&["db-backup", "t"])))
            .collect();
        for run in runs {
            run.join().expect("no panic").succeeds();
        }
    });
    // Four dumps and four manifests, each pair of one name, and no partial file.
    let names = files(&project);
    assert_eq!(names.len(), 8, "{names:?}");
    for name in names.iter().filter(|name| name.ends_with(".sql")) {
        assert!(name.starts_with("t_backup_"), "{name}");
        assert_eq!(
            manifest(&project, &format!("backups/{name}"))["file"],
            name.as_str()
        );
    }
}

#[test]
fn a_backup_that_fails_leaves_nothing() {
    let project = Project::seeded();
    let role = format!("{}_reader", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'reader'; GRANT SELECT ON users, _sqlx_migrations TO {role}"
    ));
    let url = url_as(&role, "reader", &project.database);
    let back_up = || Run::of(project.command(&["db-backup"]).env("DATABASE_URL", &url));
    let right = format!("GRANT SELECT ON public.users, public.users_id_seq TO {role}");
    back_up().exits(1).says(&right);
    // With these rights it begins; that not every row may be seen, the server says to pg_dump.
    project.sql(&format!(
        "{right}; ALTER TABLE users ENABLE ROW LEVEL SECURITY"
    ));
    back_up().exits(1).says("cannot back up `public.users`");
    assert_eq!(files(&project), Vec::<String>::new());
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn no_program_of_a_run_has_the_password_among_its_arguments() {
    let project = Project::seeded();
    project.write(
        "migrations/20260101000000_slow.up.sql",
        "SELECT pg_sleep(0.3);\n",
    );
    project.write(
        "migrations/20260101000000_slow.down.sql",
        "SELECT pg_sleep(0.3);\n",
    );
    let password = server().password();
    let ended = AtomicBool::new(false);
    let (mut psql, mut pg_dump) = (0, 0);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let run = project.xtask(&["db-migrate"]);
            ended.store(true, Ordering::SeqCst);
            run
        });
        while !ended.load(Ordering::SeqCst) {
            for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
                let Ok(arguments) = std::fs::read(entry.path().join("cmdline")) else {
                    continue;
                };
                let arguments = String::from_utf8_lossy(&arguments).into_owned();
                if arguments.contains(&project.database) {
                    assert!(!arguments.contains(password), "{arguments}");
                    psql += u32::from(arguments.contains("/psql\0"));
                    pg_dump += u32::from(arguments.contains("/pg_dump\0"));
                }
            }
        }
        run.join().expect("no panic").succeeds();
    });
    assert!(
        psql > 0 && pg_dump > 0,
        "both were seen: {psql} and {pg_dump}"
    );
}

#[test]
fn without_a_name_it_takes_what_migrations_ask_for_and_says_what_that_leaves_out() {
    let project = Project::seeded();
    project
        .xtask(&["db-backup"])
        .succeeds()
        .says("Backed up public.users")
        .says("Not chosen public.sessions: name them");
    let project = Project::empty();
    project.write("migrations/1_items.up.sql", "CREATE TABLE items (id int);");
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-backup"])
        .exits(2)
        .says("no table is named")
        .says("public.items")
        .says("cargo xtask db-backup TABLE");
}
