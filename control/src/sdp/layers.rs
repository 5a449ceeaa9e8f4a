//! Simulcast: which layers a track has, and which of them is the better one.
//! By rid (RFC 8853) as browsers do it, or by `a=ssrc-group:SIM` as munged descriptions do.

use std::collections::HashSet;

use ringmain_shared::limits::LAYERS_MAX;
use ringmain_shared::media::{Rid, RidLayer, SpatialLayer, Ssrc, SsrcLayer};

use super::section::{Section, SsrcGroup};

/// An `a=rid:<id> send [<restrictions>]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RidLine {
    pub rid: Rid,
    /// As written; fit to be sent back (RFC 8851 §6.3 has them repeated).
    pub restrictions: Option<String>,
}

impl RidLine {
    /// Reads one; `None` for what does not send or cannot be a header extension.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let rid = rid(fields.next()?)?;
        if fields.next()? != "send" {
            return None;
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-=;,.".contains(&byte);
        let restrictions = fields.next().filter(|text| text.bytes().all(plain)).map(str::to_owned);
        Some(Self { rid, restrictions })
    }
}

/// The layers of an m-section by rid, in the order of its `a=simulcast`; empty where there are none.
///
/// Names that say their rank are ranked by it: `q`, `h`, `f` (ion), `low`, `medium`, `high`, `lo`, `mid`, `hi`, `l`, `m`, `h`,
/// and numbers. Others rank as they are listed, the first lowest, which is how browsers scale encodings
/// whose `scaleResolutionDownBy` is not set (WebRTC §5.2, `addTransceiver`).
pub(super) fn rid_layers(section: &Section) -> Vec<RidLayer> {
    let known: HashSet<Rid> = section.rids.iter().map(|line| line.rid).collect();
    let listed: Vec<Rid> = match &section.simulcast {
        // RFC 8853 §5.1: layers by `;`, alternatives of one layer by `,`, `~` begins paused.
        Some(list) => {
            let first = |layer: &str| rid(layer.split(',').next().unwrap_or_default().trim_start_matches('~'));
            list.split(';').filter_map(first).collect()
        }
        None => section.rids.iter().map(|line| line.rid).collect(),
    };
    let mut once = HashSet::new();
    let listed = listed.into_iter().filter(|rid| known.contains(rid) && once.insert(*rid));
    let listed: Vec<Rid> = listed.take(LAYERS_MAX).collect();
    let rank = ranks(&listed);
    listed.iter().zip(rank).map(|(&rid, spatial)| RidLayer { rid, spatial }).collect()
}

/// The layers of an m-section by announced SSRC. Without a SIM group there is one: its first media SSRC.
pub(super) fn ssrc_layers(section: &Section) -> Vec<SsrcLayer> {
    let groups = |semantics: &'static str| section.ssrc_groups.iter().filter(move |group| group.semantics == semantics);
    // RFC 5576 §4.2 FID and RFC 5956 FEC-FR: the first is the media, the second repeats or protects it.
    let pairs = |semantics| groups(semantics).filter_map(SsrcGroup::pair);
    let secondary: HashSet<Ssrc> = pairs("FID").chain(pairs("FEC-FR")).map(|(_, second)| second).collect();
    let primaries = match groups("SIM").next() {
        Some(group) => group.ssrcs.clone(),
        None => section.ssrcs.iter().filter(|ssrc| !secondary.contains(ssrc)).take(1).copied().collect(),
    };
    let mut once = HashSet::new();
    let primaries = primaries.into_iter().filter(|&ssrc| !secondary.contains(&ssrc) && once.insert(ssrc));
    primaries
        .take(LAYERS_MAX)
        .zip(0..)
        .map(|(ssrc, spatial)| SsrcLayer {
            ssrc,
            rtx: pairs("FID").find(|pair| pair.0 == ssrc).map(|pair| pair.1),
            spatial,
        })
        .collect()
}

impl SsrcGroup {
    fn pair(&self) -> Option<(Ssrc, Ssrc)> {
        match self.ssrcs[..] {
            [first, second] if first != second => Some((first, second)),
            _ => None,
        }
    }
}

fn ranks(listed: &[Rid]) -> Vec<SpatialLayer> {
    for names in NAMES {
        let ranks: Option<Vec<SpatialLayer>> = listed
            .iter()
            .map(|rid| names.iter().position(|name| rid.as_str() == *name).map(|rank| rank as SpatialLayer))
            .collect();
        if let Some(ranks) = ranks {
            return ranks;
        }
    }
    let numbers: Option<Vec<u64>> = listed.iter().map(|rid| rid.parse().ok()).collect();
    match numbers {
        Some(numbers) => numbers
            .iter()
            .map(|number| numbers.iter().filter(|other| *other < number).count() as SpatialLayer)
            .collect(),
        None => (0..listed.len() as SpatialLayer).collect(),
    }
}

/// RFC 8852 §3.1: letters and digits; `-` and `_` by RFC 8851.
fn rid(text: &str) -> Option<Rid> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    (plain && !text.is_empty()).then(|| Rid::from(text).ok()).flatten()
}

/// Names that say their rank, lowest first.
const NAMES: [[&str; LAYERS_MAX]; 5] =
    [["q", "h", "f"], ["low", "medium", "high"], ["lo", "mid", "hi"], ["l", "m", "h"], ["0", "1", "2"]];
