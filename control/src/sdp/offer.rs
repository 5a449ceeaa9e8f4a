//! A publisher's offer, parsed and within limits: every m-section read, each with the verdict whether we take part in it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use ringmain_shared::media::{Extension, ExtensionIds, Kind, Mid, ReceiveCodec, RidLayer, Ssrc, SsrcLayer};
use ringmain_shared::transport::{Fingerprint, IceCredentials};
use sdp::description::common::Attribute;

use super::error::SdpError;
use super::format;
use super::identity::{Identity, Setup};
use super::section::{Defaults, ExtensionLine, Medium, Section};
use super::{CodecFormat, PublishedTrack, layers, text};

/// A parsed, limit-checked offer of a publisher.
pub struct Offer {
    /// Which of the peer's connections it is of.
    pub session: SessionName,
    pub(super) sections: Vec<OfferedSection>,
    pub(super) ice: IceCredentials,
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) setup: Option<Setup>,
    pub(super) allow_mixed: bool,
    pub(super) is_bundled: bool,
    pub(super) extensions: ExtensionIds,
    pub(super) transport_cc: bool,
    pub(super) remb: bool,
}

/// How one of a peer's connections is told from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionName {
    /// The same in all offers of one connection (RFC 3264 §8), though not every client keeps to that.
    id: u64,
    /// The same until ICE restarts; never of two connections.
    ice: IceCredentials,
}

impl SessionName {
    /// Both are of the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id || self.ice == other.ice
    }
}

/// An m-section and what we make of it.
pub(super) struct OfferedSection {
    pub section: Section,
    pub verdict: Verdict,
    /// Extensions that the answer repeats.
    pub extensions: Vec<ExtensionLine>,
    pub rids: Vec<RidLayer>,
    pub ssrcs: Vec<SsrcLayer>,
}

/// What the answer says to an m-section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Media { mid: Mid, kind: Kind },
    Channels { mid: Mid },
    Refused,
}

impl Offer {
    /// Reads an offer, or says what is wrong with it. An m-section that we cannot serve is no error; it is refused.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let text = text::parse(text, &text::OFFER)?;
        let session = &text.session;
        if session.iter().any(|attribute| attribute.key == "ice-lite") {
            return Err(SdpError::new("a=ice-lite at both ends: the peer must run full ICE (RFC 8445 §6.1.1)"));
        }
        let defaults = Defaults::parse(&text.session);
        let raw = text.sections.into_iter().enumerate();
        let mut sections: Vec<Section> =
            raw.map(|(index, raw)| Section::parse(index, raw, &defaults)).collect::<Result<_, _>>()?;
        let group = bundle_group(session, &mut sections)?;
        check_one_transport(session, &sections)?;
        let verdicts = verdicts(&sections, &group);
        let (ice, fingerprints, setup) = identity(session, &sections, &verdicts, &group)?;
        let allow_mixed = session.iter().any(|attribute| attribute.key == "extmap-allow-mixed");
        let mut offer = Offer {
            session: SessionName { id: text.session_id, ice: ice.clone() },
            sections: Vec::with_capacity(sections.len()),
            ice,
            fingerprints,
            setup,
            allow_mixed,
            is_bundled: session.iter().any(is_bundle),
            extensions: ExtensionIds::default(),
            transport_cc: false,
            remb: false,
        };
        let mut taken = HashSet::new();
        for (section, verdict) in sections.into_iter().zip(verdicts) {
            offer.take(section, verdict, &mut taken);
        }
        offer.choose_congestion_control();
        Ok(offer)
    }

    /// The peer's ICE credentials.
    pub fn ice(&self) -> &IceCredentials {
        &self.ice
    }

    /// The tracks of the m-sections that send now.
    pub(super) fn tracks(&self) -> Vec<PublishedTrack> {
        self.sections.iter().filter_map(OfferedSection::track).collect()
    }

    fn take(&mut self, section: Section, verdict: Verdict, taken: &mut HashSet<Ssrc>) {
        let mut offered = OfferedSection { verdict, extensions: vec![], rids: vec![], ssrcs: vec![], section };
        if let Verdict::Media { .. } = verdict {
            offered.extensions = self.agree_extensions(&offered.section);
            offered.rids = layers::rid_layers(&offered.section);
            if offered.rids.is_empty() {
                offered.ssrcs = layers::ssrc_layers(&offered.section);
                // An SSRC that another m-section announced already is not to be had twice: found by mid then, if at all.
                let all = offered.ssrcs.iter().flat_map(|layer| [Some(layer.ssrc), layer.rtx]).flatten();
                if !all.collect::<Vec<_>>().into_iter().all(|ssrc| taken.insert(ssrc)) {
                    offered.ssrcs.clear();
                }
            }
        }
        self.sections.push(offered);
    }

    /// RFC 8843 §9.2 with RFC 8285: in one bundle an id means one extension, and an extension has one id.
    fn agree_extensions(&mut self, section: &Section) -> Vec<ExtensionLine> {
        let mut agreed: Vec<ExtensionLine> = Vec::new();
        for &line in &section.extensions {
            // RFC 8285 §4.1.2: ids above 14 need the two-byte form, which only a peer that may mix both is sure to send.
            let fits = line.id < 15 || self.allow_mixed;
            let sends = line.direction.is_none_or(|direction| direction.sends());
            let same_id = self.extensions.id(line.extension).is_none_or(|id| id == line.id);
            let same_extension = self.extensions.extension(line.id).is_none_or(|other| other == line.extension);
            let first = agreed.iter().all(|other| other.extension != line.extension);
            if fits && sends && same_id && same_extension && first {
                self.extensions.set(line.extension, line.id);
                agreed.push(line);
            }
        }
        agreed
    }

    /// Transport-wide feedback where it is offered with its header extension, else REMB. Never both: libwebrtc would
    /// take its estimate from the former anyhow.
    fn choose_congestion_control(&mut self) {
        let feedbacks = || {
            let media = self.sections.iter().filter(|offered| matches!(offered.verdict, Verdict::Media { .. }));
            media.flat_map(|offered| &offered.section.codecs).map(|codec| codec.feedback)
        };
        let transport_cc =
            self.extensions.id(Extension::TransportCc).is_some() && feedbacks().any(|feedback| feedback.transport_cc);
        let remb = !transport_cc && feedbacks().any(|feedback| feedback.remb);
        (self.transport_cc, self.remb) = (transport_cc, remb);
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdicts: Vec<Verdict> = self.sections.iter().map(|offered| offered.verdict).collect();
        f.debug_struct("Offer").field("ice", &self.ice).field("sections", &verdicts).finish_non_exhaustive()
    }
}

