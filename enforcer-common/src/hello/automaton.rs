//! Which TLS version a client offers, told from a ClientHello that comes in any number of segments and records.
//!
//! Called by [`crate::flow`] where [`super::inspect`] has seen no end, and where a list asks for more than versions: then it goes on to the
//! hello's end and gathers [`Marks`]. An automaton of 56 bytes, and of those, that keeps no payload: [`step`] reads one byte, one field, one
//! record header or one stretch that may be skipped. The program repeats it by `bpf_loop`, everybody else in
//! a loop; it never looks back, allocates or knows where a segment came from.
//!
//! A record's header has an accumulator of its own, so the borders of records and of segments may fall anywhere. Here a
//! connection's first bytes are known to be that: what is no hello is said to be none, and nothing depends on how likely
//! bytes look like one.

mod field;

use self::field::width;
use super::{
    NEWEST, SUPPORTED_VERSIONS,
    marks::{ALPN, Marks, SERVER_NAME, SIGNATURE_ALGORITHMS},
    offered_by_legacy,
};
use crate::packet::Packet;

/// Steps per connection. The longest hellos of browsers, with post-quantum key shares, take about 150; what takes more than this (a
/// hello in thousands of records, or one that is repeated dozens of times) has no honest sender, and the program's work per connection
/// must have a bound.
pub const STEPS: u16 = 4096;
/// Longest record, in bytes: 2^14 of plaintext, and what protection may add to it (RFC 8446 section 5.2). Plaintext has no such
/// addition, but servers check no closer.
const RECORD_MAX: u32 = (1 << 14) + 2048;
/// Type, version and length of a record, in bytes.
const RECORD_HEADER: u8 = 5;
/// Bytes of a hello's random number.
const RANDOM: u32 = 32;

/// Where a parse stands.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The hello goes on in the next segment.
    More = 0,
    /// It offers the minimum or better.
    Accepted = 1,
    /// It offers nothing as good as the minimum.
    Refused = 2,
    /// It contradicts itself, or takes more steps than are made.
    Malformed = 3,
    /// The connection does not begin with a ClientHello.
    NotHello = 4,
}

impl Progress {
    /// The outcome with this number; what has no number is malformed.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::More,
            1 => Self::Accepted,
            2 => Self::Refused,
            4 => Self::NotHello,
            _ => Self::Malformed,
        }
    }
}

/// Everything that is known of a hello between two segments. Lies in map memory, so the verifier knows nothing of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parser {
    /// The bytes so far of a record's header, the last one lowest.
    record: u64,
    /// The bytes so far of the field, the last one lowest.
    value: u32,
    /// Bytes to be skipped before the field begins.
    skip: u32,
    /// Bytes of the record that are still to come; 0: its header is.
    record_left: u32,
    /// Bytes of the message that are still to come.
    hello_left: u32,
    /// Bytes of the list that is being read that are still to come.
    list_left: u32,
    /// Where in the frame the next byte lies.
    pub offset: u32,
    /// Where in the frame the data ends.
    pub end: u32,
    /// Steps so far.
    steps: u16,
    /// Lowest acceptable version as on the wire.
    pub minimum: u16,
    /// `legacy_version`, once it is known; else 0.
    pub legacy: u16,
    /// The highest version offered so far.
    offered: u16,
    /// See [`field`].
    field: u8,
    /// Bytes in `value`.
    have: u8,
    /// Bytes in `record`.
    record_have: u8,
    /// A [`Progress`] by number.
    progress: u8,
    /// Whether a whole record header has been seen.
    begun: u8,
    /// Whether a list of versions stands in place of the legacy version.
    pub listed: u8,
    /// Whether the hello is read to its end, and marks are gathered.
    pub whole: u8,
    reserved: u8,
    /// Bytes of the message behind the extension that is being read.
    behind: u32,
    /// What is gathered; of no meaning unless `whole`.
    pub marks: Marks,
}

