//! Everything that we send to peers is written here, from typed values and checked tokens only, so that no peer's words
//! can begin a line in another peer's description.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use ringmain_shared::limits::CHANNEL_MESSAGE_SIZE_MAX;
use ringmain_shared::media::{Codec, PayloadType};
use ringmain_shared::transport::{DtlsRole, Fingerprint, FingerprintHash};
use sdp::SessionDescription;
use sdp::description::common::{Address, Attribute, ConnectionInformation};
use sdp::description::media::{MediaDescription, MediaName, RangedPort};
use sdp::description::session::{Origin, TimeDescription};

use super::format::{channels_of, clock_rate_of, encoding_name};
use super::section::Feedback;
use super::{Local, text};

/// A description in the making.
pub(super) struct Description {
    text: SessionDescription,
    group: Vec<String>,
}

/// An m-section in the making.
pub(super) struct Media(MediaDescription);

/// Our `a=setup`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SetupLine {
    Actpass,
    Role(DtlsRole),
}

impl Description {
    pub(super) fn new(session_id: u64, version: u64) -> Self {
        let origin = Origin {
            username: "-".to_owned(),
            // RFC 8829 §5.2.1: 63 bits.
            session_id: session_id & (u64::MAX >> 1),
            session_version: version,
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            unicast_address: "127.0.0.1".to_owned(),
        };
        let text = SessionDescription {
            origin,
            session_name: "-".to_owned(),
            time_descriptions: vec![TimeDescription::default()],
            ..SessionDescription::default()
        };
        Self { text, group: Vec::new() }
    }

    /// An m-section on the bundled transport. All carry its candidates, though the first one's would do (RFC 8843 §7.1):
    /// aiortc takes those of the last m-section. Who takes candidates of TCP takes them from the first.
    pub(super) fn live(
        &mut self,
        (media, proto, formats): (&str, &str, Vec<String>),
        mid: &str,
        local: &Local,
        setup: SetupLine,
    ) -> Media {
        let default = local.candidates.first();
        let port = default.map_or(DISCARD_PORT, SocketAddr::port);
        let mut section = Media::new(media, port, proto, formats, default.map(SocketAddr::ip));
        for (index, &candidate) in local.candidates.iter().enumerate() {
            section.line("candidate", candidate_line(index, candidate));
        }
        let is_first = self.group.is_empty();
        for (index, &candidate) in local.tcp_candidates.iter().enumerate().filter(|_| is_first) {
            section.line("candidate", tcp_candidate_line(local.candidates.len() + index, index, candidate));
        }
        section.flag("end-of-candidates");
        section.line("ice-ufrag", &local.ice.ufrag);
        section.line("ice-pwd", &local.ice.pwd);
        section.line("fingerprint", fingerprint_line(&local.fingerprint));
        section.line("setup", setup.word());
        section.line("mid", mid);
        self.group.push(mid.to_owned());
        section
    }

    /// An m-section in which nothing goes; out of the bundle.
    pub(super) fn refused(&mut self, (media, proto, formats): (&str, &str, Vec<String>), mid: Option<&str>) {
        let mut section = Media::new(media, 0, proto, formats, None);
        if let Some(mid) = mid {
            section.line("mid", mid);
        }
        section.flag("inactive");
        self.push(section);
    }

    pub(super) fn push(&mut self, section: Media) {
        self.text.media_descriptions.push(section.0);
    }

    /// The text. `bundled`: with the group; an answer has one only where the offer has (RFC 8843 §7.3). `allow_mixed`: one-byte and
    /// two-byte header extensions may alternate (RFC 8285 §4.1.2).
    pub(super) fn finish(mut self, bundled: bool, allow_mixed: bool) -> String {
        let mut attribute =
            |key: &str, value: Option<String>| self.text.attributes.push(Attribute::new(key.to_owned(), value));
        attribute("ice-lite", None);
        if bundled && !self.group.is_empty() {
            attribute("group", Some(format!("BUNDLE {}", self.group.join(" "))));
        }
        if allow_mixed {
            attribute("extmap-allow-mixed", None);
        }
        attribute("msid-semantic", Some(" WMS *".to_owned()));
        self.text.marshal()
    }
}

impl Media {
    fn new(media: &str, port: u16, proto: &str, formats: Vec<String>, address: Option<IpAddr>) -> Self {
        let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        Self(MediaDescription {
            media_name: MediaName {
                media: media.to_owned(),
                port: RangedPort { value: port as isize, range: None },
                protos: proto.split('/').map(str::to_owned).collect(),
                formats,
            },
            connection_information: Some(ConnectionInformation {
                network_type: "IN".to_owned(),
                address_type: if address.is_ipv4() { "IP4" } else { "IP6" }.to_owned(),
                address: Some(Address { address: address.to_string(), ttl: None, range: None }),
            }),
            ..MediaDescription::default()
        })
    }

