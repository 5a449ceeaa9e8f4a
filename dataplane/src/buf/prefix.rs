//! What TURN puts around a datagram on its way to a client (RFC 8656 §11.7): a header in front, and padding behind. Written by the
//! transmit batch around what somebody else writes in place, who need not know that the way leads through TURN.

use std::net::{IpAddr, SocketAddr};

use crate::io::Path;
use crate::packet::stun::{self, TransactionId};

/// Bytes of the longest prefix: a Data indication of a peer with an IPv6 address.
pub const PREFIX_SIZE_MAX: usize = 48;
/// What a prefix and the padding behind the data take at most.
pub(super) const OVERHEAD_MAX: usize = PREFIX_SIZE_MAX + 3;

/// A header for one client and one peer, with room for lengths.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    path: Path,
    bytes: [u8; PREFIX_SIZE_MAX],
    len: u8,
}

impl Prefix {
    /// ChannelData (RFC 8656 §12.4), without the padding that streams have.
    pub fn channel(path: Path, number: u16) -> Self {
        let mut bytes = [0; PREFIX_SIZE_MAX];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Self { path, bytes, len: CHANNEL_LEN as u8 }
    }

    /// A Data indication (RFC 8656 §11.6), DATA being its last attribute.
    pub fn indication(path: Path, peer: SocketAddr, transaction_id: TransactionId) -> Self {
        let mut bytes = [0; PREFIX_SIZE_MAX];
        let mut message =
            stun::MessageWriter::new(&mut bytes, stun::Class::Indication, stun::method::DATA, transaction_id);
        message.xor_address(stun::attribute::XOR_PEER_ADDRESS, peer);
        message.attribute(stun::attribute::DATA, &[]);
        let len = if matches!(peer.ip().to_canonical(), IpAddr::V4(_)) { 36 } else { 48 };
        debug_assert_eq!(message.finish_bare(), Some(len));
        Self { path, bytes, len: len as u8 }
    }

    /// To the client.
    pub fn path(&self) -> Path {
        self.path
    }

    /// The same by another path.
    pub(crate) fn by(self, path: Path) -> Self {
        Self { path, ..self }
    }

    /// Bytes before the data.
    pub fn size(&self) -> usize {
        usize::from(self.len)
    }

    /// Bytes of a whole datagram with so much data.
    pub fn wrapped(&self, data: usize) -> usize {
        self.size() + if self.size() > CHANNEL_LEN { data.next_multiple_of(4) } else { data }
    }

    /// Writes what is around `data` bytes at their place. `datagram` is as long as `wrapped` says.
    #[inline]
    pub fn write(&self, datagram: &mut [u8], data: usize) {
        let len = self.size();
        let (Some(front), Some(bytes)) = (datagram.get_mut(..len), self.bytes.get(..len)) else { return };
        front.copy_from_slice(bytes);
        // Both kinds end with the length of the data; a message has its own besides.
        if let Some(room) = front.last_chunk_mut() {
            *room = (data as u16).to_be_bytes();
        }
        if len > CHANNEL_LEN
            && let Some(room) = front.get_mut(2..4)
        {
            room.copy_from_slice(&((len - stun::HEADER_LEN + data.next_multiple_of(4)) as u16).to_be_bytes());
        }
        if let Some(padding) = datagram.get_mut(len + data..) {
            padding.fill(0);
        }
    }
}

const CHANNEL_LEN: usize = 4;
