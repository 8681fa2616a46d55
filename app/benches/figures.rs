//! The figures of `app/README.md`, measured anew: `cargo bench -p app -- [logins|dashboard|index]`.
//!
//! Everything runs on a throwaway server beside the application, whose `fsync` is off, so what is
//! compared is the work of the processors; ratios count, not absolute figures. `ROWS=10000,1000000`
//! chooses the tables of `dashboard`, `SECONDS=3` how long each rate is measured at a time. What is
//! compared takes turns, so that both see the same machine; figures are medians over the turns.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measures")]

#[path = "../tests/it/http.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod http;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use app::activity::COUNT_BY_INDEX;
use app::users::STAMP_AND_OPEN;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use jiff::{SignedDuration, Timestamp};
use private_server::{Installation, ThrowawayServer, installation};

const PASSWORD: &str = "correct horse battery staple";
/// How often each of the things that are compared has its turn.
const TURNS: usize = 5;
/// The index, as its migration makes it.
const INDEX: &str = "CREATE INDEX idx_users_last_login_at ON users (last_login_at DESC NULLS LAST)";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |name: &str| {
        let names = ["logins", "dashboard", "index"];
        arguments.iter().any(|argument| argument == name)
            || !arguments
                .iter()
                .any(|argument| names.contains(&argument.as_str()))
    };
    let bench = Bench::start()?;
    if chosen("logins") {
        bench.logins()?;
    }
    if chosen("dashboard") {
        bench.dashboard()?;
    }
    if chosen("index") {
        bench.index()?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is its own caller")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

struct Bench {
    installation: Installation,
    server: ThrowawayServer,
    time: Duration,
    cores: usize,
}

impl Bench {
    fn start() -> Result<Bench> {
        let [path, only_in] = ["PATH", "PG_BIN_DIR"].map(environment);
        let installation = installation::newest_server(
            path.as_deref().map(str::as_ref),
            only_in.as_deref().map(str::as_ref),
        )?;
        let settings = [
            ("shared_buffers", "512MB"),
            ("max_wal_size", "4GB"),
            ("autovacuum", "off"),
        ];
        let server = ThrowawayServer::start(&installation, &settings)?;
        let seconds = environment("SECONDS").map_or(Ok(3), |text| text.parse())?;
        let cores = std::thread::available_parallelism()?.get();
        println!("PostgreSQL {}, {cores} cores", installation.version()?);
        Ok(Bench {
            installation,
            server,
            time: Duration::from_secs(seconds),
            cores,
        })
    }

    /// A database with the shipped migrations and so many users, one of five active of late.
    fn database(&self, name: &str, users: u64, hash: &str) -> Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        for file in [
            "20251201000000_create_users",
            "20251231143000_add_users_last_login_at",
        ] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
            let sql = std::fs::read_to_string(format!("{folder}/{file}.up.sql"))?;
            self.psql(name, &sql)?;
        }
        self.psql(
            name,
            &format!(
                "INSERT INTO users (email, password_hash, display_name, role, last_login_at)
                 SELECT 'user' || n || '@example.com', '{hash}', 'User ' || n,
                        CASE n WHEN 1 THEN 'admin' ELSE 'member' END,
                        CASE WHEN hashint8(n) % 5 = 0
                             THEN now() - interval '30 days' * (abs(hashint8(n + 7)) / 2147483648.0) END
                 FROM generate_series(1, {users}) AS n"
            ),
        )?;
        self.psql(name, INDEX)?;
        self.psql(name, "VACUUM ANALYZE users")?;
        Ok(())
    }

    /// What is said by psql, which is given the script on its standard input.
    fn psql(&self, database: &str, script: &str) -> Result<String> {
        let mut child = Command::new(self.installation.program("psql"))
            .args(["-XAtq", "--set=ON_ERROR_STOP=1"])
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .args(self.connection(database))
            .env("PGPASSWORD", self.server.password())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("psql has no stdin")?;
        stdin.write_all(script.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "psql failed");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn connection(&self, database: &str) -> [String; 4] {
        [
            "--host=127.0.0.1".to_owned(),
            format!("--port={}", self.server.port()),
            "--username=admin".to_owned(),
            database.to_owned(),
        ]
    }

    /// Transactions a second.
    fn pgbench(&self, database: &str, script: &str, clients: usize, protocol: &str) -> Result<f64> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script)?;
        let output = Command::new(self.installation.program("pgbench"))
            .args(["--no-vacuum", "--protocol", protocol])
            .arg(format!("--client={clients}"))
            .arg(format!("--jobs={}", self.cores.min(clients)))
            .arg(format!("--time={}", self.time.as_secs()))
            .arg(format!("--file={}", file.path().display()))
            .args(self.connection(database))
            .env("PGPASSWORD", self.server.password())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "pgbench failed");
        let text = String::from_utf8(output.stdout)?;
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let tps = tps.and_then(|tps| tps.split(' ').next());
        Ok(tps.context("pgbench says no tps")?.parse()?)
    }

    fn logins(&self) -> Result<()> {
        println!("\n# Logins a second, against argon2 alone");
        const USERS: u64 = 10_000;
        let hash = Argon2::default()
            .hash_password(PASSWORD.as_bytes())
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .to_string();
        self.database("logins", USERS, &hash)?;
        let verify = || {
            let verified = Argon2::default().verify_password(PASSWORD.as_bytes(), hash.as_str());
            verified.is_ok()
        };
        let clients = 4 * self.cores;
        let app = App::start(&self.server.url("logins"))?;
        let (mut alone, mut logins) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            alone.push(rate(self.cores, self.time, |_| verify));
            logins.push(app.logins(clients, self.time, USERS)?);
        }
        let (alone, logins) = (median(&mut alone), median(&mut logins));
        println!(
            "argon2id alone {alone:.1}/s, logins {logins:.1}/s with {clients} clients: ratio {:.2}",
            logins / alone
        );
        drop(app);

        println!(
            "\n# Logins a second with argon2 at its cheapest, against pgbench with the same statements"
        );
        let cheap = cheap_hash()?;
        self.psql(
            "logins",
            &format!("UPDATE users SET password_hash = '{cheap}'"),
        )?;
        self.psql("logins", "VACUUM FULL ANALYZE users")?;
        let app = App::start(&self.server.url("logins"))?;
        for clients in [self.cores, 4 * self.cores, 8 * self.cores] {
            let script = login_script(USERS);
            let (mut logins, mut simple, mut prepared) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..TURNS {
                logins.push(app.logins(clients, self.time, USERS)?);
                simple.push(self.pgbench("logins", &script, clients, "simple")?);
                prepared.push(self.pgbench("logins", &script, clients, "prepared")?);
                self.psql("logins", "TRUNCATE sessions; VACUUM users")?;
            }
            let logins = median(&mut logins);
            let (simple, prepared) = (median(&mut simple), median(&mut prepared));
            println!(
                "{clients} connections: logins {logins:.0}/s; pgbench {simple:.0}/s, ratio {:.2}; \
                 with prepared statements {prepared:.0}/s, ratio {:.2}",
                logins / simple,
                logins / prepared
            );
        }
        Ok(())
    }

    fn dashboard(&self) -> Result<()> {
        println!("\n# The dashboard, p50 in ms");
        println!(
            "| users | active in 30 days | dashboard | slowest query in psql | ratio | without the index |"
        );
        println!("|---|---|---|---|---|---|");
        let rows = environment("ROWS").unwrap_or_else(|| "10000,100000,1000000".to_owned());
        for rows in rows.split(',') {
            let users: u64 = rows.parse()?;
            let database = format!("dashboard_{users}");
            self.database(&database, users, &cheap_hash()?)?;
            let app = App::start(&self.server.url(&database))?;
            let cookie = app.sign_in_as_admin()?;
            let active = self.psql(&database, "SELECT count(last_login_at) FROM users")?;
            let (mut pages, mut slowest) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                pages.push(app.dashboard(&cookie)?);
                slowest.push(self.slowest_query(&database)?);
            }
            let (page, slowest) = (median(&mut pages), median(&mut slowest));
            self.psql(
                &database,
                "DROP INDEX idx_users_last_login_at; VACUUM users",
            )?;
            let without = match app.dashboard(&cookie) {
                Ok(ms) => format!("{ms:.0}"),
                // The time limit of a statement.
                Err(_) => "503 after 5,000".to_owned(),
            };
            println!(
                "| {users} | {} | {page:.1} | {slowest:.1} | {:.2} | {without} |",
                active.trim(),
                page / slowest
            );
        }
        Ok(())
    }

    /// Of the dashboard's queries, the p50 in ms of the one that takes longest in psql.
    fn slowest_query(&self, database: &str) -> Result<f64> {
        let now = Timestamp::now();
        let edges: Vec<String> = (0..33)
            .rev()
            .map(|days| format!("{}", now - SignedDuration::from_hours(days * 22)))
            .collect();
        let edges = format!("('{{{}}}'::timestamptz[])", edges.join(","));
        let count = COUNT_BY_INDEX.replace("$1", &edges);
        let page = "SELECT id, email, display_name, last_login_at FROM users
                    WHERE last_login_at IS NOT NULL
                    ORDER BY last_login_at DESC NULLS LAST, id LIMIT 26";
        let mut slowest: f64 = 0.0;
        for query in [&count, page] {
            let mut script = "\\timing on\n\\o /dev/null\n".to_owned();
            for _ in 0..21 {
                script += &format!("{query};\n");
            }
            let output = self.psql(database, &script)?;
            let mut times: Vec<f64> = output
                .lines()
                .filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())
                .collect();
            ensure!(times.len() == 21, "psql printed {output:?}");
            slowest = slowest.max(median(&mut times));
        }
        Ok(slowest)
    }

    fn index(&self) -> Result<()> {
        println!("\n# What the index costs a login: the login's statement by pgbench");
        println!(
            "| index | fillfactor | logins/s | HOT updates | WAL a login | table grew | index grew |"
        );
        println!("|---|---|---|---|---|---|---|");
        const USERS: u64 = 200_000;
        const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$c29tZWhhc2hzb21laGFzaHNvbWVoYXNoc29tZWhhc2hzbw";
        self.database("index_cost", USERS, HASH)?;
        let variants = [(false, 100), (true, 100), (false, 70), (true, 70)];
        let mut measured = [const { Vec::new() }; 4];
        for _ in 0..TURNS {
            for ((has_index, fillfactor), measured) in variants.iter().zip(&mut measured) {
                measured.push(self.index_variant(*has_index, *fillfactor, USERS)?);
            }
        }
        for ((has_index, fillfactor), measured) in variants.iter().zip(&measured) {
            let figure = |at: usize| {
                let mut figures: Vec<f64> = measured.iter().map(|run| run[at]).collect();
                median(&mut figures)
            };
            println!(
                "| {} | {fillfactor} | {:.0} | {:.0} % | {:.0} bytes | {:.0} bytes | {:.0} bytes |",
                if *has_index { "yes" } else { "no" },
                figure(0),
                figure(1),
                figure(2),
                figure(3),
                figure(4),
            );
        }
        Ok(())
    }

    /// Logins a second, HOT updates in percent, and in bytes a login: WAL, growth of the table and of
    /// the index.
    fn index_variant(&self, has_index: bool, fillfactor: u32, users: u64) -> Result<[f64; 5]> {
        self.psql(
            "index_cost",
            &format!(
                "DROP INDEX IF EXISTS idx_users_last_login_at;
                 ALTER TABLE users SET (fillfactor = {fillfactor}); TRUNCATE sessions"
            ),
        )?;
        self.psql("index_cost", "VACUUM FULL ANALYZE users")?;
        if has_index {
            self.psql("index_cost", INDEX)?;
        }
        self.psql("index_cost", "CHECKPOINT; SELECT pg_stat_reset()")?;
        let before = self.numbers("index_cost")?;
        let script = login_script(users);
        let rate = self.pgbench("index_cost", &script, 4 * self.cores, "prepared")?;
        // Statistics arrive with a delay.
        std::thread::sleep(Duration::from_secs(1));
        let after = self.numbers("index_cost")?;
        let grown: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let logins = grown[0];
        Ok([
            rate,
            grown[1] / logins * 100.0,
            grown[2] / logins,
            grown[3] / logins,
            grown[4] / logins,
        ])
    }

    /// Updates, HOT updates, WAL, and the sizes of the table and the index, in bytes.
    fn numbers(&self, database: &str) -> Result<Vec<f64>> {
        let text = self.psql(
            database,
            "SELECT concat_ws(' ', n_tup_upd, n_tup_hot_upd, pg_current_wal_lsn() - '0/0'::pg_lsn,
                              pg_relation_size('users'),
                              coalesce(pg_relation_size(to_regclass('idx_users_last_login_at')), 0))
             FROM pg_stat_user_tables WHERE relname = 'users'",
        )?;
        Ok(text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?)
    }
}

