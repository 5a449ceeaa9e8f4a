//! Transport-wide feedback of a receiver (draft-holmer-rmcat-transport-wide-cc-extensions-01): when which packet came.

use ringmain_shared::Now;
use rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc, SymbolTypeTcc,
    TransportLayerCc,
};

/// Arrivals that have not been reported.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    waiting: Vec<(u64, Now)>,
    /// Extended number of the newest packet.
    highest: u64,
    reports: u8,
}

impl Arrivals {
    /// Takes note of a packet by the number in its header extension.
    pub(super) fn handle(&mut self, seq: u16, now: Now) {
        let number = if self.highest == 0 {
            CYCLE + u64::from(seq)
        } else {
            self.highest.saturating_add_signed(i64::from(seq.wrapping_sub(self.highest as u16) as i16))
        };
        self.highest = self.highest.max(number);
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push((number, now));
        }
    }

    /// The next feedback packet; nothing when everything is reported.
    pub(super) fn poll(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Option<TransportLayerCc> {
        self.waiting.sort_by_key(|&(number, _)| number);
        self.waiting.dedup_by_key(|&mut (number, _)| number);
        let &(base, first) = self.waiting.first()?;
        // Reference time is in 64 ms, deltas in 250 µs, a large one 16 bits wide.
        let reference = first.as_micros() / REFERENCE_US;
        let mut clock = (reference * REFERENCE_US / DELTA_US) as i64;
        let (mut symbols, mut deltas, mut taken) = (Vec::new(), Vec::new(), 0);
        for &(number, at) in &self.waiting {
            let index = (number - base) as usize;
            let delta = (at.as_micros() / DELTA_US) as i64 - clock;
            if index >= STATUSES_MAX || i16::try_from(delta).is_err() {
                break;
            }
            symbols.resize(index, SymbolTypeTcc::PacketNotReceived);
            let is_small = (0..=255).contains(&delta);
            let symbol = if is_small {
                SymbolTypeTcc::PacketReceivedSmallDelta
            } else {
                SymbolTypeTcc::PacketReceivedLargeDelta
            };
            symbols.push(symbol);
            deltas.push(RecvDelta { type_tcc_packet: symbol, delta: delta * DELTA_US as i64 });
            clock += delta;
            taken += 1;
        }
        self.waiting.drain(..taken);
        self.reports = self.reports.wrapping_add(1);
        let packet_status_count = symbols.len() as u16;
        symbols.resize(symbols.len().next_multiple_of(SYMBOLS_PER_CHUNK), SymbolTypeTcc::PacketNotReceived);
        let chunk = |symbols: &[SymbolTypeTcc]| {
            PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                symbol_size: SymbolSizeTypeTcc::TwoBit,
                symbol_list: symbols.to_vec(),
            })
        };
        Some(TransportLayerCc {
            sender_ssrc,
            media_ssrc,
            base_sequence_number: base as u16,
            packet_status_count,
            reference_time: reference as u32 & 0xff_ffff,
            fb_pkt_count: self.reports.wrapping_sub(1),
            packet_chunks: symbols.chunks(SYMBOLS_PER_CHUNK).map(chunk).collect(),
            recv_deltas: deltas,
        })
    }
}

const CYCLE: u64 = 1 << 16;
const REFERENCE_US: u64 = 64_000;
const DELTA_US: u64 = 250;
const SYMBOLS_PER_CHUNK: usize = 7;
/// Statuses of one packet: all of them large, it still fits a datagram.
const STATUSES_MAX: usize = 500;
/// Bounds what a pause of the reporting can gather.
const WAITING_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use webrtc_util::marshal::{Marshal, Unmarshal};

    use super::*;

    /// Numbers and times (in units of 250 µs) that a packet tells of.
    fn told(packet: &TransportLayerCc) -> Vec<(u16, i64)> {
        let mut clock = i64::from(packet.reference_time) * 256;
        let mut deltas = packet.recv_deltas.iter();
        let symbols = packet.packet_chunks.iter().flat_map(|chunk| match chunk {
            PacketStatusChunk::StatusVectorChunk(chunk) => chunk.symbol_list.clone(),
            PacketStatusChunk::RunLengthChunk(chunk) => vec![chunk.packet_status_symbol; usize::from(chunk.run_length)],
        });
        let statuses = symbols.take(usize::from(packet.packet_status_count)).enumerate();
        let received = statuses.filter(|(_, symbol)| *symbol != SymbolTypeTcc::PacketNotReceived);
        received
            .map(|(index, _)| {
                clock += deltas.next().expect("a delta for each").delta / 250;
                (packet.base_sequence_number.wrapping_add(index as u16), clock)
            })
            .collect()
    }

    #[test]
    fn what_arrived_is_told_with_its_time_over_the_wire() {
        let mut arrivals = Arrivals::default();
        let given = [(65_534_u16, 1000), (65_535, 1001), (3, 1400), (1, 1401), (20, 30_000), (21, 30_000)];
        given.iter().for_each(|&(seq, quarter)| arrivals.handle(seq, Now(quarter * 250_000)));
        let packet = arrivals.poll(1, 2).expect("something to report");
        let mut bytes = packet.marshal().expect("marshals");
        let packet = TransportLayerCc::unmarshal(&mut bytes).expect("reads");
        let expected = [(65_534, 1000), (65_535, 1001), (1, 1401), (3, 1400), (20, 30_000), (21, 30_000)];
        assert_eq!(told(&packet), expected);
        assert_eq!(arrivals.poll(1, 2), None);
    }

    #[test]
    fn a_long_pause_and_a_long_run_take_several_packets() {
        let mut arrivals = Arrivals::default();
        arrivals.handle(0, Now(0));
        arrivals.handle(1, Now(60_000_000_000));
        (2..1200).for_each(|seq| arrivals.handle(seq, Now(60_000_000_000)));
        let packets: Vec<TransportLayerCc> = std::iter::from_fn(|| arrivals.poll(1, 2)).collect();
        assert_eq!(packets.iter().map(|packet| told(packet).len()).collect::<Vec<_>>(), [1, 500, 500, 199]);
        assert_eq!(packets.iter().map(|packet| packet.fb_pkt_count).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(packets.iter().all(|packet| packet.marshal().expect("marshals").len() < 1400));
    }
}
