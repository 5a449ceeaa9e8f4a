//! Who may cause state by DTLS: those who prove that they live at their address (RFC 6347 §4.2.1). The first ClientHello of a stranger
//! is answered with a cookie, shorter than itself, and forgotten. The second brings the cookie, and only then is anything allocated.
//!
//! A cookie is a MAC over address, client random and the minute, so nothing needs to be kept to check it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::hmac;
use ringmain_shared::Now;

/// Makes cookies and checks them.
#[derive(Debug)]
pub struct Cookies {
    key: hmac::Key,
}

/// What a datagram is to a server of DTLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// No ClientHello: for the session of its sender, if there is one.
    Other,
    /// A ClientHello without a valid cookie. This is the answer.
    Challenge([u8; CHALLENGE_SIZE]),
    /// A ClientHello whose sender has received our cookie.
    Proved(Box<Hello>),
    /// A ClientHello that cannot be read, or comes in parts. Real ones come again.
    Junk,
}

/// A ClientHello with its cookie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Tells one handshake from the next.
    pub random: [u8; 32],
    /// Its record's number, from which ours go on (RFC 6347 §4.2.1).
    pub sequence: u64,
    /// The datagram as it was before it had a cookie, for an engine that has not been here before.
    pub first: Vec<u8>,
}

impl Cookies {
    /// With a secret of the process.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Looks at a datagram of anybody's.
    pub fn judge(&self, datagram: &[u8], remote: SocketAddr, now: Now) -> Verdict {
        match datagram {
            [HANDSHAKE, 0xfe, _, 0, 0, rest @ ..] if rest.get(8) == Some(&CLIENT_HELLO) => {
                self.judge_hello(datagram, remote, now).unwrap_or(Verdict::Junk)
            }
            _ => Verdict::Other,
        }
    }

    fn judge_hello(&self, datagram: &[u8], remote: SocketAddr, now: Now) -> Option<Verdict> {
        let (record, rest) = datagram.split_first_chunk::<RECORD_HEADER_SIZE>()?;
        let (header, body) = rest.split_first_chunk::<MESSAGE_HEADER_SIZE>()?;
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        let length = number(header.get(1..4)?) as usize;
        // One record, one message, one fragment.
        if body.len() != length
            || number(record.get(11..13)?) as usize != MESSAGE_HEADER_SIZE + length
            || number(header.get(6..9)?) != 0
            || number(header.get(9..12)?) as usize != length
        {
            return None;
        }
        // RFC 6347 §4.3.2: version, random, session id, cookie.
        let random: [u8; 32] = *body.get(2..)?.first_chunk()?;
        let cookie_at = 35 + usize::from(*body.get(34)?);
        let cookie_len = usize::from(*body.get(cookie_at)?);
        let cookie = body.get(cookie_at + 1..cookie_at + 1 + cookie_len)?;
        let sequence = number(record.get(5..11)?);
        let minute = now.as_millis() / LIFETIME.as_millis() as u64;
        let is_ours = [minute, minute.saturating_sub(1)].iter().any(|&minute| {
            let expected = self.cookie(remote, &random, minute);
            aws_lc_rs::constant_time::verify_slices_are_equal(&expected, cookie).is_ok()
        });
        if !is_ours {
            return Some(Verdict::Challenge(challenge(sequence, &self.cookie(remote, &random, minute))));
        }
        let mut first = Vec::with_capacity(datagram.len());
        let shorter = (length - cookie_len) as u32;
        first.extend_from_slice(record.get(..11)?);
        first.extend_from_slice(&(MESSAGE_HEADER_SIZE as u16 + shorter as u16).to_be_bytes());
        let [_, length_bytes @ ..] = shorter.to_be_bytes();
        first.push(CLIENT_HELLO);
        first.extend_from_slice(&length_bytes);
        first.extend_from_slice(&[0, 0, 0, 0, 0]);
        first.extend_from_slice(&length_bytes);
        first.extend_from_slice(body.get(..cookie_at)?);
        first.push(0);
        first.extend_from_slice(body.get(cookie_at + 1 + cookie_len..)?);
        Some(Verdict::Proved(Box::new(Hello { random, sequence, first })))
    }

    fn cookie(&self, remote: SocketAddr, random: &[u8; 32], minute: u64) -> [u8; COOKIE_SIZE] {
        let mut context = hmac::Context::with_key(&self.key);
        match remote.ip() {
            IpAddr::V4(v4) => context.update(&v4.octets()),
            IpAddr::V6(v6) => context.update(&v6.octets()),
        }
        context.update(&remote.port().to_be_bytes());
        context.update(random);
        context.update(&minute.to_be_bytes());
        let mut cookie = [0; COOKIE_SIZE];
        cookie.iter_mut().zip(context.sign().as_ref()).for_each(|(byte, tag)| *byte = *tag);
        cookie
    }
}

