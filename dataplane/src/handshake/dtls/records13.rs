//! The records of one epoch of DTLS 1.3 in one direction (RFC 9147 §4), as those of DTLS 1.2 are in [`records`](super::records).
//! Knows nothing of what a record means, nor of which epoch it is the turn: bytes and numbers go in and come out.

use std::fmt;
use std::iter;

use arrayvec::ArrayVec;
use aws_lc_rs::aead::{Aad, quic};
use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use zeroize::Zeroizing;

use super::Datagram;
use super::records::{HEADER_SIZE as PLAIN_HEADER_SIZE, KEY_SIZE_MAX, Key, Suite, TAG_SIZE, Window};
use super::secrets::PREFIX;

/// A traffic secret (RFC 8446 §7.1): as many bytes of it as the suite's hash has.
pub(super) type Secret = Zeroizing<[u8; HASH_SIZE_MAX]>;

/// The keys of one epoch in one direction.
pub(super) struct Epoch {
    suite: Suite,
    number: u64,
    /// What those of the next epoch are derived from.
    secret: Secret,
    key: Key,
    /// What hides sequence numbers (§4.2.3).
    mask: Zeroizing<[u8; KEY_SIZE_MAX]>,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({}, {:?}, …)", self.number, self.suite)
    }
}

/// A record that was authentic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    /// Its number in its epoch.
    pub(super) sequence: u64,
    /// What it says that it is.
    pub(super) content: u8,
    /// Bytes of its plaintext.
    pub(super) size: usize,
}

impl Epoch {
    /// Epoch `number`, from its traffic secret; `None` when that is too short.
    pub(super) fn new(suite: Suite, number: u64, secret: &[u8]) -> Option<Self> {
        let mut own = Secret::new([0; HASH_SIZE_MAX]);
        own.get_mut(..suite.hash_size())?.copy_from_slice(secret.get(..suite.hash_size())?);
        let (mut key, mut mask) = (Key::default(), Zeroizing::default());
        expand(suite, &own, b"key", key.secret.get_mut(..suite.key_size())?)?;
        expand(suite, &own, b"iv", &mut *key.iv)?;
        let mask_key: &mut [u8; KEY_SIZE_MAX] = &mut mask;
        expand(suite, &own, b"sn", mask_key.get_mut(..suite.key_size())?)?;
        Some(Self { suite, number, secret: own, key, mask })
    }

    /// The epoch after this one (RFC 8446 §7.2).
    pub(super) fn following(&self) -> Option<Self> {
        let mut secret = Secret::new([0; HASH_SIZE_MAX]);
        expand(self.suite, &self.secret, b"traffic upd", secret.get_mut(..self.suite.hash_size())?)?;
        Self::new(self.suite, self.number + 1, &*secret)
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What headers tell of the number.
    pub(super) fn bits(&self) -> u8 {
        (self.number & u64::from(EPOCH_BITS)) as u8
    }

    /// One record with `data`; `None` when it is too long for a datagram. No two records may have the same `sequence`: it makes the nonce.
    pub(super) fn seal(&self, sequence: u64, content: u8, data: &[u8]) -> Option<Datagram> {
        let size = u16::try_from(data.len() + 1 + TAG_SIZE).ok()?;
        let mut record = Datagram::new();
        record.push(FIXED | SEQUENCE_BIT | LENGTH_BIT | self.bits());
        record.extend((sequence as u16).to_be_bytes());
        record.extend(size.to_be_bytes());
        record.try_extend_from_slice(data).ok()?;
        record.try_push(content).ok()?;
        let (header, body) = record.split_at_mut_checked(SEALED_HEADER_SIZE)?;
        let cipher = self.suite.cipher(&self.key)?;
        let tag = cipher.seal_in_place_separate_tag(self.key.nonce(sequence), Aad::from(header), body).ok()?;
        record.try_extend_from_slice(tag.as_ref()).ok()?;
        let (header, sealed) = record.split_at_mut_checked(SEALED_HEADER_SIZE)?;
        let mask = self.mask(sealed)?;
        header.iter_mut().skip(1).zip(mask).take(2).for_each(|(byte, mask)| *byte ^= mask);
        Some(record)
    }

    /// Opens one record into `plaintext`; `None` when it is not authentic. `expected` is one above the highest number seen so far.
    pub(super) fn open(&self, record: &[u8], expected: u64, plaintext: &mut [u8]) -> Option<Opened> {
        let (header, sequence, sealed) = self.unmask(record, expected)?;
        let (sealed, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_SIZE)?)?;
        let plaintext = plaintext.get_mut(..sealed.len())?;
        let (cipher, nonce) = (self.suite.cipher(&self.key)?, self.key.nonce(sequence));
        cipher.open_separate_gather(nonce, Aad::from(header.as_slice()), sealed, tag, plaintext).ok()?;
        // §4: the type of the content lies behind it, and as many zeros as the sender likes behind that.
        // Of nothing but zeros it is a zero, which no content has.
        let size = plaintext.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        Some(Opened { sequence, content: *plaintext.get(size)?, size })
    }

