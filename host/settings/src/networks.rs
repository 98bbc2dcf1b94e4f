//! Addresses and networks, as `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, de};

/// The proxies in front of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpNetworks(Vec<IpNetwork>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IpNetwork {
    address: u128,
    /// Bits of `address` that count, of 128.
    prefix: u32,
}

impl IpNetworks {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.0.iter().any(|network| mask(address, network.prefix) == mask(network.address, network.prefix))
    }
}

impl<'de> Deserialize<'de> for IpNetworks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let networks: Result<_, _> = texts.iter().map(|text| parse(text)).collect();
        networks.map(Self).map_err(de::Error::custom)
    }
}

fn parse(text: &str) -> Result<IpNetwork, String> {
    let wrong = || format!("{text:?} is neither an IP address nor a network as \"10.0.0.0/8\"");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
    // An IPv4 address is the last 32 bits of its mapped form (RFC 4291, section 2.5.5.2).
    let (length, skipped) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    let prefix = prefix.unwrap_or(length);
    if prefix > length {
        return Err(wrong());
    }
    Ok(IpNetwork { address: bits(address), prefix: skipped + prefix })
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(address: u128, prefix: u32) -> u128 {
    // A shift by all 128 bits is none.
    address.checked_shr(128 - prefix).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks(texts: &[&str]) -> IpNetworks {
        IpNetworks(texts.iter().map(|text| parse(text).unwrap()).collect())
    }

    #[test]
    fn an_address_is_in_its_network_and_in_no_other() {
        let networks = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
        for inside in ["10.1.2.3", "10.255.255.255", "192.0.2.7", "::ffff:10.0.0.1", "2001:db8:1::2", "::1"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::2", "127.0.0.1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!IpNetworks::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_of_everything_contains_everything_of_its_family() {
        let all = networks(&["0.0.0.0/0"]);
        assert!(all.contains("203.0.113.9".parse().unwrap()));
        assert!(!all.contains("2001:db8::1".parse().unwrap()));
        assert!(networks(&["::/0"]).contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "proxy.example", "10.0.0.1/-1"] {
            assert!(parse(wrong).unwrap_err().contains("neither an IP address nor a network"), "{wrong}");
        }
    }
}
