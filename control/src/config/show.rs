//! Prints the effective configuration: a file that, read again, says the same.

use std::fmt::Write;

use super::keys::KEYS;
use super::load::Loaded;

impl Loaded {
    /// The effective configuration as TOML; above each key what it is for and where its value came from.
    pub fn to_toml(&self) -> String {
        let mut text = format!("# Ringmain {}: the effective configuration\n", env!("CARGO_PKG_VERSION"));
        let mut section = "";
        for key in KEYS.iter() {
            if key.section() != section {
                section = key.section();
                let _ = write!(text, "\n[{section}]\n");
            }
            let name = key.path.rsplit('.').next().unwrap_or(key.path);
            let value = (key.show)(&self.config);
            let _ = write!(text, "\n# {}\n# from: {}\n{name} = {value}\n", key.doc, self.origin(key.path));
        }
        text
    }
}
