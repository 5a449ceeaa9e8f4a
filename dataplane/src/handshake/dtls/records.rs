//! The records of a DTLS 1.2 association after its handshake (RFC 6347 §4.1), sealed by the AEAD suites of RFC 5288 and RFC 7905.
//!
//! What made the handshake keeps 54 KiB of buffers for as long as it lives; what comes after needs two keys, two counters and a
//! replay window. Knows nothing of handshakes: content types go in and come out. Its caller says what a record means.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, UnboundKey};
use aws_lc_rs::tls_prf::{self, P_SHA256, P_SHA384};
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::transport::DtlsRole;
use zeroize::Zeroizing;

use super::Datagram;

/// Both directions of one association.
pub struct Records {
    suite: Suite,
    read: Key,
    write: Key,
    /// What the next record is numbered; never used twice, as it makes the nonce.
    next: Numbers,
    window: Window,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({:?}, {:?}, …)", self.suite, self.next)
    }
}

/// What a record of ours was numbered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// 48 bits, in the header.
    pub sequence: u64,
    /// In front of the ciphertext, where the suite has it there. Whoever sealed the first records may count from anywhere.
    pub explicit: u64,
}

/// A record that was authentic.
#[derive(Debug)]
pub struct Opened {
    /// What it says that it is.
    pub content: u8,
    /// Where its plaintext is in the datagram.
    pub plaintext: Range<usize>,
    /// It was not seen before.
    pub is_new: bool,
}

/// The suites that are offered, by what they seal with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// RFC 5289.
    Aes128Gcm,
    /// RFC 5289, with SHA-384 to derive keys.
    Aes256Gcm,
    /// RFC 7905.
    ChaCha20Poly1305,
}

/// One direction's. The cipher is made of it for each record: records are few, associations many, and an expanded key is larger.
#[derive(Default)]
pub(super) struct Key {
    pub(super) secret: Zeroizing<[u8; KEY_SIZE_MAX]>,
    pub(super) iv: Zeroizing<[u8; NONCE_LEN]>,
}

/// Application data (RFC 6347 §4.1, RFC 5246 §6.2.1).
pub(super) const APPLICATION_DATA: u8 = 23;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
/// The only epoch that is ever protected here: there is no renegotiation.
pub(super) const EPOCH: u16 = 1;
/// Content type, version, epoch, sequence number, length.
pub(super) const HEADER_SIZE: usize = 13;

const VERSION: [u8; 2] = [0xfe, 0xfd];
const SEQUENCE_MAX: u64 = (1 << 48) - 1;
const EXPLICIT_SIZE: usize = 8;
pub(super) const TAG_SIZE: usize = 16;
pub(super) const KEY_SIZE_MAX: usize = 32;

impl Records {
    /// `role` is ours, `randoms` are the client's and the server's, `next` has not been used.
    pub fn new(suite: Suite, role: DtlsRole, master: &[u8], randoms: (&[u8], &[u8]), next: Numbers) -> Option<Self> {
        let (key_size, iv_size) = (suite.key_size(), suite.iv_size());
        let (client_random, server_random) = randoms;
        // RFC 5246 §6.3: the server's first, here alone.
        let block = tls_prf::Secret::new(suite.hash(), master).ok()?;
        let size = 2 * (key_size + iv_size);
        let block = block.derive_with_seed_concatination(b"key expansion", server_random, client_random, size).ok()?;
        let (keys, ivs) = block.as_ref().split_at_checked(2 * key_size)?;
        let ((client_key, server_key), (client_iv, server_iv)) =
            (keys.split_at_checked(key_size)?, ivs.split_at_checked(iv_size)?);
        let (client, server) = (Key::new(client_key, client_iv)?, Key::new(server_key, server_iv)?);
        let (read, write) = match role {
            DtlsRole::Client => (server, client),
            DtlsRole::Server => (client, server),
        };
        Some(Self { suite, read, write, next, window: Window::default() })
    }

