//! The subscriber's connection: we offer, the peer answers (RFC 3264 §5 and §8, RFC 8829 §5.2).
//!
//! Owns the m-sections of one connection: each has its place for ever and a mid that is never used twice. A removed track
//! leaves an inactive m-section in the bundle, as ion-sfu does; some clients cannot read one with port 0. Only when many
//! have gathered are they ended with port 0, and then a later track may take the place under a new mid, once the peer has
//! answered the end. Payload types mean the same for the connection's whole life. Wishes come in between offers; an offer
//! contains all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ringmain_shared::id::SubscriptionId;
use ringmain_shared::media::{Codec, Extension, ExtensionIds, Kind, Mid, PayloadType, SendCodec, Ssrc};
use ringmain_shared::transport::RemotePeer;

use super::emit::{Description, Media, SetupLine, visible};
use super::error::SdpError;
use super::format::{self, Format, Meaning};
use super::identity::{Identity, role_after_answer};
use super::offer::bundle_group;
use super::section::{CodecLine, Defaults, Feedback, ID_SIZE_MAX, Medium, Section};
use super::{CodecFormat, Local, extensions_of, text};

/// Our end of a subscriber's offers and answers.
#[derive(Debug)]
pub struct Offerer {
    session_id: u64,
    version: u64,
    next_mid: u32,
    wishes: BTreeMap<SubscriptionId, OfferedTrack>,
    /// Wishes that the peer refused; not offered again.
    refused: BTreeSet<SubscriptionId>,
    /// The m-sections as last offered.
    places: Vec<Place>,
    payload_types: PayloadTypes,
    is_outstanding: bool,
    /// Something that was wished is not in the last offer, or that offer was abandoned.
    is_stale: bool,
    remote: Option<RemotePeer>,
}

/// A track to be offered to the subscriber.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferedTrack {
    /// What it is called between us.
    pub id: SubscriptionId,
    /// Audio or video.
    pub kind: Kind,
    /// Id of the MediaStream that it appears in, `-` for none.
    pub stream_id: String,
    /// Id of the MediaStreamTrack.
    pub track_id: String,
    /// The publisher's formats, the preferred one first.
    pub formats: Vec<CodecFormat>,
    /// The SSRC that it goes under.
    pub ssrc: Ssrc,
    /// The SSRC of its retransmissions; without it none are offered.
    pub rtx_ssrc: Option<Ssrc>,
    /// The CNAME of its publisher.
    pub cname: String,
    /// The header extensions to offer; [`extensions_of`] names those that make sense.
    pub extensions: Vec<Extension>,
}

/// What came of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// Who the peer is to ICE and DTLS.
    pub remote: RemotePeer,
    /// Every track that the peer receives now, those agreed on before included.
    pub tracks: Vec<AcceptedTrack>,
    /// Data channels are agreed on.
    pub channels: bool,
}

/// A track that the subscriber receives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptedTrack {
    /// As offered.
    pub id: SubscriptionId,
    /// Its m-section.
    pub mid: Mid,
    /// The accepted ones of its formats, in their order.
    pub codecs: Vec<SendCodec>,
    /// The accepted header extensions.
    pub extensions: ExtensionIds,
}

/// One m-section of the connection.
#[derive(Debug)]
struct Place {
    mid: Mid,
    /// A place keeps its medium (audio, video or application) whatever comes and goes in it.
    content: Content,
    /// The formats it was last offered with.
    formats: Vec<Assigned>,
    /// The peer has answered an offer that has this content.
    is_settled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Channels,
    Track(Kind, SubscriptionId),
    /// Its track is gone; it stays in the bundle.
    Idle(Kind),
    /// Out of the bundle, with port 0.
    Ended(Kind),
}

