//! Development users: how many, how they look, and where they do not go.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;

use crate::common::{BASELINE, Project};

#[test]
fn users_are_added_with_sessions_and_one_admin() {
    let project = Project::new();
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-seed", "--users", "100"])
        .succeeds()
        .says("Seeded 100 development rows");
    assert_eq!(project.value("SELECT count(*) || '/' || count(DISTINCT email) || '/' || count(DISTINCT password_hash) FROM users"), "100/100/1");
    assert_eq!(
        project.value("SELECT string_agg(email, ',') FROM users WHERE role = 'admin'"),
        "admin@example.com"
    );
    assert_eq!(project.value("SELECT count(*) FROM sessions"), "25");
    assert_eq!(
        project.value("SELECT bool_and(created_at < now()) FROM users"),
        "true"
    );
    assert_eq!(project.value("SELECT count(last_login_at) FROM users"), "0");
    assert_eq!(
        project.value("SELECT bool_and(password_hash LIKE '$argon2id$%') FROM users"),
        "true"
    );

    project.xtask(&["db-seed", "--users", "100"]).succeeds();
    assert_eq!(
        project.value("SELECT count(*) || '/' || count(DISTINCT email) FROM users"),
        "200/200"
    );
    assert_eq!(
        project.value("SELECT count(*) FROM users WHERE role = 'admin'"),
        "1"
    );
    assert_eq!(project.value("SELECT count(*) FROM sessions"), "50");

    // The sequence goes on behind them.
    project.sql("INSERT INTO users (email, password_hash, display_name) VALUES ('me@x', 'h', 'n')");
    project.sql("DELETE FROM users WHERE id BETWEEN 150 AND 300");
    project.xtask(&["db-seed", "--users", "100"]).succeeds();
    project
        .xtask(&["db-seed", "--users", "0"])
        .succeeds()
        .says("0 development rows");
}

#[test]
fn logins_are_spread_over_sixty_days_of_the_past() {
    let project = Project::new();
    project.xtask(&["db-migrate"]).succeeds();
    project
        .xtask(&["db-seed", "--users", "3000", "--logins"])
        .succeeds();
    assert_eq!(
        project.value("SELECT count(last_login_at) FROM users"),
        "2000"
    );
    assert_eq!(
        project.value("SELECT bool_and(last_login_at < now() AND last_login_at > now() - interval '62 days') FROM users"),
        "true"
    );
    let days: u32 = project
        .value("SELECT count(DISTINCT last_login_at::date) FROM users")
        .parse()
        .expect("a number");
    assert!((55..=61).contains(&days), "{days} days");
}

#[test]
fn what_is_not_there_yet_is_named() {
    let project = Project::new();
    project
        .xtask(&["db-seed"])
        .exits(1)
        .says("42P01")
        .says("nothing was added")
        .says("hint: cargo xtask db-migrate");
    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    project
        .xtask(&["db-seed", "--logins"])
        .exits(1)
        .says("42703")
        .says("last_login_at")
        .says("hint: cargo xtask db-migrate");
    assert_eq!(project.value("SELECT count(*) FROM users"), "0");
}

#[test]
fn all_or_nothing_where_a_user_of_that_name_exists() {
    let project = Project::new();
    project.xtask(&["db-migrate"]).succeeds();
    project.sql("INSERT INTO users (id, email, password_hash, display_name) VALUES (1, 'user9@example.com', 'h', 'n')");
    project.sql("SELECT setval('users_id_seq', 1)");
    project
        .xtask(&["db-seed", "--users", "20"])
        .exits(1)
        .says("user9@example.com");
    assert_eq!(project.value("SELECT count(*) FROM users"), "1");
}

#[test]
fn the_password_is_generated_once_and_kept_in_dot_env() {
    let project = Project::seeded();
    let read = || std::fs::read_to_string(project.path(".env")).expect("there is a .env");
    let before = read();
    assert!(before.starts_with("DEV_USERS_PASSWORD="), "{before}");
    let run = project.xtask(&["db-seed", "--users", "1"]).succeeds();
    assert_eq!(read(), before);
    let password = before.trim().trim_start_matches("DEV_USERS_PASSWORD=");
    assert!(!run.stderr.contains(password) && !run.stdout.contains(password));
}

#[test]
fn two_seeds_at_once_both_add_their_users() {
    let project = Project::new();
    project.xtask(&["db-migrate", "--to", BASELINE]).succeeds();
    let seeds: Vec<_> = (0..3)
        .map(|_| project.start(&["db-seed", "--users", "3000"]))
        .collect();
    for seed in seeds {
        seed.ends().succeeds();
    }
    assert_eq!(project.value("SELECT count(*) FROM users"), "9000");
    assert_eq!(
        project.value("SELECT count(*) FROM users WHERE role = 'admin'"),
        "1"
    );
    assert_eq!(
        project.value(
            "SELECT count(*) FROM users AS u WHERE id % 4 = 0
            AND (SELECT count(*) FROM sessions AS s WHERE s.user_id = u.id) <> 1"
        ),
        "0"
    );
    let env = std::fs::read_to_string(project.path(".env")).expect("reads");
    assert_eq!(env.matches("DEV_USERS_PASSWORD=").count(), 1, "{env}");
    // One password opens every account.
    let password = env
        .lines()
        .find_map(|line| line.strip_prefix("DEV_USERS_PASSWORD="))
        .expect("a password");
    let hashes = project.value("SELECT string_agg(DISTINCT password_hash, ' ') FROM users");
    assert_eq!(hashes.split(' ').count(), 3);
    for hash in hashes.split(' ') {
        let hash = PasswordHash::new(hash).expect("a hash");
        let opens = Argon2::default().verify_password(password.as_bytes(), &hash);
        opens.expect("the password opens it");
    }
}

#[test]
fn a_workspaces_own_seed_file_is_run_in_batches_of_one_transaction() {
    let project = Project::empty();
    project
        .xtask(&["db-seed"])
        .exits(2)
        .says("migrations/seed.sql");
    project.write(
        "Cargo.toml",
        "[workspace.metadata.xtask-db]\nseed = \"db/demo.sql\"\n",
    );
    project
        .xtask(&["db-seed"])
        .exits(2)
        .says("there is no `")
        .says("db/demo.sql");
    project.sql("CREATE TABLE t (n bigint, batch int)");
    project.write(
        "db/demo.sql",
        "INSERT INTO t SELECT n, :rows FROM generate_series(1, :rows) AS n;\n",
    );
    project
        .xtask(&["db-seed", "--users", "120000"])
        .succeeds()
        .says("120,000 development rows by db/demo.sql");
    assert_eq!(
        project.value("SELECT string_agg(DISTINCT batch::text, ',') FROM t"),
        "20000,50000"
    );
    assert_eq!(project.value("SELECT count(*) FROM t"), "120000");
    assert!(!project.path(".env").exists());
    // A batch that fails takes the others with it.
    project.sql("TRUNCATE t; ALTER TABLE t ADD CHECK (batch <> 20000)");
    project
        .xtask(&["db-seed", "--users", "120000"])
        .exits(1)
        .says("nothing was added");
    assert_eq!(project.value("SELECT count(*) FROM t"), "0");
}
