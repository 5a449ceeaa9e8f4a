//! What a payload type means: the codec, and those parameters that make two descriptions of it the same or not.
//! Answers to RFC 7587 (Opus), RFC 7741 (VP8), RFC 9628 (VP9), RFC 6184 (H.264), RFC 7798 (H.265) and the AV1 RTP format.
//! There are few [`Meaning`]s by design, so that a subscriber's payload types cannot be used up by inventive publishers.

use ringmain_shared::media::{Codec, Kind, PayloadType};

/// Two formats with the same meaning go under the same payload type at a subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Meaning {
    /// `stereo` where the publisher may send two channels.
    Opus {
        stereo: bool,
    },
    Pcmu,
    Pcma,
    G722,
    Vp8,
    /// `profile-id`, 0–3.
    Vp9 {
        profile: u8,
    },
    /// Levels are left out: with `level-asymmetry-allowed`, and in what browsers do, they do not separate formats.
    H264 {
        profile: H264Profile,
        non_interleaved: bool,
    },
    /// `profile-id`, 1 (Main) or 2 (Main 10).
    H265 {
        profile: u8,
    },
    /// `profile`, 0–2.
    Av1 {
        profile: u8,
    },
}

/// The profiles that browsers offer (RFC 6184 §8.1, table 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    PredictiveHigh444,
}

/// A codec with its parameters, cleaned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub meaning: Meaning,
    /// Parameters by name in a fixed order; names are ours, values checked.
    pub fmtp: String,
}

impl Format {
    /// Reads `a=fmtp` parameters; `None` when the format is none that we forward.
    pub(super) fn parse(codec: Codec, fmtp: &str) -> Option<Self> {
        let known = parameters_of(codec);
        let mut values: Vec<Option<&str>> = vec![None; known.len()];
        for parameter in fmtp.split(';') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let index = known.iter().position(|known| known.eq_ignore_ascii_case(name.trim()));
            if let Some(slot) = index.and_then(|index| values.get_mut(index))
                && slot.is_none()
                && !value.trim().is_empty()
                && value.trim().bytes().all(|byte| byte.is_ascii_alphanumeric())
            {
                *slot = Some(value.trim());
            }
        }
        let value =
            |name: &str| known.iter().zip(&values).find(|(known, _)| **known == name).and_then(|(_, value)| *value);
        let number = |name: &str, default: u8| value(name).map_or(Some(default), |text| text.parse::<u8>().ok());
        let meaning = match codec {
            Codec::Opus => Meaning::Opus { stereo: value("stereo") == Some("1") || value("sprop-stereo") == Some("1") },
            Codec::Pcmu => Meaning::Pcmu,
            Codec::Pcma => Meaning::Pcma,
            Codec::G722 => Meaning::G722,
            Codec::Vp8 => Meaning::Vp8,
            Codec::Vp9 => Meaning::Vp9 { profile: number("profile-id", 0).filter(|&profile| profile <= 3)? },
            Codec::H264 => Meaning::H264 {
                // RFC 6184 §8.1 has Baseline level 1 as the default; browsers read a missing one as Constrained Baseline.
                profile: value("profile-level-id")
                    .map_or(Some(H264Profile::ConstrainedBaseline), H264Profile::parse)?,
                non_interleaved: match number("packetization-mode", 0)? {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            },
            Codec::H265 if value("tx-mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("SRST")) => return None,
            Codec::H265 => {
                Meaning::H265 { profile: number("profile-id", 1).filter(|profile| (1..=2).contains(profile))? }
            }
            Codec::Av1 => Meaning::Av1 { profile: number("profile", 0).filter(|&profile| profile <= 2)? },
        };
        let mut clean = String::new();
        for (name, value) in known.iter().zip(&values) {
            if let Some(value) = value {
                push_parameter(&mut clean, name, value);
            }
        }
        Some(Self { meaning, fmtp: clean })
    }

    /// The parameters of our answer to a publisher: what it offered, turned from what it sends to what we take.
    pub(super) fn answer_fmtp(&self) -> String {
        let Meaning::Opus { stereo } = self.meaning else { return self.fmtp.clone() };
        let mut answer = String::new();
        for (name, value) in self.fmtp.split(';').filter_map(|parameter| parameter.split_once('=')) {
            // RFC 7587 §7.1: `sprop-` parameters speak of the sender, and we send nothing here.
            if !name.starts_with("sprop-") && name != "stereo" {
                push_parameter(&mut answer, name, value);
            }
        }
        if stereo {
            push_parameter(&mut answer, "stereo", "1");
        }
        answer
    }

    /// The parameters of our offer to a subscriber: the publisher's, without what only concerned us as its receiver, and
    /// without values that no browser takes: they would spoil the payload type for every publisher who shares it.
    pub(super) fn offer_fmtp(&self) -> String {
        match self.meaning {
            Meaning::Opus { stereo: false } => "minptime=10;useinbandfec=1".to_owned(),
            Meaning::Opus { stereo: true } => "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1".to_owned(),
            _ => {
                let mut offer = String::new();
                for (name, value) in self.fmtp.split(';').filter_map(|parameter| parameter.split_once('=')) {
                    if let Some(sound) = sound(name, value) {
                        push_parameter(&mut offer, name, &sound);
                    }
                }
                offer
            }
        }
    }
}

/// The value of a parameter as a subscriber may be offered it; `None` leaves the parameter to its default. Those that make
/// up the [`Meaning`] have been checked for it.
fn sound(name: &str, value: &str) -> Option<String> {
    let number = value.parse::<u8>().ok();
    let is_sound = match name {
        "level-asymmetry-allowed" | "tier" | "tier-flag" => number.is_some_and(|flag| flag <= 1),
        // AV1 specification, annex A.3: 0 to 23, and 31 for no limit.
        "level-idx" => number.is_some_and(|level| level <= 23 || level == 31),
        // RFC 7798 §7.1: thirty times the level.
        "level-id" => number.is_some_and(|level| H265_LEVELS.contains(&level)),
        "profile-level-id" => {
            let level = value.get(4..).and_then(|level| u8::from_str_radix(level, 16).ok());
            return match level.is_some_and(|level| H264_LEVELS.contains(&level)) {
                true => Some(value.to_owned()),
                // Level 3.1, which browsers take for a level that is not said.
                false => value.get(..4).map(|profile| format!("{profile}1f")),
            };
        }
        _ => true,
    };
    is_sound.then(|| value.to_owned())
}

impl H264Profile {
    /// From `profile-level-id`: profile_idc, profile-iop and level_idc in hexadecimal.
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 6 {
            return None;
        }
        let bits = u32::from_str_radix(text, 16).ok()?;
        let (idc, iop) = ((bits >> 16) as u8, (bits >> 8) as u8);
        match (idc, iop) {
            (0x42, iop) if iop & 0x4f == 0x40 => Some(Self::ConstrainedBaseline),
            (0x4d, iop) if iop & 0x8f == 0x80 => Some(Self::ConstrainedBaseline),
            (0x58, iop) if iop & 0xcf == 0xc0 => Some(Self::ConstrainedBaseline),
            (0x42, iop) if iop & 0x4f == 0x00 => Some(Self::Baseline),
            (0x58, iop) if iop & 0xcf == 0x80 => Some(Self::Baseline),
            (0x4d, iop) if iop & 0xaf == 0x00 => Some(Self::Main),
            (0x64, 0x0c) => Some(Self::ConstrainedHigh),
            (0x64, 0x00) => Some(Self::High),
            (0xf4, 0x00) => Some(Self::PredictiveHigh444),
            _ => None,
        }
    }
}