    /// One record with `data`; `None` when it is too long for a datagram, or all numbers are used up.
    pub fn seal(&mut self, content: u8, data: &[u8]) -> Option<Datagram> {
        let Numbers { sequence, explicit } = self.next;
        let explicit_size = self.suite.explicit_size();
        let size = explicit_size + data.len() + TAG_SIZE;
        if sequence > SEQUENCE_MAX || HEADER_SIZE + size > DATAGRAM_SIZE_MAX {
            return None;
        }
        let number = u64::from(EPOCH) << 48 | sequence;
        let mut record = Datagram::new();
        record.push(content);
        record.extend(VERSION);
        record.extend(number.to_be_bytes());
        record.extend((size as u16).to_be_bytes());
        record.extend(explicit.to_be_bytes().into_iter().take(explicit_size));
        record.try_extend_from_slice(data).ok()?;
        // Whatever becomes of this one, its numbers are gone.
        self.next = Numbers { sequence: sequence + 1, explicit: explicit.wrapping_add(1) };
        let nonce = self.suite.nonce(&self.write, number, explicit);
        let associated = Aad::from(associated_data(number, content, data.len()));
        let payload = record.get_mut(HEADER_SIZE + explicit_size..)?;
        let tag = self.suite.cipher(&self.write)?.seal_in_place_separate_tag(nonce, associated, payload).ok()?;
        record.try_extend_from_slice(tag.as_ref()).ok()?;
        Some(record)
    }

    /// Opens the record at `at` in place. `None` when it is not authentic: such a record is passed over (RFC 6347 §4.1.2.7).
    pub fn open(&mut self, datagram: &mut [u8], at: Range<usize>) -> Option<Opened> {
        let (header, body) = datagram.get_mut(at.clone())?.split_first_chunk_mut::<HEADER_SIZE>()?;
        let [content, major, minor, number @ .., _, _] = *header;
        let number = u64::from_be_bytes(number);
        if [major, minor] != VERSION || number >> 48 != u64::from(EPOCH) {
            return None;
        }
        let (explicit, sealed) = body.split_at_mut_checked(self.suite.explicit_size())?;
        let explicit = explicit.try_into().map_or(0, u64::from_be_bytes);
        let size = sealed.len().checked_sub(TAG_SIZE)?;
        let nonce = self.suite.nonce(&self.read, number, explicit);
        let associated = Aad::from(associated_data(number, content, size));
        self.suite.cipher(&self.read)?.open_in_place(nonce, associated, sealed).ok()?;
        let start = at.start + HEADER_SIZE + self.suite.explicit_size();
        let is_new = self.window.take(number & SEQUENCE_MAX);
        Some(Opened { content, plaintext: start..start + size, is_new })
    }
}

/// Where the records of a datagram are, up to the first that is cut short.
pub fn split(datagram: &[u8]) -> impl Iterator<Item = Range<usize>> + use<> {
    let mut ranges = arrayvec::ArrayVec::<_, RECORDS_MAX>::new();
    let mut at = 0;
    while let Some(&[.., high, low]) = datagram.get(at..).and_then(|rest| rest.first_chunk::<HEADER_SIZE>()) {
        let end = at + HEADER_SIZE + usize::from(u16::from_be_bytes([high, low]));
        if end > datagram.len() || ranges.try_push(at..end).is_err() {
            break;
        }
        at = end;
    }
    ranges.into_iter()
}

/// Epoch of a record, and what it is numbered with if it is protected; the explicit part is meaningful where the suite has one.
pub fn numbers(record: &[u8]) -> Option<(u16, Numbers)> {
    let (header, body) = record.split_first_chunk::<HEADER_SIZE>()?;
    let [_, _, _, number @ .., _, _] = *header;
    let number = u64::from_be_bytes(number);
    let explicit = body.first_chunk().copied().map_or(0, u64::from_be_bytes);
    Some(((number >> 48) as u16, Numbers { sequence: number & SEQUENCE_MAX, explicit }))
}

impl Numbers {
    /// Those of the record after this one.
    pub(super) fn next(self) -> Self {
        Self { sequence: self.sequence + 1, explicit: self.explicit.wrapping_add(1) }
    }
}

