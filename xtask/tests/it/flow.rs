//! The main job, from an empty database to a verified migration and back.

use crate::common::Project;

#[test]
fn migrate_rollback_migrate() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    assert_eq!(
        project
            .value("SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_users_last_login_at'"),
        "CREATE INDEX idx_users_last_login_at ON public.users USING btree (last_login_at DESC NULLS LAST)"
    );
    project.xtask(&["db-rollback", "--yes"]).succeeds();
    assert_eq!(
        project.value("SELECT to_regclass('idx_users_last_login_at')"),
        ""
    );
    project.xtask(&["db-migrate"]).succeeds();
    project.xtask(&["db-status", "--check"]).succeeds();
}
