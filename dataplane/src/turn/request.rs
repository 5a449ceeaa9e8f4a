//! Messages of clients, and who sends them: the long-term credential mechanism of RFC 8489 §9.2.4, step by step, with the tokens of
//! RFC 7635 §7 in it.
//!
//! Nothing here remembers a stranger. A request that proves nothing costs a look at its bytes, and gets an answer only as long as
//! there is budget for its address.

use arrayvec::ArrayVec;
use ringmain_shared::turn::PasswordAlgorithms;
use ringmain_shared::{DropReason, Now};

use super::allocation::{Allocation, AllocationKey, Client};
use super::credential::{Claim, HeldToken, Keys};
use super::nonce::Features;
use super::reply::{Refusal, ReplyTo, Seal, UNKNOWN_MAX};
use super::token::{AccessToken, MacKey, TokenFault};
use super::{ForMedia, Turn, base64, discovery};
use crate::io::Transmit;
use crate::packet::demux::{Protocol, classify};
use crate::packet::stun::{Class, IntegrityKey, IntegrityKey256, Message, MessageWriter, attribute, error, method};

/// A request whose sender is known.
pub(super) struct Known<'a> {
    pub(super) message: Message<'a>,
    pub(super) reply: ReplyTo,
    pub(super) claim: Claim,
    /// Which of the claim's keys proved it.
    pub(super) keys: Keys,
}

/// A request that is not answered as it wishes.
pub(super) enum Rejected {
    /// With REALM and NONCE, so that it may try again.
    Challenge(u16),
    /// The same, and an operator may want to know why.
    Token(TokenFault),
    /// As it is.
    Refuse(Refusal),
}

impl Turn {
    /// A message of a client, or what looks like one. A datagram for our own media is handed back.
    #[inline]
    pub fn handle_client(
        &mut self,
        client: Client,
        bytes: &[u8],
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<Option<ForMedia>, DropReason> {
        // Channels of RFC 5766 reach up to 0x7fff, beyond what RFC 7983 leaves them on a port with media.
        if matches!(bytes.first(), Some(0x40..=0x7f)) {
            return self.handle_channel_data(client, bytes, now, out);
        }
        match classify(bytes) {
            Some(Protocol::Stun) => {
                let message = Message::parse(bytes)?;
                match (message.class(), message.method()) {
                    (Class::Indication, method::SEND) => self.handle_send(client, bytes, &message, now, out),
                    // RFC 8489 §6.3.2: a Binding indication keeps NATs open and wants nothing.
                    (Class::Indication, method::BINDING) => Ok(None),
                    (Class::Request, method::BINDING) => {
                        self.handle_binding(client, bytes.len(), &message, now, out).map(|()| None)
                    }
                    (Class::Request, _) => self.handle_request(client, bytes.len(), message, now, out).map(|()| None),
                    _ => Err(DropReason::TurnMalformed),
                }
            }
            _ => Err(DropReason::UnknownProtocol),
        }
    }

    /// RFC 8489 §6.3.1. At most 1.25 times the request, if nothing of NATs is told.
    fn handle_binding(
        &mut self,
        client: Client,
        size: usize,
        message: &Message<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        if !self.spec.binding {
            return Err(DropReason::TurnMalformed);
        }
        self.spend_reply(client, now)?;
        self.stats.bindings += 1;
        let reply = reply_to(client, message);
        if let Some(origins) = self.origins(client.path.socket) {
            return self.discover(&origins, reply, message, size, out);
        }
        if let Some(refusal) = refuse_unknown(message, attribute::KNOWN_IN_BINDING)
            && !(refusal.unknown[..] == [attribute::CHANGE_REQUEST] && discovery::asks_no_change(message))
        {
            return reply.refuse(&refusal, out);
        }
        let mapped = |message: &mut MessageWriter<'_>| {
            message.xor_address(attribute::XOR_MAPPED_ADDRESS, client.path.remote);
        };
        reply.send(Class::Success, mapped, out)
    }

