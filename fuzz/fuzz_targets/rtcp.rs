#![no_main]
//! See [`ringmain_fuzz::rtcp`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::rtcp(data));
