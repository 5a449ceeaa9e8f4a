//! Writes STUN messages: attribute by attribute, then MESSAGE-INTEGRITY, then FINGERPRINT.

use std::net::{IpAddr, SocketAddr};

use super::{
    Class, FAMILY_IPV4, FAMILY_IPV6, FINGERPRINT_XOR, HEADER_LEN, IntegrityKey, IntegrityKey256, MAGIC_COOKIE,
    SHA256_LEN, TransactionId, attribute, error, method,
};
use crate::packet::bytes::Writer;

/// A success response to a Binding request that came from `mapped`. Its length, or `None` for want of room.
pub fn write_binding_success(
    out: &mut [u8],
    transaction_id: TransactionId,
    mapped: SocketAddr,
    key: &IntegrityKey,
) -> Option<usize> {
    let mut message = MessageWriter::new(out, Class::Success, method::BINDING, transaction_id);
    message.xor_address(attribute::XOR_MAPPED_ADDRESS, mapped);
    message.integrity(key);
    message.finish()
}

/// An error response to a Binding request; `unknown` are the attributes of a 420. `key` is `None` where the request
/// could not be authenticated. Its length, or `None` for want of room.
pub fn write_binding_error(
    out: &mut [u8],
    transaction_id: TransactionId,
    code: u16,
    unknown: &[u16],
    key: Option<&IntegrityKey>,
) -> Option<usize> {
    let mut message = MessageWriter::new(out, Class::Error, method::BINDING, transaction_id);
    message.error_code(code);
    if code == error::UNKNOWN_ATTRIBUTE {
        message.unknown_attributes(unknown);
    }
    if let Some(key) = key {
        message.integrity(key);
    }
    message.finish()
}

/// A connectivity or consent check of ours.
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    /// Random, and remembered until the response.
    pub transaction_id: TransactionId,
    /// The receiver's user fragment.
    pub remote_ufrag: &'a str,
    /// Ours.
    pub local_ufrag: &'a str,
    /// Of the peer-reflexive candidate that the receiver may learn (RFC 8445 §7.1.1).
    pub priority: u32,
    /// Ours; an ICE-lite agent is controlled (RFC 8445 §6.1.1).
    pub role: Role,
}

/// Which side of ICE the sender believes to be on, with its tie-breaker (RFC 8445 §7.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// ICE-CONTROLLED.
    Controlled(u64),
    /// ICE-CONTROLLING, and whether to nominate (USE-CANDIDATE).
    Controlling(u64, bool),
}

/// A Binding request, signed with the *receiver's* password. Its length, or `None` for want of room.
pub fn write_binding_request(out: &mut [u8], request: &BindingRequest<'_>, key: &IntegrityKey) -> Option<usize> {
    let mut message = MessageWriter::new(out, Class::Request, method::BINDING, request.transaction_id);
    message.attribute_of(attribute::USERNAME, |out| {
        out.put(request.remote_ufrag.as_bytes());
        out.put_u8(b':');
        out.put(request.local_ufrag.as_bytes());
    });
    message.attribute(attribute::PRIORITY, &request.priority.to_be_bytes());
    match request.role {
        Role::Controlled(tie_breaker) => message.attribute(attribute::ICE_CONTROLLED, &tie_breaker.to_be_bytes()),
        Role::Controlling(tie_breaker, nominate) => {
            message.attribute(attribute::ICE_CONTROLLING, &tie_breaker.to_be_bytes());
            if nominate {
                message.attribute(attribute::USE_CANDIDATE, &[]);
            }
        }
    }
    message.integrity(key);
    message.finish()
}

/// One message in the making. What has no room shows as `None` from [`finish`](Self::finish).
pub struct MessageWriter<'a> {
    out: Writer<'a>,
    transaction_id: TransactionId,
}

impl<'a> MessageWriter<'a> {
    /// Writes the header.
    pub fn new(out: &'a mut [u8], class: Class, method: u16, transaction_id: TransactionId) -> Self {
        let mut out = Writer::new(out);
        let method = (method & 0x000f) | ((method & 0x0070) << 1) | ((method & 0x0f80) << 2);
        out.put_u16(method | class.bits());
        out.put_u16(0);
        out.put_u32(MAGIC_COOKIE);
        out.put(&transaction_id.0);
        Self { out, transaction_id }
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, attribute: u16, value: &[u8]) {
        self.attribute_of(attribute, |out| out.put(value));
    }

