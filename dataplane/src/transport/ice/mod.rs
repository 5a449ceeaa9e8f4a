//! ICE of one transport: a lite agent (RFC 8445 §2.5) that answers checks, and yet proves every address itself before media goes there.
//!
//! A lite agent that only answers can be told by a valid peer to send to somebody else. So each address that a valid check came
//! from is checked in turn, with a transaction id that only its owner can see; until that is answered, no more is sent there than
//! three times what came (RFC 9000 §8.1 has the same rule), and the old address keeps the stream. The same checks carry on as
//! consent (RFC 7675): every few seconds where something is sent, and where nothing is, just often enough that consent never runs
//! out. Owns credentials and pairs. Never sees sockets; the worker maps paths to transports.

use std::time::Duration;

use arrayvec::ArrayVec;
use ringmain_shared::event::IceState;
use ringmain_shared::limits::{
    ICE_CONSENT, ICE_CONSENT_IDLE, ICE_CONSENT_INTERVAL, ICE_DISCONNECTED, REMOTES_PER_TRANSPORT_MAX, STUN_BURST,
    STUN_PER_SECOND,
};
use ringmain_shared::transport::IceCredentials;
use ringmain_shared::{DropReason, Now};

use crate::buf::{prefetch, prefetch_element, prefetch_whole};
use crate::io::Path;
use crate::packet::stun::{
    BindingRequest, Class, IntegrityKey, Message, Role, TransactionId, method, write_binding_request,
    write_binding_success,
};
use crate::random::Random;
use crate::transport::bucket::TokenBucket;

/// The ICE agent of one transport.
#[derive(Debug)]
pub struct IceAgent {
    local: Credentials,
    /// Ours before the last restart; good until a check with the new ones is valid, and not longer than `ICE_CONSENT`. Seldom any.
    previous: Option<Box<(Credentials, Now)>>,
    remote: Option<Credentials>,
    generation: u32,
    /// `REMOTES_PER_TRANSPORT_MAX` at most, and one as a rule.
    pairs: Vec<Pair>,
    selected: Option<Path>,
    /// The peer's latest wish, waiting for its proof or for its turn.
    nominated: Option<Path>,
    state: IceState,
    /// Requests from proved addresses that may be verified; strangers who know our user fragment cannot use it up.
    budget: TokenBucket,
    /// Requests from all other addresses.
    strangers: TokenBucket,
    moves: TokenBucket,
    /// As our latest check measured it.
    round_trip: Option<Duration>,
    consent: Option<Now>,
    /// More than checks was sent since a check was last put off.
    spoke: bool,
    heard: Now,
    tie_breaker: u64,
    /// The worker's number of this transport, carried in transaction ids so that responses find it.
    number: u32,
}

/// A user fragment with the key that its password makes.
struct Credentials {
    ufrag: String,
    key: IntegrityKey,
}

/// One remote address, as one of our sockets sees it.
#[derive(Debug)]
struct Pair {
    path: Path,
    generation: u32,
    proved: bool,
    /// When it last answered a check of ours, if it is proved.
    answered: Now,
    check: Option<Check>,
    next_consent: Now,
    heard: Now,
    received: u64,
    sent: u64,
}

/// A check of ours that is under way.
#[derive(Debug)]
struct Check {
    id: TransactionId,
    tries: u32,
    next: Now,
    sent: Now,
}

/// What a datagram changed.
#[derive(Debug, Default)]
pub struct Reaction {
    /// Length of the response in the caller's buffer.
    pub reply: Option<usize>,
    /// The sender's address now belongs to this transport; proved or not.
    pub claims: Option<Claim>,
    /// These addresses no longer do.
    pub released: ArrayVec<Path, REMOTES_PER_TRANSPORT_MAX>,
    /// The address that media goes to is another one.
    pub selected: bool,
}

/// How sure a claim on an address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// A valid check came from there; its source may be forged.
    Heard,
    /// Our own check was answered from there.
    Proved,
}

