//! A link without a kernel, for tests and benches: datagrams are pushed in and taken out, nothing sleeps, nothing is lost.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use ringmain_shared::limits::RECEIVED_SIZE_MAX;

use super::send::count_sent;
use super::{
    ADDED_SOCKETS_MAX, Diverted, FIXED_SOCKETS_MAX, Link, LinkCounters, Path, Received, SocketIndex, SocketRefused,
    Transmit, WakeHandle,
};
use crate::buf::{RX_BATCH_MAX, RxBatch, TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, TxBatch};

/// Two queues in place of sockets.
#[derive(Debug)]
pub struct MemoryLink {
    rx: RxBatch,
    incoming: VecDeque<(Path, usize)>,
    incoming_bytes: VecDeque<u8>,
    /// Sockets taken in, which are kept open and not used.
    sockets: Vec<Option<UdpSocket>>,
    out: MemoryOut,
    wake: WakeHandle,
}

#[derive(Debug)]
struct MemoryOut {
    batch: TxBatch,
    sent: Option<Vec<(Path, Vec<u8>)>>,
    diverted: Diverted,
    counters: LinkCounters,
}

impl MemoryLink {
    /// A link that keeps what is sent until it is taken.
    pub fn new() -> Self {
        Self {
            rx: RxBatch::new(RX_BATCH_MAX * RECEIVED_SIZE_MAX),
            incoming: VecDeque::new(),
            incoming_bytes: VecDeque::new(),
            sockets: Vec::new(),
            out: MemoryOut {
                batch: TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX),
                sent: Some(Vec::new()),
                diverted: Diverted::default(),
                counters: LinkCounters::default(),
            },
            wake: WakeHandle::new(None).expect("a process may open one more descriptor"),
        }
    }

    /// A link that only counts what is sent.
    pub fn counting() -> Self {
        let mut link = Self::new();
        link.out.sent = None;
        link
    }

    /// A datagram arrives. It is seen at the next `receive` that has room.
    pub fn push(&mut self, path: Path, bytes: &[u8]) {
        if bytes.len() > RECEIVED_SIZE_MAX {
            self.out.counters.rx_truncated += 1;
            return;
        }
        self.incoming.push_back((path, bytes.len()));
        self.incoming_bytes.extend(bytes);
    }

    /// The datagrams sent since they were last taken, train by train, one by one.
    pub fn take(&mut self) -> Vec<(Path, Vec<u8>)> {
        self.out.sent.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Default for MemoryLink {
    fn default() -> Self {
        Self::new()
    }
}

impl Link for MemoryLink {
    fn receive(&mut self, _timeout: Option<Duration>) -> io::Result<Received> {
        self.rx.clear();
        while !self.rx.is_full()
            && let Some((path, size)) = self.incoming.pop_front()
        {
            let index = self.rx.len();
            self.rx.push(index * RECEIVED_SIZE_MAX, size, path);
            let datagram = self.rx.bytes_mut(index);
            let (front, back) = self.incoming_bytes.as_slices();
            let from_front = front.len().min(size);
            datagram[..from_front].copy_from_slice(&front[..from_front]);
            datagram[from_front..].copy_from_slice(&back[..size - from_front]);
            self.incoming_bytes.drain(..size);
            self.out.counters.received += 1;
            self.out.counters.received_bytes += size as u64;
        }
        Ok(Received { woken: self.wake.take() })
    }

    fn parts(&mut self) -> (&mut RxBatch, &mut dyn Transmit) {
        (&mut self.rx, &mut self.out)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }

    fn open(&mut self, socket: UdpSocket) -> Result<SocketIndex, SocketRefused> {
        if self.sockets.len() >= ADDED_SOCKETS_MAX {
            return Err(SocketRefused::TooMany);
        }
        self.sockets.push(Some(socket));
        Ok(SocketIndex((FIXED_SOCKETS_MAX + self.sockets.len() - 1) as u16))
    }

    fn close(&mut self, socket: SocketIndex) -> bool {
        self.out.flush();
        let place = usize::from(socket.0).checked_sub(FIXED_SOCKETS_MAX).and_then(|place| self.sockets.get_mut(place));
        place.and_then(Option::take).is_some()
    }

    fn counters(&mut self) -> LinkCounters {
        self.out.counters
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}

impl Transmit for MemoryOut {
    fn batch(&mut self) -> &mut TxBatch {
        &mut self.batch
    }

    fn flush(&mut self) {
        self.batch.seal();
        for train in self.batch.trains() {
            if train.path.socket.is_virtual() {
                self.diverted.take(train, &self.batch, &mut self.counters);
                continue;
            }
            count_sent(train, &mut self.counters);
            if let Some(sent) = &mut self.sent {
                let bytes = self.batch.bytes(train);
                sent.extend(train.segment_ranges().map(|range| (train.path, bytes[range].to_vec())));
            }
        }
        self.batch.clear();
    }

    fn diverted(&mut self) -> &mut Diverted {
        &mut self.diverted
    }

    fn wake(&mut self, peer: &WakeHandle) {
        peer.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path { socket: SocketIndex(0), remote: ([192, 0, 2, 1], port).into() }
    }

    #[test]
    fn what_is_pushed_is_received_in_order_a_batch_at_a_time() {
        let mut link = MemoryLink::new();
        for number in 0..600u16 {
            link.push(path(number), &number.to_be_bytes().repeat(1 + usize::from(number) % 700));
        }
        link.push(path(0), &[0; RECEIVED_SIZE_MAX + 1]);
        let mut number = 0u16;
        for count in [256, 256, 88, 0] {
            link.receive(None).expect("works");
            assert_eq!(link.rx.len(), count);
            for index in 0..count {
                assert_eq!(link.rx.path(index), path(number));
                assert_eq!(link.rx.bytes(index), number.to_be_bytes().repeat(1 + usize::from(number) % 700));
                number += 1;
            }
        }
        assert_eq!((link.counters().received, link.counters().rx_truncated), (600, 1));
    }

    #[test]
    fn what_is_sent_is_taken_once_or_only_counted() {
        for mut link in [MemoryLink::new(), MemoryLink::counting()] {
            let (_, out) = link.parts();
            for size in [10, 10, 5] {
                out.batch().reserve(path(1), 100).expect("room").commit(size);
            }
            out.flush();
            assert!(out.batch().is_empty());
            let sizes: Vec<usize> = link.take().iter().map(|(_, bytes)| bytes.len()).collect();
            assert_eq!(sizes, if link.out.sent.is_some() { vec![10, 10, 5] } else { vec![] });
            assert!(link.take().is_empty());
            let counters = link.counters();
            assert_eq!((counters.sent, counters.sent_bytes, counters.trains), (3, 25, 1));
        }
    }

    #[test]
    fn a_call_is_heard_once() {
        let mut link = MemoryLink::new();
        link.wake_handle().wake();
        assert!(link.receive(None).expect("works").woken);
        assert!(!link.receive(None).expect("works").woken);
    }
}
