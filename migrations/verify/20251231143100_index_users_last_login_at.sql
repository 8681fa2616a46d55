SELECT 'index idx_users_last_login_at exists on users' AS check,
       count(*) = 1 AS ok
FROM pg_index
WHERE indexrelid = to_regclass('idx_users_last_login_at') AND indrelid = to_regclass('users');

SELECT 'idx_users_last_login_at is valid and ready' AS check,
       coalesce(bool_and(indisvalid AND indisready), false) AS ok
FROM pg_index
WHERE indexrelid = to_regclass('idx_users_last_login_at');

SELECT 'idx_users_last_login_at is btree (last_login_at DESC NULLS LAST)' AS check,
       coalesce(bool_and(
           pg_get_indexdef(indexrelid) LIKE '%USING btree (last_login_at DESC NULLS LAST)'
           AND NOT indisunique), false) AS ok
FROM pg_index
WHERE indexrelid = to_regclass('idx_users_last_login_at');
