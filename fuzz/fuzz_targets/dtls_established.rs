#![no_main]
//! See [`ringmain_fuzz::dtls_established`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::dtls_established(data));
