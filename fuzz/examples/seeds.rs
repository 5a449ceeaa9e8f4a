//! Writes the hand-made beginnings of the corpus, `corpus/<target>/seed_*`, from our own writers and the recorded offers.
//! A fuzzer goes on from there. The same every time, but for the ClientHellos, which are a real client's.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dimpl::{Config, Dtls, Output as DtlsOutput};
use ringmain_dataplane::handshake::{Limit, Reliability, dcep_ack, dcep_open};
use ringmain_dataplane::packet::rtcp::{CompoundWriter, FeedbackFields, FirEntry, ReportBlock, SenderInfo};
use ringmain_dataplane::packet::rtp::{HeaderFields, pad};
use ringmain_dataplane::packet::stun::{
    BindingRequest, Class, IntegrityKey, MessageWriter, Role, TransactionId, attribute, error, method,
    write_binding_error, write_binding_request, write_binding_success,
};
use ringmain_fuzz::Output;
use ringmain_shared::Now;
use ringmain_shared::media::{PayloadType, Ssrc};

fn main() {
    let mut written = 0;
    for (target, seeds) in [
        ("stun", stun()),
        ("demux", demux()),
        ("rtp", rtp()),
        ("rtp_rewrite", rtp_rewrite()),
        ("srtp", srtp()),
        ("rtcp", rtcp()),
        ("codec", codec()),
        ("sdp", sdp()),
        ("json_rpc", json_rpc()),
        ("dcep", dcep()),
        ("dtls_client_hello", dtls_client_hello()),
        ("dtls_records", dtls_records()),
        ("dtls_flight", dtls_flight()),
        ("dtls_established", dtls_established()),
        ("receive", receive()),
        ("ice", ice()),
        ("turn", turn()),
        ("turn_model", turn_model()),
        ("turn_tcp_model", turn_tcp_model()),
        ("turn_token", turn_token()),
        ("worker", worker()),
        ("stream", stream()),
    ] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&directory).expect("the corpus can be written");
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(directory.join(format!("seed_{number:02}")), seed).expect("the corpus can be written");
            written += 1;
        }
    }
    println!("{written} seeds");
}

fn key() -> IntegrityKey {
    IntegrityKey::new(b"VOkJxbRl1RmTxUk/WvJxBt")
}

fn message(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let len = write(&mut out).expect("a seed fits");
    out.truncate(len);
    out
}

/// The size of pieces, then a stream; or steps of a conversation, of which the sixth is to read.
fn stream() -> Vec<Vec<u8>> {
    let stun = stun().swap_remove(0);
    let channel_data = [0x40, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];
    let framed = [&(stun.len() as u16).to_be_bytes()[..], &stun, &[0, 3, 0x80, 1, 2]].concat();
    let turn = [&stun[..], &channel_data, &stun].concat();
    let talk = |bytes: &[u8]| {
        let (head, tail) = bytes.split_at(7);
        Output::default()
            .bytes(&[6])
            .chunk(head)
            .bytes(&[6])
            .chunk(tail)
            .bytes(&[1])
            .chunk(b"answer")
            .bytes(&[2, 0, 9])
            .0
    };
    let too_long = [&[0x40, 1, 0x20, 0][..], &[7; 0x2000], &channel_data].concat();
    vec![
        [&[2][..], &turn].concat(),
        [&[200][..], &framed].concat(),
        [&[99][..], &too_long].concat(),
        talk(&turn),
        talk(&framed),
        talk(b"GET / HTTP/1.1\r\n\r\n"),
    ]
}

fn stun() -> Vec<Vec<u8>> {
    let id = TransactionId(*b"abcdefghijkl");
    let request = |role| {
        let request = BindingRequest {
            transaction_id: id,
            remote_ufrag: "evtj",
            local_ufrag: "h6vY",
            priority: 0x6e00_01ff,
            role,
        };
        message(|out| write_binding_request(out, &request, &key()))
    };
    let with = |class, write: &dyn Fn(&mut MessageWriter<'_>)| {
        message(|out| {
            let mut message = MessageWriter::new(out, class, method::BINDING, id);
            write(&mut message);
            message.finish()
        })
    };
    let sha256 = |message: &mut MessageWriter<'_>| {
        message.attribute(attribute::USERNAME, b"a:b");
        message.integrity(&key());
        message.attribute(attribute::MESSAGE_INTEGRITY_SHA256, &[7; 32]);
    };
    let unknown = |message: &mut MessageWriter<'_>| {
        message.attribute(0x7fff, b"what");
        message.attribute(attribute::SOFTWARE, b"test vector");
    };
    let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().expect("an address");
    let mut seeds = vec![
        request(Role::Controlling(0x932f_f9b1_5126_3b36, true)),
        request(Role::Controlled(1)),
        message(|out| write_binding_success(out, id, ([192, 0, 2, 1], 32853).into(), &key())),
        message(|out| write_binding_success(out, id, v6, &key())),
        message(|out| write_binding_error(out, id, error::UNKNOWN_ATTRIBUTE, &[0x7fff, 1], Some(&key()))),
        message(|out| write_binding_error(out, id, error::ROLE_CONFLICT, &[], None)),
        with(Class::Indication, &|_| {}),
        with(Class::Request, &sha256),
        with(Class::Request, &unknown),
    ];
    // Without FINGERPRINT, and without anything.
    let mut bare = seeds[6].clone();
    bare.truncate(20);
    bare[2..4].fill(0);
    seeds.push(bare);
    // RFC 5780: from another address and port; to another port; padded.
    seeds.push(with(Class::Request, &|message| message.attribute(attribute::CHANGE_REQUEST, &[0, 0, 0, 6])));
    seeds.push(with(Class::Request, &|message| {
        message.attribute(attribute::RESPONSE_PORT, &[0x9c, 0x40, 0, 0]);
        message.attribute(attribute::CHANGE_REQUEST, &[0, 0, 0, 2]);
    }));
    seeds.push(with(Class::Request, &|message| message.attribute(attribute::PADDING, &[0; 80])));
    seeds
}

