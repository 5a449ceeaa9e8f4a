use bytes::Bytes;
use ringmain_shared::Now;
use ringmain_shared::media::Ssrc;
use rtcp::header::PacketType;
use rtcp::packet::Packet as Theirs;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtcp::reception_report::ReceptionReport;
use rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use webrtc_util::marshal::Marshal;

use super::*;
use crate::packet::hammer::{XorShift, hammer};

const INFO: SenderInfo = SenderInfo {
    ssrc: Ssrc(0x0102_0304),
    ntp: 0x1122_3344_5566_7788,
    rtp_timestamp: 90_000,
    packet_count: 77,
    octet_count: 70_000,
};
const BLOCK: ReportBlock = ReportBlock {
    ssrc: Ssrc(9),
    fraction_lost: 255,
    cumulative_lost: 0x12_3456,
    highest_sequence: 0x0001_ffff,
    jitter: 31,
    last_sr: 0x3344_5566,
    delay_since_last_sr: 65_536,
};

#[test]
fn reports_and_descriptions_read_as_another_stack_reads_them() {
    let out = written(|out| {
        out.sender_report(&INFO, &[BLOCK, BLOCK]).unwrap();
        out.receiver_report(Ssrc(5), &[BLOCK]).unwrap();
        out.description(&[(Ssrc(5), "abc"), (Ssrc(6), "")]).unwrap();
        out.bye(&[Ssrc(5), Ssrc(6)]).unwrap();
    });
    let theirs = theirs(&out);
    let report = downcast::<rtcp::sender_report::SenderReport>(&*theirs[0]);
    assert_eq!((report.ssrc, report.ntp_time, report.rtp_time), (INFO.ssrc.0, INFO.ntp, INFO.rtp_timestamp));
    assert_eq!((report.packet_count, report.octet_count, report.reports.len()), (77, 70_000, 2));
    assert_eq!(report.reports[1], their_block());
    let report = downcast::<rtcp::receiver_report::ReceiverReport>(&*theirs[1]);
    assert_eq!((report.ssrc, &report.reports[..]), (5, &[their_block()][..]));
    let chunks = &downcast::<SourceDescription>(&*theirs[2]).chunks;
    assert_eq!((chunks[0].source, &chunks[0].items[0].text[..]), (5, &b"abc"[..]));
    assert_eq!((chunks[1].source, chunks[1].items[0].text.len()), (6, 0));
    assert_eq!(downcast::<rtcp::goodbye::Goodbye>(&*theirs[3]).sources, [5, 6]);
}

#[test]
fn reports_and_descriptions_of_another_stack_are_read() {
    let report = rtcp::sender_report::SenderReport {
        ssrc: INFO.ssrc.0,
        ntp_time: INFO.ntp,
        rtp_time: INFO.rtp_timestamp,
        packet_count: INFO.packet_count,
        octet_count: INFO.octet_count,
        reports: vec![their_block(); 31],
        ..Default::default()
    };
    let item =
        |kind, text: &'static str| SourceDescriptionItem { sdes_type: kind, text: Bytes::from_static(text.as_bytes()) };
    let description = SourceDescription {
        chunks: (1..20)
            .map(|source| SourceDescriptionChunk {
                source,
                items: vec![item(SdesType::SdesTool, "tool"), item(SdesType::SdesCname, "name")],
            })
            .collect(),
    };
    let bye = rtcp::goodbye::Goodbye { sources: vec![1, 2, 3], reason: Bytes::from_static(b"enough") };
    let bytes = [report.marshal().unwrap(), description.marshal().unwrap(), bye.marshal().unwrap()].concat();
    let packets = parsed(&bytes);
    let Packet::SenderReport(report) = &packets[0] else { panic!("{packets:?}") };
    assert_eq!(report.info, INFO);
    assert!(report.blocks().eq([BLOCK; 31]));
    let Packet::Description(description) = &packets[1] else { panic!("{packets:?}") };
    assert!(description.chunks().eq((1..20).map(|source| (Ssrc(source), Some("name")))));
    let Packet::Bye(bye) = &packets[2] else { panic!("{packets:?}") };
    assert!(bye.ssrcs().eq([Ssrc(1), Ssrc(2), Ssrc(3)]));
}