impl OfferedSection {
    fn track(&self) -> Option<PublishedTrack> {
        let Verdict::Media { mid, kind } = self.verdict else { return None };
        if !self.section.direction.sends() {
            return None;
        }
        let fallback = || format!("mid-{mid}");
        let (stream_id, track_id) = match &self.section.msid {
            Some((stream, track)) => (stream.clone(), track.clone().unwrap_or_else(fallback)),
            None => (fallback(), fallback()),
        };
        let codecs = self.section.codecs.iter().map(|line| ReceiveCodec {
            payload_type: line.payload_type,
            codec: line.codec,
            clock_rate: format::clock_rate_of(line.codec),
            rtx: line.rtx,
            nack: line.feedback.nack,
            pli: line.feedback.pli,
            fir: line.feedback.fir,
        });
        let formats = self.section.codecs.iter().map(|line| CodecFormat {
            payload_type: line.payload_type,
            codec: line.codec,
            clock_rate: format::clock_rate_of(line.codec),
            channels: format::channels_of(line.codec),
            fmtp: line.format.fmtp.clone(),
        });
        Some(PublishedTrack {
            mid,
            kind,
            stream_id,
            track_id,
            codecs: codecs.collect(),
            formats: formats.collect(),
            ssrcs: self.ssrcs.clone(),
            rids: self.rids.clone(),
        })
    }
}

/// The indices of the m-sections in the first BUNDLE group, in its order. Without a group, the first m-section with a
/// mid stands alone: there is one transport. What one m-section of the group says about RTCP then holds for all of it.
pub(super) fn bundle_group(session: &[Attribute], sections: &mut [Section]) -> Result<Vec<usize>, SdpError> {
    let mut by_mid: HashMap<&str, usize> = HashMap::new();
    for section in sections.iter() {
        if let Some(mid) = &section.mid_text
            && by_mid.insert(mid, section.index).is_some()
        {
            return Err(section.error("has the a=mid of another m-section"));
        }
    }
    let bundle = session.iter().find(|attribute| is_bundle(attribute)).and_then(|group| group.value.as_deref());
    let Some(bundle) = bundle else {
        let alone = sections.iter().find(|section| section.is_usable());
        return Ok(alone.map(|section| section.index).into_iter().collect());
    };
    let mut once = HashSet::new();
    let members = bundle.split_ascii_whitespace().skip(1).filter_map(|mid| by_mid.get(mid).copied());
    let group: Vec<usize> = members.filter(|&index| once.insert(index)).collect();
    share_rtcp(sections, &group);
    Ok(group)
}

