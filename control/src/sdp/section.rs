//! One m-section, read: what is named, numbered and sent in it, and whether it is one that we can take part in.
//! The same for a publisher's offer and a subscriber's answer. Lines that say nothing to us are passed over.

use std::collections::{HashMap, HashSet};

use ringmain_shared::media::{Extension, Kind, Mid, PayloadType, Ssrc};
use sdp::description::common::Attribute;

use super::error::SdpError;
use super::format::{self, Format};
use super::identity::Identity;
use super::layers::RidLine;
use super::text::{MLine, RawSection, is_token, is_visible};
use ringmain_shared::media::Codec;

/// An m-section with its attributes understood.
pub(super) struct Section {
    pub index: usize,
    pub m_line: MLine,
    pub medium: Medium,
    /// `a=mid` as the peer wrote it; a token.
    pub mid_text: Option<String>,
    pub identity: Identity,
    pub direction: Direction,
    pub bundle_only: bool,
    pub rtcp_mux: bool,
    pub rtcp_rsize: bool,
    /// Ids of the extensions that are ours, the session's included.
    pub extensions: Vec<ExtensionLine>,
    /// Accepted codecs in the order of the m-line.
    pub codecs: Vec<CodecLine>,
    /// `a=rid` lines that send.
    pub rids: Vec<RidLine>,
    /// The `send` list of `a=simulcast`.
    pub simulcast: Option<String>,
    /// SSRCs in the order of their first line.
    pub ssrcs: Vec<Ssrc>,
    /// `a=ssrc-group`.
    pub ssrc_groups: Vec<SsrcGroup>,
    /// MediaStream id, and track id where there is one.
    pub msid: Option<(String, Option<String>)>,
}

/// What an m-section is about, by its m-line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Medium {
    Rtp(Kind),
    Channels,
    /// A medium or a transport protocol that is not ours.
    Foreign,
}

/// Which way media goes, as the peer sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// One `a=extmap`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExtensionLine {
    pub id: u8,
    pub extension: Extension,
    /// Written with a direction; `None` is both.
    pub direction: Option<Direction>,
}

/// One payload type with all that its lines say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CodecLine {
    pub payload_type: PayloadType,
    pub codec: Codec,
    pub format: Format,
    pub rtx: Option<PayloadType>,
    pub feedback: Feedback,
}

/// `a=rtcp-fb` of a payload type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
    pub remb: bool,
}

/// One `a=ssrc-group` (RFC 5576 §4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SsrcGroup {
    pub semantics: String,
    pub ssrcs: Vec<Ssrc>,
}

/// What the session says for every m-section that does not say it itself. Read once, whatever the number of m-sections.
pub(super) struct Defaults {
    direction: Direction,
    extensions: Vec<ExtensionLine>,
}

impl Defaults {
    pub(super) fn parse(session: &[Attribute]) -> Self {
        // RFC 8866 §6.7: sendrecv unless said.
        let direction = session.iter().find_map(|attribute| Direction::parse(&attribute.key));
        Self { direction: direction.unwrap_or(Direction::SendRecv), extensions: extensions(session) }
    }
}

impl Section {
    /// Reads the m-section at `index` of a description.
    pub(super) fn parse(index: usize, raw: RawSection, defaults: &Defaults) -> Result<Self, SdpError> {
        let RawSection { m_line, attributes } = raw;
        let identity = Identity::parse(&attributes).map_err(|what| SdpError::in_section(index, m_line.line, what))?;
        let medium = Medium::of(&m_line);
        let codecs = match medium {
            Medium::Rtp(kind) => codecs(kind, &m_line.formats, &attributes),
            _ => Vec::new(),
        };
        let direction = attributes.iter().find_map(|attribute| Direction::parse(&attribute.key));
        let mut section = Section {
            index,
            medium,
            mid_text: None,
            identity,
            direction: direction.unwrap_or(defaults.direction),
            bundle_only: false,
            rtcp_mux: false,
            rtcp_rsize: false,
            extensions: defaults.extensions.iter().copied().chain(extensions(&attributes)).collect(),
            codecs,
            rids: Vec::new(),
            simulcast: None,
            ssrcs: Vec::new(),
            ssrc_groups: Vec::new(),
            msid: None,
            m_line,
        };
        let mut seen = HashSet::new();
        for attribute in &attributes {
            section.take(attribute, &mut seen);
        }
        Ok(section)
    }

    /// `a=mid`, if it is short enough for a one-byte header extension.
    pub(super) fn mid(&self) -> Option<Mid> {
        Mid::from(self.mid_text.as_deref()?).ok()
    }