    fn handle_request(
        &mut self,
        client: Client,
        size: usize,
        message: Message<'_>,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let handle: fn(&mut Self, &Known<'_>, Now, &mut dyn Transmit) -> Result<(), Refusal> = match message.method() {
            method::ALLOCATE => Self::handle_allocate,
            method::REFRESH => Self::handle_refresh,
            method::CREATE_PERMISSION => Self::handle_create_permission,
            method::CHANNEL_BIND => Self::handle_channel_bind,
            method::CONNECT => Self::handle_connect,
            method::CONNECTION_BIND => Self::handle_connection_bind,
            _ => return Err(DropReason::TurnMalformed),
        };
        // What was on its way behind a ConnectionBind is not a message any more.
        if self.connections.joined.contains(&client.path) {
            return Err(DropReason::TurnMalformed);
        }
        let known = match self.authenticate(client, message, now) {
            Ok(known) => known,
            Err(rejected) => return self.reject(client, size, &message, rejected, now, out),
        };
        let done = match refuse_unknown(&message, self.known_attributes()) {
            Some(refusal) => Err(refusal),
            None => handle(self, &known, now, out),
        };
        done.or_else(|refusal| known.reply.refuse(&refusal, out))
    }

    /// RFC 8489 §9.2.4, in its order.
    pub(super) fn authenticate<'a>(
        &self,
        client: Client,
        message: Message<'a>,
        now: Now,
    ) -> Result<Known<'a>, Rejected> {
        if !message.has_integrity() && !message.has_integrity_sha256() {
            return Err(Rejected::Challenge(error::UNAUTHENTICATED));
        }
        let bad_request = || Rejected::Refuse(error::BAD_REQUEST.into());
        let nonce = message.attribute(attribute::NONCE).ok_or_else(bad_request)?;
        let name = self.read_username(&message).ok_or_else(bad_request)?;
        if message.attribute(attribute::REALM).is_none() {
            return Err(bad_request());
        }
        let token = message.attribute(attribute::ACCESS_TOKEN);
        if token.is_some() && self.tokens.is_none() {
            // RFC 7635 §7: nobody was told to bring one.
            let unknown = ArrayVec::from_iter([attribute::ACCESS_TOKEN]);
            return Err(Rejected::Refuse(Refusal { code: error::UNKNOWN_ATTRIBUTE, unknown }));
        }
        let stale = |_| Rejected::Challenge(error::STALE_NONCE);
        let home = self.home(client, &message);
        // A nonce that was given to a client's first connection is good for its data connections: clients do not ask for another.
        let asked_from = home.map_or(client, |allocation| allocation.client).path.remote;
        let features = self.nonces.check(nonce, client.path.remote, now);
        let features = features.or_else(|_| self.nonces.check(nonce, asked_from, now)).map_err(stale)?;
        let algorithm = read_algorithm(&message, features).ok_or_else(bad_request)?;
        let unauthenticated = || Rejected::Challenge(error::UNAUTHENTICATED);
        let name = name.ok_or_else(unauthenticated)?;
        let claim = match token.filter(|_| matches!(message.method(), method::ALLOCATE | method::REFRESH)) {
            Some(token) => self.open_token(name, token, now).map_err(Rejected::Token)?,
            // RFC 7635 §9: no other request has one, and in none it would say more than the allocation does.
            None => self.find_claim(home, name).ok_or_else(unauthenticated)?,
        };
        // RFC 8489 §9.2.4: the stronger integrity counts where there are both.
        let proof = |keys: &Keys| {
            let key = match (keys, algorithm) {
                (Keys::Password(keys), Algorithm::Md5) => &keys.md5[..],
                (Keys::Password(keys), Algorithm::Sha256) => &keys.sha256[..],
                // RFC 7635 §5: as it is.
                (Keys::Token(mac_key), _) => mac_key.bytes(),
            };
            if message.has_integrity_sha256() {
                let key = IntegrityKey256::new(key);
                message.verify_integrity_sha256(&key).ok().map(|()| Seal::Sha256(key))
            } else {
                let key = IntegrityKey::new(key);
                message.verify_integrity(&key).ok().map(|()| Seal::Sha1(key))
            }
        };
        let proved = claim.keys.iter().find_map(|keys| Some((proof(keys)?, keys.clone())));
        let (seal, keys) = proved.ok_or_else(unauthenticated)?;
        let reply = ReplyTo { seal: Some(seal), ..reply_to(client, &message) };
        Ok(Known { message, reply, claim, keys })
    }

    /// The name in USERNAME or USERHASH; `Some(None)` for a hash that is nobody's, `None` where there is no name.
    fn read_username<'s>(&'s self, message: &Message<'s>) -> Option<Option<&'s str>> {
        if let Some(value) = message.attribute(attribute::USERNAME) {
            let name = std::str::from_utf8(value).ok().filter(|name| name.len() <= USERNAME_SIZE_MAX);
            return Some(name);
        }
        Some(self.credentials.unhash(message.attribute(attribute::USERHASH)?))
    }

    /// What a name claims to be. The owner of an allocation is known by it, even if the credential is no longer handed out.
    fn find_claim(&self, home: Option<&Allocation>, name: &str) -> Option<Claim> {
        match home.filter(|allocation| allocation.owner.username == name) {
            Some(allocation) => {
                let account = self.accounts.get(allocation.owner.account)?;
                Some(Claim {
                    username: name.into(),
                    user: account.user.clone(),
                    shown: account.shown.clone(),
                    bound: allocation.owner.bound,
                    expires: None,
                    token: allocation.owner.token,
                    keys: vec![allocation.owner.keys.clone()],
                })
            }
            None => self.credentials.find(name),
        }
    }

    /// What a token says of its bearer: no more than that the owner of the key `kid` vouches, and for how long. So each is a user of its
    /// own, who shares quotas with nobody.
    fn open_token(&self, kid: &str, token: &[u8], now: Now) -> Result<Claim, TokenFault> {
        let (AccessToken { mac_key, timestamp, .. }, remaining) =
            self.tokens.as_ref().ok_or(TokenFault::UnknownKey)?.open(kid, token, self.unix_time(now))?;
        let as_coturn_has_it = mac_key.as_coturn_has_it();
        Ok(Claim {
            username: kid.into(),
            user: self.bearer(kid, &mac_key),
            shown: format!("{TOKEN_PREFIX}{kid}"),
            bound: None,
            expires: None,
            token: Some(HeldToken { made: timestamp, ends: now + remaining }),
            keys: [mac_key].into_iter().chain(as_coturn_has_it).map(Keys::Token).collect(),
        })
    }

    /// The name that the bearer of a token is counted by. It depends on a secret of ours, so no user can be called so.
    fn bearer(&self, kid: &str, mac_key: &MacKey) -> String {
        let tag = self.ledger.tag(&[b"token", &kid.len().to_be_bytes(), kid.as_bytes(), mac_key.bytes()]);
        format!("token {}", base64::encode(&tag))
    }

    fn reject(
        &mut self,
        client: Client,
        size: usize,
        message: &Message<'_>,
        rejected: Rejected,
        now: Now,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        if let Rejected::Token(fault) = rejected {
            *match fault {
                TokenFault::UnknownKey => &mut self.stats.tokens_of_unknown_keys,
                TokenFault::NotOurs => &mut self.stats.tokens_not_ours,
                TokenFault::Over => &mut self.stats.tokens_over,
            } += 1;
        }
        let reply = reply_to(client, message);
        if !client.is_proved() && !self.is_worth_a_challenge(client, size, message, &reply) {
            return Err(DropReason::TurnReplyBudget);
        }
        self.spend_reply(client, now)?;
        self.stats.challenges += 1;
        let code = match rejected {
            Rejected::Refuse(refusal) => return reply.refuse(&refusal, out),
            Rejected::Challenge(code) => code,
            Rejected::Token(_) => error::UNAUTHENTICATED,
        };
        let features = Features { algorithms: self.offers_algorithms(client, size, &reply) };
        let nonce = self.nonces.make(client.path.remote, features, now);
        let realm = self.spec.realm.as_bytes();
        let tokens = self.tokens.as_ref().filter(|_| self.names_server(client, size, features, &reply));
        let challenge = |message: &mut MessageWriter<'_>| {
            message.error_code_bare(code);
            message.attribute(attribute::REALM, realm);
            message.attribute(attribute::NONCE, &nonce);
            if let Some(tokens) = tokens {
                message.attribute(attribute::THIRD_PARTY_AUTHORIZATION, tokens.server_name().as_bytes());
            }
            if features.algorithms {
                message.attribute(attribute::PASSWORD_ALGORITHMS, PASSWORD_ALGORITHMS);
            }
        };
        reply.send(Class::Error, challenge, out)
    }

    /// Whether a challenge is to have PASSWORD-ALGORITHMS.
    fn offers_algorithms(&self, client: Client, request: usize, reply: &ReplyTo) -> bool {
        match self.spec.password_algorithms {
            PasswordAlgorithms::Never => false,
            PasswordAlgorithms::Always => true,
            PasswordAlgorithms::WhenCheap => {
                client.is_proved() || self.is_cheap(client, request, CHALLENGE_SIZE, reply)
            }
        }
    }

    /// Whether a challenge has THIRD-PARTY-AUTHORIZATION: to an address that may be forged not where that would make it more than twice as
    /// long as the request. A client that has a token need not be told; one that must be can come by a connection.
    fn names_server(&self, client: Client, request: usize, features: Features, reply: &ReplyTo) -> bool {
        let challenge = if features.algorithms { CHALLENGE_SIZE } else { PLAIN_CHALLENGE_SIZE };
        client.is_proved() || self.is_within(20, client, request, challenge, reply)
    }

    /// Whether a request from an address that may be forged is answered. A client's first Allocate is, whatever the realm takes; of all
    /// others those to which the answer is no gain: a header alone would pay an attacker best, and no client sends that.
    fn is_worth_a_challenge(&self, client: Client, request: usize, message: &Message<'_>, reply: &ReplyTo) -> bool {
        let is_first =
            message.method() == method::ALLOCATE && message.attribute(attribute::REQUESTED_TRANSPORT).is_some();
        is_first || self.is_cheap(client, request, PLAIN_CHALLENGE_SIZE, reply)
    }

    /// Whether a challenge, of so many bytes without our names, takes no more than 1.6 times the request's on the wire.
    fn is_cheap(&self, client: Client, request: usize, challenge: usize, reply: &ReplyTo) -> bool {
        self.is_within(16, client, request, challenge, reply)
    }

    /// The same for any number of tenths.
    fn is_within(&self, tenths: usize, client: Client, request: usize, challenge: usize, reply: &ReplyTo) -> bool {
        let ip = if client.path.remote.is_ipv4() { IPV4_UDP_SIZE } else { IPV6_UDP_SIZE };
        let realm = self.spec.realm.len().next_multiple_of(4);
        let third_party = self.tokens.as_ref().map_or(0, |tokens| 4 + tokens.server_name().len().next_multiple_of(4));
        let challenge = challenge + realm + third_party + if reply.fingerprint { 8 } else { 0 };
        (ip + challenge) * 10 <= (ip + request) * tenths
    }

    /// One reply to somebody who has proved nothing. Those on connections have proved where they are.
    fn spend_reply(&mut self, client: Client, now: Now) -> Result<(), DropReason> {
        let known = self.clients.contains_key(&client.path);
        let granted = client.is_proved() || self.replies.take(client.path.remote, known, now);
        granted.then_some(()).ok_or(DropReason::TurnReplyBudget)
    }

    /// The allocation that a request is about: the client's own, and of the same user (RFC 8656 §5).
    pub(super) fn owned(&self, known: &Known<'_>) -> Result<(AllocationKey, &Allocation), Refusal> {
        let key = *self.clients.get(&known.reply.client.path).ok_or(error::ALLOCATION_MISMATCH)?;
        // One that waits for its socket is not there yet.
        let allocation = self.allocations.get(key).filter(|allocation| !allocation.is_coming());
        let allocation = allocation.ok_or(error::ALLOCATION_MISMATCH)?;
        match allocation.owner.is(&known.claim) {
            true => Ok((key, allocation)),
            false => Err(error::WRONG_CREDENTIALS.into()),
        }
    }

    fn known_attributes(&self) -> &'static [u16] {
        if self.spec.features.even_port { KNOWN } else { &KNOWN[..KNOWN.len() - EVEN_PORT_COUNT] }
    }
}

