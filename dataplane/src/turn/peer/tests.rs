//! Whom clients may reach: every special range, in every way to write it, under each policy.

use ringmain_shared::id::WorkerIndex;
use ringmain_shared::turn::{OwnMedia, RelayAddress, RelayMode};

use super::*;

fn peers(policy: PeerPolicy) -> Peers {
    let address = RelayAddress { bind: "203.0.113.9".parse().unwrap(), announce: "203.0.113.9".parse().unwrap() };
    let relay = RelaySpec {
        addresses: vec![address],
        port_min: 10_000,
        port_max: 20_000,
        workers: 1,
        mode: RelayMode::PerAllocation,
    };
    Peers::new(&policy, &relay)
}

fn open() -> Peers {
    peers(PeerPolicy { open: true, ..PeerPolicy::default() })
}

fn allows(peers: &Peers, ip: IpAddr) -> bool {
    let allowed = peers.permit(SocketAddr::new(ip, 9)).is_ok();
    assert_eq!(allowed, peers.permit_ip(ip), "{ip}");
    allowed
}

/// Every form in which an IPv4 address may come.
fn encodings(ip: Ipv4Addr) -> Vec<IpAddr> {
    let low = u128::from(ip.to_bits());
    let [a, b, c, d] = ip.octets();
    let v6 = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
    let [ab, cd] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    vec![
        IpAddr::V4(ip),
        v6(0xffff << 32 | low),
        v6(low),
        v6(0xffff_0000 << 32 | low),
        IpAddr::from([0x64, 0xff9b, 0, 0, 0, 0, ab, cd]),
        IpAddr::from([0x64, 0xff9b, 1, 0, 0, 0, ab, cd]),
        IpAddr::from([0x2002, ab, cd, 0, 0, 0, 0, 1]),
        IpAddr::from([0x2001, 0, ab, cd, 0, 0, !ab, !cd]),
        IpAddr::from([0x2600, 1, 2, 3, 0, 0x5efe, ab, cd]),
        IpAddr::from([0x2600, 1, 2, 3, 0x200, 0x5efe, ab, cd]),
    ]
}

#[test]
fn no_special_address_passes_in_any_of_its_forms() {
    let peers = open();
    let mut tried = 0;
    for &(network, prefix) in SPECIAL_V4 {
        let first = u32::from_be_bytes(network);
        let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
        for bits in [first, first | (host / 2), first | host] {
            for ip in encodings(bits.into()) {
                assert!(!allows(&peers, ip), "{ip} is {}", Ipv4Addr::from_bits(bits));
                tried += 1;
            }
        }
    }
    let special_v6 = SPECIAL_V6.iter().copied().chain(
        [
            ("::", 8),
            ("100::", 8),
            ("200::", 7),
            ("400::", 6),
            ("800::", 5),
            ("1000::", 4),
            ("4000::", 2),
            ("8000::", 1),
            ("5f00::", 16),
            ("fc00::", 7),
            ("fe80::", 10),
            ("fec0::", 10),
            ("ff00::", 8),
            ("64:ff9b:1::", 48),
            ("fd00:ec2::254", 128),
        ]
        .map(|(network, prefix)| (network.parse().unwrap(), prefix)),
    );
    for (network, prefix) in special_v6 {
        let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
        for bits in [network.to_bits(), network.to_bits() | (host / 2), network.to_bits() | host] {
            assert!(!allows(&peers, IpAddr::V6(bits.into())), "{}", Ipv6Addr::from_bits(bits));
            tried += 1;
        }
    }
    assert!(tried >= 400, "{tried} are too few");
}

#[test]
fn the_internet_passes_when_it_is_open_and_only_then() {
    let closed = peers(PeerPolicy::default());
    for ip in [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "223.255.255.255",
        "2600::1",
        "2a00:1450::1",
        "2001:200::1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        assert!(allows(&open(), ip), "{ip}");
        assert!(!allows(&closed, ip), "{ip}");
    }
    // One address, one form: what is sent to is the IPv4 address.
    let permitted = open().permit("[::ffff:8.8.8.8]:9".parse().unwrap()).unwrap();
    assert_eq!(permitted.address(), "8.8.8.8:9".parse().unwrap());
}

#[test]
fn an_address_is_as_good_as_all_its_meanings() {
    let peers = peers(PeerPolicy {
        open: true,
        deny: vec![IpRange::network("8.8.8.0".parse().unwrap(), 24).unwrap()],
        allow: vec![IpRange::network("10.0.0.0".parse().unwrap(), 8).unwrap()],
        ..PeerPolicy::default()
    });
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of them near the ranges that matter.
        let v4 = match state % 4 {
            0 => 0x0808_0800 | (state >> 32) as u32 & 0x3ff,
            1 => 0x0a00_0000 | (state >> 32) as u32 & 0x1ff_ffff,
            _ => (state >> 32) as u32,
        };
        for ip in encodings(v4.into()) {
            let expected =
                meanings(ip).iter().all(|&meaning| allows(&peers, meaning) || (meaning == ip.to_canonical()));
            if allows(&peers, ip) {
                assert!(expected, "{ip}");
            }
        }
        assert_eq!(
            allows(&peers, encodings(v4.into())[1]),
            allows(&peers, IpAddr::V4(v4.into())),
            "mapped is the same address"
        );
    }
}

