//! ICE of a client with one host candidate (RFC 8445): it checks the server's candidates in turn until one answers, nominates
//! that where it is the controlling side, and keeps consent alive (RFC 7675). Owns credentials and timers; never sees a
//! socket: its owner connects the socket to what [`Ice::choose`] says.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_shared::Now;

use super::chance::Chance;
use super::stun::{self, Message, Role, TransactionId};

/// A user fragment and its password.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) pwd: String,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Ice {
    local: Credentials,
    remote: Credentials,
    candidates: Vec<SocketAddr>,
    chosen: usize,
    role: Role,
    chance: Chance,
    is_connected: bool,
    /// Checks sent to the chosen candidate since it last answered, newest last.
    waiting: Vec<TransactionId>,
    next_check: Now,
    heard: Now,
}

/// What a message brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    Nothing,
    /// The chosen candidate has answered for the first time.
    Connected,
}

impl Ice {
    /// Begins at `now`. `is_controlling`: we offered, or the server is lite (RFC 8445 §6.1.1).
    pub(super) fn new(
        local: Credentials,
        remote: Credentials,
        candidates: Vec<SocketAddr>,
        is_controlling: bool,
        mut chance: Chance,
        now: Now,
    ) -> Self {
        let tie_breaker = chance.next();
        let role = if is_controlling { Role::Controlling(tie_breaker) } else { Role::Controlled(tie_breaker) };
        Self {
            local,
            remote,
            candidates,
            chosen: 0,
            role,
            chance,
            is_connected: false,
            waiting: Vec::new(),
            next_check: now,
            heard: now,
        }
    }

    /// Where to send from `now` on; nothing before the server has told a candidate. One that is silent gives way to the next.
    pub(super) fn choose(&mut self, now: Now) -> Option<SocketAddr> {
        let is_silent = !self.is_connected && self.waiting.len() >= CHECKS_EACH && now >= self.next_check;
        if is_silent && self.candidates.len() > 1 {
            self.chosen = (self.chosen + 1) % self.candidates.len();
            self.waiting.clear();
        }
        self.remote()
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.candidates.get(self.chosen).copied()
    }

    pub(super) fn add_candidate(&mut self, candidate: SocketAddr) {
        if !self.candidates.contains(&candidate) && self.candidates.len() < CANDIDATES_MAX {
            self.candidates.push(candidate);
        }
    }

    /// The server has restarted ICE (RFC 8445 §9): everything goes on while its new credentials are checked.
    pub(super) fn restart(&mut self, remote: Credentials, now: Now) {
        if self.remote != remote {
            self.remote = remote;
            self.waiting.clear();
            self.next_check = now;
        }
    }

    pub(super) fn next_deadline(&self) -> Now {
        self.next_check
    }

    /// Sends the check that is due. Fails when the server has been silent for too long.
    pub(super) fn handle_timeout(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) -> Result<(), &'static str> {
        if now < self.next_check {
            return Ok(());
        }
        if now.since(self.heard) > CONSENT {
            return Err("no answer to ICE checks for 30 s");
        }
        if self.remote().is_some() {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&self.chance.next().to_be_bytes());
            id[8..].copy_from_slice(&(self.chance.next() as u32).to_be_bytes());
            if self.waiting.len() >= WAITING_MAX {
                self.waiting.remove(0);
            }
            self.waiting.push(id);
            let user = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
            send(&stun::request(id, &user, &self.remote.pwd, self.role));
        }
        // RFC 7675 §5.1: every five seconds, give or take a fifth; sooner until the first answer or while none comes.
        let is_answered = self.is_connected && self.waiting.len() <= 1;
        let pause = if is_answered {
            Duration::from_millis(4000 + self.chance.below(2000))
        } else {
            CHECK_INTERVAL * (1 + self.waiting.len() as u32 / 4)
        };
        self.next_check = now + pause;
        Ok(())
    }

    /// A STUN message from the chosen candidate.
    pub(super) fn handle_message(&mut self, bytes: &[u8], now: Now, send: &mut dyn FnMut(&[u8])) -> News {
        match stun::read(bytes, &self.local.pwd, &self.remote.pwd) {
            // Only the server's own address is of no use to it: it asks for its reflexive one, which is what it sees.
            Some(Message::Request(id)) => {
                if let Some(from) = self.remote() {
                    send(&stun::success(id, from, &self.local.pwd));
                }
                News::Nothing
            }
            Some(Message::Success(id)) if self.waiting.contains(&id) => {
                self.waiting.clear();
                self.heard = now;
                if self.is_connected {
                    return News::Nothing;
                }
                self.is_connected = true;
                self.next_check = now + Duration::from_millis(4000 + self.chance.below(2000));
                News::Connected
            }
            // RFC 8445 §7.2.5.1: a role conflict is repaired by switching.
            Some(Message::Failure(id, 487)) if self.waiting.contains(&id) => {
                self.role = match self.role {
                    Role::Controlling(tie_breaker) => Role::Controlled(tie_breaker),
                    Role::Controlled(tie_breaker) => Role::Controlling(tie_breaker),
                };
                self.waiting.clear();
                self.next_check = now;
                News::Nothing
            }
            _ => News::Nothing,
        }
    }
}

