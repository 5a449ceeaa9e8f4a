//! The dependency descriptor, a header extension that tells layers whatever the codec (AV1 RTP payload format, appendix A).
//! A keyframe carries a [`Structure`]; descriptors after it point into that by template id. Whoever follows a stream keeps the
//! last structure; here is nothing kept.

use arrayvec::ArrayVec;

use super::bits::Bits;
use crate::packet::bytes::u16_at;

/// The mandatory fields, and what else is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DependencyDescriptor {
    /// The first packet of a frame.
    pub start_of_frame: bool,
    /// The last packet of a frame.
    pub end_of_frame: bool,
    /// Points into the structure.
    pub template_id: u8,
    /// Counts frames.
    pub frame_number: u16,
    /// A structure comes with it, as it does with keyframes; read it with [`Structure::parse`].
    pub has_structure: bool,
    has_active_targets: bool,
}

impl DependencyDescriptor {
    /// Reads an extension's value; `None` when it is cut.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let first = *value.first()?;
        let flags = value.get(MANDATORY_LEN).copied().unwrap_or(0);
        Some(Self {
            start_of_frame: first & 0x80 != 0,
            end_of_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number: u16_at(value, 1)?,
            has_structure: flags & 0x80 != 0,
            has_active_targets: flags & 0x40 != 0,
        })
    }

    /// The first packet of a keyframe.
    pub fn keyframe(&self) -> bool {
        self.has_structure && self.start_of_frame
    }

    /// Which decode targets are sent from here on, one bit each, the lowest for target 0. `None` when this descriptor, which
    /// was read from `value`, does not say.
    pub fn active_targets(&self, value: &[u8], structure: &Structure) -> Option<u32> {
        if self.has_structure {
            return Some(structure.active_targets);
        }
        let mut bits = Bits::new(value, FLAGS_END);
        self.has_active_targets.then(|| bits.take(structure.targets.len()))?
    }
}

/// What the frames of a stream depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Structure {
    /// The id of the first template.
    pub template_id_offset: u8,
    /// At most 64.
    pub templates: ArrayVec<Template, TEMPLATES_MAX>,
    /// Of each decode target the highest spatial and temporal layer; at most 32.
    pub targets: ArrayVec<(u8, u8), TARGETS_MAX>,
    /// Width and height of each spatial layer, if told.
    pub resolutions: ArrayVec<(u32, u32), SPATIAL_MAX>,
    /// Decode targets that are sent, one bit each.
    pub active_targets: u32,
}

/// What frames with one template id have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Template {
    /// 0–3.
    pub spatial: u8,
    /// 0–7.
    pub temporal: u8,
    /// Two bits for each decode target, the lowest for target 0.
    indications: u64,
}

impl Template {
    /// Whether a decode target uses these frames at all.
    pub fn is_for_target(&self, target: usize) -> bool {
        target < TARGETS_MAX && self.indications >> (2 * target) & 3 != 0
    }
}

impl Structure {
    /// Reads the structure in an extension's value; `None` when there is none, or it is cut or out of bounds.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let descriptor = DependencyDescriptor::parse(value).filter(|descriptor| descriptor.has_structure)?;
        let mut bits = Bits::new(value, FLAGS_END);
        let mut structure = Self {
            template_id_offset: bits.take(6)? as u8,
            templates: ArrayVec::new(),
            targets: ArrayVec::new(),
            resolutions: ArrayVec::new(),
            active_targets: 0,
        };
        let target_count = bits.take(5)? as usize + 1;
        structure.read_layers(&mut bits)?;
        structure.read_indications(&mut bits, target_count)?;
        structure.skip_frame_differences(&mut bits)?;
        structure.skip_chains(&mut bits, target_count)?;
        structure.find_target_layers(target_count)?;
        if bits.flag()? {
            structure.read_resolutions(&mut bits)?;
        }
        structure.active_targets = match descriptor.has_active_targets {
            true => bits.take(target_count)?,
            false => u32::MAX >> (TARGETS_MAX - target_count),
        };
        Some(structure)
    }

    /// The template that a descriptor points to, if the structure is the one that was meant.
    pub fn template(&self, descriptor: &DependencyDescriptor) -> Option<&Template> {
        let index = descriptor.template_id.wrapping_sub(self.template_id_offset) % TEMPLATES_MAX as u8;
        self.templates.get(usize::from(index))
    }

    /// `template_layers()`: each template says whether the next one is of the same, the next temporal or the next spatial layer.
    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            self.templates.try_push(Template { spatial, temporal, indications: 0 }).ok()?;
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Some(()),
            }
            if usize::from(spatial) >= SPATIAL_MAX || temporal >= TEMPORAL_MAX {
                return None;
            }
        }
    }

    /// `template_dtis()`.
    fn read_indications(&mut self, bits: &mut Bits<'_>, target_count: usize) -> Option<()> {
        for template in &mut self.templates {
            for target in 0..target_count {
                template.indications |= u64::from(bits.take(2)?) << (2 * target);
            }
        }
        Some(())
    }

    /// `template_fdiffs()`.
    fn skip_frame_differences(&self, bits: &mut Bits<'_>) -> Option<()> {
        for _ in &self.templates {
            while bits.flag()? {
                bits.take(4)?;
            }
        }
        Some(())
    }

    /// `template_chains()`.
    fn skip_chains(&self, bits: &mut Bits<'_>, target_count: usize) -> Option<()> {
        let chain_count = bits.below(target_count as u32 + 1)?;
        if chain_count == 0 {
            return Some(());
        }
        for _ in 0..target_count {
            bits.below(chain_count)?;
        }
        for _ in 0..self.templates.len() * chain_count as usize {
            bits.take(4)?;
        }
        Some(())
    }

    /// `decode_target_layers()`.
    fn find_target_layers(&mut self, target_count: usize) -> Option<()> {
        for target in 0..target_count {
            let used = self.templates.iter().filter(|template| template.is_for_target(target));
            let (spatial, temporal) =
                used.fold((0, 0), |(spatial, temporal), this| (this.spatial.max(spatial), this.temporal.max(temporal)));
            self.targets.try_push((spatial, temporal)).ok()?;
        }
        Some(())
    }

    /// `render_resolutions()`.
    fn read_resolutions(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let spatial_max = self.templates.last()?.spatial;
        for _ in 0..=spatial_max {
            self.resolutions.try_push((bits.take(16)? + 1, bits.take(16)? + 1)).ok()?;
        }
        Some(())
    }
}

/// Template ids have six bits.
const TEMPLATES_MAX: usize = 64;
/// Their count has five bits.
const TARGETS_MAX: usize = 32;
const SPATIAL_MAX: usize = 4;
const TEMPORAL_MAX: u8 = 8;
const MANDATORY_LEN: usize = 3;
/// Bits before the structure: mandatory fields and five flags.
const FLAGS_END: usize = 8 * MANDATORY_LEN + 5;