    /// Not refused by the peer: RFC 8843 §6 has port zero also in sections that are merely bundled.
    pub(super) fn is_live(&self) -> bool {
        self.m_line.port != 0 || self.bundle_only
    }

    /// Whether we can take part in it, apart from BUNDLE.
    pub(super) fn is_usable(&self) -> bool {
        self.is_known() && self.is_muxed() && self.is_live() && self.mid().is_some()
    }

    /// Whether it is about something that we forward.
    pub(super) fn is_known(&self) -> bool {
        match self.medium {
            Medium::Rtp(_) => !self.codecs.is_empty(),
            Medium::Channels => true,
            Medium::Foreign => false,
        }
    }

    /// Whether one port is enough for it.
    pub(super) fn is_muxed(&self) -> bool {
        self.rtcp_mux || !matches!(self.medium, Medium::Rtp(_))
    }

    /// An error about this m-section.
    pub(super) fn error(&self, what: impl Into<String>) -> SdpError {
        SdpError::in_section(self.index, self.m_line.line, what)
    }

    fn take(&mut self, attribute: &Attribute, seen: &mut HashSet<Ssrc>) {
        let value = attribute.value.as_deref().unwrap_or_default();
        match attribute.key.as_str() {
            "mid" if self.mid_text.is_none() && is_token(value) => self.mid_text = Some(value.to_owned()),
            "bundle-only" => self.bundle_only = true,
            "rtcp-mux" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "rid" if self.rids.len() < RIDS_MAX => self.rids.extend(RidLine::parse(value)),
            "simulcast" if self.simulcast.is_none() => self.simulcast = simulcast_send(value),
            "msid" if self.msid.is_none() => self.msid = msid(value),
            "ssrc" => self.take_ssrc(value, seen),
            "ssrc-group" => self.ssrc_groups.extend(SsrcGroup::parse(value)),
            _ => {}
        }
    }

    fn take_ssrc(&mut self, value: &str, seen: &mut HashSet<Ssrc>) {
        let (number, rest) = value.split_once(' ').unwrap_or((value, ""));
        let Ok(ssrc) = number.parse().map(Ssrc) else { return };
        if seen.insert(ssrc) {
            self.ssrcs.push(ssrc);
        }
        // RFC 5576 `msid`, as before RFC 8830; `a=msid` outweighs it, and stands above it where both are written.
        if self.msid.is_none()
            && let Some(value) = rest.strip_prefix("msid:")
        {
            self.msid = msid(value);
        }
    }
}

impl Medium {
    fn of(m_line: &MLine) -> Self {
        let rtp = matches!(m_line.proto.as_str(), "UDP/TLS/RTP/SAVPF" | "TCP/TLS/RTP/SAVPF" | "TCP/DTLS/RTP/SAVPF");
        let sctp = matches!(m_line.proto.as_str(), "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP");
        match m_line.media.as_str() {
            "audio" if rtp => Medium::Rtp(Kind::Audio),
            "video" if rtp => Medium::Rtp(Kind::Video),
            "application" if sctp && m_line.formats.iter().any(|format| format == "webrtc-datachannel") => {
                Medium::Channels
            }
            _ => Medium::Foreign,
        }
    }
}

impl Direction {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        }
    }

    pub(super) fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

impl ExtensionLine {
    /// `<id>[/<direction>] <uri> [<attributes>]` (RFC 8285 §5), when the URI is one of ours.
    fn parse(attribute: &Attribute) -> Option<Self> {
        let mut fields = attribute.value.as_deref()?.split_ascii_whitespace();
        let entry = fields.next()?;
        let (id, direction) = match entry.split_once('/') {
            Some((id, direction)) => (id, Some(Direction::parse(direction)?)),
            None => (entry, None),
        };
        let extension = Extension::from_uri(fields.next()?)?;
        // RFC 8285 §4.2: 0 is padding and 15 is reserved; 256 and up only stand for "if there were room".
        let id = id.parse().ok().filter(|&id: &u8| id != 0 && id != 15)?;
        Some(Self { id, extension, direction })
    }
}

impl Feedback {
    fn add(&mut self, words: &str) {
        match words.trim() {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "transport-cc" => self.transport_cc = true,
            "goog-remb" => self.remb = true,
            _ => {}
        }
    }

    fn or(self, other: Feedback) -> Self {
        Self {
            nack: self.nack || other.nack,
            pli: self.pli || other.pli,
            fir: self.fir || other.fir,
            transport_cc: self.transport_cc || other.transport_cc,
            remb: self.remb || other.remb,
        }
    }
}

