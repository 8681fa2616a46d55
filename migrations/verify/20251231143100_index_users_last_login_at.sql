SELECT 'index idx_users_last_login_at exists on users' AS check,
       pg_catalog.count(*) = 1 AS ok
FROM pg_catalog.pg_index
WHERE indexrelid = pg_catalog.to_regclass('idx_users_last_login_at')::oid AND indrelid = pg_catalog.to_regclass('users')::oid;

SELECT 'idx_users_last_login_at is valid and ready' AS check,
       coalesce(pg_catalog.bool_and(indisvalid AND indisready), false) AS ok
FROM pg_catalog.pg_index
WHERE indexrelid = pg_catalog.to_regclass('idx_users_last_login_at')::oid;

SELECT 'idx_users_last_login_at is btree (last_login_at DESC NULLS LAST)' AS check,
       coalesce(pg_catalog.bool_and(
           pg_catalog.pg_get_indexdef(indexrelid) LIKE '%USING btree (last_login_at DESC NULLS LAST)'
           AND NOT indisunique), false) AS ok
FROM pg_catalog.pg_index
WHERE indexrelid = pg_catalog.to_regclass('idx_users_last_login_at')::oid;
