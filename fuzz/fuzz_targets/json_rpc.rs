#![no_main]
//! See [`ringmain_fuzz::json_rpc`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmain_fuzz::json_rpc(data));
