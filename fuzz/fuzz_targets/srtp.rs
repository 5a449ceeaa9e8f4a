#![no_main]
//! See [`ringmain_fuzz::srtp`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::srtp(data));