const _: () = assert!(size_of::<Parser>() == 56 + size_of::<Marks>());

impl Parser {
    /// Begins anew.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.record = 0;
        self.value = 0;
        self.skip = 0;
        self.record_left = 0;
        self.hello_left = 0;
        self.list_left = 0;
        self.steps = 0;
        self.legacy = 0;
        self.offered = 0;
        self.field = field::HANDSHAKE;
        self.have = 0;
        self.record_have = 0;
        self.progress = Progress::More as u8;
        self.begun = 0;
        self.listed = 0;
        self.whole = 0;
    }

    /// From the first byte on, gathers marks as well. `key` is that of names.
    #[inline(always)]
    pub fn begin_marks(&mut self, key: u64) {
        self.whole = 1;
        self.marks.reset(key);
    }

    /// Where the parse stands.
    #[inline(always)]
    pub const fn progress(&self) -> Progress {
        Progress::from_number(self.progress)
    }

    /// Ends the parse.
    #[inline(always)]
    fn finish(&mut self, progress: Progress) -> bool {
        self.progress = progress as u8;
        true
    }

    /// Ends it by what has been offered.
    #[inline(always)]
    fn judge(&mut self) -> bool {
        let enough = self.offered >= self.minimum;
        self.marks.offered(self.offered);
        self.finish(if enough { Progress::Accepted } else { Progress::Refused })
    }

    /// Goes on to a field behind `skip` bytes, if the message has room for both.
    #[inline(always)]
    fn expect(&mut self, field: u8, skip: u32) -> bool {
        if skip + width(field) as u32 > self.hello_left {
            return self.finish(Progress::Malformed);
        }
        self.field = field;
        self.skip = skip;
        false
    }

    /// Bytes of the extension that are still to come.
    #[inline(always)]
    const fn extension_left(&self) -> u32 {
        self.hello_left.wrapping_sub(self.behind)
    }

    /// What is left of the extension does not matter.
    #[inline(always)]
    fn leave_extension(&mut self) -> bool {
        if self.behind == 0 {
            return self.judge();
        }
        self.expect(field::EXTENSION, self.extension_left())
    }

    /// Goes on to the entries of a list of `length` bytes in the extension, or leaves it: what contradicts itself there is left to the server.
    #[inline(always)]
    fn enter_list(&mut self, field: u8, length: u32) -> bool {
        if length == 0 || length > self.extension_left() {
            return self.leave_extension();
        }
        self.list_left = length;
        self.expect(field, 0)
    }

    /// An entry of such a list has been read.
    #[inline(always)]
    fn leave_entry(&mut self) -> bool {
        let width = width(self.field) as u32;
        self.list_left = self.list_left.wrapping_sub(width);
        if self.list_left < width {
            return self.leave_extension();
        }
        self.expect(self.field, 0)
    }
}

/// Reads whatever of the data is there, in plain memory.
pub fn run<P: Packet>(parser: &mut Parser, packet: &P) {
    while !step(parser, packet) {}
}

