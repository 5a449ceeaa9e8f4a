//! The publisher's connection: the peer offers, we answer (RFC 3264 §6, RFC 8829 §5.3).
//! Remembers what was agreed, m-section by m-section, to hold the next offer against it.

use std::fmt;

use ringmain_shared::media::{ExtensionIds, Kind};
use ringmain_shared::transport::{DtlsRole, Fingerprint, IceCredentials, RemotePeer};

use super::emit::{Description, Media, SetupLine};
use super::error::SdpError;
use super::identity::role_against_offer;
use super::offer::{Offer, OfferedSection, Verdict};
use super::section::{Direction, ExtensionLine, Feedback};
use super::{Local, PublishedTrack};

/// Our end of a publisher's offers and answers.
#[derive(Clone, Debug)]
pub struct Answerer {
    session_id: u64,
    version: u64,
    agreed: Option<Agreed>,
}

/// What came of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For the peer.
    pub sdp: String,
    /// Who the peer is to ICE and DTLS.
    pub remote: RemotePeer,
    /// The agreed header extensions, the same in every m-section.
    pub extensions: ExtensionIds,
    /// Answer the peer's media with transport-wide feedback.
    pub transport_cc: bool,
    /// Answer it with REMB; never together with `transport_cc`.
    pub remb: bool,
    /// The m-sections that send now.
    pub tracks: Vec<PublishedTrack>,
    /// Data channels are agreed on.
    pub channels: bool,
}

#[derive(Clone)]
struct Agreed {
    ice: IceCredentials,
    fingerprints: Vec<Fingerprint>,
    role: DtlsRole,
    /// The mid of each m-section, `None` where it was refused or ended and its place is free.
    places: Vec<Option<String>>,
}

impl Answerer {
    /// For a new connection; `session_id` goes into `o=`, of which 63 bits are used.
    pub fn new(session_id: u64) -> Self {
        Self { session_id, version: 0, agreed: None }
    }

    /// Whether the peer asks for an ICE restart (RFC 8839 §4.4.1.1.1): other credentials than in the offer answered last.
    pub fn is_ice_restart(&self, offer: &Offer) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.ice != offer.ice)
    }

    /// Answers an offer. An error leaves everything as it was agreed before.
    pub fn answer(&mut self, offer: &Offer, local: &Local) -> Result<Answer, SdpError> {
        self.check_places(offer)?;
        // RFC 8842 §5.4: with the same fingerprints the association goes on, so the roles stay.
        let before = self.agreed.as_ref().filter(|agreed| agreed.fingerprints == offer.fingerprints);
        let role = role_against_offer(offer.setup, before.map(|agreed| agreed.role)).map_err(SdpError::new)?;
        self.version += 1;
        let mut description = Description::new(self.session_id, self.version);
        for offered in &offer.sections {
            write_section(&mut description, offer, offered, local, role);
        }
        let accepted = |offered: &OfferedSection| offered.section.mid_text.clone().filter(|_| offered.is_accepted());
        self.agreed = Some(Agreed {
            ice: offer.ice.clone(),
            fingerprints: offer.fingerprints.clone(),
            role,
            places: offer.sections.iter().map(accepted).collect(),
        });
        Ok(Answer {
            sdp: description.finish(offer.is_bundled, offer.allow_mixed),
            remote: RemotePeer { ice: offer.ice.clone(), fingerprints: offer.fingerprints.clone(), role },
            extensions: offer.extensions,
            transport_cc: offer.transport_cc,
            remb: offer.remb,
            tracks: offer.tracks(),
            channels: offer.sections.iter().any(|offered| matches!(offered.verdict, Verdict::Channels { .. })),
        })
    }

    /// RFC 8829 §5.3.1: m-sections keep their places, and a place gets a new mid only after its m-section ended.
    fn check_places(&self, offer: &Offer) -> Result<(), SdpError> {
        let Some(agreed) = &self.agreed else { return Ok(()) };
        if offer.sections.len() < agreed.places.len() {
            let (now, before) = (offer.sections.len(), agreed.places.len());
            return Err(SdpError::new(format!(
                "has {now} m-sections after {before}: an ended one stays in place with port 0 (RFC 3264 §8)"
            )));
        }
        for (offered, place) in offer.sections.iter().zip(&agreed.places) {
            if let Some(before) = place
                && offered.section.mid_text.as_ref() != Some(before)
            {
                return Err(offered.section.error(format!(
                    "is in the place of a=mid:{before}, which has not ended: end it with port 0 first"
                )));
            }
        }
        Ok(())
    }
}

