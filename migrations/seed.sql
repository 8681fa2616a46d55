-- Development users: what db-seed and db-setup run, through psql, once for each batch of rows, all batches
-- in one transaction. psql variables: rows, of this batch; logins, `true` with --logins; password_hash,
-- argon2id of the development password that is kept in .env.
--
-- xtask: next cargo run -p app, and open http://127.0.0.1:3000
-- xtask: next sign in as admin@example.com with the password in .env (DEV_USERS_PASSWORD)

-- Nobody's operators and functions but PostgreSQL's.
SET LOCAL search_path = pg_catalog;

SELECT coalesce(max(id), 0) AS newest,
       NOT EXISTS (SELECT FROM public.users WHERE email = 'admin@example.com') AS wants_admin
FROM public.users \gset

\if :logins
    \set login_column ', last_login_at'
    -- About two of three, over the last 61 days.
    \set login_value ', CASE WHEN number % 3 > 0 THEN midnight - (number * 7919 % 61) * interval \'1 day\' - (number * 104729 % 86400) * interval \'1 second\' END'
\else
    \set login_column ''
    \set login_value ''
\endif

INSERT INTO public.users (email, password_hash, display_name, role, created_at :login_column)
SELECT CASE WHEN is_admin THEN 'admin@example.com' ELSE 'user' || number || '@example.com' END,
       :'password_hash',
       CASE WHEN is_admin THEN 'Admin' ELSE 'User ' || number END,
       CASE WHEN is_admin THEN 'admin' ELSE 'member' END,
       -- Over two years, the newest yesterday.
       midnight - (number * 7919 % 730) * interval '1 day' - interval '16 hours'
       :login_value
FROM (SELECT (:newest + n)::bigint AS number, n = 1 AND :'wants_admin' AS is_admin, date_trunc('day', now()) AS midnight
      FROM generate_series(1, :rows) AS n) AS new_users;

INSERT INTO public.sessions (user_id, created_at, expires_at)
SELECT id, created_at, now() + interval '14 days'
FROM public.users WHERE id > :newest AND id % 4 = 0;
