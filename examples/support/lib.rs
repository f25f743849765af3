//! Programs to run and to copy from: `cargo run --example NAME`.
//!
//! | example | shows |
//! |---|---|
//! | `engine` | an echo server on `ws-core` and `std::net` alone, a thread for each connection |
