SELECT 'table users exists' AS check,
       pg_catalog.to_regclass('users') IS NOT NULL AS ok;

SELECT 'users.email is unique' AS check,
       EXISTS (SELECT
               FROM pg_catalog.pg_index AS i
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = pg_catalog.to_regclass('users')::oid
                 AND i.indisunique AND i.indisvalid
                 AND i.indnkeyatts = 1 AND a.attname = 'email') AS ok;

SELECT 'sessions.user_id references users' AS check,
       EXISTS (SELECT
               FROM pg_catalog.pg_constraint
               WHERE conrelid = pg_catalog.to_regclass('sessions')::oid
                 AND confrelid = pg_catalog.to_regclass('users')::oid
                 AND contype = 'f') AS ok;
