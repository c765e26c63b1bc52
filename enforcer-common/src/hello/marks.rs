//! What a ClientHello tells of its sender besides its versions: the server name that it asks for, and a fingerprint of what it offers.
//!
//! [`super::automaton`] gathers it byte by byte, whatever the segments, and only where a list asks for it; user space has the same walk by
//! [`read`]. Nothing of the hello is kept, only numbers: a hash for each label of the name, and sums of hashes of what is offered.
//!
//! **Names** are compared by keyed hashes of 64 bits: one for each of the last [`LABELS`] labels, folded from the last one to the first, so that each
//! step gives the hash of a suffix. Upper case is lower case. The key is the settings' seed, so nobody can make two names meet.
//!
//! **The fingerprint** is what JA4 looks at: the newest version, the cipher suites and the extensions in any order, the signature
//! algorithms in their order, the first protocol of ALPN, whether there is a server name; all without GREASE (RFC 8701). The extensions for the
//! server's name and for protocols count only as such, so that the fingerprint is the same at every server. It has no key: it is
//! written into configurations. Extensions that come and go with a client's connections (padding, resumption, a retry) do not count either. Whoever wants another one changes his hello.

use super::automaton::{self, Parser, Progress};
use crate::{limiter::mix, packet::Packet};

/// Labels of a name that are kept, from its end: a power of two. Names of more are compared by their last ones.
pub const LABELS: usize = 8;

/// Extensions that are looked into, or left out of the sum (RFC 6066 section 3, RFC 8446 section 4.2, RFC 7301).
pub(super) const SERVER_NAME: u32 = 0;
pub(super) const SIGNATURE_ALGORITHMS: u32 = 13;
pub(super) const ALPN: u32 = 16;

/// Where sums and folds begin, so that equal numbers in different places differ. Digits of pi: nothing up anybody's sleeve.
mod domain {
    pub(super) const SUITE: u64 = 0x243f_6a88_85a3_08d3;
    pub(super) const EXTENSION: u64 = 0x1319_8a2e_0370_7344;
    pub(super) const SIGNATURE: u64 = 0xa409_3822_299f_31d0;
    pub(super) const PROTOCOL: u64 = 0x082e_fa98_ec4e_6c89;
    pub(super) const FINGERPRINT: u64 = 0x4528_21e6_38d0_1377;
    pub(super) const LABEL: u64 = 0xbe54_66cf_34e9_0c6c;
    pub(super) const NAME: u64 = 0xc0ac_29b7_c97c_50dd;
}

/// What has been gathered of a hello. Lies in map memory, like the parser that it is a part of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The hashes of the name's last labels: label `n` lies at `n` modulo [`LABELS`].
    labels: [u64; LABELS],
    /// The hash so far of the label that is being read.
    label: u64,
    /// The key of names.
    key: u64,
    /// The sum over cipher suites.
    suites: u64,
    /// The sum over extensions.
    extensions: u64,
    /// The hash of the signature algorithms.
    signatures: u64,
    /// The hash of the first protocol.
    protocol: u64,
    /// How many labels the name has so far.
    count: u32,
    /// The newest version that is offered.
    version: u16,
    /// How many bytes the label that is being read has, as far as somebody asks.
    length: u8,
    /// Whether there is an extension with a server name.
    named: u8,
}

const _: () = assert!(size_of::<Marks>() == 120 && LABELS.is_power_of_two());

impl Marks {
    /// Nothing has been seen.
    pub const NONE: Self = Self {
        labels: [0; LABELS],
        label: 0,
        key: 0,
        suites: 0,
        extensions: 0,
        signatures: 0,
        protocol: 0,
        count: 0,
        version: 0,
        length: 0,
        named: 0,
    };

    /// Begins anew. What labels there were is not looked at without their number.
    #[inline(always)]
    pub(super) fn reset(&mut self, key: u64) {
        self.label = mix(key ^ domain::LABEL);
        self.key = key;
        self.suites = domain::SUITE;
        self.extensions = domain::EXTENSION;
        self.signatures = domain::SIGNATURE;
        self.protocol = 0;
        self.count = 0;
        self.version = 0;
        self.length = 0;
        self.named = 0;
    }

    /// A cipher suite.
    #[inline(always)]
    pub(super) fn suite(&mut self, number: u32) {
        if !is_grease(number) {
            self.suites = self.suites.wrapping_add(mix(domain::SUITE ^ number as u64));
        }
    }

