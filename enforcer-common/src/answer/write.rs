//! How an [`Answer`] becomes a frame: the packet that is answered is overwritten by it.
//!
//! Called by the program once the verdict is there, and by tests on plain memory. Decides nothing about the packet. Every
//! checksum is computed from what is written: the one that was received may be that of the pseudo header alone, where the
//! sender is on this very machine and leaves the rest to a device that there is not (CHECKSUM_PARTIAL, linux/skbuff.h).

use super::{Answer, Kind};
use crate::{
    headers::tcp,
    packet::{Packet, PacketMut},
};

/// Both addresses of an Ethernet header, in bytes; tags and EtherType stay as they are.
const MAC: usize = 6;
/// The shortest Ethernet frame without its check sequence, in bytes (IEEE 802.3 section 3.2.7): not every device fills up what a
/// program hands it.
const SHORTEST: usize = 60;
/// Headers without options, in bytes (RFC 791 section 3.1, RFC 8200 section 3, RFC 9293 section 3.1).
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
/// TCP's protocol number.
const PROTOCOL: u8 = 6;
/// Time to live and hop limit of what is sent, in hops: what Linux begins with.
const HOPS: u8 = 64;
/// The window of an answer, in bytes: the client may still send what it has to say before it closes. For a cookie it is
/// less than what Linux opens by itself, and more than a ClientHello.
const WINDOW: u16 = 29_200;
/// Two paddings and the option "timestamps", in bytes (RFC 7323 appendix A).
const TIMESTAMPS: usize = 12;
/// The option "maximum segment size", in bytes (RFC 9293 section 3.2).
const SEGMENT_SIZE: usize = 4;
/// An alert in its record, in bytes (RFC 8446 sections 5.1 and 6).
const ALERT: usize = 7;
/// TCP options take 40 bytes at most, and the shortest is one byte.
pub const OPTIONS: usize = 40;
/// A version that no server knows: OpenSSL answers it with `protocol_version`, but 0x0300 with `handshake_failure`.
pub const POISON: u16 = 0x0200;

/// Overwrites the packet with its answer. `None`: that could not be done, and what is left of the packet must go nowhere.
#[inline(always)]
pub fn write<P: PacketMut>(packet: &mut P, answer: &Answer) -> Option<()> {
    if answer.kind == Kind::Poison { poison(packet, answer) } else { segment(packet, answer) }
}

/// Replaces the legacy version, and takes the difference back in the urgent pointer. The checksum stays right so, whatever
/// it covers, and so does a sum over the whole packet that a device may have made.
#[inline(always)]
fn poison<P: PacketMut>(packet: &mut P, answer: &Answer) -> Option<()> {
    const FLAGS: usize = 13;
    const URGENT: usize = 18;
    // Where the pointer points to something, it cannot be spared.
    if packet.u8(answer.segment + FLAGS)? & tcp::URG != 0 {
        return None;
    }
    let at = answer.detail as usize;
    let mut old = packet.data::<2>(at).map(u16::from_be_bytes)?;
    let mut new = POISON;
    packet.write(at, new.to_be_bytes())?;
    // Where the version straddles two words, it is added to the sum with its bytes swapped (RFC 1071 section 2).
    if (at ^ answer.segment) & 1 != 0 {
        old = old.swap_bytes();
        new = new.swap_bytes();
    }
    let urgent = packet.u16(answer.segment + URGENT)?;
    let balanced = fold(urgent as u64 + old as u64 + !new as u64);
    packet.write(answer.segment + URGENT, balanced.to_be_bytes())
}

/// What is taken over from the packet.
struct Ends {
    /// Host order: IPv6 as two halves, IPv4 in the first.
    source: [u64; 2],
    destination: [u64; 2],
    source_port: u16,
    port: u16,
}

/// Writes a TCP segment with whatever the answer is about. VLAN tags stay, options of IP and IPv6 extension headers go.
#[inline(always)]
fn segment<P: PacketMut>(packet: &mut P, answer: &Answer) -> Option<()> {
    let version = packet.u8(answer.network)? >> 4;
    let form = form(packet, answer);
    let ends = ends(packet, answer, version)?;
    let (mut value, mut echo) = (0, 0);
    if form.options == TIMESTAMPS {
        // What the peer has sent is echoed, and what it echoed was sent by this side (RFC 7323 section 3.2).
        value = packet.u32(form.timestamps + 6)?;
        echo = packet.u32(form.timestamps + 2)?;
    }
    let value = packet.forget(value as usize) as u32;
    let echo = packet.forget(echo as usize) as u32;
    let start = packet.forget(answer.network);
    let network = packet.forget(if version == 4 { IPV4 } else { IPV6 });
    let payload = packet.forget(TCP + form.options + form.data);
    let length = packet.forget(start + network + payload);
    packet.resize(length)?;
    if form.back != 0 {
        swap_stations(packet)?;
    }
    let mut writer = Writer { packet, at: start, sum: 0 };
    if network == IPV4 {
        writer.ipv4(&ends, payload as u16)?
    } else {
        writer.ipv6(&ends, payload as u16)?
    }
    writer.at = writer.packet.forget(writer.at);
    writer.sum = writer.packet.forget(writer.sum as usize) as u64;
    writer.tcp(answer, &ends, &form)?;
    if form.options == TIMESTAMPS {
        writer.u32(0x0101_080a)?; // twice "no operation", kind 8 of 10 bytes
        writer.u32(value)?;
        writer.u32(echo)?;
    } else if form.options == SEGMENT_SIZE {
        writer.u32(0x0204_0000 | answer.detail & 0xffff)?;
    }
    if form.data != 0 {
        writer.at = writer.packet.forget(writer.at);
        writer.alert(answer)?;
    }
    // Of the pseudo header the addresses are in the sum already.
    let sum = fold(writer.sum + PROTOCOL as u64 + payload as u64);
    packet.write(start + network + 16, (!sum).to_be_bytes())?;
    if form.back != 0 && length < SHORTEST {
        // What is longer than the packet was fills up with zeroes. It is no loss if there is no room.
        let _ = packet.resize(SHORTEST);
    }
    Some(())
}

