//! A DTLS 1.3 server after its handshake (RFC 9147), and a client that has the keys and seals what it likes, over a network that bends,
//! repeats, delays and joins. A small model says of each step all that the server may say, with the numbers that it says it by; whatever
//! it did with a forgery would show there, then or later. With handshakes before it, the same is in [`dtls_flight`](crate::dtls_flight).

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ringmain_dataplane::handshake::established::{Established, Produced, Secrets};
use ringmain_dataplane::handshake::records::Suite;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use zeroize::Zeroizing;

use crate::input::Input;
use crate::records13::{Keys, LENGTH, LONG, TAG_SIZE};

/// Steps of one input.
const STEPS_MAX: usize = 96;
/// Bytes that either end wants to send at once: more than a datagram holds.
const TEXT_SIZE_MAX: usize = 2048;

/// What the peer sealed comes out once, nothing else does, and our end says what it has to and no more.
pub fn dtls_established(data: &[u8]) {
    play(data);
}

fn play(data: &[u8]) -> Scene {
    let mut input = Input::new(data);
    let mut scene = Scene::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || scene.ended {
            break;
        }
        scene.step(&mut input);
    }
    scene
}

struct Scene {
    ours: Established,
    model: Model,
    now: Instant,
    /// Of the client's handshake, and its epochs from the third on.
    handshake: Keys,
    client: Vec<Keys>,
    /// Our epochs from the third on.
    server: Vec<Keys>,
    /// Somebody else's third.
    stranger: Keys,
    /// All that the peer sealed.
    sealed: Vec<Sealed>,
    /// One above the highest number that the peer sealed in an epoch.
    next: HashMap<u64, u64>,
    /// All that we sent, and by which numbers.
    sent: Vec<Vec<u8>>,
    numbers: Vec<Numbers>,
    nonces: HashSet<Numbers>,
    /// Records of data that came out.
    data: usize,
    ended: bool,
}

/// Epoch and number of a record.
type Numbers = (u64, u64);

/// A record of the peer's.
#[derive(Clone)]
struct Sealed {
    epoch: u64,
    sequence: u64,
    flags: u8,
    inner: Vec<u8>,
    record: Vec<u8>,
}

/// What our end says.
#[derive(PartialEq, Eq, Debug)]
enum Said {
    Data(Vec<u8>),
    CloseNotify,
    Record { numbers: Numbers, content: u8, text: Vec<u8> },
}

impl Scene {
    fn new(input: &mut Input<'_>) -> Self {
        let suite = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305][usize::from(input.u8() % 3)];
        // The first messages, or the last that there can be.
        let hello = match input.u8() {
            low @ 0..0x80 => low.into(),
            high => u16::MAX - SERVER_MESSAGES - u16::from(high - 0x80),
        };
        // What the handshake has sent of the third epoch: an ACK or nothing.
        let sent = input.u16();
        let secret = |fill: u8| Zeroizing::new([fill; 48]);
        let secrets = Secrets { suite, client_handshake: secret(2), client: secret(3), server: secret(4) };
        let server = Keys::new(suite, 3, &*secrets.server);
        let last = sent.checked_sub(1).map(|last| server.seal(LONG | LENGTH, last.into(), &[0, 0, ACK]));
        let ours = Established::new(&secrets, hello, last.iter().map(|record| &record[..])).expect("keys");
        Self {
            ours,
            model: Model::new(hello, sent.into()),
            now: Instant::now(),
            handshake: Keys::new(suite, 2, &*secrets.client_handshake),
            client: vec![Keys::new(suite, 3, &*secrets.client)],
            server: vec![server],
            stranger: Keys::new(suite, 3, &[5; 48]),
            sealed: Vec::new(),
            next: HashMap::new(),
            sent: Vec::new(),
            numbers: Vec::new(),
            nonces: sent.checked_sub(1).map(|last| (3, last.into())).into_iter().collect(),
            data: 0,
            ended: false,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        match op & 15 {
            0 => self.arrive(&[], input.chunk()),
            1 | 2 => {
                let [how, skip, content, padding] = input.array();
                let text = input.chunk();
                let inner = [&text[..text.len().min(TEXT_SIZE_MAX)], &[content], &vec![0; padding.into()]].concat();
                self.seal(how, skip, inner);
            }
            3 | 4 => {
                let [how, skip, what] = input.array();
                let text = self.messages(what);
                self.seal(how, skip, [&text[..], &[HANDSHAKE]].concat());
            }
            5 => {
                let [how, count] = input.array();
                let numbers: Vec<_> = (0..count % 8).map(|_| self.named(input.u8())).collect();
                let mut text = acknowledgement(&numbers);
                text[1] ^= count >> 7;
                self.seal(how, 0, [&text[..], &[ACK]].concat());
            }
            6 => self.deliver(&[input.u8()]),
            7 if op & 0x10 == 0 => self.deliver(&input.array::<3>()),
            // As many as there are, up to a number, in the order in which they were sealed or the other.
            7 => {
                let mut all: Vec<u8> = (0..input.u8() % 32).take(self.sealed.len()).collect();
                if op & 0x20 == 0 {
                    all.reverse();
                }
                self.deliver(&all);
            }
            8 => self.deliver_bent(input.u8(), input.u8(), input.u16(), input.u8()),
            // Our own, come back.
            9 => {
                let Some(record) = latest(&self.sent, input.u8()).cloned() else { return };
                self.arrive(&[], &record);
            }
            10 => {
                let text = input.chunk();
                self.send(&text[..text.len().min(TEXT_SIZE_MAX)]);
            }
            11 => self.wait(Duration::from_millis(input.u16().into())),
            12 => self.wait_for_deadline(),
            13 => self.deliver_after_plaintext(input.u8(), input.u8(), input.chunk()),
            14 => {
                let record = self.stranger.seal(LONG | LENGTH, input.u8().into(), &[1, 0, input.u8()]);
                self.arrive(&[], &record);
            }
            _ => self.close(),
        }
        // Those that go on their way at once.
        if matches!(op & 15, 2 | 3 | 5) {
            self.deliver(&[0]);
        }
    }

