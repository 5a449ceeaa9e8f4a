//! The little of STUN (RFC 8489) and of ICE's attributes (RFC 8445 §7.1) that a client with one candidate needs: binding
//! requests and their answers, with integrity and fingerprint.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

/// Twelve bytes that pair a response with its request.
pub(super) type TransactionId = [u8; 12];

/// Which side decides on the pair (RFC 8445 §6.1.1), with its tie-breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Controlling(u64),
    Controlled(u64),
}

/// A message whose fingerprint, if it has one, and integrity are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// The server checks us.
    Request(TransactionId),
    /// It answers our check.
    Success(TransactionId),
    /// It refuses our check.
    Failure(TransactionId, u16),
}

/// A binding request; `user` is `remote:local`, `password` the remote one. A controlling side nominates with it.
pub(super) fn request(id: TransactionId, user: &str, password: &str, role: Role) -> Vec<u8> {
    let mut message = Writer::new(BINDING_REQUEST, id);
    message.attribute(USERNAME, user.as_bytes());
    // RFC 8445 §5.1.2: of a host candidate seen as peer reflexive.
    message.attribute(PRIORITY, &(110 << 24 | 65_535 << 8 | 255_u32).to_be_bytes());
    match role {
        Role::Controlling(tie_breaker) => {
            message.attribute(ICE_CONTROLLING, &tie_breaker.to_be_bytes());
            message.attribute(USE_CANDIDATE, &[]);
        }
        Role::Controlled(tie_breaker) => message.attribute(ICE_CONTROLLED, &tie_breaker.to_be_bytes()),
    }
    message.finish(password)
}

/// The answer to a request that came from `from`.
pub(super) fn success(id: TransactionId, from: SocketAddr, password: &str) -> Vec<u8> {
    let mut message = Writer::new(BINDING_SUCCESS, id);
    let port = (from.port() ^ (MAGIC >> 16) as u16).to_be_bytes();
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC.to_be_bytes());
    mask[4..].copy_from_slice(&id);
    let (family, address) = match from.ip() {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let mut value = vec![0, family, port[0], port[1]];
    value.extend(address.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    message.attribute(XOR_MAPPED_ADDRESS, &value);
    message.finish(password)
}

/// Reads a message. Its integrity must be that of `local` for a request and of `remote` for an answer; an error response may
/// lack it, as one to a request with a wrong password must (RFC 8489 §9.1.3).
pub(super) fn read(bytes: &[u8], local: &str, remote: &str) -> Option<Message> {
    let (header, mut rest) = bytes.split_at_checked(HEADER_SIZE)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != MAGIC.to_be_bytes() || length != rest.len() || length % 4 != 0 {
        return None;
    }
    let kind = u16::from_be_bytes([header[0], header[1]]);
    let id: TransactionId = header[8..20].try_into().ok()?;
    let password = if kind == BINDING_REQUEST { local } else { remote };
    let (mut is_whole, mut is_authentic, mut code) = (false, false, 0);
    while let Some((head, after)) = rest.split_at_checked(4) {
        let at = bytes.len() - rest.len();
        let (name, size) =
            (u16::from_be_bytes([head[0], head[1]]), usize::from(u16::from_be_bytes([head[2], head[3]])));
        let (value, after) = (after.get(..size)?, after.get(size.next_multiple_of(4)..)?);
        match name {
            MESSAGE_INTEGRITY => is_authentic = value == integrity(&bytes[..at], password),
            // RFC 8445 §7.1: every check and every answer to one has a fingerprint.
            FINGERPRINT => is_whole = value == fingerprint(&bytes[..at]),
            // RFC 8489 §14.8: class and number.
            ERROR_CODE => code = u16::from(value.get(2)? & 7) * 100 + u16::from(*value.get(3)?),
            _ => {}
        }
        rest = after;
    }
    match kind {
        BINDING_REQUEST if is_authentic && is_whole => Some(Message::Request(id)),
        BINDING_SUCCESS if is_authentic && is_whole => Some(Message::Success(id)),
        BINDING_FAILURE => Some(Message::Failure(id, code)),
        _ => None,
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u16, id: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC.to_be_bytes());
        bytes.extend(id);
        Self(bytes)
    }

    fn attribute(&mut self, name: u16, value: &[u8]) {
        self.0.extend(name.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let length = (self.0.len() - HEADER_SIZE) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }

    fn finish(mut self, password: &str) -> Vec<u8> {
        let tag = integrity(&self.0, password);
        self.attribute(MESSAGE_INTEGRITY, &tag);
        let crc = fingerprint(&self.0);
        self.attribute(FINGERPRINT, &crc);
        self.0
    }
}

/// RFC 8489 §14.5: over what comes before, with the length as if the message ended with this attribute.
fn integrity(before: &[u8], password: &str) -> [u8; 20] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    with_length(before, 24, |part| context.update(part));
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// RFC 8489 §14.7.
fn fingerprint(before: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    with_length(before, 8, |part| hasher.update(part));
    (hasher.finalize() ^ 0x5354_554e).to_be_bytes()
}

/// Gives `before` to `take`, its length field as it is when an attribute of `size` bytes follows.
fn with_length(before: &[u8], size: usize, mut take: impl FnMut(&[u8])) {
    let length = (before.len() - HEADER_SIZE + size) as u16;
    take(&before[..2]);
    take(&length.to_be_bytes());
    take(&before[4..]);
}

const HEADER_SIZE: usize = 20;
const MAGIC: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_FAILURE: u16 = 0x0111;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1, with our reading of whose password it is.
    #[test]
    fn the_sample_request_of_rfc_5769_is_authentic() {
        let sample = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\x80\x22\x00\x10\
            STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
            \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\
            \x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";
        let password = "VOkJxbRl1RmTxUk/WvJxBt";
        assert!(matches!(read(sample, password, "another"), Some(Message::Request(_))));
        assert_eq!(read(sample, "another", password), None);
    }

    /// RFC 5769 §2.2: the address is 192.0.2.1 port 32853.
    #[test]
    fn the_sample_response_of_rfc_5769_is_what_we_write_but_for_its_software() {
        let id = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
        let from = "192.0.2.1:32853".parse().expect("an address");
        let answer = success(id, from, "pwd");
        assert_eq!(answer[20..32], *b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
        assert_eq!(read(&answer, "", "pwd"), Some(Message::Success(id)));
    }

    #[test]
    fn what_is_cut_or_changed_is_not_read() {
        let whole = request([7; 12], "them:us", "pwd", Role::Controlling(9));
        assert_eq!(read(&whole, "pwd", ""), Some(Message::Request([7; 12])));
        (0..whole.len()).for_each(|size| assert_eq!(read(&whole[..size], "pwd", ""), None, "{size}"));
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read(&changed, "pwd", ""), Some(Message::Request(_))), "bit {bit}");
        }
    }
}
