-- xtask: backup users
-- xtask: next tell the backend team that users.last_login_at is there
-- xtask: next deploy the application, whose login fills it: cargo run -p app

-- Existing rows keep NULL until their next login. Adding a nullable column without a default
-- changes the catalog only: no row is rewritten.
ALTER TABLE users
    ADD COLUMN IF NOT EXISTS last_login_at timestamptz;