fn demux() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![0x80], vec![0x40, 0, 0, 4, 1, 2, 3, 4]];
    seeds.push(stun()[0].clone());
    seeds.push(rtp()[0].clone());
    seeds.push(rtcp()[0].clone());
    seeds.push(client_hello(false)[0].clone());
    seeds
}

fn rtp_packet(extensions: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
    let fields = HeaderFields {
        marker: true,
        payload_type: PayloadType(96),
        sequence: 0x1234,
        timestamp: 90_000,
        ssrc: Ssrc(2000),
    };
    let mut packet = message(|out| fields.write(extensions, out));
    packet.extend(payload);
    packet
}

fn rtp() -> Vec<Vec<u8>> {
    let mut padded = rtp_packet(&[(1, b"0")], &[0x90, 0x80, 1, 0, 0, 0, 0, 0]);
    pad(&mut padded, 5).expect("there is room");
    let mut with_csrcs = rtp_packet(&[], &[0; 20]);
    with_csrcs[0] |= 3;
    let mut other_profile = rtp_packet(&[(5, &[1, 2, 3])], b"payload");
    other_profile[12..14].copy_from_slice(&[0x12, 0x34]);
    vec![
        rtp_packet(&[(1, b"audio"), (4, &[0, 7]), (6, &[0x85]), (5, &[1, 2, 3])], b"payload"),
        rtp_packet(&[(9, &[0x80; 40]), (15, b""), (200, b"long")], b"payload"),
        rtp_packet(&[(2, b"q"), (3, b"f"), (8, &[0xab, 0xcd, 0xef]), (7, &[3])], b""),
        padded,
        with_csrcs,
        other_profile,
    ]
}

fn rtp_rewrite() -> Vec<Vec<u8>> {
    let vp8 = [0x90, 0xf0, 0x81, 0x23, 0x45, 0x67, 0x00, 0x9d, 0x01, 0x2a, 1, 0, 1, 0];
    let one = |used: u16, room: u16, packet: &[u8]| {
        let descriptor = [0x80; 63];
        let descriptor = &descriptor[..usize::from(used >> 9 & 0x3f)];
        let head = Output::default().bytes(&[0]).bytes(&used.to_be_bytes()).bytes(descriptor);
        head.bytes(&room.to_be_bytes()).bytes(packet).0
    };
    let extensions: &[(u8, &[u8])] = &[(6, &[0x85]), (7, &[3]), (8, &[0, 1, 2])];
    let packet = rtp_packet(extensions, &vp8);
    let steps: Vec<u8> = (0..400u32).map(|n| (n * 37 % 251) as u8).collect();
    let calm: Vec<u8> =
        [0x10, 0x10, 0x80, 0x10, 0xb1, 0xb2, 0x70, 0x90, 0, 0, 0, 1, 0, 0, 0, 2, 0x10, 0xa0, 0x10].repeat(9);
    vec![
        one(0x1ff, 1500, &packet),
        one(0x1ff | 20 << 9, 60, &packet),
        one(0x1ff | 40 << 9, 20, &packet),
        one(0, 12, &packet),
        Output::default().bytes(&[1]).bytes(&[9; 12]).bytes(&steps).0,
        Output::default().bytes(&[1]).bytes(&[0xff; 12]).bytes(&calm).0,
    ]
}

fn srtp() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for profile in 0..3u8 {
        for packet in [&rtp()[0], &rtp()[3]] {
            seeds.push(Output::default().bytes(&[profile, 1, 0, 30, 0x10]).bytes(packet).0);
        }
        seeds.push(Output::default().bytes(&[0x81 + profile, 0, 9, 0x80]).bytes(&rtcp()[0]).0);
    }
    seeds
}

