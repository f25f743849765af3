//! ws-tower
#![forbid(unsafe_code)]
