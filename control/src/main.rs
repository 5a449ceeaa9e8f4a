//! The `ringmain` binary.
fn main() {}
