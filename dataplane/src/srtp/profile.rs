//! Protection profiles of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2): which algorithms, and how long everything is.

/// How a transport's media is protected. Lengths are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM` (RFC 7714).
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM` (RFC 7714).
    AeadAes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80` (RFC 5764): the one that every WebRTC endpoint has (RFC 8827 §6.5).
    Aes128CmHmacSha1_80,
}

impl Profile {
    /// Every profile, the preferred one first: AES-GCM costs a sixth (video) to a third (audio) of AES-CM with HMAC-SHA1.
    pub const ALL: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmHmacSha1_80];
    /// The largest [`rtp_overhead`](Self::rtp_overhead): room to leave behind any RTP packet.
    pub const RTP_OVERHEAD_MAX: usize = 16;
    /// The largest [`rtcp_overhead`](Self::rtcp_overhead): room to leave behind any RTCP packet.
    pub const RTCP_OVERHEAD_MAX: usize = 16 + INDEX_LEN;

    /// Its value in the `use_srtp` extension (RFC 5764 §4.1.2).
    pub const fn id(self) -> u16 {
        match self {
            Profile::Aes128CmHmacSha1_80 => 0x0001,
            Profile::AeadAes128Gcm => 0x0007,
            Profile::AeadAes256Gcm => 0x0008,
        }
    }

    /// The profile with this value in the `use_srtp` extension, if it is one of ours.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.id() == id)
    }

    /// The master key, and the session encryption key.
    pub const fn key_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::Aes128CmHmacSha1_80 => 16,
            Profile::AeadAes256Gcm => 32,
        }
    }

    /// The master salt, and the session salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
            Profile::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// The authentication tag.
    pub const fn tag_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 16,
            Profile::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// What protection adds to an RTP packet.
    pub const fn rtp_overhead(self) -> usize {
        self.tag_len()
    }

    /// What protection adds to an RTCP packet: the tag, and the word of the E bit and the index.
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + INDEX_LEN
    }

    /// What to export from DTLS for both directions (RFC 5764 §4.2).
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// The E bit and the 31-bit index of SRTCP (RFC 3711 §3.4).
pub(super) const INDEX_LEN: usize = 4;
