//! A worker that serves TURN on a link of the data plane's, as its run loop has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ringmain_dataplane::io::{Link, LinkChoice, open, socket};
use ringmain_dataplane::turn::{SocketRequest, derive_keys};
use ringmain_dataplane::worker::{Worker, WorkerCommand};
use ringmain_shared::command::Command;
use ringmain_shared::turn::{
    IpRange, PasswordAlgorithms, PeerPolicy, RelayAddress, RelayMode, RelaySpec, TurnCommand, TurnCredential,
    TurnFeatures, TurnLifetimes, TurnQuotas, TurnSpec,
};

use crate::engine::now;
use crate::pairs::{PASSWORD, REALM, USER};

/// A worker with its link.
pub struct RelayServer {
    pub worker: Worker,
    link: Box<dyn Link>,
    start: Instant,
}

impl RelayServer {
    /// A server on loopback, and where its clients find it.
    pub fn open(choice: LinkChoice) -> Result<(Self, SocketAddr), String> {
        let bound = || socket::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(|error| error.to_string());
        // The worker has a socket for media, too, to which nothing comes.
        let (media, clients) = (bound()?, bound()?);
        let address = clients.local_addr().map_err(|error| error.to_string())?;
        let link = open(choice, vec![media, clients]).map_err(|error| error.to_string())?.link;
        let mut worker = crate::worker();
        let start = Instant::now();
        let spec = spec(Ipv4Addr::LOCALHOST.into(), address);
        worker
            .handle_command(WorkerCommand::Control(Command::Turn(TurnCommand::Configure(Box::new(spec)))), now(start));
        Ok((Self { worker, link, start }, address))
    }

    /// Takes in what has come and relays it. How much it was.
    pub fn turn(&mut self, timeout: Duration) -> usize {
        self.link.receive(Some(timeout)).expect("works");
        let moment = now(self.start);
        let (rx, out) = self.link.parts();
        let count = rx.len();
        self.worker.turn(moment, rx, out);
        for request in std::mem::take(&mut self.worker.outbox().sockets) {
            match request {
                SocketRequest::Open { relay, address, dont_fragment } => {
                    let socket = socket::bind_relay(address, dont_fragment).ok();
                    let socket = socket.and_then(|socket| self.link.open(socket).ok());
                    self.worker.handle_relay_socket(relay, socket, moment, self.link.parts().1);
                }
                SocketRequest::Close(socket) => assert!(self.link.close(socket), "it was open"),
            }
        }
        self.link.parts().1.end_turn();
        self.worker.outbox().events.clear();
        count
    }
}

/// A server of this address whose clients may reach all of loopback.
pub fn spec(relay: IpAddr, listener: SocketAddr) -> TurnSpec {
    let keys = derive_keys(USER, REALM, PASSWORD);
    TurnSpec {
        realm: REALM.into(),
        users: vec![TurnCredential { username: USER.into(), keys, user: USER.into(), bound: None, expires: None }],
        secrets: Vec::new(),
        third_party: None,
        binding: false,
        discovery: Vec::new(),
        password_algorithms: PasswordAlgorithms::Never,
        peers: PeerPolicy {
            listeners: vec![listener],
            open: true,
            allow: IpRange::network(Ipv4Addr::LOCALHOST.into(), 8).into_iter().collect(),
            ..PeerPolicy::default()
        },
        relay: RelaySpec {
            addresses: vec![RelayAddress { bind: relay, announce: relay }],
            port_min: 20_000,
            port_max: 32_000,
            workers: 1,
            mode: RelayMode::PerAllocation,
        },
        quotas: TurnQuotas {
            allocations_per_user: 0,
            allocates_per_user_second: 0,
            replies_per_source: 0,
            replies: 0,
            ..TurnQuotas::default()
        },
        lifetimes: TurnLifetimes::default(),
        features: TurnFeatures::default(),
    }
}
