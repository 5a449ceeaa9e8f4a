//! A DTLS 1.3 server from the end of its handshake on (RFC 9147), where `dimpl` is let go of: data, close_notify, updates of keys from
//! either end (§8), and ACKs for a client that repeats what it has said (§7). Knows nothing of handshakes.
//!
//! `dimpl` keeps 14 KiB for as long as it lives, of which hardly any is needed after the handshake; this takes half a kibibyte (what else
//! there is of an idle connection, [`handshake`](crate::handshake) tells). What a client may say then is an update of its keys: nothing
//! else was agreed on.

use std::mem;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use bytes::Bytes;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;

use super::Datagram;
use super::records::{ALERT, APPLICATION_DATA, HANDSHAKE};
use super::records13::{Epoch, Opened, Reading, epoch_bits, split};
pub use super::secrets::Secrets;
pub use super::{Fatal, Produced};

/// Both directions of one association.
#[derive(Debug)]
pub struct Established {
    write: Epoch,
    /// What our next record is numbered.
    next: u64,
    read: Reading,
    /// What came before `read`, until a record came after (§8).
    former: Option<Box<Reading>>,
    /// In which the client repeats the end of its handshake, if our ACK of it was lost, until it changes its keys.
    handshake: Option<Box<Reading>>,
    /// Numbers of the handshake messages that come next: theirs and ours.
    theirs: u16,
    ours: u16,
    /// Records that were not authentic.
    forged: u64,
    update: Option<Box<Update>>,
}

/// An update of our keys that was not acknowledged yet.
#[derive(Debug)]
struct Update {
    message: u16,
    /// Numbers of the records that it went in, the latest ones.
    sent: ArrayVec<u64, TRANSMISSIONS_MAX>,
    interval: Duration,
    deadline: Instant,
    /// Another one was asked for meanwhile.
    again: bool,
}

/// What the records of one datagram ask for.
#[derive(Default)]
struct Replies {
    /// Epoch and number of records to acknowledge.
    acknowledge: ArrayVec<(u64, u64), ACKNOWLEDGED_MAX>,
    update: bool,
}

