//! STUN messages (RFC 8489) as ICE uses them (RFC 8445, RFC 7675).
//! [`Message`] is a view of one that came, [`MessageWriter`] makes one. TURN's messages have the same shape and pass through both.
//! Nothing here knows users or transactions, and a [`Message`] proves nothing about its sender before `verify_integrity`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::{constant_time, hmac as long};
use hmac::{Hmac, KeyInit, Mac};
use ringmain_shared::DropReason;
use sha1::Sha1;

use super::bytes::{u16_at, u32_at, u64_at};

pub use write::{
    BindingRequest, MessageWriter, Role, write_binding_error, write_binding_request, write_binding_success,
};

#[cfg(test)]
mod tests;
mod write;

/// A STUN message whose framing and, if it has one, FINGERPRINT are right.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: u16,
    /// Where the attributes end that may be believed: at MESSAGE-INTEGRITY, or FINGERPRINT, or the end.
    attributes_end: usize,
    integrity_at: Option<usize>,
    /// Where MESSAGE-INTEGRITY-SHA256 begins, and the length of its value.
    sha256_at: Option<(usize, usize)>,
    fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Reads a datagram that holds one message and nothing else.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        Self::frame(datagram).ok_or(DropReason::StunMalformed)
    }

    fn frame(bytes: &'a [u8]) -> Option<Self> {
        let kind = u16_at(bytes, 0)?;
        let length = usize::from(u16_at(bytes, 2)?);
        // RFC 8489 §5: two zero bits, a length in whole words, the magic cookie.
        if kind >> 14 != 0 || length % 4 != 0 || u32_at(bytes, 4)? != MAGIC_COOKIE || bytes.len() != HEADER_LEN + length
        {
            return None;
        }
        let mut message = Self {
            bytes,
            class: Class::of(kind),
            method: (kind & 0x000f) | ((kind & 0x00e0) >> 1) | ((kind & 0x3e00) >> 2),
            attributes_end: bytes.len(),
            integrity_at: None,
            sha256_at: None,
            fingerprint: false,
        };
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            let attribute = u16_at(bytes, at)?;
            let value_len = usize::from(u16_at(bytes, at + 2)?);
            let next = at + 4 + value_len.next_multiple_of(4);
            if next > bytes.len() {
                return None;
            }
            match attribute {
                attribute::MESSAGE_INTEGRITY if message.attributes_end == bytes.len() => {
                    if value_len != INTEGRITY_LEN {
                        return None;
                    }
                    message.integrity_at = Some(at);
                    message.attributes_end = at;
                }
                // RFC 8489 §9: nothing but the other integrity and the fingerprint counts after an integrity.
                attribute::MESSAGE_INTEGRITY_SHA256 if message.sha256_at.is_none() => {
                    // RFC 8489 §14.6: 16 to 32 bytes, in whole words.
                    if !(SHA256_LEN_MIN..=SHA256_LEN).contains(&value_len) || value_len % 4 != 0 {
                        return None;
                    }
                    message.sha256_at = Some((at, value_len));
                    message.attributes_end = message.attributes_end.min(at);
                }
                attribute::FINGERPRINT => {
                    // RFC 8489 §14.7: the last attribute, over everything before it.
                    let before = bytes.get(..at)?;
                    if next != bytes.len()
                        || value_len != 4
                        || u32_at(bytes, at + 4)? != crc32fast::hash(before) ^ FINGERPRINT_XOR
                    {
                        return None;
                    }
                    message.fingerprint = true;
                    message.attributes_end = message.attributes_end.min(at);
                }
                _ => {}
            }
            at = next;
        }
        Some(message)
    }

    /// Request, indication or one of the responses.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The 12-bit method; [`method::BINDING`] in ICE.
    pub fn method(&self) -> u16 {
        self.method
    }

    /// What a response repeats of its request.
    pub fn transaction_id(&self) -> TransactionId {
        TransactionId(self.bytes.get(8..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default())
    }

    /// There was a FINGERPRINT, and it was right. RFC 8445 §7.1 wants one in every check and its response.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// There is a MESSAGE-INTEGRITY, right or wrong.
    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Proves that the sender knows `key` (RFC 8489 §14.5). Takes the same time for every wrong tag.
    pub fn verify_integrity(&self, key: &IntegrityKey) -> Result<(), DropReason> {
        self.integrity_is_right(key).filter(|&right| right).map(|_| ()).ok_or(DropReason::StunIntegrity)
    }

    fn integrity_is_right(&self, key: &IntegrityKey) -> Option<bool> {
        let at = self.integrity_at?;
        let expected = key.sign(self.bytes.get(..at)?)?;
        let tag = self.bytes.get(at + 4..at + 4 + INTEGRITY_LEN)?;
        Some(constant_time::verify_slices_are_equal(&expected, tag).is_ok())
    }

    /// There is a MESSAGE-INTEGRITY-SHA256, right or wrong.
    pub fn has_integrity_sha256(&self) -> bool {
        self.sha256_at.is_some()
    }

    /// The same with MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6), which may be cut to half its length.
    pub fn verify_integrity_sha256(&self, key: &IntegrityKey256) -> Result<(), DropReason> {
        self.sha256_is_right(key).filter(|&right| right).map(|_| ()).ok_or(DropReason::StunIntegrity)
    }

    fn sha256_is_right(&self, key: &IntegrityKey256) -> Option<bool> {
        let (at, len) = self.sha256_at?;
        let expected = key.sign(self.bytes.get(..at)?, len)?;
        let tag = self.bytes.get(at + 4..at + 4 + len)?;
        Some(constant_time::verify_slices_are_equal(expected.as_ref().get(..len)?, tag).is_ok())
    }

    /// Type and value of each attribute that may be believed: those before MESSAGE-INTEGRITY and FINGERPRINT.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.bytes.get(HEADER_LEN..self.attributes_end).unwrap_or_default() }
    }

    /// The value of the first attribute of a type; RFC 8489 §14 lets later ones be ignored.
    pub fn attribute(&self, attribute: u16) -> Option<&'a [u8]> {
        self.attributes().find(|&(this, _)| this == attribute).map(|(_, value)| value)
    }

    /// Where in the message the value of the first attribute of a type is.
    pub fn attribute_range(&self, attribute: u16) -> Option<std::ops::Range<usize>> {
        let mut attributes = self.attributes();
        loop {
            let at = self.attributes_end - attributes.rest.len();
            let (this, value) = attributes.next()?;
            if this == attribute {
                return Some(at + 4..at + 4 + value.len());
            }
        }
    }

    /// USERNAME of a check, split at its colon: the receiver's user fragment, then the sender's (RFC 8445 §7.2.2).
    pub fn username(&self) -> Option<(&'a str, &'a str)> {
        let value = self.attribute(attribute::USERNAME).filter(|value| value.len() <= USERNAME_SIZE_MAX)?;
        std::str::from_utf8(value).ok()?.split_once(':')
    }

    /// PRIORITY that a peer-reflexive candidate would have (RFC 8445 §7.1.1).
    pub fn priority(&self) -> Option<u32> {
        self.attribute(attribute::PRIORITY).filter(|value| value.len() == 4).and_then(|value| u32_at(value, 0))
    }

    /// The controlling side nominates this pair (RFC 8445 §7.1.2).
    pub fn use_candidate(&self) -> bool {
        self.attribute(attribute::USE_CANDIDATE).is_some()
    }

    /// The tie-breaker of a sender that believes to be controlling (RFC 8445 §7.1.3).
    pub fn ice_controlling(&self) -> Option<u64> {
        self.attribute(attribute::ICE_CONTROLLING).filter(|value| value.len() == 8).and_then(|value| u64_at(value, 0))
    }

    /// The tie-breaker of a sender that believes to be controlled (RFC 8445 §7.1.3).
    pub fn ice_controlled(&self) -> Option<u64> {
        self.attribute(attribute::ICE_CONTROLLED).filter(|value| value.len() == 8).and_then(|value| u64_at(value, 0))
    }

    /// XOR-MAPPED-ADDRESS: where the responder saw the request come from (RFC 8489 §14.2).
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.xor_address(attribute::XOR_MAPPED_ADDRESS)
    }

    /// Any attribute in the format of XOR-MAPPED-ADDRESS, as TURN's XOR-PEER-ADDRESS is.
    pub fn xor_address(&self, attribute: u16) -> Option<SocketAddr> {
        self.read_xor_address(self.attribute(attribute)?)
    }

    /// All attributes of a type in that format; `None` for each whose value is none.
    pub fn xor_addresses(&self, attribute: u16) -> impl Iterator<Item = Option<SocketAddr>> + use<'a> {
        let message = *self;
        let values = self.attributes().filter(move |&(this, _)| this == attribute);
        values.map(move |(_, value)| message.read_xor_address(value))
    }

    fn read_xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let port = u16_at(value, 2)? ^ (MAGIC_COOKIE >> 16) as u16;
        let ip = match (*value.get(1)?, value.len()) {
            (FAMILY_IPV4, 8) => IpAddr::V4(Ipv4Addr::from_bits(u32_at(value, 4)? ^ MAGIC_COOKIE)),
            (FAMILY_IPV6, 20) => {
                let bits = u128::from_be_bytes(*value.get(4..)?.first_chunk()?);
                IpAddr::V6(Ipv6Addr::from_bits(bits ^ self.transaction_id().xor_mask()))
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// ERROR-CODE of an error response, 300–699 (RFC 8489 §14.8).
    pub fn error_code(&self) -> Option<u16> {
        let value = self.attribute(attribute::ERROR_CODE)?;
        let (hundreds, rest) = (u16::from(*value.get(2)? & 7), u16::from(*value.get(3)?));
        ((3..=6).contains(&hundreds) && rest < 100).then_some(hundreds * 100 + rest)
    }

    /// Types below 0x8000, which must be understood (RFC 8489 §5), and are not among `known`: a request with one is
    /// answered with error 420.
    pub fn unknown_required<'k>(&self, known: &'k [u16]) -> impl Iterator<Item = u16> + use<'a, 'k> {
        self.attributes()
            .map(|(attribute, _)| attribute)
            .filter(move |attribute| *attribute < 0x8000 && !known.contains(attribute))
    }
}

