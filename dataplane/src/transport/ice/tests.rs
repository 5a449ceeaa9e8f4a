//! An agent against its peer, and against others who know part of what its peer knows, in virtual time.

use super::*;
use crate::io::SocketIndex;

/// The agent, and what it sent to whom.
struct World {
    agent: IceAgent,
    random: Random,
    now: Now,
    sent: Vec<(Path, Vec<u8>)>,
    /// Addresses that answer checks as the peer would.
    answering: Vec<Path>,
    /// No media is being sent.
    rests: bool,
}

fn ours() -> IceCredentials {
    IceCredentials { ufrag: "ours".into(), pwd: "our-password-of-22-chars".into() }
}

fn theirs() -> IceCredentials {
    IceCredentials { ufrag: "peer".into(), pwd: "the-peer's-password-is-this".into() }
}

fn path(port: u16) -> Path {
    Path { socket: SocketIndex(0), remote: ([127, 0, 0, 9], port).into() }
}

/// A check as the peer makes it: for `to`, signed with the password of `key`.
fn check(to: &str, from: &str, key: &str, nominate: bool) -> Vec<u8> {
    let mut out = [0; 300];
    let request = BindingRequest {
        transaction_id: TransactionId([7; 12]),
        remote_ufrag: to,
        local_ufrag: from,
        priority: 1,
        role: Role::Controlling(1, nominate),
    };
    let len = write_binding_request(&mut out, &request, &IntegrityKey::new(key.as_bytes())).expect("room");
    out[..len].to_vec()
}

fn valid(nominate: bool) -> Vec<u8> {
    check("ours", "peer", &ours().pwd, nominate)
}

impl World {
    fn new() -> Self {
        let (mut random, now) = (Random::from_seed([3; 32]), Now::from_millis(1_000));
        let agent = IceAgent::new(&ours(), Some(&theirs()), 77, &mut random, now);
        Self { agent, random, now, sent: Vec::new(), answering: Vec::new(), rests: false }
    }

    /// A world in which the peer is connected from port 1.
    fn connected() -> Self {
        let mut world = Self::new();
        world.answering.push(path(1));
        world.hear(path(1), &valid(true)).expect("the peer's check");
        world.pass(Duration::from_millis(1));
        assert_eq!((world.agent.selected(), world.agent.state()), (Some(path(1)), IceState::Connected));
        world
    }

    fn hear(&mut self, from: Path, datagram: &[u8]) -> Result<Reaction, DropReason> {
        let mut reply = [0; 128];
        let message = Message::parse(datagram)?;
        let (random, now) = (&mut self.random, self.now);
        let reaction = self.agent.handle_stun(&message, from, datagram.len(), &mut reply, random, now)?;
        if let Some(len) = reaction.reply {
            self.sent.push((from, reply[..len].to_vec()));
        }
        Ok(reaction)
    }

    /// Lets time pass as the worker does: from deadline to deadline, each of which must be done with when it was looked after.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.agent.handle_timeout(self.now);
            if self.rests {
                self.agent.rest(self.now);
            }
            let mut buffer = [0; 700];
            while let Some((to, len)) = self.agent.poll_check(&mut buffer, &mut self.random, self.now) {
                self.sent.push((to, buffer[..len].to_vec()));
                if self.answering.contains(&to) {
                    let answer = answer(&buffer[..len], to, &theirs().pwd);
                    self.hear(to, &answer).expect("an answer to a check");
                }
            }
            let next = self.agent.next_deadline();
            assert!(next.is_none_or(|next| next > self.now), "{next:?} is not done with at {:?}", self.now);
            match next.filter(|&next| next <= end) {
                Some(next) => self.now = next,
                None => break,
            }
        }
        self.now = end;
    }

    /// How many checks it sent.
    fn checks(&self) -> usize {
        let is_check = |bytes: &[u8]| Message::parse(bytes).is_ok_and(|message| message.class() == Class::Request);
        self.sent.iter().filter(|(_, bytes)| is_check(bytes)).count()
    }

    fn bytes_to(&self, to: Path) -> usize {
        self.sent.iter().filter(|(path, _)| *path == to).map(|(_, bytes)| bytes.len()).sum()
    }
}

fn answer(request: &[u8], from: Path, key: &str) -> Vec<u8> {
    let id = Message::parse(request).expect("our own check").transaction_id();
    let mut out = [0; 128];
    let len = write_binding_success(&mut out, id, from.remote, &IntegrityKey::new(key.as_bytes())).expect("room");
    out[..len].to_vec()
}

