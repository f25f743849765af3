//! Any bytes of a server.
#![no_main]

use ws_core::Role;

libfuzzer_sys::fuzz_target!(|data: &[u8]| ws_tests::fuzz::decode(Role::Client, data));
