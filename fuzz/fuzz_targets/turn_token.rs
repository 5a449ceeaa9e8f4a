#![no_main]
//! See [`ringmain_fuzz::turn_token`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::turn_token(data));
