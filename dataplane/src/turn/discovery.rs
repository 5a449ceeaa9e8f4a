//! Discovery of what a client's NAT does (RFC 5780). A Binding request that came by one of the listeners that know of each other is
//! answered from whichever of them it names, to whichever port of the client's; the answer tells where it is from, and what other
//! address there is to ask.
//!
//! An address may be forged. So an answer goes to the address that asked, at the port that asked or at one from 1024 up that is none of
//! our own; padding fills it to the size of its request and no further; and it is counted with all that strangers get
//! ([`budget`](super::budget)).

use std::net::SocketAddr;

use ringmain_shared::DropReason;
use ringmain_shared::limits::RECEIVED_SIZE_MAX;
use ringmain_shared::turn::DiscoveryListener;

use super::Turn;
use super::allocation::Client;
use super::reply::{REPLY_SIZE_MAX, Refusal, ReplyTo, transmit};
use super::request::refuse_unknown;
use crate::io::{Path, SocketIndex, Transmit};
use crate::packet::stun::{Class, Message, MessageWriter, attribute, error};

/// From where a request may be answered (RFC 5780 §6.1, table 1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Origins {
    asked: Origin,
    other_address: Origin,
    other_port: Origin,
    /// OTHER-ADDRESS.
    other: Origin,
}

/// A socket, and what clients call it.
#[derive(Clone, Copy, Debug)]
struct Origin {
    socket: SocketIndex,
    announce: SocketAddr,
}

/// How a request is to be answered.
#[derive(Debug)]
struct Plan {
    origin: Origin,
    remote: SocketAddr,
    is_padded: bool,
}

impl Turn {
    /// From where a request may be answered that came by this socket; `None` where nothing of NATs can be found out.
    pub(super) fn origins(&self, socket: SocketIndex) -> Option<Origins> {
        let listener = |number: u16| self.spec.discovery.get(usize::from(number)).copied().flatten();
        let origin = |number: u16| {
            let index = self.shared_sockets.start.checked_add(number);
            let socket = index.filter(|index| self.shared_sockets.contains(index)).map(SocketIndex)?;
            Some(Origin { socket, announce: listener(number)?.announce })
        };
        let number = socket.0.checked_sub(self.shared_sockets.start)?;
        let DiscoveryListener { other_address, other_port, other, .. } = listener(number)?;
        Some(Origins {
            asked: origin(number)?,
            other_address: origin(other_address)?,
            other_port: origin(other_port)?,
            other: origin(other)?,
        })
    }

