//! Access to a frame's bytes: every load is checked against the frame's end.
//!
//! The XDP program implements [`Packet`] over packet pointers, everybody else over byte slices. Parsers know nothing
//! but this trait and can therefore neither panic nor read beyond the frame.

use crate::{
    answer,
    hello::{self, Seen},
};

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// Length of the whole frame in bytes, parts that are not in linear memory included.
    fn length(&self) -> usize;

    /// Length of the part that lies in linear memory, in bytes: of nearly every frame all, and cheaper to know than that.
    #[inline(always)]
    fn linear(&self) -> usize {
        self.length()
    }

    /// `N` bytes of a header, from `offset` on; `None` if the frame ends before. Headers lie in the frame's linear memory:
    /// drivers see to that.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first `N` bytes; `None` if the frame's linear memory ends before. One check for many loads, of what nearly always lies in the same place.
    fn first<const N: usize>(&self) -> Option<&[u8; N]>;

    /// `N` bytes from anywhere in the frame, as far as its last fragment of memory. Dearer than [`Packet::bytes`] where
    /// linear memory ends early.
    #[inline(always)]
    fn data<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes(offset)
    }

    /// `number` itself. The program's implementation makes the kernel's verifier forget what it has deduced about it, so
    /// that paths that differ in nothing else are walked once and not once per combination.
    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        number
    }

    /// [`hello::inspect`], which the program puts behind a function that the verifier checks by itself.
    #[inline(always)]
    fn inspect_hello(&self, start: usize, end: usize, minimum: u16) -> Seen {
        hello::inspect(self, start, end, minimum)
    }

    /// The sum of the 16-bit words from `start` to `end` as they lie in memory, an odd byte at the end padded with 0, folded or
    /// not: what the checksums of IP and TCP are made of (RFC 1071).
    #[inline(always)]
    fn sum(&self, start: usize, end: usize) -> u32 {
        let mut sum = 0u32;
        let mut offset = start;
        while offset < end {
            let word = match self.data::<2>(offset) {
                Some(word) if offset + 1 < end => word,
                Some(_) | None => [self.u8(offset).unwrap_or(0), 0],
            };
            sum = sum.wrapping_add(u16::from_ne_bytes(word) as u32);
            offset += 2;
        }
        sum
    }

    /// [`answer::timestamps`], behind such a function too.
    #[inline(always)]
    fn timestamps(&self, segment: usize) -> usize {
        answer::timestamps(self, segment)
    }

    /// [`answer::signed`], likewise.
    #[inline(always)]
    fn signed(&self, segment: usize) -> bool {
        answer::signed(self, segment)
    }

    /// One byte.
    #[inline(always)]
    fn u8(&self, offset: usize) -> Option<u8> {
        self.bytes::<1>(offset).map(u8::from_be_bytes)
    }

    /// A 16-bit number in network order.
    #[inline(always)]
    fn u16(&self, offset: usize) -> Option<u16> {
        self.bytes(offset).map(u16::from_be_bytes)
    }

    /// A 32-bit number in network order.
    #[inline(always)]
    fn u32(&self, offset: usize) -> Option<u32> {
        self.bytes(offset).map(u32::from_be_bytes)
    }
}

/// A frame that can be overwritten. `None`: that could not be done.
pub trait PacketMut: Packet {
    /// Cuts the frame off at its end, or lengthens it by zeroes.
    fn resize(&mut self, length: usize) -> Option<()>;

    /// Overwrites bytes that lie in the frame.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;
}

impl Packet for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        self.get(offset..end)?.try_into().ok()
    }

    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.first_chunk()
    }
}

impl Packet for &[u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        <[u8]>::bytes(self, offset)
    }

    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.first_chunk()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_end_with_the_frame() {
        let frame: &[u8] = &[1, 2, 3, 4, 5];
        assert_eq!(frame.u16(3), Some(0x0405));
        assert_eq!(frame.u16(4), None);
        assert_eq!(frame.u32(1), Some(0x0203_0405));
        assert_eq!(frame.u8(5), None);
        assert_eq!(frame.u8(usize::MAX), None);
        assert_eq!(frame.bytes::<0>(5), Some([]));
    }
}
