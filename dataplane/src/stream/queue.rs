//! Bytes on their way to a reader that may be slow. Bounded: who does not read loses messages, as on a congested path, and in the end
//! the connection.

use std::time::Duration;

use ringmain_shared::Now;

/// Bytes that wait to be written to one connection.
#[derive(Debug, Default)]
pub struct SendQueue {
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
    /// When bytes were last written, or began to wait.
    progress: Now,
}

impl SendQueue {
    /// What waits.
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Whether so many more bytes may wait.
    pub fn has_room(&self, size: usize) -> bool {
        self.pending().len() + size <= QUEUE_SIZE_MAX
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    /// Where more is put, by someone who has asked for room.
    pub fn append(&mut self, now: Now) -> &mut Vec<u8> {
        if self.is_empty() {
            self.progress = now;
        }
        if self.written > 0 && self.written >= self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }

    /// So many bytes have been written.
    pub fn consume(&mut self, size: usize, now: Now) {
        self.written = (self.written + size).min(self.bytes.len());
        if size > 0 {
            self.progress = now;
        }
        if self.is_empty() {
            self.written = 0;
            self.bytes.clear();
            // What one burst needed is not kept by every connection for ever.
            self.bytes.shrink_to(KEPT_SIZE);
        }
    }

    /// Nothing could be written for too long.
    pub fn is_stuck(&self, now: Now) -> bool {
        !self.is_empty() && now.since(self.progress) > STUCK
    }
}

/// Bytes that may wait for one reader: a second of 2 Mb/s.
pub const QUEUE_SIZE_MAX: usize = 256 * 1024;
/// A reader that takes nothing for so long is gone.
pub const STUCK: Duration = Duration::from_secs(30);
const KEPT_SIZE: usize = 4096;
