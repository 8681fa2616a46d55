SELECT 'table users exists' AS check,
       to_regclass('users') IS NOT NULL AS ok;

SELECT 'users.email is unique' AS check,
       EXISTS (SELECT
               FROM pg_index AS i
               JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = to_regclass('users')
                 AND i.indisunique AND i.indisvalid
                 AND i.indnkeyatts = 1 AND a.attname = 'email') AS ok;

SELECT 'sessions.user_id references users' AS check,
       EXISTS (SELECT
               FROM pg_constraint
               WHERE conrelid = to_regclass('sessions')
                 AND confrelid = to_regclass('users')
                 AND contype = 'f') AS ok;