/// Iterates over type and value, without padding.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = u16_at(self.rest, 0)?;
        let value_len = usize::from(u16_at(self.rest, 2)?);
        let value = self.rest.get(4..4 + value_len)?;
        self.rest = self.rest.get(4 + value_len.next_multiple_of(4)..).unwrap_or_default();
        Some((attribute, value))
    }
}

/// A password, ready for HMAC-SHA1. Keying costs more than a check's tag does, so it is done once. There are up to three for each
/// transport: these take a ninth of the room of `aws-lc-rs`'s, and less time.
#[derive(Clone)]
pub struct IntegrityKey(Hmac<Sha1>);

impl IntegrityKey {
    /// From the bytes of an ICE password (RFC 8489 §9.1), or from a long-term key (§9.2.2).
    pub fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The tag of a message of which `before` is all before MESSAGE-INTEGRITY.
    fn sign(&self, before: &[u8]) -> Option<[u8; INTEGRITY_LEN]> {
        let mut hmac = self.0.clone();
        for part in signed(before, &signed_length(before, INTEGRITY_LEN)?)? {
            hmac.update(part);
        }
        Some(hmac.finalize().into_bytes().into())
    }
}

/// A key, ready for HMAC-SHA256.
#[derive(Clone)]
pub struct IntegrityKey256(long::Key);