    /// Appends an address in the format of XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
    pub fn xor_address(&mut self, attribute: u16, address: SocketAddr) {
        self.masked_address(attribute, address, self.transaction_id.xor_mask());
    }

    /// Appends an address in the format of MAPPED-ADDRESS (RFC 8489 §14.1).
    pub fn address(&mut self, attribute: u16, address: SocketAddr) {
        self.masked_address(attribute, address, 0);
    }

    /// RFC 8489 §14.2: port and address are XORed with what the mask begins with.
    fn masked_address(&mut self, attribute: u16, address: SocketAddr, mask: u128) {
        self.attribute_of(attribute, |out| {
            out.put_u8(0);
            let port = address.port() ^ (mask >> 112) as u16;
            match address.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    out.put_u8(FAMILY_IPV4);
                    out.put_u16(port);
                    out.put_u32(ip.to_bits() ^ (mask >> 96) as u32);
                }
                IpAddr::V6(ip) => {
                    out.put_u8(FAMILY_IPV6);
                    out.put_u16(port);
                    out.put(&(ip.to_bits() ^ mask).to_be_bytes());
                }
            }
        });
    }

    /// Appends ERROR-CODE with the reason phrase of the code, if it has one here.
    pub fn error_code(&mut self, code: u16) {
        let reason = match code {
            error::BAD_REQUEST => "Bad Request",
            error::UNAUTHENTICATED => "Unauthenticated",
            error::UNKNOWN_ATTRIBUTE => "Unknown Attribute",
            error::ROLE_CONFLICT => "Role Conflict",
            _ => "",
        };
        self.error_code_with(code, reason);
    }

    /// Appends ERROR-CODE without a phrase, which RFC 8489 §14.8 allows: less for those who reflect off us.
    pub fn error_code_bare(&mut self, code: u16) {
        self.error_code_with(code, "");
    }

    fn error_code_with(&mut self, code: u16, reason: &str) {
        self.attribute_of(attribute::ERROR_CODE, |out| {
            out.put(&[0, 0, (code / 100) as u8 & 7, (code % 100) as u8]);
            out.put(reason.as_bytes());
        });
    }

    /// Appends UNKNOWN-ATTRIBUTES (RFC 8489 §14.13).
    pub fn unknown_attributes(&mut self, unknown: &[u16]) {
        self.attribute_of(attribute::UNKNOWN_ATTRIBUTES, |out| unknown.iter().for_each(|&this| out.put_u16(this)));
    }

    /// Appends MESSAGE-INTEGRITY (RFC 8489 §14.5); no attribute after it counts.
    pub fn integrity(&mut self, key: &IntegrityKey) {
        let tag = key.sign(self.out.written()).unwrap_or_default();
        self.attribute(attribute::MESSAGE_INTEGRITY, &tag);
    }

    /// Appends MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6), whole.
    pub fn integrity_sha256(&mut self, key: &IntegrityKey256) {
        let tag = key.sign(self.out.written(), SHA256_LEN);
        let none = &[0; SHA256_LEN][..];
        self.attribute(attribute::MESSAGE_INTEGRITY_SHA256, tag.as_ref().map_or(none, |tag| tag.as_ref()));
    }

    /// Bytes written so far.
    #[expect(clippy::len_without_is_empty, reason = "there is a header from the start")]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// The length of the message as it is, without FINGERPRINT, or `None` for want of room.
    pub fn finish_bare(self) -> Option<usize> {
        self.out.finish()
    }

    /// Appends FINGERPRINT (RFC 8489 §14.7) and gives the length of the message, or `None` for want of room.
    pub fn finish(mut self) -> Option<usize> {
        let length = self.out.len().checked_sub(HEADER_LEN)? + 8;
        self.out.set_u16(2, u16::try_from(length).ok()?);
        let crc = crc32fast::hash(self.out.written()) ^ FINGERPRINT_XOR;
        self.attribute(attribute::FINGERPRINT, &crc.to_be_bytes());
        self.out.finish()
    }

    fn attribute_of(&mut self, attribute: u16, value: impl FnOnce(&mut Writer<'a>)) {
        self.out.put_u16(attribute);
        self.out.put_u16(0);
        let start = self.out.len();
        value(&mut self.out);
        let value_len = self.out.len() - start;
        // Bounded by the buffer, which is a datagram; a longer value would show in `finish`.
        self.out.set_u16(start.wrapping_sub(2), value_len as u16);
        self.out.align();
        let length = self.out.len().saturating_sub(HEADER_LEN);
        self.out.set_u16(2, length as u16);
    }
}