#[test]
fn a_check_that_is_wrong_in_any_part_is_dropped_without_an_answer_or_a_trace() {
    let mut unsigned = [0; 100];
    let mut writer = crate::packet::stun::MessageWriter::new(&mut unsigned, Class::Request, 1, TransactionId([7; 12]));
    writer.attribute(crate::packet::stun::attribute::USERNAME, b"ours:peer");
    let unsigned_len = writer.finish().expect("room");
    let mut broken = valid(true);
    *broken.last_mut().expect("not empty") ^= 1;
    let mut allocate = valid(true);
    allocate[1] = 3;
    let pwd = &ours().pwd;
    let wrong = [
        ("wrong ufrag of ours", check("other", "peer", pwd, true)),
        ("wrong ufrag of the peer", check("ours", "other", pwd, true)),
        ("ufrags swapped", check("peer", "ours", pwd, true)),
        ("signed with the sender's own password", check("ours", "peer", &theirs().pwd, true)),
        ("not signed", unsigned[..unsigned_len].to_vec()),
        ("wrong fingerprint", broken),
        ("another method", allocate),
        ("cut", valid(true)[..40].to_vec()),
    ];
    for (what, datagram) in wrong {
        let mut world = World::new();
        assert!(world.hear(path(1), &datagram).is_err(), "{what}");
        world.pass(Duration::from_secs(5));
        assert_eq!((world.sent.len(), world.agent.state()), (0, IceState::New), "{what}");
        assert_eq!(world.agent.paths().count(), 0, "{what}");
    }
}

#[test]
fn an_answer_counts_only_from_where_the_check_went_and_with_the_peers_password() {
    let mut world = World::new();
    world.hear(path(1), &valid(true)).expect("the peer's check");
    world.pass(Duration::from_millis(1));
    let ours = world.sent.iter().find(|(_, bytes)| bytes[0] == 0 && bytes[1] == 1).expect("our check").1.clone();
    assert!(world.hear(path(2), &answer(&ours, path(1), &theirs().pwd)).is_err());
    assert!(world.hear(path(1), &answer(&ours, path(1), &super::tests::ours().pwd)).is_err());
    assert_eq!(world.agent.selected(), None);
    assert!(world.hear(path(1), &answer(&ours, path(1), &theirs().pwd)).is_ok());
    assert_eq!(world.agent.selected(), Some(path(1)));
}

#[test]
fn media_does_not_move_to_an_address_that_does_not_answer_and_little_is_sent_there() {
    let mut world = World::connected();
    let forged = valid(true);
    let mut received = 0;
    for _ in 0..20 {
        received += forged.len();
        world.hear(path(9), &forged).expect("a valid check");
        world.pass(Duration::from_millis(700));
        assert_eq!(world.agent.selected(), Some(path(1)));
        assert!(world.bytes_to(path(9)) <= 3 * received, "{} for {received}", world.bytes_to(path(9)));
    }
    world.answering.push(path(9));
    world.hear(path(9), &forged).expect("a valid check");
    world.pass(Duration::from_millis(850));
    assert_eq!(world.agent.selected(), Some(path(9)), "it answers, so it is the peer");
}

#[test]
fn a_single_forged_check_makes_no_more_than_three_times_its_size() {
    let mut world = World::connected();
    world.hear(path(9), &valid(true)).expect("a valid check");
    world.pass(Duration::from_secs(60));
    assert!(world.bytes_to(path(9)) <= 3 * valid(true).len());
    assert!(!world.agent.paths().any(|known| known == path(9)), "an address that never answered is forgotten");
}

#[test]
fn a_captured_check_that_is_replayed_moves_nothing() {
    let mut world = World::connected();
    for seconds in [1, 10, 60] {
        world.pass(Duration::from_secs(seconds));
        let _ = world.hear(path(100 + seconds as u16), &valid(true));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.agent.selected(), Some(path(1)));
    }
}

#[test]
fn nothing_is_sent_once_consent_is_thirty_seconds_old_and_an_answer_before_that_renews_it() {
    let mut world = World::connected();
    world.answering.clear();
    world.pass(Duration::from_secs(29));
    assert_eq!((world.agent.state(), world.agent.selected()), (IceState::Disconnected, Some(path(1))));
    world.answering.push(path(1));
    world.pass(Duration::from_secs(3));
    assert_eq!((world.agent.state(), world.agent.selected()), (IceState::Connected, Some(path(1))));
    world.answering.clear();
    world.pass(Duration::from_secs(37));
    assert_eq!((world.agent.state(), world.agent.selected(), world.agent.egress(1)), (IceState::Failed, None, None));
    let before = world.sent.len();
    world.pass(Duration::from_secs(600));
    assert_eq!(world.sent.len(), before, "not even checks");
}

