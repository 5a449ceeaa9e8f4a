//! Which UDP listeners of TURN let clients find out what their NAT does (RFC 5780): those at two ports of two addresses, each of which
//! can be reached by whoever reaches the other. An address that is known to the world by the name of another is no second one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ringmain_dataplane::io::FIXED_SOCKETS_MAX;
use ringmain_dataplane::turn::is_special;
use ringmain_shared::turn::DiscoveryListener;

use super::Listeners;
use super::spec::announced;
use crate::config::Config;

/// Why NATs cannot be discovered, though it was wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// TURN does not listen on UDP.
    NoUdp,
    /// Two addresses have one name.
    OneName([IpAddr; 2], IpAddr),
    /// No two addresses belong together.
    NoPair,
    /// There are as many sockets as a worker may have.
    NoSocket,
}

/// The listeners at the second port, where NATs can be discovered.
pub fn alternates(config: &Config, listeners: &Listeners) -> Result<Vec<SocketAddr>, Obstacle> {
    let is_first = |at: &&SocketAddr| at.port() == config.turn.port;
    let (first, second): (Vec<&SocketAddr>, Vec<&SocketAddr>) = listeners.udp.iter().partition(is_first);
    if !second.is_empty() {
        return Ok(second.into_iter().copied().collect());
    }
    let addresses: Vec<IpAddr> = first.into_iter().map(SocketAddr::ip).collect();
    if addresses.is_empty() {
        return Err(Obstacle::NoUdp);
    }
    if addresses.iter().any(|&address| other(config, address, &addresses).is_some()) {
        return Err(Obstacle::NoSocket);
    }
    let namesakes = addresses.iter().enumerate().find_map(|(index, &address)| {
        let namesake = |other: &&IpAddr| called(config, **other) == called(config, address);
        addresses[..index].iter().find(namesake).map(|&other| [other, address])
    });
    Err(namesakes.map_or(Obstacle::NoPair, |both| Obstacle::OneName(both, called(config, both[0]))))
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUdp => f.write_str("TURN does not listen on UDP (turn.transports)"),
            Self::OneName([one, other], name) => write!(
                f,
                "{one} and {other} are both known as {name}; name the public address of each by turn.external, as PUBLIC/PRIVATE"
            ),
            Self::NoPair => f.write_str(
                "of one family there are no two addresses to listen on that are public, or of one private network and named by turn.listen",
            ),
            Self::NoSocket => write!(
                f,
                "a worker has no more than {FIXED_SOCKETS_MAX} sockets; name fewer addresses by turn.listen"
            ),
        }
    }
}

/// Those of the addresses that are to have a second port, where `sockets` are there besides.
pub(super) fn addresses(config: &Config, addresses: &[IpAddr], sockets: usize) -> Vec<IpAddr> {
    if !config.turn.nat_discovery {
        return Vec::new();
    }
    let paired = |addresses: &[IpAddr]| -> Vec<IpAddr> {
        addresses.iter().copied().filter(|&address| other(config, address, addresses).is_some()).collect()
    };
    let mut some = paired(addresses);
    some.truncate(FIXED_SOCKETS_MAX.saturating_sub(sockets));
    paired(&some)
}

/// What the data plane is told of the sockets that it has bound for TURN, in their order.
pub(super) fn listeners(config: &Config, bound: &[SocketAddr]) -> Vec<Option<DiscoveryListener>> {
    if !config.turn.nat_discovery {
        return Vec::new();
    }
    let ports = (config.turn.port, config.turn.alt_port());
    let number = |ip: IpAddr, port: u16| {
        let at = SocketAddr::new(ip, port);
        bound.iter().position(|other| *other == at).map(|number| number as u16)
    };
    let both: Vec<IpAddr> = bound.iter().filter(|at| at.port() == ports.1).map(SocketAddr::ip).collect();
    let listener = |at: &SocketAddr| {
        let (ip, port) = (at.ip(), at.port());
        let other_port = if port == ports.0 { ports.1 } else { ports.0 };
        let other_ip = both.contains(&ip).then(|| other(config, ip, &both))??;
        Some(DiscoveryListener {
            announce: SocketAddr::new(called(config, ip), port),
            other_address: number(other_ip, port)?,
            other_port: number(ip, other_port)?,
            other: number(other_ip, other_port)?,
        })
    };
    bound.iter().map(listener).collect()
}

