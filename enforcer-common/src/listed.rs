//! Which bits say whether the prefix tries need asking: a walk through a trie costs as much as everything else together, and most
//! sources are in no listed prefix.
//!
//! IPv4 has one bit per /24 that a listed prefix touches. IPv6 has a hashed bit per /48 and per /32: a prefix sets the one of the
//! longest of both that it lies in, wider ones set [`V6_WIDE`]. A bit that is set for nothing costs a walk; one that is clear is a
//! promise. The daemon sets bits after it has listed a prefix, and clears them after the last one is gone.

use crate::limiter::mix;

/// Words of 64 bits for IPv4: 2 MiB, which the second-level cache of a server holds.
pub const V4_WORDS: usize = 1 << 18;
/// Words of 64 bits for IPv6: 256 KiB; with 100,000 prefixes one bit in twenty is set.
pub const V6_WORDS: usize = 1 << 15;

/// The bit of IPv6 prefixes that are shorter than 32 bits.
pub const V6_WIDE: u32 = 0;

/// The bit of an IPv4 address.
#[inline(always)]
pub const fn v4(address: [u8; 4]) -> u32 {
    u32::from_be_bytes(address) >> 8
}

/// The bit of the /48 around an IPv6 address, given as its upper half.
#[inline(always)]
pub const fn v6_site(upper: u64) -> u32 {
    mix(upper >> 16) as u32 % (V6_WORDS as u32 * u64::BITS)
}

/// The bit of the /32 around an IPv6 address. The number that is hashed has a bit that no /48 has.
#[inline(always)]
pub const fn v6_network(upper: u64) -> u32 {
    mix(upper >> 32 | 1 << 63) as u32 % (V6_WORDS as u32 * u64::BITS)
}

/// The one bit that an IPv6 prefix of `length` bits sets.
pub const fn v6_of_prefix(upper: u64, length: u8) -> u32 {
    match length {
        0..=31 => V6_WIDE,
        32..=47 => v6_network(upper),
        _ => v6_site(upper),
    }
}

/// Where a bit is: its word, and the mask in it.
#[inline(always)]
pub const fn place(bit: u32) -> (u32, u64) {
    (bit / u64::BITS, 1 << (bit % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_finds_the_bit_of_every_prefix_around_it() {
        let upper = 0x2001_0db8_0001_0002u64;
        for length in 0..=128u8 {
            let cut = if length >= 64 { upper } else { upper & !(u64::MAX >> length) };
            let found = [V6_WIDE, v6_network(upper), v6_site(upper)];
            assert!(found.contains(&v6_of_prefix(cut, length)), "/{length}");
        }
        assert_eq!(v4([198, 18, 0, 7]), v4([198, 18, 0, 255]));
        assert_ne!(v4([198, 18, 0, 7]), v4([198, 18, 1, 7]));
        assert_eq!(place(v4([255; 4])), (V4_WORDS as u32 - 1, 1 << 63));
        assert!(place(v6_site(u64::MAX)).0 < V6_WORDS as u32);
    }
}
