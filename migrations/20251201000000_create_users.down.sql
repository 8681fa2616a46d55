-- xtask: backup sessions
-- xtask: backup users

DROP TABLE IF EXISTS sessions;
DROP TABLE IF EXISTS users;
