//! Helpers of the tests that cross crates.

pub mod io;
pub mod peer;
