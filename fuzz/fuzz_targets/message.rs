//! One message of pgoutput.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/hostile/readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::message(bytes));
