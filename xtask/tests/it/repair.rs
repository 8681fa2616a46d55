//! `db-repair`: an applied file that was edited is recorded again only if it is the same SQL as what was
//! applied, which git has; else the way back is shown. Every repository is a real one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::common::{Project, Run, blocker, long, tool, url_as};
use crate::failing::skipped;
use crate::terminal::Terminal;

const UP: &str = "migrations/5_five.up.sql";
const APPLIED: &str = "CREATE TABLE five (\n    a int\n);\n";
/// The same, laid out and commented otherwise.
const SAME: &str = "-- (c) 2026 Us\ncreate table FIVE (a INT);\r\n";
const OTHER: &str = "CREATE TABLE five (\n    a bigint\n);\n";

/// git in this workspace, with its output.
#[track_caller]
fn git(project: &Project, arguments: &[&str]) -> String {
    git_in(project, &project.path(""), arguments)
}

#[track_caller]
fn git_in(project: &Project, folder: &Path, arguments: &[&str]) -> String {
    let output = git_command(project, folder, arguments).output();
    let output = output.expect("git starts");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn git_command(project: &Project, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = project.program("git");
    command
        .current_dir(folder)
        .args(["-c", "user.name=N", "-c", "user.email=n@x"])
        .args(["-c", "init.defaultBranch=main", "-c", "core.autocrlf=false"])
        .args(arguments);
    command
}

/// Commits all that is there.
#[track_caller]
fn commit(project: &Project) {
    git(project, &["add", "--all", "."]);
    git(project, &["commit", "--quiet", "--allow-empty", "-m", "c"]);
}

/// A workspace in git, with nothing applied.
fn repository() -> Project {
    let project = Project::empty();
    git(&project, &["init", "--quiet"]);
    project
}

/// A migration that was committed and applied, and then this was written over it.
fn edited(now: &str) -> Project {
    let project = repository();
    project.write(UP, APPLIED);
    commit(&project);
    project.xtask(&["db-migrate"]).succeeds();
    project.write(UP, now);
    project
}

/// Puts rows into the history, as if these bytes had been applied under these versions.
fn record(project: &Project, rows: &[(i64, &[u8])]) {
    project.sql(
        "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
         installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
         checksum bytea NOT NULL, execution_time bigint NOT NULL)",
    );
    for (version, bytes) in rows {
        project
            .client()
            .execute(
                "INSERT INTO _sqlx_migrations VALUES ($1, 'x', now(), true, sha384($2), 1)",
                &[version, bytes],
            )
            .expect("inserts");
    }
}

fn checksums(project: &Project) -> String {
    project.value(
        "SELECT string_agg(version || ' ' || success || ' ' || encode(checksum, 'hex'), ', ' ORDER BY version)
         FROM _sqlx_migrations",
    )
}

/// Runs the command of the hint that begins so, as a person who pastes it.
#[track_caller]
fn paste(project: &Project, run: &Run, purpose: &str) {
    let mut lines = run.stderr.lines();
    let line = lines.find_map(|line| line.split_once(&format!("{purpose}: ")));
    let (_, command) = line.unwrap_or_else(|| panic!("no `{purpose}` in\n{}", run.stderr));
    Run::of(project.program("/bin/sh").args(["-ec", command])).succeeds();
}

#[test]
fn comments_and_layout_are_shown_and_recorded_after_a_yes() {
    let project = edited(SAME);
    let before = checksums(&project);
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says(": cargo xtask db-repair");
    project
        .xtask(&["db-status"])
        .succeeds()
        .says("how to go on: cargo xtask db-repair");
    project
        .xtask(&["db-repair", "--dry-run"])
        .succeeds()
        .shows("--- applied/5_five.up.sql\n+++ now/5_five.up.sql\n")
        .shows("\n+-- (c) 2026 Us\n")
        .says("is the SQL that was applied")
        .says("nothing was recorded");
    assert_eq!(checksums(&project), before);
    // Nobody is there to say yes.
    project
        .xtask(&["db-repair"])
        .exits(2)
        .says("the question is: Record 1 new checksum in the history of `")
        .says("hint: cargo xtask db-repair --yes");
    assert_eq!(checksums(&project), before);
    project
        .xtask(&["db-repair", "--yes"])
        .succeeds()
        .says("Recorded 5: SHA-384 `");
    assert_ne!(checksums(&project), before);
    project.xtask(&["db-status", "--check"]).succeeds();
    project
        .xtask(&["db-repair", "--yes"])
        .succeeds()
        .says("nothing to repair");
    assert_eq!(project.value("SELECT count(*) FROM _sqlx_migrations"), "1");
}

