//! What clients say to each other on data channels: publishers send marked messages at a steady rate, and everybody checks what
//! comes: whether it is whole, in order and complete.

use std::time::Duration;

use ringmain_shared::Now;

use super::channels::{Channels, Heard};
use super::mark::{MARK_SIZE, Mark};
use super::tally::Tally;

/// What one connection does with data channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Talk {
    /// The channel that it opens.
    pub(super) opens: Option<&'static str>,
    /// What it says there.
    pub(super) says: Option<Saying>,
    /// It takes note of what others say; a client does so on one connection.
    pub(super) listens: bool,
}

/// Messages of one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Saying {
    /// Whose they are, unique in this run.
    pub(super) source: u32,
    pub(super) per_second: u32,
    pub(super) size: usize,
}

/// The label of the channel that a server of this dialect opens to everybody who subscribes.
pub(super) const API_LABEL: &str = "ion-sfu";
/// The label of ours.
pub(super) const LABEL: &str = "load";
/// The least size of a message.
pub(super) const MESSAGE_SIZE_MIN: usize = MARK_SIZE;

/// One side of the conversation.
pub(super) struct Messages {
    talk: Talk,
    /// The stream of our channel, once it is open.
    stream: Option<u16>,
    /// When the next message is due.
    next: Option<Now>,
    number: u64,
    /// The stream of the server's own channel, once it is open.
    api: Option<u16>,
    /// Of each source, the number that comes next.
    sources: Vec<(u32, u64)>,
}

impl Messages {
    pub(super) fn new(talk: Talk) -> Self {
        Self { talk, stream: None, next: None, number: 0, api: None, sources: Vec::new() }
    }

    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.next
    }

    /// What the connection's channels have heard, and what is due to be said.
    pub(super) fn converse(&mut self, channels: &mut Channels, now: Now, tally: &mut Tally) -> Result<(), String> {
        while let Some(heard) = channels.poll() {
            match heard {
                Heard::Up => {
                    if let Some(label) = self.talk.opens {
                        let stream = channels.open(label);
                        self.stream = Some(stream.ok_or("a data channel could not be opened")?);
                        self.next = self.talk.says.map(|_| now);
                    }
                }
                Heard::Opened { stream, label } if label == API_LABEL => self.api = Some(stream),
                Heard::Opened { .. } => {}
                // There the server speaks for itself.
                Heard::Message { stream, .. } if self.api == Some(stream) => {}
                Heard::Message { bytes, .. } if self.talk.listens => self.check(&bytes, now, tally),
                Heard::Message { .. } => {}
                Heard::Lost => return Err("the SCTP association has ended".into()),
            }
        }
        if let (Some(Saying { source, per_second, size }), Some(stream)) = (self.talk.says, self.stream) {
            while let Some(at) = self.next.filter(|at| *at <= now) {
                let mut message = vec![source as u8; size];
                Mark { source, number: self.number, sent: now }.write(&mut message);
                // One that finds no room comes later, under the same number.
                if channels.send(stream, &message) {
                    self.number += 1;
                    tally.messages_sent += 1;
                }
                let next = at + Duration::from_secs(1) / per_second.max(1);
                self.next = Some(if now.since(next) > BACKLOG_MAX { now } else { next });
            }
        }
        Ok(())
    }

    /// Says nothing more.
    pub(super) fn finish(&mut self) {
        self.next = None;
    }

    /// Adds what there is of channels to `tally`.
    pub(super) fn count(&self, tally: &mut Tally) {
        tally.channels += u64::from(self.api.is_some());
        tally.conversations += self.sources.len() as u64;
    }

    /// How many messages it has sent, by source.
    pub(super) fn made(&self) -> Option<(u32, u64)> {
        self.talk.says.map(|saying| (saying.source, self.number))
    }

    /// The newest message of each source.
    pub(super) fn newest(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sources.iter().map(|&(source, next)| (source, next - 1))
    }

    /// The channels are reliable and ordered, so a message that is not the next one is a fault, and those left out are lost.
    fn check(&mut self, message: &[u8], now: Now, tally: &mut Tally) {
        let Ok(mark) = Mark::read(message) else {
            tally.messages_spoilt += 1;
            return;
        };
        match self.sources.iter_mut().find(|(source, _)| *source == mark.source) {
            Some((_, next)) if mark.number < *next => {
                tally.messages_spoilt += 1;
                return;
            }
            Some((_, next)) => {
                tally.messages_lost += mark.number - *next;
                *next = mark.number + 1;
            }
            // Who comes later has not heard the beginning.
            None => self.sources.push((mark.source, mark.number + 1)),
        }
        tally.messages_received += 1;
        tally.message_delay.record(now.since(mark.sent));
    }
}

/// A host that stood still does not make up for it with a flood.
const BACKLOG_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn message(source: u32, number: u64) -> Vec<u8> {
        let mut bytes = vec![1; 100];
        Mark { source, number, sent: Now(5) }.write(&mut bytes);
        bytes
    }

    #[test]
    fn gaps_are_losses_and_what_comes_twice_or_changed_is_spoilt() {
        let mut messages = Messages::new(Talk { opens: None, says: None, listens: true });
        let mut tally = Tally::default();
        let mut check = |bytes: &[u8]| messages.check(bytes, Now(10), &mut tally);
        // Two sources, of which the first is heard late.
        for (source, number) in [(1, 40), (2, 0), (1, 41), (1, 44), (2, 1)] {
            check(&message(source, number));
        }
        check(&message(1, 44));
        let mut changed = message(2, 2);
        changed[3] ^= 1;
        check(&changed);
        assert_eq!(messages.newest().collect::<Vec<_>>(), [(1, 44), (2, 1)]);
        messages.count(&mut tally);
        let Tally { messages_received, messages_lost, messages_spoilt, conversations, .. } = tally;
        assert_eq!((messages_received, messages_lost, messages_spoilt, conversations), (5, 2, 2, 2));
    }
}
