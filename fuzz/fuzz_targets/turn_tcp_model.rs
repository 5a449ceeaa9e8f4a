#![no_main]
//! See [`ringmain_fuzz::turn_tcp_model`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::turn_tcp_model(data));