/// RFC 7675 §5.1.
const CONSENT: Duration = Duration::from_secs(30);
/// Between checks of a candidate that has not answered, growing with each four.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Checks without an answer after which the next candidate is tried.
const CHECKS_EACH: usize = 4;
const WAITING_MAX: usize = 16;
const CANDIDATES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str) -> Credentials {
        Credentials { ufrag: name.into(), pwd: format!("{name} has a password of some length") }
    }

    fn agent(candidates: &[&str], is_controlling: bool) -> Ice {
        let candidates = candidates.iter().map(|text| text.parse().expect("an address")).collect();
        Ice::new(credentials("us"), credentials("them"), candidates, is_controlling, Chance::new(1, 1), Now(0))
    }

    /// Runs the timer until it has sent something; gives what it sent.
    fn check(ice: &mut Ice) -> (Now, Vec<u8>) {
        let (now, mut sent) = (ice.next_deadline(), Vec::new());
        ice.handle_timeout(now, &mut |bytes| sent.extend_from_slice(bytes)).expect("alive");
        (now, sent)
    }

    fn answer(check: &[u8]) -> Vec<u8> {
        let id = check[8..20].try_into().expect("a header");
        stun::success(id, "127.0.0.1:9".parse().expect("an address"), &credentials("them").pwd)
    }

    fn nothing(bytes: &[u8]) {
        panic!("sent {bytes:?}")
    }

    #[test]
    fn an_answered_check_connects_once_and_checks_become_consent() {
        let mut ice = agent(&["127.0.0.1:5000"], true);
        let (now, sent) = check(&mut ice);
        assert!(sent.windows(2).any(|pair| pair == [0x00, 0x25]), "it nominates");
        assert_eq!(ice.handle_message(&answer(&sent), now, &mut nothing), News::Connected);
        assert!(ice.next_deadline().since(now) >= Duration::from_secs(4));
        let (now, sent) = check(&mut ice);
        assert_eq!(ice.handle_message(&answer(&sent), now, &mut nothing), News::Nothing);
        assert_eq!(ice.handle_message(&answer(&[0; 20]), now, &mut nothing), News::Nothing, "an answer to nothing");
    }

    #[test]
    fn a_silent_candidate_gives_way_to_the_next() {
        let mut ice = agent(&["127.0.0.1:5000", "127.0.0.1:6000"], true);
        let ports: Vec<u16> = (0..10)
            .map(|_| {
                let chosen = ice.choose(ice.next_deadline());
                check(&mut ice);
                chosen.expect("a candidate").port()
            })
            .collect();
        assert_eq!(ports, [5000, 5000, 5000, 5000, 6000, 6000, 6000, 6000, 5000, 5000]);
    }

    #[test]
    fn a_server_that_falls_silent_is_given_up_after_thirty_seconds() {
        let mut ice = agent(&["127.0.0.1:5000"], true);
        let (now, sent) = check(&mut ice);
        ice.handle_message(&answer(&sent), now, &mut nothing);
        let mut sent = 0;
        loop {
            let at = ice.next_deadline();
            if ice.handle_timeout(at, &mut |_| sent += 1).is_err() {
                assert!((30..40).contains(&at.since(now).as_secs()));
                assert!(sent > 6, "it has tried");
                return;
            }
        }
    }

    #[test]
    fn a_role_conflict_is_repaired_by_switching() {
        let mut ice = agent(&["127.0.0.1:5000"], false);
        let (now, sent) = check(&mut ice);
        assert!(!sent.windows(2).any(|pair| pair == [0x00, 0x25]), "a controlled side nominates nothing");
        let mut refusal = vec![0x01, 0x11, 0, 8, 0x21, 0x12, 0xa4, 0x42];
        refusal.extend_from_slice(&sent[8..20]);
        refusal.extend_from_slice(&[0, 9, 0, 4, 0, 0, 4, 87]);
        ice.handle_message(&refusal, now, &mut nothing);
        let (_, sent) = check(&mut ice);
        assert!(sent.windows(2).any(|pair| pair == [0x00, 0x25]), "controlling now");
    }

    #[test]
    fn a_servers_check_is_answered_when_it_knows_the_password() {
        let mut ice = agent(&["127.0.0.1:5000"], true);
        let mut sent = Vec::new();
        let wrong = stun::request([3; 12], "us:them", "wrong", Role::Controlled(1));
        ice.handle_message(&wrong, Now(0), &mut nothing);
        let right = stun::request([3; 12], "us:them", &credentials("us").pwd, Role::Controlled(1));
        ice.handle_message(&right, Now(0), &mut |bytes| sent.extend_from_slice(bytes));
        assert_eq!(stun::read(&sent, "", &credentials("us").pwd), Some(Message::Success([3; 12])));
    }
}
