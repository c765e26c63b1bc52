//! A segment as the flow table sees it: whose it is, where it lies, and how a flow is taken up with it.

use super::slot::Phase;
use crate::{
    headers::{Headers, Link},
    limiter::mix,
};

/// The two ends of a connection, host order; of an IPv4 address the first half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client's address.
    pub source: [u64; 2],
    /// The server's address.
    pub destination: [u64; 2],
    /// The client's port in the upper half, the server's in the lower.
    pub ports: u32,
    /// 4 or 6.
    pub family: u32,
}

impl Ends {
    /// Those that the headers of a TCP segment name.
    #[inline(always)]
    pub const fn of(headers: &Headers) -> Self {
        Self {
            source: headers.source,
            destination: headers.destination,
            ports: (headers.source_port as u32) << 16 | headers.port as u32,
            family: if matches!(headers.link, Link::Ipv4) { 4 } else { 6 },
        }
    }

    /// Equality, word by word: of a comparison of arrays LLVM would make a call.
    #[inline(always)]
    pub(super) const fn are(&self, other: &Self) -> bool {
        self.source[0] == other.source[0]
            && self.source[1] == other.source[1]
            && self.destination[0] == other.destination[0]
            && self.destination[1] == other.destination[1]
            && self.ports == other.ports
            && self.family == other.family
    }

    /// Where a flow lies: its bucket in the lower half, its tag in the upper.
    #[inline(always)]
    pub const fn hash(&self, seed: u64) -> u64 {
        let ports = (self.family as u64) << 32 | self.ports as u64;
        let mut hash = mix(self.source[0] ^ seed);
        hash = mix(hash ^ self.destination[0].rotate_left(32) ^ ports.rotate_left(16));
        if self.family == 6 {
            hash = mix(hash ^ self.source[1]);
            hash = mix(hash ^ self.destination[1]);
        }
        hash
    }
}

/// A segment, as far as a flow is concerned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Whose it is.
    pub ends: Ends,
    /// See [`Ends::hash`].
    pub hash: u64,
    /// Instant of `CLOCK_MONOTONIC`, in nanoseconds.
    pub now: u64,
    /// Sequence number of its first byte of data; a SYN stands one in front of it.
    pub sequence: u32,
    /// Where in the frame its data begins.
    pub offset: u32,
    /// Where in the frame its data ends.
    pub end: u32,
    /// Lowest acceptable version as on the wire.
    pub minimum: u16,
    /// Whether a hello that begins here is to be read to its end; else 0.
    pub whole: u16,
    /// The key of names, see [`crate::hello::marks::Marks`].
    pub key: u64,
    /// Whether it is a SYN; else 0.
    pub opens: u64,
}

impl Segment {
    /// None yet.
    pub const NONE: Self = Self {
        ends: Ends { source: [0; 2], destination: [0; 2], ports: 0, family: 0 },
        hash: 0,
        now: 0,
        sequence: 0,
        offset: 0,
        end: 0,
        minimum: 0,
        whole: 0,
        key: 0,
        opens: 0,
    };
}

/// How a flow is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How far it is.
    pub phase: Phase,
    /// Whether it begins here for sure, since this is its SYN.
    pub begins: bool,
    /// The next sequence number that is to be inspected; of a refused flow, the one that the server expects.
    pub next: u32,
    /// Of a refused flow: the sequence number behind the answer that the client is given. Of one that begins: [`Opening::ANEW`],
    /// [`Opening::FRESH`], or 0.
    pub value: u32,
}

impl Opening {
    /// What has just been inspected did not pass after all, and is to be inspected anew.
    pub const ANEW: u32 = 1;
    /// The server has no connection with these ends: what is known of earlier ones has no meaning any more.
    pub const FRESH: u32 = 2;

    /// As numbers, for a function that the verifier checks by itself.
    #[inline(always)]
    pub const fn pack(&self) -> (u32, u64) {
        let phase = self.phase as u32 | (self.begins as u32) << 8;
        (phase, (self.next as u64) << 32 | self.value as u64)
    }

    /// The opposite of [`Opening::pack`].
    #[inline(always)]
    pub const fn unpack(phase: u32, numbers: u64) -> Self {
        Self {
            phase: Phase::from_number(phase as u8),
            begins: phase & 0x100 != 0,
            next: (numbers >> 32) as u32,
            value: numbers as u32,
        }
    }
}
