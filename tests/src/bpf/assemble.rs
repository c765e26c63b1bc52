//! Instructions of BPF (RFC 9669), as far as the benchmarks' programs need them.

use super::{Map, XDP_DROP, XDP_PASS};

/// Where the next key comes from. The state is the frame's first eight bytes, its MAC addresses: nothing judges those, and
/// what a program writes there is still there in the next run of a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// A linear congruential generator: jumps about, and no cache can guess.
    Random,
    /// One after the other: never the same one twice, and every one once.
    Rising,
    /// The kernel's generator, which leaves the frame alone: for frames that are really sent.
    Kernel,
}

/// Knuth's multiplier and increment for 64 bits (MMIX).
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;
/// Of a linear congruential generator only the upper bits are random.
const UPPER: i32 = 33;

/// Offset of the source address in an IPv4 packet in an Ethernet frame.
const SOURCE: i16 = 26;
/// Bytes that must be there.
const READ: i32 = 42;

/// Helpers by number (linux/bpf.h).
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const CLOCK: i32 = 5;
const RANDOM: i32 = 7;
const TAIL_CALL: i32 = 12;
const REDIRECT: i32 = 23;

/// A program under construction.
#[derive(Clone, Debug, Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// How many instructions.
    pub fn instructions(&self) -> usize {
        self.0.len() / 8
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn op(&mut self, opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> &mut Self {
        self.0.extend([opcode, source << 4 | destination]);
        self.0.extend(offset.to_le_bytes());
        self.0.extend(immediate.to_le_bytes());
        self
    }

    /// A 64-bit constant takes two instructions.
    fn long(&mut self, destination: u8, value: u64) -> &mut Self {
        self.op(0x18, destination, 0, 0, value as i32).op(0, 0, 0, 0, (value >> 32) as i32)
    }

    fn map(&mut self, destination: u8, map: &Map) -> &mut Self {
        const PSEUDO_MAP_FD: u8 = 1;
        self.op(0x18, destination, PSEUDO_MAP_FD, 0, map.descriptor()).op(0, 0, 0, 0, 0)
    }

    /// `return action`
    pub fn constant(&mut self, action: u32) -> &mut Self {
        self.op(0xb7, 0, 0, 0, action as i32).op(0x95, 0, 0, 0, 0)
    }

    /// First of all: drops the frame unless one is due, every `interval` nanoseconds. Whoever runs the program over and over
    /// then sends evenly, and not in bursts that no queue takes. What was missed by more than `slack` nanoseconds is not
    /// made up for.
    pub fn pace(&mut self, map: &Map, interval: u64, slack: u32) -> &mut Self {
        self.op(0xbf, 6, 1, 0, 0).op(0x62, 10, 0, -4, 0).op(0xbf, 2, 10, 0, 0).op(0x07, 2, 0, 0, -4);
        self.map(1, map).op(0x85, 0, 0, 0, MAP_LOOKUP).op(0x55, 0, 0, 2, 0).constant(XDP_DROP);
        self.op(0xbf, 9, 0, 0, 0).op(0x85, 0, 0, 0, CLOCK).op(0x79, 1, 9, 0, 0);
        self.op(0x3d, 0, 1, 2, 0).constant(XDP_DROP);
        // The later one of what was due, and now less the slack.
        self.op(0x17, 0, 0, 0, slack as i32).op(0x3d, 1, 0, 1, 0).op(0xbf, 1, 0, 0, 0);
        self.long(2, interval).op(0x0f, 1, 2, 0, 0).op(0x7b, 9, 1, 0, 0);
        self.op(0x79, 1, 9, 8, 0).op(0x07, 1, 0, 0, 1).op(0x7b, 9, 1, 8, 0).op(0xbf, 1, 6, 0, 0)
    }

    /// The next key, of 0 to `mask`, in register 3; context in 6, frame in 7.
    pub fn next_key(&mut self, keys: Keys, mask: u32) -> &mut Self {
        self.op(0xbf, 6, 1, 0, 0).op(0x61, 7, 1, 0, 0).op(0x61, 8, 1, 4, 0);
        // Two instructions further if the frame's end is at or behind what is read.
        self.op(0xbf, 2, 7, 0, 0).op(0x07, 2, 0, 0, READ).op(0x3d, 8, 2, 2, 0).constant(0);
        if keys == Keys::Kernel {
            self.op(0x85, 0, 0, 0, RANDOM).op(0xbf, 3, 0, 0, 0).op(0xbf, 9, 0, 0, 0);
            return self.op(0x54, 3, 0, 0, mask as i32);
        }
        self.op(0x79, 3, 7, 0, 0);
        match keys {
            Keys::Random => {
                self.long(4, MULTIPLIER).op(0x2f, 3, 4, 0, 0).long(4, INCREMENT).op(0x0f, 3, 4, 0, 0)
            }
            Keys::Rising | Keys::Kernel => self.op(0x07, 3, 0, 0, 1),
        };
        self.op(0x7b, 7, 3, 0, 0);
        if keys == Keys::Random {
            self.op(0x77, 3, 0, 0, UPPER);
        }
        self.op(0x54, 3, 0, 0, mask as i32)
    }

    /// Looks the key up in a hash, and reads what it finds.
    pub fn look_up(&mut self, map: &Map) -> &mut Self {
        self.op(0x63, 10, 3, -4, 0).op(0xbf, 2, 10, 0, 0).op(0x07, 2, 0, 0, -4);
        self.map(1, map).op(0x85, 0, 0, 0, MAP_LOOKUP);
        self.op(0x15, 0, 0, 1, 0).op(0x79, 0, 0, 0, 0)
    }

    /// Looks the key up in a trie as an IPv4 address that lies in the upper half of them.
    pub fn look_up_prefix(&mut self, map: &Map) -> &mut Self {
        self.op(0x44, 3, 0, 0, i32::MIN).op(0xdc, 3, 0, 0, 32);
        self.op(0x63, 10, 3, -4, 0).op(0x62, 10, 0, -8, 32).op(0xbf, 2, 10, 0, 0).op(0x07, 2, 0, 0, -8);
        self.map(1, map).op(0x85, 0, 0, 0, MAP_LOOKUP)
    }

    /// Puts the key into a map of 8-byte values, which may have it already.
    pub fn insert(&mut self, map: &Map) -> &mut Self {
        self.op(0x63, 10, 3, -4, 0).op(0x7a, 10, 0, -16, 1);
        self.op(0xbf, 2, 10, 0, 0).op(0x07, 2, 0, 0, -4).op(0xbf, 3, 10, 0, 0).op(0x07, 3, 0, 0, -16);
        self.op(0xb7, 4, 0, 0, 0).map(1, map).op(0x85, 0, 0, 0, MAP_UPDATE)
    }

    /// Makes the key one that a map of keys from 0 on does not hold.
    pub fn absent(&mut self) -> &mut Self {
        self.op(0x44, 3, 0, 0, 1 << 30)
    }

    /// Makes the key the frame's source: `base`, and the key's bits around bit 8, which stays 0. So each source lies in a /24
    /// with an even third byte, and whatever is listed in odd ones is near, but never hit.
    pub fn source(&mut self, base: u32) -> &mut Self {
        self.op(0xbf, 4, 3, 0, 0).op(0x77, 4, 0, 0, 8).op(0x67, 4, 0, 0, 9);
        self.op(0x57, 3, 0, 0, 0xff).op(0x4f, 3, 4, 0, 0).op(0x44, 3, 0, 0, base as i32);
        self.op(0xdc, 3, 0, 0, 32).op(0x63, 7, 3, SOURCE, 0)
    }

    /// After [`Code::source`] with [`Keys::Kernel`]: another source port, and both checksums right again. They are made for
    /// zeros in source address, source port, IPv4 identification and the lower half of the sequence number; the latter two
    /// take up the difference (RFC 1071), so the checksums themselves stay as they are.
    pub fn balance(&mut self) -> &mut Self {
        const IDENTIFICATION: i16 = 18;
        const PORT: i16 = 34;
        const SEQUENCE_LOW: i16 = 40;
        // The upper half of the random number is not in the key.
        self.op(0x77, 9, 0, 0, 16).op(0x6b, 7, 9, PORT, 0);
        let fold = |code: &mut Self, register: u8| {
            for _ in 0..2 {
                code.op(0xbf, 4, register, 0, 0).op(0x77, 4, 0, 0, 16).op(0x57, register, 0, 0, 0xffff);
                code.op(0x0f, register, 4, 0, 0);
            }
        };
        fold(self, 3);
        self.op(0xbf, 5, 3, 0, 0).op(0x0f, 5, 9, 0, 0);
        fold(self, 5);
        self.op(0xa7, 3, 0, 0, 0xffff).op(0x6b, 7, 3, IDENTIFICATION, 0);
        self.op(0xa7, 5, 0, 0, 0xffff).op(0x6b, 7, 5, SEQUENCE_LOW, 0)
    }

    /// Drops IPv4 packets from a /16, given by its two bytes, and passes the rest: the least that a program can do against a flood.
    pub fn drop_from(&mut self, [first, second]: [u8; 2]) -> &mut Self {
        self.op(0x61, 2, 1, 0, 0).op(0x61, 3, 1, 4, 0).op(0xbf, 4, 2, 0, 0).op(0x07, 4, 0, 0, READ);
        self.op(0x2d, 4, 3, 4, 0).op(0x69, 4, 2, SOURCE, 0);
        self.op(0x55, 4, 0, 2, i32::from(u16::from_le_bytes([first, second])));
        self.constant(XDP_DROP).constant(XDP_PASS)
    }

    /// Goes on with the program in `map`; returns 0 if there is none.
    pub fn call(&mut self, map: &Map) -> &mut Self {
        self.op(0xbf, 1, 6, 0, 0).map(2, map).op(0xb7, 3, 0, 0, 0).op(0x85, 0, 0, 0, TAIL_CALL).constant(0)
    }

    /// Sends the frame out of an interface.
    pub fn redirect(&mut self, interface: u32) -> &mut Self {
        self.op(0xb7, 1, 0, 0, interface as i32).op(0xb7, 2, 0, 0, 0);
        self.op(0x85, 0, 0, 0, REDIRECT).op(0x95, 0, 0, 0, 0)
    }
}

/// The address that [`Code::source`] makes of a key.
pub fn address(base: u32, key: u32) -> u32 {
    base | (key >> 8) << 9 | key & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_eight_bytes_of_the_right_order() {
        let mut code = Code::default();
        code.constant(2);
        assert_eq!(code.bytes(), [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(code.instructions(), 2);
        code.op(0x63, 10, 3, -4, 0);
        assert_eq!(code.bytes()[16..], [0x63, 0x3a, 0xfc, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn sources_leave_every_other_24_free() {
        assert_eq!(address(10 << 24, 0x1ff), 10 << 24 | 0x2ff);
        assert!((0..10_000).all(|key| address(10 << 24, key) & 0x100 == 0));
    }
}