/// The next of the addresses that whoever comes by this one reaches as well, and as another one. Not as coturn has it, which takes the first
/// two of a family.
fn other(config: &Config, address: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    let here = called(config, address);
    let at = addresses.iter().position(|other| *other == address)?;
    let (before, after) = addresses.split_at(at);
    // Private addresses may be of networks that know nothing of each other, as that of containers and that of the house.
    let is_named = |address| config.turn.listen.contains(&address);
    after.iter().chain(before).copied().find(|&other| {
        let there = called(config, other);
        let are_near = reach(here) == reach(there);
        let are_known = reach(here) == Reach::World || is_named(address) && is_named(other);
        there != here && there.is_ipv4() == here.is_ipv4() && are_near && are_known
    })
}

/// What clients call an address. A public one, or loopback, has another name only if that one is said to be its own.
fn called(config: &Config, address: IpAddr) -> IpAddr {
    let is_mapped = config.turn.external.iter().any(|external| external.private == Some(address));
    let keeps_its_name = matches!(reach(address), Reach::World | Reach::Host);
    if keeps_its_name && !is_mapped { address } else { announced(config, address) }
}

/// From where an address can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Host,
    /// A private network (RFC 1918, RFC 4193).
    Site,
    /// A network of another kind: that of a provider behind its NAT, of a tunnel, of a link.
    Elsewhere,
    World,
}

fn reach(address: IpAddr) -> Reach {
    let is_site = match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    };
    match address.is_loopback() {
        true => Reach::Host,
        false if is_site => Reach::Site,
        false if is_special(address) && !is_example(address) => Reach::Elsewhere,
        false => Reach::World,
    }
}

