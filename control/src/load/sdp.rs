//! Descriptions as a client writes and reads them: the offer of what it publishes, the answer to what it is offered. Read
//! leniently, line by line, since servers differ (ion-sfu writes `a=ice-lite:ice-lite`); written as browsers write.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::ice::Credentials;
use super::subscriber::{MediaMap, Payload};

/// Our side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) ice: Credentials,
    /// `sha-256 …`.
    pub(super) fingerprint: String,
    /// Our only candidate.
    pub(super) address: SocketAddr,
}

/// A track to be offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OfferedTrack {
    pub(super) kind: Kind,
    pub(super) ssrc: u32,
}

/// What a track carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Audio,
    Video,
}

/// What the server says of its side of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Remote {
    pub(super) ice: Credentials,
    pub(super) is_lite: bool,
    pub(super) candidates: Vec<SocketAddr>,
    /// Algorithm and value.
    pub(super) fingerprints: Vec<(String, Vec<u8>)>,
    /// `a=setup`.
    pub(super) setup: String,
    /// It takes, or offers, data channels.
    pub(super) has_channel: bool,
}

/// What an answer makes of an offered track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AgreedTrack {
    pub(super) payload_type: u8,
    pub(super) transport_cc: Option<u8>,
}

/// The offer of a publisher connection; with data channels when they are wanted or, as `ion-sdk-js` makes it, there is nothing else.
pub(super) fn offer(local: &Local, name: &str, tracks: &[OfferedTrack], wants_channel: bool) -> String {
    let has_channel = wants_channel || tracks.is_empty();
    let count = tracks.len() + usize::from(has_channel);
    let mids: Vec<String> = (0..count).map(|mid| mid.to_string()).collect();
    let mut sdp = head(&mids);
    for (mid, track) in tracks.iter().enumerate() {
        let OfferedTrack { kind, ssrc } = *track;
        let (media, formats) = match kind {
            Kind::Audio => ("audio", AUDIO),
            Kind::Video => ("video", VIDEO),
        };
        let _ = write!(sdp, "m={media} 9 UDP/TLS/RTP/SAVPF {}\r\n", payload_type(kind));
        transport(&mut sdp, local, "actpass", &mids[mid]);
        let _ =
            write!(sdp, "a=extmap:{TRANSPORT_CC_ID} {TRANSPORT_CC}\r\na=sendonly\r\na=msid:{name} {name}-{media}\r\n");
        let _ = write!(sdp, "a=rtcp-mux\r\na=rtcp-rsize\r\n{formats}");
        let _ = write!(sdp, "a=ssrc:{ssrc} cname:{name}\r\na=ssrc:{ssrc} msid:{name} {name}-{media}\r\n");
    }
    if has_channel {
        sdp.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
        transport(&mut sdp, local, "actpass", &mids[tracks.len()]);
        sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n");
    }
    sdp
}

/// What an answer to [`offer`] makes of the tracks, in their order.
pub(super) fn agreed(answer: &str, tracks: &[OfferedTrack]) -> Result<Vec<AgreedTrack>, String> {
    let description = Description::read(answer);
    let agree = |(index, track): (usize, &OfferedTrack)| {
        let section = description.sections.get(index).filter(|section| section.is_live());
        let section = section.ok_or_else(|| format!("the server refuses our {:?} track", track.kind))?;
        let payload_type = payload_type(track.kind);
        if !section.formats().any(|format| format == payload_type) {
            return Err(format!("the server does not take our {:?} codec", track.kind));
        }
        Ok(AgreedTrack { payload_type, transport_cc: section.transport_cc() })
    };
    tracks.iter().enumerate().map(agree).collect()
}

/// The answer to an offer of the subscriber connection. It takes everything but, if so wished and something is left, the data
/// channel.
pub(super) fn answer(offer: &str, local: &Local, refuse_channel: bool) -> String {
    let description = Description::read(offer);
    let has_media = description.sections.iter().any(|section| section.is_live() && !section.is_channel());
    let takes = |section: &Section| section.is_live() && !(section.is_channel() && refuse_channel && has_media);
    let mids: Vec<String> = description.sections.iter().filter(|section| takes(section)).map(Section::mid).collect();
    let mut sdp = head(&mids);
    for section in &description.sections {
        if !takes(section) {
            let mut words: Vec<&str> = section.m_line.split(' ').collect();
            if let Some(port) = words.get_mut(1) {
                *port = "0";
            }
            let _ =
                write!(sdp, "m={}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n", words.join(" "), section.mid());
            continue;
        }
        let _ = write!(sdp, "m={}\r\n", section.m_line);
        transport(&mut sdp, local, "active", &section.mid());
        let kept = ["rtpmap:", "fmtp:", "rtcp-fb:", "rtcp-mux", "rtcp-rsize", "sctp-port:", "max-message-size:"];
        let transport_cc = section.attributes("extmap").filter(|extension| extension.contains(TRANSPORT_CC));
        for extension in transport_cc {
            let _ = write!(sdp, "a=extmap:{extension}\r\n");
        }
        for line in &section.lines {
            if line.strip_prefix("a=").is_some_and(|line| kept.iter().any(|name| line.starts_with(name))) {
                let _ = write!(sdp, "{line}\r\n");
            }
        }
        if !section.is_channel() {
            let is_sent = !section.lines.iter().any(|line| matches!(*line, "a=inactive" | "a=recvonly"));
            sdp.push_str(if is_sent { "a=recvonly\r\n" } else { "a=inactive\r\n" });
        }
    }
    sdp
}

