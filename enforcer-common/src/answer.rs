//! Frames that the program writes itself, in answer to a packet: what a verdict asks for.
//!
//! A verdict leaves at most one [`Answer`] behind, by [`crate::verdict::Tables::answer`]. Its reason is counted as ever; the
//! answer says what becomes of the packet's frame. Plain numbers throughout: the program hands them to a function that the
//! verifier checks by itself.

/// What is written.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    #[default]
    None = 0,
    /// The TLS alert `protocol_version` and the end of the connection, sent to the client (RFC 8446 section 6.2). `detail` is the
    /// version of the alert's record, as on the wire.
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
}

impl Answer {
    /// Nothing is written.
    pub const NONE: Self = Self { kind: Kind::None, sequence: 0, acknowledgement: 0, detail: 0 };
}
