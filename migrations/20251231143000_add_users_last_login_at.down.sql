-- xtask: backup users

ALTER TABLE users
    DROP COLUMN IF EXISTS last_login_at;
