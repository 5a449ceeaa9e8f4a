//! Which simulcast layers of a track carry media. Owns the time of each layer's last packet.
//! A layer lives from its first packet on and is dead after [`SILENCE_MAX`] without one. Senders stop layers without a word
//! when bandwidth is short, so silence is all there is to go by; while the other layers go on, less of it is enough
//! ([`OUTRUN_SILENCE`]), since subscribers of the silent one look at a picture that stands still.

use std::time::Duration;

use ringmain_shared::Now;
use ringmain_shared::limits::LAYERS_MAX;
use ringmain_shared::media::SpatialLayer;

/// Silence after which a layer is dead: above the pause between two frames of a slow screen share.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Silence after which a layer is dead if meanwhile [`OUTRUN_PACKETS`] of other layers came: all layers show the same frames.
pub const OUTRUN_SILENCE: Duration = Duration::from_millis(600);

/// Packets of other layers that make a silence tell: ten frames of the smallest one.
pub const OUTRUN_PACKETS: u32 = 10;

/// The life of each layer of one track.
#[derive(Clone, Debug, Default)]
pub struct LayerActivity {
    last: [Option<Now>; LAYERS_MAX],
    /// Packets of other layers since this one's last.
    outrun: [u32; LAYERS_MAX],
}

impl LayerActivity {
    /// All layers are dead.
    pub fn new() -> Self {
        Self::default()
    }

    /// A media packet of `layer` came. `Some`: the bit mask of live layers changed to this. No such layer, no effect.
    pub fn handle_packet(&mut self, layer: SpatialLayer, now: Now) -> Option<u8> {
        let last = self.last.get_mut(usize::from(layer))?;
        let risen = last.replace(now).is_none();
        for (other, outrun) in self.outrun.iter_mut().enumerate() {
            *outrun = if other == usize::from(layer) { 0 } else { outrun.saturating_add(1) };
        }
        risen.then(|| self.mask())
    }

    /// Buries silent layers. `Some`: the bit mask of live layers changed to this. To be called after the packets of a turn,
    /// or a pause of ours would count as silence of the publisher.
    pub fn poll(&mut self, now: Now) -> Option<u8> {
        let before = self.mask();
        for (last, &outrun) in self.last.iter_mut().zip(&self.outrun) {
            let silence_max = if outrun >= OUTRUN_PACKETS { OUTRUN_SILENCE } else { SILENCE_MAX };
            last.take_if(|last| *last + silence_max <= now);
        }
        Some(self.mask()).filter(|&mask| mask != before)
    }

    /// The publisher said that a layer is over. `Some`: the bit mask of live layers changed to this.
    pub fn end(&mut self, layer: SpatialLayer) -> Option<u8> {
        self.last.get_mut(usize::from(layer))?.take()?;
        Some(self.mask())
    }

    /// Bit n: layer n is alive.
    pub fn mask(&self) -> u8 {
        (0..LAYERS_MAX).filter(|&layer| self.last[layer].is_some()).fold(0, |mask, layer| mask | 1 << layer)
    }

    /// When a layer would die next, if nothing came any more.
    pub fn next_deadline(&self) -> Option<Now> {
        self.last.iter().flatten().min().map(|&last| last + SILENCE_MAX)
    }
}

const _: () = assert!(LAYERS_MAX <= 8, "the mask is a u8");

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Now {
        Now::from_millis(millis)
    }

    #[test]
    fn a_layer_rises_with_its_first_packet_and_is_told_once() {
        let mut layers = LayerActivity::new();
        assert_eq!(layers.handle_packet(1, at(0)), Some(0b010));
        assert_eq!(layers.handle_packet(1, at(1)), None);
        assert_eq!(layers.handle_packet(0, at(2)), Some(0b011));
        assert_eq!(layers.poll(at(2)), None);
    }

    #[test]
    fn a_silent_layer_dies_and_rises_again_at_once() {
        let mut layers = LayerActivity::new();
        layers.handle_packet(0, at(0));
        layers.handle_packet(2, at(0));
        layers.handle_packet(0, at(1_500));
        assert_eq!(layers.next_deadline(), Some(at(2_000)));
        assert_eq!(layers.poll(at(1_999)), None);
        assert_eq!(layers.poll(at(2_000)), Some(0b001));
        assert_eq!(layers.poll(at(2_001)), None);
        assert_eq!(layers.handle_packet(2, at(2_002)), Some(0b101));
        assert_eq!(layers.poll(at(9_000)), Some(0));
        assert_eq!(layers.next_deadline(), None);
    }

    #[test]
    fn a_layer_that_the_others_leave_behind_dies_sooner() {
        let mut layers = LayerActivity::new();
        layers.handle_packet(2, at(0));
        for frame in 0..=18u64 {
            layers.handle_packet(0, at(frame * 33));
            assert_eq!(layers.poll(at(frame * 33)), None, "frame {frame}");
        }
        layers.handle_packet(0, at(627));
        assert_eq!(layers.poll(at(627)), Some(0b001));
    }

    #[test]
    fn a_layer_that_does_not_exist_changes_nothing() {
        let mut layers = LayerActivity::new();
        for layer in LAYERS_MAX as u8..=u8::MAX {
            assert_eq!(layers.handle_packet(layer, at(0)), None);
        }
        assert_eq!(layers.mask(), 0);
    }
}