#[test]
fn forged_requests_do_not_renew_consent() {
    let mut world = World::connected();
    world.answering.clear();
    for _ in 0..40 {
        world.hear(path(1), &valid(true)).expect("a valid check");
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.agent.state(), IceState::Failed);
}

#[test]
fn a_restart_keeps_the_stream_and_ends_the_old_credentials_with_the_first_check_of_the_new() {
    let mut world = World::connected();
    let new = IceCredentials { ufrag: "anew".into(), pwd: "our-next-password-of-some-length".into() };
    world.agent.restart(&new, Some(&theirs()), world.now);
    assert_eq!(world.agent.ufrags().collect::<Vec<_>>(), ["anew", "ours"]);
    assert!(world.hear(path(1), &valid(true)).is_ok(), "checks that were under way are still answered");
    assert_eq!(world.agent.selected(), Some(path(1)));
    let fresh = check("anew", "peer", &new.pwd, true);
    world.answering.push(path(2));
    world.hear(path(2), &fresh).expect("a check of the new generation");
    assert_eq!(world.agent.selected(), Some(path(1)), "until the new address is proved");
    world.pass(Duration::from_millis(1));
    assert_eq!((world.agent.selected(), world.agent.state()), (Some(path(2)), IceState::Connected));
    assert_eq!(world.hear(path(1), &valid(true)).err(), Some(DropReason::StunUnknownUfrag));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.agent.paths().collect::<Vec<_>>(), [path(2)]);
}

#[test]
fn a_restart_brings_a_failed_agent_back_on_the_same_address() {
    let mut world = World::connected();
    world.answering.clear();
    world.pass(Duration::from_secs(40));
    assert_eq!(world.agent.state(), IceState::Failed);
    let new = IceCredentials { ufrag: "anew".into(), pwd: "our-next-password-of-some-length".into() };
    world.agent.restart(&new, Some(&theirs()), world.now);
    world.answering.push(path(1));
    world.hear(path(1), &check("anew", "peer", &new.pwd, true)).expect("a check of the new generation");
    world.pass(Duration::from_millis(1));
    assert_eq!((world.agent.selected(), world.agent.state()), (Some(path(1)), IceState::Connected));
}

#[test]
fn who_knows_the_user_fragment_can_neither_burn_time_nor_take_the_peers_budget() {
    let mut world = World::connected();
    let wrong = check("ours", "peer", "not-the-password-at-all", true);
    let mut verified = 0;
    for _ in 0..60 {
        for port in 0..1_000 {
            verified += u32::from(world.hear(path(1_000 + port), &wrong).err() == Some(DropReason::StunIntegrity));
        }
        world.hear(path(1), &valid(true)).expect("the peer's own check");
        world.pass(Duration::from_secs(1));
    }
    assert!(verified <= 60 * STUN_PER_SECOND + STUN_BURST, "{verified}");
    assert_eq!(world.agent.state(), IceState::Connected);
}

#[test]
fn media_follows_the_last_nomination_but_not_more_than_once_a_second() {
    let mut world = World::connected();
    world.answering.push(path(2));
    world.hear(path(2), &valid(false)).expect("a check");
    world.pass(Duration::from_millis(1));
    let (mut moves, mut selected) = (0, world.agent.selected());
    for round in 0..100 {
        world.hear(path(1 + round % 2), &valid(true)).expect("a check");
        world.pass(Duration::from_millis(50));
        moves += u32::from(world.agent.selected() != selected);
        selected = world.agent.selected();
    }
    assert!(moves <= 5 + MOVES_BURST, "{moves} in five seconds");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.agent.selected(), Some(path(2)), "the last wish");
}

#[test]
fn a_check_that_overtakes_the_peers_answer_is_answered_and_its_address_proved_later() {
    let mut world = World::new();
    world.agent = IceAgent::new(&ours(), None, 77, &mut world.random, world.now);
    world.answering.push(path(1));
    let reaction = world.hear(path(1), &valid(true)).expect("signed with our password");
    assert!(reaction.reply.is_some(), "answered at once");
    world.pass(Duration::from_millis(100));
    assert!(world.agent.selected().is_none() && !world.agent.is_proved(path(1)), "no password to ask with yet");

    world.agent.set_remote(&theirs(), world.now);
    world.pass(Duration::from_millis(1));
    assert_eq!((world.agent.selected(), world.agent.state()), (Some(path(1)), IceState::Connected));
    let other = check("ours", "other", &ours().pwd, true);
    assert_eq!(world.hear(path(2), &other).expect_err("its name is known now"), DropReason::StunIntegrity);
}

