//! Which TLS version a client offers, told from the first segment of its ClientHello.
//!
//! Called by [`crate::verdict::decide`] for TCP data to protected ports, and by [`crate::flow`] for the first segment of a flow: most
//! hellos that offer old versions, and many others, are whole in one segment and one record. Stateless: a segment is judged only if it begins
//! like a ClientHello, `16 03 [00-04] .. ..  01 00 .. .. 03`, as far as it goes: a handshake record (RFC 8446 section 5.1)
//! that begins with a ClientHello shorter than 64 KiB (section 4) whose legacy version has the major number 3 (section 4.1.2). A
//! segment from the middle of a stream is ciphertext, or begins with a record of application data (type 0x17);
//! ciphertext looks like a ClientHello by chance with odds of 5/256 x 2^-40, about 2 in 10^14, and is dropped only if the
//! rest then contradicts itself or offers an old version. At a million such segments a second that is one in
//! more than a year, and it costs one connection.
//!
//! A segment that ends within these bytes is the beginning of a hello, which is charged like a whole one: else whoever sends
//! the first byte apart would not be limited. Of ciphertext in segments of one byte, 1 in 256 is charged so; none is
//! dropped within the limit.
//!
//! What goes on beyond the segment or beyond its first record is [`automaton`]'s to judge, unless the part at hand decides; so is
//! what seems to contradict itself, since here the work is bounded more closely.

pub mod automaton;
pub mod lists;
pub mod marks;

use crate::packet::Packet;

/// Type, legacy version and length of a TLS record, in bytes (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
/// Type and length of a handshake message, in bytes (RFC 8446 section 4).
const HANDSHAKE_HEADER: usize = 4;
/// Longest record that carries plaintext, in bytes (RFC 8446 section 5.1).
const RECORD_MAX: usize = 1 << 14;
/// Extensions that are followed. Browsers send fewer than 25; what sends more than this is refused, since the program's
/// work per packet must have a bound.
const EXTENSIONS: usize = 48;
/// Versions that are read from `supported_versions`. Clients list two to five; what lists more is refused.
const VERSIONS: usize = 32;
/// The number of the extension `supported_versions` (RFC 8446 section 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;
/// The newest version that counts in a list. Servers ignore what they do not know (RFC 8446 section 4.2.1), GREASE among it (RFC 8701:
/// 0x0a0a and above): who offers nothing else offers nothing.
const NEWEST: u16 = 0x0304;
/// The newest version that `legacy_version` can offer: TLS 1.3 is offered by the list alone (RFC 8446 section 4.2.1).
const NEWEST_LEGACY: u16 = 0x0303;

/// What a segment's data is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Does not begin like a ClientHello.
    Absent = 0,
    /// A ClientHello that offers the minimum or better.
    Accepted = 1,
    /// A ClientHello that offers nothing as good as the minimum.
    Refused = 2,
    /// A ClientHello that goes on elsewhere, and what is here does not decide.
    Incomplete = 3,
    /// A record or ClientHello that contradicts itself, or takes more steps than are made.
    Malformed = 4,
}

/// What was seen in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What its data is.
    pub hello: Hello,
    /// The hello's legacy version, if it was read; else 0.
    pub version: u16,
    /// Whether a list of versions stands in its place.
    pub listed: bool,
    /// Whether the hello is there to its end, in one record.
    pub complete: bool,
    /// Where in the frame what was read ends, once it is known what the hello offers. What is read in parts ([`automaton`]) is known no
    /// later.
    pub offset: u32,
}

impl Seen {
    /// As one number, for a function that the verifier checks by itself.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.hello as u64
            | (self.listed as u64) << 8
            | (self.complete as u64) << 9
            | (self.version as u64) << 16
            | (self.offset as u64) << 32
    }

    /// The opposite of [`Seen::pack`]; what has no number is malformed.
    #[inline(always)]
    pub const fn unpack(number: u64) -> Self {
        let hello = match number as u8 {
            0 => Hello::Absent,
            1 => Hello::Accepted,
            2 => Hello::Refused,
            3 => Hello::Incomplete,
            _ => Hello::Malformed,
        };
        let (listed, complete) = (number & 0x100 != 0, number & 0x200 != 0);
        Self { hello, version: (number >> 16) as u16, listed, complete, offset: (number >> 32) as u32 }
    }
}