/// How a key is made of a password (RFC 8489 §18.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    Md5,
    Sha256,
}

/// RFC 8489 §9.2.4: where algorithms were on offer, the request repeats the offer and names one, or does as if there were none.
fn read_algorithm(message: &Message<'_>, features: Features) -> Option<Algorithm> {
    let (offer, choice) =
        (message.attribute(attribute::PASSWORD_ALGORITHMS), message.attribute(attribute::PASSWORD_ALGORITHM));
    match (features.algorithms, offer, choice) {
        (false, ..) | (true, None, None) => Some(Algorithm::Md5),
        (true, Some(offer), Some(choice)) if offer == PASSWORD_ALGORITHMS => match choice {
            [0, 1, 0, 0] => Some(Algorithm::Md5),
            [0, 2, 0, 0] => Some(Algorithm::Sha256),
            _ => None,
        },
        (true, ..) => None,
    }
}

fn reply_to(client: Client, message: &Message<'_>) -> ReplyTo {
    ReplyTo {
        client,
        method: message.method(),
        transaction_id: message.transaction_id(),
        fingerprint: message.has_fingerprint(),
        seal: None,
    }
}

/// RFC 8489 §6.3.1: a request with an attribute that must be understood and is not gets error 420.
pub(super) fn refuse_unknown(message: &Message<'_>, known: &[u16]) -> Option<Refusal> {
    let unknown: ArrayVec<u16, UNKNOWN_MAX> = message.unknown_required(known).take(UNKNOWN_MAX).collect();
    (!unknown.is_empty()).then_some(Refusal { code: error::UNKNOWN_ATTRIBUTE, unknown })
}

