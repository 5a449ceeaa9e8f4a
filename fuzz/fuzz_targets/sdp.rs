#![no_main]
//! See [`ringmain_fuzz::sdp`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::sdp(data));
