//! The frames of a connection, and what is inside of them.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/hostile/readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::frames(bytes));