    /// The peer seals a record: in which epoch, in which layout, and how far from the number that is next, `how` and `skip` say.
    fn seal(&mut self, how: u8, skip: u8, inner: Vec<u8>) {
        let read = self.model.read;
        let epoch = match how & 3 {
            0 => read,
            1 => (read - 1).max(3),
            2 => 2,
            _ => read + 1,
        };
        let next = self.next.entry(epoch).or_default();
        let skip = u64::from(skip) * if how & 0x10 == 0 { 1 } else { 150 };
        let sequence = if how & 0x20 == 0 { *next + skip } else { next.saturating_sub(1 + skip) };
        *next = (*next).max(sequence + 1);
        let flags = how & (LONG | LENGTH);
        let keys = if epoch == 2 { &self.handshake } else { epoch_of(&mut self.client, epoch) };
        let record = keys.seal(flags, sequence, &inner);
        self.sealed.push(Sealed { epoch, sequence, flags, inner, record });
    }

    /// Messages of a handshake (RFC 9147 §5.2), nearly always KeyUpdates.
    fn messages(&self, what: u8) -> Vec<u8> {
        let next = self.model.theirs;
        let number = [next, next.wrapping_sub(1), next.wrapping_add(1), 0][usize::from(what >> 2 & 3)];
        let mut text = update_message(number, what & 3);
        match what >> 4 & 7 {
            0..=2 => {}
            // Two, the other one of which is out of turn or the same again.
            3 => text.extend(update_message(number.wrapping_add(1), 0)),
            4 => text.extend(update_message(number, what & 3)),
            // A piece of one.
            5 => {
                text[11] = 0;
                text.pop();
            }
            6 => text[0] = NEW_SESSION_TICKET,
            _ => text.truncate(12),
        }
        text
    }

    /// The numbers of a record for an ACK: of one of ours, or of any.
    fn named(&self, number: u8) -> Numbers {
        match latest(&self.numbers, number & 0x7f) {
            Some(&numbers) if number < 0x80 => numbers,
            _ => (self.model.write, u64::from(number & 0x7f)),
        }
    }

    /// These records arrive in one datagram.
    fn deliver(&mut self, picked: &[u8]) {
        let records: Vec<_> = picked.iter().filter_map(|&number| latest(&self.sealed, number).cloned()).collect();
        let datagram: Vec<u8> = records.iter().flat_map(|sealed| sealed.record.clone()).collect();
        self.arrive(&records, &datagram);
    }