    /// Answers a Binding request of `size` bytes. With the headers of IP and UDP, the shortest gets 1.75 times as much over IPv4 and 2.1
    /// times over IPv6: RFC 5780 leaves no choice. PADDING adds its header at most where the request is shorter than what must be said,
    /// and is cut to what a link takes in where it is longer.
    pub(super) fn discover(
        &self,
        origins: &Origins,
        reply: ReplyTo,
        message: &Message<'_>,
        size: usize,
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let plan = match self.plan(origins, reply.client, message) {
            Ok(plan) => plan,
            Err(refusal) => return reply.refuse(&refusal, out),
        };
        let path = Path { socket: plan.origin.socket, remote: plan.remote };
        let attributes = |answer: &mut MessageWriter<'_>| {
            answer.xor_address(attribute::XOR_MAPPED_ADDRESS, reply.client.path.remote);
            // RFC 5780 §6.1: these two are in every answer, whatever was asked.
            answer.address(attribute::RESPONSE_ORIGIN, plan.origin.announce);
            answer.address(attribute::OTHER_ADDRESS, origins.other.announce);
        };
        if !plan.is_padded {
            let bytes = reply.compose::<REPLY_SIZE_MAX>(Class::Success, attributes).ok_or(DropReason::TxFull)?;
            return transmit(path, &bytes, out);
        }
        let padded = |answer: &mut MessageWriter<'_>| {
            attributes(answer);
            let fingerprint = if reply.fingerprint { FINGERPRINT_SIZE } else { 0 };
            let rest = answer.len() + ATTRIBUTE_HEADER_SIZE + fingerprint;
            let room = size.min(RECEIVED_SIZE_MAX).saturating_sub(rest);
            answer.attribute(attribute::PADDING, ZEROS.get(..room).unwrap_or_default());
        };
        let bytes = reply.compose::<RECEIVED_SIZE_MAX>(Class::Success, padded).ok_or(DropReason::TxFull)?;
        transmit_padded(path, &bytes, out)
    }

    fn plan(&self, origins: &Origins, client: Client, message: &Message<'_>) -> Result<Plan, Refusal> {
        if let Some(refusal) = refuse_unknown(message, KNOWN) {
            return Err(refusal);
        }
        let origin = match change(message)? {
            Change { address: false, port: false } => origins.asked,
            Change { address: true, port: false } => origins.other_address,
            Change { address: false, port: true } => origins.other_port,
            Change { address: true, port: true } => origins.other,
        };
        let is_padded = message.attribute(attribute::PADDING).is_some();
        let remote = match message.attribute(attribute::RESPONSE_PORT) {
            None => client.path.remote,
            // RFC 5780 §6.1: one or the other.
            Some(_) if is_padded => return Err(error::BAD_REQUEST.into()),
            // RFC 5780 §7.5: two bytes, and two that say nothing.
            Some(&[high, low] | &[high, low, _, _]) => {
                self.response_address(client.path.remote, u16::from_be_bytes([high, low]))?
            }
            Some(_) => return Err(error::BAD_REQUEST.into()),
        };
        Ok(Plan { origin, remote, is_padded })
    }

    /// Where an answer goes that is wanted at this port. Whoever forges an address must not be able to choose which service it hits, less
    /// so one of our own.
    fn response_address(&self, asked_from: SocketAddr, port: u16) -> Result<SocketAddr, Refusal> {
        let mut remote = asked_from;
        remote.set_port(port);
        let is_allowed = remote == asked_from || port >= UNPRIVILEGED_PORT_MIN && !self.peers.is_ours(remote);
        if is_allowed { Ok(remote) } else { Err(error::FORBIDDEN.into()) }
    }
}

/// Puts an answer into the batch that may be too long for its path, as a train of its own: the segments of a longer one must fit the path
/// (EMSGSIZE otherwise), and a link that has been refused one sends none to that remote any more.
fn transmit_padded(path: Path, bytes: &[u8], out: &mut dyn Transmit) -> Result<(), DropReason> {
    out.batch().end_train();
    transmit(path, bytes, out)?;
    out.batch().end_train();
    if bytes.len() > UNFRAGMENTED_SIZE {
        // What the path refuses in one piece goes in fragments when the link hears of that: now, not when it next wakes up.
        out.flush();
    }
    Ok(())
}

/// What of the address that was asked is to be another one in that of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Change {
    address: bool,
    port: bool,
}

/// CHANGE-REQUEST (RFC 5780 §7.2).
fn change(message: &Message<'_>) -> Result<Change, Refusal> {
    match message.attribute(attribute::CHANGE_REQUEST) {
        None => Ok(Change::default()),
        Some(&[_, _, _, flags]) => Ok(Change { address: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 }),
        Some(_) => Err(error::BAD_REQUEST.into()),
    }
}

/// Whether a CHANGE-REQUEST, if there is one, is for nothing: Stuntman's client sends such to every server.
pub(super) fn asks_no_change(message: &Message<'_>) -> bool {
    change(message) == Ok(Change::default())
}

const CHANGE_IP: u8 = 0b100;
const CHANGE_PORT: u8 = 0b010;
/// Ports below are those of services.
const UNPRIVILEGED_PORT_MIN: u16 = 1024;
const ATTRIBUTE_HEADER_SIZE: usize = 4;
const FINGERPRINT_SIZE: usize = 8;
/// Bytes that every path takes in one piece: what IPv6 promises (RFC 8200 §5), without the headers.
const UNFRAGMENTED_SIZE: usize = 1280 - 40 - 8;
const ZEROS: &[u8] = &[0; RECEIVED_SIZE_MAX];

/// What must be understood in a Binding request and is.
const KNOWN: &[u16] = &[
    attribute::CHANGE_REQUEST,
    attribute::PADDING,
    attribute::RESPONSE_PORT,
    attribute::USERNAME,
    attribute::PRIORITY,
    attribute::USE_CANDIDATE,
    attribute::REALM,
    attribute::NONCE,
];
