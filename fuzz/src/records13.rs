//! One direction of one epoch of DTLS 1.3 (RFC 9147 §4), from the RFC alone: what our own is held against. Seals whatever it is told to, in
//! every layout of the header. Knows the numbers of its records from whoever uses it, and keeps none.

use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey, quic};
use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384};
use ringmain_dataplane::handshake::records::Suite;

/// The keys of one epoch.
pub(crate) struct Keys {
    suite: Suite,
    pub(crate) number: u64,
    secret: Vec<u8>,
    cipher: LessSafeKey,
    iv: Vec<u8>,
    mask: quic::HeaderProtectionKey,
}

impl Keys {
    /// Epoch `number`, from its traffic secret.
    pub(crate) fn new(suite: Suite, number: u64, secret: &[u8]) -> Self {
        let (cipher, mask, key_size, secret_size): (&aead::Algorithm, _, _, _) = match suite {
            Suite::Aes128Gcm => (&AES_128_GCM, &quic::AES_128, 16, 32),
            Suite::Aes256Gcm => (&AES_256_GCM, &quic::AES_256, 32, 48),
            Suite::ChaCha20Poly1305 => (&CHACHA20_POLY1305, &quic::CHACHA20, 32, 32),
        };
        let secret = secret[..secret_size].to_vec();
        let key = UnboundKey::new(cipher, &expand(suite, &secret, "key", key_size)).expect("its size");
        let mask = quic::HeaderProtectionKey::new(mask, &expand(suite, &secret, "sn", key_size)).expect("its size");
        let iv = expand(suite, &secret, "iv", 12);
        Self { suite, number, cipher: LessSafeKey::new(key), iv, mask, secret }
    }

    /// The epoch after this one (RFC 8446 §7.2).
    pub(crate) fn following(&self) -> Self {
        Self::new(self.suite, self.number + 1, &expand(self.suite, &self.secret, "traffic upd", self.secret.len()))
    }

    /// A record of `inner`, with the flags for a long number and a length as `flags` has them.
    pub(crate) fn seal(&self, flags: u8, sequence: u64, inner: &[u8]) -> Vec<u8> {
        let mut record = vec![0x20 | flags & (LONG | LENGTH) | (self.number & 3) as u8];
        let sequence_size = 1 + usize::from(flags & LONG != 0);
        record.extend(&sequence.to_be_bytes()[8 - sequence_size..]);
        if flags & LENGTH != 0 {
            record.extend(((inner.len() + TAG_SIZE) as u16).to_be_bytes());
        }
        let mut sealed = inner.to_vec();
        let nonce = self.nonce(sequence);
        self.cipher.seal_in_place_append_tag(nonce, Aad::from(&record), &mut sealed).expect("it is short");
        let mask = self.mask.new_mask(&sealed[..TAG_SIZE]).expect("a sample");
        record[1..].iter_mut().zip(mask).take(sequence_size).for_each(|(byte, mask)| *byte ^= mask);
        record.extend(sealed);
        record
    }

    /// The inner plaintext of the record with this number, as whoever made it wrote it: number of two bytes, length, no padding.
    pub(crate) fn open(&self, sequence: u64, record: &[u8]) -> Option<Vec<u8>> {
        let (header, sealed) = record.split_first_chunk::<5>()?;
        let mut header = *header;
        let mask = self.mask.new_mask(sealed.get(..TAG_SIZE)?).ok()?;
        header[1..3].iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        let [_, high, low, size @ ..] = header;
        let told = (header[0], u64::from(u16::from_be_bytes([high, low])), usize::from(u16::from_be_bytes(size)));
        if told != (0x20 | LONG | LENGTH | (self.number & 3) as u8, sequence & 0xffff, sealed.len()) {
            return None;
        }
        let mut inner = sealed.to_vec();
        let size = self.cipher.open_in_place(self.nonce(sequence), Aad::from(header), &mut inner).ok()?.len();
        inner.truncate(size);
        Some(inner)
    }

    /// RFC 8446 §5.3.
    fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce: [u8; 12] = std::array::from_fn(|at| self.iv[at]);
        nonce[4..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// HKDF-Expand-Label (RFC 8446 §7.1, RFC 5869 §2.3), whose first block is all that is ever needed; the prefix is RFC 9147 §5.9's.
fn expand(suite: Suite, secret: &[u8], label: &str, size: usize) -> Vec<u8> {
    let hash = if suite == Suite::Aes256Gcm { HMAC_SHA384 } else { HMAC_SHA256 };
    let name = [b"dtls13", label.as_bytes()].concat();
    let info = [&[0, size as u8, name.len() as u8], &name[..], &[0, 1]].concat();
    hmac::sign(&hmac::Key::new(hash, secret), &info).as_ref()[..size].to_vec()
}

/// Flags of the header: `S` and `L`.
pub(crate) const LONG: u8 = 8;
pub(crate) const LENGTH: u8 = 4;
pub(crate) const TAG_SIZE: usize = 16;
