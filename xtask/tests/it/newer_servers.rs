//! What only newer servers know must not weaken a promise. On an older server these tests have nothing
//! to do; CONTRIBUTING.md says how to run them on another one.

use std::time::Duration;

use crate::common::{Project, Run, blocker, since, url_as};
use crate::proof::fake_pg_dump;

/// PostgreSQL 17: a limit on whole transactions, which a backup's snapshot and a restore are.
#[test]
fn a_roles_limit_on_transactions_ends_nothing_of_ours() {
    if !since(17) {
        return;
    }
    let project = Project::seeded();
    let role = format!("{}_hasty", project.database);
    project.sql(&format!(
        "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'hasty';
         ALTER ROLE {role} SET transaction_timeout = '500ms'"
    ));
    project.write(
        "migrations/20260101000000_slow.up.sql",
        "SELECT pg_sleep(1);\nCREATE TABLE slow ();\n",
    );
    project.write(
        "migrations/20260101000000_slow.down.sql",
        "DROP TABLE slow;\nSELECT pg_sleep(1);\n",
    );
    project.write(
        "migrations/verify/20260101000000_slow.sql",
        "SELECT 'it is slow', pg_sleep(1) IS NOT NULL;\n",
    );
    // As if the table were large.
    let slow = fake_pg_dump(&project, "sleep 1\nexec \"$REAL\" \"$@\"");
    let hasty = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        let url = url_as(&role, "hasty", &project.database);
        Run::of(command.env("DATABASE_URL", url).env("PG_BIN_DIR", &slow)).succeeds()
    };
    hasty(&["db-migrate"]);
    hasty(&["db-verify"]);
    hasty(&["db-rollback", "--yes"]);
    let file = hasty(&["db-backup", "users"]).stdout.trim().to_owned();
    project.sql("DELETE FROM users WHERE id = 7");
    let (mut writer, _) = blocker(&project, "BEGIN; LOCK users IN SHARE ROW EXCLUSIVE MODE");
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        writer.batch_execute("COMMIT").expect("lets go");
    });
    hasty(&["db-restore", &file, "--yes"]);
    release.join().expect("lets go");
    assert_eq!(project.value("SELECT count(*) FROM users"), "1200");
    project.sql(&format!(
        "REASSIGN OWNED BY {role} TO admin; DROP ROLE {role}"
    ));
}
