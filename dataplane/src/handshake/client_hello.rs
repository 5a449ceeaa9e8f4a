//! The first look at a peer's DTLS: plaintext records (RFC 6347 §4.1) and the ClientHello in them (RFC 8446 §4.1.2).
//! Puts a fragmented ClientHello together in bounded memory, says what it offers, and never sees keys or state machines.

use ringmain_shared::limits::CLIENT_HELLO_SIZE_MAX;

use super::dtls::Datagram;

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER_SIZE: usize = 13;
const MESSAGE_HEADER_SIZE: usize = 12;
const DTLS_1_2: u16 = 0xfefd;
const DTLS_1_3: u16 = 0xfefc;

/// What a ClientHello offers, as far as it decides who answers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientHello {
    /// Tells one client's hello from another's; a retransmission has the same.
    pub random: [u8; 32],
    /// DTLS 1.3 is among the versions.
    pub dtls13: bool,
    /// DTLS 1.2 is among the versions.
    pub dtls12: bool,
    /// SRTP protection profiles (RFC 5764 §4.1.2), most wanted first.
    pub srtp_profiles: Vec<u16>,
}

/// What a datagram is to a server that has not finished its handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Early {
    /// A ClientHello is complete with this datagram.
    Hello(ClientHello),
    /// A part of a ClientHello; the rest has yet to come.
    Part,
    /// Later flights, for the engine.
    Other {
        /// With handshake messages that are not encrypted.
        plain: bool,
    },
    /// A plaintext alert, plaintext data or a malformed ClientHello: nobody vouches for it, so nobody acts on it.
    Junk,
}

/// Puts the fragments of one ClientHello together.
#[derive(Default, Debug)]
pub struct Assembler {
    body: Vec<u8>,
    covered: Vec<(usize, usize)>,
    message_seq: u16,
    parts: Vec<Datagram>,
}

impl Assembler {
    /// Looks at one datagram and keeps what it holds of a ClientHello.
    pub fn handle(&mut self, datagram: &[u8]) -> Early {
        let mut verdict = Early::Other { plain: false };
        for record in (PlainRecords { rest: datagram }) {
            match record {
                (HANDSHAKE, body) if body.first() == Some(&CLIENT_HELLO) => match self.fragment(body) {
                    Early::Part => verdict = Early::Part,
                    decided => return decided,
                },
                (HANDSHAKE, [_, ..]) => verdict = Early::Other { plain: true },
                (CHANGE_CIPHER_SPEC, _) => {}
                _ => return Early::Junk,
            }
        }
        if verdict == Early::Part {
            self.parts.extend(Datagram::try_from(datagram));
        }
        verdict
    }

    /// The datagrams that came before the last one of a ClientHello in parts.
    pub fn take_parts(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.parts)
    }

    fn fragment(&mut self, record: &[u8]) -> Early {
        let Some((header, fragment)) = record.split_at_checked(MESSAGE_HEADER_SIZE) else { return Early::Junk };
        let number = |at: usize| header[at..at + 3].iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
        let (length, offset, size) = (number(1), number(6), number(9));
        let message_seq = u16::from_be_bytes([header[4], header[5]]);
        if length > CLIENT_HELLO_SIZE_MAX || offset + size > length || size == 0 || fragment.len() < size {
            return Early::Junk;
        }
        let fragment = &fragment[..size];
        if size == length {
            *self = Self::default();
            return ClientHello::parse(fragment).map_or(Early::Junk, Early::Hello);
        }
        if self.body.len() != length || self.message_seq != message_seq || self.covered.len() == FRAGMENTS_MAX {
            *self = Self { body: vec![0; length], message_seq, ..Self::default() };
        }
        self.body[offset..offset + size].copy_from_slice(fragment);
        self.covered.push((offset, offset + size));
        if !self.is_covered() {
            return Early::Part;
        }
        let hello = ClientHello::parse(&self.body);
        (self.body, self.covered) = (Vec::new(), Vec::new());
        hello.map_or(Early::Junk, Early::Hello)
    }

    fn is_covered(&mut self) -> bool {
        self.covered.sort_unstable();
        let reach = self.covered.iter().fold(0, |reach, &(from, to)| if from <= reach { reach.max(to) } else { reach });
        reach == self.body.len()
    }
}

impl ClientHello {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let legacy_version = reader.u16()?;
        let random = *reader.take(32)?.first_chunk()?;
        reader.vector8()?; // session id
        reader.vector8()?; // cookie
        let suites = reader.vector16()?;
        let compressions = reader.vector8()?;
        if suites.is_empty() || suites.len() % 2 != 0 || !compressions.contains(&0) {
            return None;
        }
        let (mut versions, mut srtp_profiles) = (None, Vec::new());
        let mut extensions = Reader(if reader.0.is_empty() { &[] } else { reader.vector16()? });
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let mut content = Reader(extensions.vector16()?);
            match kind {
                // RFC 5764 §4.1.1: use_srtp.
                14 => srtp_profiles = u16s(content.vector16()?).collect(),
                // RFC 8446 §4.2.1: supported_versions.
                43 => versions = Some(content.vector8()?),
                _ => {}
            }
        }
        // The numbers of DTLS versions go down as versions go up.
        let offers = |version| match versions {
            Some(list) => u16s(list).any(|offered| offered == version),
            None => version == DTLS_1_2 && legacy_version <= DTLS_1_2 && legacy_version >> 8 == 0xfe,
        };
        let (dtls13, dtls12) = (offers(DTLS_1_3), offers(DTLS_1_2));
        (dtls13 || dtls12).then_some(Self { random, dtls13, dtls12, srtp_profiles })
    }
}