    pub(super) fn flag(&mut self, key: &str) {
        self.0.attributes.push(Attribute::new(key.to_owned(), None));
    }

    pub(super) fn line(&mut self, key: &str, value: impl Display) {
        self.0.attributes.push(Attribute::new(key.to_owned(), Some(value.to_string())));
    }

    /// One payload type with what belongs to it, and its retransmissions.
    pub(super) fn codec(
        &mut self,
        number: PayloadType,
        codec: Codec,
        fmtp: &str,
        feedback: Feedback,
        rtx: Option<PayloadType>,
    ) {
        let PayloadType(number) = number;
        let (name, clock_rate) = (encoding_name(codec), clock_rate_of(codec));
        match channels_of(codec) {
            Some(channels) => self.line("rtpmap", format_args!("{number} {name}/{clock_rate}/{channels}")),
            None => self.line("rtpmap", format_args!("{number} {name}/{clock_rate}")),
        }
        let words = [
            (feedback.remb, "goog-remb"),
            (feedback.transport_cc, "transport-cc"),
            (feedback.fir, "ccm fir"),
            (feedback.nack, "nack"),
            (feedback.pli, "nack pli"),
        ];
        for (_, words) in words.iter().filter(|(wanted, _)| *wanted) {
            self.line("rtcp-fb", format_args!("{number} {words}"));
        }
        if !fmtp.is_empty() {
            self.line("fmtp", format_args!("{number} {fmtp}"));
        }
        if let Some(PayloadType(rtx)) = rtx {
            self.line("rtpmap", format_args!("{rtx} rtx/{clock_rate}"));
            self.line("fmtp", format_args!("{rtx} apt={number}"));
        }
    }

    /// The SCTP association of the data channels (RFC 8841).
    pub(super) fn channels(&mut self) {
        self.line("sctp-port", SCTP_PORT);
        self.line("max-message-size", CHANNEL_MESSAGE_SIZE_MAX);
    }
}

impl SetupLine {
    const fn word(self) -> &'static str {
        match self {
            SetupLine::Actpass => "actpass",
            SetupLine::Role(DtlsRole::Client) => "active",
            SetupLine::Role(DtlsRole::Server) => "passive",
        }
    }
}

/// `text` where it is visible ASCII of a bearable length; else the same with everything else replaced, never empty.
pub(super) fn visible(text: &str, size_max: usize) -> String {
    if text::is_visible(text, size_max) {
        return text.to_owned();
    }
    let clean = |character: char| if character.is_ascii_graphic() { character } else { '_' };
    let clean: String = text.chars().take(size_max).map(clean).collect();
    if clean.is_empty() { "-".to_owned() } else { clean }
}

/// RFC 8839 §5.1. Priorities by RFC 8445 §5.1.2.1: host candidates, in the order in which they are listed.
fn candidate_line(index: usize, candidate: SocketAddr) -> String {
    let local_preference = 65_535_u32.saturating_sub(index as u32);
    let priority = (126 << 24) | (local_preference << 8) | 255;
    let (foundation, ip, port) = (index + 1, candidate.ip(), candidate.port());
    format!("{foundation} 1 udp {priority} {ip} {port} typ host")
}

/// RFC 6544 §4.5, with a foundation of its own as it is of another transport (RFC 8445 §5.1.1.3). §4.2: for the wish to have media by
/// UDP where that works, a type preference below that of UDP's host and reflexive candidates, above that of relays; 4 is the direction
/// of a passive one, in the upper three bits of the local preference.
fn tcp_candidate_line(foundation: usize, index: usize, candidate: SocketAddr) -> String {
    let local_preference = (4 << 13) | 8191_u32.saturating_sub(index as u32);
    let priority = (90 << 24) | (local_preference << 8) | 255;
    let (foundation, ip, port) = (foundation + 1, candidate.ip(), candidate.port());
    format!("{foundation} 1 tcp {priority} {ip} {port} typ host tcptype passive")
}

fn fingerprint_line(fingerprint: &Fingerprint) -> String {
    let hash = match fingerprint.hash {
        FingerprintHash::Sha256 => "sha-256",
        FingerprintHash::Sha384 => "sha-384",
        FingerprintHash::Sha512 => "sha-512",
    };
    let digest: Vec<String> = fingerprint.value.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("{hash} {}", digest.join(":"))
}

/// RFC 8841 §5: both ends of WebRTC use this one.
const SCTP_PORT: u16 = 5000;

/// The port of an m-line without a candidate (RFC 8840 §4.1.1).
const DISCARD_PORT: u16 = 9;