#[test]
fn a_person_is_asked_after_the_difference_was_shown() {
    let project = edited(SAME);
    let before = checksums(&project);
    for (answer, status, says) in [("n\r", 1, "nothing was changed"), ("y\r", 0, "Recorded")] {
        let Some(mut terminal) = Terminal::run(&project.command(&["db-repair"])) else {
            return skipped("no `script` to give a program a terminal");
        };
        terminal.read_until("+-- (c) 2026 Us");
        terminal.read_until("[y/N] ");
        assert_eq!(checksums(&project), before);
        terminal.press(answer);
        let (code, said) = terminal.end();
        assert_eq!(code, status, "{said}");
        assert!(said.contains(says), "{said}");
    }
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn another_edit_is_shown_and_refused_with_the_way_back() {
    let project = edited(OTHER);
    let before = checksums(&project);
    let run = project.xtask(&["db-repair", "--yes"]).exits(3);
    let run = run
        .shows("\n-    a int\n+    a bigint\n")
        .says("is not what was applied: at 2:7, `bigint` was `int`")
        .says("nothing was changed")
        .says("hint: make the change a migration of its own");
    assert_eq!(checksums(&project), before);
    paste(&project, &run, "put the file back as it was applied");
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn one_migration_is_recorded_beside_another_that_is_refused() {
    let project = edited(SAME);
    project.write("migrations/6_six.up.sql", "CREATE TABLE six ();\n");
    record(&project, &[(6, b"CREATE TABLE six (a int);\n")]);
    let six =
        project.value("SELECT encode(checksum, 'hex') FROM _sqlx_migrations WHERE version = 6");
    let before = checksums(&project);
    project
        .xtask(&["db-repair", "6", "--yes"])
        .exits(3)
        .says("nothing was changed");
    assert_eq!(checksums(&project), before);
    let run = project
        .xtask(&["db-repair", "--yes", "--format", "json"])
        .exits(3);
    let report = run.json();
    assert_eq!(report["repaired"][0]["version"], 5);
    let to = report["repaired"][0]["to"].as_str().expect("text");
    assert_eq!(report["refused"][0]["version"], 6);
    assert_eq!(report["refused"][0]["found_in"], serde_json::Value::Null);
    assert!(
        run.stderr.contains("1 new checksum recorded"),
        "{}",
        run.stderr
    );
    assert_eq!(checksums(&project), format!("5 true {to}, 6 true {six}"));
}

/// What was applied, what the file is now, and what is said if it is refused.
type Edit<'a> = (&'a str, &'a [u8], &'a [u8], Option<&'a str>);

/// How the tokens compare is a table of `migration::sql`; here is what counts beside them.
const EDITS: [Edit<'static>; 20] = [
    (
        "a licence header",
        b"SELECT 1;\n",
        b"/* (c) */\nSELECT 1;\n",
        None,
    ),
    (
        "line ends",
        b"SELECT 1,\n2;\n",
        b"SELECT 1,\r\n2;\r\n",
        None,
    ),
    (
        "line ends back",
        b"SELECT 3,\r\n2;\r\n",
        b"SELECT 3,\n2;\n",
        None,
    ),
    ("the case of words", b"SELECT 4;", b"select 4;", None),
    (
        "a comment beside no-transaction",
        b"-- no-transaction\nSELECT 5;",
        b"-- no-transaction\n-- slow\nSELECT 5;",
        None,
    ),
    (
        "what only reads like it",
        b"SELECT 6;",
        b"--no-transaction\nSELECT 6;",
        None,
    ),
    (
        "no-transaction is added",
        b"SELECT 7;",
        b"-- no-transaction\nSELECT 7;",
        Some("the first line was not `-- no-transaction`"),
    ),
    (
        "and removed",
        b"-- no-transaction\nSELECT 8;",
        b"SELECT 8;",
        Some("the first line was `-- no-transaction`"),
    ),
    (
        "it moves behind a header",
        b"-- no-transaction\nSELECT 9;",
        b"-- (c)\n-- no-transaction\nSELECT 9;",
        Some("the first line was `-- no-transaction`"),
    ),
    (
        "a directive",
        b"SELECT 10;",
        b"-- xtask: lossless\nSELECT 10;",
        Some("at 1:1, `xtask: lossless` was `SELECT`"),
    ),
    (
        "two constants that were one",
        b"SELECT 'a'\n'b';",
        b"SELECT 'a' 'b';",
        Some("the white space before `'b'` changes what it means"),
    ),
    (
        "two operators that were one",
        b"SELECT 1 <= 2;",
        b"SELECT 1 < = 2;",
        Some("the white space before `=` changes what it means"),
    ),
    (
        "line ends in a body",
        b"DO $$BEGIN\nEND$$;",
        b"DO $$BEGIN\r\nEND$$;",
        Some("`$$BEGIN"),
    ),
    (
        "a comment in a body",
        b"DO $$BEGIN END$$;",
        b"DO $$BEGIN /**/ END$$;",
        Some("was `$$BEGIN END$$`"),
    ),
    (
        "a byte order mark",
        b"SELECT 15;",
        b"\xEF\xBB\xBFSELECT 15;",
        Some("it begins with a byte order mark"),
    ),
    (
        "another encoding",
        b"SELECT 16; -- \xC3\xA9",
        b"SELECT 16; -- \xE9",
        Some("it is not UTF-8"),
    ),
    (
        "what ends nowhere",
        b"SELECT 17;",
        b"SELECT 17; /*",
        Some("the block comment opened here is never closed"),
    ),
    (
        "rows",
        b"COPY t FROM stdin;\na b\n",
        b"COPY t FROM stdin;\na  b\n",
        Some("cannot be compared: `COPY … FROM STDIN` needs rows"),
    ),
    (
        "what changes what is quoted",
        b"SET standard_conforming_strings = off; SELECT 19;",
        b"SET standard_conforming_strings = off; SELECT /**/ 19;",
        Some("changes `standard_conforming_strings`"),
    ),
    (
        "a command of psql",
        b"\\set a 1\nSELECT 20;",
        b"\\set a 1\n\nSELECT 20;",
        Some("is a command of psql, not SQL"),
    ),
];

#[test]
fn what_changes_how_a_file_runs_is_no_comment() {
    let project = repository();
    for (version, (_, applied, ..)) in (1..).zip(&EDITS) {
        project.write(&format!("migrations/{version}_x.up.sql"), applied);
        record(&project, &[(version, applied)]);
    }
    commit(&project);
    for (version, (_, _, now, _)) in (1..).zip(&EDITS) {
        project.write(&format!("migrations/{version}_x.up.sql"), now);
    }
    let run = project
        .xtask(&["db-repair", "--dry-run", "--format", "json"])
        .exits(3);
    let report = run.json();
    let repaired = report["repaired"].as_array().expect("a list");
    let refused = report["refused"].as_array().expect("a list");
    for (version, (what, _, _, why)) in (1..).zip(&EDITS) {
        let is = |entry: &&serde_json::Value| entry["version"] == version;
        let refusal = refused
            .iter()
            .find(is)
            .map(|entry| entry["why"].as_str().expect("text"));
        assert_eq!(
            repaired.iter().any(|entry| is(&entry)),
            why.is_none(),
            "{what}: {refusal:?}"
        );
        match (why, refusal) {
            (Some(why), Some(refusal)) => assert!(refusal.contains(why), "{what}: {refusal}"),
            (None, None) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    // And every way back leads back.
    let run = project.xtask(&["db-repair", "--dry-run"]).exits(3);
    for line in run
        .stderr
        .lines()
        .filter(|line| line.contains("put the file back"))
    {
        let (_, command) = line.split_once("applied: ").expect("a command");
        Run::of(project.program("/bin/sh").args(["-ec", command])).succeeds();
    }
    project.xtask(&["db-repair", "--yes"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
}

/// Where what was applied may be; each makes a repository that has it there alone.
type Place = (&'static str, fn(&Project));

fn amend(project: &Project) {
    commit(project);
    project.write(UP, SAME);
    git(
        project,
        &["commit", "--quiet", "--all", "--amend", "-m", "c"],
    );
}

fn on_a_branch(project: &Project) {
    commit(project);
    git(project, &["checkout", "--quiet", "--orphan", "other"]);
    project.write(UP, SAME);
    commit(project);
}

fn only_in_the_merge(project: &Project) {
    project.write(UP, "CREATE TABLE five ();\n");
    commit(project);
    git(project, &["checkout", "--quiet", "-b", "side"]);
    project.write("a", "a");
    commit(project);
    git(project, &["checkout", "--quiet", "main"]);
    project.write("b", "b");
    commit(project);
    git(project, &["merge", "--quiet", "--no-commit", "side"]);
    project.write(UP, APPLIED);
    commit(project);
    project.write(UP, SAME);
    commit(project);
}

const PLACES: [Place; 13] = [
    ("an older commit", |project| {
        commit(project);
        project.write(UP, SAME);
        commit(project);
    }),
    ("another branch", on_a_branch),
    ("a tag", |project| {
        commit(project);
        git(project, &["tag", "old"]);
        git(project, &["checkout", "--quiet", "--orphan", "other"]);
        project.write(UP, SAME);
        commit(project);
        git(project, &["branch", "--quiet", "-D", "main"]);
        git(project, &["reflog", "expire", "--expire=now", "--all"]);
    }),
    ("a reflog", amend),
    ("the stash before the last", |project| {
        project.write(UP, "");
        commit(project);
        project.write(UP, APPLIED);
        git(project, &["stash", "--quiet"]);
        project.write(UP, "x");
        git(project, &["stash", "--quiet"]);
    }),
    ("a merge", only_in_the_merge),
    ("another worktree, on no branch", |project| {
        project.write("a", "");
        git(project, &["add", "a"]);
        git(project, &["commit", "--quiet", "-m", "c"]);
        git(project, &["worktree", "add", "--quiet", "--detach", "tree"]);
        project.write("tree/migrations/5_five.up.sql", APPLIED);
        git_in(project, &project.path("tree"), &["add", "."]);
        git_in(
            project,
            &project.path("tree"),
            &["commit", "--quiet", "-m", "c"],
        );
    }),
    ("another name", |project| {
        project.write("migrations/005_old name, \"quoted\" größe.sql", APPLIED);
        std::fs::remove_file(project.path(UP)).expect("removes");
        commit(project);
        std::fs::remove_file(project.path("migrations/005_old name, \"quoted\" größe.sql"))
            .expect("removes");
    }),
    ("another folder", |project| {
        project.write("db/old/5_five.up.sql", APPLIED);
        std::fs::remove_file(project.path(UP)).expect("removes");
        commit(project);
        git(project, &["rm", "--quiet", "-r", "db"]);
        commit(project);
    }),
    ("another version, committed", |project| {
        project.write("migrations/50_five.up.sql", APPLIED);
        std::fs::remove_file(project.path(UP)).expect("removes");
        commit(project);
        std::fs::remove_file(project.path("migrations/50_five.up.sql")).expect("removes");
    }),
    ("git, with other line ends", |project| {
        project.write(UP, APPLIED.replace('\n', "\r\n"));
        commit(project);
    }),
    ("packs", |project| {
        amend(project);
        git(project, &["gc", "--quiet"]);
    }),
    ("what a replacement hides", |project| {
        commit(project);
        project.write("x", "x");
        let (old, new) = (
            git(project, &["hash-object", UP]),
            git(project, &["hash-object", "-w", "x"]),
        );
        git(project, &["replace", &old, &new]);
    }),
];

#[test]
fn what_was_applied_is_found_wherever_git_has_it() {
    for format in ["sha1", "sha256"] {
        for (place, prepare) in PLACES {
            let project = Project::empty();
            git(
                &project,
                &["init", "--quiet", &format!("--object-format={format}")],
            );
            project.write(UP, APPLIED);
            record(&project, &[(5, APPLIED.as_bytes())]);
            prepare(&project);
            project.write(UP, SAME);
            let run = project.xtask(&["db-repair", "--yes"]);
            assert_eq!(run.status, 0, "{place}, {format}:\n{}", run.stderr);
            project.xtask(&["db-status", "--check"]).succeeds();
        }
    }
}

#[test]
fn a_file_whose_own_line_ends_are_all_that_differs_needs_no_git() {
    let project = Project::empty();
    project.write(UP, APPLIED.replace('\n', "\r\n"));
    project.xtask(&["db-migrate"]).succeeds();
    project.write(UP, APPLIED);
    project
        .xtask(&["db-repair", "--yes"])
        .succeeds()
        .shows("only line ends differ, CRLF when it was applied, LF now");
    project.xtask(&["db-status", "--check"]).succeeds();
    // In a string they are part of it.
    let body = "DO $$BEGIN\r\nEND$$;\r\n";
    project.write("migrations/6_six.up.sql", body);
    project.xtask(&["db-migrate"]).succeeds();
    project.write("migrations/6_six.up.sql", body.replace('\r', ""));
    let run = project.xtask(&["db-repair", "--yes"]).exits(3);
    paste(&project, &run, "put the file back as it was applied");
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn a_workspace_may_be_a_folder_of_the_repository_and_its_migrations_a_link() {
    let project = Project::empty();
    let workspace = project.path("my work/ö");
    std::fs::create_dir_all(workspace.join("sql")).expect("makes folders");
    std::fs::write(workspace.join("Cargo.lock"), "").expect("writes");
    std::os::unix::fs::symlink("sql", workspace.join("migrations")).expect("links");
    let up = workspace.join("sql/5_it's a \"name\".up.sql");
    std::fs::write(&up, APPLIED).expect("writes");
    git(&project, &["init", "--quiet"]);
    commit(&project);
    let xtask = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        Run::of(command.current_dir(&workspace))
    };
    xtask(&["db-migrate"]).succeeds();
    std::fs::write(&up, OTHER).expect("writes");
    let run = xtask(&["db-repair", "--yes"]).exits(3);
    let line = run
        .stderr
        .lines()
        .find_map(|line| line.split_once("as it was applied: "));
    let (_, command) = line.expect("a command");
    Run::of(
        project
            .program("/bin/sh")
            .args(["-ec", command])
            .current_dir(&workspace),
    )
    .succeeds();
    xtask(&["db-status", "--check"]).succeeds();
    // Gone, it comes back with all that belongs to it.
    std::fs::remove_file(&up).expect("removes");
    std::fs::write(workspace.join("sql/6_six.up.sql"), "SELECT 6;").expect("writes");
    let run = xtask(&["db-repair"])
        .exits(3)
        .says("it is in `main`, as `my work/ö/sql/5_it's a \"name\".up.sql`");
    let line = run
        .stderr
        .lines()
        .find_map(|line| line.split_once("bring it back: "));
    let (_, command) = line.expect("a command");
    Run::of(
        project
            .program("/bin/sh")
            .args(["-ec", command])
            .current_dir(&workspace),
    )
    .succeeds();
    assert_eq!(std::fs::read_to_string(&up).expect("is there"), APPLIED);
}

#[test]
fn neither_a_hook_nor_a_persons_settings_lead_git_astray() {
    let project = edited(SAME);
    let other = Project::empty();
    git(&other, &["init", "--quiet"]);
    for (name, value) in [
        ("diff.external", "false"),
        ("diff.orderFile", "/nowhere"),
        ("diff.noprefix", "true"),
        ("diff.renames", "copies"),
        ("color.ui", "always"),
        ("core.pager", "false"),
        ("core.quotePath", "false"),
        ("core.attributesFile", "~/attributes"),
        ("log.showSignature", "true"),
        ("alias.diff-tree", "!false"),
        ("pager.diff", "true"),
    ] {
        git(&project, &["config", "--global", name, value]);
    }
    project.write("attributes", "*.sql binary diff=x\n");
    git(
        &project,
        &["config", "--global", "diff.x.textconv", "false"],
    );
    let mut command = project.command(&["db-repair", "--dry-run"]);
    let folder = other.path(".git");
    command
        .env("GIT_DIR", &folder)
        .env("GIT_WORK_TREE", other.path(""))
        .env("GIT_INDEX_FILE", folder.join("index"))
        .env("GIT_OBJECT_DIRECTORY", folder.join("objects"))
        .env("GIT_PREFIX", "nowhere/")
        .env("GIT_EXTERNAL_DIFF", "false")
        .env("GIT_LITERAL_PATHSPECS", "1");
    Run::of(&mut command)
        .succeeds()
        .shows("--- applied/5_five.up.sql\n+++ now/5_five.up.sql\n@@ ");
    // As git itself starts it before a commit.
    git(
        &project,
        &["config", "--global", "--unset", "diff.orderFile"],
    );
    let program = env!("CARGO_BIN_EXE_xtask");
    project.write(
        ".git/hooks/pre-commit",
        format!(
            "#!/bin/sh\nDATABASE_URL='{}' exec '{program}' db-repair --yes",
            project.url
        ),
    );
    crate::common::chmod(0o755, project.path(".git/hooks/pre-commit"));
    git(&project, &["commit", "--quiet", "-m", "header", UP]);
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn where_git_cannot_say_it_that_is_said_with_a_way_out() {
    // No repository.
    let project = Project::empty();
    project.write(UP, SAME);
    record(&project, &[(5, APPLIED.as_bytes())]);
    project
        .xtask(&["db-repair", "--yes"])
        .exits(1)
        .says("is in no git repository")
        .says("hint: ");

    // No commit, and nothing staged.
    git(&project, &["init", "--quiet"]);
    project
        .xtask(&["db-repair", "--yes"])
        .exits(3)
        .says("was not found: looked in git at 0 versions of migration files, in all branches, tags, stashes and reflogs")
        .says("git fetch --all");

    // Other versions of it alone.
    commit(&project);
    project
        .xtask(&["db-repair", "--yes"])
        .exits(3)
        .says("looked in git at 1 version of");

    // No git.
    let mut command = project.command(&["db-repair", "--yes"]);
    let bin = tool("psql").get_program().to_owned();
    let bin = Path::new(&bin).parent().expect("a folder").to_owned();
    Run::of(command.env("PATH", bin))
        .exits(1)
        .says("command not found: `git`")
        .says("install git");

    // Somebody else's.
    let mut command = project.command(&["db-repair", "--yes"]);
    Run::of(command.env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1"))
        .exits(1)
        .says("`git rev-parse` failed")
        .says("safe.directory")
        .says(" status\n");

    // A clone without its past.
    project.write(UP, APPLIED);
    commit(&project);
    project.write(UP, SAME);
    commit(&project);
    let clone = Project::empty();
    let from = format!("file://{}", project.path("").display());
    git(&clone, &["clone", "--quiet", "--depth=1", &from, "clone"]);
    std::fs::write(clone.path("clone/Cargo.lock"), "").expect("writes");
    let xtask = || {
        let mut command = clone.command(&["db-repair", "--yes"]);
        Run::of(command.current_dir(clone.path("clone")))
    };
    record(&clone, &[(5, APPLIED.as_bytes())]);
    xtask()
        .exits(3)
        .says("this clone is shallow, older commits are not in it: git fetch --unshallow");
    git_in(
        &clone,
        &clone.path("clone"),
        &["fetch", "--quiet", "--unshallow"],
    );
    xtask().succeeds();
    assert_eq!(checksums(&project), "5 true ".to_owned() + &hex(APPLIED));
}

fn hex(text: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha384::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_that_is_gone_comes_back_from_where_it_is() {
    let down = "DROP TABLE five;\n";
    let applied = || {
        let project = repository();
        project.write("migrations/1_one.up.sql", "SELECT 1;\n");
        project.write("migrations/15_five.up.sql", "SELECT 15;\n");
        commit(&project);
        git(&project, &["checkout", "--quiet", "-b", "feature/five"]);
        project.write(UP, APPLIED);
        project.write("migrations/5_five.down.sql", down);
        project.write(
            "migrations/verify/5_five.sql",
            "SELECT 'c' AS \"check\", true AS ok;\n",
        );
        commit(&project);
        project.xtask(&["db-migrate"]).succeeds();
        project
    };
    // On a branch.
    let project = applied();
    git(&project, &["checkout", "--quiet", "main"]);
    project.write("migrations/15_five.up.sql", "-- mine\nSELECT 15;\n");
    project
        .xtask(&["db-migrate"])
        .exits(3)
        .says("which branch or commit has it: cargo xtask db-repair");
    let run = project.xtask(&["db-repair", "5"]).exits(3);
    let run = run
        .says("it is in `feature/five`, as `migrations/5_five.up.sql`")
        .says("nothing was changed");
    paste(&project, &run, "bring it back");
    assert!(project.path("migrations/5_five.down.sql").exists());
    assert!(project.path("migrations/verify/5_five.sql").exists());
    let mine = std::fs::read_to_string(project.path("migrations/15_five.up.sql")).expect("reads");
    assert!(
        mine.starts_with("-- mine"),
        "only what belongs to it comes back"
    );
    project.xtask(&["db-repair", "5"]).succeeds();

    // In a branch whose end has another file of that name.
    let project = applied();
    project.write(UP, OTHER);
    commit(&project);
    git(&project, &["checkout", "--quiet", "main"]);
    let run = project
        .xtask(&["db-repair"])
        .exits(3)
        .says("it is in `feature/five~1`");
    paste(&project, &run, "bring it back");
    project.xtask(&["db-status", "--check"]).succeeds();

    // In none any more.
    let project = applied();
    git(&project, &["checkout", "--quiet", "main"]);
    git(&project, &["branch", "--quiet", "-D", "feature/five"]);
    let run = project.xtask(&["db-repair", "--format", "json"]).exits(3);
    let found_in = run.json()["refused"][0]["found_in"].clone();
    let found_in = found_in.as_str().expect("text");
    assert_eq!(
        git(&project, &["cat-file", "blob", found_in]) + "\n",
        APPLIED
    );
    let run = project
        .xtask(&["db-repair"])
        .exits(3)
        .says(", and no branch");
    paste(&project, &run, "bring it back");
    project.xtask(&["db-status", "--check"]).succeeds();

    // A down file that is still there, and edited, is not overwritten.
    let project = applied();
    std::fs::remove_file(project.path(UP)).expect("removes");
    std::fs::remove_file(project.path("migrations/verify/5_five.sql")).expect("removes");
    project.write("migrations/5_five.down.sql", "-- mine\nDROP TABLE five;\n");
    project.write("migrations/6_six.up.sql", "SELECT 6;\n");
    let run = project.xtask(&["db-repair"]).exits(3);
    paste(&project, &run, "bring it back");
    let mine = std::fs::read_to_string(project.path("migrations/5_five.down.sql")).expect("reads");
    assert!(mine.starts_with("-- mine"), "{mine}");
    assert!(project.path(UP).exists());

    // Under another version.
    let project = applied();
    std::fs::rename(project.path(UP), project.path("migrations/70_five.up.sql")).expect("renames");
    std::fs::remove_file(project.path("migrations/5_five.down.sql")).expect("removes");
    std::fs::remove_file(project.path("migrations/verify/5_five.sql")).expect("removes");
    let run = project.xtask(&["db-repair"]).exits(3);
    let run = run.says("`migrations/70_five.up.sql` holds the same bytes under another version");
    let line = run
        .stderr
        .lines()
        .find_map(|line| line.split_once("their version: "));
    let (_, command) = line.expect("a command");
    Run::of(project.program("/bin/sh").args(["-ec", command])).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();

    // What another applied migration holds too is not taken for it.
    let project = applied();
    git(&project, &["checkout", "--quiet", "main"]);
    project.write("migrations/60_copy.up.sql", APPLIED);
    record(&project, &[(60, APPLIED.as_bytes())]);
    let run = project
        .xtask(&["db-repair"])
        .exits(3)
        .says("it is in `feature/five`");
    paste(&project, &run, "bring it back");
    project.xtask(&["db-status", "--check"]).succeeds();

    // In a folder that is no longer the one of migrations.
    let project = applied();
    git(&project, &["mv", "migrations", "old"]);
    commit(&project);
    git(&project, &["checkout", "--quiet", "--orphan", "new"]);
    project.write("migrations/1_one.up.sql", "SELECT 1;\n");
    project.write("migrations/15_five.up.sql", "SELECT 15;\n");
    git(&project, &["reflog", "expire", "--expire=now", "--all"]);
    let run = project.xtask(&["db-repair"]).exits(3);
    paste(&project, &run, "bring it back");
    project.xtask(&["db-status", "--check"]).succeeds();
}

#[test]
fn failed_unknown_and_pending_migrations_are_not_repaired() {
    let project = edited(SAME);
    project.sql("UPDATE _sqlx_migrations SET success = false");
    let before = checksums(&project);
    project
        .xtask(&["db-repair", "--yes"])
        .succeeds()
        .says("`5` is recorded as failed, which this does not repair")
        .says("hint: cargo xtask db-status")
        .says("nothing to repair");
    assert_eq!(checksums(&project), before);
    project.write("migrations/9_nine.up.sql", "SELECT 9;");
    project
        .xtask(&["db-repair", "9"])
        .succeeds()
        .says("nothing to repair");
    project
        .xtask(&["db-repair", "4"])
        .exits(2)
        .says("there is no migration `4`");
    let empty = Project::new();
    empty
        .xtask(&["db-repair"])
        .succeeds()
        .says("nothing to repair");
    assert_eq!(empty.value("SELECT to_regclass('_sqlx_migrations')"), "");
}

#[test]
fn a_run_that_holds_the_lock_is_waited_for_and_its_history_stays() {
    let project = edited(SAME);
    let key = lock_key(&project);
    let (mut holder, _) = blocker(&project, &format!("SELECT pg_advisory_lock({key})"));
    let before = checksums(&project);
    project
        .xtask(&["db-repair", "--yes", "--lock-deadline", "300ms"])
        .exits(4)
        .says("another run holds the migration lock");
    assert_eq!(checksums(&project), before);
    // While it waits, the row becomes another one; the file, too, is edited, and what was compared counts.
    let mut waiting = project.start(&["db-repair", "--yes"]);
    waiting.says("another run holds the migration lock");
    holder
        .batch_execute("UPDATE _sqlx_migrations SET checksum = sha384('x')")
        .expect("updates");
    let now = checksums(&project);
    holder
        .batch_execute("SELECT pg_advisory_unlock_all()")
        .expect("unlocks");
    waiting
        .ends()
        .exits(3)
        .says("is not what it was when the files were compared")
        .says("nothing was changed");
    assert_eq!(checksums(&project), now);

    project.sql(&format!(
        "UPDATE _sqlx_migrations SET checksum = '\\x{}'",
        hex(APPLIED)
    ));
    holder
        .batch_execute(&format!("SELECT pg_advisory_lock({key})"))
        .expect("locks");
    let mut waiting = project.start(&["db-repair", "--yes"]);
    waiting.says("another run holds the migration lock");
    project.write(UP, OTHER);
    drop(holder);
    waiting.ends().succeeds();
    assert_eq!(checksums(&project), format!("5 true {}", hex(SAME)));
    project.xtask(&["db-status", "--check"]).exits(3);
}

/// sqlx's key.
fn lock_key(project: &Project) -> i64 {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    0x3d32_ad9e * i64::from(crc.checksum(project.database.as_bytes()))
}

#[test]
fn who_may_not_write_the_history_is_told_and_it_stays() {
    let project = edited(SAME);
    let before = checksums(&project);
    let role = format!("{}_reader", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT, INSERT, DELETE ON _sqlx_migrations TO {role}"
    ));
    let url = url_as(&role, "pw", &project.database);
    let mut command = project.command(&["db-repair", "--yes"]);
    Run::of(command.env("DATABASE_URL", &url))
        .exits(1)
        .says("cannot write the history table")
        .says("hint: ");
    let mut command = project.command(&["db-repair", "--dry-run"]);
    Run::of(command.env("DATABASE_URL", &url)).succeeds();
    project.sql(&format!(
        "ALTER ROLE {role} SET default_transaction_read_only = on; GRANT UPDATE ON _sqlx_migrations TO {role}"
    ));
    let mut command = project.command(&["db-repair", "--yes"]);
    Run::of(command.env("DATABASE_URL", &url))
        .exits(1)
        .says("is set to read-only");
    // What somebody's trigger swallows is not reported as written.
    project.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER no BEFORE UPDATE ON _sqlx_migrations FOR EACH ROW EXECUTE FUNCTION no()",
    );
    project
        .xtask(&["db-repair", "--yes"])
        .exits(3)
        .says("nothing was changed");
    assert_eq!(checksums(&project), before);
    project.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// Ten thousand commits, each of a source file, every twentieth also of a migration.
fn ten_thousand_commits(project: &Project) {
    let mut stream = String::new();
    for number in 1..=10_000 {
        stream.push_str(&format!(
            "commit refs/heads/main\nmark :{number}\ncommitter N <n@x> {} +0000\ndata 2\nc\n",
            1_600_000_000 + number
        ));
        if number > 1 {
            stream.push_str(&format!("from :{}\n", number - 1));
        }
        let mut file = |path: String, text: String| {
            stream.push_str(&format!(
                "M 100644 inline {path}\ndata {}\n{text}\n",
                text.len()
            ));
        };
        file(
            format!("src/m{}/f{}.rs", number % 50, number % 997),
            format!("fn f{number}() {{}}\n").repeat(20),
        );
        if number % 20 == 0 {
            let text = format!("-- {number}\nCREATE TABLE t{number} (a int);\n");
            file(
                format!("migrations/{}_t.up.sql", 2_000_000 + number),
                text.repeat(30),
            );
        }
    }
    let mut import = git_command(project, &project.path(""), &["fast-import", "--quiet"]);
    let mut child = import.stdin(Stdio::piped()).spawn().expect("git starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, stream.as_bytes()).expect("writes");
    drop(stdin);
    assert!(child.wait().expect("ends").success());
    git(project, &["reset", "--quiet", "--hard", "main"]);
    project.write("Cargo.lock", "");
}

#[test]
fn ten_thousand_commits_are_looked_through_in_a_second() {
    let project = repository();
    ten_thousand_commits(&project);
    let up = "migrations/2000020_t.up.sql";
    let text = std::fs::read_to_string(project.path(up)).expect("reads");
    record(&project, &[(2_000_020, text.as_bytes())]);
    project.write(up, format!("-- (c)\n{text}"));
    // Other work on this machine must not count.
    let timed = |exit, says| {
        let once = || {
            let at = Instant::now();
            let run = project.xtask(&["db-repair", "--dry-run", "2000020"]);
            let took = at.elapsed();
            run.exits(exit).says(says);
            took
        };
        (0..3).map(|_| once()).min().expect("a time")
    };
    let found = timed(0, "is the SQL that was applied");
    project.sql("UPDATE _sqlx_migrations SET checksum = sha384('nowhere')");
    let not_found = timed(3, "looked in git at 500 versions");
    println!("10,000 commits, 500 migrations: found in {found:?}, not found in {not_found:?}");
    if long() {
        assert!(found.as_secs_f64() < 1.0, "{found:?}");
        assert!(not_found.as_secs_f64() < 1.0, "{not_found:?}");
    }
}