impl Suite {
    /// By its number in the registry of TLS cipher suites.
    pub fn of(id: [u8; 2]) -> Option<Self> {
        match id {
            [0xc0, 0x2b | 0x2f] => Some(Self::Aes128Gcm),
            [0xc0, 0x2c | 0x30] => Some(Self::Aes256Gcm),
            [0xcc, 0xa8 | 0xa9] => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Bytes of a key.
    pub(super) fn key_size(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }

    /// RFC 5288 §3 has four bytes and sends the other eight; RFC 7905 §2 has all of them and sends none.
    fn iv_size(self) -> usize {
        NONCE_LEN - self.explicit_size()
    }

    fn explicit_size(self) -> usize {
        if self == Self::ChaCha20Poly1305 { 0 } else { EXPLICIT_SIZE }
    }

    fn hash(self) -> &'static tls_prf::Algorithm {
        if self == Self::Aes256Gcm { &P_SHA384 } else { &P_SHA256 }
    }

    /// Bytes of the hash that DTLS 1.3 derives keys by (RFC 8446 §B.4).
    pub(super) fn hash_size(self) -> usize {
        if self == Self::Aes256Gcm { 48 } else { 32 }
    }

    pub(super) fn cipher(self, key: &Key) -> Option<LessSafeKey> {
        let algorithm = match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, key.secret.get(..self.key_size())?).ok().map(LessSafeKey::new)
    }

    fn nonce(self, key: &Key, number: u64, explicit: u64) -> aead::Nonce {
        key.nonce(if self.explicit_size() == 0 { number } else { explicit })
    }
}

impl Key {
    fn new(secret: &[u8], iv: &[u8]) -> Option<Self> {
        let mut key = Self::default();
        key.secret.get_mut(..secret.len())?.copy_from_slice(secret);
        key.iv.get_mut(..iv.len())?.copy_from_slice(iv);
        Some(key)
    }

    /// Of the record with this number, the only one ever.
    pub(super) fn nonce(&self, number: u64) -> aead::Nonce {
        let mut nonce = *self.iv;
        nonce
            .iter_mut()
            .skip(NONCE_LEN - EXPLICIT_SIZE)
            .zip(number.to_be_bytes())
            .for_each(|(byte, tail)| *byte ^= tail);
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

/// Epoch and sequence number, content type, version, length of the plaintext (RFC 5246 §6.2.3.3).
fn associated_data(number: u64, content: u8, size: usize) -> [u8; HEADER_SIZE] {
    let mut data = [0; HEADER_SIZE];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data[8] = content;
    data[9..11].copy_from_slice(&VERSION);
    data[11..].copy_from_slice(&(size as u16).to_be_bytes());
    data
}

/// Which of the last 64 records were seen (RFC 6347 §4.1.2.6).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Window {
    /// One above the highest.
    end: u64,
    /// The lowest bit is the highest record's.
    seen: u64,
}

impl Window {
    /// One above the highest number that was seen.
    pub(super) fn end(self) -> u64 {
        self.end
    }