impl Offerer {
    /// For a new connection. `channels`: an m-section for data channels comes first and stays; it is the one that the
    /// bundle's transport is tagged with, so that tracks can come and go.
    pub fn new(session_id: u64, channels: bool) -> Self {
        let mut offerer = Self {
            session_id,
            version: 0,
            next_mid: 0,
            wishes: BTreeMap::new(),
            refused: BTreeSet::new(),
            places: Vec::new(),
            payload_types: PayloadTypes::default(),
            is_outstanding: false,
            is_stale: channels,
            remote: None,
        };
        if channels {
            let mid = offerer.new_mid();
            offerer.places.push(Place::new(mid, Content::Channels));
        }
        offerer
    }

    /// Wishes a track to be offered; with the id of an earlier wish, instead of that. Its ids are cleaned to visible ASCII,
    /// and where another wish has the same two, its track id is lengthened: browsers refuse an offer with both.
    pub fn add(&mut self, mut track: OfferedTrack) {
        track.stream_id = visible(&track.stream_id, ID_SIZE_MAX);
        track.track_id = visible(&track.track_id, ID_SIZE_MAX);
        track.cname = visible(&track.cname, ID_SIZE_MAX);
        while self.wishes.values().any(|other| other.id != track.id && other.has_name_of(&track)) {
            track.track_id = format!("{}-{}", track.track_id, track.id);
        }
        self.is_stale |= self.refused.remove(&track.id) || self.wishes.get(&track.id) != Some(&track);
        self.wishes.insert(track.id, track);
    }

    /// Wishes a track to be offered no more.
    pub fn remove(&mut self, id: SubscriptionId) {
        self.refused.remove(&id);
        if self.wishes.remove(&id).is_some() {
            self.is_stale = true;
        }
    }

    /// Whether the next offer would say something new. Also true while one is outstanding, if wishes came after it.
    pub fn needs_offer(&self) -> bool {
        self.is_stale
    }

    /// Whether an offer waits for its answer.
    pub fn is_outstanding(&self) -> bool {
        self.is_outstanding
    }

    /// The offer that contains every wish. Other credentials in `local` than before make it an ICE restart
    /// (RFC 8839 §4.4.1.1.1). An offer that is still outstanding is abandoned by it.
    ///
    /// At most 512 m-sections; wishes beyond them wait for a place to become free.
    pub fn offer(&mut self, local: &Local) -> String {
        self.end_removed();
        self.place_new();
        (self.is_outstanding, self.is_stale) = (true, false);
        self.version += 1;
        let mut description = Description::new(self.session_id, self.version);
        for place in &mut self.places {
            match place.content {
                Content::Channels => {
                    let name = ("application", "UDP/DTLS/SCTP", vec!["webrtc-datachannel".to_owned()]);
                    let mut media = description.live(name, &place.mid, local, SetupLine::Actpass);
                    media.channels();
                    description.push(media);
                }
                Content::Idle(kind) => write_idle(&mut description, place, kind, local),
                Content::Ended(kind) => {
                    description.refused((media_name(kind), PROTO, vec!["0".to_owned()]), Some(&place.mid));
                }
                Content::Track(kind, id) => {
                    let track =
                        self.wishes.get(&id).expect("end_removed has just ended the places of all that is not wished");
                    place.formats = self.payload_types.assign_all(track);
                    write_track(&mut description, place, kind, track, local);
                }
            }
        }
        description.finish(true, true)
    }

    /// The answer never came. The next offer repeats what this one said and adds the wishes that came since: it fits
    /// a peer that never saw this one, and a peer whose answer was lost.
    pub fn abandon(&mut self) {
        if self.is_outstanding {
            (self.is_outstanding, self.is_stale) = (false, true);
        }
    }

    /// Reads the answer to the outstanding offer. An error leaves that offer outstanding.
    pub fn answer(&mut self, text: &str) -> Result<Answered, SdpError> {
        self.read_answer(text, false)
    }