    /// No epoch follows this one.
    pub(super) fn forget_secret(&mut self) {
        self.secret = Secret::new([0; HASH_SIZE_MAX]);
    }

    /// Header as it was before its number was hidden, number, and what is sealed.
    fn unmask<'a>(&self, record: &'a [u8], expected: u64) -> Option<(Header, u64, &'a [u8])> {
        let shape = Shape::of(record)?;
        let (header, sealed) = record.split_at_checked(shape.header_size)?;
        let mut header = Header::try_from(header).ok()?;
        let numbers = header.get_mut(1..=shape.sequence_size)?;
        numbers.iter_mut().zip(self.mask(sealed)?).for_each(|(byte, mask)| *byte ^= mask);
        let partial = numbers.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Some((header, nearest(partial, 8 * shape.sequence_size as u32, expected), sealed))
    }

    /// QUIC hides its numbers in the same way (RFC 9001 §5.4.3 and §5.4.4).
    fn mask(&self, sealed: &[u8]) -> Option<[u8; 5]> {
        let sample = sealed.get(..SAMPLE_SIZE)?;
        let algorithm = match self.suite {
            Suite::Aes128Gcm => &quic::AES_128,
            Suite::Aes256Gcm => &quic::AES_256,
            Suite::ChaCha20Poly1305 => &quic::CHACHA20,
        };
        let key = quic::HeaderProtectionKey::new(algorithm, self.mask.get(..self.suite.key_size())?).ok()?;
        key.new_mask(sample).ok()
    }
}

/// An epoch that is read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Its keys.
    pub(super) epoch: Epoch,
    window: Window,
}

impl Reading {
    /// One of which nothing was read yet.
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, window: Window::default() }
    }

    /// As [`Epoch::open`], and whether the record was not seen before.
    pub(super) fn open(&mut self, record: &[u8], plaintext: &mut [u8]) -> Option<(Opened, bool)> {
        let opened = self.epoch.open(record, self.window.end(), plaintext)?;
        Some((opened, self.window.take(opened.sequence)))
    }
}

/// The records of a datagram, up to the first that is cut short, and as many as anybody has to say at once.
pub(super) fn split(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    let next = move || {
        let (record, after) = rest.split_at_checked(record_size(rest)?)?;
        rest = after;
        Some(record)
    };
    iter::from_fn(next).take(RECORDS_MAX)
}

/// What the header of a protected record tells of its epoch; `None` for one in plaintext, and for one that is too short to be sealed.
pub(super) fn epoch_bits(record: &[u8]) -> Option<u8> {
    let is_whole = |shape: &Shape| record.len() > shape.header_size + TAG_SIZE;
    Shape::of(record).filter(is_whole).and(record.first()).map(|flags| flags & EPOCH_BITS)
}

fn record_size(bytes: &[u8]) -> Option<usize> {
    match Shape::of(bytes) {
        Some(shape) if shape.has_length => {
            let length = bytes.get(shape.header_size - 2..)?.first_chunk()?;
            Some(shape.header_size + usize::from(u16::from_be_bytes(*length)))
        }
        // §4: it goes to the end of its datagram.
        Some(_) => Some(bytes.len()),
        // Where a connection ID may be, of which there are none here, nobody can tell what follows.
        None if bytes.first()? & FIXED_BITS == FIXED => None,
        None => {
            let &[.., high, low] = bytes.first_chunk::<PLAIN_HEADER_SIZE>()?;
            Some(PLAIN_HEADER_SIZE + usize::from(u16::from_be_bytes([high, low])))
        }
    }
}

