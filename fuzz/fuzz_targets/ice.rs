#![no_main]
//! See [`ringmain_fuzz::ice`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::ice(data));
