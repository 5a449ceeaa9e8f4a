//! The floor under a relay: a loop that receives and sends on a link of the data plane's, with a socket for all clients and one for each
//! of their peers, as a TURN server has them. It looks nothing up and changes nothing; a client says who it is in its first two bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmain_dataplane::io::{Link, LinkChoice, Path, SocketIndex, open, socket};

/// A server that only receives and sends.
pub struct Bare {
    link: Box<dyn Link>,
    /// By number.
    clients: Vec<Client>,
}

struct Client {
    address: SocketAddr,
    /// Through its relayed socket to its peer.
    to_peer: Path,
    relayed: SocketAddr,
}

/// What a client begins with: who it is, and who its peer.
pub fn hello(number: u16, peer: SocketAddr) -> Vec<u8> {
    [&number.to_be_bytes(), &HELLO[..], peer.to_string().as_bytes()].concat()
}

/// What it is told: its relayed address.
pub fn welcome(answer: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(answer).ok()?.parse().ok()
}

impl Bare {
    pub fn open(choice: LinkChoice, address: SocketAddr) -> Result<(Self, SocketAddr), String> {
        let clients = socket::bind(address).map_err(|error| error.to_string())?;
        let address = clients.local_addr().map_err(|error| error.to_string())?;
        let link = open(choice, vec![clients]).map_err(|error| error.to_string())?.link;
        Ok((Self { link, clients: Vec::new() }, address))
    }

    /// Takes in what has come and sends it on. How much it was.
    pub fn turn(&mut self, timeout: Duration) -> usize {
        self.link.receive(Some(timeout)).expect("works");
        let mut opened = Vec::new();
        let (rx, out) = self.link.parts();
        for index in 0..rx.len() {
            let (path, bytes) = (rx.path(index), rx.bytes(index));
            let to = if path.socket == CLIENTS {
                if bytes.get(2..10) == Some(&HELLO) {
                    opened.push((path.remote, bytes.to_vec()));
                    continue;
                }
                let number = u16::from_be_bytes([bytes[0], bytes[1]]);
                self.clients[usize::from(number)].to_peer
            } else {
                Path { socket: CLIENTS, remote: self.clients[usize::from(path.socket.0 - FIRST)].address }
            };
            let mut slot = out.reserve(&to, bytes.len()).expect("room");
            slot.bytes_mut().copy_from_slice(bytes);
            slot.commit(bytes.len());
        }
        let count = rx.len();
        out.end_turn();
        opened.into_iter().for_each(|(client, hello)| self.admit(client, &hello));
        count
    }

    /// Opens a socket for a client, and says where it is. One that comes again keeps its socket.
    fn admit(&mut self, address: SocketAddr, hello: &[u8]) {
        let number = usize::from(u16::from_be_bytes([hello[0], hello[1]]));
        let peer = std::str::from_utf8(&hello[10..]).expect("a hello of ours").parse().expect("a hello of ours");
        if number == self.clients.len() {
            let socket = socket::bind_relay((Ipv4Addr::LOCALHOST, 0).into(), false).expect("a port");
            let relayed = socket.local_addr().expect("bound");
            let socket = self.link.open(socket).expect("a place");
            assert_eq!(usize::from(socket.0 - FIRST), number, "sockets are numbered as clients are");
            self.clients.push(Client { address, to_peer: Path { socket, remote: peer }, relayed });
        }
        (self.clients[number].address, self.clients[number].to_peer.remote) = (address, peer);
        let relayed = self.clients[number].relayed.to_string();
        let (_, out) = self.link.parts();
        let mut slot = out.reserve(&Path { socket: CLIENTS, remote: address }, relayed.len()).expect("room");
        slot.bytes_mut().copy_from_slice(relayed.as_bytes());
        slot.commit(relayed.len());
        out.flush();
    }
}

const CLIENTS: SocketIndex = SocketIndex(0);
/// The first client's relayed socket.
const FIRST: u16 = 1;
const HELLO: [u8; 8] = *b"may I in";