/// How the header of a protected record is laid out (§4, figure 3).
struct Shape {
    sequence_size: usize,
    has_length: bool,
    header_size: usize,
}

impl Shape {
    fn of(record: &[u8]) -> Option<Self> {
        let flags = *record.first()?;
        if flags & FIXED_BITS != FIXED || flags & CONNECTION_ID_BIT != 0 {
            return None;
        }
        let (sequence_size, has_length) = (1 + usize::from(flags & SEQUENCE_BIT != 0), flags & LENGTH_BIT != 0);
        Some(Self { sequence_size, has_length, header_size: 1 + sequence_size + 2 * usize::from(has_length) })
    }
}

/// The number with these lowest bits that is nearest to `expected` (§4.2.2).
fn nearest(partial: u64, bits: u32, expected: u64) -> u64 {
    let span = 1 << bits;
    let middle = expected & !(span - 1) | partial;
    let candidates = [middle.checked_sub(span), Some(middle), middle.checked_add(span)];
    candidates.into_iter().flatten().min_by_key(|candidate| candidate.abs_diff(expected)).unwrap_or(middle)
}

/// HKDF-Expand-Label without a context (RFC 8446 §7.1).
fn expand(suite: Suite, secret: &Secret, label: &[u8], out: &mut [u8]) -> Option<()> {
    let hash = if suite == Suite::Aes256Gcm { HKDF_SHA384 } else { HKDF_SHA256 };
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_size = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let prk = Prk::new_less_safe(hash, secret.get(..suite.hash_size())?);
    let info = [&length, label_size.as_slice(), PREFIX, label, &[0]];
    prk.expand(&info, Size(out.len())).ok()?.fill(out).ok()
}

struct Size(usize);

impl KeyType for Size {
    fn len(&self) -> usize {
        self.0
    }
}

type Header = ArrayVec<u8, SEALED_HEADER_SIZE>;