    /// The same where the offer restarts ICE and one from before that may yet be answered: such an answer has the credentials
    /// of the one before it, and is refused (RFC 8839 §4.4.2). Not every client changes them, so ask for this only then.
    pub fn answer_to_restart(&mut self, text: &str) -> Result<Answered, SdpError> {
        self.read_answer(text, true)
    }

    fn read_answer(&mut self, text: &str, restarts: bool) -> Result<Answered, SdpError> {
        if !self.is_outstanding {
            return Err(SdpError::new("answers no offer: none is outstanding"));
        }
        let text = text::parse(text, &text::ANSWER)?;
        let defaults = Defaults::parse(&text.session);
        let raw = text.sections.into_iter().enumerate();
        let mut sections: Vec<Section> =
            raw.map(|(index, raw)| Section::parse(index, raw, &defaults)).collect::<Result<_, _>>()?;
        self.check_places(&sections)?;
        let group = bundle_group(&text.session, &mut sections)?;
        let bundled = group.iter().filter_map(|&index| sections.get(index));
        let accepted: Vec<&Section> = bundled.filter(|section| section.is_usable()).collect();
        let remote = self.remote(&accepted, &Identity::parse(&text.session).map_err(SdpError::new)?)?;
        if restarts && self.remote.as_ref().is_some_and(|former| former.ice == remote.ice) {
            return Err(SdpError::new("answers an offer from before the ICE restart: its credentials are not new"));
        }

        let accepted: HashMap<usize, &Section> = accepted.into_iter().map(|section| (section.index, section)).collect();
        let mut answered = Answered { remote: remote.clone(), tracks: Vec::new(), channels: false };
        for (index, place) in self.places.iter_mut().enumerate() {
            place.is_settled = true;
            match (place.content, accepted.get(&index)) {
                (Content::Channels, section) => answered.channels = section.is_some(),
                (Content::Track(_, id), Some(section)) => {
                    answered.tracks.extend(self.wishes.get(&id).and_then(|track| accept(track, place.mid, section)));
                }
                (Content::Track(kind, id), None) => {
                    // RFC 3264 §6: refused, so the place is free.
                    place.content = Content::Ended(kind);
                    if self.wishes.contains_key(&id) {
                        self.refused.insert(id);
                    }
                }
                (Content::Idle(kind), None) => place.content = Content::Ended(kind),
                (Content::Idle(_), Some(_)) | (Content::Ended(_), _) => {}
            }
        }
        self.is_outstanding = false;
        self.is_stale |= self.could_place_more();
        self.remote = Some(remote);
        Ok(answered)
    }

    fn end_removed(&mut self) {
        for place in &mut self.places {
            if let Content::Track(kind, id) = place.content
                && self.wishes.get(&id).is_none_or(|track| track.kind != kind)
            {
                // Without a format that we know it has port 0 already.
                place.content = if place.formats.is_empty() { Content::Ended(kind) } else { Content::Idle(kind) };
                place.is_settled = false;
            }
        }
        let is_idle = |place: &Place| matches!(place.content, Content::Idle(_));
        let idle = self.places.iter().filter(|place| is_idle(place)).count();
        if idle > IDLE_MAX || self.places.len() >= text::SECTIONS_MAX {
            for place in &mut self.places {
                if let Content::Idle(kind) = place.content {
                    place.content = Content::Ended(kind);
                    place.is_settled = false;
                }
            }
        }
    }

    fn place_new(&mut self) {
        let mut free = self.free_places();
        for (id, kind) in self.unplaced() {
            let content = Content::Track(kind, id);
            let again = free.iter_mut().find(|(free, _)| *free == kind).and_then(|(_, indices)| indices.pop());
            let index = match again {
                Some(index) => index,
                None if self.places.len() < text::SECTIONS_MAX => self.places.len(),
                None => continue,
            };
            let place = Place::new(self.new_mid(), content);
            match self.places.get_mut(index) {
                // RFC 8829 §5.2.2: a refused or ended m-section may be recycled, with a new mid.
                Some(ended) => *ended = place,
                None => self.places.push(place),
            }
        }
    }

