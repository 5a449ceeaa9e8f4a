//! Offers as clients make them (`testdata/`: `chromium_*` captured, the others written after the clients' sources), and
//! as nobody should make them.

use std::collections::HashSet;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use ringmain_shared::id::SubscriptionId;
use ringmain_shared::media::{Codec, Extension, Kind, PayloadType, Rid, Ssrc};
use ringmain_shared::transport::{DtlsRole, Fingerprint, FingerprintHash, IceCredentials};

use super::format::{Format, H264Profile, Meaning};
use super::offerer::IDLE_MAX;
use super::*;

const AUDIO_VIDEO: &str = include_str!("testdata/chromium_audio_video.sdp");
const SIMULCAST: &str = include_str!("testdata/chromium_simulcast.sdp");
const ION_SDK: &str = include_str!("testdata/chromium_ion_sdk.sdp");
const CHANNEL_ONLY: &str = include_str!("testdata/chromium_channel_only.sdp");
const SCREEN: &str = include_str!("testdata/chromium_screen.sdp");
const ADD: &str = include_str!("testdata/chromium_renegotiate_2_add.sdp");
const STOP: &str = include_str!("testdata/chromium_renegotiate_3_stop.sdp");
const REUSE: &str = include_str!("testdata/chromium_renegotiate_4_reuse.sdp");
const INACTIVE: &str = include_str!("testdata/chromium_renegotiate_5_inactive.sdp");
const RESTART: &str = include_str!("testdata/chromium_renegotiate_6_ice_restart.sdp");
const FIREFOX: &str = include_str!("testdata/firefox_simulcast.sdp");
const GSTREAMER: &str = include_str!("testdata/gstreamer_webrtcbin.sdp");
const AIORTC: &str = include_str!("testdata/aiortc.sdp");
const PION: &str = include_str!("testdata/pion.sdp");

const ALL: [&str; 14] = [
    AUDIO_VIDEO,
    SIMULCAST,
    ION_SDK,
    CHANNEL_ONLY,
    SCREEN,
    ADD,
    STOP,
    REUSE,
    INACTIVE,
    RESTART,
    FIREFOX,
    GSTREAMER,
    AIORTC,
    PION,
];

fn local() -> Local {
    Local {
        ice: IceCredentials { ufrag: "localufrag".into(), pwd: "localpasswordlocalpassword".into() },
        fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: (0..32).collect() },
        candidates: vec!["192.0.2.1:5000".parse().unwrap(), "[2001:db8::1]:5000".parse().unwrap()],
        tcp_candidates: vec!["192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()],
    }
}

fn answer(text: &str) -> Answer {
    Answerer::new(1).answer(&Offer::parse(text).unwrap(), &local()).unwrap()
}

/// The m-sections of a description: the session part first.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("m=") {
            parts.push(String::new());
        }
        let part = parts.last_mut().unwrap();
        part.push_str(line);
        part.push('\n');
    }
    parts
}

fn offered(id: u64, track: &PublishedTrack) -> OfferedTrack {
    OfferedTrack {
        id: SubscriptionId(id),
        kind: track.kind,
        stream_id: track.stream_id.clone(),
        track_id: track.track_id.clone(),
        formats: track.formats.clone(),
        ssrc: Ssrc(id as u32 * 10),
        rtx_ssrc: (track.kind == Kind::Video).then_some(Ssrc(id as u32 * 10 + 1)),
        cname: "publisher".into(),
        extensions: OfferedTrack::default_extensions(track.kind),
    }
}

/// What a browser that takes everything says to our offer, built line by line from it.
fn accept_all(offer: &str) -> String {
    let keep = |line: &&str| {
        !["a=ssrc", "a=msid", "a=candidate", "a=ice-lite", "a=end-of"].iter().any(|start| line.starts_with(start))
    };
    let swap = |line: &str| match line {
        "a=setup:actpass" => "a=setup:active".to_owned(),
        "a=sendonly" => "a=recvonly".to_owned(),
        line => line.replace("localufrag", "peerufrag"),
    };
    offer.lines().filter(keep).map(|line| swap(line) + "\r\n").collect()
}

#[test]
fn every_real_offer_is_answered_in_kind() {
    for text in ALL {
        let answer = answer(text);
        let (asked, said) = (parts(text), parts(&answer.sdp));
        assert_eq!(asked.len(), said.len());
        for (asked, said) in asked.iter().zip(&said).skip(1) {
            let mid = asked.lines().find(|line| line.starts_with("a=mid:")).unwrap();
            assert!(said.contains(&format!("{mid}\n")), "{said}");
            assert!(!said.contains("a=send") && !said.contains("a=ice-lite"), "{said}");
            for line in said.lines().filter(|line| line.starts_with("a=rtpmap:") || line.starts_with("a=rtcp-fb:")) {
                assert!(asked.to_lowercase().contains(&line.to_lowercase()), "{line} was not offered");
            }
        }
        assert!(said[0].contains("a=ice-lite\n") && answer.sdp.ends_with("\r\n"));
        // Each m-section on the transport has its candidates: aiortc reads those of the last one only.
        let live = said.iter().filter(|said| said.contains("a=ice-ufrag:"));
        assert!(live.clone().count() > 0 && live.clone().all(|said| said.contains("a=end-of-candidates\n")));
        assert!(live.clone().all(|live| live.matches(" 1 udp ").count() == local().candidates.len()));
        let tcp: Vec<usize> = live.map(|live| live.matches(" tcptype passive\n").count()).collect();
        assert_eq!(
            (tcp[0], tcp[1..].iter().sum::<usize>()),
            (local().tcp_candidates.len(), 0),
            "those of TCP come once"
        );
        assert_eq!(answer.remote.role, DtlsRole::Server);
        assert_eq!(answer.remote.fingerprints[0].value.len(), 32);
        text::parse(&answer.sdp, &text::OFFER).unwrap_or_else(|error| panic!("{error}\n{}", answer.sdp));
    }
}