    /// Two records in one datagram, the second of which is not as it was sealed.
    fn deliver_bent(&mut self, first: u8, second: u8, at: u16, by: u8) {
        let (Some(first), Some(second)) = (latest(&self.sealed, first), latest(&self.sealed, second)) else { return };
        let (first, mut bent) = (first.clone(), second.record.clone());
        let at = usize::from(at) % bent.len();
        match by {
            0 => bent.truncate(at),
            by => bent[at] ^= by,
        }
        // Without a length, the first goes on to the end.
        let is_whole = first.flags & LENGTH != 0 || bent.is_empty();
        let datagram = [&first.record[..], &bent].concat();
        self.arrive(if is_whole { std::slice::from_ref(&first) } else { &[] }, &datagram);
    }

    /// A record in plaintext, and one of the peer's behind it.
    fn deliver_after_plaintext(&mut self, number: u8, content: u8, text: &[u8]) {
        let Some(sealed) = latest(&self.sealed, number).cloned() else { return };
        let header = [content & 0x1f, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
        let plain = [&header, &(text.len() as u16).to_be_bytes()[..], text].concat();
        self.arrive(std::slice::from_ref(&sealed), &[&plain[..], &sealed.record].concat());
    }

    /// A datagram in which these are the records that our end can read, as far as each says where it ends.
    fn arrive(&mut self, records: &[Sealed], datagram: &[u8]) {
        let endless = records.iter().position(|sealed| sealed.flags & LENGTH == 0).unwrap_or(records.len());
        let readable = if endless + 1 < records.len() { endless } else { records.len() };
        let (mut said, mut out) = (Vec::new(), Vec::new());
        let fate = self.model.datagram(&records[..readable.min(RECORDS_MAX)], self.now, &mut said);
        let result = self.ours.handle_datagram(datagram, self.now, &mut out);
        assert_eq!(result.is_err(), fate.is_err(), "what the peer sealed has ended it, or should have");
        let replies = out.iter().filter(|item| matches!(item, Produced::Datagram(_))).count();
        assert!(replies <= 3, "an ACK, an update that was owed, and one that is asked for, at most");
        let is_over = fate.is_err() || said.last() == Some(&Said::CloseNotify);
        self.check(out, said);
        if is_over {
            self.close();
        }
    }

    fn send(&mut self, text: &[u8]) {
        let (mut said, mut out) = (Vec::new(), Vec::new());
        self.model.seal(APPLICATION_DATA, text, &mut said);
        self.ours.send(text, self.now, &mut out).expect("its keys are not worn out");
        self.check(out, said);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let (mut said, mut out) = (Vec::new(), Vec::new());
        self.model.timeout(self.now, &mut said);
        self.ours.handle_timeout(self.now, &mut out).expect("its keys are not worn out");
        self.check(out, said);
        assert!(self.ours.deadline().is_none_or(|deadline| deadline > self.now), "a deadline that does not end");
    }

    fn wait_for_deadline(&mut self) {
        let Some(deadline) = self.ours.deadline() else { return };
        let time = deadline - self.now;
        let sent = self.sent.len();
        self.wait(time.saturating_sub(Duration::from_millis(1)));
        assert_eq!(self.sent.len(), sent, "too soon");
        self.wait(deadline.saturating_duration_since(self.now));
        assert_eq!(self.sent.len(), sent + 1);
    }

    /// As whoever owns it does it, however it has ended: a last word, and none after.
    fn close(&mut self) {
        let (mut said, mut out) = (Vec::new(), Vec::new());
        self.model.seal(ALERT, &[1, 0], &mut said);
        self.ours.close(&mut out);
        self.check(out, said);
        self.ended = true;
    }

    /// Our end has said exactly this.
    fn check(&mut self, out: Vec<Produced>, expected: Vec<Said>) {
        assert_eq!(out.len(), expected.len(), "{out:?} instead of {expected:?}");
        for (item, expected) in out.into_iter().zip(&expected) {
            let item = match item {
                Produced::Data(data) => {
                    self.data += 1;
                    Said::Data(data.to_vec())
                }
                Produced::CloseNotify => Said::CloseNotify,
                Produced::Datagram(record) => {
                    let Said::Record { numbers, .. } = expected else { panic!("a record instead of {expected:?}") };
                    assert!(self.nonces.insert(*numbers), "a nonce twice: {numbers:?}");
                    let inner = epoch_of(&mut self.server, numbers.0).open(numbers.1, &record);
                    let mut text = inner.unwrap_or_else(|| panic!("not numbered {numbers:?}"));
                    let content = text.pop().expect("a type of content");
                    self.sent.push(record.to_vec());
                    self.numbers.push(*numbers);
                    Said::Record { numbers: *numbers, content, text }
                }
                Produced::Connected(_) => panic!("it was connected from the start"),
            };
            assert_eq!(&item, expected);
        }
        if !self.ended {
            assert_eq!(self.ours.deadline(), self.model.update.as_ref().map(|update| update.deadline));
        }
    }
}

/// What our end is like.
struct Model {
    /// Epochs that are read: the latest, and the one before it until the latest was heard.
    read: u64,
    former: Option<u64>,
    /// Numbers of authentic records, by epoch.
    seen: HashMap<u64, HashSet<u64>>,
    /// Numbers of the next messages.
    theirs: u16,
    ours: u16,
    /// The epoch and the number of our next record.
    write: u64,
    next: u64,
    update: Option<Update>,
}

/// An update of our keys that is not acknowledged.
struct Update {
    message: u16,
    sent: Vec<u64>,
    interval: Duration,
    deadline: Instant,
    /// Another one was asked for meanwhile.
    again: bool,
}

/// The association is over.
struct Over;

impl Model {
    fn new(hello: u16, next: u64) -> Self {
        let (theirs, ours) = (hello + CLIENT_MESSAGES, hello + SERVER_MESSAGES);
        Self { read: 3, former: None, seen: HashMap::new(), theirs, ours, write: 3, next, update: None }
    }

