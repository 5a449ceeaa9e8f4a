//! Builds the lines of C that the multi-buffer backend speaks to intel-ipsec-mb through; nothing in a build without the feature.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "multi-buffer")]
    multi_buffer();
}

#[cfg(feature = "multi-buffer")]
fn multi_buffer() {
    const SHIM: &str = "src/srtp/multi_buffer/shim.c";
    println!("cargo:rerun-if-changed={SHIM}");
    let compiled = cc::Build::new().file(SHIM).std("c11").extra_warnings(true).try_compile("ringmain_multi_buffer");
    if let Err(error) = compiled {
        panic!(
            "the feature `multi-buffer` needs intel-ipsec-mb 1.3 or newer on x86-64 (Debian, Ubuntu: apt-get install libipsec-mb-dev). \
             Install it, or build without the feature. {error}"
        );
    }
    println!("cargo:rustc-link-lib=IPSec_MB");
}
