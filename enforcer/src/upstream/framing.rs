//! What a server's answer says of its own length (RFC 9112 section 6.3). One that can be read in two ways is refused, whether it has a
//! body or not: what the client is told about a body that it does not get (HEAD, 304) has to be true as well.

use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::decimal;

/// How an answer ends, if it has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With a chunk that says so.
    Chunked {
        /// It has a length as well: that is overridden, and nothing that follows on the connection is to be trusted.
        doubtful: bool,
    },
    /// With the connection.
    UntilClose,
}

/// Reads it; the error says what is wrong.
pub(super) fn read(headers: &HeaderMap) -> Result<Framing, &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // Another coding would be taken off without the client's hearing of it, or stay on, likewise; and `chunked` comes once.
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("a coding that is not `chunked` alone");
        }
        return Ok(Framing::Chunked { doubtful: headers.contains_key(CONTENT_LENGTH) });
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            let one = decimal::read(one.trim_ascii()).ok_or("this is no length")?;
            if length.replace(one).is_some_and(|other| other != one) {
                return Err("two lengths");
            }
        }
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

/// Leaves one length of those that are equal, and none beside a coding.
pub(super) fn settle(headers: &mut HeaderMap, framing: Framing) {
    match framing {
        Framing::Chunked { .. } => drop(headers.remove(CONTENT_LENGTH)),
        Framing::Length(length) => {
            let mut values = headers.get_all(CONTENT_LENGTH).iter();
            let is_list = values.next().is_some_and(|value| value.as_bytes().contains(&b','));
            if is_list || values.next().is_some() {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        Framing::UntilClose => {}
    }
}
