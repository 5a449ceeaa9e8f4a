//! Source descriptions (RFC 3550 §6.5), of which only the CNAME is used, and BYE (§6.6).

use ringmain_shared::media::Ssrc;

use crate::packet::bytes::{Writer, u8_at, u32_at};

/// Names of sources.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    chunks: &'a [u8],
    count: u8,
}

impl<'a> Description<'a> {
    pub(super) fn read(body: &'a [u8], count: u8) -> Option<Self> {
        let description = Self { chunks: body, count };
        (description.chunks().count() == usize::from(count)).then_some(description)
    }

    /// Each source with its CNAME, if it says one that is text. At most 31.
    pub fn chunks(&self) -> impl Iterator<Item = (Ssrc, Option<&'a str>)> + use<'a> {
        Chunks { rest: self.chunks }.take(usize::from(self.count))
    }
}

struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (Ssrc, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let ssrc = Ssrc(u32_at(self.rest, 0)?);
        let mut cname = None;
        let mut at = 4;
        loop {
            let kind = u8_at(self.rest, at)?;
            if kind == ITEM_END {
                // RFC 3550 §6.5: the end is one to four zeros, so that the next chunk is aligned.
                self.rest = self.rest.get((at + 1).next_multiple_of(4)..)?;
                return Some((ssrc, cname));
            }
            let value = self.rest.get(at + 2..at + 2 + usize::from(u8_at(self.rest, at + 1)?))?;
            if kind == ITEM_CNAME && cname.is_none() {
                cname = std::str::from_utf8(value).ok();
            }
            at += 2 + value.len();
        }
    }
}

/// Appends one chunk with a CNAME, cut at 255 bytes.
pub(super) fn write_chunk(out: &mut Writer<'_>, ssrc: Ssrc, cname: &str) {
    let cname = cname.get(..cname.floor_char_boundary(255)).unwrap_or_default();
    out.put_u32(ssrc.0);
    out.put(&[ITEM_CNAME, cname.len() as u8]);
    out.put(cname.as_bytes());
    out.put_u8(ITEM_END);
    out.align();
}

/// Sources that end.
#[derive(Clone, Debug)]
pub struct Bye<'a> {
    ssrcs: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(super) fn read(body: &'a [u8], count: u8) -> Option<Self> {
        Some(Self { ssrcs: body.get(..4 * usize::from(count))? })
    }

    /// At most 31.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        self.ssrcs.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)).map(Ssrc)
    }
}

const ITEM_END: u8 = 0;
const ITEM_CNAME: u8 = 1;