    fn datagram(&mut self, records: &[Sealed], now: Instant, said: &mut Vec<Said>) -> Result<(), Over> {
        let (mut heard, mut asked) = (Vec::new(), false);
        for sealed in records {
            let Some((content, text)) = self.open(sealed) else { continue };
            let is_application = sealed.epoch > 2;
            match (content, text) {
                (APPLICATION_DATA, _) if is_application => said.push(Said::Data(text.to_vec())),
                (ACK, _) if is_application => self.acknowledged(text, now, said)?,
                (HANDSHAKE, _) if self.messages(sealed.epoch, text, &mut asked)? => {
                    heard.push((sealed.epoch, sealed.sequence));
                }
                (ALERT, [_, 0]) if is_application => {
                    said.push(Said::CloseNotify);
                    return Ok(());
                }
                (ALERT, &[_, description]) if is_application && description != USER_CANCELED => return Err(Over),
                _ => {}
            }
        }
        if !heard.is_empty() {
            self.seal(ACK, &acknowledgement(&heard), said);
        }
        match &mut self.update {
            Some(update) => update.again |= asked,
            None if asked => self.begin_update(now, said)?,
            None => {}
        }
        Ok(())
    }

    fn begin_update(&mut self, now: Instant, said: &mut Vec<Said>) -> Result<(), Over> {
        let message = self.ours;
        self.ours = message.checked_add(1).ok_or(Over)?;
        let (sent, interval) = (Vec::new(), RETRANSMIT_FIRST);
        self.update = Some(Update { message, sent, interval, deadline: now, again: false });
        self.say_update(now, said);
        Ok(())
    }

    /// Content and text of a record that is new.
    fn open<'a>(&mut self, sealed: &'a Sealed) -> Option<(u8, &'a [u8])> {
        let &Sealed { epoch, sequence, flags, ref inner, .. } = sealed;
        let is_read = epoch == 2 && self.read == 3 || epoch == self.read || Some(epoch) == self.former;
        let seen = self.seen.entry(epoch).or_default();
        let highest = seen.iter().max().copied();
        let end = highest.map_or(0, |highest| highest + 1);
        let span = if flags & LONG == 0 { 1 << 8 } else { 1 << 16 };
        if !is_read || inner.len() > DATAGRAM_SIZE_MAX || !is_nearest(sequence, span, end) {
            return None;
        }
        let end = inner.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        let (&content, text) = inner.get(..=end)?.split_last()?;
        if epoch == self.read {
            self.former = None;
        }
        let is_fresh = highest.is_none_or(|highest| sequence > highest || highest - sequence < WINDOW);
        (is_fresh && seen.insert(sequence)).then_some((content, text))
    }

