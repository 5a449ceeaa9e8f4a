//! TURN over DTLS: a UDP socket of the stream thread's, and a session for each client that has proved its address. To workers a session is
//! a stream like any other, whose messages are its records.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::Registry;
use mio::net::UdpSocket;
use ringmain_shared::Now;
use ringmain_shared::turn::TurnTransport;

use super::{Content, Streams, worker_of};
use crate::plane::DtlsCertificateFiles;
use crate::plane::stream_loop::Workers;
use crate::stream::connection::End;
use crate::stream::cookie::{Cookies, Hello, Verdict};
use crate::stream::dtls::Session;
use crate::stream::{FromStream, StreamClient, StreamId};

/// A socket and its clients.
pub(super) struct DtlsListener {
    socket: UdpSocket,
    local: SocketAddr,
    cookies: Cookies,
    clients: HashMap<SocketAddr, usize>,
}

/// A client.
pub(super) struct DtlsClient {
    listener: usize,
    remote: SocketAddr,
    session: Session,
    worker: usize,
    /// It has, or had, an allocation.
    proved: bool,
    /// The worker was told of it.
    opened: bool,
}

impl DtlsListener {
    pub(super) fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }
}

impl Streams {
    /// Speaks DTLS at this socket from here on.
    pub(crate) fn listen_dtls(
        &mut self,
        socket: std::net::UdpSocket,
        secret: &[u8; 32],
        registry: &Registry,
    ) -> io::Result<()> {
        let local = socket.local_addr()?;
        let socket = UdpSocket::from_std(socket);
        let listener = DtlsListener { socket, local, cookies: Cookies::new(secret), clients: HashMap::new() };
        self.insert(Content::DtlsListener(Box::new(listener)), registry).map(|_| ())
    }

    /// New handshakes use what this has then.
    pub(crate) fn set_dtls(&mut self, certificate: Arc<DtlsCertificateFiles>) {
        self.dtls = Some(certificate);
    }