#[test]
fn candidates_of_tcp_come_after_those_of_udp_and_below_them() {
    let offer = Offerer::new(1, true).offer(&local());
    for sdp in [answer(ION_SDK).sdp, offer] {
        let first = &parts(&sdp)[1];
        let lines: Vec<&str> = first.lines().filter_map(|line| line.strip_prefix("a=candidate:")).collect();
        // RFC 8445 §5.1.2.1 and RFC 6544 §4.2: type preference << 24 | local preference << 8 | 256 - component.
        let expected = [
            "1 1 udp 2130706431 192.0.2.1 5000 typ host",
            "2 1 udp 2130706175 2001:db8::1 5000 typ host",
            "3 1 tcp 1520435199 192.0.2.1 443 typ host tcptype passive",
            "4 1 tcp 1520434943 2001:db8::1 443 typ host tcptype passive",
        ];
        assert_eq!(lines, expected);
    }
}

#[test]
fn ion_sdk_offer_gives_one_codec_each_and_three_layers() {
    let answer = answer(ION_SDK);
    assert!(answer.channels && answer.transport_cc && !answer.remb);
    let [audio, video] = &answer.tracks[..] else { panic!("{:?}", answer.tracks) };
    assert_eq!((audio.kind, video.kind), (Kind::Audio, Kind::Video));
    assert_eq!(audio.stream_id, video.stream_id);
    assert_eq!(video.track_id, "1d897715-df61-4923-9d9c-917a2499259f");
    assert_eq!(video.codecs.len(), 1);
    assert_eq!((video.codecs[0].codec, video.codecs[0].payload_type), (Codec::Vp8, PayloadType(96)));
    assert!(video.codecs[0].nack && video.codecs[0].pli && video.codecs[0].fir && video.codecs[0].rtx.is_none());
    let rids: Vec<_> = video.rids.iter().map(|layer| (layer.rid.as_str(), layer.spatial)).collect();
    assert_eq!(rids, [("f", 2), ("h", 1), ("q", 0)]);
    assert_eq!(audio.ssrcs[0].ssrc, Ssrc(262776647));
    assert_eq!(answer.extensions.id(Extension::Mid), Some(4));
    assert_eq!(answer.extensions.id(Extension::DependencyDescriptor), Some(12));
    let video = &parts(&answer.sdp)[2];
    for line in ["a=rid:f recv", "a=rid:q recv", "a=simulcast:recv f;h;q", "a=recvonly", "a=rtcp-fb:96 transport-cc"] {
        assert!(video.contains(&format!("{line}\n")), "{video}");
    }
    assert!(!video.contains("goog-remb") && answer.sdp.contains("a=extmap-allow-mixed\r\n"));
    assert!(answer.sdp.contains("a=sctp-port:5000\r\na=max-message-size:65536\r\n"));
}

#[test]
fn codecs_that_are_not_forwarded_are_left_out_and_rtx_follows_its_codec() {
    let answer = answer(AUDIO_VIDEO);
    for word in ["red/", "ulpfec", "CN/", "telephone-event", " 118", " 119", " 63"] {
        assert!(!answer.sdp.contains(word), "{word} in {}", answer.sdp);
    }
    let video = &answer.tracks[1];
    let rtx: Vec<_> = video.codecs.iter().map(|codec| codec.rtx.map(|rtx| rtx.0)).collect();
    assert_eq!(rtx, [97, 103, 107, 109, 115, 117, 40, 46, 99, 101].map(Some));
    assert_eq!(video.ssrcs, [SsrcLayer { ssrc: Ssrc(1939643325), rtx: Some(Ssrc(2606714939)), spatial: 0 }]);
    assert_eq!(answer.tracks[0].codecs.iter().map(|codec| codec.payload_type.0).collect::<Vec<_>>(), [111, 9, 0, 8]);
    assert!(answer.sdp.contains("a=fmtp:109 apt=108\r\n"));
    assert!(
        answer.sdp.contains("a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n")
    );
}

#[test]
fn firefox_directions_of_extensions_are_turned() {
    let answer = answer(FIREFOX);
    assert!(answer.transport_cc && answer.channels);
    assert!(answer.sdp.contains("a=extmap:8/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"));
    assert_eq!(answer.extensions.id(Extension::PlayoutDelay), None, "the peer only receives it");
    assert_eq!(answer.tracks[1].rids.len(), 3);
    assert!(answer.tracks[1].ssrcs.is_empty(), "layers are found by rid");
    assert!(answer.sdp.contains("a=fmtp:109 useinbandfec=1;maxplaybackrate=48000;stereo=1\r\n"), "{}", answer.sdp);
    assert!(!answer.sdp.contains("max-fs"));
}

#[test]
fn gstreamer_offer_without_msid_lines_and_with_a_bundle_only_section_is_taken() {
    let answer = answer(GSTREAMER);
    let [video, audio] = &answer.tracks[..] else { panic!("{:?}", answer.tracks) };
    assert_eq!((video.mid.as_str(), video.stream_id.as_str()), ("video0", "user3344942761@host-22d2e4e9"));
    assert_eq!(video.track_id, "webrtctransceiver0");
    assert_eq!(video.formats[0].fmtp, "packetization-mode=1;profile-level-id=42c01f");
    assert_eq!(video.ssrcs[0].rtx, Some(Ssrc(1246325401)));
    assert_eq!(audio.codecs[0].codec, Codec::Opus);
    assert!(parts(&answer.sdp)[2].starts_with("m=audio 5000 "));
    assert!(parts(&answer.sdp)[2].contains("a=fmtp:98 stereo=1\n"), "what it sends in stereo is taken in stereo");
}

#[test]
fn remb_is_answered_where_there_is_no_transport_wide_feedback() {
    let aiortc = answer(AIORTC);
    assert!(aiortc.remb && !aiortc.transport_cc && aiortc.sdp.contains("a=rtcp-fb:97 goog-remb\r\n"));
    assert_eq!(aiortc.remote.fingerprints.len(), 2);
    let pion = answer(PION);
    assert!(pion.transport_cc && !pion.remb && !pion.sdp.contains("goog-remb"));
}

