//! Text from strangers: session descriptions and requests.

use ringmain_control::rpc::{Call, INFO_SIZE_MAX, NAME_SIZE_MAX, Recipient, Request, TRACKS_PER_CALL_MAX, failure};
use ringmain_control::sdp::{Answerer, Local, Offer, OfferedTrack, Offerer, PublishedTrack};
use ringmain_shared::id::SubscriptionId;
use ringmain_shared::limits::SIGNAL_MESSAGE_SIZE_MAX;
use ringmain_shared::media::{Kind, PayloadType, Ssrc};
use ringmain_shared::transport::{Fingerprint, FingerprintHash, IceCredentials};

/// Session descriptions, divided by `\n%\n`: the first is an offer to us, the next one of the same peer; the last is also
/// taken for an answer to what we offer on the strength of the first.
pub fn sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let texts: Vec<&str> = text.split("\n%\n").take(3).collect();
    let mut answerer = Answerer::new(1);
    let mut tracks = Vec::new();
    for text in &texts {
        let Ok(offer) = Offer::parse(text) else { continue };
        let before = format!("{answerer:?}");
        let _ = answerer.is_ice_restart(&offer);
        let Ok(answer) = answerer.answer(&offer, &local()) else {
            assert_eq!(before, format!("{answerer:?}"), "an error leaves everything as it was");
            continue;
        };
        check_tracks(&answer.tracks);
        assert!(!(answer.transport_cc && answer.remb));
        assert!(!answer.remote.fingerprints.is_empty());
        reread(&answer.sdp, "a=setup:");
        // The same offer again changes nothing but the version.
        let again = answerer.answer(&offer, &local()).expect("what was answered once is answered again");
        assert_eq!((&again.tracks, &again.remote), (&answer.tracks, &answer.remote));
        tracks = answer.tracks;
    }
    offer_on(&tracks, texts.last().copied().unwrap_or_default());
}

fn check_tracks(tracks: &[PublishedTrack]) {
    for track in tracks {
        let ids = [&track.stream_id, &track.track_id];
        assert!(ids.iter().all(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())), "{ids:?}");
        assert!(!track.codecs.is_empty() && track.codecs.len() == track.formats.len());
        assert!(track.codecs.iter().all(|codec| codec.payload_type < PayloadType(128) && codec.clock_rate > 0));
        assert!(track.ssrcs.is_empty() || track.rids.is_empty());
        assert!(track.formats.iter().all(|format| !format.fmtp.contains(['\r', '\n'])));
    }
}

/// What we say is a description that we would read, line by line.
fn reread(sdp: &str, setup: &str) {
    assert!(sdp.ends_with("\r\n") && sdp.lines().all(|line| line.len() > 2 && line.as_bytes()[1] == b'='), "{sdp}");
    assert!(!sdp.replace("\r\n", "").contains(['\r', '\n', '\0']), "{sdp}");
    // As if the other side had written it: only a lite agent is not talked to.
    if sdp.contains(setup) {
        let theirs = sdp.replace("a=ice-lite\r\n", "").replace("a=setup:passive", "a=setup:actpass");
        let theirs = theirs.replace("a=setup:active", "a=setup:actpass");
        Offer::parse(&theirs).unwrap_or_else(|error| panic!("{error}\n{sdp}"));
    }
}

fn offer_on(tracks: &[PublishedTrack], answer: &str) {
    let mut offerer = Offerer::new(2, tracks.len().is_multiple_of(2));
    for (index, track) in tracks.iter().enumerate().take(8) {
        offerer.add(offered(index as u64 + 1, track));
    }
    let text = offerer.offer(&local());
    if !tracks.is_empty() || text.contains("m=") {
        reread(&text, "a=setup:");
    }
    if let Ok(answered) = offerer.answer(answer) {
        assert!(!offerer.is_outstanding());
        check_answered(&answered.tracks, tracks.len());
    }
    // A peer that takes everything is always understood.
    offerer.remove(SubscriptionId(1));
    let text = offerer.offer(&local());
    if text.contains("a=setup:") {
        let answered = offerer.answer(&accept_all(&text)).unwrap_or_else(|error| panic!("{error}\n{text}"));
        check_answered(&answered.tracks, tracks.len());
        assert!(answered.tracks.iter().all(|track| track.id != SubscriptionId(1)));
    }
}

fn check_answered(accepted: &[ringmain_control::sdp::AcceptedTrack], offered: usize) {
    assert!(accepted.len() <= offered.min(8));
    for (index, track) in accepted.iter().enumerate() {
        assert!(!track.codecs.is_empty() && !track.mid.is_empty());
        assert!(accepted[..index].iter().all(|other| other.mid != track.mid && other.id != track.id));
    }
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

fn accept_all(offer: &str) -> String {
    let ours = ["a=ssrc", "a=msid", "a=candidate", "a=ice-lite", "a=end-of"];
    let keep = |line: &&str| !ours.iter().any(|start| line.starts_with(start));
    let turned = |line: &str| match line {
        "a=setup:actpass" => "a=setup:active\r\n".to_owned(),
        "a=sendonly" => "a=recvonly\r\n".to_owned(),
        line => format!("{line}\r\n"),
    };
    offer.lines().filter(keep).map(turned).collect()
}

fn local() -> Local {
    Local {
        ice: IceCredentials { ufrag: "localufrag".into(), pwd: "localpasswordlocalpassword".into() },
        fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value: (0..32).collect() },
        candidates: vec![([192, 0, 2, 1], 5000).into()],
        tcp_candidates: vec![([192, 0, 2, 1], 5000).into()],
    }
}

/// A text frame of a signalling connection. What it asks is within the bounds that sessions rely on; what it gets back is
/// told to whom it concerns. The descriptions and ids in it go where a session would take them.
pub fn json_rpc(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Request::parse(text) {
        Ok(request) => {
            assert!(text.len() <= SIGNAL_MESSAGE_SIZE_MAX);
            check_call(&request.call);
        }
        Err(refusal) => {
            let id = match &refusal.recipient {
                Recipient::Request(id) => Some(id),
                Recipient::Unknown | Recipient::Nobody => None,
            };
            let told = failure(id, &refusal.error);
            assert!(told.len() < 4096, "an error of {} bytes", told.len());
            assert!(told.starts_with('{') && told.ends_with('}') && !told.contains('\n'));
        }
    }
}

fn check_call(call: &Call) {
    let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_SIZE_MAX;
    match call {
        Call::Join(join) => {
            assert!(is_name(&join.sid) && join.uid.as_deref().is_none_or(is_name));
            assert!(join.info.as_ref().is_none_or(|info| info.to_string().len() <= INFO_SIZE_MAX));
            join.offer.iter().for_each(|offer| sdp(offer.as_bytes()));
        }
        Call::Offer(text) | Call::Answer(text) => sdp(text.as_bytes()),
        Call::Trickle(trickle) => assert!(trickle.target <= 1),
        Call::Tracks | Call::IceServers => {}
        Call::Subscribe(tracks) | Call::Unsubscribe(tracks) => {
            assert!(!tracks.is_empty() && tracks.len() <= TRACKS_PER_CALL_MAX);
            assert!(tracks.iter().all(|track| is_name(&track.stream_id)));
            assert!(tracks.iter().all(|track| track.track_id.as_deref().is_none_or(is_name)));
        }
    }
}
