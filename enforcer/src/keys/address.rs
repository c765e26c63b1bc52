//! Which addresses keys may be fetched from: whoever can write an issuer's discovery document, or its DNS, must not be able
//! to have this daemon speak to machines behind it (SSRF).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the public Internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The special-purpose blocks of RFC 6890 and IANA's registry are none.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // RFC 6598: behind a provider's NAT.
        || (a == 100 && b & 0xc0 == 64)
        || (a, b, c) == (192, 0, 0)
        // RFC 2544: benchmarks.
        || (a == 198 && b & 0xfe == 18))
}

/// Global unicast (RFC 4291 section 2.4), without blocks in which an IPv4 address hides or that lead nowhere.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // 2001::/32 Teredo, 2001:db8::/32 documentation, 2002::/16 6to4.
        [0x2001, 0 | 0xdb8, ..] | [0x2002, ..] => false,
        // NAT64 (RFC 6052): what stands behind the prefix decides.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for address in
            ["9.9.9.9", "192.1.0.1", "198.17.255.255", "2620:fe::9", "::ffff:9.9.9.9", "64:ff9b::909:909"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