#[test]
fn cumulative_loss_is_signed_and_clamped() {
    for (said, read) in [(-1, -1), (-0x80_0000, -0x80_0000), (i32::MIN, -0x80_0000), (i32::MAX, 0x7f_ffff), (5, 5)] {
        let out = written(|out| {
            out.receiver_report(Ssrc(1), &[ReportBlock { cumulative_lost: said, ..BLOCK }]).unwrap();
        });
        let packets = parsed(&out);
        let Packet::ReceiverReport(report) = &packets[0] else { panic!("{packets:?}") };
        assert_eq!(report.blocks().next().unwrap().cumulative_lost, read);
    }
}

#[test]
fn feedback_survives_both_directions() {
    let entries = [FirEntry { ssrc: Ssrc(3), sequence: 200 }, FirEntry { ssrc: Ssrc(4), sequence: 0 }];
    let out = written(|out| {
        out.pli(Ssrc(1), Ssrc(2)).unwrap();
        out.fir(Ssrc(1), &entries).unwrap();
        out.remb(Ssrc(1), 2_500_000, &[Ssrc(7), Ssrc(8)]).unwrap();
    });
    let theirs = theirs(&out);
    let pli = PictureLossIndication { sender_ssrc: 1, media_ssrc: 2 };
    assert_eq!(downcast::<PictureLossIndication>(&*theirs[0]), &pli);
    assert_eq!(downcast::<FullIntraRequest>(&*theirs[1]).fir[0].sequence_number, 200);
    let remb = downcast::<ReceiverEstimatedMaximumBitrate>(&*theirs[2]);
    assert_eq!((remb.bitrate, &remb.ssrcs[..]), (2_500_000.0, &[7, 8][..]));

    let again: Vec<u8> = theirs.iter().flat_map(|packet| packet.marshal().unwrap()).collect();
    let packets = parsed(&again);
    assert!(matches!(packets[0], Packet::Pli(Pli { sender_ssrc: Ssrc(1), media_ssrc: Ssrc(2) })));
    let Packet::Fir(fir) = &packets[1] else { panic!("{packets:?}") };
    assert!(fir.entries().eq(entries));
    let Packet::Remb(remb) = &packets[2] else { panic!("{packets:?}") };
    assert_eq!(remb.rate_bps, 2_500_000);
    assert!(remb.ssrcs().eq([Ssrc(7), Ssrc(8)]));
}

#[test]
fn rate_of_a_remb_is_rounded_down_and_never_overflows() {
    for rate_bps in [0, 1, 0x3_ffff, 0x4_0001, 30_000_000, u64::MAX] {
        let out = written(|out| out.remb(Ssrc(1), rate_bps, &[]).unwrap());
        let Packet::Remb(remb) = &parsed(&out)[0] else { panic!("no REMB") };
        assert!(remb.rate_bps <= rate_bps && rate_bps - remb.rate_bps <= rate_bps >> 17, "{rate_bps}");
    }
    let out = [&[0x8f, 206, 0, 4][..], &[0; 8], b"REMB", &[0, 0xff, 0xff, 0xff]].concat();
    let Packet::Remb(remb) = &parsed(&out)[0] else { panic!("no REMB") };
    assert_eq!(remb.rate_bps, u64::MAX);
}

#[test]
fn nack_names_the_same_packets_in_both_stacks() {
    let mut random = XorShift(3);
    for round in 0..500 {
        let mut sequence = random.next() as u16;
        let sequences: Vec<u16> = (0..1 + random.below(60))
            .map(|_| {
                sequence = sequence.wrapping_add(1 + random.below(20) as u16);
                sequence
            })
            .collect();
        let out = written(|out| assert_eq!(out.nack(Ssrc(1), Ssrc(2), &sequences), Some(sequences.len())));
        let theirs = theirs(&out);
        let nack = downcast::<TransportLayerNack>(&*theirs[0]);
        let named: Vec<u16> = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        assert_eq!(named, sequences, "round {round}");
        let again = nack.marshal().unwrap();
        let Packet::Nack(nack) = &parsed(&again)[0] else { panic!("no NACK") };
        assert!(nack.sequences().eq(sequences), "round {round}");
    }
}

#[test]
fn nack_stops_at_its_room_and_says_how_far_it_came() {
    let sequences: Vec<u16> = (0..100).map(|index| index * 100).collect();
    let mut out = [0; 1200];
    assert_eq!(CompoundWriter::new(&mut out).nack(Ssrc(1), Ssrc(2), &sequences), Some(64));
    assert_eq!(CompoundWriter::new(&mut out[..23]).nack(Ssrc(1), Ssrc(2), &sequences), Some(2));
    assert_eq!(CompoundWriter::new(&mut out[..15]).nack(Ssrc(1), Ssrc(2), &sequences), None);
}