impl SsrcGroup {
    fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let semantics = fields.next()?.to_owned();
        let ssrcs: Option<Vec<Ssrc>> = fields.map(|field| field.parse().ok().map(Ssrc)).collect();
        Some(Self { semantics, ssrcs: ssrcs? })
    }
}

/// The `a=extmap` lines of ours, each extension once.
fn extensions(attributes: &[Attribute]) -> Vec<ExtensionLine> {
    let lines = attributes.iter().filter(|attribute| attribute.key == "extmap").filter_map(ExtensionLine::parse);
    let mut once = HashSet::new();
    lines.filter(|line| once.insert(line.extension)).collect()
}

/// The codecs of an m-section, each payload type once, without those that are not forwarded.
fn codecs(kind: Kind, formats: &[String], attributes: &[Attribute]) -> Vec<CodecLine> {
    let mut rtpmaps: HashMap<u8, &str> = HashMap::new();
    let mut fmtps: HashMap<u8, &str> = HashMap::new();
    let mut feedbacks: HashMap<u8, Feedback> = HashMap::new();
    let mut feedback_of_all = Feedback::default();
    for attribute in attributes {
        let Some((number, rest)) = attribute.value.as_deref().and_then(|value| value.split_once(' ')) else { continue };
        match (attribute.key.as_str(), payload_type(number)) {
            ("rtpmap", Some(number)) => _ = rtpmaps.entry(number).or_insert(rest),
            ("fmtp", Some(number)) => _ = fmtps.entry(number).or_insert(rest),
            ("rtcp-fb", Some(number)) => feedbacks.entry(number).or_default().add(rest),
            ("rtcp-fb", None) if number == "*" => feedback_of_all.add(rest),
            _ => {}
        }
    }
    let mut listed = HashSet::new();
    let numbers: Vec<u8> =
        formats.iter().filter_map(|format| payload_type(format)).filter(|&number| listed.insert(number)).collect();
    let mut rtx: HashMap<u8, PayloadType> = HashMap::new();
    for &number in &numbers {
        let is_rtx = rtpmaps.get(&number).is_some_and(|map| encoding(map).is_some_and(|(name, ..)| name == "rtx"));
        if is_rtx && let Some(apt) = fmtps.get(&number).and_then(|fmtp| apt(fmtp)) {
            rtx.entry(apt).or_insert(PayloadType(number));
        }
    }
    let codec = |number: u8| {
        let payload_type = PayloadType(number);
        let codec = match rtpmaps.get(&number) {
            Some(map) => {
                let (name, clock_rate, channels) = encoding(map)?;
                format::codec_of(kind, &name, clock_rate, channels)?
            }
            None => format::static_codec(payload_type).filter(|codec| format::kind_of(*codec) == kind)?,
        };
        let format = Format::parse(codec, fmtps.get(&number).copied().unwrap_or_default())?;
        let feedback = feedbacks.get(&number).copied().unwrap_or_default().or(feedback_of_all);
        Some(CodecLine { payload_type, codec, format, rtx: rtx.get(&number).copied(), feedback })
    };
    numbers.iter().filter_map(|&number| codec(number)).collect()
}

/// `<name>/<clock rate>[/<channels>]`, the name in lower case.
fn encoding(map: &str) -> Option<(String, u32, Option<u8>)> {
    let mut fields = map.trim().split('/');
    let (name, clock_rate) = (fields.next()?, fields.next()?.parse().ok()?);
    let channels = fields.next().map(str::parse).transpose().ok()?;
    Some((name.to_ascii_lowercase(), clock_rate, channels))
}

fn apt(fmtp: &str) -> Option<u8> {
    fmtp.split(';').find_map(|parameter| payload_type(parameter.trim().strip_prefix("apt=")?))
}

fn payload_type(text: &str) -> Option<u8> {
    text.parse().ok().filter(|&number: &u8| number < 128)
}

/// The part of `a=simulcast:send … recv …` that the peer sends.
fn simulcast_send(value: &str) -> Option<String> {
    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
    fields.chunks_exact(2).find(|pair| pair[0] == "send").map(|pair| pair[1].to_owned())
}

fn msid(value: &str) -> Option<(String, Option<String>)> {
    let mut fields = value.split_ascii_whitespace();
    let stream = fields.next().filter(|stream| is_visible(stream, ID_SIZE_MAX))?;
    let track = fields.next().filter(|track| is_visible(track, ID_SIZE_MAX));
    Some((stream.to_owned(), track.map(str::to_owned)))
}

/// Bytes of a stream's or a track's id.
pub(super) const ID_SIZE_MAX: usize = 256;

/// `a=rid` lines that are read.
const RIDS_MAX: usize = 16;