/// §4: `001CSLEE`.
const FIXED_BITS: u8 = 0b1110_0000;
const FIXED: u8 = 0b0010_0000;
const CONNECTION_ID_BIT: u8 = 0b0001_0000;
const SEQUENCE_BIT: u8 = 0b0000_1000;
const LENGTH_BIT: u8 = 0b0000_0100;
const EPOCH_BITS: u8 = 0b0000_0011;
/// Flags, number and length: as we write it, and the longest there is.
const SEALED_HEADER_SIZE: usize = 5;
/// As many as `dimpl` takes of one datagram: each may cost an attempt to open it.
const RECORDS_MAX: usize = 16;
/// Bytes of ciphertext that a mask is made of.
const SAMPLE_SIZE: usize = 16;
/// SHA-384's.
pub(super) const HASH_SIZE_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    fn epoch(suite: Suite, number: u64) -> Epoch {
        Epoch::new(suite, number, &[number as u8; 48]).expect("long enough")
    }

    fn open(reading: &mut Reading, record: &[u8]) -> Option<(Opened, Vec<u8>, bool)> {
        let mut plaintext = [0; 1500];
        let (opened, is_new) = reading.open(record, &mut plaintext)?;
        Some((opened, plaintext[..opened.size].to_vec(), is_new))
    }

    #[test]
    fn what_is_sealed_opens_once() {
        for suite in SUITES {
            let (writing, mut reading) = (epoch(suite, 3), Reading::new(epoch(suite, 3)));
            for (sequence, size) in [0, 1, 100, 1200].into_iter().enumerate() {
                let (sequence, data) = (sequence as u64, vec![size as u8; size]);
                let record = writing.seal(sequence, 23, &data).expect("fits");
                let opened = Opened { sequence, content: 23, size };
                assert_eq!(writing.unmask(&record, sequence).map(|(_, number, _)| number), Some(sequence));
                assert_eq!(open(&mut reading, &record), Some((opened, data.clone(), true)), "{suite:?}");
                assert_eq!(open(&mut reading, &record), Some((opened, data, false)), "{suite:?}");
                assert_eq!(
                    open(&mut Reading::new(epoch(suite, 7)), &record),
                    None,
                    "another epoch's, of the same bits"
                );
            }
            assert!(writing.seal(9, 23, &[0; 1490]).is_none(), "too long for a datagram");
        }
    }

    #[test]
    fn no_byte_of_a_record_can_be_changed() {
        for suite in SUITES {
            let (writing, mut reading) = (epoch(suite, 3), Reading::new(epoch(suite, 3)));
            let record = writing.seal(0, 23, b"words").expect("fits");
            for at in 0..record.len() {
                let mut forged = record.clone();
                forged[at] ^= 1;
                assert_eq!(open(&mut reading, &forged), None, "{suite:?} byte {at}");
            }
            (0..record.len()).for_each(|size| assert_eq!(open(&mut reading, &record[..size]), None));
            assert!(open(&mut reading, &record).is_some_and(|(_, _, is_new)| is_new), "forgeries left no trace");
        }
    }

    #[test]
    fn numbers_go_on_where_the_header_has_no_more_bits_for_them() {
        let (writing, mut reading) = (epoch(Suite::Aes128Gcm, 3), Reading::new(epoch(Suite::Aes128Gcm, 3)));
        for sequence in (0..200_000).step_by(30_000) {
            let record = writing.seal(sequence, 23, b"words").expect("fits");
            assert_eq!(open(&mut reading, &record).map(|(opened, ..)| opened.sequence), Some(sequence));
        }
        assert_eq!([nearest(0xff, 8, 0x100), nearest(0x01, 8, 0x100), nearest(0xff, 8, 0x05)], [0xff, 0x101, 0xff]);
        assert_eq!(
            [nearest(0x00, 8, 0x1ff), nearest(0xffff, 16, 0), nearest(0, 16, u64::MAX)],
            [0x200, 0xffff, !0xffff]
        );
    }

    #[test]
    fn an_epoch_follows_from_the_one_before() {
        for suite in SUITES {
            let first = epoch(suite, 3);
            let (one, other) = (first.following().expect("keys"), first.following().expect("keys"));
            assert_eq!((one.number(), one.bits()), (4, 0));
            let record = one.seal(0, 23, b"words").expect("fits");
            assert!(open(&mut Reading::new(other), &record).is_some());
            assert!(open(&mut Reading::new(first), &record).is_none());
        }
    }

    #[test]
    fn every_layout_of_the_header_is_read() {
        let writing = epoch(Suite::Aes128Gcm, 3);
        for (flags, number) in
            [(0, &[0][..]), (SEQUENCE_BIT, &[0, 0]), (LENGTH_BIT, &[0, 0, 22]), (0x0c, &[0, 0, 0, 22])]
        {
            let mut record = [&[FIXED | flags | 3], number].concat();
            let (header_size, numbers) = (record.len(), 1 + usize::from(flags & SEQUENCE_BIT != 0));
            let mut body = *b"words\x17";
            let (nonce, cipher) = (writing.key.nonce(0), writing.suite.cipher(&writing.key).expect("keys"));
            let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(&record), &mut body).expect("seals");
            record.extend(body);
            record.extend(tag.as_ref());
            let mask = writing.mask(&record[header_size..]).expect("long enough");
            record[1..].iter_mut().zip(mask).take(numbers).for_each(|(byte, mask)| *byte ^= mask);
            let opened = open(&mut Reading::new(epoch(Suite::Aes128Gcm, 3)), &record);
            assert_eq!(opened.map(|(_, text, _)| text), Some(b"words".to_vec()), "{flags:#x}");
            record[0] |= CONNECTION_ID_BIT;
            assert_eq!((epoch_bits(&record), split(&record).count()), (None, 0));
        }
    }

    #[test]
    fn a_datagram_is_cut_into_its_records() {
        let writing = epoch(Suite::Aes128Gcm, 3);
        let protected = writing.seal(0, 23, b"words").expect("fits");
        let plain = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2];
        let mut all = [protected.as_slice(), &plain, &protected].concat();
        assert_eq!(split(&all).map(epoch_bits).collect::<Vec<_>>(), [Some(3), None, Some(3)]);
        all.pop();
        assert_eq!(split(&all).count(), 2);
        assert_eq!(split(&[]).count() + split(&[0x2c]).count() + split(&[22, 0xfe]).count(), 0);
    }
}
