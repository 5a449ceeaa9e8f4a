#![no_main]
//! See [`ringmain_fuzz::rtp_rewrite`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::rtp_rewrite(data));
