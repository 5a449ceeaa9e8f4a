//! What several of these tests need: ports, and programs that Debian packages.

#![allow(dead_code, reason = "no test needs all of it")]

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the kernel gives to anybody, and none of those that these tests have relays at.
const PORTS: std::ops::Range<u32> = 16_000..19_000;

/// A port that is free for UDP and TCP, and that no test beside this one takes before its server has it.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        // Tests that run at once are processes of neighbouring ids, or threads of one.
        let number = std::process::id() * 16 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = (PORTS.start + number % PORTS.len() as u32) as u16;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A program, unless it is not installed. scripts/test installs them all, and says by `TEST_TOOLS=required` that none may be missing.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let found = Path::new("/usr/bin").join(name);
    if found.exists() {
        return Some(Command::new(found));
    }
    assert!(std::env::var("TEST_TOOLS").as_deref() != Ok("required"), "{name} is not installed");
    eprintln!("{name} is not installed (Debian: openssl, coturn): not tested");
    None
}

/// All that a program has said.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
