//! What the program shall write into a frame by itself: an answer to its sender, or another packet in its place.
//!
//! [`crate::verdict::decide`] passes at most one on to [`crate::verdict::Tables::answer`] per frame; the program carries it out when
//! the verdict is there. If it cannot, the frame is dropped: whoever awaits an answer repeats himself. Nothing here decides
//! whether to answer.

/// What shall be written.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the verdict says it all.
    None = 0,
    /// Send back a TLS alert with FIN, PSH and ACK: fatal, described by [`Answer::alert`], in a record of [`Answer::version`]
    /// (RFC 8446 section 6). The verdict is the drop of a refused hello.
    Alert = 1,
    /// Let the server's own stack have a RST in place of the frame, without data. Goes with `Pass(ServerReset)`, and with the drop of
    /// a hello that is refused by `reset`.
    ResetServer = 2,
    /// Send back an ACK without data: the sender's FIN has been seen.
    AcknowledgeFin = 3,
    /// Overwrite two bytes at [`Answer::offset`] with 0x0200, a version that every server refuses by itself, and let the
    /// frame pass. Goes with `Pass(HelloPoisoned)`.
    Poison = 4,
    /// Send back a SYN with ACK whose sequence number is a cookie, which takes the place of [`Answer::sequence`].
    SynCookie = 5,
}

/// One frame's answer. Flat, and every field has a value: see [`crate::headers`] for the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What shall be written.
    pub kind: Kind,
    /// Description of a TLS alert (RFC 8446 section 6.2).
    pub alert: u8,
    /// Version of the alert's record, as on the wire.
    pub version: u16,
    /// Sequence number of the segment that is to be written.
    pub sequence: u32,
    /// Its acknowledgement number.
    pub acknowledgement: u32,
    /// Where the frame's IP header begins.
    pub network: usize,
    /// Where its TCP header begins.
    pub segment: usize,
    /// Where its TCP data begins; [`Kind::Poison`]: where the legacy version of the hello begins.
    pub offset: usize,
}

impl Answer {
    /// No answer.
    pub const NONE: Self = Self {
        kind: Kind::None,
        alert: 0,
        version: 0,
        sequence: 0,
        acknowledgement: 0,
        network: 0,
        segment: 0,
        offset: 0,
    };

    /// Bytes that the answer takes of its sender's sequence space: the alert's seven and its FIN.
    pub const ALERT_LENGTH: u32 = 8;
}

/// Descriptions of TLS alerts (RFC 8446 section 6).
pub mod alert {
    /// What was sent does not belong here.
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    /// What was sent contradicts itself.
    pub const DECODE_ERROR: u8 = 50;
    /// No version that the client offers is acceptable.
    pub const PROTOCOL_VERSION: u8 = 70;
    /// The name that the client asks for is not served.
    pub const UNRECOGNIZED_NAME: u8 = 112;
    /// What was asked for is not allowed.
    pub const ACCESS_DENIED: u8 = 49;
}
