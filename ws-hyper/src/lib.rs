//! ws-hyper
#![forbid(unsafe_code)]
