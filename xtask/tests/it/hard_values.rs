//! Values and names that are hard to back up: what is good is proven, and nobody's code runs for it.

use std::path::PathBuf;

use crate::common::{Project, Run, admin, chmod, server};
use crate::proof::{back_up, backups, fake_pg_dump, manifest};

/// `x IS NOT NULL` is false for a row with a NULL in it.
#[test]
fn composite_values_with_a_null_in_them_are_compared() {
    let project = Project::empty();
    project.sql(
        "CREATE TYPE pair AS (a int, b text);
         CREATE TYPE nested AS (p pair, at timestamptz, raw bytea, ps pair[]);
         CREATE DOMAIN strict_pair AS pair CHECK ((value).a IS DISTINCT FROM 7);
         CREATE TABLE t (id int PRIMARY KEY, p pair, n nested, d strict_pair, ds strict_pair[]);
         INSERT INTO t VALUES
             (1, ROW(1, NULL), ROW(ROW(1, NULL), now(), '\\x00ff', ARRAY[ROW(NULL, 'x')::pair]), ROW(1, NULL), ARRAY[ROW(1, NULL)::strict_pair]),
             (2, ROW(NULL, NULL), ROW(NULL, NULL, NULL, NULL), ROW(NULL, NULL), '{NULL}'),
             (3, NULL, NULL, NULL, NULL),
             (4, ROW(1, ''), ROW(ROW(2, 'y'), '2026-02-28 12:00+05:30', '\\x', '{}'), ROW(2, 'z'), '{}');
         ALTER DATABASE CURRENT SET TimeZone = 'Asia/Kolkata'"
            .replace("CURRENT", &project.database)
            .as_str(),
    );
    project.sql(&format!(
        "ALTER DATABASE {} SET bytea_output = 'escape'",
        project.database
    ));
    let file = back_up(&project, "t");
    let values: Vec<_> = (0..5)
        .map(|n| manifest(&project, &file)["columns"][n]["values"].clone())
        .collect();
    assert_eq!(values, [4, 3, 3, 3, 3]);
    // What pg_dump hands over is not what the table holds.
    for change in [
        "s/^1\\t(1,)/1\\t\\\\N/",
        "s/^2\\t(,)/2\\t\\\\N/",
        "s/^3\\t\\\\N/3\\t(,)/",
        "s/^4\\t(1,\"\")/4\\t(1,)/",
    ] {
        let folder = fake_pg_dump(&project, &format!("\"$REAL\" \"$@\" | sed '{change}'"));
        Run::of(
            project
                .command(&["db-backup", "t"])
                .env("PG_BIN_DIR", &folder),
        )
        .exits(1)
        .says("their content is not the table's");
    }
    assert_eq!(backups(&project).len(), 1);
}

/// Whoever owns a domain may write anything into its CHECK; an administrator takes the backup.
#[test]
fn a_backup_runs_nobodys_code() {
    let project = Project::empty();
    project.sql(
        "CREATE FUNCTION trap() RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE DOMAIN word AS text CHECK (trap());
         CREATE DOMAIN number AS int CHECK (trap());
         CREATE TYPE mood AS ENUM ('glad', 'sad');
         CREATE FUNCTION as_text(mood) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM trap(); RETURN ''x''; END';
         CREATE CAST (mood AS text) WITH FUNCTION as_text(mood) AS IMPLICIT;
         CREATE TYPE pair AS (a number, w word);
         CREATE DOMAIN pairs AS pair CHECK (trap());
         CREATE TYPE numbers AS RANGE (subtype = int);
         CREATE DOMAIN spans AS numbers CHECK (trap());
         CREATE TABLE t (id int PRIMARY KEY, w word, n number, ns number[], m mood, p pair, ps pairs, s spans,
                         made word DEFAULT 'made', doubled text GENERATED ALWAYS AS (id::text) STORED, CHECK (trap()));
         INSERT INTO t VALUES (1, 'w', 2, '{3,4}', 'glad', ROW(5, 'v'), ROW(6, NULL), '[7,8)');
         CREATE OR REPLACE FUNCTION trap() RETURNS bool LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION ''ran as %'', current_user; END'",
    );
    for arguments in [
        &["db-backup", "t"] as &[_],
        &["db-backup", "t", "--proof", "rows"],
    ] {
        let run = project.xtask(arguments);
        assert!(!run.stderr.contains("ran as"), "{}", run.stderr);
        run.succeeds();
    }
    // Where the scratch is a database of its own.
    let role = format!("careful_{}", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw' CREATEDB; GRANT SELECT ON t TO {role};
         REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC",
        project.database
    ));
    let url = crate::common::url_as(&role, "pw", &project.database);
    project
        .xtask(&["db-backup", "t", "--verbose", "--database-url", &url])
        .succeeds()
        .says("restored in a database of its own and compared");
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_database_that_reads_values_otherwise_can_be_backed_up_and_restored() {
    let project = Project::empty();
    let database = &project.database;
    project.sql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, words text[], x xml);
         INSERT INTO t VALUES (1, ARRAY['NULL', NULL, 'null'], '<a/>'), (2, '{{}}', 'no document<b/>');
         ALTER DATABASE {database} SET array_nulls = off; ALTER DATABASE {database} SET xmloption = document"
    ));
    // Also where the address says so, which libpq lets win over the environment.
    let url = format!(
        "{}?options=-carray_nulls%3Doff%20-cTimeZone%3DAsia/Kolkata",
        project.url
    );
    project
        .xtask(&["db-backup", "t", "--database-url", &url])
        .succeeds();
    let file = back_up(&project, "t");
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM t";
    let before = project.value(rows);
    project.sql("DELETE FROM t");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(project.value(rows), before);
}