/// Looks at TCP data from `start` to `end`; `minimum` is the lowest acceptable version as on the wire.
#[inline(always)]
pub fn inspect<P: Packet + ?Sized>(packet: &P, start: usize, end: usize, minimum: u16) -> Seen {
    let mut walk =
        Walk { offset: start, hello_end: 0, visible: end, value: 0, legacy: 0, listed: false, offered: 0 };
    let ended = match walk.begin(packet) {
        Ok(()) => walk.run(packet, minimum),
        ended => ended,
    };
    let hello = match ended {
        Ok(()) if walk.offered >= minimum => Hello::Accepted,
        Ok(()) => Hello::Refused,
        Err(End::Absent) => Hello::Absent,
        Err(End::Incomplete) => Hello::Incomplete,
        Err(End::Malformed) => Hello::Malformed,
    };
    let complete = walk.hello_end != 0 && walk.hello_end == walk.visible;
    Seen { hello, version: walk.legacy, listed: walk.listed, complete, offset: walk.offset as u32 }
}

/// Why a walk ended before it knew the version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Absent,
    Incomplete,
    Malformed,
}

/// A position in a ClientHello (RFC 8446 section 4.1.2). What is read goes into fields, and results carry nothing: see
/// [`crate::headers`] for the reason.
struct Walk {
    offset: usize,
    /// Where the hello says that it ends.
    hello_end: usize,
    /// Where what can be seen of it ends: with the segment, with its first record, or with the hello.
    visible: usize,
    /// The number that was read last.
    value: u16,
    /// `legacy_version`.
    legacy: u16,
    /// Whether a list of versions has been found.
    listed: bool,
    /// The highest version offered so far.
    offered: u16,
}

impl Walk {
    /// Reads record and handshake headers, up to and with the legacy version.
    #[inline(always)]
    fn begin<P: Packet + ?Sized>(&mut self, packet: &P) -> Result<(), End> {
        let body = self.offset + RECORD_HEADER;
        let end = self.visible;
        if body > end {
            return cut_record(packet, self.offset, end);
        }
        let Some(record) = packet.data::<RECORD_HEADER>(self.offset) else { return Err(End::Absent) };
        if record[0] != 0x16 || record[1] != 3 || record[2] > 4 {
            return Err(End::Absent);
        }
        let length = u16::from_be_bytes([record[3], record[4]]) as usize;
        if length == 0 {
            return after_empty_record(packet, body, end);
        }
        if body == end {
            return Err(End::Incomplete);
        }
        if packet.data::<1>(body) != Some([1]) {
            return Err(End::Absent);
        }
        let legacy = body + HANDSHAKE_HEADER;
        if legacy + 2 > end || length < HANDSHAKE_HEADER + 2 {
            // The handshake header itself goes on in the next segment, or in the next record.
            let denied =
                |at: usize, byte: u8| at < end && at - body < length && packet.data(at) != Some([byte]);
            return Err(if denied(body + 1, 0) || denied(legacy, 3) { End::Absent } else { End::Incomplete });
        }
        let Some([high, upper, lower, major, minor]) = packet.data::<5>(body + 1) else {
            return Err(End::Absent);
        };
        if high != 0 || major != 3 {
            return Err(End::Absent);
        }
        if length > RECORD_MAX {
            return Err(End::Malformed);
        }
        self.legacy = u16::from_be_bytes([major, minor]);
        self.offered = offered_by_legacy(self.legacy);
        self.offset = legacy + 2;
        self.hello_end = legacy + u16::from_be_bytes([upper, lower]) as usize;
        self.visible = min(min(body + length, end), self.hello_end);
        Ok(())
    }

    /// Reads the rest; `Ok` once `offered` is known.
    #[inline(always)]
    fn run<P: Packet + ?Sized>(&mut self, packet: &P, minimum: u16) -> Result<(), End> {
        self.skip(packet, 32)?; // random
        self.read_u8(packet)?;
        if self.value > 32 {
            return Err(End::Malformed);
        }
        self.skip(packet, self.value)?; // legacy session id
        self.read_u16(packet)?;
        if self.value == 0 || self.value & 1 != 0 {
            return Err(End::Malformed);
        }
        self.skip(packet, self.value)?; // cipher suites
        self.read_u8(packet)?;
        if self.value == 0 {
            return Err(End::Malformed);
        }
        self.skip(packet, self.value)?; // compression methods
        if self.offset == self.hello_end {
            // Before TLS 1.3 extensions were optional (RFC 5246 section 7.4.1.2).
            return Ok(());
        }
        self.read_u16(packet)?;
        if self.offset + self.value as usize != self.hello_end {
            return Err(End::Malformed);
        }
        let mut count = 0;
        while count < EXTENSIONS {
            if self.offset == self.hello_end {
                return Ok(());
            }
            self.read_u16(packet)?;
            let kind = self.value;
            self.read_u16(packet)?;
            if self.offset + self.value as usize > self.hello_end {
                return Err(End::Malformed);
            }
            if kind == SUPPORTED_VERSIONS {
                return self.read_versions(packet, minimum);
            }
            self.skip(packet, self.value)?;
            count += 1;
        }
        if self.offset == self.hello_end { Ok(()) } else { Err(End::Malformed) }
    }

