#![no_main]
//! See [`ringmain_fuzz::dtls_records`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::dtls_records(data));