/// First repetition of a check to an address that is still to be proved; each further one takes twice as long (RFC 8489 §6.2.1).
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The same for one that is proved (RFC 8489 §6.2.1: not less): nobody waits for its answer, and asking sooner would have every peer that
/// is further away answer twice, so that no round trip to it could be told.
const CONSENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The longest time between two repetitions.
const CHECK_INTERVAL_MAX: Duration = Duration::from_millis(800);
/// Repetitions after which an address that does not answer is forgotten: about 4 s, or 7 if it once did.
const CHECK_TRIES_MAX: u32 = 9;
/// What may go to an unproved address, in terms of what came from there.
const UNPROVED_FACTOR: u64 = 3;
/// Address changes at once, and then one a second.
const MOVES_BURST: u32 = 4;
/// Priority of the peer-reflexive candidate that a peer may learn from our checks (RFC 8445 §5.1.2.1: type preference 110).
const PRIORITY: u32 = 110 << 24 | 0xffff << 8 | 0xff;

impl IceAgent {
    /// An agent that nobody has talked to yet. `number` comes back from [`transport_number`].
    pub fn new(
        local: &IceCredentials,
        remote: Option<&IceCredentials>,
        number: u32,
        random: &mut Random,
        now: Now,
    ) -> Self {
        Self {
            local: Credentials::new(local),
            previous: None,
            remote: remote.map(Credentials::new),
            generation: 0,
            pairs: Vec::new(),
            selected: None,
            nominated: None,
            state: IceState::New,
            budget: TokenBucket::new(STUN_PER_SECOND, STUN_BURST, now),
            strangers: TokenBucket::new(STUN_PER_SECOND, STUN_BURST, now),
            moves: TokenBucket::new(1, MOVES_BURST, now),
            round_trip: None,
            consent: None,
            spoke: false,
            heard: now,
            tie_breaker: random.next_u64(),
            number,
        }
    }

    /// The peer's credentials, for the checks that we send.
    pub fn set_remote(&mut self, remote: &IceCredentials, now: Now) {
        self.remote = Some(Credentials::new(remote));
        for pair in self.pairs.iter_mut().filter(|pair| pair.generation == self.generation && !pair.proved) {
            pair.check = None;
            pair.next_consent = now;
        }
    }

    /// New credentials (RFC 8445 §9): every address must be proved again, the selected one keeps the stream meanwhile.
    pub fn restart(&mut self, local: &IceCredentials, remote: Option<&IceCredentials>, now: Now) {
        let old = std::mem::replace(&mut self.local, Credentials::new(local));
        self.previous = Some(Box::new((old, now)));
        self.remote = remote.map(Credentials::new);
        self.generation += 1;
        self.nominated = None;
    }

