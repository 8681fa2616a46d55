//! One throwaway server for all tests of this binary; for each test a database of its own, and the
//! application on it, asked through its router or over a socket.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use app::AppState;
use app::clock::Clock;
use app::database::Database;
use app::session::Key;
use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use pg_connect::{ConnInfo, Env};
use private_server::{Installation, ThrowawayServer, installation};
use tokio_postgres::NoTls;
use tower::ServiceExt as _;

/// The password of every account that [`Fixture::add_user`] makes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const ADMIN: &str = "admin@example.com";

/// The server, started by the first test that needs it; it goes away with the process.
pub(crate) fn server() -> &'static ThrowawayServer {
    static SERVER: OnceLock<ThrowawayServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = [
            ("max_connections", "300"),
            // Whose plan a line of the log is.
            ("log_line_prefix", "%d "),
            ("autovacuum", "off"),
        ];
        ThrowawayServer::start(&installation(), &settings).expect("a throwaway server starts")
    })
}

/// The PostgreSQL that the tests use.
pub(crate) fn installation() -> Installation {
    let [path, only_in] = ["PATH", "PG_BIN_DIR"].map(environment);
    installation::newest_server(
        path.as_deref().map(str::as_ref),
        only_in.as_deref().map(str::as_ref),
    )
    .expect("PostgreSQL is installed")
}

#[expect(clippy::disallowed_methods, reason = "a test is its own caller")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How far the database has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Migrated {
    Nothing,
    Baseline,
    Column,
    All,
}

/// A shipped migration.
pub(crate) fn migration(file: &str) -> String {
    std::fs::read_to_string(migrations().join(file)).expect("a shipped migration")
}

pub(crate) fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// A database of its own, and the application on it at a time of its own.
pub(crate) struct Fixture {
    pub(crate) database: String,
    pub(crate) state: AppState,
    pub(crate) client: tokio_postgres::Client,
    now: Arc<Mutex<Timestamp>>,
}

impl Fixture {
    /// With everything that the project ships, and no users.
    pub(crate) async fn new() -> Fixture {
        Fixture::migrated(Migrated::All).await
    }

    pub(crate) async fn migrated(to: Migrated) -> Fixture {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let database = format!("app_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        connect("postgres")
            .await
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await
            .unwrap();
        let client = connect(&database).await;
        let stages = [
            (Migrated::Baseline, "20251201000000_create_users"),
            (Migrated::Column, "20251231143000_add_users_last_login_at"),
            (Migrated::All, "20251231143100_index_users_last_login_at"),
        ];
        for (stage, file) in stages {
            if stage as u8 <= to as u8 {
                let sql = migration(&format!("{file}.up.sql"));
                client.batch_execute(&sql).await.unwrap();
            }
        }
        let now = Arc::new(Mutex::new(Timestamp::now()));
        let clock = Clock::new({
            let now = now.clone();
            move || *now.lock().unwrap()
        });
        let pool = pool(&server().url(&database), 8);
        let key = Key::generate().unwrap();
        Fixture {
            state: AppState::new(pool, key, clock).unwrap(),
            database,
            client,
            now,
        }
    }

    pub(crate) fn url(&self) -> String {
        server().url(&self.database)
    }

    pub(crate) fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    /// Moves the application's clock; the database's goes its own way.
    pub(crate) fn advance(&self, by: SignedDuration) {
        let mut now = self.now.lock().unwrap();
        *now += by;
    }

    pub(crate) fn set_now(&self, now: &str) {
        *self.now.lock().unwrap() = now.parse().unwrap();
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// A query's single value, as text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let row = self
            .client
            .query_one(&format!("SELECT ({sql})::text"), &[])
            .await
            .unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Adds somebody whose password is [`PASSWORD`]; it costs next to nothing to verify.
    pub(crate) async fn add_user(&self, email: &str, role: &str) -> i64 {
        let name = email.split('@').next().unwrap_or_default();
        let row = self
            .client
            .query_one(
                "INSERT INTO users (email, password_hash, display_name, role)
                 VALUES ($1, $2, $3, $4) RETURNING id",
                &[&email, &cheap_hash(), &name, &role],
            )
            .await
            .unwrap();
        row.get(0)
    }

    /// A browser that has not been here before.
    pub(crate) fn browser(&self) -> Browser {
        Fixture::browser_on(&self.state)
    }

    pub(crate) fn browser_on(state: &AppState) -> Browser {
        Browser {
            router: app::app(state.clone()),
            cookie: None,
            address: [192, 0, 2, 1].into(),
        }
    }

    /// A browser in which somebody has signed in.
    pub(crate) async fn signed_in(&self, email: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.login(email, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }

    /// An administrator's browser.
    pub(crate) async fn admin(&self) -> Browser {
        self.add_user(ADMIN, "admin").await;
        self.signed_in(ADMIN).await
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // In a thread of its own: this one has a runtime already.
        let database = self.database.clone();
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
                let _ = connect("postgres").await.batch_execute(&drop).await;
            });
        })
        .join();
    }
}

/// The application's pool, for an address and nothing else.
pub(crate) fn pool(address: &str, connections: usize) -> Database {
    let target = ConnInfo::resolve(address, &Env::new(), None).unwrap();
    Database::new(target, connections).unwrap()
}

/// A connection as the server's superuser.
pub(crate) async fn connect(database: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server().url(database), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// [`PASSWORD`], hashed as cheaply as argon2 can.
pub(crate) fn cheap_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password(PASSWORD.as_bytes())
            .unwrap()
            .to_string()
    })
}

/// One browser: it keeps its cookie, and follows no redirect by itself.
#[derive(Clone)]
pub(crate) struct Browser {
    router: Router,
    pub(crate) cookie: Option<String>,
    pub(crate) address: IpAddr,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Browser {
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    /// Posts a form.
    pub(crate) async fn post(&mut self, path: &str, form: &str) -> Answer {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()));
        self.send(request.unwrap()).await
    }

    pub(crate) async fn login(&mut self, email: &str, password: &str) -> Answer {
        let form = format!("email={}&password={}", encode(email), encode(password));
        self.post("/login", &form).await
    }

    pub(crate) async fn login_json(&mut self, email: &str, password: &str) -> Answer {
        let body = serde_json::json!({"email": email, "password": password});
        let request = Request::post("/login")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> Answer {
        request
            .extensions_mut()
            .insert(ConnectInfo(SocketAddr::new(self.address, 12345)));
        if let Some(cookie) = &self.cookie {
            let value = format!("session={cookie}").parse().unwrap();
            request.headers_mut().insert(header::COOKIE, value);
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if let Some(cookie) = parts.headers.get(header::SET_COOKIE) {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let value = pair.strip_prefix("session=").unwrap();
            self.cookie = (!value.is_empty()).then(|| value.to_owned());
        }
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

/// A value for a form or a query.
pub(crate) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