    /// Whether an authentic record is new; it is not from then on.
    pub(super) fn take(&mut self, sequence: u64) -> bool {
        if sequence >= self.end {
            let step = sequence + 1 - self.end;
            self.seen = u32::try_from(step).ok().and_then(|step| self.seen.checked_shl(step)).unwrap_or(0) | 1;
            self.end = sequence + 1;
            return true;
        }
        let Some(bit) = u32::try_from(self.end - 1 - sequence).ok().and_then(|age| 1u64.checked_shl(age)) else {
            return false;
        };
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

/// Records of one datagram.
const RECORDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(suite: Suite) -> (Records, Records) {
        let make = |role, sequence| {
            let next = Numbers { sequence, explicit: u64::MAX };
            Records::new(suite, role, &[7; 48], (&[1; 32], &[2; 32]), next).expect("keys")
        };
        (make(DtlsRole::Client, 0), make(DtlsRole::Server, 3))
    }

    fn open(records: &mut Records, datagram: &Datagram) -> Option<(u8, Vec<u8>, bool)> {
        let mut bytes = datagram.to_vec();
        let opened = records.open(&mut bytes, 0..datagram.len())?;
        Some((opened.content, bytes[opened.plaintext].to_vec(), opened.is_new))
    }

    #[test]
    fn what_one_end_seals_the_other_opens_once() {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (mut client, mut server) = pair(suite);
            for size in [0, 1, 100, 1200] {
                let data = vec![size as u8; size];
                let record = client.seal(APPLICATION_DATA, &data).expect("fits");
                assert_eq!(open(&mut client, &record), None, "not the other direction's");
                assert_eq!(open(&mut server, &record), Some((APPLICATION_DATA, data.clone(), true)), "{suite:?}");
                assert_eq!(open(&mut server, &record), Some((APPLICATION_DATA, data, false)), "{suite:?}");
            }
            let alert = server.seal(ALERT, &[1, 0]).expect("fits");
            assert_eq!(numbers(&alert).map(|(epoch, numbers)| (epoch, numbers.sequence)), Some((EPOCH, 3)));
            assert_eq!(open(&mut client, &alert), Some((ALERT, vec![1, 0], true)));
            assert!(client.seal(APPLICATION_DATA, &[0; 1490]).is_none(), "too long for a datagram");
        }
    }

    #[test]
    fn no_byte_of_a_record_can_be_changed() {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (mut client, mut server) = pair(suite);
            let record = client.seal(APPLICATION_DATA, b"words").expect("fits");
            // The length is what the datagram is cut by, and proved by the tag only as far as it is the plaintext's.
            for at in (0..record.len()).filter(|at| !(11..13).contains(at)) {
                let mut forged = record.clone();
                forged[at] ^= 1;
                assert_eq!(open(&mut server, &forged), None, "{suite:?} byte {at}");
            }
            for size in 0..record.len() {
                let cut = Datagram::try_from(&record[..size]).expect("shorter");
                assert_eq!(open(&mut server, &cut), None);
            }
            assert!(open(&mut server, &record).is_some_and(|(_, _, is_new)| is_new), "forgeries left no trace");
        }
    }

    #[test]
    fn the_last_sequence_number_is_the_last() {
        let next = Numbers { sequence: SEQUENCE_MAX, explicit: 0 };
        let made = Records::new(Suite::Aes128Gcm, DtlsRole::Client, &[7; 48], (&[1; 32], &[2; 32]), next);
        let mut records = made.expect("keys");
        assert!(records.seal(ALERT, &[1, 0]).is_some());
        assert!(records.seal(ALERT, &[1, 0]).is_none());
    }

    #[test]
    fn a_window_knows_the_last_64() {
        let mut window = Window::default();
        for (sequence, is_new) in
            [(0, true), (0, false), (2, true), (1, true), (1, false), (65, true), (2, false), (3, true), (1, false)]
        {
            assert_eq!(window.take(sequence), is_new, "{sequence}");
        }
        assert!(window.take(SEQUENCE_MAX));
        assert!(!window.take(SEQUENCE_MAX) && !window.take(SEQUENCE_MAX - 64) && window.take(SEQUENCE_MAX - 63));
    }

    #[test]
    fn a_datagram_is_cut_into_its_records() {
        let (mut client, _) = pair(Suite::Aes128Gcm);
        let first = client.seal(ALERT, &[1, 0]).expect("fits");
        let second = client.seal(APPLICATION_DATA, b"words").expect("fits");
        let mut both = [first.as_slice(), second.as_slice()].concat();
        let (middle, end) = (first.len(), both.len());
        assert_eq!(split(&both).collect::<Vec<_>>(), [0..middle, middle..end]);
        both.extend([22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1]);
        assert_eq!(split(&both).count(), 2);
        assert_eq!(split(&[0; 13 * 100]).count(), RECORDS_MAX);
        assert_eq!(split(&[]).count(), 0);
    }
}