/// RFC 8829 §5.2.1: in a bundle, `a=rtcp-mux` and `a=rtcp-rsize` need to stand in one m-section only.
fn share_rtcp(sections: &mut [Section], group: &[usize]) {
    let live = group.iter().filter_map(|&index| sections.get(index)).filter(|section| section.is_live());
    let (mux, rsize) =
        live.fold((false, false), |(mux, rsize), section| (mux || section.rtcp_mux, rsize || section.rtcp_rsize));
    for &index in group {
        if let Some(section) = sections.get_mut(index) {
            section.rtcp_mux |= mux;
            section.rtcp_rsize |= rsize;
        }
    }
}

/// What needs a transport of its own would be refused m-section by m-section, and its peer would wait for media in vain: it
/// hears what to change instead.
fn check_one_transport(session: &[Attribute], sections: &[Section]) -> Result<(), SdpError> {
    let served = || sections.iter().filter(|section| section.is_live() && section.is_known());
    if let Some(section) = served().find(|section| !section.is_muxed()) {
        return Err(section.error("has no a=rtcp-mux: RTP and RTCP share one port here (RFC 5761)"));
    }
    if let Some(section) = served().find(|section| section.mid().is_none()) {
        return Err(section.error("has no a=mid of 1 to 16 characters (RFC 8843 §15)"));
    }
    if served().count() > 1 && !session.iter().any(is_bundle) {
        return Err(SdpError::new(
            "has several m-sections and no a=group:BUNDLE: one transport carries everything here, so set the peer \
             connection's bundle policy to max-bundle",
        ));
    }
    Ok(())
}

fn is_bundle(attribute: &Attribute) -> bool {
    let semantics = attribute.value.as_deref().and_then(|value| value.split_ascii_whitespace().next());
    attribute.key == "group" && semantics == Some("BUNDLE")
}

fn verdicts(sections: &[Section], group: &[usize]) -> Vec<Verdict> {
    let bundled: HashSet<usize> = group.iter().copied().collect();
    let mut channels = false;
    let verdict = |section: &Section| {
        let mid = section.mid().filter(|_| section.is_usable() && bundled.contains(&section.index));
        match (section.medium, mid) {
            (Medium::Rtp(kind), Some(mid)) => Verdict::Media { mid, kind },
            // RFC 8841 §10.1: one SCTP association per DTLS association.
            (Medium::Channels, Some(mid)) if !std::mem::replace(&mut channels, true) => Verdict::Channels { mid },
            _ => Verdict::Refused,
        }
    };
    sections.iter().map(verdict).collect()
}

/// RFC 8843 §7.1: the transport's attributes stand in the tagged m-section, the first of the group that goes on; else
/// in the offerer's first, or at session level.
fn identity(
    session: &[Attribute],
    sections: &[Section],
    verdicts: &[Verdict],
    group: &[usize],
) -> Result<(IceCredentials, Vec<Fingerprint>, Option<Setup>), SdpError> {
    let outer = Identity::parse(session).map_err(SdpError::new)?;
    let accepted = group.iter().find(|&&index| verdicts.get(index).is_some_and(|verdict| *verdict != Verdict::Refused));
    let first = group.first();
    let Some(tagged) = accepted.or(first).map_or(sections.first(), |&index| sections.get(index)) else {
        return Err(SdpError::new("has no m-section: offer media or a data channel"));
    };
    let offerer_tagged = first.and_then(|&index| sections.get(index)).map(|section| &section.identity);
    let identity = tagged.identity.clone().or(offerer_tagged.unwrap_or(&outer)).or(&outer);
    let ice = identity.ice().map_err(|what| tagged.error(what))?;
    let fingerprints = identity.fingerprints().map_err(|what| tagged.error(what))?;
    Ok((ice, fingerprints, identity.setup))
}