    /// Reads the list that replaces the legacy version (RFC 8446 section 4.2.1); `value` is the extension's length.
    #[inline(always)]
    fn read_versions<P: Packet + ?Sized>(&mut self, packet: &P, minimum: u16) -> Result<(), End> {
        let length = self.value;
        self.read_u8(packet)?;
        if self.value < 2 || self.value & 1 != 0 || self.value + 1 != length {
            return Err(End::Malformed);
        }
        self.listed = true;
        let list_end = self.offset + self.value as usize;
        self.offered = 0;
        let mut count = 0;
        while count < VERSIONS {
            if self.offset == list_end {
                return Ok(());
            }
            self.read_u16(packet)?;
            if self.value <= NEWEST && self.value > self.offered {
                self.offered = self.value;
            }
            // No later entry can take back what has been offered.
            if self.offered >= minimum {
                return Ok(());
            }
            count += 1;
        }
        if self.offset == list_end { Ok(()) } else { Err(End::Malformed) }
    }

    #[inline(always)]
    fn read_u8<P: Packet + ?Sized>(&mut self, packet: &P) -> Result<(), End> {
        let offset = self.offset;
        self.skip(packet, 1)?;
        let Some([value]) = packet.data::<1>(offset) else { return Err(End::Incomplete) };
        self.value = value as u16;
        Ok(())
    }

    #[inline(always)]
    fn read_u16<P: Packet + ?Sized>(&mut self, packet: &P) -> Result<(), End> {
        let offset = self.offset;
        self.skip(packet, 2)?;
        let Some(value) = packet.data::<2>(offset) else { return Err(End::Incomplete) };
        self.value = u16::from_be_bytes(value);
        Ok(())
    }

    /// Steps over `length` bytes, which must be in sight.
    #[inline(always)]
    fn skip<P: Packet + ?Sized>(&mut self, packet: &P, length: u16) -> Result<(), End> {
        let next = self.offset + length as usize;
        if next > self.visible {
            // Beyond the hello's own end nothing can follow elsewhere.
            return Err(if next > self.hello_end { End::Malformed } else { End::Incomplete });
        }
        self.offset = packet.forget(next);
        Ok(())
    }
}

/// Data that ends inside the header of its first record.
#[inline(always)]
fn cut_record<P: Packet + ?Sized>(packet: &P, start: usize, end: usize) -> Result<(), End> {
    if packet.data(start) != Some([0x16]) {
        return Err(End::Absent);
    }
    if start + 1 < end && packet.data(start + 1) != Some([3]) {
        return Err(End::Absent);
    }
    if start + 2 < end && !matches!(packet.data(start + 2), Some([0..=4])) {
        return Err(End::Absent);
    }
    Err(End::Incomplete)
}

/// An empty handshake record is forbidden (RFC 8446 section 5.1). Five bytes are too few to tell it from ciphertext, so
/// it counts only if nothing follows, or another record of the handshake.
#[inline(always)]
fn after_empty_record<P: Packet + ?Sized>(packet: &P, body: usize, end: usize) -> Result<(), End> {
    if body == end {
        return Err(End::Malformed);
    }
    if body + 3 > end {
        return Err(End::Absent);
    }
    match packet.data::<3>(body) {
        Some([0x16, 3, 0..=4]) => Err(End::Malformed),
        Some(_) | None => Err(End::Absent),
    }
}

/// What a hello without a list offers.
#[inline(always)]
const fn offered_by_legacy(version: u16) -> u16 {
    if version > NEWEST_LEGACY { NEWEST_LEGACY } else { version }
}

#[inline(always)]
const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}
