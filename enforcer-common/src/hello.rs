//! Which TLS version a client offers, told from the first segment of its ClientHello.
//!
//! Called by [`crate::verdict::decide`] for TCP data to protected ports. Stateless: a segment is judged only if it begins
//! like a ClientHello, `16 03 [00-04] .. ..  01 00 .. .. 03`: a handshake record (RFC 8446 section 5.1) that begins with
//! a ClientHello shorter than 64 KiB (section 4) whose legacy version has the major number 3 (section 4.1.2). A
//! segment from the middle of a stream is ciphertext, or begins with a record of application data (type 0x17);
//! ciphertext looks like a ClientHello by chance with odds of 5/256 x 2^-40, about 2 in 10^14, and is dropped only if the
//! rest then contradicts itself or offers an old version. At a million such segments a second that is one in
//! more than a year, and it costs one connection.
//!
//! What goes on beyond the segment or beyond its first record is the daemon's to judge, unless the part at hand decides.

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

/// What a segment's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Does not begin like a ClientHello.
    Absent,
    /// A ClientHello that offers at most this version, as on the wire.
    Offers(u16),
    /// A ClientHello that goes on elsewhere, and what is here does not decide.
    Incomplete,
    /// A record or ClientHello that contradicts itself, or takes more steps than are made.
    Malformed,
}

/// Looks at TCP data from `start` to `end`. `minimum` is the lowest acceptable version: once a list that is cut off has
/// offered it, the rest of the list cannot change the verdict.
#[inline(always)]
pub fn inspect<P: Packet>(packet: &P, start: usize, end: usize, minimum: u16) -> Hello {
    match begin(packet, start, end) {
        Ok(walk) => match walk.run(packet, minimum) {
            Ok(version) => Hello::Offers(version),
            Err(end) => end,
        },
        Err(end) => end,
    }
}

/// Reads record and handshake headers; `Ok` is the position behind the legacy version.
#[inline(always)]
fn begin<P: Packet>(packet: &P, start: usize, end: usize) -> Result<Walk, Hello> {
    if start + RECORD_HEADER > end {
        return Err(Hello::Absent);
    }
    let Some(record) = packet.bytes::<RECORD_HEADER>(start) else { return Err(Hello::Absent) };
    if record[0] != 0x16 || record[1] != 3 || record[2] > 4 {
        return Err(Hello::Absent);
    }
    let length = u16::from_be_bytes([record[3], record[4]]) as usize;
    let body = start + RECORD_HEADER;
    if length == 0 {
        return Err(after_empty_record(packet, body, end));
    }
    if body == end {
        return Err(Hello::Incomplete);
    }
    if packet.u8(body) != Some(1) {
        return Err(Hello::Absent);
    }
    if length < HANDSHAKE_HEADER + 2 {
        // The handshake header itself goes on in the next record.
        return Err(Hello::Incomplete);
    }
    if body + HANDSHAKE_HEADER + 2 > end {
        return Err(Hello::Incomplete);
    }
    let Some([high, upper, lower, major, minor]) = packet.bytes::<5>(body + 1) else { return Err(Hello::Absent) };
    if high != 0 || major != 3 {
        return Err(Hello::Absent);
    }
    if length > RECORD_MAX {
        return Err(Hello::Malformed);
    }
    let hello_end = body + HANDSHAKE_HEADER + u16::from_be_bytes([upper, lower]) as usize;
    let record_end = body + length;
    Ok(Walk {
        offset: body + HANDSHAKE_HEADER + 2,
        hello_end,
        visible: min(min(record_end, end), hello_end),
        legacy: u16::from_be_bytes([major, minor]),
    })
}

/// An empty handshake record is forbidden (RFC 8446 section 5.1). Five bytes are too few to tell it from ciphertext, so
/// it counts only if nothing follows, or another record of the handshake.
#[inline(always)]
fn after_empty_record<P: Packet>(packet: &P, body: usize, end: usize) -> Hello {
    if body == end {
        return Hello::Malformed;
    }
    if body + 3 > end {
        return Hello::Absent;
    }
    match packet.bytes::<3>(body) {
        Some([0x16, 3, 0..=4]) => Hello::Malformed,
        Some(_) | None => Hello::Absent,
    }
}

