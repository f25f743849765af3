//! Any lines as the head of a request.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ws_tests::fuzz::offer(data));
