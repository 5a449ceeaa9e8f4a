#![no_main]
//! See [`ringmain_fuzz::receive`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::receive(data));