    /// The head of an extension.
    #[inline(always)]
    pub(super) fn extension(&mut self, kind: u32) {
        if kind == SERVER_NAME {
            self.named = 1;
        } else if kind != ALPN && !varies(kind) && !is_grease(kind) {
            self.extensions = self.extensions.wrapping_add(mix(domain::EXTENSION ^ kind as u64));
        }
    }

    /// A signature algorithm.
    #[inline(always)]
    pub(super) fn signature(&mut self, number: u32) {
        if !is_grease(number) {
            self.signatures = mix(self.signatures ^ number as u64);
        }
    }

    /// The list of protocols begins.
    #[inline(always)]
    pub(super) fn protocols(&mut self) {
        self.protocol = domain::PROTOCOL;
    }

    /// A byte of the first protocol.
    #[inline(always)]
    pub(super) fn protocol_byte(&mut self, byte: u32) {
        self.protocol = mix(self.protocol ^ byte as u64);
    }

    /// The newest version is known.
    #[inline(always)]
    pub(super) fn offered(&mut self, version: u16) {
        self.version = version;
    }

    /// A name begins: if there is a second one, it counts.
    #[inline(always)]
    pub(super) fn name(&mut self) {
        self.count = 0;
        self.begin_label();
    }

    #[inline(always)]
    fn begin_label(&mut self) {
        self.label = mix(self.key ^ domain::LABEL);
        self.length = 0;
    }

    /// A byte of the name.
    #[inline(always)]
    pub(super) fn name_byte(&mut self, byte: u32) {
        if byte == b'.' as u32 {
            self.end_label();
            return;
        }
        let mut folded = byte;
        if byte.wrapping_sub(b'A' as u32) < 26 {
            folded |= 0x20;
        }
        self.label = mix(self.label ^ folded as u64);
        self.length = 1;
    }

    #[inline(always)]
    fn end_label(&mut self) {
        self.labels[self.count as usize & (LABELS - 1)] = self.label;
        self.count = self.count.wrapping_add(1);
        self.begin_label();
    }

    /// The name ends. A dot at its end means nothing.
    #[inline(always)]
    pub(super) fn end_name(&mut self) {
        if self.length != 0 {
            self.end_label();
        }
    }

    /// How many labels the name has; 0: there is none.
    #[inline(always)]
    pub const fn labels(&self) -> u32 {
        self.count
    }

    /// Before the first label, see [`Marks::wider`].
    #[inline(always)]
    pub const fn root(&self) -> u64 {
        mix(self.key ^ domain::NAME)
    }

    /// The hash of the suffix of `taken + 1` labels, from that of the one with `taken` labels, which the name has to exceed.
    #[inline(always)]
    pub const fn wider(&self, suffix: u64, taken: u32) -> u64 {
        let place = self.count.wrapping_sub(1).wrapping_sub(taken);
        mix(suffix ^ self.labels[place as usize & (LABELS - 1)])
    }

    /// The fingerprint.
    #[inline(always)]
    pub const fn fingerprint(&self) -> u64 {
        let mut hash = mix(domain::FINGERPRINT ^ (self.version as u64) << 8 ^ self.named as u64);
        hash = mix(hash ^ self.suites);
        hash = mix(hash ^ self.extensions);
        hash = mix(hash ^ self.signatures);
        mix(hash ^ self.protocol)
    }
}

/// Extensions that a client sends in one connection and not in another: padding (RFC 7685), and the pre-shared key, early data and cookie of
/// RFC 8446 section 4.2.
#[inline(always)]
const fn varies(kind: u32) -> bool {
    matches!(kind, 21 | 41 | 42 | 44)
}

/// RFC 8701 section 2: 0x0a0a, 0x1a1a, ... 0xfafa.
#[inline(always)]
const fn is_grease(number: u32) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// The marks of a ClientHello that begins the bytes of a connection, in whatever records, if it is there to its end.
pub fn read<P: Packet>(bytes: &P, key: u64) -> Option<Marks> {
    let mut parser = Parser::default();
    parser.reset();
    parser.begin_marks(key);
    parser.end = u32::try_from(bytes.length()).ok()?;
    automaton::run(&mut parser, bytes);
    (parser.progress() == Progress::Accepted).then_some(parser.marks)
}

/// The hash of a name, as [`Marks::wider`] gives it. [`None`]: it has no label, or more than are compared.
pub fn of_name(name: &[u8], key: u64) -> Option<u64> {
    let mut marks = Marks::NONE;
    marks.reset(key);
    for byte in name {
        marks.name_byte(*byte as u32);
    }
    marks.end_name();
    if marks.count == 0 || marks.count as usize > LABELS {
        return None;
    }
    Some((0..marks.count).fold(marks.root(), |suffix, taken| marks.wider(suffix, taken)))
}
