//! Whence something came, as limits count it: by the IPv4 address, or the IPv6 /64, of which whoever has one address has all.

use std::net::{IpAddr, SocketAddr};

/// An IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Source(u64);

impl Source {
    /// A number of its own; neighbours have numbers side by side.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
            // Networks whose number is an IPv4 address's are in ::/32, where nobody lives (RFC 4291 §2.5.5).
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        address.ip().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_however_it_is_written_and_so_is_an_ipv6_network() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        let all = ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1", "fe80::1", "64:ff9b::192.0.2.1"]
            .map(source);
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{one:?}");
        }
    }
}
