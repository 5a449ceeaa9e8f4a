#![no_main]
//! See [`ringmain_fuzz::stream`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::stream(data));