/// What distinguishes the kinds of answers, in numbers of which the verifier knows nothing: it would walk the rest once for
/// each kind.
struct Form {
    flags: u16,
    acknowledgement: u32,
    window: u16,
    /// Bytes of TCP options.
    options: usize,
    /// Where in the frame the received timestamps stand.
    timestamps: usize,
    /// Bytes of data.
    data: usize,
    /// 0: it goes on to the network stack.
    back: usize,
}

#[inline(always)]
fn form<P: PacketMut>(packet: &P, answer: &Answer) -> Form {
    let (flags, acknowledgement, window) = match answer.kind {
        Kind::Alert => (tcp::FIN | tcp::PSH | tcp::ACK, answer.acknowledgement, WINDOW),
        Kind::AcknowledgeFin => (tcp::ACK, answer.acknowledgement, WINDOW),
        Kind::SynCookie => (tcp::SYN | tcp::ACK, answer.acknowledgement, WINDOW),
        // Acknowledges too: without, a client that has sent a SYN alone would not believe it (RFC 9293 section 3.10.7.3).
        Kind::ResetClient => (tcp::RST | tcp::ACK, answer.acknowledgement, 0),
        Kind::ResetServer | Kind::Poison | Kind::None => (tcp::RST, 0, 0),
    };
    let back = packet.forget(!answer.kind.goes_on() as usize);
    let data = packet.forget(if answer.kind == Kind::Alert { ALERT } else { 0 });
    let mut timestamps = 0;
    let mut options = if answer.kind == Kind::SynCookie { SEGMENT_SIZE } else { 0 };
    if back != 0 && options == 0 {
        timestamps = packet.timestamps(answer.segment);
        if timestamps != 0 {
            options = TIMESTAMPS;
        }
    }
    Form {
        flags: packet.forget(flags as usize) as u16,
        acknowledgement: packet.forget(acknowledgement as usize) as u32,
        window: packet.forget(window as usize) as u16,
        options: packet.forget(options),
        timestamps: packet.forget(timestamps),
        data,
        back,
    }
}

#[inline(always)]
fn ends<P: PacketMut>(packet: &P, answer: &Answer, version: u8) -> Option<Ends> {
    let [mut source, mut destination] = [[0; 2]; 2];
    if version == 4 {
        source[0] = packet.u32(answer.network + 12)? as u64;
        destination[0] = packet.u32(answer.network + 16)? as u64;
    } else {
        source = [half(packet, answer.network + 8)?, half(packet, answer.network + 16)?];
        destination = [half(packet, answer.network + 24)?, half(packet, answer.network + 32)?];
    }
    let source_port = packet.u16(answer.segment)?;
    let port = packet.u16(answer.segment + 2)?;
    if answer.kind.goes_on() {
        Some(Ends { source, destination, source_port, port })
    } else {
        Some(Ends { source: destination, destination: source, source_port: port, port: source_port })
    }
}

#[inline(always)]
fn half<P: PacketMut>(packet: &P, offset: usize) -> Option<u64> {
    packet.bytes(offset).map(u64::from_be_bytes)
}

/// Where the option "timestamps" (kind 8, 10 bytes) of a TCP header stands in the frame; 0 if there is none.
pub fn timestamps<P: Packet + ?Sized>(packet: &P, segment: usize) -> usize {
    options(packet, segment).found as usize
}

/// Whether a TCP header has the option "MD5 signature" or "authentication" (kinds 19 and 29).
pub fn signed<P: Packet + ?Sized>(packet: &P, segment: usize) -> bool {
    options(packet, segment).signed != 0
}

fn options<P: Packet + ?Sized>(packet: &P, segment: usize) -> Options {
    let mut options = Options::default();
    options.begin(packet, segment);
    let mut step = 0;
    while step < OPTIONS && !options.step(packet) {
        step += 1;
    }
    options
}

/// A walk through TCP options. The program repeats the steps by `bpf_loop`, everybody else in a loop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where in the frame the next one begins.
    at: u32,
    /// Where they end.
    end: u32,
    /// Where the timestamps stand; else 0.
    pub found: u32,
    /// Whether TCP itself signs the segment.
    pub signed: u32,
}