#[test]
fn transport_feedback_tells_what_arrived_in_both_stacks() {
    let mut random = XorShift(5);
    for round in 0..400 {
        let mut now = 5_000_000_000 + random.next() % 1_000_000_000;
        let loss = [0, 1, 3, 8, 10][round % 5];
        let burst = 1 + random.below(40);
        let mut arrivals: Vec<Option<Now>> = Vec::new();
        while arrivals.len() < 1 + random.below(400) {
            let lost = random.below(10) < loss && !arrivals.is_empty();
            for _ in 0..burst {
                // Forth and, at times, back: packets overtake each other.
                now = (now + random.next() % 100_000_000).saturating_sub(random.next() % 50_000_000);
                arrivals.push((!lost || arrivals.is_empty()).then_some(Now(now)));
            }
        }
        let fields =
            FeedbackFields { sender_ssrc: Ssrc(1), media_ssrc: Ssrc(2), base_sequence: 65_500, feedback_count: 9 };
        let mut count = 0;
        let out = written(|out| count = out.transport_feedback(&fields, &arrivals).unwrap());
        assert!(count == arrivals.len() || out.len() > 1_100, "round {round}: {count} of {}", arrivals.len());

        let Packet::TransportFeedback(feedback) = &parsed(&out)[0] else { panic!("no feedback") };
        assert_eq!((feedback.base_sequence, feedback.feedback_count), (65_500, 9));
        let statuses: Vec<_> = feedback.statuses().collect();
        assert_eq!(statuses.len(), count);
        for (index, (status, arrival)) in statuses.iter().zip(&arrivals).enumerate() {
            assert_eq!(status.sequence, 65_500u16.wrapping_add(index as u16));
            let expected = arrival.map(|now| (now.0 / 250_000 * 250).cast_signed());
            assert_eq!(status.arrival_us, expected, "round {round}, packet {index}");
        }

        let theirs = theirs(&out);
        let their = downcast::<TransportLayerCc>(&*theirs[0]);
        let symbols: Vec<SymbolTypeTcc> = their.packet_chunks.iter().flat_map(their_symbols).collect();
        let received = symbols.iter().take(count).map(|&symbol| symbol != SymbolTypeTcc::PacketNotReceived);
        assert!(received.eq(arrivals.iter().take(count).map(Option::is_some)), "round {round}");
        let again = their.marshal().unwrap();
        let Packet::TransportFeedback(feedback) = &parsed(&again)[0] else { panic!("no feedback") };
        assert!(feedback.statuses().eq(statuses.iter().copied()), "round {round}");
        let mut their_us = i64::from(their.reference_time) * 64_000;
        let their_arrivals = their.recv_deltas.iter().map(|delta| {
            their_us += delta.delta;
            their_us
        });
        assert!(their_arrivals.eq(statuses.iter().filter_map(|status| status.arrival_us)), "round {round}");
    }
}

#[test]
fn transport_feedback_stops_at_its_room_and_at_a_long_pause() {
    let fields = FeedbackFields { sender_ssrc: Ssrc(1), media_ssrc: Ssrc(2), base_sequence: 0, feedback_count: 0 };
    let arrivals =
        [Some(Now::from_millis(1_000)), None, Some(Now::from_millis(10_000)), Some(Now::from_millis(10_001))];
    let mut out = [0; 1200];
    assert_eq!(CompoundWriter::new(&mut out).transport_feedback(&fields, &arrivals), Some(2));
    assert_eq!(CompoundWriter::new(&mut out).transport_feedback(&fields, &arrivals[2..]), Some(2));
    assert_eq!(CompoundWriter::new(&mut out).transport_feedback(&fields, &[None; 50]), None);
    for room in 0..200 {
        let mut writer = CompoundWriter::new(&mut out[..room]);
        let many = [Some(Now::from_millis(1_000)); 500];
        match writer.transport_feedback(&fields, &many) {
            Some(count) => {
                assert!(count > 0 && writer.len() <= room && writer.len().is_multiple_of(4));
                let len = writer.len();
                let Packet::TransportFeedback(feedback) = &parsed(&out[..len])[0] else { panic!("room {room}") };
                assert_eq!(feedback.statuses().count(), count);
            }
            None => assert!(room < 24 && writer.is_empty()),
        }
    }
}