#[inline(always)]
const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// A position in a ClientHello (RFC 8446 section 4.1.2). Errors say how the walk ended.
struct Walk {
    offset: usize,
    /// Where the hello says that it ends.
    hello_end: usize,
    /// Where what can be seen of it ends: with the segment, with its first record, or with the hello.
    visible: usize,
    legacy: u16,
}

impl Walk {
    #[inline(always)]
    fn run<P: Packet>(mut self, packet: &P, minimum: u16) -> Result<u16, Hello> {
        self.skip(32)?; // random
        let session = self.u8(packet)?;
        if session > 32 {
            return Err(Hello::Malformed);
        }
        self.skip(session as usize)?;
        let suites = self.u16(packet)?;
        if suites == 0 || suites & 1 != 0 {
            return Err(Hello::Malformed);
        }
        self.skip(suites as usize)?;
        let compressions = self.u8(packet)?;
        if compressions == 0 {
            return Err(Hello::Malformed);
        }
        self.skip(compressions as usize)?;
        if self.offset == self.hello_end {
            // Before TLS 1.3 extensions were optional (RFC 5246 section 7.4.1.2).
            return Ok(self.legacy);
        }
        let extensions = self.u16(packet)?;
        if self.offset + extensions as usize != self.hello_end {
            return Err(Hello::Malformed);
        }
        self.extensions(packet, minimum)
    }

    #[inline(always)]
    fn extensions<P: Packet>(mut self, packet: &P, minimum: u16) -> Result<u16, Hello> {
        let mut count = 0;
        while count < EXTENSIONS {
            if self.offset == self.hello_end {
                return Ok(self.legacy);
            }
            let kind = self.u16(packet)?;
            let length = self.u16(packet)?;
            if self.offset + length as usize > self.hello_end {
                return Err(Hello::Malformed);
            }
            if kind == SUPPORTED_VERSIONS {
                return self.versions(packet, length, minimum);
            }
            self.skip(length as usize)?;
            count += 1;
        }
        if self.offset == self.hello_end { Ok(self.legacy) } else { Err(Hello::Malformed) }
    }

    /// The highest version of the list that is not GREASE.
    #[inline(always)]
    fn versions<P: Packet>(mut self, packet: &P, length: u16, minimum: u16) -> Result<u16, Hello> {
        let listed = self.u8(packet)?;
        if listed < 2 || listed & 1 != 0 || listed as u16 + 1 != length {
            return Err(Hello::Malformed);
        }
        let list_end = self.offset + listed as usize;
        let mut highest = 0;
        let mut count = 0;
        while count < VERSIONS {
            if self.offset == list_end {
                return Ok(highest);
            }
            let version = match self.u16(packet) {
                Ok(version) => version,
                Err(_) if highest >= minimum => return Ok(highest),
                Err(end) => return Err(end),
            };
            // GREASE values have the form 0x?A?A with equal digits (RFC 8701 section 2).
            if version & 0x0f0f != 0x0a0a && version > highest {
                highest = version;
            }
            count += 1;
        }
        if self.offset == list_end { Ok(highest) } else { Err(Hello::Malformed) }
    }

    #[inline(always)]
    fn u8<P: Packet>(&mut self, packet: &P) -> Result<u8, Hello> {
        let offset = self.advance(1)?;
        packet.u8(offset).ok_or(Hello::Incomplete)
    }

    #[inline(always)]
    fn u16<P: Packet>(&mut self, packet: &P) -> Result<u16, Hello> {
        let offset = self.advance(2)?;
        packet.u16(offset).ok_or(Hello::Incomplete)
    }

    /// Claims the next `length` bytes, which must be visible; answers where they begin.
    #[inline(always)]
    fn advance(&mut self, length: usize) -> Result<usize, Hello> {
        let offset = self.offset;
        if offset + length > self.visible {
            return Err(self.end_of_sight(offset + length));
        }
        self.offset = offset + length;
        Ok(offset)
    }

    /// Steps over `length` bytes of which nothing is asked but that the hello has them.
    #[inline(always)]
    fn skip(&mut self, length: usize) -> Result<(), Hello> {
        self.advance(length).map(|_| ())
    }

    /// Why bytes up to `needed` cannot be seen: the hello contradicts itself, or it goes on elsewhere.
    #[inline(always)]
    fn end_of_sight(&self, needed: usize) -> Hello {
        if needed > self.hello_end { Hello::Malformed } else { Hello::Incomplete }
    }
}