impl OfferedSection {
    fn is_accepted(&self) -> bool {
        self.verdict != Verdict::Refused
    }
}

fn write_section(
    description: &mut Description,
    offer: &Offer,
    offered: &OfferedSection,
    local: &Local,
    role: DtlsRole,
) {
    let m_line = &offered.section.m_line;
    let name = |formats| (m_line.media.as_str(), m_line.proto.as_str(), formats);
    let setup = SetupLine::Role(role);
    match offered.verdict {
        Verdict::Refused => {
            description.refused(name(m_line.formats.clone()), offered.section.mid_text.as_deref());
        }
        Verdict::Channels { mid } => {
            let mut media = description.live(name(vec!["webrtc-datachannel".to_owned()]), &mid, local, setup);
            media.channels();
            description.push(media);
        }
        Verdict::Media { mid, kind } => {
            let codecs = offered.section.codecs.iter();
            let formats = codecs.flat_map(|codec| [Some(codec.payload_type), codec.rtx]).flatten();
            let formats = formats.map(|number| number.0.to_string()).collect();
            let mut media = description.live(name(formats), &mid, local, setup);
            write_media(&mut media, offer, offered, kind);
            description.push(media);
        }
    }
}

fn write_media(media: &mut Media, offer: &Offer, offered: &OfferedSection, kind: Kind) {
    let section = &offered.section;
    for ExtensionLine { id, extension, direction } in &offered.extensions {
        // RFC 8285 §6: an extension that is only sent to us is only received here.
        let direction = if *direction == Some(Direction::SendOnly) { "/recvonly" } else { "" };
        media.line("extmap", format_args!("{id}{direction} {}", extension.uri()));
    }
    media.flag(if section.direction.sends() { "recvonly" } else { "inactive" });
    media.flag("rtcp-mux");
    if section.rtcp_rsize {
        media.flag("rtcp-rsize");
    }
    for line in &section.codecs {
        let feedback = Feedback {
            transport_cc: line.feedback.transport_cc && offer.transport_cc,
            remb: line.feedback.remb && offer.remb,
            ..line.feedback
        };
        media.codec(line.payload_type, line.codec, &line.format.answer_fmtp(), feedback, line.rtx);
    }
    if section.direction.sends() && kind == Kind::Video {
        write_simulcast(media, offered);
    }
}

fn write_simulcast(media: &mut Media, offered: &OfferedSection) {
    let mut order = Vec::new();
    for layer in &offered.rids {
        let line = offered.section.rids.iter().find(|line| line.rid == layer.rid);
        match line.and_then(|line| line.restrictions.as_deref()) {
            Some(restrictions) => media.line("rid", format_args!("{} recv {restrictions}", layer.rid)),
            None => media.line("rid", format_args!("{} recv", layer.rid)),
        }
        order.push(layer.rid.as_str());
    }
    if offered.section.simulcast.is_some() && !order.is_empty() {
        media.line("simulcast", format_args!("recv {}", order.join(";")));
    }
    // libwebrtc sends simulcast by a SIM group only to who says that it is a conference.
    if offered.ssrcs.len() > 1 {
        media.line("x-google-flag", "conference");
    }
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreed")
            .field("ice", &self.ice)
            .field("role", &self.role)
            .field("places", &self.places)
            .finish()
    }
}
