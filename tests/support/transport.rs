//! A way to a server in memory.
//!
//! Time can be paused around it. It runs on when all tasks wait, and does not know of what the
//! kernel still has to do for a socket.
#![allow(dead_code, reason = "each file of tests takes what it needs")]

use std::io;

use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};
use tower::service_fn;
use ws_hyper::Connector;

/// A connector whose connections, whatever the address, all lead to this server.
pub(crate) fn in_memory<F, Fut>(server: F) -> Connector
where
    F: Fn(DuplexStream) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Connector::new().transport(service_fn(move |_: http::Uri| {
        let (near, far) = duplex(1 << 20);
        tokio::spawn(server(far));
        async { io::Result::Ok(TokioIo::new(near)) }
    }))
}

/// The same, to a server that says nothing.
pub(crate) fn to_silence() -> Connector {
    in_memory(|io| async move {
        std::future::pending::<()>().await;
        drop(io);
    })
}
