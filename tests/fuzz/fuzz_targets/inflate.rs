//! Any bytes as what is in a compressed message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ws_tests::fuzz::inflate(data));
