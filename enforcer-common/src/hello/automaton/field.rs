//! The fields of a ClientHello that the automaton reads one after the other, and how long each is (RFC 8446 section 4.1.2).

pub(super) const HANDSHAKE: u8 = 0;
pub(super) const VERSION: u8 = 1;
pub(super) const SESSION: u8 = 2;
pub(super) const SUITES: u8 = 3;
pub(super) const COMPRESSION: u8 = 4;
pub(super) const EXTENSIONS: u8 = 5;
pub(super) const EXTENSION: u8 = 6;
pub(super) const LIST: u8 = 7;
pub(super) const LISTED: u8 = 8;
// From here on: only where marks are gathered.
pub(super) const SUITE: u8 = 9;
/// Length of the list of server names, and the type of the first one.
pub(super) const SERVER_NAMES: u8 = 10;
pub(super) const NAME_LENGTH: u8 = 11;
pub(super) const NAME: u8 = 12;
pub(super) const SIGNATURES: u8 = 13;
pub(super) const SIGNATURE: u8 = 14;
/// Length of the list of protocols, and that of the first one.
pub(super) const PROTOCOLS: u8 = 15;
pub(super) const PROTOCOL: u8 = 16;

/// Bytes of a field.
#[inline(always)]
pub(super) const fn width(field: u8) -> u8 {
    match field {
        HANDSHAKE | EXTENSION => 4,
        SERVER_NAMES | PROTOCOLS => 3,
        SESSION | COMPRESSION | LIST | NAME | PROTOCOL => 1,
        _ => 2,
    }
}
