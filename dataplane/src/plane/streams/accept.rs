//! Connections that come in at listeners. Owns nothing; what is accepted becomes a slot. Who is a client and of what shows later, by what
//! it says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use ringmain_shared::Now;

use super::stream::{Role, Socket, Stream};
use super::{Content, Listens, Streams, canonical};
use crate::plane::stream_loop::Workers;
use crate::stream::connection::{Connection, Offer};
use crate::stream::{FromStream, PeerNews};

impl Streams {
    /// Accepts connections from here on. Listeners come first, and stay.
    pub(crate) fn listen(
        &mut self,
        listener: std::net::TcpListener,
        offer: Offer,
        registry: &Registry,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener);
        self.insert(Content::Listener(listener, Listens::Clients(Arc::new(offer))), registry).map(|_| ())
    }

    pub(super) fn accept(&mut self, listener: usize, registry: &Registry, now: Now, workers: &mut Workers) {
        for _ in 0..ACCEPTS_MAX {
            let Some(Content::Listener(socket, listens)) =
                self.slots.get(listener).and_then(|slot| slot.content.as_ref())
            else {
                return;
            };
            let listens = listens.clone();
            match socket.accept() {
                Ok((socket, remote)) => match listens {
                    Listens::Clients(offer) => self.accept_client(socket, remote, offer, registry, now),
                    Listens::Relay { worker, .. } if !workers.is_taking(worker) => self.stats.refused += 1,
                    Listens::Relay { worker, request } => {
                        let arrived = self.accept_peer(socket, remote, worker, request, registry, now);
                        let Some(id) = arrived else { continue };
                        workers.give(worker, FromStream::Peer(PeerNews::Arrived { request, id, peer: remote }));
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // One that was gone before we came to it.
                Err(error) if is_about_one_connection(&error) => {}
                Err(_) => {
                    // No descriptors, no memory: those that we have go on, the others wait in the kernel.
                    self.stats.out_of_descriptors += 1;
                    if !self.halted.contains(&listener) {
                        self.halted.push(listener);
                    }
                    return;
                }
            }
        }
        // No news comes of what waits already.
        self.ready.push_back(listener);
    }

    fn accept_client(
        &mut self,
        socket: TcpStream,
        remote: SocketAddr,
        offer: Arc<Offer>,
        registry: &Registry,
        now: Now,
    ) {
        let Ok(local) = socket.local_addr() else { return };
        // A listener for both families tells IPv4 addresses in the form of IPv6.
        let (local, remote) = (canonical(local), canonical(remote));
        if !self.admission.enter(remote.ip()) {
            self.stats.refused += 1;
            return;
        }
        self.stats.accepted += 1;
        // What relays wait for is not held back to fill a segment.
        let _ = socket.set_nodelay(true);
        let mut stream = Stream::new(Socket::Tcp(socket), Connection::new(offer, now), local, remote, now);
        (stream.counted, stream.role) = (Some(remote.ip()), Role::New);
        if self.insert(Content::Stream(Box::new(stream)), registry).is_err() {
            self.admission.leave(remote.ip(), false);
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Connections accepted before those that we have get their turn.
const ACCEPTS_MAX: usize = 64;