    /// Our user fragments that checks may name: the current one, and the former during a restart.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.local)
            .chain(self.previous.as_deref().map(|(old, _)| old))
            .map(|local| local.ufrag.as_str())
    }

    /// Media goes out soon.
    #[inline]
    pub fn expect(&self) {
        prefetch(&self.selected);
        prefetch(&self.state);
    }

    /// A message or a timer is handled soon: brings what the agent points at into the caches, once it is there itself.
    #[inline]
    pub fn expect_parts(&self) {
        self.pairs.iter().take(1).for_each(prefetch_whole);
        for known in std::iter::once(&self.local).chain(&self.remote) {
            prefetch_element(known.ufrag.as_bytes(), 0);
        }
    }

    /// Where media goes.
    pub fn selected(&self) -> Option<Path> {
        self.selected.filter(|_| self.state != IceState::Failed)
    }

    /// [`selected`](Self::selected), for who sends there many times.
    pub fn destination(&self) -> Option<&Path> {
        self.selected.as_ref().filter(|_| self.state != IceState::Failed)
    }

    /// Round trip to the peer, as our checks measure it.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Where ICE stands.
    pub fn state(&self) -> IceState {
        self.state
    }

    /// Whether the address is proved to be the peer's.
    pub fn is_proved(&self, path: Path) -> bool {
        self.pairs.iter().any(|pair| pair.path == path && pair.proved)
    }

    /// Whether media from this address is taken: the selected one, or another that is proved, while the peer moves there.
    pub fn admits_media(&self, path: Path) -> bool {
        self.selected == Some(path) || self.is_proved(path)
    }

    /// A STUN message for this transport. A response is written into `reply`.
    pub fn handle_stun(
        &mut self,
        message: &Message<'_>,
        path: Path,
        datagram_len: usize,
        reply: &mut [u8],
        random: &mut Random,
        now: Now,
    ) -> Result<Reaction, DropReason> {
        if message.method() != method::BINDING {
            return Err(DropReason::StunMalformed);
        }
        match message.class() {
            Class::Request => {
                // Charged before the HMAC that it pays for. A response is first matched with a check that only its path has seen.
                let known = self.admits_media(path);
                if !if known { &mut self.budget } else { &mut self.strangers }.take(now) {
                    return Err(DropReason::StunBudget);
                }
                self.handle_request(message, path, datagram_len, reply, random, now)
            }
            Class::Success => self.handle_response(message, path, random, now),
            // An error response to our check changes nothing: the check goes unanswered.
            Class::Error => Err(DropReason::StunUnexpected),
            // A binding indication keeps a NAT binding open (RFC 8445 §11), and has no answer.
            Class::Indication => Ok(Reaction::default()),
        }
    }

    fn handle_request(
        &mut self,
        message: &Message<'_>,
        path: Path,
        datagram_len: usize,
        reply: &mut [u8],
        random: &mut Random,
        now: Now,
    ) -> Result<Reaction, DropReason> {
        let (to, from) = message.username().ok_or(DropReason::StunIntegrity)?;
        let is_current = self.local.ufrag == to;
        let local = match self.previous.as_deref() {
            _ if is_current => &self.local,
            Some((previous, _)) if previous.ufrag == to => previous,
            _ => return Err(DropReason::StunUnknownUfrag),
        };
        message.verify_integrity(&local.key)?;
        // RFC 8445 §7.3: a check may well overtake the peer's answer, and is answered at once. Its half of the name is not
        // known until then; the integrity shows that it has read our offer.
        if is_current && self.remote.as_ref().is_some_and(|remote| remote.ufrag != from) {
            return Err(DropReason::StunIntegrity);
        }
        let len = write_binding_success(reply, message.transaction_id(), path.remote, &local.key);
        let mut reaction = Reaction { reply: len, ..Reaction::default() };
        self.heard = now;
        if !is_current {
            return Ok(reaction);
        }
        self.previous = None;
        let index = self.pair_of(path, now, &mut reaction)?;
        let pair = &mut self.pairs[index];
        pair.heard = now;
        pair.received += datagram_len as u64;
        pair.sent += len.unwrap_or(0) as u64;
        reaction.claims = Some(if pair.proved { Claim::Proved } else { Claim::Heard });
        if !pair.proved && pair.check.is_none() {
            pair.check = Some(Check::new(self.number, random, now));
        }
        if message.use_candidate() {
            self.nominated = Some(path);
        }
        if self.state == IceState::New {
            self.state = IceState::Checking;
        }
        reaction.selected = self.select(now);
        Ok(reaction)
    }

    fn handle_response(
        &mut self,
        message: &Message<'_>,
        path: Path,
        random: &mut Random,
        now: Now,
    ) -> Result<Reaction, DropReason> {
        let remote = self.remote.as_ref().ok_or(DropReason::StunUnexpected)?;
        let id = message.transaction_id();
        let pair = self
            .pairs
            .iter_mut()
            .find(|pair| pair.path == path && pair.check.as_ref().is_some_and(|check| check.id == id))
            .ok_or(DropReason::StunUnexpected)?;
        message.verify_integrity(&remote.key)?;
        // Karn: a check that was repeated does not tell which of them was answered.
        if let Some(check) = pair.check.take().filter(|check| check.tries == 1) {
            self.round_trip = Some(now.since(check.sent));
        }
        pair.proved = true;
        pair.answered = now;
        pair.generation = self.generation;
        pair.heard = now;
        pair.next_consent = in_company(now + random.around(ICE_CONSENT_INTERVAL));
        self.heard = now;
        let moved = self.select(now);
        if self.selected == Some(path) {
            self.consent = Some(now);
            self.state = IceState::Connected;
        }
        Ok(Reaction { claims: Some(Claim::Proved), selected: moved, ..Reaction::default() })
    }

    /// Authenticated media came from the selected address: the peer is there, though that is no consent.
    pub fn heard(&mut self, now: Now) {
        self.heard = now;
    }

    /// Where a handshake datagram of `size` bytes may go: the selected address, or one not proved yet within its allowance.
    pub fn egress(&mut self, size: usize) -> Option<Path> {
        self.spoke = true;
        if let Some(selected) = self.selected() {
            return Some(selected);
        }
        if self.state == IceState::Failed {
            return None;
        }
        let pair = self.pairs.iter_mut().max_by_key(|pair| (pair.proved, pair.heard))?;
        pair.allow(size).then_some(pair.path)
    }

    /// Bytes came from an address of ours, for its allowance.
    pub fn credit(&mut self, path: Path, size: usize) {
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.path == path) {
            pair.received += size as u64;
        }
    }

    /// No media is being sent: a check that is due for consent may wait. Who sends nothing needs no consent (RFC 7675 §5.1); it
    /// is kept from running out all the same, so that media can begin at any moment. And a peer that has stopped checking by
    /// itself is checked as soon as ever, or nobody would notice that it is gone.
    pub fn rest(&mut self, now: Now) {
        let Some(consent) = self.consent else { return };
        let (selected, generation) = (self.selected, self.generation);
        let due = self.pairs.iter_mut().find(|pair| {
            Some(pair.path) == selected
                && pair.generation == generation
                && pair.check.is_none()
                && pair.next_consent <= now
        });
        let is_heard = |pair: &&mut Pair| pair.heard > consent && now.since(pair.heard) < ICE_CONSENT_INTERVAL;
        let Some(pair) = due.filter(is_heard) else { return };
        let is_fresh = now.since(consent) + ICE_CONSENT_INTERVAL + CONSENT_GRID <= ICE_CONSENT_IDLE;
        if !std::mem::take(&mut self.spoke) && is_fresh {
            pair.next_consent = in_company(pair.heard + ICE_CONSENT_INTERVAL);
        }
    }

    /// The next check that is due, written into `out`. Call until it returns `None`.
    pub fn poll_check(&mut self, out: &mut [u8], random: &mut Random, now: Now) -> Option<(Path, usize)> {
        let remote = self.remote.as_ref()?;
        let (number, tie_breaker) = (self.number, self.tie_breaker);
        for pair in &mut self.pairs {
            let due_for_consent = pair.check.is_none() && pair.next_consent <= now && self.state != IceState::Failed;
            if due_for_consent && (pair.generation == self.generation || self.selected == Some(pair.path)) {
                pair.check = Some(Check::new(number, random, now));
            }
            let Some(check) = pair.check.as_mut().filter(|check| check.next <= now) else { continue };
            let first = if pair.proved { CONSENT_CHECK_INTERVAL } else { CHECK_INTERVAL };
            let wait = (first * 2u32.pow(check.tries.min(5))).min(CHECK_INTERVAL_MAX);
            check.tries += 1;
            check.sent = now;
            check.next = now + wait;
            let id = check.id;
            let request = BindingRequest {
                transaction_id: id,
                remote_ufrag: &remote.ufrag,
                local_ufrag: &self.local.ufrag,
                priority: PRIORITY,
                role: Role::Controlled(tie_breaker),
            };
            let len = write_binding_request(out, &request, &remote.key)?;
            // Beyond its allowance an address waits until more came from there; the tries go on, so that it does not wait for ever.
            if pair.allow(len) {
                return Some((pair.path, len));
            }
        }
        None
    }

    /// Time went on. Says which addresses are forgotten and whether media moved.
    pub fn handle_timeout(&mut self, now: Now) -> Reaction {
        let mut reaction = Reaction::default();
        if self.previous.as_deref().is_some_and(|(_, since)| now.since(*since) > ICE_CONSENT) {
            self.previous = None;
        }
        let (selected, generation) = (self.selected, self.generation);
        self.pairs.retain(|pair| {
            let silent = pair.check.as_ref().is_some_and(|check| check.tries > CHECK_TRIES_MAX && check.next <= now);
            let kept = Some(pair.path) == selected || !silent && pair.generation == generation;
            if !kept {
                reaction.released.push(pair.path);
            }
            kept
        });
        reaction.selected = self.select(now);
        let before = self.state;
        let consent_age = self.consent.map(|then| now.since(then));
        self.state = match (self.state, consent_age) {
            (IceState::Connected | IceState::Disconnected, Some(age)) if age > ICE_CONSENT => IceState::Failed,
            (IceState::Connected, _) if now.since(self.heard) > ICE_DISCONNECTED => IceState::Disconnected,
            (IceState::Disconnected, Some(_)) if now.since(self.heard) <= ICE_DISCONNECTED => IceState::Connected,
            (state, _) => state,
        };
        if self.state == IceState::Failed && before != IceState::Failed {
            // RFC 7675 §5.1: consent is lost, so nothing is sent there any more, checks neither.
            self.pairs.iter_mut().filter(|pair| Some(pair.path) == selected).for_each(|pair| pair.check = None);
        }
        reaction
    }

    /// A path is no more: nothing is sent there again. Media goes to another proved address, or waits for one.
    pub fn forget(&mut self, path: Path, now: Now) {
        self.pairs.retain(|pair| pair.path != path);
        self.nominated = self.nominated.filter(|&nominated| nominated != path);
        if self.selected == Some(path) {
            self.selected = None;
            self.select(now);
        }
    }

    /// Every address that belongs to the peer or claims to.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.pairs.iter().map(|pair| pair.path)
    }

    /// When `poll_check` or `handle_timeout` has something to do.
    pub fn next_deadline(&self) -> Option<Now> {
        let checks = self.pairs.iter().filter(|_| self.remote.is_some()).filter_map(|pair| match &pair.check {
            Some(check) => Some(check.next),
            None => (self.state != IceState::Failed).then_some(pair.next_consent),
        });
        let states = match self.state {
            IceState::Connected => Some(self.heard + ICE_DISCONNECTED + TICK),
            _ => None,
        };
        let consent =
            matches!(self.state, IceState::Connected | IceState::Disconnected).then_some(self.consent).flatten();
        let consent = consent.map(|consent| consent + ICE_CONSENT + TICK);
        let moves = (self.nominated != self.selected && self.nominated_is_proved()).then(|| self.moves.next());
        let previous = self.previous.as_deref().map(|(_, since)| *since + ICE_CONSENT + TICK);
        checks.chain(states).chain(consent).chain(moves).chain(previous).min()
    }

    /// The pair of a path, made when new. An address that never answered makes room for it.
    fn pair_of(&mut self, path: Path, now: Now, reaction: &mut Reaction) -> Result<usize, DropReason> {
        if let Some(index) = self.pairs.iter().position(|pair| pair.path == path) {
            let (pair, generation) = (&mut self.pairs[index], self.generation);
            if pair.generation != generation {
                *pair = Pair::new(path, generation, now);
            }
            return Ok(index);
        }
        if self.pairs.len() >= REMOTES_PER_TRANSPORT_MAX {
            let selected = self.selected;
            let stale = |pair: &Pair| !pair.proved && Some(pair.path) != selected && now.since(pair.heard) > STALE;
            let index = self.pairs.iter().position(stale).ok_or(DropReason::TooManyRemotes)?;
            reaction.released.push(self.pairs.remove(index).path);
        }
        self.pairs.reserve_exact(1);
        self.pairs.push(Pair::new(path, self.generation, now));
        Ok(self.pairs.len() - 1)
    }

    /// Follows the last proved nomination; before any, the first proved address. What has not answered for as long as consent lasts
    /// is proved no more: moving to it and back must not make consent of nothing (RFC 7675 §5.1).
    fn select(&mut self, now: Now) -> bool {
        for pair in &mut self.pairs {
            pair.proved &= now.since(pair.answered) <= ICE_CONSENT;
        }
        let wish = match self.nominated {
            Some(path) if self.nominated_is_proved() => Some(path),
            _ if self.selected_is_current() => None,
            _ => self.pairs.iter().find(|pair| pair.proved && pair.generation == self.generation).map(|pair| pair.path),
        };
        let Some(path) = wish.filter(|&path| self.selected != Some(path)) else {
            // The same address with new credentials: the restart is done.
            if wish.is_some() && self.consent_is_fresh(now) {
                self.state = IceState::Connected;
            }
            return false;
        };
        if self.selected.is_some() && !self.moves.take(now) {
            return false;
        }
        self.selected = Some(path);
        self.consent = self.pairs.iter().find(|pair| pair.path == path).map(|pair| pair.answered);
        self.state = IceState::Connected;
        true
    }

    fn consent_is_fresh(&self, now: Now) -> bool {
        self.consent.is_some_and(|then| now.since(then) <= ICE_CONSENT)
            && self.state != IceState::Failed
            && now.since(self.heard) <= ICE_DISCONNECTED
    }

    fn nominated_is_proved(&self) -> bool {
        self.nominated.is_some_and(|path| {
            self.pairs.iter().any(|pair| pair.path == path && pair.proved && pair.generation == self.generation)
        })
    }

    fn selected_is_current(&self) -> bool {
        self.selected.is_some_and(|path| {
            self.pairs.iter().any(|pair| pair.path == path && pair.proved && pair.generation == self.generation)
        })
    }
}