fn rtcp() -> Vec<Vec<u8>> {
    let info =
        SenderInfo { ssrc: Ssrc(2000), ntp: 0x1122_3344_5566_7788, rtp_timestamp: 9, packet_count: 7, octet_count: 8 };
    let block = ReportBlock {
        ssrc: Ssrc(9),
        fraction_lost: 255,
        cumulative_lost: -3,
        highest_sequence: 0x1_ffff,
        jitter: 31,
        last_sr: 0x3344_5566,
        delay_since_last_sr: 65_536,
    };
    let written = |write: &dyn Fn(&mut CompoundWriter<'_>)| {
        message(|out| {
            let mut writer = CompoundWriter::new(out);
            write(&mut writer);
            Some(writer.len())
        })
    };
    let fields = FeedbackFields { sender_ssrc: Ssrc(1), media_ssrc: Ssrc(2), base_sequence: 0xfff0, feedback_count: 3 };
    let arrivals: Vec<Option<Now>> =
        (0..200u64).map(|n| (n % 7 != 3).then_some(Now(64_000_000_000 + n * 300_000 * (1 + n % 5 * 90)))).collect();
    let lost: Vec<Option<Now>> = (0..900u64).map(|n| (n % 300 == 0).then_some(Now::from_millis(n))).collect();
    vec![
        written(&|out| {
            let _ = out.sender_report(&info, &[block, block]);
            let _ = out.description(&[(Ssrc(2000), "cname"), (Ssrc(6), "")]);
        }),
        written(&|out| {
            let _ = out.receiver_report(Ssrc(5), &[block]);
            let _ = out.remb(Ssrc(5), 2_500_000, &[Ssrc(1), Ssrc(2)]);
        }),
        written(&|out| {
            let _ = out.nack(Ssrc(1), Ssrc(2), &[65_530, 65_535, 0, 3, 90, 91, 200]);
            let _ = out.pli(Ssrc(1), Ssrc(2));
        }),
        written(&|out| {
            let _ = out.fir(Ssrc(1), &[FirEntry { ssrc: Ssrc(2), sequence: 3 }]);
            let _ = out.bye(&[Ssrc(1), Ssrc(2)]);
        }),
        written(&|out| {
            let _ = out.transport_feedback(&fields, &arrivals);
        }),
        written(&|out| {
            let _ = out.transport_feedback(&fields, &lost);
        }),
        // Padding behind, and a packet type of nobody's.
        vec![0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0x80, 204, 0, 1, b'n', b'a', b'm', b'e'],
    ]
}

