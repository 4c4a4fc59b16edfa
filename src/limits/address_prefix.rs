//! The part of a client's address that limits are counted by.

use std::net::IpAddr;

use ipnet::Ipv6Net;

/// The part of an IPv6 address that a network operator assigns to one customer.
const IPV6_PREFIX_BITS: u8 = 64;

/// What limits on addresses are counted by: an IPv4 address, or the /64 of an IPv6 address. An IPv4 address
/// that is mapped into IPv6 counts as the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressPrefix(IpAddr);

impl From<IpAddr> for AddressPrefix {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Net::new(address, IPV6_PREFIX_BITS)
                .map_or(address, |network| network.network())
                .into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_and_a_mapped_ipv4_address_count_as_one_address() {
        for (one, other, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:3::1", "2001:db8:1:4::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let prefix = |text: &str| AddressPrefix::from(text.parse::<IpAddr>().unwrap());
            assert_eq!(prefix(one) == prefix(other), same, "{one} {other}");
        }
    }
}
