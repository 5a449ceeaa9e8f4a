#![no_main]
//! See [`ringmain_fuzz::demux`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::demux(data));
