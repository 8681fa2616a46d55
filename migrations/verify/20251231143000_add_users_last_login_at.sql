SELECT 'column users.last_login_at exists' AS check,
       count(*) = 1 AS ok
FROM pg_attribute
WHERE attrelid = to_regclass('users') AND attname = 'last_login_at' AND NOT attisdropped;

SELECT 'users.last_login_at is timestamp with time zone, nullable' AS check,
       coalesce(bool_and(atttypid = 'timestamptz'::regtype AND NOT attnotnull), false) AS ok
FROM pg_attribute
WHERE attrelid = to_regclass('users') AND attname = 'last_login_at' AND NOT attisdropped;