/// The codec that `a=rtpmap` names, if it is forwarded, with the clock and channels that it must have.
pub(super) fn codec_of(kind: Kind, name: &str, clock_rate: u32, channels: Option<u8>) -> Option<Codec> {
    let codec = *CODECS.iter().find(|codec| encoding_name(**codec).eq_ignore_ascii_case(name))?;
    let same_channels = channels.unwrap_or(1) == channels_of(codec).unwrap_or(1);
    (kind_of(codec) == kind && clock_rate_of(codec) == clock_rate && same_channels).then_some(codec)
}

/// The codec of a payload type that needs no `a=rtpmap` (RFC 3551 §6).
pub(super) fn static_codec(payload_type: PayloadType) -> Option<Codec> {
    match payload_type.0 {
        0 => Some(Codec::Pcmu),
        8 => Some(Codec::Pcma),
        9 => Some(Codec::G722),
        _ => None,
    }
}

/// What `a=rtpmap` calls a codec.
pub(super) const fn encoding_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "opus",
        Codec::Vp8 => "VP8",
        Codec::Vp9 => "VP9",
        Codec::H264 => "H264",
        Codec::H265 => "H265",
        Codec::Av1 => "AV1",
        Codec::Pcmu => "PCMU",
        Codec::Pcma => "PCMA",
        Codec::G722 => "G722",
    }
}

/// RTP clock, Hz. RFC 3551 §4.5.2: G.722 says 8000 though it samples at 16 kHz.
pub(super) const fn clock_rate_of(codec: Codec) -> u32 {
    match codec {
        Codec::Opus => 48_000,
        Codec::Pcmu | Codec::Pcma | Codec::G722 => 8_000,
        _ => 90_000,
    }
}

/// Channels that `a=rtpmap` must name. RFC 7587 §7: always two for Opus.
pub(super) const fn channels_of(codec: Codec) -> Option<u8> {
    match codec {
        Codec::Opus => Some(2),
        _ => None,
    }
}

/// Audio or video.
pub(super) const fn kind_of(codec: Codec) -> Kind {
    match codec {
        Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::G722 => Kind::Audio,
        _ => Kind::Video,
    }
}

/// Parameters that are kept, in the order in which they are written.
const fn parameters_of(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::Opus => &[
            "minptime",
            "useinbandfec",
            "usedtx",
            "cbr",
            "maxplaybackrate",
            "maxaveragebitrate",
            "stereo",
            "sprop-stereo",
        ],
        Codec::Vp9 => &["profile-id"],
        Codec::H264 => &["level-asymmetry-allowed", "packetization-mode", "profile-level-id"],
        Codec::H265 => &["level-id", "profile-id", "tier-flag", "tx-mode"],
        Codec::Av1 => &["level-idx", "profile", "tier"],
        Codec::Vp8 | Codec::Pcmu | Codec::Pcma | Codec::G722 => &[],
    }
}

fn push_parameter(fmtp: &mut String, name: &str, value: &str) {
    if !fmtp.is_empty() {
        fmtp.push(';');
    }
    fmtp.push_str(name);
    fmtp.push('=');
    fmtp.push_str(value);
}

/// `level_idc` of H.264 levels 1 to 5.2 (RFC 6184 §8.1).
const H264_LEVELS: [u8; 16] = [10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52];

/// `general_level_idc` of H.265 levels 1 to 6.2.
const H265_LEVELS: [u8; 13] = [30, 60, 63, 90, 93, 120, 123, 150, 153, 156, 180, 183, 186];

const CODECS: [Codec; 9] =
    [Codec::Opus, Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1];
