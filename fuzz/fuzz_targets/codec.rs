#![no_main]
//! See [`ringmain_fuzz::codec`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::codec(data));