impl IntegrityKey256 {
    /// From the bytes of a password (RFC 8489 §9.1), or from a long-term key (§9.2.2).
    pub fn new(key: &[u8]) -> Self {
        Self(long::Key::new(long::HMAC_SHA256, key))
    }

    /// The tag of a message of which `before` is all before a MESSAGE-INTEGRITY-SHA256 of `len` bytes.
    fn sign(&self, before: &[u8], len: usize) -> Option<long::Tag> {
        let mut context = long::Context::with_key(&self.0);
        for part in signed(before, &signed_length(before, len)?)? {
            context.update(part);
        }
        Some(context.sign())
    }
}

impl std::fmt::Debug for IntegrityKey256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey256(…)")
    }
}

/// RFC 8489 §14.5, §14.6: signed as if the integrity were the last attribute, so without a FINGERPRINT's length.
fn signed_length(before: &[u8], tag_len: usize) -> Option<[u8; 2]> {
    Some(u16::try_from(before.len().checked_sub(HEADER_LEN)? + 4 + tag_len).ok()?.to_be_bytes())
}

fn signed<'a>(before: &'a [u8], length: &'a [u8; 2]) -> Option<[&'a [u8]; 3]> {
    Some([before.get(..2)?, length, before.get(4..)?])
}

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey(…)")
    }
}

/// The 96 random bits that tie a response to its request (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// What an IPv6 address is XORed with: the cookie and the transaction id.
    fn xor_mask(self) -> u128 {
        self.0.iter().fold(u128::from(MAGIC_COOKIE), |mask, &byte| mask << 8 | u128::from(byte))
    }
}

/// What a message is for (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// The request was right.
    Success,
    /// The request was wrong; see `error_code`.
    Error,
}

impl Class {
    fn of(kind: u16) -> Self {
        match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
            (false, false) => Self::Request,
            (false, true) => Self::Indication,
            (true, false) => Self::Success,
            (true, true) => Self::Error,
        }
    }

    fn bits(self) -> u16 {
        match self {
            Self::Request => 0x0000,
            Self::Indication => 0x0010,
            Self::Success => 0x0100,
            Self::Error => 0x0110,
        }
    }
}