    /// Takes in what came, a bounded amount of it.
    pub(super) fn read_dtls(&mut self, listener: usize, registry: &Registry, now: Now, workers: &mut Workers) {
        for _ in 0..DATAGRAMS_MAX {
            let mut buffer = [0; DATAGRAM_SIZE_MAX];
            let Some(Content::DtlsListener(dtls)) = self.content_mut(listener) else { return };
            match dtls.socket.recv_from(&mut buffer) {
                Ok((size, remote)) => {
                    let datagram = buffer.get(..size).unwrap_or_default();
                    let verdict = dtls.cookies.judge(datagram, remote, now);
                    let client = dtls.clients.get(&remote).copied();
                    match (verdict, client) {
                        (Verdict::Challenge(answer), _) => _ = dtls.socket.send_to(&answer, remote),
                        (Verdict::Proved(hello), _) => {
                            self.begin_dtls(listener, &hello, datagram, remote, registry, now, workers);
                        }
                        (Verdict::Other, Some(client)) => self.continue_dtls(client, datagram, registry, now, workers),
                        (Verdict::Other | Verdict::Junk, _) => self.stats.ignored += 1,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of somebody's; it is gone by being read.
                Err(_) => {}
            }
        }
        self.ready.push_back(listener);
    }

    /// Sends the flights of handshakes again that were not answered, and ends what is overdue.
    pub(crate) fn time_dtls(&mut self, registry: &Registry, now: Now, workers: &mut Workers) {
        for client in std::mem::take(&mut self.handshaking) {
            let Some(Content::DtlsClient(dtls)) = self.content_mut(client) else { continue };
            dtls.session.handle_timeout(now);
            if dtls.session.is_handshaking() {
                match dtls.session.overdue(now) {
                    Some(end) => self.end_dtls(client, end, registry, workers),
                    None => self.handshaking.push(client),
                }
            }
            self.flush_dtls(client);
        }
    }

    /// Whether a handshake waits for its timer.
    pub(crate) fn is_handshaking(&self) -> bool {
        !self.handshaking.is_empty()
    }

    /// Sends a message to a client as one record. False when that cannot be.
    pub(super) fn send_dtls(&mut self, client: usize, message: &[u8], held_until: Now, now: Now) -> bool {
        let Some(Content::DtlsClient(dtls)) = self.content_mut(client) else { return false };
        dtls.session.hold(held_until);
        let sent = dtls.session.send(message);
        if held_until > now && !std::mem::replace(&mut dtls.proved, true) {
            let remote = dtls.remote;
            self.admission.prove(remote.ip());
        }
        self.flush_dtls(client);
        sent
    }

    pub(super) fn overdue_dtls(&self, client: usize, now: Now) -> Option<End> {
        match self.slots.get(client)?.content.as_ref()? {
            Content::DtlsClient(dtls) => dtls.session.overdue(now),
            _ => None,
        }
    }

    /// Ends a client's session, and tells its worker.
    pub(super) fn end_dtls(&mut self, client: usize, end: End, registry: &Registry, workers: &mut Workers) {
        let id = self.id(client);
        let Some(Content::DtlsClient(dtls)) = self.content_mut(client) else { return };
        let (listener, remote, worker) = (dtls.listener, dtls.remote, dtls.opened.then_some(dtls.worker));
        let proved = dtls.proved;
        dtls.session.close();
        self.flush_dtls(client);
        if let Some(Content::DtlsListener(dtls)) = self.content_mut(listener) {
            dtls.clients.remove(&remote);
        }
        if let Some(worker) = worker {
            workers.give(worker, FromStream::Closed { id });
        }
        self.count(end);
        self.admission.leave(remote.ip(), proved);
        // Its slot is the next to be given away; whoever gets it must not have two timers.
        self.handshaking.retain(|&slot| slot != client);
        self.remove(client, registry);
    }

    #[expect(clippy::too_many_arguments, reason = "one datagram, all there is to know of it, and where it goes")]
    fn begin_dtls(
        &mut self,
        listener: usize,
        hello: &Hello,
        datagram: &[u8],
        remote: SocketAddr,
        registry: &Registry,
        now: Now,
        workers: &mut Workers,
    ) {
        let Some(Content::DtlsListener(dtls)) = self.content_mut(listener) else { return };
        if let Some(client) = dtls.clients.get(&remote).copied() {
            let is_again = match self.content_mut(client) {
                Some(Content::DtlsClient(dtls)) => dtls.session.is_of(hello),
                _ => false,
            };
            if is_again {
                // Our flight may be lost; its timer sends it again.
                return;
            }
            // RFC 6347 §4.2.8: a client that began anew, and has proved that it is there.
            self.end_dtls(client, End::Closed, registry, workers);
        }
        let Some(certificate) = &self.dtls else { return };
        // A signature for each: who ends one to begin the next holds no place, but takes our time. A client asks again by itself.
        if !self.admission.begin(remote.ip(), now) {
            self.stats.handshakes_put_off += 1;
            return;
        }
        let worker = worker_of(remote.ip(), workers.count().max(1));
        if !workers.is_taking(worker) || !self.admission.enter(remote.ip()) {
            self.stats.refused += 1;
            return;
        }
        self.stats.accepted += 1;
        let session = Session::new(&certificate.present(), hello, now);
        let client = session.and_then(|session| {
            let client = DtlsClient { listener, remote, session, worker, proved: false, opened: false };
            self.insert(Content::DtlsClient(Box::new(client)), registry).ok()
        });
        let Some(client) = client else {
            self.admission.leave(remote.ip(), false);
            return;
        };
        if let Some(Content::DtlsListener(dtls)) = self.content_mut(listener) {
            dtls.clients.insert(remote, client);
        }
        self.handshaking.push(client);
        self.continue_dtls(client, datagram, registry, now, workers);
    }

    fn continue_dtls(&mut self, client: usize, datagram: &[u8], registry: &Registry, now: Now, workers: &mut Workers) {
        let id = self.id(client);
        let Some(Content::DtlsClient(dtls)) = self.content_mut(client) else { return };
        let (worker, remote, listener) = (dtls.worker, dtls.remote, dtls.listener);
        let mut messages = Vec::new();
        let result = dtls.session.handle(datagram, now, &mut |message| messages.push(message.to_vec()));
        let is_new = !messages.is_empty() && !std::mem::replace(&mut dtls.opened, true);
        self.flush_dtls(client);
        if is_new && let Some(Content::DtlsListener(dtls)) = self.content_mut(listener) {
            let client = StreamClient { remote, local: dtls.local, transport: TurnTransport::Dtls };
            workers.give(worker, FromStream::Opened { id, client });
        }
        for bytes in messages {
            workers.give(worker, FromStream::Message { id, bytes });
        }
        if let Err(end) = result {
            self.end_dtls(client, end, registry, workers);
        }
    }

    fn flush_dtls(&mut self, client: usize) {
        let Some(Content::DtlsClient(dtls)) = self.content_mut(client) else { return };
        let (listener, remote, outgoing) = (dtls.listener, dtls.remote, dtls.session.take_outgoing());
        let Some(Content::DtlsListener(dtls)) = self.content_mut(listener) else { return };
        let mut lost = 0;
        for datagram in outgoing {
            lost += u64::from(dtls.socket.send_to(&datagram, remote).is_err());
        }
        self.stats.queue_full += lost;
    }

    /// Where a message for a stream goes, when it is one of DTLS.
    pub(super) fn find_dtls(&self, id: StreamId) -> Option<usize> {
        let slot = (id.0 & u64::from(u32::MAX)) as usize;
        let is_client = matches!(self.slots.get(slot)?.content, Some(Content::DtlsClient(_)));
        (is_client && self.id(slot) == id).then_some(slot)
    }
}

/// Bytes of the longest datagram that is read.
const DATAGRAM_SIZE_MAX: usize = 2048;
/// Datagrams taken in before others have their turn.
const DATAGRAMS_MAX: usize = 64;
