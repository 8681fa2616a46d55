//! The web application. Its login stamps `users.last_login_at`; it never migrates.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

/// Where it listens unless told otherwise.
const ADDRESS: &str = "127.0.0.1:3000";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address: SocketAddr = ADDRESS.parse()?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    axum::serve(listener, app::router()).await?;
    Ok(())
}
