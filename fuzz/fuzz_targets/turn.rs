#![no_main]
//! See [`ringmain_fuzz::turn`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::turn(data));
