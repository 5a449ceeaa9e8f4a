//! Datagrams sent to virtual sockets: no kernel takes them, so the run loop picks them up after a turn and carries them on, to a TCP
//! connection for example. Bounded: what a turn sends beyond is dropped and counted, as a full send buffer would.

use super::{LinkCounters, Path};
use crate::buf::{Train, TxBatch};

/// Datagrams for virtual sockets, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Diverted {
    entries: Vec<(Path, usize)>,
    bytes: Vec<u8>,
}

impl Diverted {
    /// Whether there is nothing to carry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Hands out every datagram and forgets it.
    pub fn drain(&mut self, mut carry: impl FnMut(Path, &[u8])) {
        let mut rest = &self.bytes[..];
        for (path, size) in self.entries.drain(..) {
            let (datagram, behind) = rest.split_at(size);
            carry(path, datagram);
            rest = behind;
        }
        self.bytes.clear();
    }

    /// Takes the datagrams of a train that no socket sends; counts them as failed if it was not for a virtual one.
    #[cold]
    pub(super) fn take(&mut self, train: &Train, batch: &TxBatch, counters: &mut LinkCounters) {
        if !train.path.socket.is_virtual() || self.bytes.len() + train.size > SIZE_MAX {
            counters.send_failed += train.segments as u64;
            return;
        }
        let bytes = batch.bytes(train);
        self.bytes.extend_from_slice(bytes);
        self.entries.extend(train.segment_ranges().map(|range| (train.path, range.len())));
    }
}

/// Bytes kept between two looks.
const SIZE_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SocketIndex;

    fn batch(socket: u16, sizes: &[usize]) -> TxBatch {
        let mut batch = TxBatch::new(1 << 16, 64);
        for (number, &size) in sizes.iter().enumerate() {
            let path = Path { socket: SocketIndex(socket), remote: ([192, 0, 2, 1], 9).into() };
            let mut slot = batch.reserve(path, size).expect("room");
            slot.bytes_mut().fill(number as u8);
            slot.commit(size);
        }
        batch
    }

    #[test]
    fn what_goes_to_a_virtual_socket_is_handed_out_once_and_whole() {
        let (mut diverted, mut counters) = (Diverted::default(), LinkCounters::default());
        let batch = batch(SocketIndex::VIRTUAL_FIRST, &[10, 10, 7, 30]);
        batch.trains().iter().for_each(|train| diverted.take(train, &batch, &mut counters));
        let mut came = Vec::new();
        diverted.drain(|path, bytes| came.push((path.socket.0, bytes.to_vec())));
        let expected = [(0, 10), (1, 10), (2, 7), (3, 30)].map(|(value, size)| (1 << 15, vec![value; size]));
        assert_eq!(came, expected);
        assert!(diverted.is_empty());
        diverted.drain(|_, _| panic!("nothing is left"));
    }

    #[test]
    fn what_finds_no_socket_or_no_room_is_counted() {
        let (mut diverted, mut counters) = (Diverted::default(), LinkCounters::default());
        let closed = batch(40, &[10, 10]);
        diverted.take(&closed.trains()[0], &closed, &mut counters);
        assert_eq!((counters.send_failed, diverted.is_empty()), (2, true));
        let large = batch(1 << 15, &[60_000]);
        (0..18).for_each(|_| diverted.take(&large.trains()[0], &large, &mut counters));
        assert_eq!((counters.send_failed, diverted.entries.len()), (3, 17));
    }
}