    fn could_place_more(&self) -> bool {
        let free = self.free_places();
        let room = self.places.len() < text::SECTIONS_MAX;
        let fits = |kind: Kind| room || free.iter().any(|(free, indices)| *free == kind && !indices.is_empty());
        self.unplaced().iter().any(|(_, kind)| fits(*kind))
    }

    /// Wishes without an m-section.
    fn unplaced(&self) -> Vec<(SubscriptionId, Kind)> {
        let placed: HashSet<SubscriptionId> = self
            .places
            .iter()
            .filter_map(|place| match place.content {
                Content::Track(_, id) => Some(id),
                _ => None,
            })
            .collect();
        let waits = |id: &SubscriptionId| !placed.contains(id) && !self.refused.contains(id);
        self.wishes.values().filter(|track| waits(&track.id)).map(|track| (track.id, track.kind)).collect()
    }

    /// Places whose end the peer has answered, the first one last.
    fn free_places(&self) -> [(Kind, Vec<usize>); 2] {
        let of = |kind: Kind| {
            let is_free = |place: &Place| place.is_settled && place.content == Content::Ended(kind);
            let places = self.places.iter().enumerate().rev();
            (kind, places.filter(|(_, place)| is_free(place)).map(|(index, _)| index).collect())
        };
        [of(Kind::Audio), of(Kind::Video)]
    }

    fn new_mid(&mut self) -> Mid {
        let mid = self.next_mid.to_string();
        self.next_mid += 1;
        Mid::from(&mid).expect("a u32 has at most ten digits")
    }

    /// RFC 3264 §6: as many m-sections as offered, in the same order.
    fn check_places(&self, sections: &[Section]) -> Result<(), SdpError> {
        if sections.len() != self.places.len() {
            let (answered, offered) = (sections.len(), self.places.len());
            return Err(SdpError::new(format!("answers {answered} m-sections where {offered} were offered")));
        }
        for (section, place) in sections.iter().zip(&self.places) {
            let same_mid = section.mid_text.as_ref().is_none_or(|mid| mid.as_str() == place.mid.as_str());
            if !same_mid || section.m_line.media != place.media_name() {
                return Err(section.error(format!("does not answer a=mid:{} that was offered there", place.mid)));
            }
        }
        Ok(())
    }

    fn remote(&self, accepted: &[&Section], outer: &Identity) -> Result<RemotePeer, SdpError> {
        let Some(tagged) = accepted.first() else {
            return self
                .remote
                .clone()
                .ok_or_else(|| SdpError::new("accepts no m-section with a=group:BUNDLE and a=rtcp-mux"));
        };
        let identity = tagged.identity.clone().or(outer);
        Ok(RemotePeer {
            ice: identity.ice().map_err(|what| tagged.error(what))?,
            fingerprints: identity.fingerprints().map_err(|what| tagged.error(what))?,
            role: role_after_answer(identity.setup).map_err(|what| tagged.error(what))?,
        })
    }
}

impl OfferedTrack {
    /// The extensions that make sense for `kind`, for [`OfferedTrack::extensions`].
    pub fn default_extensions(kind: Kind) -> Vec<Extension> {
        extensions_of(kind).to_vec()
    }

    fn has_name_of(&self, other: &OfferedTrack) -> bool {
        self.stream_id == other.stream_id && self.track_id == other.track_id
    }

    /// Its formats, understood; those that cannot be are left out.
    fn formats(&self) -> impl Iterator<Item = (&CodecFormat, Format)> {
        let own = self.formats.iter().filter(|format| format::kind_of(format.codec) == self.kind);
        own.filter_map(|format| Some((format, Format::parse(format.codec, &format.fmtp)?)))
    }
}

impl Place {
    fn new(mid: Mid, content: Content) -> Self {
        Self { mid, content, formats: Vec::new(), is_settled: false }
    }

