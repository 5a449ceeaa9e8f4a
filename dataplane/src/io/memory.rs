//! A link without a kernel, for tests and benches: datagrams are pushed in and taken out, nothing sleeps, nothing is lost.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use ringmain_shared::limits::DATAGRAM_SIZE_MAX;

use super::send::count_sent;
use super::{Link, LinkCounters, Path, Received, Transmit, WakeHandle};
use crate::buf::{RX_BATCH_MAX, RxBatch, TRAINS_PER_BATCH_MAX, TX_ARENA_SIZE, TxBatch};

/// Two queues in place of sockets.
#[derive(Debug)]
pub struct MemoryLink {
    rx: RxBatch,
    incoming: VecDeque<(Path, usize)>,
    incoming_bytes: VecDeque<u8>,
    out: MemoryOut,
    wake: WakeHandle,
}

#[derive(Debug)]
struct MemoryOut {
    batch: TxBatch,
    sent: Option<Vec<(Path, Vec<u8>)>>,
    counters: LinkCounters,
}

impl MemoryLink {
    /// A link that keeps what is sent until it is taken.
    pub fn new() -> Self {
        Self {
            rx: RxBatch::new(RX_BATCH_MAX * DATAGRAM_SIZE_MAX),
            incoming: VecDeque::new(),
            incoming_bytes: VecDeque::new(),
            out: MemoryOut {
                batch: TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX),
                sent: Some(Vec::new()),
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
        if bytes.len() > DATAGRAM_SIZE_MAX {
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
            self.rx.push(index * DATAGRAM_SIZE_MAX, size, path);
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

    fn counters(&self) -> LinkCounters {
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
        for train in self.batch.trains() {
            count_sent(train, &mut self.counters);
            if let Some(sent) = &mut self.sent {
                let bytes = self.batch.bytes(train);
                sent.extend(train.segment_ranges().map(|range| (train.path, bytes[range].to_vec())));
            }
        }
        self.batch.clear();
    }

    fn wake(&mut self, peer: &WakeHandle) {
        peer.wake();
    }
}
