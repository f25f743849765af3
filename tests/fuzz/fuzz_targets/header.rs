//! Any bytes as the header of a frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ws_tests::fuzz::header(data));