    fn media_name(&self) -> &'static str {
        match self.content {
            Content::Channels => "application",
            Content::Track(kind, _) | Content::Idle(kind) | Content::Ended(kind) => media_name(kind),
        }
    }
}

fn write_track(description: &mut Description, place: &Place, kind: Kind, track: &OfferedTrack, local: &Local) {
    let rtx = |one: &Assigned| one.rtx.filter(|_| track.rtx_ssrc.is_some());
    let name = (media_name(kind), PROTO);
    if place.formats.is_empty() {
        // No format that we know: nothing to offer, but the place is kept.
        return description.refused((name.0, name.1, vec!["0".to_owned()]), Some(&place.mid));
    }
    let name = (name.0, name.1, numbers(&place.formats, rtx));
    let mut media = description.live(name, &place.mid, local, SetupLine::Actpass);
    for &extension in &track.extensions {
        media.line("extmap", format_args!("{} {}", extension_id(extension), extension.uri()));
    }
    media.flag("sendonly");
    media.line("msid", format_args!("{} {}", track.stream_id, track.track_id));
    media.flag("rtcp-mux");
    media.flag("rtcp-rsize");
    for one in &place.formats {
        media.codec(one.payload_type, one.codec, &one.fmtp, feedback_of(kind), rtx(one));
    }
    write_ssrcs(&mut media, track, place.formats.iter().any(|one| rtx(one).is_some()));
    description.push(media);
}

/// The track is gone, the m-section stays: nothing but the direction tells, so any peer can answer it as before.
fn write_idle(description: &mut Description, place: &Place, kind: Kind, local: &Local) {
    let name = (media_name(kind), PROTO, numbers(&place.formats, |_| None));
    let mut media = description.live(name, &place.mid, local, SetupLine::Actpass);
    media.line("extmap", format_args!("{} {}", extension_id(Extension::Mid), Extension::Mid.uri()));
    media.flag("inactive");
    media.flag("rtcp-mux");
    media.flag("rtcp-rsize");
    for one in &place.formats {
        media.codec(one.payload_type, one.codec, &one.fmtp, feedback_of(kind), None);
    }
    description.push(media);
}

/// Payload types as an m-line names them.
fn numbers(formats: &[Assigned], rtx: impl Fn(&Assigned) -> Option<PayloadType>) -> Vec<String> {
    let numbers = formats.iter().flat_map(|one| [Some(one.payload_type), rtx(one)]).flatten();
    numbers.map(|number| number.0.to_string()).collect()
}

/// RFC 5576; browsers bind the track to these even before the first packet.
fn write_ssrcs(media: &mut Media, track: &OfferedTrack, has_rtx: bool) {
    let Ssrc(ssrc) = track.ssrc;
    let rtx = track.rtx_ssrc.filter(|_| has_rtx);
    if let Some(Ssrc(rtx)) = rtx {
        media.line("ssrc-group", format_args!("FID {ssrc} {rtx}"));
    }
    for number in [Some(ssrc), rtx.map(|rtx| rtx.0)].into_iter().flatten() {
        media.line("ssrc", format_args!("{number} cname:{}", track.cname));
        media.line("ssrc", format_args!("{number} msid:{} {}", track.stream_id, track.track_id));
    }
}

/// What a peer's m-section makes of an offered track; `None` when it does not receive, or no codec is left.
fn accept(track: &OfferedTrack, mid: Mid, section: &Section) -> Option<AcceptedTrack> {
    if !section.direction.receives() || section.medium != Medium::Rtp(track.kind) {
        return None;
    }
    let codecs: Vec<SendCodec> =
        track.formats().filter_map(|(codec, format)| send_codec(codec, &format, track, section)).collect();
    let mut extensions = ExtensionIds::default();
    for line in &section.extensions {
        // RFC 8285 §6: an answer cannot give an extension another id.
        let offered = track.extensions.contains(&line.extension) && line.id == extension_id(line.extension);
        if offered && line.direction.is_none_or(|direction| direction.receives()) {
            extensions.set(line.extension, line.id);
        }
    }
    (!codecs.is_empty()).then_some(AcceptedTrack { id: track.id, mid, codecs, extensions })
}