/// The password, hashed as cheaply as argon2 can.
fn cheap_hash() -> Result<String> {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None);
    let params = params.map_err(|error| anyhow::anyhow!("{error}"))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(PASSWORD.as_bytes())
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(hash.to_string())
}

/// The two statements of a login, as pgbench runs them.
fn login_script(users: u64) -> String {
    let sign_in = STAMP_AND_OPEN
        .replace("$1", ":id")
        .replace("$2", "now()")
        .replace("$3", "now() + interval '14 days'");
    format!(
        "\\set id random(1, {users})
         SELECT id, email, display_name, role, password_hash FROM users
         WHERE email = 'user' || :id || '@example.com';
         {sign_in};"
    )
}

/// The application, until this value is dropped.
struct App {
    child: Child,
    address: SocketAddr,
}

impl App {
    fn start(url: &str) -> Result<App> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_app"))
            .env_clear()
            .env("DATABASE_URL", url)
            .env("SESSION_KEY", "5e".repeat(32))
            .env("APP_ADDRESS", "127.0.0.1:0")
            .env("APP_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child
            .stdout
            .take()
            .context("the application has no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("Listening on http://");
        let address = address
            .context("the application does not listen")?
            .parse()?;
        Ok(App { child, address })
    }

    /// Logins a second, each of another user, over so many connections.
    fn logins(&self, clients: usize, time: Duration, users: u64) -> Result<f64> {
        let failed = AtomicBool::new(false);
        let (address, failed_here) = (self.address, &failed);
        let rate = rate(clients, time, |client| {
            let mut connection = http::Connection::open(address).ok();
            let mut user = client as u64;
            move || {
                user = (user + clients as u64) % users;
                let body = format!(
                    r#"{{"email": "user{}@example.com", "password": "{PASSWORD}"}}"#,
                    user + 1
                );
                let answer = connection
                    .as_mut()
                    .map(|connection| connection.post_json("/login", &body));
                let good = matches!(answer, Some(Ok(answer)) if answer.status == 200);
                failed_here.fetch_or(!good, Ordering::Relaxed);
                good
            }
        });
        ensure!(!failed.into_inner(), "a login failed");
        Ok(rate)
    }

    fn sign_in_as_admin(&self) -> Result<String> {
        let body = format!(r#"{{"email": "user1@example.com", "password": "{PASSWORD}"}}"#);
        let answer = http::Connection::open(self.address)?.post_json("/login", &body)?;
        let cookie = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = cookie.and_then(|cookie| cookie.split(';').next());
        Ok(format!("Cookie: {}\r\n", cookie.context("not signed in")?))
    }

    /// The page's p50 in ms.
    fn dashboard(&self, cookie: &str) -> Result<f64> {
        let mut connection = http::Connection::open(self.address)?;
        let mut times = Vec::new();
        for _ in 0..21 {
            let started = Instant::now();
            let answer = connection.send("GET", "/dashboard", cookie, "")?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            ensure!(
                answer.status == 200,
                "the dashboard answers {}",
                answer.status
            );
        }
        Ok(median(&mut times))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often a second something is done by so many threads, each of which gets its own.
fn rate<F: FnMut() -> bool + Send>(
    threads: usize,
    time: Duration,
    mut worker: impl FnMut(usize) -> F,
) -> f64 {
    let done = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (mut work, done) = (worker(number), &done);
            scope.spawn(move || {
                while started.elapsed() < time {
                    if work() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    done.into_inner() as f64 / started.elapsed().as_secs_f64()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
