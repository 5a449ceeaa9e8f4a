#![no_main]
//! See [`ringmain_fuzz::rtp`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::rtp(data));