/// SHA-256, then MD5, without parameters (RFC 8489 §14.11).
const PASSWORD_ALGORITHMS: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];
/// What the name of a key is shown with, lest it be taken for a user of that name.
const TOKEN_PREFIX: &str = "oauth:";
/// RFC 8489 §14.3.
const USERNAME_SIZE_MAX: usize = 508;
/// Bytes of a challenge with algorithms, but the realm: header, error, realm's and nonce's headers, nonce, algorithms.
const CHALLENGE_SIZE: usize = 20 + 8 + 4 + 4 + super::nonce::NONCE_LEN_MAX + 12;
/// The same without algorithms, whose nonce is short.
const PLAIN_CHALLENGE_SIZE: usize = 20 + 8 + 4 + 4 + super::nonce::NONCE_LEN_MIN.next_multiple_of(4);
/// Bytes of the headers of IP and UDP.
const IPV4_UDP_SIZE: usize = 28;
const IPV6_UDP_SIZE: usize = 48;

/// What must be understood and is, in requests of TURN; [`EVEN_PORT_COUNT`] at the end where the feature is on.
const KNOWN: &[u16] = &[
    attribute::USERNAME,
    attribute::REALM,
    attribute::NONCE,
    attribute::ACCESS_TOKEN,
    attribute::PASSWORD_ALGORITHM,
    attribute::USERHASH,
    attribute::CHANNEL_NUMBER,
    attribute::LIFETIME,
    attribute::XOR_PEER_ADDRESS,
    attribute::DATA,
    attribute::REQUESTED_ADDRESS_FAMILY,
    attribute::REQUESTED_TRANSPORT,
    attribute::DONT_FRAGMENT,
    attribute::CONNECTION_ID,
    attribute::EVEN_PORT,
    attribute::RESERVATION_TOKEN,
];
const EVEN_PORT_COUNT: usize = 2;