/// RFC 3264 §6.1: we send with the payload type of the answer, whose numbers may be others than ours.
fn send_codec(codec: &CodecFormat, format: &Format, track: &OfferedTrack, section: &Section) -> Option<SendCodec> {
    let same = |line: &&CodecLine| line.codec == codec.codec && line.format.meaning.matches(format.meaning);
    let line = section.codecs.iter().find(same)?;
    Some(SendCodec {
        from: codec.payload_type,
        to: line.payload_type,
        rtx: line.rtx.filter(|_| track.rtx_ssrc.is_some()),
        codec: codec.codec,
        clock_rate: codec.clock_rate,
    })
}

impl Meaning {
    /// Whether an answer's format accepts an offered one. RFC 7587 §7.1: `stereo` is the receiver's wish, not agreed on.
    fn matches(self, offered: Meaning) -> bool {
        matches!((self, offered), (Meaning::Opus { .. }, Meaning::Opus { .. })) || self == offered
    }
}

/// The payload types of one connection, each with its meaning for ever.
#[derive(Debug, Default)]
struct PayloadTypes {
    assigned: HashMap<Meaning, Assigned>,
    used: usize,
}

#[derive(Clone, Debug)]
struct Assigned {
    codec: Codec,
    payload_type: PayloadType,
    rtx: Option<PayloadType>,
    fmtp: String,
}

impl PayloadTypes {
    /// The payload types of a track's formats, one for each meaning.
    fn assign_all(&mut self, track: &OfferedTrack) -> Vec<Assigned> {
        let mut once = HashSet::new();
        let formats = track.formats().filter(|(_, format)| once.insert(format.meaning));
        formats.filter_map(|(codec, format)| self.assign(codec.codec, &format)).collect()
    }

    /// The payload type of a format, and that of its retransmissions. `None` when there are no numbers left, which the
    /// number of meanings rules out.
    fn assign(&mut self, codec: Codec, format: &Format) -> Option<Assigned> {
        if let Some(assigned) = self.assigned.get(&format.meaning) {
            return Some(assigned.clone());
        }
        let payload_type = match codec {
            Codec::Pcmu => PayloadType(0),
            Codec::Pcma => PayloadType(8),
            Codec::G722 => PayloadType(9),
            _ => self.next()?,
        };
        let rtx = if format::kind_of(codec) == Kind::Video { self.next() } else { None };
        let assigned = Assigned { codec, payload_type, rtx, fmtp: format.offer_fmtp() };
        self.assigned.insert(format.meaning, assigned.clone());
        Some(assigned)
    }

    /// RFC 3551 §3's dynamic range first, then the one that RFC 5761 §4 leaves free beside RTCP.
    fn next(&mut self) -> Option<PayloadType> {
        let number = (96..=127).chain(35..=63).nth(self.used)?;
        self.used += 1;
        Some(PayloadType(number))
    }
}

/// What we understand from a subscriber. Keyframe requests are for video; REMB, where it is used at all, comes with it.
fn feedback_of(kind: Kind) -> Feedback {
    let video = kind == Kind::Video;
    Feedback { nack: true, pli: video, fir: video, transport_cc: true, remb: video }
}

/// Ours, the same in every m-section and on every connection.
const fn extension_id(extension: Extension) -> u8 {
    extension as u8 + 1
}

const fn media_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

/// Inactive m-sections that may gather before they are ended: clients that choke on port 0 get by for as many, and
/// descriptions stay bounded.
pub(super) const IDLE_MAX: usize = 32;

const PROTO: &str = "UDP/TLS/RTP/SAVPF";