    /// Whether everything in a record of messages was acted on: an update of keys in its turn, or one from before.
    fn messages(&mut self, epoch: u64, text: &[u8], asked: &mut bool) -> Result<bool, Over> {
        let (mut rest, mut all) = (text, !text.is_empty());
        while let Some((header, after)) = rest.split_first_chunk::<12>() {
            let [kind, total @ .., _, _, _, _, _, _, _, _] = *header;
            let [_, _, _, _, high, low, offset @ .., a, b, c] = *header;
            let size = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((body, after)) = after.split_at_checked(size) else { return Ok(false) };
            rest = after;
            let number = u16::from_be_bytes([high, low]);
            if number < self.theirs {
                continue;
            }
            let is_update = (kind, total, offset, size) == (KEY_UPDATE, [0, 0, 1], [0; 3], 1);
            let is_next = number == self.theirs && epoch == self.read;
            // RFC 8446 §4.6: no other message was agreed on.
            if is_next && kind != KEY_UPDATE {
                return Err(Over);
            }
            if is_next && is_update {
                // RFC 8446 §4.6.3: to ask for anything else is an error.
                if body[0] > 1 {
                    return Err(Over);
                }
                self.theirs = number.checked_add(1).ok_or(Over)?;
                self.former = Some(self.read);
                self.read += 1;
                *asked |= body[0] == 1;
            } else {
                all = false;
            }
        }
        Ok(all && rest.is_empty())
    }

    fn acknowledged(&mut self, text: &[u8], now: Instant, said: &mut Vec<Said>) -> Result<(), Over> {
        let (Some(update), Some((size, list))) = (&self.update, text.split_first_chunk()) else { return Ok(()) };
        let named = |pair: &[u8]| {
            let [epoch, sequence] = [0, 8].map(|at| u64::from_be_bytes(std::array::from_fn(|n| pair[at + n])));
            epoch == self.write && update.sent.iter().rev().take(TRANSMISSIONS_MAX).any(|&sent| sent == sequence)
        };
        if usize::from(u16::from_be_bytes(*size)) == list.len() && list.chunks_exact(16).any(named) {
            let again = update.again;
            self.update = None;
            self.write += 1;
            self.next = 0;
            if again {
                self.begin_update(now, said)?;
            }
        }
        Ok(())
    }

    fn timeout(&mut self, now: Instant, said: &mut Vec<Said>) {
        let Some(update) = self.update.as_mut().filter(|update| update.deadline <= now) else { return };
        update.interval = (update.interval * 2).min(RETRANSMIT_LAST);
        self.say_update(now, said);
    }

    fn say_update(&mut self, now: Instant, said: &mut Vec<Said>) {
        let Some(update) = &mut self.update else { return };
        update.sent.push(self.next);
        update.deadline = now + update.interval;
        let message = update_message(update.message, 0);
        self.seal(HANDSHAKE, &message, said);
    }

    fn seal(&mut self, content: u8, text: &[u8], said: &mut Vec<Said>) {
        if HEADER_SIZE + text.len() + 1 + TAG_SIZE <= DATAGRAM_SIZE_MAX {
            said.push(Said::Record { numbers: (self.write, self.next), content, text: text.to_vec() });
        }
        self.next += 1;
    }
}

/// Whether of all numbers with the same lowest bits this one is nearest to `end` (RFC 9147 §4.2.2), and the lower of two.
fn is_nearest(sequence: u64, span: u64, end: u64) -> bool {
    let distance = sequence.abs_diff(end);
    let lower = sequence.checked_sub(span).map(|other| other.abs_diff(end));
    lower.is_none_or(|lower| distance < lower) && distance <= (sequence + span).abs_diff(end)
}

/// The list of an ACK (RFC 9147 §7).
fn acknowledgement(numbers: &[Numbers]) -> Vec<u8> {
    let list = numbers.iter().flat_map(|&(epoch, sequence)| [epoch, sequence]).flat_map(u64::to_be_bytes);
    (16 * numbers.len() as u16).to_be_bytes().into_iter().chain(list).collect()
}

fn update_message(number: u16, requested: u8) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![KEY_UPDATE, 0, 0, 1, high, low, 0, 0, 0, 0, 0, 1, requested]
}

/// Counted from the last one.
fn latest<T>(all: &[T], number: u8) -> Option<&T> {
    all.iter().rev().nth(usize::from(number) % all.len().max(1))
}

/// The keys of an epoch, of those from the third on.
fn epoch_of(keys: &mut Vec<Keys>, epoch: u64) -> &Keys {
    while keys.last().is_some_and(|last| last.number < epoch) {
        keys.extend(keys.last().map(Keys::following));
    }
    &keys[(epoch - 3) as usize]
}