impl Options {
    /// Begins with the first option.
    #[inline(always)]
    pub fn begin<P: Packet + ?Sized>(&mut self, packet: &P, segment: usize) {
        let words = packet.u8(segment + 12).unwrap_or(0);
        self.at = (segment + TCP) as u32;
        self.end = segment as u32 + (words >> 4) as u32 * 4;
        self.found = 0;
        self.signed = 0;
    }

    /// Looks at one option; `true`: there is no further one to look at.
    #[inline(always)]
    pub fn step<P: Packet + ?Sized>(&mut self, packet: &P) -> bool {
        let at = self.at as usize;
        if self.at >= self.end {
            return true;
        }
        let Some(kind) = packet.u8(at) else { return true };
        if kind == 0 {
            return true;
        }
        if kind == 1 {
            self.at += 1;
            return false;
        }
        let Some(length) = packet.u8(at + 1) else { return true };
        if kind == 8 && length == 10 && self.at + 10 <= self.end && self.found == 0 {
            self.found = self.at;
        }
        // RFC 2385 and RFC 5925.
        if kind == 19 || kind == 29 {
            self.signed = 1;
            return true;
        }
        self.at += length as u32;
        length < 2
    }
}

/// Back to where the frame came from.
#[inline(always)]
fn swap_stations<P: PacketMut>(packet: &mut P) -> Option<()> {
    let to = packet.bytes::<MAC>(0)?;
    let from = packet.bytes::<MAC>(MAC)?;
    packet.write(0, from)?;
    packet.write(MAC, to)
}

/// Writes words one behind the other, and adds them up.
struct Writer<'a, P> {
    packet: &'a mut P,
    at: usize,
    sum: u64,
}

impl<P: PacketMut> Writer<'_, P> {
    #[inline(always)]
    fn u16(&mut self, word: u16) -> Option<()> {
        self.packet.write(self.at, word.to_be_bytes())?;
        self.at += 2;
        self.sum += word as u64;
        Some(())
    }

    #[inline(always)]
    fn u32(&mut self, word: u32) -> Option<()> {
        self.packet.write(self.at, word.to_be_bytes())?;
        self.at += 4;
        self.sum += (word >> 16) as u64 + (word & 0xffff) as u64;
        Some(())
    }

    #[inline(always)]
    fn u64(&mut self, word: u64) -> Option<()> {
        self.u32((word >> 32) as u32)?;
        self.u32(word as u32)
    }

    /// An IPv4 header (RFC 791 section 3.1); leaves the sum of both addresses.
    #[inline(always)]
    fn ipv4(&mut self, ends: &Ends, payload: u16) -> Option<()> {
        let start = self.at;
        self.u16(0x4500)?;
        self.u16(IPV4 as u16 + payload)?;
        // No identification: it cannot be fragmented (RFC 6864 section 4.1).
        self.u32(0x4000)?;
        self.u16((HOPS as u16) << 8 | PROTOCOL as u16)?;
        self.u16(0)?;
        let before = self.sum;
        self.u32(ends.source[0] as u32)?;
        self.u32(ends.destination[0] as u32)?;
        self.packet.write(start + 10, (!fold(self.sum)).to_be_bytes())?;
        self.sum -= before;
        Some(())
    }

    /// An IPv6 header (RFC 8200 section 3); leaves the sum of both addresses.
    #[inline(always)]
    fn ipv6(&mut self, ends: &Ends, payload: u16) -> Option<()> {
        self.u32(0x6000_0000)?;
        self.u16(payload)?;
        self.u16((PROTOCOL as u16) << 8 | HOPS as u16)?;
        self.sum = 0;
        self.u64(ends.source[0])?;
        self.u64(ends.source[1])?;
        self.u64(ends.destination[0])?;
        self.u64(ends.destination[1])
    }

    /// A TCP header (RFC 9293 section 3.1) whose checksum is still 0.
    #[inline(always)]
    fn tcp(&mut self, answer: &Answer, ends: &Ends, form: &Form) -> Option<()> {
        self.u16(ends.source_port)?;
        self.u16(ends.port)?;
        self.u32(answer.sequence)?;
        self.u32(form.acknowledgement)?;
        self.u16(((TCP + form.options) as u16 / 4) << 12 | form.flags)?;
        self.u16(form.window)?;
        self.u32(0) // checksum and urgent pointer
    }

    /// A fatal alert in a record of its own.
    #[inline(always)]
    fn alert(&mut self, answer: &Answer) -> Option<()> {
        let [major, minor] = (answer.detail as u16).to_be_bytes();
        self.u16(0x1500 | major as u16)?;
        self.u16((minor as u16) << 8)?;
        self.u16(0x0202)?;
        // A byte without a pair counts as if a zero followed (RFC 1071 section 4.1).
        self.packet.write(self.at, [answer.alert])?;
        self.sum += (answer.alert as u64) << 8;
        Some(())
    }
}

/// A sum of 16-bit words in one's complement (RFC 1071 section 1).
#[inline(always)]
const fn fold(mut sum: u64) -> u16 {
    // A sum of at most 2^32 words loses its carries in three steps.
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