#[test]
fn transport_feedback_that_makes_no_sense_is_refused() {
    let feedback = |statuses: u16, chunks: &[u16], deltas: &[u8]| {
        let mut bytes = vec![0x8f, 205, 0, 0];
        bytes.extend([0; 8]);
        bytes.extend([0, 0]);
        bytes.extend(statuses.to_be_bytes());
        bytes.extend([0; 4]);
        chunks.iter().for_each(|chunk| bytes.extend(chunk.to_be_bytes()));
        bytes.extend(deltas);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        Compound::parse(&bytes).unwrap().next().unwrap().map(|_| ())
    };
    assert_eq!(feedback(2, &[0x2002], &[1, 2]), Ok(()));
    assert_eq!(feedback(8192, &[0x1fff, 0x0001], &[]), Ok(()));
    let wrong: [(u16, &[u16]); 6] =
        [(0, &[0]), (8193, &[0x1fff, 0x1fff]), (1, &[0x0000, 0x0000]), (1, &[0x6001]), (1, &[0xf000]), (9, &[0x2009])];
    for (statuses, chunks) in wrong {
        assert!(feedback(statuses, chunks, &[]).is_err(), "{statuses} in {chunks:x?}");
    }
}

#[test]
fn transport_feedback_padded_by_less_than_a_word_is_read() {
    let mut bytes = [&[0xaf, 205, 0, 5][..], &[0; 8], &[0, 7, 0, 1], &[0, 0, 1, 3], &[0x20, 0x01, 9, 1]].concat();
    let Packet::TransportFeedback(feedback) = &parsed(&bytes)[0] else { panic!("no feedback") };
    assert!(feedback.statuses().eq([PacketStatus { sequence: 7, arrival_us: Some(64_000 + 9 * 250) }]));
    bytes[23] = 2;
    assert!(Compound::parse(&bytes).unwrap().next().unwrap().is_err(), "the padding covers a delta");
}

#[test]
fn statuses_of_a_whole_datagram_are_bounded() {
    let one = [&[0x8f, 205, 0, 5][..], &[0; 10], &[0x1f, 0xff], &[0; 4], &[0x1f, 0xff, 0, 0]].concat();
    let bytes = one.repeat(3);
    let told: Vec<bool> = Compound::parse(&bytes).unwrap().map(|packet| packet.is_ok()).collect();
    assert_eq!(told, [true, false, false]);
}

#[test]
fn compound_limits_and_framing_are_enforced() {
    let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(parsed(&pli.repeat(16)).len(), 16);
    assert!(Compound::parse(&pli.repeat(17)).is_err());
    assert!(Compound::parse(&[]).is_err());
    for len in 1..12 {
        assert!(Compound::parse(&pli[..len]).is_err(), "cut to {len}");
    }
    let nack = |entries: usize| [&[0x81, 205, 0, 2 + entries as u8][..], &[0; 8], &vec![0; 4 * entries]].concat();
    assert!(Compound::parse(&nack(64)).unwrap().all(|packet| packet.is_ok()));
    assert!(Compound::parse(&nack(65)).unwrap().all(|packet| packet.is_err()));
    // 31 blocks are claimed, none is there; the packet behind is still read.
    let short = [&[0x9f, 201, 0, 1, 0, 0, 0, 1][..], &pli].concat();
    let read: Vec<bool> = Compound::parse(&short).unwrap().map(|packet| packet.is_ok()).collect();
    assert_eq!(read, [false, true]);
}

#[test]
fn padding_is_taken_off_wherever_it_is() {
    let padded = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    assert!(parsed(&padded.repeat(2)).iter().all(|packet| matches!(packet, Packet::Pli(_))));
    for count in 1..=12 {
        let mut other = padded;
        other[15] = count;
        let read = Compound::parse(&other).unwrap().next().unwrap();
        assert_eq!(read.is_ok(), count <= 4, "padding {count}");
    }
    for count in [0, 13, 255] {
        let mut wrong = padded;
        wrong[15] = count;
        assert!(Compound::parse(&wrong).is_err(), "padding {count}");
    }
}