#[test]
fn the_operators_word_counts_and_our_own_places_do_not_change() {
    let range = |ip: &str, prefix| IpRange::network(ip.parse().unwrap(), prefix).unwrap();
    let media: SocketAddr = "203.0.113.9:5000".parse().unwrap();
    let other: SocketAddr = "203.0.113.9:5001".parse().unwrap();
    let peers = peers(PeerPolicy {
        own_media: vec![
            OwnMedia { address: media, worker: WorkerIndex(0) },
            OwnMedia { address: other, worker: WorkerIndex(1) },
        ],
        listeners: vec!["203.0.113.9:3478".parse().unwrap(), "10.0.0.1:3478".parse().unwrap()],
        host: vec![],
        open: false,
        relayed: false,
        allow: vec![range("10.0.0.0", 8), range("8.8.8.8", 32)],
        deny: vec![range("10.6.0.0", 16), range("203.0.113.0", 24)],
    });
    for (peer, expected) in [
        ("10.0.0.1:9", true),
        ("[::ffff:10.0.0.1]:9", true),
        ("10.0.0.1:3478", false),
        ("[::ffff:10.0.0.1]:3478", false),
        ("10.6.0.1:9", false),
        ("8.8.8.8:9", true),
        ("8.8.4.4:9", false),
        ("203.0.113.9:5000", true),
        ("203.0.113.9:5001", true),
        ("203.0.113.9:5002", false),
        ("203.0.113.9:3478", false),
        ("203.0.113.9:10000", false),
        ("8.8.8.8:0", false),
    ] {
        assert_eq!(peers.permit(peer.parse().unwrap()).is_ok(), expected, "{peer}");
    }
    assert_eq!(peers.permit(media).unwrap().media(), Some(WorkerIndex(0)));
    assert_eq!(peers.permit(other).unwrap().media(), Some(WorkerIndex(1)));
}

#[test]
fn no_address_of_our_host_is_a_peer_unless_the_operator_says_so() {
    let [v4, v6]: [IpAddr; 2] = ["9.9.9.10", "2600::10"].map(|ip| ip.parse().unwrap());
    let media = SocketAddr::new(v4, 5000);
    let policy = PeerPolicy {
        own_media: vec![OwnMedia { address: media, worker: WorkerIndex(0) }],
        host: vec![v4, v6],
        open: true,
        relayed: true,
        ..PeerPolicy::default()
    };
    let open = peers(policy.clone());
    for peer in ["9.9.9.10:80", "9.9.9.10:10000", "[::ffff:9.9.9.10]:80", "[64:ff9b::9.9.9.10]:80", "[2600::10]:80"] {
        assert!(open.permit(peer.parse().unwrap()).is_err(), "{peer}");
    }
    // Nor is what a translator makes a relay's address of.
    assert!(open.permit("[64:ff9b::203.0.113.9]:80".parse().unwrap()).is_err());
    assert!(open.permit(media).is_ok() && open.permit_ip(v4) && !open.permit_ip(v6));
    assert!(open.permit("9.9.9.11:80".parse().unwrap()).is_ok());
    let named = peers(PeerPolicy { allow: vec![IpRange::network(v4, 32).unwrap()], ..policy });
    assert!(named.permit("9.9.9.10:80".parse().unwrap()).is_ok() && !named.permit_ip(v6));
}

#[test]
fn behind_our_relay_addresses_are_only_relays_unless_the_operator_says_more() {
    let address = RelayAddress { bind: "10.0.0.5".parse().unwrap(), announce: "9.9.9.9".parse().unwrap() };
    let relay = RelaySpec {
        addresses: vec![address],
        port_min: 10_000,
        port_max: 20_000,
        workers: 1,
        mode: RelayMode::PerAllocation,
    };
    let range = |ip: &str| IpRange::network(ip.parse().unwrap(), 32).unwrap();
    for (allow, relayed, announced, bound) in [
        (vec![], true, false, false),
        (vec![], false, false, false),
        (vec![range("9.9.9.9")], false, false, false),
        (vec![range("10.0.0.5")], false, false, true),
        (vec![range("9.9.9.9"), range("10.0.0.5")], true, true, true),
    ] {
        let policy = PeerPolicy { open: true, relayed, allow: allow.clone(), ..PeerPolicy::default() };
        let peers = Peers::new(&policy, &relay);
        let permitted = ["9.9.9.9:161", "9.9.9.9:10000", "10.0.0.5:161", "10.0.0.5:10000"]
            .map(|peer| peers.permit(peer.parse().unwrap()).is_ok());
        assert_eq!(permitted, [announced, relayed, bound, relayed], "{allow:?}");
        assert_eq!(peers.permit_ip("9.9.9.9".parse().unwrap()), announced || relayed);
        assert!(peers.permit("8.8.8.8:161".parse().unwrap()).is_ok());
    }
}