impl Established {
    /// `hello` is the number of the message that the ServerHello was, `sent` the records in epoch 3 that went out already.
    pub fn new<'a>(secrets: &Secrets, hello: u16, sent: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let reading = |number, secret: &[u8]| Epoch::new(secrets.suite, number, secret).map(Reading::new);
        let write = Epoch::new(secrets.suite, APPLICATION_EPOCH, &*secrets.server)?;
        // They prove besides that these are the keys that they were written with.
        let mut plaintext = [0; DATAGRAM_SIZE_MAX];
        let mut next = 0;
        for record in sent {
            next = next.max(write.open(record, next, &mut plaintext)?.sequence + 1);
        }
        let mut handshake = reading(HANDSHAKE_EPOCH, &*secrets.client_handshake)?;
        handshake.epoch.forget_secret();
        Some(Self {
            write,
            next,
            read: reading(APPLICATION_EPOCH, &*secrets.client)?,
            former: None,
            handshake: Some(Box::new(handshake)),
            theirs: hello.checked_add(CLIENT_MESSAGES)?,
            ours: hello.checked_add(SERVER_MESSAGES)?,
            forged: 0,
            update: None,
        })
    }

    /// What is said of one datagram of the peer. After an `Err` the association is over.
    pub fn handle_datagram(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let mut plaintext = [0; DATAGRAM_SIZE_MAX];
        let mut replies = Replies::default();
        for record in split(bytes) {
            let Some((epoch, opened)) = self.open(record, &mut plaintext)? else { continue };
            let is_application = epoch != HANDSHAKE_EPOCH;
            match (opened.content, plaintext.get(..opened.size).unwrap_or_default()) {
                (APPLICATION_DATA, data) if is_application => out.push(Produced::Data(Bytes::copy_from_slice(data))),
                (HANDSHAKE, messages) if self.hear(epoch, messages, &mut replies)? => {
                    // Those beyond the bound are repeated, and have their turn then.
                    let _ = replies.acknowledge.try_push((epoch, opened.sequence));
                }
                (ACK, numbers) if is_application => self.acknowledged(numbers, now, out)?,
                // RFC 8446 §6.1: whatever comes after it is passed over.
                (ALERT, [_, CLOSE_NOTIFY]) if is_application => {
                    out.push(Produced::CloseNotify);
                    return Ok(());
                }
                // RFC 8446 §6: the description alone says how bad it is.
                (ALERT, &[_, description]) if is_application && description != USER_CANCELED => return Err(Fatal),
                _ => {}
            }
        }
        self.reply(&replies, now, out)
    }

    /// To be called when [`deadline`](Self::deadline) has come; sooner, it does nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        match &mut self.update {
            Some(update) if update.deadline <= now => {
                update.interval = (update.interval * 2).min(RETRANSMIT_LAST);
                self.say_update(now, out)
            }
            _ => Ok(()),
        }
    }

    /// When an update of our keys is to be said again.
    pub fn deadline(&self) -> Option<Instant> {
        self.update.as_ref().map(|update| update.deadline)
    }

    /// Sends application data as one record, which is lost if it does not fit a datagram.
    pub fn send(&mut self, data: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        self.seal(APPLICATION_DATA, data, out)?;
        if self.next >= UPDATE_AT && self.update.is_none() { self.begin_update(now, out) } else { Ok(()) }
    }

    /// Says close_notify, which is the last word.
    pub fn close(&mut self, out: &mut Vec<Produced>) {
        // The association is over whether or not its last word can be said.
        let _ = self.seal(ALERT, &[WARNING, CLOSE_NOTIFY], out);
    }

    /// The epoch and the plaintext of a record that is authentic and new.
    fn open(&mut self, record: &[u8], plaintext: &mut [u8]) -> Result<Option<(u64, Opened)>, Fatal> {
        // Nothing in plaintext is believed any more.
        let Some(bits) = epoch_bits(record) else { return Ok(None) };
        let current = self.read.epoch.number();
        let former = self.former.as_deref_mut();
        let candidates = [Some(&mut self.read), former, self.handshake.as_deref_mut()];
        let found =
            candidates.into_iter().flatten().filter(|reading| reading.epoch.bits() == bits).find_map(|reading| {
                let (opened, is_new) = reading.open(record, plaintext)?;
                Some((reading.epoch.number(), opened, is_new))
            });
        if let Some((number, opened, is_new)) = found {
            if number == current {
                self.former = None;
            }
            return Ok(is_new.then_some((number, opened)));
        }
        self.forged += 1;
        // RFC 9147 §4.5.3.
        if self.forged > FORGED_MAX { Err(Fatal) } else { Ok(None) }
    }

    /// Acts on the messages of a handshake record; whether all of them have been acted upon, now or before.
    fn hear(&mut self, epoch: u64, messages: &[u8], replies: &mut Replies) -> Result<bool, Fatal> {
        let mut rest = messages;
        let mut done = !rest.is_empty();
        while let Some(&[_, _, _, _, high, low, _, _, _, a, b, c]) = rest.first_chunk::<MESSAGE_HEADER_SIZE>() {
            let size = MESSAGE_HEADER_SIZE + u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((message, after)) = rest.split_at_checked(size) else { return Ok(false) };
            rest = after;
            let (number, requested) = (u16::from_be_bytes([high, low]), message.last().copied().unwrap_or_default());
            if number < self.theirs {
                continue;
            }
            // Its sender changes keys behind it, so it comes with the latest that there are.
            let is_next = number == self.theirs && epoch == self.read.epoch.number();
            // RFC 8446 §4.6: no other message was agreed on.
            if is_next && message.first() != Some(&KEY_UPDATE) {
                return Err(Fatal);
            }
            if is_next && message == update_message(number, requested) {
                replies.update |= self.follow(requested)?;
            } else {
                // Out of turn, or in pieces though it is a byte: it is not acknowledged either.
                done = false;
            }
        }
        Ok(done && rest.is_empty())
    }

    /// The peer writes with the keys that follow; whether we are asked to do so too.
    fn follow(&mut self, requested: u8) -> Result<bool, Fatal> {
        if requested > UPDATE_REQUESTED {
            return Err(Fatal);
        }
        self.theirs = self.theirs.checked_add(1).ok_or(Fatal)?;
        let following = self.read.epoch.following().map(Reading::new).ok_or(Fatal)?;
        self.former = Some(Box::new(mem::replace(&mut self.read, following)));
        self.handshake = None;
        Ok(requested == UPDATE_REQUESTED)
    }

    /// The peer has these records. If our update is among them, it can read what is written with the keys that follow (§8).
    fn acknowledged(&mut self, numbers: &[u8], now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let (Some(update), Some((size, numbers))) = (&self.update, numbers.split_first_chunk()) else { return Ok(()) };
        if usize::from(u16::from_be_bytes(*size)) != numbers.len() {
            return Ok(());
        }
        let arrived = numbers.as_chunks::<8>().0.as_chunks::<2>().0.iter().any(|[epoch, sequence]| {
            u64::from_be_bytes(*epoch) == self.write.number() && update.sent.contains(&u64::from_be_bytes(*sequence))
        });
        if !arrived {
            return Ok(());
        }
        self.write = self.write.following().ok_or(Fatal)?;
        self.next = 0;
        let again = self.update.take().is_some_and(|update| update.again);
        if again { self.begin_update(now, out) } else { Ok(()) }
    }

    fn reply(&mut self, replies: &Replies, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        if !replies.acknowledge.is_empty() {
            let mut ack = ArrayVec::<u8, { 2 + 16 * ACKNOWLEDGED_MAX }>::new();
            ack.extend((16 * replies.acknowledge.len() as u16).to_be_bytes());
            let numbers = replies.acknowledge.iter().flat_map(|&(epoch, sequence)| [epoch, sequence]);
            ack.extend(numbers.flat_map(u64::to_be_bytes));
            self.seal(ACK, &ack, out)?;
        }
        match &mut self.update {
            // RFC 8446 §4.6.3: to be answered by one that is sent after it came.
            Some(update) => update.again |= replies.update,
            None if replies.update || self.next >= UPDATE_AT => self.begin_update(now, out)?,
            None => {}
        }
        Ok(())
    }

    fn begin_update(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let message = self.ours;
        self.ours = message.checked_add(1).ok_or(Fatal)?;
        let (sent, interval) = (ArrayVec::new(), RETRANSMIT_FIRST);
        let update = Update { message, sent, interval, deadline: now, again: false };
        self.update = Some(Box::new(update));
        self.say_update(now, out)
    }

    /// Sends the update of our keys, for the first time or again. Until it is acknowledged, everything goes with the keys before it.
    fn say_update(&mut self, now: Instant, out: &mut Vec<Produced>) -> Result<(), Fatal> {
        let Some(update) = &mut self.update else { return Ok(()) };
        update.deadline = now + update.interval;
        if update.sent.is_full() {
            update.sent.remove(0);
        }
        update.sent.push(self.next);
        let message = update_message(update.message, UPDATE_NOT_REQUESTED);
        self.seal(HANDSHAKE, &message, out)
    }

    /// Sends one record. Datagrams may be lost, so one that does not fit is.
    fn seal(&mut self, content: u8, data: &[u8], out: &mut Vec<Produced>) -> Result<(), Fatal> {
        // The peer has left an update unanswered for as many records as went before it.
        if self.next >= SEALED_MAX {
            return Err(Fatal);
        }
        let record: Option<Datagram> = self.write.seal(self.next, content, data);
        self.next += 1;
        out.extend(record.map(Produced::Datagram));
        Ok(())
    }
}

