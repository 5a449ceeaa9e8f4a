//! What several of these tests need: ports, and programs that Debian packages.

#![allow(dead_code, reason = "no test needs all of it")]

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

/// A port that is free for UDP and TCP.
pub(crate) fn free_port() -> u16 {
    for _ in 0..100 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let port = socket.local_addr().expect("bound").port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A program, unless it is not installed; scripts/test installs them all.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let found = Path::new("/usr/bin").join(name);
    if found.exists() {
        return Some(Command::new(found));
    }
    eprintln!("{name} is not installed (Debian: openssl, coturn): not tested");
    None
}

/// All that a program has said.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
