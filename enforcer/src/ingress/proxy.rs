//! The PROXY protocol (HAProxy's `proxy-protocol.txt`, versions 1 and 2): what a load balancer says of the client for which it
//! opened a connection.
//!
//! `connection` asks for it on connections of configured load balancers, and on no others: whoever may say it chooses his address.
//! Such a load balancer has to say it; a connection without it ends. What a header carries besides the addresses is
//! skipped.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Section 2.1: a line of version 1 fits with its end.
const LONGEST_V1: usize = 107;
/// Section 2.2: what a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Before the addresses.
const HEAD_V2: usize = 16;
/// Addresses and whatever else stands in a header of version 2; certificates that were shown to a load balancer fit.
const LONGEST_V2: usize = 8 << 10;

/// Who is behind a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// This client.
    Client(IpAddr),
    /// Itself, to see whether somebody is here; or a client of which it does not know more.
    Itself,
}

/// What the beginning of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// A header of so many bytes.
    Whole(usize, Said),
    /// Perhaps one.
    Partial,
    /// None.
    Wrong,
}

/// Reads the header. Returns the client's address, if there is one, and what was read behind the header.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<(Option<IpAddr>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        match header(&bytes) {
            Header::Whole(length, said) => {
                let rest = bytes.split_off(length);
                let client = match said {
                    Said::Client(address) => Some(address),
                    Said::Itself => None,
                };
                return Ok((client, rest));
            }
            Header::Partial if stream.read_buf(&mut bytes).await? > 0 => {}
            Header::Partial | Header::Wrong => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol"));
            }
        }
    }
}

fn header(bytes: &[u8]) -> Header {
    if bytes.starts_with(b"P") {
        return version_1(bytes);
    }
    let agreed = bytes.iter().zip(SIGNATURE).take_while(|(byte, expected)| **byte == *expected).count();
    match bytes {
        _ if agreed == bytes.len() && agreed < SIGNATURE.len() => Header::Partial,
        [..] if agreed < SIGNATURE.len() => Header::Wrong,
        _ => version_2(bytes),
    }
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`, one space between, CRLF behind.
fn version_1(bytes: &[u8]) -> Header {
    let seen = bytes.get(..LONGEST_V1).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|two| two == b"\r\n") else {
        let begins = seen.iter().zip(b"PROXY ").all(|(byte, expected)| byte == expected);
        return if begins && seen.len() < LONGEST_V1 { Header::Partial } else { Header::Wrong };
    };
    let read = || {
        let line = std::str::from_utf8(seen.get(..end)?).ok()?;
        let rest = line.strip_prefix("PROXY ")?;
        if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
            return Some(Said::Itself);
        }
        let mut words = rest.split(' ');
        let (family, source, destination) = (words.next()?, words.next()?, words.next()?);
        let ports = [words.next()?, words.next()?];
        let addresses: [IpAddr; 2] = [source.parse().ok()?, destination.parse().ok()?];
        let is_family = match family {
            "TCP4" => addresses.iter().all(IpAddr::is_ipv4),
            "TCP6" => addresses.iter().all(IpAddr::is_ipv6),
            _ => false,
        };
        let good = is_family && words.next().is_none() && ports.into_iter().all(is_port);
        good.then_some(Said::Client(addresses[0]))
    };
    read().map_or(Header::Wrong, |said| Header::Whole(end + 2, said))
}

fn is_port(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

fn version_2(bytes: &[u8]) -> Header {
    let Some([.., command, family, high, low]) = bytes.first_chunk::<HEAD_V2>() else {
        return Header::Partial;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST_V2 || !matches!(command, 0x20 | 0x21) {
        return Header::Wrong;
    }
    let Some(body) = bytes.get(HEAD_V2..HEAD_V2 + length) else { return Header::Partial };
    let said = match (command, family) {
        (0x20, _) | (_, 0x00) => Some(Said::Itself),
        (_, 0x11) if length >= 12 => {
            body.first_chunk::<4>().map(|v4| Said::Client(Ipv4Addr::from(*v4).into()))
        }
        (_, 0x21) if length >= 36 => {
            body.first_chunk::<16>().map(|v6| Said::Client(Ipv6Addr::from(*v6).into()))
        }
        // Datagrams and Unix sockets are not how anybody comes here.
        _ => None,
    };
    said.map_or(Header::Wrong, |said| Header::Whole(HEAD_V2 + length, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str, length: usize) -> Header {
        Header::Whole(length, Said::Client(address.parse().unwrap()))
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn headers_are_read_whole_and_in_parts() {
        let v4 = v2(0x21, 0x11, &[198, 18, 0, 1, 198, 18, 0, 2, 1, 187, 1, 187]);
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 7;
        let tlv = [&v6[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (b"PROXY TCP4 198.18.0.1 198.18.0.2 65535 443\r\n".to_vec(), client("198.18.0.1", 44)),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 0 443\r\n".to_vec(), client("2001:db8::1", 42)),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::Whole(15, Said::Itself)),
            (b"PROXY UNKNOWN a b c\r\n".to_vec(), Header::Whole(21, Said::Itself)),
            (v4.clone(), client("198.18.0.1", 28)),
            (v2(0x21, 0x21, &tlv), client("2001:db8::7", 56)),
            (v2(0x20, 0x11, &[0; 12]), Header::Whole(28, Said::Itself)),
            (v2(0x21, 0x00, &[]), Header::Whole(16, Said::Itself)),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(header(&bytes[..end]), Header::Partial, "{end} of {}", bytes.escape_ascii());
            }
            assert_eq!(header(&bytes), expected, "{}", bytes.escape_ascii());
            assert_eq!(header(&[&bytes[..], b"\x16\x03\x01"].concat()), expected);
        }
    }

    #[test]
    fn what_is_no_header_is_none() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"GET / HTTP/1.1\r\n",
            b"proxy TCP4 198.18.0.1 198.18.0.2 1 443\r\n",
            b"PROXY  TCP4 198.18.0.1 198.18.0.2 1 443\r\n",
            b"PROXY TCP4 198.18.0.1 198.18.0.2 1\r\n",
            b"PROXY TCP4 198.18.0.1 198.18.0.2 1 443 x\r\n",
            b"PROXY TCP4 198.18.0.1 198.18.0.2 01 443\r\n",
            b"PROXY TCP4 198.18.0.1 198.18.0.2 1 65536\r\n",
            b"PROXY TCP4 198.18.0.1 198.18.0.2 +1 443\r\n",
            b"PROXY TCP4 198.18.0.01 198.18.0.2 1 443\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 443\r\n",
            b"PROXY TCP6 198.18.0.1 198.18.0.2 1 443\r\n",
            b"PROXY UDP4 198.18.0.1 198.18.0.2 1 443\r\n",
            b"PROXY UNKNOWNS\r\n",
            long.as_bytes(),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 12]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x31, &[0; 216]),
            &v2(0x21, 0x11, &[0; LONGEST_V2 + 1]),
        ] {
            assert_eq!(header(bytes), Header::Wrong, "{}", bytes.escape_ascii());
        }
    }
}
