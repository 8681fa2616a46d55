SELECT 'column users.last_login_at exists' AS check,
       pg_catalog.count(*) = 1 AS ok
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('users')::oid AND attname = 'last_login_at' AND NOT attisdropped;

SELECT 'users.last_login_at is timestamp with time zone, nullable' AS check,
       coalesce(pg_catalog.bool_and(atttypid = 'timestamptz'::pg_catalog.regtype::oid AND NOT attnotnull), false) AS ok
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('users')::oid AND attname = 'last_login_at' AND NOT attisdropped;
