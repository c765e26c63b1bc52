//! What a ClientHello says (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2), read from the bytes as they came.
//!
//! `handshake` asks before TLS goes on, so it is known of handshakes that fail as well. The TLS stack alone decides
//! whether a hello is acceptable; here a hello that cannot be read has no facts.

mod ja4;

use enforcer_common::hello::marks;

use crate::{checks::facts::Hello, config::Fingerprint};

/// Content type of a record with handshake messages (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// Type of the message (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;
/// Extensions that are looked into (RFC 8446 section 4.2, RFC 7301).
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
/// Characters of the list of protocols that are kept: it stays as long as its connection.
const MOST_ALPN: usize = 64;

/// Lists of a ClientHello without the values that mean nothing (GREASE, RFC 8701), in the order in which they came.
#[derive(Debug, Default)]
struct Offer<'a> {
    legacy_version: u16,
    versions: Vec<u16>,
    suites: Vec<u16>,
    extensions: Vec<u16>,
    signatures: Vec<u16>,
    protocols: Vec<&'a [u8]>,
}

impl Offer<'_> {
    /// RFC 8446 section 4.2.1: the extension decides where there is one.
    fn version(&self) -> u16 {
        self.versions.iter().copied().max().unwrap_or(self.legacy_version)
    }
}

/// The facts of a hello that begins the bytes of a connection.
pub(super) fn read(bytes: &[u8]) -> Option<Hello> {
    let message = message(bytes)?;
    let offer = parse(&message)?;
    Some(Hello {
        version: offer.version(),
        alpn: spelled(&offer.protocols),
        ja4: ja4::fingerprint(&offer)?,
        // Names play no part in it, so neither does their key.
        fingerprint: marks::read(&bytes, 0).map(|marks| Fingerprint(marks.fingerprint())),
    })
}

/// The first handshake message; it may go over several records (RFC 8446 section 5.1).
fn message(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut records = Reader(bytes);
    let mut message = Vec::with_capacity(bytes.len());
    loop {
        if records.u8()? != HANDSHAKE {
            return None;
        }
        records.u16()?;
        message.extend_from_slice(records.vector16()?);
        if let [kind, a, b, c, body @ ..] = message.as_slice() {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO {
                return None;
            }
            if let Some(body) = body.get(..length) {
                return Some(body.to_vec());
            }
        }
    }
}

fn parse(message: &[u8]) -> Option<Offer<'_>> {
    let mut reader = Reader(message);
    let mut offer = Offer { legacy_version: reader.u16()?, ..Offer::default() };
    reader.take(32)?;
    reader.vector8()?;
    offer.suites = numbers(reader.vector16()?);
    reader.vector8()?;
    // Before TLS 1.3 there need not be any.
    let Some(extensions) = reader.vector16() else { return Some(offer) };
    let mut extensions = Reader(extensions);
    while let Some(kind) = extensions.u16() {
        let content = Reader(extensions.vector16()?);
        if is_grease(kind) {
            continue;
        }
        offer.extensions.push(kind);
        match kind {
            SIGNATURE_ALGORITHMS => offer.signatures = numbers({ content }.vector16()?),
            SUPPORTED_VERSIONS => offer.versions = numbers({ content }.vector8()?),
            ALPN => {
                let mut list = Reader({ content }.vector16()?);
                while let Some(protocol) = list.vector8() {
                    offer.protocols.push(protocol);
                }
            }
            _ => {}
        }
    }
    Some(offer)
}

/// Pairs of bytes as numbers, without GREASE.
fn numbers(bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.as_chunks::<2>().0;
    pairs.iter().map(|pair| u16::from_be_bytes(*pair)).filter(|number| !is_grease(*number)).collect()
}

/// RFC 8701 section 2: 0x0a0a, 0x1a1a, ... 0xfafa.
const fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

fn spelled(protocols: &[&[u8]]) -> Box<str> {
    let list: Vec<String> =
        protocols.iter().map(|protocol| protocol.escape_ascii().to_string().replace(',', "\\x2c")).collect();
    let mut text = list.join(",");
    // All of it is ASCII.
    text.truncate(MOST_ALPN);
    text.into()
}