#[test]
fn renegotiation_follows_added_stopped_reused_and_inactive_sections() {
    let mut answerer = Answerer::new(1);
    let mut say = |text: &str| {
        let offer = Offer::parse(text).unwrap();
        let restart = answerer.is_ice_restart(&offer);
        let answer = answerer.answer(&offer, &local()).unwrap();
        let mids: Vec<String> = answer.tracks.iter().map(|track| track.mid.to_string()).collect();
        (mids.join(" "), restart, answer.sdp)
    };
    assert_eq!(say(ADD).0, "1 2");
    let (mids, _, sdp) = say(STOP);
    assert_eq!(mids, "1");
    assert!(parts(&sdp)[3].starts_with("m=video 0 ") && sdp.contains("a=group:BUNDLE 0 1\r\n"), "{sdp}");
    assert_eq!(say(REUSE).0, "1 3");
    let (mids, restart, sdp) = say(INACTIVE);
    assert_eq!((mids.as_str(), restart), ("3", false));
    assert!(parts(&sdp)[2].contains("a=inactive\n") && parts(&sdp)[2].starts_with("m=audio 5000"));
    let (_, restart, sdp) = say(RESTART);
    assert!(restart && sdp.contains("o=- 1 5 IN IP4 127.0.0.1\r\n"), "{sdp}");
}

#[test]
fn a_place_cannot_change_hands_while_it_is_held() {
    let mut answerer = Answerer::new(1);
    answerer.answer(&Offer::parse(ADD).unwrap(), &local()).unwrap();
    let stolen = ADD.replace("a=mid:2", "a=mid:9").replace("BUNDLE 0 1 2", "BUNDLE 0 1 9");
    let error = answerer.answer(&Offer::parse(&stolen).unwrap(), &local()).unwrap_err();
    assert_eq!(error.section(), Some(2));
    let error = answerer.answer(&Offer::parse(CHANNEL_ONLY).unwrap(), &local()).unwrap_err();
    assert!(error.to_string().contains("has 1 m-sections after 3"), "{error}");
    assert!(answerer.answer(&Offer::parse(ADD).unwrap(), &local()).is_ok(), "errors change nothing");
}

#[test]
fn sections_that_cannot_be_served_are_refused_in_place() {
    let cases: [(&str, &str); 7] = [
        ("m=video 9 UDP/TLS", "m=hologram 9 UDP/TLS"),
        ("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/AVP"),
        ("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/SAVPF"),
        ("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 QUIC/RTP/MAGIC"),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96 97 45 46", "m=video 9 UDP/TLS/RTP/SAVPF 200 x 300"),
        ("BUNDLE 0 1", "BUNDLE 1"),
        ("96 VP8/90000\r\na=rtcp-fb:96 goog-remb", "96 VP8/48000\r\na=rtcp-fb:96 goog-remb"),
    ];
    let pion = PION.replace("\r\n", "\n").replace('\n', "\r\n").replace("45 AV1/", "45 AV9/");
    for (from, to) in cases {
        let text = pion.replace(from, to);
        assert_ne!(text, pion, "{from} is in the offer");
        let answer = answer(&text);
        assert!(answer.tracks.is_empty(), "{to}: {:?}", answer.tracks);
        assert!(parts(&answer.sdp)[1].split(' ').nth(1) == Some("0"), "{to}: {}", answer.sdp);
        assert!(answer.channels && answer.sdp.contains("a=group:BUNDLE 1\r\n"), "{to}: {}", answer.sdp);
    }
}

#[test]
fn without_a_bundle_a_section_stands_alone() {
    let alone = PION.replace("a=group:BUNDLE 0 1\n", "").replace("m=application 9", "m=application 0");
    let answer = answer(&alone);
    assert_eq!(answer.tracks.len(), 1);
    assert!(!answer.channels && !answer.sdp.contains("a=group"), "{}", answer.sdp);
    assert!(parts(&answer.sdp)[2].starts_with("m=application 0 "));
}

#[test]
fn what_a_bundle_says_once_about_rtcp_holds_for_all_of_it() {
    // As RFC 8829 §5.2.1 has it: of the three m-sections, the first that is RTP says it.
    let once = |text: &str| {
        let mut said = 0;
        let lines = text.lines().filter(|line| {
            said += usize::from(line.starts_with("a=rtcp-mux"));
            !(said > 1 && (line.starts_with("a=rtcp-mux") || line.starts_with("a=rtcp-rsize")))
        });
        lines.map(|line| format!("{line}\r\n")).collect::<String>()
    };
    let offer = once(ION_SDK);
    assert_eq!(offer.matches("a=rtcp-mux").count(), 1);
    let publisher = answer(&offer);
    assert_eq!(publisher.tracks.len(), 2);
    assert_eq!(publisher.sdp.matches("a=rtcp-mux\r\n").count(), 2, "{}", publisher.sdp);

    let mut offerer = Offerer::new(7, true);
    for (id, track) in (1..).zip(&publisher.tracks) {
        offerer.add(offered(id, track));
    }
    let answer = once(&accept_all(&offerer.offer(&local())));
    let answered = offerer.answer(&answer).unwrap();
    assert_eq!(answered.tracks.len(), 2);
}

#[test]
fn an_offer_of_unknown_things_only_is_refused_section_by_section() {
    let text = PION.replace("VP8/", "VP88/").replace("AV1/", "AV9/").replace("webrtc-datachannel", "telex");
    let answer = answer(&text);
    assert!(answer.tracks.is_empty() && !answer.channels && answer.sdp.matches("\r\na=inactive").count() == 2);
    assert!(text::parse(&answer.sdp, &text::OFFER).is_ok());
}

