-- xtask: backup users

-- Existing rows keep NULL until their next login. Adding a nullable column without a default
-- changes the catalog only: no row is rewritten.
ALTER TABLE users
    ADD COLUMN IF NOT EXISTS last_login_at timestamptz;