/// Bytes that are still to be read.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
    }

    /// What follows a length of one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// What follows a length of two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello in records of at most `size` bytes.
    fn hello(version: u16, suites: &[u16], extensions: Option<&[(u16, Vec<u8>)]>, size: usize) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(((suites.len() * 2) as u16).to_be_bytes());
        body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        body.extend([1, 0]);
        if let Some(extensions) = extensions {
            let mut list = Vec::new();
            for (kind, content) in extensions {
                list.extend(kind.to_be_bytes());
                list.extend((content.len() as u16).to_be_bytes());
                list.extend(content);
            }
            body.extend((list.len() as u16).to_be_bytes());
            body.extend(list);
        }
        let mut message = vec![CLIENT_HELLO, 0, (body.len() >> 8) as u8, body.len() as u8];
        message.extend(body);
        let record =
            |piece: &[u8]| [&[HANDSHAKE, 3, 1, (piece.len() >> 8) as u8, piece.len() as u8], piece].concat();
        message.chunks(size).flat_map(record).collect()
    }

    fn list16(numbers: &[u16]) -> Vec<u8> {
        let mut bytes = ((numbers.len() * 2) as u16).to_be_bytes().to_vec();
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        bytes
    }

    fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = protocols.iter().flat_map(|one| [&[one.len() as u8], *one].concat()).collect();
        [&(list.len() as u16).to_be_bytes()[..], &list].concat()
    }

    /// The example of the specification, with GREASE wherever a browser puts it.
    fn example() -> Vec<(u16, Vec<u8>)> {
        let order = [
            0x1a1a, 0x1b, 0, 0x33, 0x10, 0x4469, 0x17, 0x2d, 0x0d, 5, 0x23, 0x12, 0x2b, 0xff01, 0x0b, 0x0a,
            0x15, 0xfafa,
        ];
        let signatures = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
        let content = |kind: u16| match kind {
            SIGNATURE_ALGORITHMS => list16(&signatures),
            ALPN => alpn(&[b"h2", b"http/1.1"]),
            SUPPORTED_VERSIONS => vec![6, 0x2a, 0x2a, 3, 4, 3, 3],
            _ => Vec::new(),
        };
        order.into_iter().map(|kind| (kind, content(kind))).collect()
    }

    const SUITES: [u16; 16] = [
        0x4a4a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
        0x009c, 0x009d, 0x002f, 0x0035,
    ];

    #[test]
    fn the_example_of_the_specification_has_its_fingerprint_however_it_is_cut() {
        for size in [1 << 14, 100, 5, 1] {
            let facts = read(&hello(0x0303, &SUITES, Some(&example()), size)).unwrap();
            assert_eq!(facts.ja4.as_str(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
            assert_eq!((facts.version, &*facts.alpn), (0x0304, "h2,http/1.1"));
        }
        let unsigned: Vec<_> = example()
            .into_iter()
            .map(|(kind, content)| (kind, if kind == 13 { vec![0, 0] } else { content }))
            .collect();
        let facts = read(&hello(0x0303, &SUITES, Some(&unsigned), 1 << 14)).unwrap();
        assert_eq!(facts.ja4.as_str(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    /// The fingerprint that can be listed tells clients apart as JA4 does.
    /// RFC 7685.
    const PADDING: u16 = 21;

    #[test]
    fn both_fingerprints_change_together() {
        let of = |version, suites: &[u16], extensions: &[(u16, Vec<u8>)]| {
            let facts = read(&hello(version, suites, Some(extensions), 300)).unwrap();
            (facts.ja4.as_str().to_owned(), facts.fingerprint.unwrap())
        };
        let example = example();
        let mut turned = example.clone();
        turned.reverse();
        let mut suites = SUITES;
        suites.reverse();
        let same = of(0x0303, &SUITES, &example);
        assert_eq!(of(0x0303, &suites, &turned), same);
        let mut found = vec![same];
        for left_out in 0..example.len() {
            let mut fewer = example.clone();
            let (kind, _) = fewer.remove(left_out);
            // Padding is none of the client's: only JA4 counts it.
            if !is_grease(kind) && kind != PADDING {
                found.push(of(0x0303, &SUITES, &fewer));
            }
        }
        for left_out in 1..SUITES.len() {
            let fewer: Vec<u16> = SUITES
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != left_out)
                .map(|(_, suite)| *suite)
                .collect();
            found.push(of(0x0303, &fewer, &example));
        }
        for kind in [SIGNATURE_ALGORITHMS, ALPN] {
            let content = |one: u16, content: Vec<u8>| match one {
                _ if one != kind => content,
                SIGNATURE_ALGORITHMS => list16(&[0x0804, 0x0403]),
                _ => alpn(&[b"http/1.1", b"h2"]),
            };
            let other: Vec<_> = example.iter().cloned().map(|(one, old)| (one, content(one, old))).collect();
            found.push(of(0x0303, &SUITES, &other));
        }
        for (at, one) in found.iter().enumerate() {
            for other in &found[..at] {
                assert!(one.0 != other.0 && one.1 != other.1, "{one:?} {other:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let _ = read(&bytes);
            // The same behind a good header, so that the inside is reached.
            let length = bytes.len() as u16;
            let record = [&[22, 3, 1][..], &(length + 4).to_be_bytes(), &[1, 0], &length.to_be_bytes(), &bytes].concat();
            let facts = read(&record);
            proptest::prop_assert!(facts.is_none_or(|facts| facts.alpn.len() <= MOST_ALPN));
        }
    }

    #[test]
    fn little_is_said_by_little() {
        let of = |version, suites: &[u16], extensions: Option<&[(u16, Vec<u8>)]>| {
            read(&hello(version, suites, extensions, 1 << 14)).unwrap().ja4.as_str().to_owned()
        };
        assert_eq!(of(0x0301, &[], None), "t10i000000_000000000000_000000000000");
        assert_eq!(of(0x0300, &[], Some(&[])), "ts3i000000_000000000000_000000000000");
        assert_eq!(of(0x0305, &[], None), "t00i000000_000000000000_000000000000");
        let names = [(0, Vec::new()), (16, alpn(&[b"http/1.1"]))];
        assert_eq!(of(0x0303, &[], Some(&names)), "t12d0002h1_000000000000_000000000000");
        let many: Vec<u16> = (1..=150).collect();
        assert!(of(0x0303, &many, None).starts_with("t12i990000_"));
    }

    #[test]
    fn protocols_that_are_no_text_are_told_in_hexadecimal() {
        for (protocol, expected) in [
            (&b"h"[..], "hh"),
            (b"", "00"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"0\xab", "3b"),
            (b"01\xab\xcd", "3d"),
            (b"0\xab\xcd1", "01"),
            (b"-x", "2 8"),
        ] {
            let facts = read(&hello(0x0303, &[], Some(&[(16, alpn(&[protocol]))]), 1 << 14)).unwrap();
            assert_eq!(&facts.ja4.as_str()[8..10], expected.replace(' ', ""), "{protocol:?}");
            assert!(facts.alpn.bytes().all(|byte| byte.is_ascii_graphic()), "{}", facts.alpn);
        }
    }

    #[test]
    fn what_is_no_hello_has_no_facts_and_nothing_panics() {
        let good = hello(0x0303, &SUITES, Some(&example()), 64);
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), None);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = read(&bad);
            }
        }
    }
}