#[test]
fn bytes_of_no_encoding_are_backed_up_and_restored() {
    let mut project = Project::empty();
    let database = format!("{}_ascii", project.database);
    project.sql(&format!(
        "CREATE DATABASE {database} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    ));
    project.url = server().url(&database);
    let mut client = admin(&database);
    client
        .batch_execute(
            r"CREATE TABLE t (id int PRIMARY KEY, v text);
              INSERT INTO t VALUES (1, E'caf\xe9'), (2, E'caf\xc3\xa9'), (3, E'\xff\xfe\\')",
        )
        .expect("the SQL runs");
    let mut value = || {
        let row = client.query_one(
            "SELECT string_agg(encode(convert_to(v, 'SQL_ASCII'), 'hex'), ' ' ORDER BY id) FROM t",
            &[],
        );
        row.expect("the query runs").get::<_, String>(0)
    };
    let before = value();
    let file = back_up(&project, "t");
    admin(&database)
        .batch_execute("DELETE FROM t WHERE id = 1; UPDATE t SET v = '' WHERE id = 3")
        .expect("the SQL runs");
    project.xtask(&["db-restore", &file, "--yes"]).succeeds();
    assert_eq!(value(), before);
    drop(client);
    let drop = format!("DROP DATABASE {database} WITH (FORCE)");
    admin("postgres").batch_execute(&drop).expect("drops");
}

#[test]
fn a_name_may_hold_a_newline() {
    let project = Project::empty();
    project.sql(
        "CREATE TABLE \"two\nlines\" (id serial PRIMARY KEY, \"a\n(b) FROM stdin;\n\" text);
         INSERT INTO \"two\nlines\" (\"a\n(b) FROM stdin;\n\") SELECT n FROM generate_series(1, 50) AS n",
    );
    let file = back_up(&project, "\"two\nlines\"");
    assert_eq!(file.lines().count(), 1, "{file}");
    project.sql("DELETE FROM \"two\nlines\" WHERE id = 7");
    project.xtask(&["db-restore", &file]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM \"two\nlines\""), "50");
}

#[test]
fn a_full_disk_under_the_report_is_not_that_of_the_backups() {
    let project = Project::seeded();
    let run = project
        .xtask(&["db-migrate", "--report", "/dev/full"])
        .exits(1)
        .says("cannot write the report `/dev/full`");
    assert!(!run.stderr.contains("--backups"), "{}", run.stderr);
}

#[test]
fn a_backup_folder_of_another_user_is_refused() {
    let project = Project::seeded();
    std::fs::create_dir(project.path("backups")).expect("makes a folder");
    chmod(0o700, project.path("backups"));
    if std::os::unix::fs::chown(project.path("backups"), Some(65_534), None).is_err() {
        println!("SKIPPED: only root can give a folder away");
        return;
    }
    project
        .xtask(&["db-backup"])
        .exits(1)
        .says("belongs to another user")
        .says("--backups DIR");
    assert_eq!(backups(&project), Vec::<PathBuf>::new());
}
