//! Programs to run and to copy from: `cargo run --example NAME`.
//!
//! | example | shows |
//! |---|---|
//! | `echo` | the smallest server: the layer alone, behind `ws_hyper::serve` |
//! | `axum` | the layer on an axum service, under `axum::serve` |
//! | `hyper` | the layer alone, under a hand-written accept loop of hyper |
//! | `showcase` | pages and sockets on one port, to look at in a browser |
//! | `engine` | an echo server on `ws-core` and `std::net` alone, a thread for each connection |
//! | `client` | a client at the command line, and the echo client of a conformance suite |
//! | `tick`, `chat`, `board`, `sensors` | an application of the showcase each, on the hub |
//! | `sensor` | a client that sends what `sensors` shows |
//! | `swarm` | many clients at once, and how fast they are answered |
//! | `load_target` | the echo and the fan-out for load generators and conformance suites |
//!
//! What follows is what several of them share: their command line, their way to fail, a certificate
//! for a test, the broker between nodes, where the log goes, the signal that ends them, and the [applications] with their [pages](site()).

pub mod applications;
mod arguments;
mod broker;
mod certificate;
mod failure;
mod histogram;
mod logs;
mod site;

use tokio::{net::TcpListener, signal};

pub use arguments::{Arguments, MAX_THREADS};
pub use broker::BrokerUrl;
pub use certificate::self_signed;
pub use failure::{Failure, causes};
pub use histogram::Histogram;
pub use logs::log_to_stderr;
pub use site::{Page, site};

/// Listens on `address`, for instance `127.0.0.1:8000`; port 0 asks the system for a free one.
///
/// # Errors
///
/// Says which address could not be had, and why.
pub async fn listen(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::new(format!("cannot listen on {address}: {error}")))
}

/// Resolves when the process is asked to end: by Ctrl-C, or on Unix by SIGTERM.
pub async fn asked_to_end() {
    let interrupted = async {
        // Without the signal there is nothing to wait for; the process still ends by SIGKILL.
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    match signal::unix::signal(signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            terminated.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
