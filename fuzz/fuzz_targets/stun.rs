#![no_main]
//! See [`ringmain_fuzz::stun`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::stun(data));
