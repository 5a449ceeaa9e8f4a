//! Which UDP listeners of TURN let clients find out what their NAT does (RFC 5780): those at two ports of two addresses, each of which
//! can be reached by whoever reaches the other. An address that is known to the world by the name of another is no second one.

use std::net::{IpAddr, SocketAddr};

use ringmain_dataplane::io::FIXED_SOCKETS_MAX;
use ringmain_shared::turn::DiscoveryListener;

use super::spec::announced;
use crate::config::Config;

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
            announce: SocketAddr::new(announced(config, ip), port),
            other_address: number(other_ip, port)?,
            other_port: number(ip, other_port)?,
            other: number(other_ip, other_port)?,
        })
    };
    bound.iter().map(listener).collect()
}

/// The next of the addresses that is another one to whoever comes by this one, as coturn takes it.
fn other(config: &Config, address: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    let here = announced(config, address);
    let at = addresses.iter().position(|other| *other == address)?;
    let (before, after) = addresses.split_at(at);
    after.iter().chain(before).copied().find(|&other| {
        let there = announced(config, other);
        there != here && there.is_ipv4() == here.is_ipv4() && reach(there) == reach(here)
    })
}

/// From where an address can be reached.
#[derive(PartialEq, Eq)]
enum Reach {
    Host,
    Site,
    World,
}

fn reach(address: IpAddr) -> Reach {
    let is_site = match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local(),
    };
    match address.is_loopback() {
        true => Reach::Host,
        false if is_site => Reach::Site,
        false => Reach::World,
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

    #[test]
    fn an_address_of_another_kind_is_no_other_one() {
        for (text, host) in [
            ("", &["192.0.2.1", "127.0.0.1"][..]),
            ("", &["192.0.2.1", "172.17.0.1"]),
            ("", &["192.0.2.1", "2001:db8::1"]),
            ("", &["2001:db8::1", "fd00::1"]),
            // One public address for both.
            ("external = [\"203.0.113.1\"]\n", &["10.0.0.1", "10.0.0.2"]),
            ("external = [\"203.0.113.1/10.0.0.1\"]\n", &["10.0.0.1", "10.0.0.2"]),
        ] {
            let config = config(text);
            assert_eq!(addresses(&config, &ips(host), 2), ips(&[]), "{text}{host:?}");
            assert!(listeners(&config, &bound(&config, host)).iter().all(Option::is_none), "{host:?}");
        }
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