#[test]
fn a_path_that_is_no_more_gets_nothing_and_another_proved_one_takes_its_place() {
    let mut world = World::connected();
    world.agent.forget(path(1), world.now);
    assert_eq!((world.agent.selected(), world.agent.egress(100)), (None, None));
    world.sent.clear();
    world.pass(ICE_CONSENT * 2);
    assert!(world.sent.is_empty());
    assert_eq!(world.agent.state(), IceState::Failed);
    let mut world = World::connected();
    world.answering.push(path(2));
    world.hear(path(2), &valid(false)).expect("the peer's check");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.agent.selected(), Some(path(1)));
    world.agent.forget(path(1), world.now);
    assert_eq!((world.agent.selected(), world.agent.state()), (Some(path(2)), IceState::Connected));
}

#[test]
fn where_nothing_is_sent_checks_are_few() {
    let checks = |rests: bool, peer_checks: bool| {
        let mut world = World::connected();
        world.rests = rests;
        for second in 0..600 {
            if peer_checks && second % 2 == 0 {
                world.hear(path(1), &valid(false)).expect("the peer's check");
            }
            world.pass(Duration::from_secs(1));
            assert_eq!(world.agent.state(), IceState::Connected);
        }
        world.checks()
    };
    let (busy, idle, silent) = (checks(false, true), checks(true, true), checks(true, false));
    assert!((110..=130).contains(&busy), "every five seconds: {busy}");
    assert!((25..=45).contains(&idle), "every twenty or so: {idle}");
    assert!((110..=130).contains(&silent), "a peer that does not check is checked as ever: {silent}");
}

#[test]
fn a_peer_far_away_is_asked_once_and_how_far_it_is_can_be_told() {
    let mut world = World::connected();
    for far in [60, 200, 450].map(Duration::from_millis) {
        world.sent.clear();
        world.answering.clear();
        while world.checks() == 0 {
            world.pass(Duration::from_millis(1));
        }
        world.pass(far);
        assert_eq!(world.checks(), 1, "{far:?}");
        let answer = answer(&world.sent[0].1, path(1), &theirs().pwd);
        world.hear(path(1), &answer).expect("an answer to a check");
        assert_eq!(world.agent.round_trip(), Some(far));
    }
}

#[test]
fn after_a_rest_there_is_time_for_checks_that_are_lost() {
    for seed in 0..50 {
        let mut world = World::connected();
        (world.random, world.rests) = (Random::from_seed([seed; 32]), true);
        let mut waited = 0;
        while world.agent.state() != IceState::Failed {
            world.hear(path(1), &valid(false)).expect("the peer's check");
            world.pass(Duration::from_secs(1));
            waited += 1;
            // It answers for a while; from then on it checks, and answers nothing.
            if waited == 60 {
                world.answering.clear();
                world.sent.clear();
            }
            assert!(waited < 60 + 31, "seed {seed}: {:?}", world.agent.state());
        }
        assert!(waited >= 60, "seed {seed}: failed after {waited} s");
        assert!(world.checks() >= 5, "seed {seed}: {} checks", world.checks());
    }
}

#[test]
fn who_speaks_by_dtls_rests_less() {
    let mut world = World::connected();
    world.rests = true;
    for _ in 0..100 {
        world.hear(path(1), &valid(false)).expect("the peer's check");
        assert_eq!(world.agent.egress(100), Some(path(1)));
        world.pass(Duration::from_secs(1));
    }
    assert!((16..=25).contains(&world.checks()), "{}", world.checks());
}

#[test]
fn to_move_away_and_back_is_no_consent_of_an_address_that_does_not_answer() {
    let mut world = World::connected();
    world.answering.push(path(2));
    world.hear(path(2), &valid(true)).expect("the peer's check");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.agent.selected(), Some(path(2)));
    world.answering.retain(|&answering| answering == path(1));
    // From here on everything from the second address is the peer's word, and nobody's answer.
    for _ in 0..3 {
        world.pass(Duration::from_secs(20));
        world.hear(path(1), &valid(true)).expect("the peer's check");
        world.hear(path(2), &valid(true)).expect("the peer's check");
    }
    world.pass(Duration::from_millis(10));
    assert_ne!(world.agent.selected(), Some(path(2)), "a minute after its last answer");
}