/// HelloVerifyRequest, under the record number of what it answers (RFC 6347 §4.2.1), in the version that every client takes.
fn challenge(sequence: u64, cookie: &[u8; COOKIE_SIZE]) -> [u8; CHALLENGE_SIZE] {
    let mut out = [0; CHALLENGE_SIZE];
    let [_, _, sequence @ ..] = sequence.to_be_bytes();
    let body = (3 + COOKIE_SIZE) as u8;
    let (record, rest) = out.split_at_mut(RECORD_HEADER_SIZE);
    record.copy_from_slice(
        &[&[HANDSHAKE, 0xfe, 0xff, 0, 0][..], &sequence, &[0, MESSAGE_HEADER_SIZE as u8 + body]].concat(),
    );
    rest.copy_from_slice(
        &[&[HELLO_VERIFY_REQUEST, 0, 0, body, 0, 0, 0, 0, 0, 0, 0, body, 0xfe, 0xff, COOKIE_SIZE as u8][..], cookie]
            .concat(),
    );
    out
}

/// Time in which a cookie must come back; twice that at most.
const LIFETIME: Duration = Duration::from_secs(60);
const COOKIE_SIZE: usize = 16;
const RECORD_HEADER_SIZE: usize = 13;
const MESSAGE_HEADER_SIZE: usize = 12;
const CHALLENGE_SIZE: usize = RECORD_HEADER_SIZE + MESSAGE_HEADER_SIZE + 3 + COOKIE_SIZE;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cookie: &[u8], sequence: u8) -> Vec<u8> {
        let mut body = vec![0xfe, 0xfd];
        body.extend([9; 32]);
        body.extend([2, 7, 7]);
        body.push(cookie.len() as u8);
        body.extend(cookie);
        body.extend([0, 2, 0xc0, 0x2f, 1, 0]);
        let size = body.len() as u8;
        let mut out =
            vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, sequence, 0, size + 12, 1, 0, 0, size, 0, sequence, 0, 0, 0];
        out.extend([0, 0, size]);
        out.extend(body);
        out
    }

    fn there() -> SocketAddr {
        "192.0.2.1:5".parse().expect("an address")
    }

    fn cookie_of(cookies: &Cookies, now: Now) -> Vec<u8> {
        let Verdict::Challenge(bytes) = cookies.judge(&hello(&[], 0), there(), now) else { panic!("a stranger") };
        bytes[28..].to_vec()
    }

    #[test]
    fn who_brings_the_cookie_back_is_proved_and_nobody_else() {
        let cookies = Cookies::new(&[1; 32]);
        let now = Now::from_millis(1);
        let cookie = cookie_of(&cookies, now);
        let Verdict::Proved(proved) = cookies.judge(&hello(&cookie, 1), there(), now) else { panic!("proved") };
        let mut first = hello(&[], 0);
        first[10] = 1;
        assert_eq!(*proved, Hello { random: [9; 32], sequence: 1, first });
        let mut flipped = cookie.clone();
        flipped[3] ^= 1;
        for (cookie, remote) in [
            (&flipped, there()),
            (&cookie, "192.0.2.2:5".parse().expect("an address")),
            (&cookie, "192.0.2.1:6".parse().expect("an address")),
            (&cookie[..15].to_vec(), there()),
        ] {
            assert!(matches!(cookies.judge(&hello(cookie, 1), remote, now), Verdict::Challenge(_)), "{remote}");
        }
        let stranger = Cookies::new(&[2; 32]);
        assert!(matches!(stranger.judge(&hello(&cookie, 1), there(), now), Verdict::Challenge(_)));
    }

    #[test]
    fn a_cookie_ages() {
        let cookies = Cookies::new(&[1; 32]);
        let cookie = cookie_of(&cookies, Now::from_millis(59_000));
        let judge =
            |millis| matches!(cookies.judge(&hello(&cookie, 1), there(), Now::from_millis(millis)), Verdict::Proved(_));
        assert!(judge(61_000) && judge(119_000) && !judge(120_000));
    }

    #[test]
    fn a_challenge_is_shorter_than_what_it_answers_and_repeats_its_number() {
        let cookies = Cookies::new(&[1; 32]);
        let hello = hello(&[], 5);
        let Verdict::Challenge(bytes) = cookies.judge(&hello, there(), Now(0)) else { panic!("a stranger") };
        assert!(bytes.len() < hello.len());
        assert_eq!(bytes[..13], [22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 0, 31]);
    }

    #[test]
    fn cut_anywhere_or_of_another_kind_it_is_no_hello() {
        let cookies = Cookies::new(&[1; 32]);
        let hello = hello(&cookie_of(&cookies, Now(0)), 1);
        for size in 0..hello.len() {
            let verdict = cookies.judge(&hello[..size], there(), Now(0));
            assert!(matches!(verdict, Verdict::Junk | Verdict::Other), "{size} bytes");
        }
        for at in 0..hello.len() {
            for value in [0, 0xff] {
                let mut changed = hello.clone();
                changed[at] = value;
                let _ = cookies.judge(&changed, there(), Now(0));
            }
        }
        assert_eq!(cookies.judge(&[23, 0xfe, 0xfd, 0, 1, 0, 0], there(), Now(0)), Verdict::Other);
    }
}