fn u16s(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Records of epoch 0 at the head of a datagram; ends at the first that is encrypted or cut off.
struct PlainRecords<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for PlainRecords<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.rest.split_at_checked(RECORD_HEADER_SIZE)?;
        // content type, version, epoch, sequence number, length. An encrypted record of DTLS 1.3 has another header
        // (RFC 9147 §4), whose first byte no content type has.
        let (kind, epoch) = (header[0], u16::from_be_bytes([header[3], header[4]]));
        if !(20..=25).contains(&kind) || epoch != 0 {
            return None;
        }
        let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([header[11], header[12]])))?;
        self.rest = rest;
        Some((kind, body))
    }
}

/// Reads big-endian fields off the front; `None` when the bytes end too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let size = usize::from(*self.take(1)?.first()?);
        self.take(size)
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let size = usize::from(self.u16()?);
        self.take(size)
    }
}

/// Fragments of one ClientHello; a client that cuts finer starts over.
const FRAGMENTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn body(versions: Option<&[u16]>, profiles: &[u16]) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(versions) = versions {
            extensions.extend([0, 43, 0, versions.len() as u8 * 2 + 1, versions.len() as u8 * 2]);
            extensions.extend(versions.iter().flat_map(|v| v.to_be_bytes()));
        }
        extensions.extend([0, 14, 0, profiles.len() as u8 * 2 + 3, 0, profiles.len() as u8 * 2]);
        extensions.extend(profiles.iter().flat_map(|p| p.to_be_bytes()));
        extensions.push(0);
        let mut body = vec![0xfe, 0xfd];
        body.extend([7; 32]);
        body.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        body
    }

    fn record(total: usize, offset: usize, fragment: &[u8]) -> Vec<u8> {
        let three = |n: usize| [(n >> 16) as u8, (n >> 8) as u8, n as u8];
        let mut record = vec![HANDSHAKE, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
        record.extend((fragment.len() as u16 + 12).to_be_bytes());
        record.push(CLIENT_HELLO);
        record.extend(three(total));
        record.extend([0, 0]);
        record.extend(three(offset));
        record.extend(three(fragment.len()));
        record.extend(fragment);
        record
    }

    #[test]
    fn a_hello_says_its_versions_and_profiles() {
        let body = body(Some(&[DTLS_1_3, DTLS_1_2]), &[1, 8, 7]);
        let Early::Hello(hello) = Assembler::default().handle(&record(body.len(), 0, &body)) else { panic!() };
        assert!(hello.dtls13 && hello.dtls12);
        assert_eq!(hello.srtp_profiles, [1, 8, 7]);
    }

    #[test]
    fn a_hello_without_versions_offers_1_2_only() {
        let body = body(None, &[7]);
        let Early::Hello(hello) = Assembler::default().handle(&record(body.len(), 0, &body)) else { panic!() };
        assert!(!hello.dtls13 && hello.dtls12);
    }

    #[test]
    fn fragments_in_any_order_and_twice_make_one_hello() {
        let body = body(Some(&[DTLS_1_3]), &[7]);
        let mut assembler = Assembler::default();
        let parts: Vec<_> = body.chunks(16).enumerate().map(|(n, part)| record(body.len(), n * 16, part)).collect();
        for part in parts[1..].iter().rev().chain(&parts[1..]) {
            assert_eq!(assembler.handle(part), Early::Part);
        }
        assert!(matches!(assembler.handle(&parts[0]), Early::Hello(hello) if hello.random == [7; 32]));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_of_a_hello_is_a_panic() {
        let body = body(Some(&[DTLS_1_3, DTLS_1_2]), &[1, 8, 7]);
        let whole = record(body.len(), 0, &body);
        for end in 0..whole.len() {
            assert!(!matches!(Assembler::default().handle(&whole[..end]), Early::Hello(_)), "{end} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bent = whole.clone();
                bent[at] = value;
                Assembler::default().handle(&bent);
            }
        }
    }

    #[test]
    fn hopeless_sizes_and_alerts_are_junk() {
        let body = body(None, &[7]);
        let mut assembler = Assembler::default();
        assert_eq!(assembler.handle(&record(CLIENT_HELLO_SIZE_MAX + 1, 0, &body)), Early::Junk);
        assert_eq!(assembler.handle(&record(body.len(), 1, &body)), Early::Junk);
        assert_eq!(assembler.handle(&record(body.len(), 0, &[])), Early::Junk);
        assert_eq!(assembler.handle(&[21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40]), Early::Junk);
        assert_eq!(assembler.body.len(), 0);
    }
}
