//! Socket addresses as the kernel writes them (`sockaddr_in`, `sockaddr_in6`), to and from bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of room for a name: `sockaddr_in6` is 28, rounded up so that what follows is aligned.
pub(super) const NAME_SIZE: usize = 32;

/// Room for one address in the kernel's form.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Name(pub(super) [u8; NAME_SIZE]);

impl Name {
    pub(super) const EMPTY: Name = Name([0; NAME_SIZE]);

    /// Writes an address, and says how many bytes of it count.
    pub(super) fn write(&mut self, address: SocketAddr) -> u32 {
        let bytes = &mut self.0;
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
        bytes[0..2].copy_from_slice(&family.to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                bytes[8..16].fill(0);
                SOCKADDR_IN_SIZE as u32
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                SOCKADDR_IN6_SIZE as u32
            }
        }
    }
}

/// Reads an address that the kernel wrote. The flow label is left out: it is not part of who someone is.
#[inline]
pub(super) fn read(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*name.first_chunk()?));
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    if family == libc::AF_INET {
        let ip: [u8; 4] = *name.get(4..)?.first_chunk()?;
        Some((Ipv4Addr::from(ip), port).into())
    } else if family == libc::AF_INET6 {
        let ip: [u8; 16] = *name.get(8..)?.first_chunk()?;
        let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
        Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
    } else {
        None
    }
}

const SOCKADDR_IN_SIZE: usize = size_of::<libc::sockaddr_in>();
const SOCKADDR_IN6_SIZE: usize = size_of::<libc::sockaddr_in6>();
const _: () = assert!(SOCKADDR_IN_SIZE == 16 && SOCKADDR_IN6_SIZE == 28 && SOCKADDR_IN6_SIZE <= NAME_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form() {
        for text in ["192.0.2.1:5004", "[2001:db8::1]:443", "[fe80::1%3]:9", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().expect("an address");
            let mut name = Name([0xff; NAME_SIZE]);
            let size = name.write(address) as usize;
            assert_eq!(read(&name.0[..size]), Some(address));
        }
    }

    #[test]
    fn anything_else_is_no_address() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0; 32]), None);
        let mut name = Name::EMPTY;
        let size = name.write("[::1]:1".parse().expect("an address")) as usize;
        for cut in 0..size {
            assert_eq!(read(&name.0[..cut]), None, "{cut} bytes of {size}");
        }
    }
}