#[test]
fn secrets_are_not_printed() {
    let offer = Offer::parse(ION_SDK).unwrap();
    let mut answerer = Answerer::new(1);
    answerer.answer(&offer, &local()).unwrap();
    let printed = format!("{offer:?} {answerer:?}");
    assert!(printed.contains("k+tq") && !printed.contains("i46YJVhQSNG"), "{printed}");
}

#[test]
fn whole_offers_that_are_wrong_are_refused_with_the_line_to_mend() {
    let long = format!("a=x:{}\r\n", "y".repeat(2000));
    let ended = |section: &str| ION_SDK.to_owned() + section;
    let cases: Vec<(String, Option<usize>, &str)> = vec![
        (String::new(), Some(1), "RFC 8866"),
        ("v=1\r\n".into(), Some(1), "RFC 8866"),
        (ION_SDK.replace("t=0 0", "t=now"), Some(4), "RFC 8866"),
        (ION_SDK.replace("s=-", "q=-"), Some(3), "RFC 8866"),
        (ION_SDK.replace("a=sendonly", "sendonly"), Some(29), "RFC 8866"),
        (ION_SDK.replace("a=mid:1", "a=mid:1\0"), Some(55), "control character"),
        (ION_SDK.replace("a=mid:1", "a=mid:1\ra=x"), Some(55), "control character"),
        (ended(&long), Some(102), "longer than 1024"),
        (ended(&"a=candidate\r\n".repeat(4500)), None, "more than 4096 lines"),
        (ended(&"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(62)), Some(163), "more than 64 m-sections"),
        (ended(&"a=x\r\n".repeat(13_000)), None, "longer than 65536 bytes"),
        (ended("m=audio 9 UDP/TLS/RTP/SAVPF\r\n"), Some(102), "1 to 128 formats"),
        (ended(&format!("m=audio 9 x {}\r\n", "1 ".repeat(129))), Some(102), "1 to 128 formats"),
        (ended("m=audio 70000 UDP/TLS/RTP/SAVPF 0\r\n"), Some(102), "m=<media>"),
        (ended("m=au\"dio 9 UDP/TLS/RTP/SAVPF 0\r\n"), Some(102), "m=<media>"),
        (ION_SDK.replace("a=mid:2", "a=mid:1"), Some(84), "another m-section"),
        (ION_SDK.replace("a=ice-ufrag:k+tq", "a=ice-ufrag:k+t"), Some(8), "ice-ufrag"),
        (ION_SDK.replace("a=ice-ufrag:k+tq", "a=ice-ufrag:k tq"), Some(8), "ice-ufrag"),
        (ION_SDK.replace("a=ice-pwd:", "a=ice-past:"), Some(8), "ice-pwd"),
        (ION_SDK.replace("fingerprint:sha-256", "fingerprint:sha-1"), Some(8), "weaker hashes"),
        (ION_SDK.replace("sha-256 24:1E", "sha-256 24:1"), Some(8), "malformed digest"),
        (ION_SDK.replace("sha-256 24:1E:", "sha-256 "), Some(8), "malformed digest"),
        (ION_SDK.replace("a=setup:actpass", "a=setup:both"), Some(8), "setup"),
        (ION_SDK.replace("a=extmap-allow-mixed", "a=ice-lite"), None, "full ICE"),
        ("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".into(), None, "no m-section"),
        (ION_SDK.replace("a=rtcp-mux\r\n", ""), Some(8), "a=rtcp-mux"),
        (ION_SDK.replace("a=group:BUNDLE", "a=group:LS"), None, "max-bundle"),
        (PION.replace("a=mid:0", "a=mid:longer-than-16-bytes"), Some(9), "a=mid"),
        (PION.replace("a=mid:0\n", ""), Some(9), "a=mid"),
    ];
    for (text, line, what) in cases {
        let error = Offer::parse(&text).err().unwrap_or_else(|| panic!("accepted, though {what}"));
        assert_eq!(error.line(), line, "{error}");
        assert!(error.to_string().contains(what), "{error} should say {what}");
    }
}

#[test]
fn our_dtls_part_follows_setup_and_stays_with_the_association() {
    let mut answerer = Answerer::new(1);
    let passive = Offer::parse(&ION_SDK.replace("setup:actpass", "setup:passive")).unwrap();
    let answer = answerer.answer(&passive, &local()).unwrap();
    assert_eq!(answer.remote.role, DtlsRole::Client);
    assert!(answer.sdp.contains("a=setup:active\r\n"));
    let again = answerer.answer(&Offer::parse(ION_SDK).unwrap(), &local()).unwrap();
    assert_eq!(again.remote.role, DtlsRole::Client, "actpass later keeps it");
    let other = Offer::parse(&ION_SDK.replace("24:1E", "25:1E")).unwrap();
    assert_eq!(answerer.answer(&other, &local()).unwrap().remote.role, DtlsRole::Server, "a new association");
}

#[test]
fn layers_are_ranked_by_their_names_and_else_by_their_order() {
    let cases: [(&str, &[(&str, u8)]); 8] = [
        ("f;h;q", &[("f", 2), ("h", 1), ("q", 0)]),
        ("~q;f", &[("q", 0), ("f", 2)]),
        ("high;medium;low", &[("high", 2), ("medium", 1), ("low", 0)]),
        ("hi;mid,lo;lo", &[("hi", 2), ("mid", 1), ("lo", 0)]),
        ("2;1;0", &[("2", 2), ("1", 1), ("0", 0)]),
        ("30;10;20", &[("30", 2), ("10", 0), ("20", 1)]),
        ("r0;r1;r2;r3", &[("r0", 0), ("r1", 1), ("r2", 2)]),
        ("a;a;unlisted;b", &[("a", 0), ("b", 1)]),
    ];
    for (list, want) in cases {
        let mut lines = HashSet::new();
        let names = list.split([';', ',']).map(|name| name.trim_start_matches('~')).filter(|name| *name != "unlisted");
        let rids: String =
            names.filter(|name| lines.insert(*name)).map(|name| format!("a=rid:{name} send\r\n")).collect();
        let text = ION_SDK.replace("a=rid:f send\r\na=rid:h send\r\na=rid:q send\r\na=simulcast:send f;h;q\r\n", "");
        let text = text.replace("m=application", &format!("{rids}a=simulcast:send {list}\r\nm=application"));
        let answer = answer(&text);
        let layers: Vec<_> = answer.tracks[1].rids.iter().map(|layer| (layer.rid.as_str(), layer.spatial)).collect();
        assert_eq!(layers, want, "{list}");
        let names: Vec<_> = want.iter().map(|(name, _)| *name).collect();
        assert!(answer.sdp.contains(&format!("a=simulcast:recv {}\r\n", names.join(";"))), "{}", answer.sdp);
    }
}

#[test]
fn restrictions_of_a_layer_are_repeated() {
    let text = ION_SDK.replace("a=rid:h send", "a=rid:h send pt=96;max-width=640");
    assert!(answer(&text).sdp.contains("a=rid:h recv pt=96;max-width=640\r\n"));
}

#[test]
fn munged_simulcast_is_ranked_by_its_ssrc_group() {
    let groups = "a=ssrc-group:SIM 10 20 30\r\na=ssrc-group:FID 10 11\r\na=ssrc-group:FID 20 21\r\n\
                  a=ssrc-group:FID 30 31\r\na=ssrc:10 cname:x\r\n";
    let text = AUDIO_VIDEO.replace("a=ssrc-group:FID 1939643325 2606714939\r\n", groups);
    let answer = answer(&text);
    let layers: Vec<_> =
        answer.tracks[1].ssrcs.iter().map(|layer| (layer.ssrc.0, layer.rtx.unwrap().0, layer.spatial)).collect();
    assert_eq!(layers, [(10, 11, 0), (20, 21, 1), (30, 31, 2)]);
    assert!(answer.sdp.contains("a=x-google-flag:conference\r\n"));
}

#[test]
fn an_ssrc_announced_twice_belongs_to_the_first() {
    let text = AUDIO_VIDEO.replace("1939643325", "1323322453");
    let answer = answer(&text);
    assert_eq!(answer.tracks[0].ssrcs.len(), 1);
    assert!(answer.tracks[1].ssrcs.is_empty());
}

#[test]
fn an_extension_id_means_one_thing_in_the_whole_bundle() {
    let text = ION_SDK.replace("a=extmap:13 urn:3gpp:video-orientation", "a=extmap:1 urn:3gpp:video-orientation");
    let text = text.replace("a=extmap:12 https", "a=extmap:200 https");
    let answer = answer(&text);
    assert_eq!(answer.extensions.id(Extension::AudioLevel), Some(1));
    assert_eq!(answer.extensions.id(Extension::VideoOrientation), None);
    assert_eq!(answer.extensions.id(Extension::DependencyDescriptor), Some(200));
    let plain = Offer::parse(&text.replace("a=extmap-allow-mixed\r\n", "")).unwrap();
    assert_eq!(plain.extensions.id(Extension::DependencyDescriptor), None, "two-byte headers were not offered");
}

#[test]
fn ids_that_could_break_a_line_are_not_taken_over() {
    for (from, to) in [("a=msid:pion video\n", "a=msid:p\u{e9}on video\n"), ("a=msid:pion video\n", "a=msid:\n")] {
        let text = PION.replace("a=ssrc:4001 msid:pion video\n", "").replace(from, to);
        let answer = answer(&text);
        assert_eq!(answer.tracks[0].stream_id, "mid-0", "{to}");
    }
    let mut track = offered(1, &answer(PION).tracks[0]);
    track.stream_id = "a\r\nm=audio 9 RTP/AVP 0".into();
    track.track_id = String::new();
    track.cname = "x y\n".into();
    track.formats[0].fmtp = "a=b\r\na=evil".into();
    let mut offerer = Offerer::new(1, false);
    offerer.add(track);
    let sdp = offerer.offer(&local());
    assert_eq!(sdp.matches("\r\nm=").count(), 1);
    assert!(!sdp.contains("evil") && sdp.contains("a=msid:a__m=audio_9_RTP/AVP_0 -\r\n"), "{sdp}");
    assert!(sdp.contains("cname:x_y_\r\n"));
}

#[test]
fn an_offered_track_is_read_back_as_it_was_published() {
    for text in ALL {
        let published = answer(text).tracks;
        let mut offerer = Offerer::new(1, true);
        for (id, track) in published.iter().enumerate() {
            offerer.add(offered(id as u64 + 1, track));
        }
        // A subscriber's full-ICE peer would have to be lite-free; drop that one line to read our own words.
        let offer = offerer.offer(&local()).replace("a=ice-lite\r\n", "");
        let read = Offer::parse(&offer).unwrap().tracks();
        assert_eq!(read.len(), published.len());
        for (index, (read, was)) in read.iter().zip(&published).enumerate() {
            assert_eq!((read.kind, &read.stream_id, &read.track_id), (was.kind, &was.stream_id, &was.track_id));
            let meanings = |track: &PublishedTrack| -> Vec<Meaning> {
                let of = |format: &CodecFormat| Format::parse(format.codec, &format.fmtp).unwrap().meaning;
                track.formats.iter().map(of).collect()
            };
            assert_eq!(meanings(read), meanings(was));
            assert_eq!(read.ssrcs[0].ssrc, Ssrc(index as u32 * 10 + 10));
        }
    }
}

#[test]
fn a_subscriber_gets_what_it_accepts() {
    let published = answer(ION_SDK).tracks;
    let mut offerer = Offerer::new(9, true);
    assert!(offerer.needs_offer() && !offerer.is_outstanding());
    let first = offerer.offer(&local());
    assert!(first.contains("m=application 5000 UDP/DTLS/SCTP webrtc-datachannel\r\n") && !offerer.needs_offer());
    let answered = offerer.answer(&accept_all(&first)).unwrap();
    assert!(answered.channels && answered.tracks.is_empty() && answered.remote.role == DtlsRole::Server);

    offerer.add(offered(1, &published[0]));
    offerer.add(offered(2, &published[1]));
    assert!(offerer.needs_offer());
    let second = offerer.offer(&local());
    for line in [
        "a=group:BUNDLE 0 1 2",
        "a=ssrc-group:FID 20 21",
        "a=fmtp:98 apt=97",
        "a=rtcp-fb:97 goog-remb",
        "a=rtcp-fb:96 transport-cc",
        "a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "a=setup:actpass",
        "o=- 9 2 IN IP4 127.0.0.1",
    ] {
        assert!(second.contains(&format!("{line}\r\n")), "{line} in {second}");
    }
    let answered = offerer.answer(&accept_all(&second)).unwrap();
    let [audio, video] = &answered.tracks[..] else { panic!("{answered:?}") };
    assert_eq!((audio.id, audio.mid.as_str()), (SubscriptionId(1), "1"));
    assert_eq!((audio.codecs[0].from, audio.codecs[0].to), (PayloadType(111), PayloadType(96)));
    assert_eq!((video.codecs[0].to, video.codecs[0].rtx), (PayloadType(97), Some(PayloadType(98))));
    assert_eq!(video.extensions.id(Extension::VideoOrientation), Some(7));
    assert_eq!(audio.extensions.id(Extension::VideoOrientation), None);
    assert!(!offerer.is_outstanding() && !offerer.needs_offer());
    assert!(offerer.answer(&accept_all(&second)).unwrap_err().to_string().contains("none is outstanding"));
}

#[test]
fn a_removed_track_leaves_an_inactive_section_that_any_peer_can_answer() {
    let video = answer(ION_SDK).tracks.remove(1);
    let mut offerer = Offerer::new(1, true);
    offerer.add(offered(1, &video));
    let offer = offerer.offer(&local());
    offerer.answer(&accept_all(&offer)).unwrap();
    offerer.remove(SubscriptionId(1));
    offerer.add(offered(2, &video));
    let offer = offerer.offer(&local());
    assert!(offer.contains("a=group:BUNDLE 0 1 2\r\n"), "{offer}");
    let idle = &parts(&offer)[2];
    // aiortc wants credentials and a codec that it knows in every m-section.
    for line in
        ["m=video 5000 ", "a=mid:1\n", "a=inactive\n", "a=ice-ufrag:", "a=fingerprint:", "a=rtpmap:96 VP8/90000"]
    {
        assert!(idle.contains(line), "{line} in {idle}");
    }
    assert!(!idle.contains("a=msid:") && !idle.contains("a=ssrc") && !idle.contains("a=sendonly"), "{idle}");
    let tracks = offerer.answer(&accept_all(&offer)).unwrap().tracks;
    assert_eq!(tracks.iter().map(|track| track.id.0).collect::<Vec<_>>(), [2]);
    offerer.add(offered(3, &video));
    assert_eq!(parts(&offerer.offer(&local())).len(), 5, "it is not used again while it is in the bundle");
}

#[test]
fn many_removed_tracks_free_their_places_for_new_mids_once_that_is_agreed() {
    let video = answer(ION_SDK).tracks.remove(1);
    let mut offerer = Offerer::new(1, true);
    let count = IDLE_MAX as u64 + 1;
    (1..=count).for_each(|id| offerer.add(offered(id, &video)));
    let offer = offerer.offer(&local());
    offerer.answer(&accept_all(&offer)).unwrap();
    (1..=count).for_each(|id| offerer.remove(SubscriptionId(id)));
    offerer.add(offered(100, &video));
    let offer = offerer.offer(&local());
    assert!(offer.contains("a=group:BUNDLE 0 34\r\n"), "{offer}");
    assert!(parts(&offer)[2].starts_with("m=video 0 ") && parts(&offer)[2].contains("a=mid:1\n"));
    offerer.answer(&accept_all(&offer)).unwrap();
    offerer.add(offered(101, &video));
    let offer = offerer.offer(&local());
    assert_eq!(parts(&offer).len(), 36, "the ended place is taken again");
    assert!(parts(&offer)[2].contains("a=mid:35\n") && parts(&offer)[2].contains("m=video 5000 "));
    assert_eq!(offerer.answer(&accept_all(&offer)).unwrap().tracks.len(), 2);
}

#[test]
fn refused_tracks_are_not_offered_again_and_refused_codecs_are_left_out() {
    let tracks = answer(AUDIO_VIDEO).tracks;
    let mut offerer = Offerer::new(1, true);
    offerer.add(offered(1, &tracks[0]));
    offerer.add(offered(2, &tracks[1]));
    let offer = offerer.offer(&local());
    let refusing = accept_all(&offer).replace("m=audio 5000", "m=audio 0");
    let vp8_only: Vec<String> = parts(&refusing);
    let keep = |line: &&str| !line.contains("rtpmap:") || line.contains("VP8") || line.contains("VP9");
    let video: String = vp8_only[3].lines().filter(keep).map(|line| format!("{line}\n")).collect();
    let answered = offerer.answer(&(vp8_only[..3].concat() + &video)).unwrap();
    assert_eq!(answered.tracks.len(), 1);
    let codecs: Vec<_> = answered.tracks[0].codecs.iter().map(|codec| codec.codec).collect();
    assert_eq!(codecs, [Codec::Vp8, Codec::Vp9, Codec::Vp9]);
    assert!(answered.tracks[0].codecs.iter().all(|codec| codec.rtx.is_none()));
    assert!(!offerer.needs_offer());
    let next = offerer.offer(&local());
    assert!(next.contains("m=audio 0 "), "the refused section stays refused: {next}");
    offerer.answer(&accept_all(&next)).unwrap();
    offerer.add(offered(1, &tracks[0]));
    assert!(offerer.needs_offer(), "wished anew, it is offered anew");
    assert!(offerer.offer(&local()).contains("m=audio 5000 "));
}

#[test]
fn two_tracks_of_the_same_name_are_told_apart() {
    let track = answer(PION).tracks.remove(0);
    let mut offerer = Offerer::new(1, false);
    offerer.add(offered(1, &track));
    offerer.add(OfferedTrack { track_id: "video-ff".into(), ..offered(7, &track) });
    offerer.add(offered(255, &track));
    let offer = offerer.offer(&local());
    assert!(offer.contains("a=msid:pion video\r\n") && offer.contains("a=msid:pion video-ff-ff\r\n"), "{offer}");
}

#[test]
fn an_abandoned_offer_is_repeated_with_later_wishes_and_the_same_mids() {
    let tracks = answer(ION_SDK).tracks;
    let mut offerer = Offerer::new(1, true);
    offerer.add(offered(1, &tracks[0]));
    let lost = offerer.offer(&local());
    offerer.abandon();
    assert!(offerer.needs_offer() && !offerer.is_outstanding());
    offerer.add(offered(2, &tracks[1]));
    let next = offerer.offer(&local());
    assert_eq!(parts(&next)[2], parts(&lost)[2]);
    assert_eq!(offerer.answer(&accept_all(&next)).unwrap().tracks.len(), 2);
    offerer.abandon();
    assert!(!offerer.needs_offer(), "there was nothing to abandon");
}

#[test]
fn an_answer_that_does_not_fit_changes_nothing() {
    let track = answer(ION_SDK).tracks.remove(0);
    let mut offerer = Offerer::new(1, true);
    offerer.add(offered(1, &track));
    let offer = offerer.offer(&local());
    let good = accept_all(&offer);
    let extra = good.clone() + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n";
    for (bad, what) in [
        (extra, "answers 3 m-sections where 2"),
        (good.replace("a=mid:1", "a=mid:7"), "does not answer a=mid:1"),
        (good.replace("m=audio", "m=video"), "does not answer a=mid:1"),
        (good.replace("a=setup:active", "a=setup:actpass"), "active or passive"),
        (good.replace("sha-256", "md5"), "weaker hashes"),
        (good.replace("m=audio 5000", "m=audio 0").replace("m=application 5000", "m=application 0"), "accepts no"),
    ] {
        let error = offerer.answer(&bad).unwrap_err().to_string();
        assert!(error.contains(what), "{error} should say {what}");
        assert!(offerer.is_outstanding());
    }
    let passive = good.replace("a=setup:active", "a=setup:passive").replace("a=recvonly", "a=inactive");
    let answered = offerer.answer(&passive).unwrap();
    assert_eq!(answered.remote.role, DtlsRole::Client);
    assert!(answered.tracks.is_empty(), "inactive receives nothing");
}

#[test]
fn a_payload_type_means_one_thing_for_the_life_of_a_connection() {
    let mut offerer = Offerer::new(1, false);
    let mut meanings: std::collections::HashMap<u8, String> = Default::default();
    for (round, text) in ALL.iter().chain(ALL.iter().rev()).enumerate() {
        for (index, track) in answer(text).tracks.iter().enumerate() {
            offerer.add(offered(round as u64 * 10 + index as u64, track));
            if round % 3 == 0 {
                offerer.remove(SubscriptionId((round as u64).saturating_sub(1) * 10));
            }
        }
        let offer = offerer.offer(&local());
        for line in offer.lines().filter(|line| line.starts_with("a=rtpmap:") || line.contains("apt=")) {
            let (number, rest) = line.split_once(':').unwrap().1.split_once(' ').unwrap();
            let number: u8 = number.parse().unwrap();
            let key = if rest.starts_with("apt=") { number + 128 } else { number };
            assert_eq!(meanings.entry(key).or_insert(rest.to_owned()), rest, "payload type {number}");
        }
        offerer.answer(&accept_all(&offer)).unwrap();
    }
}

#[test]
fn every_meaning_has_room_for_its_payload_types() {
    let mut formats = vec![(Codec::Vp8, String::new())];
    formats.extend(["", "stereo=1"].map(|fmtp| (Codec::Opus, fmtp.to_owned())));
    formats.extend((0..=9).map(|profile| (Codec::Vp9, format!("profile-id={profile}"))));
    formats.extend((0..=9).map(|profile| (Codec::Av1, format!("profile={profile}"))));
    formats.extend((0..=9).map(|profile| (Codec::H265, format!("profile-id={profile}"))));
    for profile in 0..=0xffff_u32 {
        for mode in 0..=2 {
            formats.push((Codec::H264, format!("packetization-mode={mode};profile-level-id={profile:04x}1f")));
        }
    }
    let mut meanings = HashSet::new();
    for (codec, fmtp) in formats {
        if let Some(format) = Format::parse(codec, &fmtp) {
            meanings.insert((codec, format.meaning));
        }
    }
    let numbers: usize = meanings.iter().map(|(codec, _)| if *codec == Codec::Opus { 1 } else { 2 }).sum();
    assert_eq!(meanings.len(), 2 + 1 + 4 + 3 + 2 + 12);
    assert!(numbers <= (96..=127_u8).len() + (35..=63_u8).len());
}

#[test]
fn h264_profiles_are_told_apart_and_levels_are_not() {
    let profile = |id: &str| match Format::parse(Codec::H264, &format!("profile-level-id={id}")) {
        Some(Format { meaning: Meaning::H264 { profile, .. }, .. }) => Some(profile),
        _ => None,
    };
    assert_eq!(profile("42e01f"), Some(H264Profile::ConstrainedBaseline));
    assert_eq!(profile("42E034"), Some(H264Profile::ConstrainedBaseline));
    assert_eq!(profile("42001f"), Some(H264Profile::Baseline));
    assert_eq!(profile("4d0032"), Some(H264Profile::Main));
    assert_eq!(profile("64001f"), Some(H264Profile::High));
    assert_eq!(profile("640c1f"), Some(H264Profile::ConstrainedHigh));
    assert_eq!(profile("f4001f"), Some(H264Profile::PredictiveHigh444));
    assert_eq!([profile("ff001f"), profile("42e0"), profile("42e0zz")], [None, None, None]);
}

#[test]
fn places_are_bounded_and_wishes_beyond_them_wait() {
    let track = answer(ION_SDK).tracks.remove(0);
    let mut offerer = Offerer::new(1, true);
    (1..=600).for_each(|id| offerer.add(offered(id, &track)));
    let offer = offerer.offer(&local());
    assert_eq!(offer.matches("\r\nm=").count(), text::SECTIONS_MAX);
    assert!(!offerer.needs_offer());
    assert_eq!(offerer.answer(&accept_all(&offer)).unwrap().tracks.len(), text::SECTIONS_MAX - 1);
    assert!(!offerer.needs_offer(), "there is no room for more");
    offerer.remove(SubscriptionId(5));
    let offer = offerer.offer(&local());
    offerer.answer(&accept_all(&offer)).unwrap();
    assert!(offerer.needs_offer(), "now there is");
}

/// xorshift64*: enough to spoil descriptions with.
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % count
    }
}

