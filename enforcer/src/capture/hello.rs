//! What a ClientHello says of itself, for people: the versions that it offers and the server that it asks for.
//!
//! Not what a verdict goes by: the program judges by `enforcer_common::hello`, from where the fingerprint is as well. The rest reads as far as
//! the bytes go.

use enforcer_common::hello::marks;
use serde::{Deserialize, Serialize};

/// Longest record header and handshake header, in bytes (RFC 8446 sections 5.1 and 4).
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
/// Extensions (RFC 6066 section 3, RFC 8446 section 4.2.1).
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;
/// Longest host name that DNS knows, in bytes (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;
/// Versions that are shown at most; clients list two to five.
const MOST_VERSIONS: usize = 16;

/// A ClientHello, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that it offers, in its order: `supported_versions` without GREASE, or else the legacy one.
    pub versions: Vec<String>,
    /// The server that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Its fingerprint, which can be listed in `kernel.hellos`, if it was there to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Whether it was there to its end.
    pub complete: bool,
}

/// Reads TCP data that begins with a ClientHello; `None` if it does not.
pub fn read(data: &[u8]) -> Option<Hello> {
    let (message, complete) = message(data)?;
    let mut hello = Hello { complete, ..Hello::default() };
    let mut body = Reader(message.get(HANDSHAKE_HEADER..).unwrap_or_default());
    let legacy = body.u16()?;
    hello.versions = vec![version(legacy)];
    // What is cut off ends the reading, not the hello.
    let _ = extensions(&mut body, &mut hello);
    hello.fingerprint = marks::read(&data, 0).map(|marks| format!("{:016x}", marks.fingerprint()));
    Some(hello)
}

/// The first handshake message without its records, and whether it is whole.
fn message(mut data: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut message = Vec::new();
    while let Some((header, rest)) = data.split_first_chunk::<RECORD_HEADER>() {
        if header[0] != 0x16 || header[1] != 3 {
            break;
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        message.extend_from_slice(rest.get(..length).unwrap_or(rest));
        data = rest.get(length..).unwrap_or_default();
        if let Some(wanted) = wanted(&message)
            && message.len() >= wanted
        {
            message.truncate(wanted);
            return (message.first() == Some(&1)).then_some((message, true));
        }
    }
    (message.first() == Some(&1)).then_some((message, false))
}

/// How long a handshake message says that it is, with its header.
fn wanted(message: &[u8]) -> Option<usize> {
    let [_, high, upper, lower] = message.first_chunk::<HANDSHAKE_HEADER>()?;
    Some(HANDSHAKE_HEADER + u32::from_be_bytes([0, *high, *upper, *lower]) as usize)
}

/// Everything behind the legacy version (RFC 8446 section 4.1.2).
fn extensions(body: &mut Reader<'_>, hello: &mut Hello) -> Option<()> {
    body.take(32)?;
    let session = body.u8()?;
    body.take(usize::from(session))?;
    let suites = body.u16()?;
    body.take(usize::from(suites))?;
    let compression = body.u8()?;
    body.take(usize::from(compression))?;
    body.u16()?;
    loop {
        let (kind, length) = (body.u16()?, body.u16()?);
        let mut content = Reader(body.take(usize::from(length))?);
        match kind {
            SERVER_NAME => hello.server_name = server_name(&mut content),
            SUPPORTED_VERSIONS => {
                content.u8()?;
                let listed = std::iter::from_fn(|| content.u16()).filter(|number| !is_grease(*number));
                hello.versions = listed.take(MOST_VERSIONS).map(version).collect();
            }
            _ => {}
        }
    }
}

/// The first host name (RFC 6066 section 3). What is no host name is not shown: it goes to terminals.
fn server_name(content: &mut Reader<'_>) -> Option<String> {
    content.u16()?;
    if content.u8()? != 0 {
        return None;
    }
    let length = content.u16()?;
    let name = content.take(usize::from(length))?;
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    let usable = !name.is_empty() && name.len() <= LONGEST_NAME && name.iter().all(good);
    usable.then(|| String::from_utf8_lossy(name).into_owned())
}

/// GREASE values have the form 0x?A?A with equal digits (RFC 8701 section 2).
const fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// A version by its name (RFC 8446 section 4.2.1 and its forerunners).
fn version(number: u16) -> String {
    match number {
        0x0300 => "SSL 3.0".to_owned(),
        0x0301 => "TLS 1.0".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0304 => "TLS 1.3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

/// Bytes that are read from the front; `None` where they end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first().copied())
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello of TLS 1.2 with these extensions, in records of `split` bytes.
    fn hello(extensions: &[(u16, &[u8])], split: usize) -> Vec<u8> {
        let block: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| {
                [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
            })
            .collect();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((block.len() as u16).to_be_bytes());
        body.extend(block);
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        let record = |part: &[u8]| [&[0x16, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
        message.chunks(split).flat_map(record).collect()
    }

    const NAME: &[u8] = b"\x00\x12\x00\x00\x0fapi.example.com";
    const VERSIONS: &[u8] = &[6, 0x1a, 0x1a, 3, 4, 3, 3];

    #[test]
    fn names_and_versions_are_found_across_records() {
        for split in [1, 7, 1_000] {
            let found = read(&hello(&[(0, NAME), (43, VERSIONS)], split)).unwrap();
            assert_eq!(found.versions, ["TLS 1.3", "TLS 1.2"]);
            assert_eq!((found.server_name.as_deref(), found.complete), (Some("api.example.com"), true));
        }
        assert_eq!(read(&hello(&[], 99)).unwrap().versions, ["TLS 1.2"]);
    }

    #[test]
    fn what_is_cut_off_is_shown_as_far_as_it_goes() {
        let whole = hello(&[(0, NAME), (43, VERSIONS)], 1_000);
        let cut = read(&whole[..whole.len() - 3]).unwrap();
        assert_eq!((cut.server_name.as_deref(), cut.complete), (Some("api.example.com"), false));
        assert_eq!(read(&whole[..12]).unwrap_or_default().versions, ["TLS 1.2"]);
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
        }
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), None);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        let evil = b"\x00\x08\x00\x00\x05\x1b[31m";
        assert_eq!(read(&hello(&[(0, evil)], 99)).unwrap().server_name, None);
    }
}