#[test]
fn packet_without_room_is_left_out_whole() {
    let mut out = [0; 24];
    let mut writer = CompoundWriter::new(&mut out);
    assert_eq!(writer.pli(Ssrc(1), Ssrc(2)), Some(()));
    assert_eq!(writer.sender_report(&INFO, &[]), None);
    assert_eq!(writer.receiver_report(Ssrc(1), &[BLOCK; 32]), None);
    assert_eq!(writer.pli(Ssrc(3), Ssrc(4)), Some(()));
    assert_eq!(writer.pli(Ssrc(3), Ssrc(4)), None);
    assert_eq!(writer.len(), 24);
    assert_eq!(parsed(&out).len(), 2);
}

#[test]
fn our_clock_is_told_in_fixed_point() {
    assert_eq!(ntp(Now::from_millis(1_500)), 0x0000_0001_8000_0000);
}

#[test]
fn random_bytes_do_no_harm() {
    let fields = FeedbackFields { sender_ssrc: Ssrc(1), media_ssrc: Ssrc(2), base_sequence: 1, feedback_count: 1 };
    let arrivals = [Some(Now(64_000_000)), None, Some(Now(90_000_000)), Some(Now(900_000_000)), None];
    let reports = written(|out| {
        out.sender_report(&INFO, &[BLOCK]).unwrap();
        out.description(&[(Ssrc(5), "abc")]).unwrap();
        out.bye(&[Ssrc(5)]).unwrap();
    });
    let feedback = written(|out| {
        out.nack(Ssrc(1), Ssrc(2), &[1, 2, 90]).unwrap();
        out.fir(Ssrc(1), &[FirEntry { ssrc: Ssrc(2), sequence: 1 }]).unwrap();
        out.remb(Ssrc(1), 1_000_000, &[Ssrc(1)]).unwrap();
    });
    let arrived = written(|out| assert_eq!(out.transport_feedback(&fields, &arrivals), Some(5)));
    hammer(&[&reports, &feedback, &arrived], |bytes| {
        for packet in Compound::parse(bytes).into_iter().flatten().flatten() {
            match packet {
                Packet::SenderReport(report) => assert!(report.blocks().count() <= 31),
                Packet::ReceiverReport(report) => assert!(report.blocks().count() <= 31),
                Packet::Description(description) => assert!(description.chunks().count() <= 31),
                Packet::Bye(bye) => assert!(bye.ssrcs().count() <= 31),
                Packet::Nack(nack) => assert!(nack.entries().count() <= 64),
                Packet::TransportFeedback(feedback) => {
                    assert_eq!(feedback.statuses().count(), usize::from(feedback.status_count));
                }
                Packet::Fir(fir) => assert!(fir.entries().count() <= 31),
                Packet::Remb(remb) => assert!(remb.ssrcs().count() <= 255),
                Packet::Pli(_) | Packet::Unknown { .. } => {}
            }
        }
    });
}

fn written(body: impl FnOnce(&mut CompoundWriter<'_>)) -> Vec<u8> {
    let mut out = [0xff; 1200];
    let mut writer = CompoundWriter::new(&mut out);
    body(&mut writer);
    let len = writer.len();
    out[..len].to_vec()
}

fn parsed(bytes: &[u8]) -> Vec<Packet<'_>> {
    Compound::parse(bytes).unwrap().map(|packet| packet.unwrap()).collect()
}

fn theirs(bytes: &[u8]) -> Vec<Box<dyn Theirs + Send + Sync>> {
    rtcp::packet::unmarshal(&mut Bytes::copy_from_slice(bytes)).unwrap()
}

fn downcast<T: 'static>(packet: &(dyn Theirs + Send + Sync)) -> &T {
    assert_ne!(packet.header().packet_type, PacketType::Unsupported);
    packet.as_any().downcast_ref().unwrap()
}

fn their_block() -> ReceptionReport {
    ReceptionReport {
        ssrc: BLOCK.ssrc.0,
        fraction_lost: BLOCK.fraction_lost,
        total_lost: BLOCK.cumulative_lost.cast_unsigned(),
        last_sequence_number: BLOCK.highest_sequence,
        jitter: BLOCK.jitter,
        last_sender_report: BLOCK.last_sr,
        delay: BLOCK.delay_since_last_sr,
    }
}

fn their_symbols(chunk: &PacketStatusChunk) -> Vec<SymbolTypeTcc> {
    match chunk {
        PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; usize::from(run.run_length)],
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
    }
}
