//! Whom a packet or a request is charged to: an IPv4 address, or the prefix of an IPv6 address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Distinguishes IPv4 keys from IPv6 ones; `::/8` is reserved (RFC 4291 section 2.4), so no source address of
/// the IPv6 Internet has this value in its upper half.
const V4_TAG: u64 = 1 << 33;

/// The unit of accounting and of exact bans: never 0.
///
/// IPv4: the address, in host order, plus a tag. IPv6: the upper 64 bits in host order, cut to the configured prefix length.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey(u64);

impl SourceKey {
    /// The key of an IPv4 address given in network order.
    #[inline(always)]
    pub const fn v4(address: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(address) as u64 | V4_TAG)
    }

    /// The key of an IPv6 address whose upper 64 bits are `upper` (host order), under `mask`.
    #[inline(always)]
    pub const fn v6(upper: u64, mask: u64) -> Self {
        let key = upper & mask;
        // The unspecified prefix would be the empty slot's key; nothing legitimate comes from there.
        Self(if key == 0 { 1 } else { key })
    }

    /// The key that the program would use for `address`. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn of(address: IpAddr, v6_mask: u64) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6((v6.to_bits() >> 64) as u64, v6_mask),
        }
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0 >> 33 == 1
    }

    /// The number that maps use.
    #[inline(always)]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The key with this number, as a map holds it; `None` for the number of an empty slot.
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The address that a key stands for: the lowest of its prefix.
    pub fn address(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from_bits(self.0 as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits((self.0 as u128) << 64))
        }
    }
}

/// The mask over the upper 64 bits of an IPv6 address for a prefix length of 1 to 64 bits.
pub const fn v6_mask(prefix_length: u8) -> u64 {
    match prefix_length {
        0 => 0,
        1..=63 => !(u64::MAX >> prefix_length),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_families_apart_and_come_back() {
        let v4: IpAddr = "198.18.0.7".parse().unwrap();
        let v6: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        let mapped: IpAddr = "::ffff:198.18.0.7".parse().unwrap();
        let mask = v6_mask(64);
        assert_eq!(SourceKey::of(v4, mask).address(), v4);
        assert_eq!(SourceKey::of(mapped, mask), SourceKey::of(v4, mask));
        assert_eq!(SourceKey::of(v6, mask).address(), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(SourceKey::of(v6, v6_mask(48)).address(), "2001:db8:1::".parse::<IpAddr>().unwrap());
        assert_ne!(SourceKey::of("::".parse().unwrap(), mask).get(), 0);
    }
}
