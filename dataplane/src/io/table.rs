//! The sockets of a link by their index: those it was opened with, which stay, and those that come and go while it runs.
//!
//! An index is free again only when nothing that was asked of its socket can still be answered, and the one free for longest is
//! taken first: a path that somebody kept too long is unlikely to find a successor.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use super::{FIXED_SOCKETS_MAX, Path, RECEIVE_FAILURES_MAX, SOCKETS_MAX, SocketIndex, socket};

#[derive(Debug)]
pub(super) struct SocketTable {
    places: Vec<Place>,
    free: VecDeque<u16>,
    /// How many it began with.
    fixed: usize,
    /// Datagrams that the kernel dropped, as far as it was asked.
    dropped: u64,
    /// Which place is asked for its drops next.
    ask_next: usize,
}

#[derive(Debug)]
enum Place {
    Free,
    Open(Entry),
    /// No longer used, but the kernel has not answered everything yet.
    Closing(Entry),
}

#[derive(Debug)]
struct Entry {
    socket: UdpSocket,
    /// Receives that failed in a row.
    failures: u32,
    /// Datagrams that the kernel had dropped when last asked.
    dropped: u64,
}

impl SocketTable {
    /// A table that begins with these, one to `FIXED_SOCKETS_MAX`.
    ///
    /// Over IPv4 they refuse what does not fit the path, for [`send`](super::send) to send it in fragments. A datagram that may be
    /// fragmented needs an identification unlike others' (RFC 6864 §4.1), which takes the kernel up to 300 ns to make.
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Self {
        let fixed = sockets.len();
        for socket in &sockets {
            if socket.local_addr().is_ok_and(|address| address.is_ipv4()) {
                let _ = socket::allow_fragments(socket, true, false); // Or else the kernel goes on as it began.
            }
        }
        let places = sockets.into_iter().map(|socket| Place::Open(Entry::new(socket))).collect();
        Self { places, free: VecDeque::new(), fixed, dropped: 0, ask_next: 0 }
    }

    /// How many it began with: indices below are never closed.
    pub(super) fn fixed(&self) -> usize {
        self.fixed
    }

    /// Takes in a socket. `None` when there are `SOCKETS_MAX`.
    pub(super) fn insert(&mut self, socket: UdpSocket) -> Option<SocketIndex> {
        let entry = Place::Open(Entry::new(socket));
        // Every place is used once before any is used again.
        if self.places.len() < SOCKETS_MAX {
            self.places.push(entry);
            return Some(SocketIndex((self.places.len() - 1) as u16));
        }
        let index = self.free.pop_front()?;
        self.places[usize::from(index)] = entry;
        Some(SocketIndex(index))
    }

    /// An open socket.
    #[inline]
    pub(super) fn get(&self, index: SocketIndex) -> Option<&UdpSocket> {
        match self.places.get(usize::from(index.0)) {
            Some(Place::Open(entry)) => Some(&entry.socket),
            _ => None,
        }
    }

    /// An open socket, or one that is being closed: what was sent before may be sent again.
    pub(super) fn get_late(&self, index: SocketIndex) -> Option<&UdpSocket> {
        match self.places.get(usize::from(index.0)) {
            Some(Place::Open(entry) | Place::Closing(entry)) => Some(&entry.socket),
            _ => None,
        }
    }

    /// Whether what the kernel refuses to send as too long for the path is to go in fragments: over IPv4, unless a client of TURN
    /// asked for the contrary, who has a socket of his own.
    pub(super) fn may_fragment(&self, path: Path) -> bool {
        usize::from(path.socket.0) < self.fixed && path.remote.is_ipv4()
    }

    /// A datagram came. False when nobody wants it any more.
    #[inline]
    pub(super) fn heard(&mut self, index: SocketIndex) -> bool {
        match self.places.get_mut(usize::from(index.0)) {
            Some(Place::Open(entry)) => {
                entry.failures = 0;
                true
            }
            _ => false,
        }
    }

    /// A receive failed. Whether it was one too many.
    pub(super) fn failed(&mut self, index: SocketIndex) -> bool {
        match self.places.get_mut(usize::from(index.0)) {
            Some(Place::Open(entry)) => {
                entry.failures += 1;
                entry.failures >= RECEIVE_FAILURES_MAX
            }
            _ => false,
        }
    }

    /// Whether there is a point in receiving from it.
    pub(super) fn is_worth_receiving(&self, index: SocketIndex) -> bool {
        match self.places.get(usize::from(index.0)) {
            Some(Place::Open(entry)) => entry.failures < RECEIVE_FAILURES_MAX,
            _ => false,
        }
    }

