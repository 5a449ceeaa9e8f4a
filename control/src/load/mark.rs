//! What every media packet carries at its end, so that whoever decrypts it can tell what it is, whether all of it arrived as
//! it was sent, and how long it took. Nothing is assumed of the codec descriptor in front, which servers rewrite.
//!
//! 28 bytes, network order: magic (4), source (4), number (8), time of sending (8), CRC-32 of everything before (4).

use ringmain_shared::Now;

/// Bytes of a mark.
pub(super) const MARK_SIZE: usize = 28;

/// The end of a media packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// Which track, unique in this run.
    pub(super) source: u32,
    /// How many packets the track had sent before.
    pub(super) number: u64,
    /// By the clock of this run.
    pub(super) sent: Now,
}

/// A packet that is not as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spoilt;

impl Mark {
    /// Writes the mark over the last bytes of `body`, what follows the codec's descriptor. Shorter bodies get none.
    pub(super) fn write(self, body: &mut [u8]) {
        let Some((rest, mark)) = body.split_last_chunk_mut::<MARK_SIZE>() else { return };
        mark[..4].copy_from_slice(MAGIC);
        mark[4..8].copy_from_slice(&self.source.to_be_bytes());
        mark[8..16].copy_from_slice(&self.number.to_be_bytes());
        mark[16..24].copy_from_slice(&self.sent.0.to_be_bytes());
        let crc = checksum(rest, &mark[..24]);
        mark[24..].copy_from_slice(&crc.to_be_bytes());
    }

    /// The mark of a body that arrived whole.
    pub(super) fn read(body: &[u8]) -> Result<Self, Spoilt> {
        let (rest, mark) = body.split_last_chunk::<MARK_SIZE>().ok_or(Spoilt)?;
        let number = |from: usize, to: usize| mark[from..to].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        if &mark[..4] != MAGIC || number(24, 28) != u64::from(checksum(rest, &mark[..24])) {
            return Err(Spoilt);
        }
        Ok(Self { source: number(4, 8) as u32, number: number(8, 16), sent: Now(number(16, 24)) })
    }
}

fn checksum(rest: &[u8], mark: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(rest);
    hasher.update(mark);
    hasher.finalize()
}

const MAGIC: &[u8; 4] = b"RmL1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_written_and_no_changed_bit_passes() {
        let mark = Mark { source: 7, number: 1 << 40, sent: Now(123_456_789_012) };
        let mut body = vec![0x55; 60];
        mark.write(&mut body);
        assert_eq!(Mark::read(&body), Ok(mark));
        for bit in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::read(&changed), Err(Spoilt), "bit {bit}");
        }
        (0..body.len()).for_each(|size| assert_eq!(Mark::read(&body[..size]), Err(Spoilt)));
    }
}