/// A KeyUpdate (RFC 8446 §4.6.3), in one piece: type, size, number, offset and size of the piece (RFC 9147 §5.2), and what it asks for.
fn update_message(number: u16, requested: u8) -> [u8; MESSAGE_HEADER_SIZE + 1] {
    let [high, low] = number.to_be_bytes();
    [KEY_UPDATE, 0, 0, 1, high, low, 0, 0, 0, 0, 0, 1, requested]
}

/// RFC 9147 §6.1.
const HANDSHAKE_EPOCH: u64 = 2;
pub(super) const APPLICATION_EPOCH: u64 = 3;
/// From ServerHello on: EncryptedExtensions, CertificateRequest, Certificate, CertificateVerify, Finished.
const SERVER_MESSAGES: u16 = 6;
/// From the ClientHello on that the ServerHello answers: Certificate, CertificateVerify, Finished.
const CLIENT_MESSAGES: u16 = 4;

/// Content type (§7).
const ACK: u8 = 26;
/// Alerts (RFC 8446 §6).
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
/// RFC 8446 §4.6.3.
const KEY_UPDATE: u8 = 24;
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;
const MESSAGE_HEADER_SIZE: usize = 12;

/// Records after which keys are changed, and after which they have to be: AES-GCM seals 2^24.5 under one key (§4.5.3).
const UPDATE_AT: u64 = 1 << 23;
const SEALED_MAX: u64 = 1 << 24;
/// Records of one association that may fail to open (§4.5.3).
const FORGED_MAX: u64 = 1 << 36;
/// Records that one ACK names: those of a datagram.
const ACKNOWLEDGED_MAX: usize = 16;
/// Records of an update that an ACK may still name.
const TRANSMISSIONS_MAX: usize = 16;
/// First retransmission of an update; then doubling.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
/// The longest wait for one (§5.8.2).
const RETRANSMIT_LAST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::records::Suite;
    use super::super::records13::{HASH_SIZE_MAX, Secret};
    use super::*;

    const SUITE: Suite = Suite::Aes128Gcm;

    fn secret(fill: u8) -> Secret {
        Secret::new([fill; HASH_SIZE_MAX])
    }

    fn established() -> Established {
        let secrets = Secrets { suite: SUITE, client_handshake: secret(2), client: secret(3), server: secret(4) };
        Established::new(&secrets, 0, std::iter::empty()).expect("keys")
    }

    fn client(number: u64) -> Epoch {
        let first = Epoch::new(SUITE, APPLICATION_EPOCH, &*secret(3)).expect("keys");
        (APPLICATION_EPOCH..number).fold(first, |epoch, _| epoch.following().expect("keys"))
    }

    fn datagrams(out: &mut Vec<Produced>) -> Vec<Datagram> {
        let of = |item| match item {
            Produced::Datagram(bytes) => Some(bytes),
            _ => None,
        };
        out.drain(..).filter_map(of).collect()
    }

    /// Content and plaintext of one of our records.
    fn read(epoch: &Epoch, record: &[u8], expected: u64) -> (u8, Vec<u8>) {
        let mut plaintext = [0; DATAGRAM_SIZE_MAX];
        let opened = epoch.open(record, expected, &mut plaintext).expect("authentic");
        (opened.content, plaintext[..opened.size].to_vec())
    }

    fn ack(numbers: &[(u64, u64)]) -> Vec<u8> {
        let mut ack = (16 * numbers.len() as u16).to_be_bytes().to_vec();
        ack.extend(numbers.iter().flat_map(|&(epoch, sequence)| [epoch, sequence]).flat_map(u64::to_be_bytes));
        ack
    }

    #[test]
    fn keys_are_changed_before_they_are_worn_out() {
        let (mut ours, mut out, now) = (established(), Vec::new(), Instant::now());
        let reader = Epoch::new(SUITE, APPLICATION_EPOCH, &*secret(4)).expect("keys");
        ours.next = UPDATE_AT - 1;
        ours.send(b"words", now, &mut out).expect("sends");
        let sent = datagrams(&mut out);
        assert_eq!(read(&reader, &sent[0], UPDATE_AT), (APPLICATION_DATA, b"words".to_vec()));
        assert_eq!(read(&reader, &sent[1], UPDATE_AT), (HANDSHAKE, update_message(6, 0).to_vec()));
        // Nobody answers: it is said again, later and later, and nothing else changes.
        let mut deadlines = Vec::new();
        for _ in 0..12 {
            let at = ours.deadline().expect("not acknowledged yet");
            ours.handle_timeout(at - Duration::from_millis(1), &mut out).expect("alive");
            assert!(out.is_empty());
            ours.handle_timeout(at, &mut out).expect("alive");
            assert_eq!(read(&reader, &datagrams(&mut out)[0], UPDATE_AT).1, update_message(6, 0));
            deadlines.push(ours.deadline().expect("not yet") - at);
        }
        assert_eq!((deadlines[0], deadlines[11]), (2 * RETRANSMIT_FIRST, RETRANSMIT_LAST));
        // Lies about it do nothing: other records, another epoch, and lists that are not what they say.
        let list = ack(&[(3, UPDATE_AT)]);
        let lies = [ack(&[(3, UPDATE_AT - 1), (4, UPDATE_AT)]), list[..17].to_vec(), vec![], vec![0], ack(&[])];
        for (sequence, lie) in lies.iter().enumerate() {
            let record = client(3).seal(sequence as u64, ACK, lie).expect("fits");
            ours.handle_datagram(&record, now, &mut out).expect("alive");
            assert_eq!(ours.write.number(), 3);
        }
        let record = client(3).seal(9, ACK, &list).expect("fits");
        ours.handle_datagram(&record, now, &mut out).expect("alive");
        assert_eq!((ours.write.number(), ours.next, ours.deadline()), (4, 0, None));
        ours.send(b"more", now, &mut out).expect("sends");
        let sent = datagrams(&mut out);
        assert_eq!(read(&reader.following().expect("keys"), &sent[0], 0), (APPLICATION_DATA, b"more".to_vec()));
        // A peer that never acknowledges one is left, before the keys are.
        ours.next = SEALED_MAX;
        assert!(ours.send(b"no", now, &mut out).is_err() && out.is_empty());
    }

    #[test]
    fn an_update_of_the_peer_is_followed_once_and_acknowledged_each_time() {
        let (mut ours, mut out, now) = (established(), Vec::new(), Instant::now());
        let reader = Epoch::new(SUITE, APPLICATION_EPOCH, &*secret(4)).expect("keys");
        let said =
            |epoch: u64, sequence, message: &[u8]| client(epoch).seal(sequence, HANDSHAKE, message).expect("fits");
        // Before its turn, or cut into pieces: neither followed nor acknowledged.
        let mut pieces = update_message(4, 0);
        pieces[11] = 0;
        for (sequence, message) in
            [&update_message(5, 0)[..], &pieces[..12], &pieces[..11], &[]].into_iter().enumerate()
        {
            ours.handle_datagram(&said(3, sequence as u64, message), now, &mut out).expect("alive");
            assert!(out.is_empty() && ours.read.epoch.number() == 3);
        }
        let update = said(3, 10, &update_message(4, 0));
        for is_new in [true, false] {
            ours.handle_datagram(&update, now, &mut out).expect("alive");
            let expected = if is_new { vec![(ACK, ack(&[(3, 10)]))] } else { vec![] };
            let replies: Vec<_> = datagrams(&mut out).iter().map(|record| read(&reader, record, 0)).collect();
            assert_eq!((replies, ours.read.epoch.number()), (expected, 4));
        }
        // Said again, as our ACK was lost, with data from before and after it: keys from before go with the first from after.
        let again = said(3, 11, &update_message(4, 0));
        let before = client(3).seal(9, APPLICATION_DATA, b"before").expect("fits");
        let after = client(4).seal(0, APPLICATION_DATA, b"after").expect("fits");
        ours.handle_datagram(&[&again[..], &before, &after].concat(), now, &mut out).expect("alive");
        let data: Vec<_> = out
            .iter()
            .filter_map(|item| if let Produced::Data(data) = item { Some(&data[..]) } else { None })
            .collect();
        assert_eq!(data, [b"before".as_slice(), b"after"]);
        assert_eq!(read(&reader, &datagrams(&mut out)[0], 1), (ACK, ack(&[(3, 11)])));
        assert!(ours.former.is_none());
        ours.handle_datagram(&client(3).seal(12, APPLICATION_DATA, b"late").expect("fits"), now, &mut out)
            .expect("alive");
        assert!(out.is_empty());
        // Asked for ours, we begin it; twice asked, once.
        for (epoch, number) in [(4, 5), (5, 6)] {
            ours.handle_datagram(&said(epoch, 1, &update_message(number, UPDATE_REQUESTED)), now, &mut out)
                .expect("alive");
        }
        let replies: Vec<_> = datagrams(&mut out).iter().map(|record| read(&reader, record, 2)).collect();
        let update = (HANDSHAKE, update_message(6, UPDATE_NOT_REQUESTED).to_vec());
        assert_eq!(replies, [(ACK, ack(&[(4, 1)])), update, (ACK, ack(&[(5, 1)]))]);
        // The second one has its answer when the first is done.
        let arrived = client(6).seal(0, ACK, &ack(&[(3, 3)])).expect("fits");
        ours.handle_datagram(&arrived, now, &mut out).expect("alive");
        let update = (HANDSHAKE, update_message(7, UPDATE_NOT_REQUESTED).to_vec());
        assert_eq!(read(&reader.following().expect("keys"), &datagrams(&mut out)[0], 0), update);
        // What no update may say, and what nobody asked for.
        assert!(ours.handle_datagram(&said(6, 2, &update_message(7, 2)), now, &mut out).is_err());
        let mut other = update_message(7, 0);
        other[0] = 4;
        assert!(ours.handle_datagram(&said(6, 3, &other), now, &mut out).is_err());
    }

    #[test]
    fn alerts_say_what_they_say_by_their_description() {
        let (mut out, now) = (Vec::new(), Instant::now());
        for (alert, is_fatal, is_end) in [
            (&[1, 0][..], false, true),
            (&[2, 0], false, true),
            (&[1, 90], false, false),
            (&[1, 40], true, false),
            (&[2, 40], true, false),
            (&[1], false, false),
            (&[1, 0, 0], false, false),
        ] {
            out.clear();
            let mut ours = established();
            let record = client(3).seal(0, ALERT, alert).expect("fits");
            assert_eq!(ours.handle_datagram(&record, now, &mut out).is_err(), is_fatal, "{alert:?}");
            assert_eq!(matches!(out[..], [Produced::CloseNotify]), is_end, "{alert:?}");
        }
    }

    /// A client that has the keys may seal anything. It can end its association by that, and do no more.
    #[test]
    fn whatever_a_client_seals_is_survived() {
        let (mut out, now, mut state) = (Vec::new(), Instant::now(), 1u64);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let (mut ended, mut updated) = (0, 0);
        for _ in 0..2_000 {
            let mut ours = established();
            for sequence in 0..16 {
                let mut message = update_message(4, next() & 1).to_vec();
                message.resize(usize::from(next() % 40), 0);
                for _ in 0..next() % 3 {
                    let at = usize::from(next()) % message.len().max(1);
                    if let Some(byte) = message.get_mut(at) {
                        *byte = next() % 8;
                    }
                }
                let record = client(3).seal(sequence, 20 + next() % 8, &message).expect("fits");
                if ours.handle_datagram(&record, now, &mut out).is_err() {
                    ended += 1;
                    break;
                }
            }
            updated += usize::from(ours.read.epoch.number() > 3);
            let sent: usize = out.drain(..).filter(|item| matches!(item, Produced::Datagram(_))).count();
            assert!(sent <= 32, "an answer and an update to a record, at most");
        }
        assert!(ended > 50 && updated > 500, "{ended} {updated}");
    }
}