/// Makes one step; `true`: no further one can be made with the data at hand.
#[inline(always)]
pub fn step<P: Packet>(parser: &mut Parser, packet: &P) -> bool {
    if parser.progress != Progress::More as u8 || parser.offset >= parser.end {
        return true;
    }
    if parser.steps >= STEPS {
        return parser.finish(Progress::Malformed);
    }
    parser.steps += 1;
    let left = parser.end - parser.offset;
    if parser.record_left != 0 && parser.skip != 0 {
        let mut stretch = parser.skip;
        if stretch > parser.record_left {
            stretch = parser.record_left;
        }
        if stretch > left {
            stretch = left;
        }
        parser.skip -= stretch;
        parser.record_left -= stretch;
        parser.hello_left -= stretch;
        parser.offset += stretch;
        return false;
    }
    let offset = parser.offset as usize;
    if parser.record_left == 0 && parser.record_have == 0 && left >= RECORD_HEADER as u32 {
        let Some([kind, major, minor, high, low]) = packet.data::<5>(offset) else {
            return parser.finish(Progress::Malformed);
        };
        parser.offset += RECORD_HEADER as u32;
        return begin_record(parser, u64::from_be_bytes([0, 0, 0, kind, major, minor, high, low]));
    }
    // Fields of which all is there are read at once.
    if parser.have == 0 && parser.record_left >= 4 && left >= 4 {
        let width = width(parser.field);
        if parser.field == field::EXTENSION {
            let Some(bytes) = packet.data::<4>(offset) else { return parser.finish(Progress::Malformed) };
            return read_at_once(parser, 4, u32::from_be_bytes(bytes));
        }
        if width == 2 {
            let Some(bytes) = packet.data::<2>(offset) else { return parser.finish(Progress::Malformed) };
            return read_at_once(parser, 2, u16::from_be_bytes(bytes) as u32);
        }
    }
    let Some([byte]) = packet.data::<1>(offset) else { return parser.finish(Progress::Malformed) };
    parser.offset += 1;
    if parser.record_left == 0 {
        parser.record = parser.record << 8 | byte as u64;
        parser.record_have += 1;
        if parser.record_have == 1 && byte != 0x16 {
            return parser.finish(foreign(parser));
        }
        return parser.record_have == RECORD_HEADER && begin_record(parser, parser.record);
    }
    parser.record_left -= 1;
    parser.value = parser.value << 8 | byte as u32;
    parser.have += 1;
    if parser.field != field::HANDSHAKE {
        parser.hello_left -= 1;
    } else if parser.have == 1 && byte != 1 {
        return parser.finish(Progress::NotHello);
    }
    parser.have == width(parser.field) && read(parser)
}

/// A field of `width` bytes.
#[inline(always)]
fn read_at_once(parser: &mut Parser, width: u32, value: u32) -> bool {
    parser.offset += width;
    parser.record_left -= width;
    parser.hello_left -= width;
    parser.value = value;
    read(parser)
}

/// What a record that is not of the handshake is: no beginning of a hello, or no part of one.
#[inline(always)]
const fn foreign(parser: &Parser) -> Progress {
    if parser.begun == 0 { Progress::NotHello } else { Progress::Malformed }
}

/// A record's header is complete. Its version must not matter but for the major number (RFC 8446 section 5.1).
#[inline(always)]
fn begin_record(parser: &mut Parser, header: u64) -> bool {
    let length = (header & 0xffff) as u32;
    if header >> 24 != 0x1603 {
        return parser.finish(foreign(parser));
    }
    // An empty handshake record is forbidden (RFC 8446 section 5.1).
    if length == 0 || length > RECORD_MAX {
        return parser.finish(Progress::Malformed);
    }
    parser.begun = 1;
    parser.record = 0;
    parser.record_have = 0;
    parser.record_left = length;
    false
}

