//! Names and secrets drawn from the caller's source of random bytes, which in service is cryptographically secure.

use ringmain_shared::media::Ssrc;
use ringmain_shared::transport::IceCredentials;

/// Fills a buffer with random bytes.
pub type RngSource = Box<dyn FnMut(&mut [u8]) + Send>;

/// Random bytes in the shapes that sessions need.
pub(super) struct Chance(RngSource);

impl Chance {
    pub(super) fn new(source: RngSource) -> Self {
        Self(source)
    }

    /// A user fragment of 72 random bits and a password of 192 (RFC 8445 §5.3 asks for 24 and 128).
    pub(super) fn ice(&mut self) -> IceCredentials {
        IceCredentials { ufrag: self.text(12), pwd: self.text(32) }
    }

    /// The `sess-id` of a description: 62 bits, so that every parser's signed integer holds it (RFC 8829 §5.2.1).
    pub(super) fn session_id(&mut self) -> u64 {
        let mut bytes = [0; 8];
        (self.0)(&mut bytes);
        u64::from_be_bytes(bytes) >> 2
    }

    /// An SSRC that is not zero, which some stacks take for "none".
    pub(super) fn ssrc(&mut self) -> Ssrc {
        let mut bytes = [0; 4];
        (self.0)(&mut bytes);
        Ssrc(u32::from_be_bytes(bytes).max(1))
    }

    /// Random ice-chars (RFC 8839 §5.4), 6 bits each.
    pub(super) fn text(&mut self, size: usize) -> String {
        const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        self.drawn_from(ICE_CHARS, size)
    }

    /// Random lower-case letters and digits, 5 bits each: fit for any name.
    pub(super) fn name(&mut self, size: usize) -> String {
        self.drawn_from(b"abcdefghijkmnpqrstuvwxyz23456789", size)
    }

    /// The alphabet's size divides 256, so that no letter is drawn more often than another.
    fn drawn_from<const N: usize>(&mut self, alphabet: &[u8; N], size: usize) -> String {
        const { assert!(256 % N == 0) }
        let mut bytes = vec![0; size];
        (self.0)(&mut bytes);
        bytes.iter().map(|&byte| char::from(alphabet[usize::from(byte) % N])).collect()
    }
}
