//! Any lines as the head of a server's answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ws_tests::fuzz::answer(data));