    /// Begins to close a socket. False when there is none at this index, or it is one that stays.
    pub(super) fn close(&mut self, index: SocketIndex) -> bool {
        let at = usize::from(index.0);
        let Some(place) = self.places.get_mut(at).filter(|place| at >= self.fixed && matches!(place, Place::Open(_)))
        else {
            return false;
        };
        if let Place::Open(entry) = std::mem::replace(place, Place::Free) {
            *place = Place::Closing(entry);
        }
        true
    }

    /// Ends the closing: the descriptor is closed, the index may be used again.
    pub(super) fn release(&mut self, index: SocketIndex) {
        let Some(place) = self.places.get_mut(usize::from(index.0)) else { return };
        match std::mem::replace(place, Place::Free) {
            Place::Closing(mut entry) => {
                self.dropped += entry.ask();
                self.free.push_back(index.0);
            }
            other => *place = other,
        }
    }

    /// Datagrams that the kernel dropped at these sockets for want of room. Asks the fixed ones and a few of the others, in turns:
    /// asking thousands at once would hold up a turn.
    pub(super) fn dropped(&mut self) -> u64 {
        let (fixed, others) = self.places.split_at_mut(self.fixed);
        let count = others.len();
        let first = self.ask_next;
        self.ask_next = (first + ASKED_AT_ONCE) % count.max(1);
        self.dropped += fixed.iter_mut().map(Place::ask).sum::<u64>();
        self.dropped += (0..count.min(ASKED_AT_ONCE)).map(|step| others[(first + step) % count].ask()).sum::<u64>();
        self.dropped
    }
}

impl Entry {
    fn new(socket: UdpSocket) -> Self {
        Self { socket, failures: 0, dropped: 0 }
    }

    /// Datagrams dropped since it was last asked.
    fn ask(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.dropped, socket::dropped(self.socket.as_raw_fd()));
        self.dropped.saturating_sub(before)
    }
}

impl Place {
    fn ask(&mut self) -> u64 {
        match self {
            Place::Open(entry) => entry.ask(),
            _ => 0,
        }
    }
}

/// Says what a link may be opened with.
pub(super) fn check_fixed(sockets: &[UdpSocket]) -> io::Result<()> {
    if sockets.is_empty() || sockets.len() > FIXED_SOCKETS_MAX {
        let text = format!("a link is opened with 1 to {FIXED_SOCKETS_MAX} sockets");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// A question is a system call of some 200 ns.
const ASKED_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").expect("loopback")
    }

    #[test]
    fn the_sockets_it_began_with_stay() {
        let mut table = SocketTable::new(vec![udp(), udp()]);
        assert!(!table.close(SocketIndex(0)) && !table.close(SocketIndex(1)) && !table.close(SocketIndex(2)));
        assert_eq!(table.insert(udp()), Some(SocketIndex(2)));
        assert!(table.close(SocketIndex(2)) && !table.close(SocketIndex(2)));
    }

    #[test]
    fn an_index_is_not_used_again_before_it_is_released() {
        let mut table = SocketTable::new(vec![udp()]);
        assert_eq!(table.insert(udp()), Some(SocketIndex(1)));
        table.places.resize_with(SOCKETS_MAX, || Place::Free);
        assert_eq!(table.insert(udp()), None, "full");
        assert!(table.close(SocketIndex(1)));
        assert!(table.get(SocketIndex(1)).is_none() && table.get_late(SocketIndex(1)).is_some());
        assert!(!table.heard(SocketIndex(1)));
        assert_eq!(table.insert(udp()), None, "still closing");
        table.release(SocketIndex(1));
        assert_eq!(table.insert(udp()), Some(SocketIndex(1)));
    }

    #[test]
    fn the_index_free_for_longest_is_taken_first() {
        let mut table = SocketTable::new(vec![udp()]);
        table.places.resize_with(SOCKETS_MAX - 3, || Place::Free);
        let last: Vec<SocketIndex> = (0..3).map(|_| table.insert(udp()).expect("room")).collect();
        for index in [last[1], last[0], last[2]] {
            assert!(table.close(index));
            table.release(index);
            table.release(index);
        }
        assert_eq!([(); 3].map(|()| table.insert(udp())), [Some(last[1]), Some(last[0]), Some(last[2])]);
        assert_eq!(table.insert(udp()), None, "released twice, free once");
    }
}