/// A field is complete (RFC 8446 section 4.1.2).
#[inline(always)]
fn read(parser: &mut Parser) -> bool {
    let value = parser.value;
    parser.value = 0;
    parser.have = 0;
    match parser.field {
        field::HANDSHAKE => {
            // The type has been looked at. 64 KiB and more no server takes.
            parser.hello_left = value & 0xff_ffff;
            if parser.hello_left > 0xffff {
                return parser.finish(Progress::Malformed);
            }
            parser.expect(field::VERSION, 0)
        }
        field::VERSION => {
            parser.legacy = value as u16;
            parser.offered = offered_by_legacy(value as u16);
            parser.expect(field::SESSION, RANDOM)
        }
        field::SESSION => {
            if value > 32 {
                return parser.finish(Progress::Malformed);
            }
            parser.expect(field::SUITES, value)
        }
        field::SUITES => {
            if value == 0 || value & 1 != 0 {
                return parser.finish(Progress::Malformed);
            }
            if parser.whole == 0 {
                return parser.expect(field::COMPRESSION, value);
            }
            if value >= parser.hello_left {
                return parser.finish(Progress::Malformed);
            }
            parser.list_left = value;
            parser.expect(field::SUITE, 0)
        }
        field::SUITE => {
            parser.marks.suite(value);
            parser.list_left -= 2;
            parser.expect(if parser.list_left == 0 { field::COMPRESSION } else { field::SUITE }, 0)
        }
        field::COMPRESSION => {
            if value == 0 {
                return parser.finish(Progress::Malformed);
            }
            if value == parser.hello_left {
                // Before TLS 1.3 extensions were optional (RFC 5246 section 7.4.1.2).
                return parser.judge();
            }
            parser.expect(field::EXTENSIONS, value)
        }
        field::EXTENSIONS => {
            if value != parser.hello_left {
                return parser.finish(Progress::Malformed);
            }
            if value == 0 {
                return parser.judge();
            }
            parser.expect(field::EXTENSION, 0)
        }
        field::EXTENSION => {
            let length = value & 0xffff;
            if length > parser.hello_left {
                return parser.finish(Progress::Malformed);
            }
            let kind = value >> 16;
            parser.behind = parser.hello_left - length;
            if parser.whole != 0 {
                parser.marks.extension(kind);
                if kind == SERVER_NAME && length > 3 {
                    return parser.expect(field::SERVER_NAMES, 0);
                }
                if kind == SIGNATURE_ALGORITHMS && length > 2 {
                    return parser.expect(field::SIGNATURES, 0);
                }
                if kind == ALPN {
                    parser.marks.protocols();
                    if length > 3 {
                        return parser.expect(field::PROTOCOLS, 0);
                    }
                }
            }
            if kind == SUPPORTED_VERSIONS as u32 {
                parser.list_left = length;
                if length == 0 {
                    return parser.finish(Progress::Malformed);
                }
                return parser.expect(field::LIST, 0);
            }
            if length == parser.hello_left {
                return parser.judge();
            }
            parser.expect(field::EXTENSION, length)
        }
        field::LIST => {
            // The list replaces the legacy version (RFC 8446 section 4.2.1).
            if value < 2 || value & 1 != 0 || value + 1 != parser.list_left {
                return parser.finish(Progress::Malformed);
            }
            parser.list_left = value;
            parser.offered = 0;
            parser.listed = 1;
            parser.expect(field::LISTED, 0)
        }
        field::SERVER_NAMES => {
            if value & 0xff != 0 || parser.extension_left() < 2 {
                // No host name (RFC 6066 section 3).
                return parser.leave_extension();
            }
            parser.expect(field::NAME_LENGTH, 0)
        }
        field::NAME_LENGTH => {
            parser.marks.name();
            parser.enter_list(field::NAME, value)
        }
        field::NAME => {
            parser.marks.name_byte(value);
            if parser.list_left == 1 {
                parser.marks.end_name();
            }
            parser.leave_entry()
        }
        field::SIGNATURES => parser.enter_list(field::SIGNATURE, value & !1),
        field::SIGNATURE => {
            parser.marks.signature(value);
            parser.leave_entry()
        }
        field::PROTOCOLS => parser.enter_list(field::PROTOCOL, value & 0xff),
        field::PROTOCOL => {
            parser.marks.protocol_byte(value);
            parser.leave_entry()
        }
        _ => {
            if value <= NEWEST as u32 && value as u16 > parser.offered {
                parser.offered = value as u16;
            }
            parser.list_left -= 2;
            let enough = parser.offered >= parser.minimum;
            if parser.whole != 0 && enough {
                if parser.list_left == 0 {
                    return parser.leave_extension();
                }
            } else if parser.list_left == 0 || enough {
                // No later entry can take back what has been offered.
                return parser.judge();
            }
            parser.expect(field::LISTED, 0)
        }
    }
}