/// Methods (RFC 8489 §18.2).
pub mod method {
    /// The only one of ICE.
    pub const BINDING: u16 = 0x001;
    /// TURN (RFC 8656 §17): a relayed address, please.
    pub const ALLOCATE: u16 = 0x003;
    /// For longer, or no longer.
    pub const REFRESH: u16 = 0x004;
    /// Data to a peer.
    pub const SEND: u16 = 0x006;
    /// Data from a peer.
    pub const DATA: u16 = 0x007;
    /// Peers' addresses that may send.
    pub const CREATE_PERMISSION: u16 = 0x008;
    /// A number for a peer.
    pub const CHANNEL_BIND: u16 = 0x009;
    /// RFC 6062 §6.1: a connection to a peer.
    pub const CONNECT: u16 = 0x00a;
    /// This connection is for that one's bytes.
    pub const CONNECTION_BIND: u16 = 0x00b;
    /// A peer has connected.
    pub const CONNECTION_ATTEMPT: u16 = 0x00c;
}

/// Attribute types (RFC 8489 §18.3, RFC 8445 §16.1, RFC 8656 §18, RFC 8016 §3.4, RFC 6062 §6.2, RFC 7635 §6).
#[allow(missing_docs, reason = "the names are those of the registry")]
pub mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const CHANGE_REQUEST: u16 = 0x0003;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    pub const LIFETIME: u16 = 0x000d;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const EVEN_PORT: u16 = 0x0018;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const DONT_FRAGMENT: u16 = 0x001a;
    pub const ACCESS_TOKEN: u16 = 0x001b;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub const PASSWORD_ALGORITHM: u16 = 0x001d;
    pub const USERHASH: u16 = 0x001e;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const RESERVATION_TOKEN: u16 = 0x0022;
    pub const PADDING: u16 = 0x0026;
    pub const RESPONSE_PORT: u16 = 0x0027;
    pub const CONNECTION_ID: u16 = 0x002a;
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    pub const SOFTWARE: u16 = 0x8022;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802a;
    pub const RESPONSE_ORIGIN: u16 = 0x802b;
    pub const OTHER_ADDRESS: u16 = 0x802c;
    pub const THIRD_PARTY_AUTHORIZATION: u16 = 0x802e;
    pub const MOBILITY_TICKET: u16 = 0x8030;

    /// What must be understood in a Binding request and is.
    pub const KNOWN_IN_BINDING: &[u16] = &[USERNAME, PRIORITY, USE_CANDIDATE, REALM, NONCE];
}

/// Error codes (RFC 8489 §14.8, RFC 8445 §7.3.1.1, RFC 8656 §19, RFC 8016 §3.5, RFC 6062 §6.3).
pub mod error {
    /// The request makes no sense.
    pub const BAD_REQUEST: u16 = 400;
    /// MESSAGE-INTEGRITY is wrong, or the user unknown.
    pub const UNAUTHENTICATED: u16 = 401;
    /// The user may not do this, or reach this peer.
    pub const FORBIDDEN: u16 = 403;
    /// Allocations of this server do not move.
    pub const MOBILITY_FORBIDDEN: u16 = 405;
    /// An attribute that must be understood is not.
    pub const UNKNOWN_ATTRIBUTE: u16 = 420;
    /// There is no allocation, or there is one already.
    pub const ALLOCATION_MISMATCH: u16 = 437;
    /// The nonce is too old, or not ours.
    pub const STALE_NONCE: u16 = 438;
    /// No relayed address of this family.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: u16 = 440;
    /// Another user's allocation.
    pub const WRONG_CREDENTIALS: u16 = 441;
    /// Not relayed.
    pub const UNSUPPORTED_TRANSPORT: u16 = 442;
    /// The peer is of another family than the relayed address.
    pub const PEER_ADDRESS_FAMILY_MISMATCH: u16 = 443;
    /// There is a connection to this peer.
    pub const CONNECTION_ALREADY_EXISTS: u16 = 446;
    /// The peer refused, or did not answer in time.
    pub const CONNECTION_FAILED: u16 = 447;
    /// The user has as many as allowed.
    pub const ALLOCATION_QUOTA_REACHED: u16 = 486;
    /// Both sides believe to have the same ICE role.
    pub const ROLE_CONFLICT: u16 = 487;
    /// No room.
    pub const INSUFFICIENT_CAPACITY: u16 = 508;
}

/// Bytes of a message before its attributes.
pub const HEADER_LEN: usize = 20;
/// What tells STUN from its predecessor (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
const INTEGRITY_LEN: usize = 20;
const SHA256_LEN: usize = 32;
const SHA256_LEN_MIN: usize = 16;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// An IPv4 address (RFC 8489 §14.1).
pub const FAMILY_IPV4: u8 = 1;
/// An IPv6 address.
pub const FAMILY_IPV6: u8 = 2;
/// RFC 8489 §14.3: fewer than 509 bytes; RFC 8445 makes two fragments of 256 and a colon.
const USERNAME_SIZE_MAX: usize = 513;