fn spoil(text: &str, chance: &mut Chance) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=chance.below(6) {
        let (from, to) = (chance.below(lines.len()), chance.below(lines.len()));
        match chance.below(5) {
            0 => _ = lines.remove(from),
            1 => lines.insert(to, lines[from].clone()),
            2 => lines.swap(from, to),
            3 => {
                let words = ["-1", "4294967296", "", "*", "~", ";", "255", "0", "send", "é", "/", "9 9", "=", ":"];
                let mut parts: Vec<&str> = lines[from].split(' ').collect();
                let index = chance.below(parts.len());
                parts[index] = words[chance.below(words.len())];
                lines[from] = parts.join(" ");
            }
            _ => {
                let line: String = lines[from].chars().rev().collect();
                lines[to].push_str(&line);
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

#[test]
fn spoiled_descriptions_are_refused_or_answered_within_the_grammar() {
    let (mut answered, mut refused) = (0, 0);
    for seed in 1..=1000_u64 {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = spoil(ALL[chance.below(ALL.len())], &mut chance);
        let Ok(offer) = Offer::parse(&text) else {
            refused += 1;
            continue;
        };
        let Ok(answer) = Answerer::new(seed).answer(&offer, &local()) else {
            refused += 1;
            continue;
        };
        answered += 1;
        let again = text::parse(&answer.sdp, &text::ANSWER).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(again.sections.len(), offer.sections.len(), "seed {seed}");
        let mut offerer = Offerer::new(seed, true);
        for (id, track) in answer.tracks.iter().enumerate() {
            offerer.add(offered(id as u64 + 1, track));
        }
        let offer = offerer.offer(&local());
        let all = offerer.answer(&accept_all(&offer)).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{offer}"));
        assert_eq!(all.tracks.len(), answer.tracks.len(), "seed {seed}");
        let spoiled = spoil(&accept_all(&offer), &mut chance);
        offerer.offer(&local());
        _ = offerer.answer(&spoiled);
    }
    assert!(answered > 200 && refused > 200, "{answered} answered, {refused} refused: the mix says little");
}

#[test]
fn the_largest_offers_take_milliseconds() {
    let head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n";
    let m_line = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n";
    let fill = |line: &str| {
        let count = ((text::OFFER.size_max - 2000) / line.len()).min(text::OFFER.lines_max - 20);
        head.to_owned() + m_line + &line.repeat(count)
    };
    let list = |word: &str, count: usize| (0..count).map(|n| format!("{word}{n}")).collect::<Vec<_>>();
    let worst = [
        fill("a=ssrc:1 msid:x\r\n"),
        fill(&format!("a=ssrc-group:FID {}\r\n", list("", 200).join(" "))),
        fill(&format!("a=simulcast:send {}\r\na=rid:a send\r\n", list("r", 150).join(";"))),
        fill("a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"),
        fill(&format!("a=fmtp:96 {}\r\n", "a=b;".repeat(200))),
        fill("a=rid:a send\r\n"),
        head.to_owned()
            + &"a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n".repeat(1200)
            + &"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(64),
        fill(&format!("a=fingerprint:sha-1 {}\r\n", "AA:".repeat(300))),
    ];
    // Of this thread, so that nothing beside it counts.
    let time = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("Linux has it");
    for text in worst {
        let start = time();
        _ = Offer::parse(&text);
        let took = time() - start;
        // A hundred times the time it takes optimised, so that only a change of order fails here.
        assert!(took < Duration::from_millis(500), "{took:?} for {}", &text[100..200]);
    }
}

#[test]
fn a_rid_is_no_longer_than_a_header_extension() {
    assert_eq!(Rid::new().capacity(), 16);
    let text = ION_SDK.replace("a=rid:f send", "a=rid:longer-than-16-bytes send");
    assert_eq!(answer(&text).tracks[1].rids.len(), 2);
}

#[test]
fn a_publisher_cannot_spoil_a_payload_type_that_others_share() {
    for (codec, fmtp, offered) in [
        (Codec::H264, "packetization-mode=1;profile-level-id=42e0ff", "packetization-mode=1;profile-level-id=42e01f"),
        (Codec::H264, "level-asymmetry-allowed=x;profile-level-id=42e028", "profile-level-id=42e028"),
        (Codec::Av1, "level-idx=99;profile=0;tier=z", "profile=0"),
        (Codec::Av1, "level-idx=5;profile=0;tier=0", "level-idx=5;profile=0;tier=0"),
        (Codec::H265, "level-id=1;profile-id=1;tier-flag=7", "profile-id=1"),
        (
            Codec::H265,
            "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST",
            "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST",
        ),
    ] {
        let format = Format::parse(codec, fmtp).expect("one that is forwarded");
        assert_eq!(format.offer_fmtp(), offered, "{fmtp}");
    }
}