/// Stands for a public address in documentation (RFC 5737, RFC 3849, RFC 9637).
fn is_example(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_documentation(),
        IpAddr::V6(address) => matches!(address.segments(), [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn config(text: &str) -> Config {
        let text = format!("[turn]\nenabled = true\nnat_discovery = true\n{text}");
        load(&Sources { file: Some(("f".into(), text)), cpu_count: 1, ..Sources::default() }).expect("sound").config
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// The addresses at the first port, then at the second those that have it.
    fn bound(config: &Config, texts: &[&str]) -> Vec<SocketAddr> {
        let all = ips(texts);
        let both = addresses(config, &all, all.len());
        let at = |port| move |&ip: &IpAddr| SocketAddr::new(ip, port);
        all.iter().map(at(3478)).chain(both.iter().map(at(config.turn.alt_port()))).collect()
    }

    #[test]
    fn each_listener_knows_the_three_others() {
        let config = config("");
        let bound = bound(&config, &["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let texts: Vec<String> = bound.iter().map(ToString::to_string).collect();
        let expected = ["192.0.2.1:3478", "[2001:db8::1]:3478", "192.0.2.2:3478", "192.0.2.1:3479", "192.0.2.2:3479"];
        assert_eq!(texts, expected);
        let told = |listener: DiscoveryListener| {
            (listener.announce.to_string(), listener.other_address, listener.other_port, listener.other)
        };
        let expected = [(0, 2, 3, 4), (2, 0, 4, 3), (3, 4, 0, 2), (4, 3, 2, 0)];
        let listeners = listeners(&config, &bound);
        for (this, address, port, both) in expected {
            let listener = listeners[this].expect("one of four");
            assert_eq!(told(listener), (texts[this].clone(), address, port, both));
        }
        assert_eq!((listeners.len(), listeners[1]), (5, None), "the only one of IPv6");
    }

    #[test]
    fn of_more_than_two_each_has_the_next() {
        let config = config("alt_port = 4000\n");
        let bound = bound(&config, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let others: Vec<SocketAddr> = listeners(&config, &bound)
            .iter()
            .map(|listener| bound[usize::from(listener.expect("one of three").other)])
            .collect();
        let expected = ["192.0.2.2:4000", "192.0.2.3:4000", "192.0.2.1:4000"].map(|text| text.parse().expect("one"));
        assert_eq!(others[..3], expected);
    }

    fn paired(text: &str, host: &[&str]) -> Vec<IpAddr> {
        let config = config(text);
        let paired = addresses(&config, &ips(host), host.len());
        let told = listeners(&config, &bound(&config, host));
        assert_eq!(told.iter().flatten().count(), 2 * paired.len(), "{text}{host:?}");
        paired
    }

    #[test]
    fn an_address_of_another_kind_is_no_other_one() {
        for (text, host) in [
            ("", ["192.0.2.1", "127.0.0.1"]),
            ("", ["192.0.2.1", "172.17.0.1"]),
            ("", ["192.0.2.1", "2001:db8::1"]),
            ("", ["2001:db8::1", "fd00::1"]),
            // A provider's behind its own NAT, a tunnel's, a laboratory's, a link's.
            ("", ["192.0.2.1", "100.100.1.1"]),
            ("", ["192.0.2.1", "198.18.0.1"]),
            ("", ["192.0.2.1", "169.254.0.1"]),
            ("", ["2001:db8::1", "2001:2::1"]),
            ("listen = [\"10.0.0.1\", \"100.64.0.1\"]\n", ["10.0.0.1", "100.64.0.1"]),
            // Of two networks, for all that is known.
            ("", ["10.0.0.1", "172.17.0.1"]),
            ("", ["100.64.0.1", "100.64.0.2"]),
            ("listen = \"0.0.0.0\"\n", ["10.0.0.1", "172.17.0.1"]),
            // One public address for both.
            ("external = [\"203.0.113.1\"]\n", ["10.0.0.1", "10.0.0.2"]),
            ("external = [\"203.0.113.1/10.0.0.1\"]\n", ["10.0.0.1", "10.0.0.2"]),
        ] {
            assert_eq!(paired(text, &host), ips(&[]), "{text}{host:?}");
        }
        for host in [
            ["10.0.0.1", "172.17.0.1"],
            ["fd00::1", "fd00::2"],
            ["127.0.0.1", "127.0.0.2"],
            ["100.64.0.1", "100.64.0.2"],
        ] {
            assert_eq!(paired(&format!("listen = {host:?}\n"), &host), ips(&host), "named");
        }
    }

    #[test]
    fn announce_leaves_a_public_address_its_name() {
        let announcing = |listen: [&str; 2]| {
            let text = "announce = \"203.0.113.7\"\n[turn]\nenabled = true\nnat_discovery = true\n";
            let text = format!("{text}listen = {listen:?}\n");
            load(&Sources { file: Some(("f".into(), text)), cpu_count: 1, ..Sources::default() }).expect("sound").config
        };
        let public = ["203.0.113.7", "203.0.113.8"];
        let config = announcing(public);
        let told: Vec<IpAddr> = listeners(&config, &bound(&config, &public))
            .iter()
            .flatten()
            .map(|listener| listener.announce.ip())
            .collect();
        assert_eq!(told, [ips(&public), ips(&public)].concat());
        let private = ["10.0.0.1", "10.0.0.2"];
        let config = announcing(private);
        assert!(listeners(&config, &bound(&config, &private)).iter().all(Option::is_none), "one name for both");
    }

    #[test]
    fn whoever_wants_it_in_vain_is_told_why() {
        let outcome = |text: &str, host: &[&str]| {
            let config = config(text);
            let udp = bound(&config, host);
            alternates(&config, &Listeners { udp, ..Listeners::default() })
        };
        let on = outcome("", &["192.0.2.1", "192.0.2.2"]).expect("two");
        assert_eq!(on.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1:3479", "192.0.2.2:3479"]);
        assert_eq!(outcome("", &[]), Err(Obstacle::NoUdp));
        assert_eq!(outcome("", &["192.0.2.1", "127.0.0.1"]), Err(Obstacle::NoPair));
        let both = <[IpAddr; 2]>::try_from(ips(&["10.0.0.1", "10.0.0.2"])).expect("two");
        let name = ips(&["203.0.113.1"])[0];
        let same = outcome("external = [\"203.0.113.1\"]\n", &["10.0.0.1", "127.0.0.1", "10.0.0.2"]);
        assert_eq!(same, Err(Obstacle::OneName(both, name)));
        let many: Vec<String> = (1..=16).map(|host| format!("192.0.2.{host}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(outcome("", &many), Err(Obstacle::NoSocket));
    }

    #[test]
    fn behind_a_nat_listeners_are_told_by_their_public_addresses() {
        let config = config("external = [\"203.0.113.1/10.0.0.1\", \"203.0.113.2/10.0.0.2\"]\n");
        let listeners = listeners(&config, &bound(&config, &["10.0.0.1", "10.0.0.2"]));
        let told: Vec<String> = listeners.iter().flatten().map(|listener| listener.announce.to_string()).collect();
        assert_eq!(told, ["203.0.113.1:3478", "203.0.113.2:3478", "203.0.113.1:3479", "203.0.113.2:3479"]);
    }

    #[test]
    fn a_host_of_many_addresses_has_no_more_sockets_than_a_worker_may() {
        let config = config("");
        let many: Vec<IpAddr> = (1..=12).map(|host| IpAddr::from([192, 0, 2, host])).collect();
        assert_eq!(addresses(&config, &many, 12), many[..4]);
        assert_eq!(addresses(&config, &many, 15), ips(&[]), "one alone is of no use");
        assert_eq!(addresses(&config, &many, 40), ips(&[]));
    }
}
