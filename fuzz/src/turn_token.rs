//! Tokens of third-party authorization (RFC 7635): any bytes as a token, which open nothing; any bytes rightly sealed, which are a
//! token if they look like one to the plainest reader; and a server that such a token is brought to.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ringmain_dataplane::io::{Path, SocketIndex};
use ringmain_dataplane::packet::stun::{
    Class, IntegrityKey, IntegrityKey256, Message, MessageWriter, TransactionId, attribute, method,
};
use ringmain_dataplane::turn::{Client, TokenCipher};
use ringmain_shared::turn::{ThirdParty, TokenSecret, TurnFeatures, TurnTokenKey, TurnTransport};

use crate::turn::{Host, UNIX, code, spec};

/// A first byte that says how the token is used; the rest is the token, or what is sealed in it.
pub fn turn_token(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let cipher = TokenCipher::new(&TokenSecret::Aes256Gcm(SECRET));
    assert_eq!(cipher.open(SERVER, data), None, "nobody guesses a tag");
    let token = seal(data);
    let opened = cipher.open(SERVER, &token);
    let plain = read(data);
    let seen = opened.as_ref().map(|token| (token.mac_key.bytes().to_vec(), token.timestamp, token.lifetime));
    assert_eq!(seen, plain);
    assert_eq!(cipher.open("another", &token), None);
    let Some((mac_key, timestamp, lifetime)) = plain else {
        return bring(&token, &[0; 20], how, false);
    };
    if let Some(opened) = opened.filter(|token| token.timestamp.as_secs() < 1 << 48) {
        assert_eq!(cipher.open(SERVER, &cipher.seal(SERVER, &opened, NONCE)), Some(opened));
    }
    // RFC 7635 §7, and a whole second is left; but no token holds for more than a day.
    let lifetime = lifetime.min(Duration::from_secs(86_400));
    let (reach, off) = (lifetime + Duration::from_secs(5), timestamp.abs_diff(Duration::from_secs(UNIX + 1)));
    let holds = !lifetime.is_zero() && off + Duration::from_secs(1) <= reach;
    let key = if how & 2 != 0 && how & 1 == 0 && mac_key.len() == 20 { &mac_key[..16] } else { &mac_key[..] };
    bring(&token, key, how, holds);
}

/// An Allocate by this token, which is done if it `holds`.
fn bring(token: &[u8], key: &[u8], how: u8, holds: bool) {
    let mut spec = spec(TurnFeatures::default());
    let secret = TokenSecret::Aes256Gcm(SECRET);
    let keys = vec![TurnTokenKey { kid: "kid".into(), secret, expires: None }];
    spec.third_party = Some(ThirdParty { server_name: SERVER.into(), keys });
    let mut host = Host::new(spec);
    let path = Path { socket: SocketIndex(1), remote: ([192, 0, 2, 1], 4000).into() };
    let client = Client { path, transport: TurnTransport::Udp };
    let nonce = host.learn(client);
    let mut bytes = vec![0; 512 * 1024];
    let mut message = MessageWriter::new(&mut bytes, Class::Request, method::ALLOCATE, TransactionId([5; 12]));
    message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    message.attribute(attribute::USERNAME, b"kid");
    message.attribute(attribute::REALM, b"r");
    message.attribute(attribute::NONCE, &nonce);
    message.attribute(attribute::ACCESS_TOKEN, token);
    match how & 1 {
        0 => message.integrity(&IntegrityKey::new(key)),
        _ => message.integrity_sha256(&IntegrityKey256::new(key)),
    }
    let size = message.finish_bare().expect("room");
    let Ok(message) = Message::parse(&bytes[..size]) else { return };
    assert_eq!(message.method(), method::ALLOCATE);
    let (_, sent) = host.say(client, &bytes[..size]);
    let [(_, answer)] = &sent[..] else { panic!("one answer, not {sent:?}") };
    assert_eq!(code(answer), if holds { 0 } else { 401 });
    assert_eq!(host.turn.stats().allocations, u64::from(holds));
}

/// key_length, mac_key, timestamp, lifetime.
fn read(clear: &[u8]) -> Option<(Vec<u8>, Duration, Duration)> {
    let key_len = usize::from(u16::from_be_bytes(clear.get(..2)?.try_into().ok()?));
    if !(16..=64).contains(&key_len) || clear.len() != 2 + key_len + 12 {
        return None;
    }
    let (key, times) = clear[2..].split_at(key_len);
    let timestamp = u64::from_be_bytes(times[..8].try_into().ok()?);
    let lifetime = u32::from_be_bytes(times[8..].try_into().ok()?);
    let timestamp = Duration::from_secs(timestamp >> 16) + Duration::from_secs(timestamp & 0xffff) / 64_000;
    Some((key.to_vec(), timestamp, Duration::from_secs(lifetime.into())))
}

fn seal(clear: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &SECRET).expect("32 bytes"));
    let mut sealed = clear.to_vec();
    let nonce = Nonce::assume_unique_for_key(NONCE);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(SERVER.as_bytes()), &mut sealed).expect("not too long");
    [&[0, 12][..], &NONCE, &sealed, tag.as_ref()].concat()
}

const SERVER: &str = "turn.example";
const SECRET: [u8; 32] = [7; 32];
const NONCE: [u8; 12] = [9; 12];

#[cfg(test)]
mod tests {
    /// Keys of all lengths, at the moments at which tokens begin and end, in plain `cargo test`; the fuzzer goes on from here.
    #[test]
    fn tokens_are_taken_as_the_plainest_reader_has_them() {
        let try_one = |how: u8, key_len: u16, age: i64, lifetime: u32| {
            let timestamp = (super::UNIX + 1).checked_add_signed(-age).expect("after 1970") << 16 | 0x8000;
            let (key, timestamp, lifetime) = (vec![7; key_len.into()], timestamp.to_be_bytes(), lifetime.to_be_bytes());
            super::turn_token(&[&[how][..], &key_len.to_be_bytes(), &key, &timestamp, &lifetime].concat());
        };
        for key_len in [0, 15, 16, 20, 21, 64, 65, 300] {
            try_one((key_len % 2) as u8, key_len, 0, 600);
        }
        for (age, lifetime) in [(603, 600), (604, 600), (605, 600), (-3, 0), (0, 1), (-700, 600), (9, u32::MAX)] {
            [0, 1, 2].into_iter().for_each(|how| try_one(how, 20, age, lifetime));
        }
    }
}
