#![no_main]
//! See [`ringmain_fuzz::worker`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::worker(data));