fn codec() -> Vec<Vec<u8>> {
    let keyframe_structure =
        [0xc0, 0x00, 0x01, 0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x20, 0x84, 0x26, 0x80];
    let descriptor = Output::default().bytes(&[5]).chunk(&keyframe_structure).bytes(&[0xc1, 0x00, 0x02, 0x40, 0xff]).0;
    [
        &[0, 0x90, 0xf0, 0x81, 0x23, 0x45, 0x67, 0x00, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01][..],
        &[0, 0x10, 0x01, 0x02],
        &[0, 0x90, 0xe0, 0x12, 0x34, 0x60, 0x01],
        &[1, 0x8a, 0x81, 0x02, 0x18, 0x02, 0x80, 0x01, 0xe0, 0x01, 0x04, 0x01, 0, 0],
        &[1, 0xfc, 0x7f, 0x52, 0x33, 0x44, 0x02, 9],
        &[2, 0x65, 0x88, 0x84],
        &[2, 0x78, 0, 3, 0x67, 0x42, 0, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88],
        &[2, 0x7c, 0x85, 0x88, 0x84],
        &[3, 0x40, 0x01, 0x0c, 0x01],
        &[3, 0x60, 0x01, 0, 3, 0x40, 0x01, 0x0c, 0, 3, 0x42, 0x01, 0x01],
        &[3, 0x62, 0x01, 0x93, 0xaf],
        &[4, 0x08, 0x03, 0x0a, 0x01, 0x00, 0x32, 0x10, 0x00],
        &[4, 0x20, 0x02, 0x0e, 0x48, 0x36, 0x28, 0x10],
        &descriptor,
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn sdp() -> Vec<Vec<u8>> {
    let read = |name: &str| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control/src/sdp/testdata");
        std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let first = read("chromium_audio_video.sdp");
    let mut seeds: Vec<String> = [
        "aiortc.sdp",
        "chromium_audio_video.sdp",
        "chromium_channel_only.sdp",
        "chromium_ion_sdk.sdp",
        "chromium_screen.sdp",
        "chromium_simulcast.sdp",
        "firefox_simulcast.sdp",
        "gstreamer_webrtcbin.sdp",
        "pion.sdp",
    ]
    .map(read)
    .to_vec();
    for next in ["2_add", "3_stop", "4_reuse", "5_inactive", "6_ice_restart"] {
        seeds.push(format!("{first}\n%\n{}", read(&format!("chromium_renegotiate_{next}.sdp"))));
    }
    // Short ones, which a fuzzer gets further with.
    let head = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n";
    let identity = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=setup:actpass\r\na=mid:0\r\n";
    let fingerprint = format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let rtp = "UDP/TLS/RTP/SAVPF";
    for media in [
        format!(
            "m=audio 9 {rtp} 111\r\nc=IN IP4 0.0.0.0\r\n{identity}{fingerprint}a=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:5 cname:c\r\n"
        ),
        format!(
            "m=video 9 {rtp} 96 97\r\nc=IN IP4 0.0.0.0\r\n{identity}{fingerprint}a=sendonly\r\na=msid:s t\r\na=rtcp-mux\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rid:q send\r\na=rid:f send max-width=9\r\na=simulcast:send q;~f\r\n"
        ),
        format!(
            "m=video 9 {rtp} 102\r\n{identity}{fingerprint}a=recvonly\r\na=rtcp-mux\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 profile-level-id=42e01f;packetization-mode=1\r\na=rtcp-fb:* transport-cc\r\n"
        ),
        format!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{identity}{fingerprint}a=sctp-port:5000\r\n"),
    ] {
        seeds.push(format!("{head}{media}"));
        let answer = media.replace("actpass", "active").replace("sendonly", "recvonly");
        seeds.push(format!("{head}{media}\n%\n{head}{answer}"));
    }
    seeds.into_iter().map(String::into_bytes).collect()
}

fn json_rpc() -> Vec<Vec<u8>> {
    let offer = String::from_utf8(sdp().swap_remove(14)).expect("text").replace("\r\n", "\\r\\n");
    let description = |kind: &str| format!(r#"{{"type":"{kind}","sdp":"{offer}"}}"#);
    [
        format!(r#"{{"method":"join","params":{{"sid":"room","uid":"me","offer":{},"config":{{"NoSubscribe":true}},"info":{{"name":"x"}}}},"id":"7f3d","jsonrpc":"2.0"}}"#, description("offer")),
        r#"{"method":"join","params":{"sid":"room","config":{"nopublish":true,"NoAutoSubscribe":true}},"id":1}"#.to_owned(),
        format!(r#"{{"method":"offer","params":{{"desc":{}}},"id":18446744073709551615}}"#, description("offer")),
        format!(r#"{{"method":"answer","params":{{"desc":{}}},"jsonrpc":"2.0"}}"#, description("answer")),
        r#"{"method":"trickle","params":{"target":1,"candidate":{"candidate":"candidate:1 1 udp 2 192.0.2.1 9 typ host","sdpMid":"0","sdpMLineIndex":0}}}"#.to_owned(),
        r#"{"method":"trickle","params":{"target":0,"candidate":null},"id":null}"#.to_owned(),
        r#"{"method":"tracks","id":"a"}"#.to_owned(),
        r#"{"method":"subscribe","params":{"tracks":[{"streamId":"s","trackId":"t"},{"streamId":"u"}]},"id":3}"#.to_owned(),
        r#"{"method":"unsubscribe","params":{"tracks":[{"streamId":"s"}]},"id":4}"#.to_owned(),
        r#"[{"method":"tracks"}]"#.to_owned(),
        r#"{"method":"tracks","method":"join","id":{"a":[1,2.5e300,-0,"\ud83d\ude00\u0000"]}}"#.to_owned(),
        format!("{}{}", "[".repeat(20), "]".repeat(20)),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn dcep() -> Vec<Vec<u8>> {
    let limited = |ordered, limit| Reliability { ordered, limit };
    let mut with_protocol = dcep_open("chat", Reliability::FULL);
    with_protocol[11] = 4;
    with_protocol.extend(b"prot");
    vec![
        dcep_ack().to_vec(),
        dcep_open("", Reliability::FULL),
        dcep_open("ion-sfu", limited(false, Limit::Retransmits(0))),
        dcep_open("\u{1f600} label", limited(true, Limit::LifetimeMs(u32::MAX))),
        with_protocol,
    ]
}

/// The first flight of a real client, of either version.
fn client_hello(dtls13: bool) -> Vec<Vec<u8>> {
    let config = Arc::new(Config::builder().mtu(if dtls13 { 600 } else { 1200 }).build().expect("valid"));
    let certificate = dimpl::certificate::generate_self_signed_certificate().expect("the host has cryptography");
    let now = Instant::now();
    let mut dtls = if dtls13 { Dtls::new_13(config, certificate, now) } else { Dtls::new_12(config, certificate, now) };
    dtls.set_active(true);
    dtls.handle_timeout(now).expect("nothing is wrong yet");
    let mut flight = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        match dtls.poll_output(&mut buffer) {
            DtlsOutput::Packet(bytes) => flight.push(bytes.to_vec()),
            DtlsOutput::Timeout(_) => return flight,
            _ => {}
        }
    }
}

/// One handshake record for each piece of a ClientHello.
fn in_pieces(hello: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (record, message) = (&hello[..13], &hello[13..]);
    let body = &message[12..];
    let pieces = body.chunks(size).enumerate().map(|(number, piece)| {
        let three = |n: usize| [(n >> 16) as u8, (n >> 8) as u8, n as u8];
        let mut out = record[..11].to_vec();
        out.extend((piece.len() as u16 + 12).to_be_bytes());
        out.extend(&message[..6]);
        out.extend(three(number * size));
        out.extend(three(piece.len()));
        out.extend(piece);
        out
    });
    pieces.collect()
}

fn dtls_records() -> Vec<Vec<u8>> {
    let begun = |suite: u8, from: u8| {
        Output::default().bytes(&[suite, from, 0]).bytes(&[9; 8]).bytes(&[from, 2, 1, 2, 3, 4, 5, 6, 7, 8])
    };
    let sealed = |begun: Output| {
        begun.bytes(&[0, 23]).chunk(b"one").bytes(&[0, 23]).chunk(&[2; 1100]).bytes(&[0x80, 21]).chunk(&[1, 0])
    };
    let alone = [[3, 0], [3, 1], [3, 0], [0x83, 0], [6, 0]].concat();
    let together = [4, 1, 0, 1, 0x84, 0, 0, 0];
    let bent = [[5, 0, 0, 12, 1], [5, 0, 0, 0, 2], [5, 1, 2, 0, 0xff], [5, 1, 0, 60, 0]].concat();
    let many = (0..66).fold(begun(0, 0), |out, number| out.bytes(&[0, 23]).chunk(&[number]));
    let strange = Output::default().bytes(&[7]).chunk(&[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 40].repeat(5));
    vec![
        sealed(begun(0, 0)).bytes(&alone).0,
        sealed(begun(1, 1)).bytes(&together).0,
        sealed(begun(2, 0)).bytes(&bent).bytes(&alone).0,
        // The first comes after 64 others, and after 65.
        many.clone().bytes(&[3, 64, 3, 0, 3, 1]).0,
        many.bytes(&[3, 65, 3, 0, 3, 1, 3, 2]).0,
        sealed(begun(0, 1)).bytes(&strange.0).0,
    ]
}

fn dtls_client_hello() -> Vec<Vec<u8>> {
    let listed = |datagrams: &[Vec<u8>]| datagrams.iter().fold(Output::default(), |out, one| out.chunk(one)).0;
    let (old, new) = (client_hello(false), client_hello(true));
    let mut backwards = in_pieces(&old[0], 50);
    backwards.reverse();
    let alert = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
    vec![
        old[0].clone(),
        new[0].clone(),
        listed(&old),
        listed(&new),
        listed(&in_pieces(&old[0], 40)),
        listed(&backwards),
        listed(&[alert, old[0].clone()]),
    ]
}

fn dtls_flight() -> Vec<Vec<u8>> {
    let hello = client_hello(false).swap_remove(0);
    // An SCTP INIT: ports, no tag, checksum to be put right, then the chunk.
    let init =
        [0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 16, 0, 16, 0, 0, 0, 1];
    let late = [0x0c, 0x03, 0xe8];
    vec![
        Output::default().bytes(&[0x00, 0x01, 0x00, 0x02, 0x03]).chunk(&hello).bytes(&late).0,
        Output::default().bytes(&[0x0f, 0x0a]).chunk(&init).bytes(&late).0,
        Output::default().bytes(&[0x8f, 0x0a]).chunk(&init).bytes(&[0x1f, 0x1d]).chunk(b"text").bytes(&late).0,
        // Step by step, with something bent on the way, and again.
        vec![
            0x00, 0x01, 0x00, 0x02, 0x04, 0x00, 0x08, 0, 30, 0x40, 0x09, 0x0c, 0x03, 0xe8, 0x05, 0x05, 0x05, 0x05, 0x05,
        ],
        // We are the client.
        vec![0x10, 0x11, 0x04, 0x14, 0x06, 0x12, 0x15, 0x15, 0x15, 0x15, 0x15, 0x1e],
        // Somebody else's certificate.
        vec![0x00, 0x01, 0x03, 0x02, 0x04, 0x00, 0x05, 0x05, 0x05, 0x05, 0x05],
    ]
}

/// Steps of `ringmain_fuzz::dtls_established`, in an epoch's full layout or another.
fn dtls_established() -> Vec<Vec<u8>> {
    let begun = |suite: u8, hello: u8| Output::default().bytes(&[suite, hello, 0, 1]);
    let says = |out: Output, how: u8, content: u8, text: &[u8]| out.bytes(&[2, how, 0, content, 0]).chunk(text);
    let waits = |out: Output, text: &[u8]| out.bytes(&[1, 0x0c, 0, 23, 3]).chunk(text);
    // Asked for an update, said again until an ACK names it, with data from either end around it.
    let update = [&[3, 0x0c, 0, 1, 12, 11, 0, 9, 12, 10, 0, 1, 7][..], &[5, 0x0c, 2, 0x80, 1]].concat();
    let updated =
        says(says(begun(0, 0), 0x0c, 23, b"one").bytes(&update), 0x0c, 23, b"two").bytes(&[10]).chunk(b"three");
    let three = waits(waits(waits(begun(1, 1), b"one"), b"two"), b"three");
    // Replayed, out of order, joined, bent, cut.
    let joined =
        three.bytes(&[7, 2, 0, 1, 6, 1, 7, 0, 0, 0, 8, 0, 1, 0, 9, 1, 8, 2, 1, 0, 30, 0, 13, 0, 22]).chunk(&[2; 40]);
    let layouts = [0x00, 0x04, 0x08, 0x0c].into_iter().fold(begun(2, 0), |out, how| says(out, how, 23, b"words"));
    let far = layouts.bytes(&[1, 0x1c, 200, 23, 0]).chunk(b"far").bytes(&[6, 0, 6, 1]);
    // Messages that are not to be followed, pieces of them, and the last number that there is.
    let odd = [0x70, 0x60, 0x50, 0x40, 0x30, 0x08, 0x04, 0x0c, 0x01, 0x00];
    let odd = odd.into_iter().fold(begun(0, 0), |out, what| out.bytes(&[3, 0x0c, 0, what]).bytes(&[6, 1]));
    let last = (0..6).fold(begun(0, 0x80), |out, _| out.bytes(&[3, 0x0c, 0, 1, 5, 0x0c, 1, 0]));
    // Behind an update: the epoch before it, until the one after it was heard; the handshake's, and one of the future.
    let epochs = begun(0, 0).bytes(&[3, 0x0c, 0, 0]);
    let epochs = [0x0d, 0x0e, 0x0f, 0x0c, 0x0d].into_iter().fold(epochs, |out, how| says(out, how, 23, b"epoch"));
    let again = epochs.bytes(&[3, 0x0e, 0, 4, 3, 0x0c, 0, 4]);
    let empty = says(begun(0, 0), 0x0c, 0, b"").bytes(&[2, 0x0c, 0, 23, 200]).chunk(b"");
    // The longest that can be read and that can be sent, and one byte more.
    let long = says(says(empty, 0x0c, 23, &[7; 1499]), 0x0c, 23, &[7; 1500]);
    let longest = begun(0, 0).bytes(&[10]).chunk(&[7; 1478]).bytes(&[10]).chunk(&[7; 1479]).bytes(&[10]).chunk(b"on");
    let strange =
        begun(0, 0).bytes(&[0]).chunk(&[0x2f, 0, 0, 0, 40]).bytes(&[14, 0, 23, 10]).chunk(b"ours").bytes(&[9, 0]);
    // More records in one datagram than are looked at.
    let many = (0..20).fold(begun(1, 3), |out, _| out.bytes(&[4, 0x0c, 0, 0x40])).bytes(&[0x17, 20, 0x37, 20]);
    let seeds = [many, updated, joined, far, odd, last, again, long, longest, strange];
    let ends = [[1, 0], [2, 90], [2, 40]].map(|alert| says(says(begun(0, 0), 0x0c, 23, b"one"), 0x0c, 21, &alert));
    seeds
        .into_iter()
        .chain(ends)
        .chain([begun(0, 0).bytes(&[10]).chunk(b"bye").bytes(&[15])])
        .map(|seed| seed.0)
        .collect()
}

fn receive() -> Vec<Vec<u8>> {
    let head = |sequence: u16, rate: u32| {
        let out = Output::default().bytes(&[0, 9]).bytes(&4_000_000u32.to_be_bytes()).bytes(&sequence.to_be_bytes());
        out.bytes(&[0xff, 0xf0]).bytes(&[0, 0, 0, 5]).bytes(&rate.to_be_bytes())
    };
    let calm = [0x00, 0x00, 0x71, 0x00, 0x90, 0xa0, 5, 0xb0, 0x08, 0x00, 0x91, 0x48, 0xd1, 0xd0, 0xf0, 4, 0].repeat(20);
    let wild: Vec<u8> = (0..600u32).map(|n| (n * 131 % 253) as u8).collect();
    let restart = [0x00, 0x50, 0x40, 0x00, 0x10, 0x00, 0x00, 0x00, 0x93, 0x75, 0x93, 0xb0, 0xa0, 1].repeat(6);
    vec![
        head(65_500, 90_000).bytes(&calm).0,
        head(3, 48_000).bytes(&wild).0,
        head(0x7fff, 0).bytes(&restart).0,
        head(9, 90_000)
            .bytes(&[0x00, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xa0, 0, 0x80, 0x10, 0, 0x95, 0xb0])
            .0,
    ]
}

fn ice() -> Vec<Vec<u8>> {
    vec![
        // Connect, stay, lose consent.
        vec![1, 0x01, 0x03, 0x1a, 0x08, 0x27, 0x10, 0x03, 0x08, 0xff, 0xff],
        // Two addresses; the peer moves; an answer from the wrong one.
        vec![1, 0x01, 0x03, 0x11, 0x15, 0, 0x13, 0x08, 0, 100, 0x01, 0x03, 0x2b, 5, 0],
        // A restart on both sides, with the new remote late.
        vec![1, 0x01, 0x03, 0x1d, 0x01, 0x1e, 0x01, 0x03, 0x0d, 0x01, 0x03, 0x08, 0xff, 0xff],
        // Nobody answers: what goes to an unproved address.
        vec![1, 0x01, 0x0b, 5, 0, 0x0c, 200, 0x0b, 1, 0, 0x08, 0x13, 0x88],
        // More addresses than there may be, and strangers.
        (0..12u8).flat_map(|n| [n << 4 | 1, n << 4 | 6, n]).collect(),
        Output::default().bytes(&[0, 0x01, 0x0e, 0x01, 0x07]).chunk(&stun()[0]).bytes(&[0x03]).0,
    ]
}

fn worker() -> Vec<Vec<u8>> {
    let vp8_key = [0x90, 0xe0, 0x81, 0x23, 0x45, 0x20, 0x00, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01];
    let vp8_delta = [0x90, 0xe0, 0x81, 0x24, 0x46, 0x20, 0x01, 0x00, 0x00];
    let sends = |shape: u8, step: u8, payload: &[u8]| {
        let mut bytes = vec![0x08, 0, shape, step];
        // The payload's first byte also says how long it is.
        bytes.extend(payload);
        bytes.resize(4 + usize::from(payload[0]) + 1, 0);
        bytes
    };
    let video = |shape| [sends(shape, 1, &vp8_key), sends(shape, 1, &vp8_delta), sends(shape, 2, &vp8_delta)].concat();
    let flow = |begin: u8, shapes: &[u8]| {
        let packets: Vec<u8> = shapes.iter().flat_map(|&shape| video(shape)).collect();
        Output::default()
            .bytes(&[begin])
            .bytes(&packets)
            .bytes(&[0x17, 0, 250])
            .bytes(&packets)
            .bytes(&[0x1a, 0, 8, 0])
            .0
    };
    let report = |bytes: &[u8], number: u8| Output::default().bytes(&[number << 5 | 0x0d, number]).chunk(bytes).0;
    let feedback: Vec<u8> = rtcp().iter().flat_map(|bytes| [report(bytes, 0), report(bytes, 1)].concat()).collect();
    let complaints: Vec<u8> = (0..12u8).flat_map(|n| [0x1f, 1 + n % 2, n, n]).collect();
    let with_feedback = |begin: u8| {
        Output(flow(begin, &[1, 3])).bytes(&video(1)).bytes(&complaints).bytes(&feedback).bytes(&video(1)).0
    };
    let orders = [
        0x11, 0, 0x31, 0x02, 0x21, 0x12, 3, 0x31, 3, 0x12, 0, 1, 0x80, 0x12, 0, 1, 0x00, 0x13, 0, 2, 0x10, 0, 0x47,
        0x14, 0, 1, 0x15, 0, 0x16, 0, 0x2f, 1, 0x0e, 1, 0x1e, 0, 0x10, 0x1c, 0, 3, 0, 4, 1, 2, 3, 4, 0x1e, 0, 2,
    ];
    vec![
        flow(0x00, &[0]),
        flow(0x10, &[1, 2]),
        flow(0x20, &[3, 4, 5]),
        flow(0x00, &[7, 8, 9]),
        with_feedback(0x00),
        with_feedback(0x20),
        Output(flow(0x00, &[1])).bytes(&orders).bytes(&flow(0x00, &[1, 0])).0,
        // Nobody has connected; a handshake's flights go out within the allowance only.
        vec![7, 0x01, 0, 0x1b, 0, 60, 0x1b, 0, 60, 0x03, 0, 0x07, 0, 0x1b, 0, 60, 0x1b, 0, 0xff],
        Output::default().bytes(&[7, 0x00, 5]).chunk(&stun()[0]).bytes(&[0x00, 5]).chunk(&client_hello(false)[0]).0,
        // Moving to another address.
        vec![0, 0x21, 4, 0x23, 4, 0x21, 1, 0x25, 6, 4, 0x17, 0, 9, 0x34, 1, 3, 0x21, 4, 0x23, 4, 0x1a, 0, 0xff, 0xff],
    ]
}

/// Steps of `ringmain_fuzz::turn`: a proved Allocate, permissions and a channel for one client, data both ways, time.
fn turn() -> Vec<Vec<u8>> {
    let attribute = |output: Output, kind: u16, value: &[u8]| output.bytes(&kind.to_be_bytes()).chunk(value);
    let peer = [0, 1, 0x02, 0x3a, 0x29, 0x1a, 0xac, 0x4a];
    let udp = |output| attribute(output, attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let allocate = udp(Output::default().bytes(&[3, 1]));
    let pair = attribute(udp(Output::default().bytes(&[3, 3])), attribute::EVEN_PORT, &[0x80]);
    let moving = attribute(pair.clone(), attribute::MOBILITY_TICKET, &[]);
    let permit = attribute(allocate.clone().bytes(&[3 | 2 << 3, 1]), attribute::XOR_PEER_ADDRESS, &peer);
    let bind = attribute(permit.clone().bytes(&[3 | 3 << 3, 2]), attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
    let bind = attribute(bind, attribute::XOR_PEER_ADDRESS, &peer);
    let data = bind.clone().bytes(&[0]).chunk(b"\x40\x00\x00\x04data").bytes(&[6]).chunk(b"reply");
    let later = data.clone().bytes(&[7, 1, 0x2c]).bytes(&[3 | 1 << 3, 1]);
    let later = attribute(later, attribute::LIFETIME, &[0; 4]);
    let strangers = stun().iter().fold(Output::default(), |output, message| output.bytes(&[0x40]).chunk(message));
    [allocate, moving, permit, bind, data, later, strangers].map(|output| output.0).into()
}

/// Steps of `ringmain_fuzz::turn_model`, two bytes and what the step takes.
fn turn_model() -> Vec<Vec<u8>> {
    let life = [
        &[0, 0][..],
        &[2, 0, 2, 0, 4],
        &[3, 0, 0, 0],
        &[3, 0, 1, 4],
        &[4, 0, 4],
        &[5, 0, 0],
        &[5, 0, 1],
        &[6, 0, 0],
        &[6, 0, 1],
    ];
    let two = [
        &[0, 0][..],
        &[0, 1],
        &[0, 2],
        &[0, 4],
        &[0, 5],
        &[3, 1, 0, 4],
        &[5, 1, 0],
        &[1, 1, 0],
        &[3, 2, 1, 4],
        &[5, 2, 1],
    ];
    let time = [
        &life.concat()[..],
        &[7, 0, 100],
        &[5, 0, 0],
        &[6, 0, 0],
        &[7, 0, 100],
        &[5, 0, 0],
        &[1, 0, 200],
        &[7, 0, 255],
    ]
    .concat();
    let wrong =
        [&[0, 0][..], &[1, 4, 9], &[2, 4, 1, 0], &[2, 0, 1, 6], &[3, 0, 0, 7], &[4, 0, 6], &[4, 0, 0], &[5, 3, 0]];
    vec![life.concat(), two.concat(), time, wrong.concat()]
}

/// What is sealed in a token, behind a byte that says how it is used: keys of every length, good and over.
fn turn_token() -> Vec<Vec<u8>> {
    let seed = |how: u8, key_len: u16, seconds: u64, lifetime: u32| {
        let key = vec![3; usize::from(key_len)];
        let timestamp = (seconds << 16).to_be_bytes();
        [&[how][..], &key_len.to_be_bytes(), &key, &timestamp, &lifetime.to_be_bytes()].concat()
    };
    let now = 1_800_000_000;
    [
        seed(0, 20, now, 600),
        seed(2, 20, now, 600),
        seed(1, 32, now - 500, 600),
        seed(0, 16, now - 700, 600),
        seed(0, 64, now + 300, u32::MAX),
        seed(0, 15, now, 600),
    ]
    .into()
}

/// Steps of `ringmain_fuzz::turn_tcp_model`, three bytes each.
fn turn_tcp_model() -> Vec<Vec<u8>> {
    let connect = [[0, 0, 0], [3, 0, 0], [3, 0, 0], [5, 0, 0], [7, 0, 0], [8, 0, 0], [24, 0, 0], [8, 0, 0], [3, 0, 0]];
    let arrive = [[0, 0, 0], [6, 0, 1], [2, 0, 0], [6, 0, 1], [7, 4, 0], [7, 0, 0], [9, 0, 29], [6, 0, 0], [9, 0, 31]];
    let bounds = [[0, 0, 0], [0, 1, 0], [3, 0, 0], [3, 0, 1], [3, 0, 2], [3, 1, 0], [3, 1, 1], [21, 0, 0], [1, 0, 0]];
    let wrong = [[3, 0, 0], [0, 0, 0], [3, 4, 0], [3, 0, 4], [3, 0, 6], [3, 0, 7], [7, 0, 1], [7, 0, 2], [9, 0, 255]];
    [connect, arrive, bounds, wrong].map(|steps| steps.concat()).into()
}