/// What an offer of the subscriber connection says of its media.
pub(super) fn media_map(offer: &str) -> MediaMap {
    let mut map = MediaMap::default();
    for section in Description::read(offer).sections.iter().filter(|section| section.is_live()) {
        for line in section.attributes("rtpmap") {
            let Some((number, codec)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            let codec = codec.split('/').next().unwrap_or_default();
            let payload = match codec.to_ascii_lowercase().as_str() {
                "vp8" => Payload::Vp8,
                "opus" => Payload::Opus,
                "rtx" => Payload::Rtx,
                _ => Payload::Other,
            };
            map.payloads.insert(number, payload);
        }
        for group in section.attributes("ssrc-group") {
            let mut words = group.split(' ');
            if words.next() == Some("FID")
                && let (Some(Ok(media)), Some(Ok(repair))) =
                    (words.next().map(str::parse), words.next().map(str::parse))
            {
                map.repairs.insert(repair, media);
            }
        }
        map.transport_cc = map.transport_cc.or(section.transport_cc());
    }
    map
}

/// The server's side of a connection, from its first live m-section; what that lacks, the session has.
pub(super) fn remote(sdp: &str) -> Result<Remote, String> {
    let description = Description::read(sdp);
    let section = description.sections.iter().find(|section| section.is_live());
    let section = section.ok_or("the server's description has no live m-section")?;
    let both = || [section, &description.session].into_iter();
    let first = |name: &'static str| both().find_map(|part| part.attributes(name).next());
    let need = |name: &'static str| first(name).ok_or_else(|| format!("the server's description has no a={name}"));
    let fingerprints = both().flat_map(|part| part.attributes("fingerprint")).filter_map(fingerprint).collect();
    let all = description.sections.iter().chain([&description.session]);
    Ok(Remote {
        ice: Credentials { ufrag: need("ice-ufrag")?.into(), pwd: need("ice-pwd")?.into() },
        is_lite: both().any(|part| part.lines.iter().any(|line| line.starts_with("a=ice-lite"))),
        candidates: all.flat_map(|part| part.attributes("candidate")).filter_map(candidate).collect(),
        fingerprints,
        setup: first("setup").unwrap_or("actpass").into(),
        has_channel: description.sections.iter().any(|section| section.is_live() && section.is_channel()),
    })
}

/// The address of a candidate line, with or without its name in front; nothing when it is not for UDP or names no address.
pub(super) fn candidate(line: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = line.trim_start_matches("candidate:").split_ascii_whitespace().collect();
    let [_, "1", transport, _, address, port, ..] = words[..] else { return None };
    let address: IpAddr = address.parse().ok()?;
    transport.eq_ignore_ascii_case("udp").then_some(SocketAddr::new(address, port.parse().ok()?))
}

fn fingerprint(line: &str) -> Option<(String, Vec<u8>)> {
    let (algorithm, value) = line.split_once(' ')?;
    let bytes: Result<Vec<u8>, _> = value.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    Some((algorithm.to_owned(), bytes.ok()?))
}

fn head(mids: &[String]) -> String {
    format!("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "))
}

fn transport(sdp: &mut String, local: &Local, setup: &str, mid: &str) {
    let Local { ice, fingerprint, address } = local;
    let (ip, port) = (address.ip(), address.port());
    let family = if ip.is_ipv4() { "IP4 0.0.0.0" } else { "IP6 ::" };
    let _ = write!(
        sdp,
        "c=IN {family}\r\na=mid:{mid}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{fingerprint}\r\n\
         a=setup:{setup}\r\na=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\n",
        ice.ufrag, ice.pwd
    );
}

const fn payload_type(kind: Kind) -> u8 {
    match kind {
        Kind::Audio => 111,
        Kind::Video => 96,
    }
}

struct Description<'s> {
    session: Section<'s>,
    sections: Vec<Section<'s>>,
}

#[derive(Default)]
struct Section<'s> {
    /// What follows `m=`; empty for the session.
    m_line: &'s str,
    lines: Vec<&'s str>,
}

impl<'s> Description<'s> {
    fn read(sdp: &'s str) -> Self {
        let (mut session, mut sections) = (Section::default(), Vec::<Section>::new());
        for line in sdp.lines().map(str::trim_end) {
            match line.strip_prefix("m=") {
                Some(m_line) => sections.push(Section { m_line, lines: Vec::new() }),
                None => sections.last_mut().unwrap_or(&mut session).lines.push(line),
            }
        }
        Self { session, sections }
    }
}

impl<'s> Section<'s> {
    fn attributes(&self, name: &'static str) -> impl Iterator<Item = &'s str> {
        let values = self.lines.iter().filter_map(|line| line.strip_prefix("a="));
        values.filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    fn is_live(&self) -> bool {
        self.m_line.split(' ').nth(1) != Some("0")
    }

    fn is_channel(&self) -> bool {
        self.m_line.starts_with("application")
    }

    fn mid(&self) -> String {
        self.attributes("mid").next().unwrap_or("0").to_owned()
    }

    fn formats(&self) -> impl Iterator<Item = u8> {
        self.m_line.split(' ').skip(3).filter_map(|number| number.parse().ok())
    }

    fn transport_cc(&self) -> Option<u8> {
        let line = self.attributes("extmap").find(|line| line.contains(TRANSPORT_CC))?;
        line.split([' ', '/']).next()?.parse().ok().filter(|id| (1..=14).contains(id))
    }
}

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const TRANSPORT_CC_ID: u8 = 3;
const AUDIO: &str =
    "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n";
const VIDEO: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\n\
    a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n";
