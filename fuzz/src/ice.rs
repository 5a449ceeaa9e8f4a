//! One ICE agent and whoever talks to it: a peer with the right passwords who may lie about where it is, and strangers.

use std::collections::HashMap;
use std::time::Duration;

use ringmain_dataplane::io::Path;
use ringmain_dataplane::packet::stun::Message;
use ringmain_dataplane::random::Random;
use ringmain_dataplane::transport::{IceAgent, Reaction};
use ringmain_shared::Now;
use ringmain_shared::event::IceState;
use ringmain_shared::limits::REMOTES_PER_TRANSPORT_MAX;
use ringmain_shared::transport::IceCredentials;

use crate::conversation::{Ledger, check, credentials, path, response};
use crate::input::Input;

/// Steps of one input.
const STEPS_MAX: usize = 1024;

/// Each step is a datagram of the peer's or a stranger's, time, or an order of control's.
pub fn ice(data: &[u8]) {
    let mut input = Input::new(data);
    let mut scene = Scene::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            return;
        }
        scene.step(&mut input);
        scene.settle();
    }
}

struct Scene {
    agent: IceAgent,
    random: Random,
    now: Now,
    ledger: Ledger,
    ours: IceCredentials,
    theirs: Option<IceCredentials>,
    generation: u8,
    checks: u64,
    /// The latest check of ours to each address, with the password that answers it.
    pending: HashMap<Path, (Vec<u8>, IceCredentials)>,
    claimed: Vec<Path>,
}

impl Scene {
    fn new(input: &mut Input<'_>) -> Self {
        let mut random = Random::from_seed([9; 32]);
        let ours = credentials("ours", 0);
        let theirs = (!input.u8().is_multiple_of(4)).then(|| credentials("peer", 0));
        let now = Now::from_millis(1_000);
        let agent = IceAgent::new(&ours, theirs.as_ref(), 5, &mut random, now);
        Self {
            agent,
            random,
            now,
            ledger: Ledger::default(),
            ours,
            theirs,
            generation: 0,
            checks: 0,
            pending: HashMap::new(),
            claimed: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        let place = path(op >> 4);
        match op & 0x0f {
            0..=2 => self.peer_checks(place, op & 1 == 1),
            3 | 4 => self.peer_answers(place, place),
            // The answer to a check that went elsewhere proves nothing about here.
            5 => self.peer_answers(path(input.u8()), place),
            6 => {
                let stranger = credentials("nobody", input.u8());
                let bytes = check(&stranger, &stranger, 1, true);
                self.receive(place, &bytes);
            }
            7 => {
                let bytes = input.chunk();
                self.receive(place, bytes);
            }
            8 | 9 => self.wait(Duration::from_millis(u64::from(input.u16()))),
            10 => self.wait(Duration::from_millis(u64::from(op >> 4) * 5)),
            11 => self.hand_out(usize::from(input.u16()) % 1500),
            12 => {
                let size = usize::from(input.u8());
                self.ledger.received(place, size);
                self.agent.credit(place, size);
            }
            13 => self.restart(op >> 4),
            14 => {
                let theirs = credentials("peer", self.generation);
                self.agent.set_remote(&theirs, self.now);
                self.theirs = Some(theirs);
            }
            _ => self.agent.heard(self.now),
        }
    }

    fn peer_checks(&mut self, from: Path, nominate: bool) {
        self.checks += 1;
        let theirs = self.theirs.clone().unwrap_or_else(|| credentials("peer", self.generation));
        let bytes = check(&self.ours, &theirs, self.checks, nominate);
        self.receive(from, &bytes);
    }

    fn peer_answers(&mut self, asked: Path, from: Path) {
        let Some((check, theirs)) = self.pending.get(&asked) else { return };
        let Some(bytes) = response(check, from, theirs) else { return };
        if asked == from {
            self.ledger.prove(from);
        }
        self.receive(from, &bytes);
    }

    fn receive(&mut self, from: Path, bytes: &[u8]) {
        self.ledger.received(from, bytes.len());
        let Ok(message) = Message::parse(bytes) else { return };
        let mut reply = [0; 128];
        let result = self.agent.handle_stun(&message, from, bytes.len(), &mut reply, &mut self.random, self.now);
        let Ok(reaction) = result else { return };
        if let Some(len) = reaction.reply {
            assert!(Message::parse(&reply[..len]).is_ok());
            self.ledger.sent(from, len);
        }
        if reaction.claims.is_some() && !self.claimed.contains(&from) {
            self.claimed.push(from);
        }
        self.follow(&reaction);
        assert!(self.claimed.len() <= REMOTES_PER_TRANSPORT_MAX, "{:?}", self.claimed);
    }

    fn follow(&mut self, reaction: &Reaction) {
        self.claimed.retain(|claimed| !reaction.released.contains(claimed));
        assert!(!reaction.selected || self.agent.selected().is_some());
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut idle = 0;
        while let Some(deadline) = self.agent.next_deadline()
            && deadline <= until
        {
            idle = if deadline > self.now { 0 } else { idle + 1 };
            assert!(idle < 64, "nothing comes of the deadline {deadline:?} in {:?}", self.agent);
            self.now = self.now.max(deadline);
            self.settle();
        }
        self.now = until;
    }

    fn hand_out(&mut self, size: usize) {
        let Some(to) = self.agent.egress(size) else { return };
        assert_ne!(self.agent.state(), IceState::Failed, "without consent nothing is sent");
        self.ledger.sent(to, size);
    }

    fn restart(&mut self, which: u8) {
        self.generation = self.generation.wrapping_add(1) % 90;
        self.ours = credentials("ours", self.generation);
        self.theirs = which.is_multiple_of(2).then(|| credentials("peer", self.generation));
        self.agent.restart(&self.ours, self.theirs.as_ref(), self.now);
    }

    /// What is due, and what must hold then.
    fn settle(&mut self) {
        let reaction = self.agent.handle_timeout(self.now);
        self.follow(&reaction);
        let mut out = [0; 700];
        for round in 0.. {
            let Some((to, len)) = self.agent.poll_check(&mut out, &mut self.random, self.now) else { break };
            assert!(round < 2 * REMOTES_PER_TRANSPORT_MAX, "checks without end");
            self.ledger.sent(to, len);
            let theirs = self.theirs.clone().expect("no check before the peer's credentials are known");
            self.pending.insert(to, (out[..len].to_vec(), theirs));
        }
        if let Some(selected) = self.agent.selected() {
            assert!(self.ledger.is_proved(selected), "{selected:?} was selected unproved");
            assert!(self.agent.admits_media(selected));
        }
        for number in 0..crate::conversation::PATHS {
            let place = path(number);
            assert!(!self.agent.is_proved(place) || self.ledger.is_proved(place), "{place:?} was believed");
            assert!(!self.agent.admits_media(place) || self.ledger.is_proved(place), "media of {place:?} was believed");
        }
    }
}
