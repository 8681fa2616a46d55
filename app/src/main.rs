//! Reads the configuration, listens, serves until it is told to stop.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use app::AppState;
use app::clock::Clock;
use app::config::Config;
use app::database::Database;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// One thread for all requests: they wait for the database, and what computes, argon2, has threads of
/// its own. A login then changes threads less often (`cargo bench -p app -- logins`).
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::read()?;
    let mut lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if !std::io::stderr().is_terminal() {
        lines.set_ansi(false);
    }
    tracing_subscriber::registry()
        .with(lines)
        .with(config.log)
        .init();

    let database = Database::new(config.database, config.database_connections)?;
    let mut state = AppState::new(database, config.session_key, Clock::system())?;
    state.trust_proxy = config.trust_proxy;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };

    let listener = TcpListener::bind(config.address)
        .await
        .with_context(|| format!("cannot listen on {}", config.address))?;
    writeln!(
        std::io::stdout(),
        "Listening on http://{}",
        listener.local_addr()?
    )?;
    tokio::spawn(say_what_is_missing(state.clone()));
    app::server::serve(listener, app::app(state), stop).await;
    Ok(())
}

/// For whoever has just started it: the requests themselves find out again.
async fn say_what_is_missing(state: AppState) {
    let schema = match state.database.connection().await {
        Ok(db) => app::schema::Schema::read(&db).await,
        Err(error) => Err(error),
    };
    match schema {
        Ok(schema) => {
            for (migration, _) in schema.migrations().iter().filter(|(_, there)| !there) {
                tracing::warn!(
                    "the database does not have {} yet: cargo xtask db-migrate",
                    migration.file_stem
                );
            }
        }
        Err(_) => tracing::warn!(
            "the database does not answer; if it is this workspace's own: cargo xtask db-start"
        ),
    }
}
