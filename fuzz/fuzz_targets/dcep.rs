#![no_main]
//! See [`ringmain_fuzz::dcep`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::dcep(data));
