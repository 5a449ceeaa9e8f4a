//! One peer connection's transport: ICE, then DTLS, then SRTP, each begun when the one before is done. Bytes and time in,
//! bytes and media out; its owner has the socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmain_shared::Now;

use super::chance::Chance;
use super::channels::Channels;
use super::ice::{Credentials, Ice, News};
use super::secure::{Identity, Secure, Srtp};

/// What the descriptions of both sides say of a connection.
#[derive(Clone, Debug)]
pub(super) struct TransportSpec {
    pub(super) local: Credentials,
    pub(super) remote: Credentials,
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) fingerprints: Vec<(String, Vec<u8>)>,
    /// Our role in ICE.
    pub(super) is_controlling: bool,
    /// Our role in DTLS.
    pub(super) is_dtls_client: bool,
    /// Whether data channels were agreed on.
    pub(super) has_channels: bool,
}

/// The transport of one connection.
pub(super) struct Transport {
    pub(super) ice: Ice,
    /// Begun when ICE has found a way. DTLS outlives its handshake: the server may ask for the last flight again.
    secure: Secure,
    is_begun: bool,
    srtp: Option<Srtp>,
    channels: Option<Channels>,
    began: Now,
}

/// What a datagram was.
pub(super) enum Arrived {
    /// Something of ICE or DTLS, which was dealt with.
    Handled,
    /// The same, and media may flow from now on.
    Up,
    /// SRTP or SRTCP.
    Media,
}

impl Transport {
    pub(super) fn new(spec: TransportSpec, identity: Arc<Identity>, chance: Chance, now: Now) -> Self {
        let TransportSpec { local, remote, candidates, fingerprints, is_controlling, is_dtls_client, has_channels } =
            spec;
        let channels = has_channels.then(|| Channels::new(is_dtls_client, identity.base));
        Self {
            ice: Ice::new(local, remote, candidates, is_controlling, chance, now),
            secure: Secure::new(identity, is_dtls_client, fingerprints, now),
            is_begun: false,
            srtp: None,
            channels,
            began: now,
        }
    }

    /// The keys, once the handshake is done.
    pub(super) fn srtp(&mut self) -> Option<&mut Srtp> {
        self.srtp.as_mut()
    }

    /// The data channels, if there are any.
    pub(super) fn channels(&mut self) -> Option<&mut Channels> {
        self.channels.as_mut()
    }

    pub(super) fn next_deadline(&self) -> Now {
        let dtls = self.secure.next_deadline().filter(|_| self.is_begun);
        let sctp = self.channels.as_ref().and_then(Channels::next_deadline);
        [dtls, sctp].into_iter().flatten().fold(self.ice.next_deadline(), Now::min)
    }

    /// Carries what DTLS has received to the data channels, if there are any, and what they have to send to DTLS.
    pub(super) fn carry(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let received = self.secure.take_application();
        let Some(channels) = &mut self.channels else { return Ok(()) };
        received.into_iter().for_each(|packet| channels.handle_packet(packet, now));
        if self.secure.is_connected() {
            channels.begin(now)?;
        }
        let mut packets = Vec::new();
        channels.poll_transmit(now, &mut packets);
        packets.iter().try_for_each(|packet| self.secure.send_application(packet, now, send))
    }

    /// Does what is due; says whether media may flow from now on.
    pub(super) fn handle_timeout(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) -> Result<bool, String> {
        self.ice.handle_timeout(now, send)?;
        if self.srtp.is_none() && now.since(self.began) > HANDSHAKE_MAX {
            let what = if self.is_begun { "the DTLS handshake took" } else { "ICE found no way to the server in" };
            return Err(format!("{what} more than {} s", HANDSHAKE_MAX.as_secs()));
        }
        if let Some(channels) = &mut self.channels
            && channels.next_deadline().is_some_and(|at| at <= now)
        {
            channels.handle_timeout(now);
        }
        if !self.is_begun || self.secure.next_deadline().is_none_or(|at| at > now) {
            return Ok(false);
        }
        let srtp = self.secure.handle_timeout(now, send)?;
        Ok(self.take(srtp))
    }

    /// A datagram from the server (RFC 7983 tells them apart).
    pub(super) fn handle_datagram(
        &mut self,
        bytes: &[u8],
        now: Now,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<Arrived, String> {
        match bytes.first() {
            Some(0..=3) => {
                if self.ice.handle_message(bytes, now, send) == News::Connected {
                    self.is_begun = true;
                    // The client's first flight leaves with its first timeout.
                    self.secure.handle_timeout(now, send)?;
                }
                Ok(Arrived::Handled)
            }
            // A server in the client's role may begin before its answer to our check has come: it will repeat itself.
            Some(20..=63) if self.is_begun => {
                let srtp = self.secure.handle_datagram(bytes, now, send)?;
                Ok(if self.take(srtp) { Arrived::Up } else { Arrived::Handled })
            }
            Some(128..=191) => Ok(Arrived::Media),
            _ => Ok(Arrived::Handled),
        }
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, now: Now, send: &mut dyn FnMut(&[u8])) {
        if self.is_begun {
            self.secure.close(now, send);
        }
    }

    fn take(&mut self, srtp: Option<Srtp>) -> bool {
        let is_up = srtp.is_some() && self.srtp.is_none();
        if is_up {
            self.srtp = srtp;
        }
        is_up
    }
}

/// From the first check to the last flight.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);
