//! Frames that the program writes itself, in answer to a packet: what a verdict asks for.
//!
//! A verdict leaves at most one [`Answer`] behind, by [`crate::verdict::Tables::answer`]. Its reason is counted as ever; the
//! answer says what becomes of the packet's frame. Plain numbers throughout: the program hands them to a function that the
//! verifier checks by itself.

mod write;

pub use write::{OPTIONS, Options, POISON, signed, timestamps, write};

use crate::headers::Headers;

/// What is written.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    #[default]
    None = 0,
    /// A fatal TLS alert and the end of the connection, sent to the client (RFC 8446 section 6.2). `detail` is the version of
    /// the alert's record, as on the wire.
    Alert = 1,
    /// A reset, sent to the client.
    ResetClient = 2,
    /// A reset as if from the client: the packet becomes it and goes on to the network stack. `sequence` has to be the very number
    /// that the stack expects next (RFC 5961 section 3.2).
    ResetServer = 3,
    /// An acknowledgement, sent to the client: so that one whose connection is gone may close its side.
    AcknowledgeFin = 4,
    /// The packet goes on to the network stack with a `legacy_version` that no server accepts, so that the server itself
    /// refuses the hello. `detail` is where in the frame that version lies.
    Poison = 5,
    /// A SYN-ACK whose sequence number is a cookie, sent to the client. `detail` is the largest segment that it may send.
    SynCookie = 6,
}

impl Kind {
    /// The kind with this number; what has no number is nothing.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Alert,
            2 => Self::ResetClient,
            3 => Self::ResetServer,
            4 => Self::AcknowledgeFin,
            5 => Self::Poison,
            6 => Self::SynCookie,
            _ => Self::None,
        }
    }

    /// Whether the packet itself goes on to the network stack; else it ends here, and what is written goes back to where the
    /// packet came from.
    #[inline(always)]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::ResetServer | Self::Poison)
    }
}

/// What a verdict asks the program to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it is.
    pub kind: Kind,
    /// TCP sequence number of what is written.
    pub sequence: u32,
    /// TCP acknowledgement number of what is written, where it has one.
    pub acknowledgement: u32,
    /// See [`Kind`]; otherwise 0.
    pub detail: u32,
    /// Description of an alert, see [`alert`].
    pub alert: u8,
    /// Where in the frame the IP header begins.
    pub network: usize,
    /// Where in the frame the TCP header begins.
    pub segment: usize,
}

/// Descriptions of TLS alerts (RFC 8446 section 6).
pub mod alert {
    /// What was sent does not belong here.
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    /// What was asked for is not allowed.
    pub const ACCESS_DENIED: u8 = 49;
    /// What was sent contradicts itself.
    pub const DECODE_ERROR: u8 = 50;
    /// No version that the client offers is acceptable.
    pub const PROTOCOL_VERSION: u8 = 70;
    /// The name that the client asks for is not served.
    pub const UNRECOGNIZED_NAME: u8 = 112;
}

impl Answer {
    /// Nothing is written.
    pub const NONE: Self = Self {
        kind: Kind::None,
        sequence: 0,
        acknowledgement: 0,
        detail: 0,
        alert: 0,
        network: 0,
        segment: 0,
    };

    /// Bytes that an alert takes of the sequence numbers: its record's, and one for the FIN.
    pub const ALERT_LENGTH: u32 = 8;

    /// An answer to the packet with these headers; the numbers are still 0.
    #[inline(always)]
    pub const fn to(headers: &Headers, kind: Kind) -> Self {
        Self { kind, network: headers.network, segment: headers.segment, ..Self::NONE }
    }
}
