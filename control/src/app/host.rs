//! The addresses of this host, as far as media may use them.

use std::net::IpAddr;

use nix::net::if_::InterfaceFlags;

/// Addresses of interfaces that are up, loopback last.
///
/// An address that cannot be bound is left out, lest it keeps the server from starting: at boot an IPv6 address is tentative
/// for a second or two (RFC 4862 §5.4).
///
/// IPv6 link-local addresses are left out: a candidate cannot name the link that they belong to (RFC 8839 §5.1).
pub fn addresses() -> std::io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for interface in interfaces.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP)) {
        let Some(storage) = interface.address else { continue };
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        if let Some(address) = v4.or(v6).filter(|&address| is_usable(address) && !addresses.contains(&address)) {
            addresses.push(address);
        }
    }
    addresses.retain(|&address| can_bind(address));
    Ok(ordered(addresses))
}

/// Loopback last; among the others IPv4 first, as the kernel lists them.
fn ordered(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    addresses
}

fn can_bind(address: IpAddr) -> bool {
    match std::net::UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%address, %error, "an address of this host cannot be used now and is left out");
            false
        }
    }
}

fn is_usable(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !address.is_unspecified() && !address.is_multicast() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_last_and_ipv4_comes_first() {
        let given = ["127.0.0.1", "2001:db8::1", "::1", "192.0.2.1"].map(|text| text.parse().expect("an address"));
        let texts: Vec<String> = ordered(given.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.0.2.1", "2001:db8::1", "127.0.0.1", "::1"]);
    }

    #[test]
    fn link_local_and_senseless_addresses_are_left_out() {
        for (text, usable) in
            [("fe80::1", false), ("0.0.0.0", false), ("ff02::1", false), ("10.0.0.1", true), ("::1", true)]
        {
            assert_eq!(is_usable(text.parse().expect("an address")), usable, "{text}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_bound_is_left_out() {
        assert!(can_bind("127.0.0.1".parse().expect("an address")));
        assert!(!can_bind("192.0.2.1".parse().expect("an address of documentation, which no host has")));
    }

    #[test]
    fn this_host_has_an_address_and_no_link_local_one() {
        let addresses = addresses().expect("getifaddrs works");
        assert!(addresses.iter().all(|&address| is_usable(address)));
        assert!(addresses.iter().any(IpAddr::is_loopback), "{addresses:?}");
    }
}