/// Content types (RFC 9147 §4, §7).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const ACK: u8 = 26;
/// Messages (RFC 8446 §4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// An alert that ends nothing (RFC 8446 §6.1).
const USER_CANCELED: u8 = 90;
/// Flags, number and length, as we write them.
const HEADER_SIZE: usize = 5;
/// Messages of a handshake from the ServerHello on, and from the ClientHello that it answers.
const SERVER_MESSAGES: u16 = 6;
const CLIENT_MESSAGES: u16 = 4;
/// Records that may still come behind the highest.
const WINDOW: u64 = 64;
/// Records of a datagram that are looked at.
const RECORDS_MAX: usize = 16;
/// Of an update, how many records an ACK may still name, and when it is said again.
const TRANSMISSIONS_MAX: usize = 16;
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
const RETRANSMIT_LAST: Duration = Duration::from_secs(60);
/// What lies behind it are one window and one update more, at most.
const _: () = assert!(size_of::<Established>() <= 1024, "memory of an idle connection");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Output;

    /// In a layout with everything, in the epoch that is read.
    const PLAIN: u8 = LONG | LENGTH;

    fn begun(suite: u8) -> Output {
        Output::default().bytes(&[suite, 0, 0, 1])
    }

    /// An association in which nothing happens would keep every promise.
    #[test]
    fn data_arrives_and_keys_change_in_every_suite() {
        for suite in 0..3 {
            let data =
                begun(suite).bytes(&[2, PLAIN, 0, APPLICATION_DATA, 9]).chunk(b"one").bytes(&[6, 0, 8, 0, 0, 0, 9, 1]);
            // Ours is asked for, said three times, and acknowledged.
            let updated = data.bytes(&[3, PLAIN, 0, 1, 12, 12, 5, PLAIN, 1, 0]);
            let after = updated.bytes(&[2, PLAIN, 0, APPLICATION_DATA, 0]).chunk(b"two").bytes(&[10]).chunk(b"three");
            let scene = play(&after.0);
            assert_eq!((scene.data, scene.model.read, scene.model.write, scene.ended), (2, 4, 4, false));
            assert!(play(&after.bytes(&[2, PLAIN, 0, ALERT, 0]).chunk(&[1, 0]).0).ended);
        }
    }

    #[test]
    fn random_steps_keep_every_promise() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let (mut data, mut read, mut write, mut ended) = (0, 0, 0, 0);
        for _ in 0..1_000 {
            let mut steps = begun(next());
            for _ in 0..STEPS_MAX {
                // Mostly what can be read.
                let how = if next() < 0xa0 { PLAIN } else { next() };
                let content = [APPLICATION_DATA, APPLICATION_DATA, HANDSHAKE, ACK, next()][usize::from(next() % 5)];
                let op = (next() % 15) | (next() & 0x30);
                steps = match op & 15 {
                    0 => steps.bytes(&[op]).chunk(&[next(), next(), next(), 0, 0, 1, next(), next()]),
                    1 | 2 => {
                        steps.bytes(&[op, how, next() % 4, content, next() % 4]).chunk(&vec![next(); next().into()])
                    }
                    3 | 4 => steps.bytes(&[op, how, 0, if next() < 8 { 2 } else { next() & 0x7d }]),
                    5 => steps.bytes(&[op, how, 1, next() % 4]),
                    6 | 9 => steps.bytes(&[op, next()]),
                    7 if op & 0x10 != 0 => steps.bytes(&[op, next()]),
                    7 => steps.bytes(&[op, next(), next(), next()]),
                    8 => steps.bytes(&[op, next(), next(), 0, next(), next()]),
                    10 => steps.bytes(&[op]).chunk(&vec![next(); usize::from(next()) * 7]),
                    11 => steps.bytes(&[op, next(), next()]),
                    12 => steps.bytes(&[op]),
                    13 => steps.bytes(&[op, next(), next()]).chunk(&[next(); 7]),
                    _ => steps.bytes(&[op, next(), content]),
                };
            }
            let scene = play(&steps.0);
            data += scene.data;
            read += scene.model.read - 3;
            write += scene.model.write - 3;
            ended += usize::from(scene.ended);
        }
        assert!(data > 1_000 && read > 500 && write > 100 && ended > 10, "{data} {read} {write} {ended}");
    }
}
