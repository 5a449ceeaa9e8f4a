//! The descriptions that a scripted `ion-sdk-js` client sends: shaped as Chromium's, with the parts that matter.

use std::fmt::Write;

const FINGERPRINT: &str = "sha-256 24:1E:CF:87:73:BC:16:D1:43:62:0B:D1:76:05:EF:DA:\
    21:3D:03:A3:76:0B:85:DE:1E:A7:EE:29:30:A3:4C:24";
const PWD: &str = "i46YJVhQSNG/NMdwZAHVujko";

/// One m-section of a publisher's offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Media {
    /// `m=application`, where `createDataChannel` put it.
    Channels,
    /// A microphone: stream and track.
    Audio(String, String),
    /// A camera.
    Video(String, String),
    /// A camera in three layers, best first as `ion-sdk-js` has it.
    Simulcast(String, String),
    /// A stopped transceiver.
    Ended(&'static str),
}

/// A camera and a microphone of one stream, and the channel that the SDK makes.
pub(super) fn camera(stream: &str) -> Vec<Media> {
    let track = |kind| format!("{stream}-{kind}");
    vec![
        Media::Channels,
        Media::Audio(stream.to_owned(), track("audio")),
        Media::Video(stream.to_owned(), track("video")),
    ]
}

/// The session in `o=` of every offer.
pub(super) const SESSION: &str = "6414523782581140674";

/// An offer with one m-section for each of `media`, whose mids are their places, or what `mids` says of a place.
pub(super) fn offer(ufrag: &str, media: &[Media], mids: &[(usize, &str)]) -> String {
    let mid = |index: usize| {
        let other = mids.iter().find(|(place, _)| *place == index);
        other.map_or_else(|| index.to_string(), |(_, mid)| (*mid).to_owned())
    };
    let live = |(_, media): &(usize, &Media)| !matches!(media, Media::Ended(_));
    let bundle: Vec<String> = media.iter().enumerate().filter(live).map(|(index, _)| mid(index)).collect();
    let mut sdp = format!("v=0\r\no=- {SESSION} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let _ = write!(sdp, "a=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n", bundle.join(" "));
    for (index, media) in media.iter().enumerate() {
        section(&mut sdp, media, &mid(index), ufrag);
    }
    sdp
}

fn section(sdp: &mut String, media: &Media, mid: &str, ufrag: &str) {
    let m_line = match media {
        Media::Channels => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel".to_owned(),
        Media::Audio(..) => "m=audio 9 UDP/TLS/RTP/SAVPF 111".to_owned(),
        Media::Video(..) | Media::Simulcast(..) => "m=video 9 UDP/TLS/RTP/SAVPF 96".to_owned(),
        Media::Ended(kind) => format!("m={kind} 0 UDP/TLS/RTP/SAVPF 0"),
    };
    let _ = write!(sdp, "{m_line}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{PWD}\r\n");
    let _ = write!(sdp, "a=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\na=mid:{mid}\r\n");
    let (stream, track) = match media {
        Media::Channels => return sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n"),
        Media::Ended(_) => return sdp.push_str("a=inactive\r\n"),
        Media::Audio(stream, track) | Media::Video(stream, track) | Media::Simulcast(stream, track) => (stream, track),
    };
    let _ = write!(sdp, "a=sendonly\r\na=msid:{stream} {track}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n");
    sdp.push_str("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n");
    match media {
        Media::Audio(..) => sdp.push_str("a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"),
        _ => sdp.push_str("a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n"),
    }
    if matches!(media, Media::Simulcast(..)) {
        sdp.push_str("a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n");
        sdp.push_str("a=rid:f send\r\na=rid:h send\r\na=rid:q send\r\na=simulcast:send f;h;q\r\n");
    } else {
        // The same for every client on purpose: SSRCs name nothing beyond their transport.
        let ssrc = 1_000_000 + mid.parse::<u32>().unwrap_or(0);
        let _ = write!(sdp, "a=ssrc:{ssrc} cname:abc\r\na=ssrc:{ssrc} msid:{stream} {track}\r\n");
    }
}

/// The answer to a subscriber offer that takes everything in it, save the m-sections whose mid is in `refused`.
pub(super) fn answer(offer: &str, ufrag: &str, refused: &[&str]) -> String {
    let mut parts = offer.split("\r\nm=");
    let mut sdp = String::from("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let _ = parts.next();
    let mut sections = String::new();
    let mut bundle = Vec::new();
    for part in parts {
        let lines: Vec<&str> = part.lines().collect();
        let mid = lines.iter().find_map(|line| line.strip_prefix("a=mid:")).expect("every m-section has a mid");
        let mut m_line: Vec<&str> = lines[0].split(' ').collect();
        if refused.contains(&mid) {
            m_line[1] = "0";
        }
        let is_live = m_line[1] != "0";
        let _ = write!(sections, "m={}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n", m_line.join(" "));
        if !is_live {
            sections.push_str("a=inactive\r\n");
            continue;
        }
        bundle.push(mid);
        let _ = write!(sections, "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{PWD}\r\na=fingerprint:{FINGERPRINT}\r\n");
        sections.push_str("a=setup:active\r\n");
        let kept =
            ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=extmap:", "a=rtcp-mux", "a=sctp-port:", "a=max-message-size:"];
        for line in lines.iter().filter(|line| kept.iter().any(|prefix| line.starts_with(prefix))) {
            let _ = write!(sections, "{line}\r\n");
        }
        if m_line[0] != "application" {
            sections.push_str("a=recvonly\r\n");
        }
    }
    let _ = write!(sdp, "a=group:BUNDLE {}\r\n{sections}", bundle.join(" "));
    sdp
}

/// The value of the first `a=<name>:` line.
pub(super) fn attribute<'s>(sdp: &'s str, name: &str) -> Option<&'s str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

/// The `a=msid` values of the m-sections that are live.
pub(super) fn msids(sdp: &str) -> Vec<String> {
    let live = sdp.split("\r\nm=").skip(1).filter(|part| part.split(' ').nth(1) != Some("0"));
    live.filter_map(|part| attribute(part, "msid").map(str::to_owned)).collect()
}
