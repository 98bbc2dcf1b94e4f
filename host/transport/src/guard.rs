//! Which addresses a target that arrived in a request may have (no server-side request forgery).
//!
//! Only global unicast addresses pass, and of these none that is this machine's own. Addresses that carry an IPv4
//! address inside (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) are refused whole, as they can lead anywhere.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Sources: the IANA special-purpose address registries for IPv4 and IPv6.
const FORBIDDEN_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network, unspecified
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT; Alibaba's metadata at 100.100.100.200
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, metadata services
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's platform services, the only one outside of these registries
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments; Oracle's metadata at 192.0.0.192
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// The only global unicast space there is. Unspecified, loopback, mapped, compatible, NAT64 (64:ff9b::/96),
/// unique-local (with the metadata of Amazon, fd00:ec2::254, and Google, fd20:ce::254), link-local, site-local and
/// multicast addresses lie outside it.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

const FORBIDDEN_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// The upper half of an ISATAP interface identifier (RFC 5214, section 6.1), whose lower half is an IPv4 address.
const ISATAP: [u32; 2] = [0x0000_5efe, 0x0200_5efe];

/// Addresses that no machine has (RFC 5737 and RFC 3849).
const NOBODYS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODYS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Returns true if a target that arrived in a request may have this address now: interfaces come and go, so
/// this is asked for with every dial.
pub(super) fn may_be_dialled(address: IpAddr) -> bool {
    passes(address, is_own)
}

fn passes(address: IpAddr, is_own: impl Fn(IpAddr) -> bool) -> bool {
    is_public(address) && !is_own(address)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !FORBIDDEN_V4.iter().any(|block| within_v4(v4, *block)),
        IpAddr::V6(v6) => {
            within_v6(v6, GLOBAL_V6)
                && !FORBIDDEN_V6.iter().any(|block| within_v6(v6, *block))
                && !ISATAP.contains(&((v6.to_bits() >> 32) as u32))
        }
    }
}

/// Returns true if an address is this machine's, on whatever interface: if it can be bound. This also finds addresses
/// that no interface lists (`ip route add local`), and needs no list of them.
fn is_own(address: IpAddr) -> bool {
    let can_be_bound = |address: IpAddr| match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        // Of any other failure nothing is known.
        Err(error) => error.kind() != ErrorKind::AddrNotAvailable,
    };
    let nobodys = if address.is_ipv4() { NOBODYS_V4 } else { NOBODYS_V6 };
    if !can_be_bound(address) {
        return false;
    }
    // Where the kernel lets every address be bound (`ip_nonlocal_bind`), it is asked for the route.
    !can_be_bound(nobodys) || is_source_of_route_to(address)
}

/// Returns true if the kernel would send to this address from the same address, as it does for its own. Nothing is
/// sent.
fn is_source_of_route_to(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

fn within_v4(address: Ipv4Addr, (network, length): (Ipv4Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (32 - length) == 0
}

fn within_v6(address: Ipv6Addr, (network, length): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (128 - length) == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn refuses_addresses_that_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:168.63.129.16",
            "::168.63.129.16",
            "64:ff9b::168.63.129.16",
            "64:ff9b:1::168.63.129.16",
            "2002:a83f:8110::1",
            "2a00:1450::5efe:a83f:8110",
            "2a00:1450::200:5efe:a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn refuses_this_machines_own_addresses() {
        // All of 127.0.0.0/8 is this machine's on Linux, though only one is on a list.
        for own in ["127.0.0.1", "127.3.2.1"] {
            let own = own.parse().unwrap();
            assert!(is_own(own), "{own}");
        }
        assert!(is_source_of_route_to("127.0.0.1".parse().unwrap()));
        for other in ["8.8.8.8", "168.63.129.16", "192.0.2.7"] {
            let other = other.parse().unwrap();
            assert!(!is_own(other) && !is_source_of_route_to(other), "{other}");
        }
        let public = "8.8.8.8".parse().unwrap();
        assert!(passes(public, |_| false) && !passes(public, |address| address == public));
        assert!(may_be_dialled(public) && !may_be_dialled("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn lets_public_addresses_pass() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "17.188.143.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2620:149:208:430c::4",
            "2a00:1450:4001:82b::200a",
            "3ffe::1",
        ] {
            assert!(public(text), "{text}");
        }
    }
}
