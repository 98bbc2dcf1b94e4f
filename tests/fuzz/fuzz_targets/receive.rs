#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pushlet_properties::receive(bytes));