/// The transport that a response's transaction id names; it is only believed after its integrity is proved.
pub fn transport_number(id: TransactionId) -> u32 {
    let [a, b, c, d, ..] = id.0;
    u32::from_be_bytes([a, b, c, d])
}

/// A moment at which the checks of many transports are due together: ten thousand idle ones wake the worker fifty times a second for
/// them, not two thousand times. The interval stays random (RFC 7675 §5.1).
fn in_company(at: Now) -> Now {
    Now(at.0.next_multiple_of(CONSENT_GRID.as_nanos() as u64))
}

/// Time between two such moments.
const CONSENT_GRID: Duration = Duration::from_millis(20);
/// Just past a deadline, so that comparisons with `>` hold.
const TICK: Duration = Duration::from_millis(1);
/// An unproved address that was silent this long may be forgotten for another.
const STALE: Duration = Duration::from_millis(500);

impl Credentials {
    fn new(credentials: &IceCredentials) -> Self {
        Self { ufrag: credentials.ufrag.clone(), key: IntegrityKey::new(credentials.pwd.as_bytes()) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.ufrag)
    }
}

impl Pair {
    fn new(path: Path, generation: u32, now: Now) -> Self {
        Self {
            path,
            generation,
            proved: false,
            answered: now,
            check: None,
            next_consent: now,
            heard: now,
            received: 0,
            sent: 0,
        }
    }

    /// Whether so many bytes may go there; if so, they are counted.
    fn allow(&mut self, size: usize) -> bool {
        let sent = self.sent + size as u64;
        let allowed = self.proved || sent <= UNPROVED_FACTOR * self.received;
        if allowed {
            self.sent = sent;
        }
        allowed
    }
}

impl Check {
    /// 64 random bits that only the owner of the address gets to see.
    fn new(number: u32, random: &mut Random, now: Now) -> Self {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        id[4..].copy_from_slice(&random.next_u64().to_be_bytes());
        Self { id: TransactionId(id), tries: 0, next: now, sent: now }
    }
}

#[cfg(test)]
mod tests;
