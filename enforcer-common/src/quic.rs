//! What a datagram to a port where QUIC is served is worth, told from what QUIC shows in the clear.
//!
//! Called by [`crate::verdict::decide`]. Stateless: nothing here knows a connection, so packets with a short header pass as long
//! as they can be QUIC at all. No version is negotiated: whoever offers none that is served gets no answer, and nobody can
//! make this machine send more than it receives.

use crate::{packet::Packet, settings::QUIC_VERSIONS};

/// QUIC version 1 (RFC 9000 section 15).
pub const VERSION_1: u32 = 0x0000_0001;
/// QUIC version 2 (RFC 9369 section 3.1).
pub const VERSION_2: u32 = 0x6b33_43cf;

/// The shortest datagram that may carry an Initial packet, in bytes (RFC 9000 section 14.1).
const INITIAL: usize = 1200;
/// The shortest packet with a short header, in bytes: one for the header, the 4 in front of the sample of header protection,
/// and the 16 of the sample (RFC 9001 section 5.4.2).
const SHORT: usize = 21;
/// The longest connection id, in bytes (RFC 9000 section 17.2).
const CONNECTION_ID: u8 = 20;
/// First byte: a long header (RFC 8999 section 5.1).
const LONG: u8 = 0x80;
/// First byte: set in every packet of versions 1 and 2 (RFC 9000 section 17.2, RFC 9369 section 3.2).
const FIXED: u8 = 0x40;

/// What a datagram is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quic {
    /// Of neither form, or one that only servers send.
    Not = 0,
    /// Part of a connection, or the client believes so: a short header.
    Short = 1,
    /// An Initial packet, in a datagram as long as it must be.
    Initial = 2,
    /// An Initial packet, in a shorter one.
    TooShort = 3,
    /// A long header with a version that is not served.
    Version = 4,
    /// 0-RTT or Handshake. Behind it in the datagram there may be an Initial packet (RFC 9000 section 12.2), so that it costs as much.
    Long = 5,
}

/// Looks at a datagram's content from `start` to `end`.
#[inline(always)]
pub fn inspect<P: Packet + ?Sized>(
    packet: &P,
    start: usize,
    end: usize,
    versions: &[u32; QUIC_VERSIONS],
) -> Quic {
    // The shortest packet of any form is one with a short header.
    if start + SHORT > end {
        return Quic::Not;
    }
    let Some([first]) = packet.data::<1>(start) else { return Quic::Not };
    if first & LONG == 0 {
        return if first & FIXED == 0 { Quic::Not } else { Quic::Short };
    }
    let Some(version) = packet.data::<4>(start + 1) else { return Quic::Not };
    let version = u32::from_be_bytes(version);
    if version == 0 || !serves(versions, version) {
        return Quic::Version;
    }
    let Some([length]) = packet.data::<1>(start + 5) else { return Quic::Not };
    if first & FIXED == 0 || length > CONNECTION_ID {
        return Quic::Not;
    }
    // Initial, 0-RTT, Handshake, Retry; version 2 begins with Retry (RFC 9369 section 3.2).
    let turn = if version == VERSION_2 { 3 } else { 0 };
    match ((first >> 4) + turn) & 3 {
        0 if end - start < INITIAL => Quic::TooShort,
        0 => Quic::Initial,
        3 => Quic::Not,
        _ => Quic::Long,
    }
}

#[inline(always)]
const fn serves(versions: &[u32; QUIC_VERSIONS], version: u32) -> bool {
    let mut at = 0;
    while at < QUIC_VERSIONS {
        if versions[at] == version {
            return true;
        }
        at += 1;
    }
    false
}
