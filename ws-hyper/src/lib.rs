//! A WebSocket server on hyper, for any Tower service.
#![forbid(unsafe_code)]

mod listener;
mod server;

pub use listener::Listener;
pub use server::{Serve, serve};
