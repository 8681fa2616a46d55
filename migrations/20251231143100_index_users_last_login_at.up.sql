-- no-transaction
-- xtask: next deploy the active-users dashboard, which reads this index

-- The dashboard asks for the most recent logins and for everybody active in the last 30 days.
-- CONCURRENTLY lets logins go on while the index is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_users_last_login_at
    ON users (last_login_at DESC NULLS LAST);
