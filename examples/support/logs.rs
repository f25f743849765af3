//! Where a program's log goes.

use std::{env, io};

use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::Failure;

/// Writes what the libraries log to stderr: warnings and errors, or what the variable `RUST_LOG`
/// asks for, such as `debug` or `ws_tower=debug,ws_hyper=debug,warn`.
///
/// A program that has a subscriber keeps it.
///
/// # Errors
///
/// `RUST_LOG` is no list of targets and levels.
pub fn log_to_stderr() -> Result<(), Failure> {
    let wanted = env::var("RUST_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() {
        "warn"
    } else {
        &wanted
    };
    let targets: Targets = wanted
        .parse()
        .map_err(|error| Failure::new(format!("RUST_LOG does not take `{wanted}`: {error}")))?;
    let lines = fmt::layer().with_writer(io::stderr);
    // There is one already: it is the program's to choose.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .try_init();
    Ok(())
}
