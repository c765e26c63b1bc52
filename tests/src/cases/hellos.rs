//! ClientHellos and what is not one.

use std::net::IpAddr;

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::Limit,
    source::SourceKey,
    verdict::Verdict::{self, Drop, Pass},
};

use super::{Case, case};
use crate::{
    packets::*,
    tables::{PROTECTED, State},
};

/// SSL 3.0 to TLS 1.3 as on the wire.
const SSL30: u16 = 0x0300;
const TLS10: u16 = 0x0301;
const TLS11: u16 = 0x0302;
const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;
/// What may come to be TLS 1.4.
const UNKNOWN: u16 = 0x0305;
/// A version that nobody means (RFC 8701).
const GREASE: u16 = 0x7a7a;

/// What Chrome puts into its post-quantum key share, in bytes.
const KEY_SHARE: usize = 1263;

fn data(bytes: &[u8]) -> Vec<u8> {
    tcp_frame(SOURCE_V4.into(), PROTECTED, DATA, bytes)
}

fn hello(name: &str, hello: &Hello, expected: Verdict) -> Case {
    case(name, data(&hello.bytes()), expected)
}

fn bytes(name: &str, bytes: &[u8], expected: Verdict) -> Case {
    case(name, data(bytes), expected)
}

pub(super) fn cases() -> Vec<Case> {
    [versions(), parts(), beginnings(), forms(), contradictions()].concat()
}

fn versions() -> Vec<Case> {
    let v13 = || Hello::offering(&[TLS13, TLS12]);
    let only = State::default().set(|settings| settings.minimum_tls = TLS13);
    let unjudged = State::default().set(|settings| settings.minimum_tls = 0);
    let bare = |version| Hello { extensions: None, ..Hello::legacy(version) };
    vec![
        hello("SSL 3.0", &Hello::legacy(SSL30), Drop(TlsVersion)),
        hello("TLS 1.0", &Hello::legacy(TLS10), Drop(TlsVersion)),
        hello("TLS 1.1", &Hello::legacy(TLS11), Drop(TlsVersion)),
        hello("TLS 1.2", &Hello::legacy(TLS12), Pass(HelloAccepted)),
        hello("TLS 1.3", &v13(), Pass(HelloAccepted)),
        hello("TLS 1.0 without extensions", &bare(TLS10), Drop(TlsVersion)),
        hello("TLS 1.2 without extensions", &bare(TLS12), Pass(HelloAccepted)),
        hello(
            "TLS 1.2 with an empty block of extensions",
            &Hello { extensions: Some(vec![]), ..bare(TLS12) },
            Pass(HelloAccepted),
        ),
        hello(
            "TLS 1.0 in a record of TLS 1.2",
            &Hello { record: TLS12, ..Hello::legacy(TLS10) },
            Drop(TlsVersion),
        ),
        hello("TLS 1.3 in a record of SSL 3.0", &Hello { record: SSL30, ..v13() }, Pass(HelloAccepted)),
        hello("TLS 1.3 in a record of 3.4", &Hello { record: TLS13, ..v13() }, Pass(HelloAccepted)),
        hello(
            "legacy version 1.0, but 1.3 is listed",
            &Hello { legacy: TLS10, ..v13() },
            Pass(HelloAccepted),
        ),
        hello("legacy version 1.2, but only 1.1 is listed", &Hello::offering(&[TLS11]), Drop(TlsVersion)),
        hello("GREASE listed first", &Hello::offering(&[GREASE, TLS13, TLS12]), Pass(HelloAccepted)),
        hello("GREASE and old versions", &Hello::offering(&[GREASE, TLS11, TLS10]), Drop(TlsVersion)),
        hello("GREASE alone", &Hello::offering(&[GREASE]), Drop(TlsVersion)),
        hello("a version that is not known alone", &Hello::offering(&[UNKNOWN]), Drop(TlsVersion)),
        hello(
            "a version that is not known beside 1.2",
            &Hello::offering(&[UNKNOWN, TLS12]),
            Pass(HelloAccepted),
        ),
        hello(
            "a version that is not known beside old ones",
            &Hello::offering(&[TLS11, UNKNOWN]),
            Drop(TlsVersion),
        ),
        hello("a draft of TLS 1.3 alone", &Hello::offering(&[0x7f1c]), Drop(TlsVersion)),
        hello("legacy version 1.3 without a list", &Hello::legacy(TLS13), Pass(HelloAccepted)),
        hello("legacy version 1.3 where it is required", &Hello::legacy(TLS13), Drop(TlsVersion))
            .with(only.clone()),
        hello("oldest version listed first", &Hello::offering(&[TLS10, TLS11, TLS12]), Pass(HelloAccepted)),
        hello(
            "thirty-two versions, the last one acceptable",
            &Hello::offering(&[[TLS10; 31].as_slice(), &[TLS12]].concat()),
            Pass(HelloAccepted),
        ),
        hello("TLS 1.2 where 1.3 is required", &Hello::legacy(TLS12), Drop(TlsVersion)).with(only.clone()),
        hello("1.2 listed where 1.3 is required", &Hello::offering(&[TLS12]), Drop(TlsVersion))
            .with(only.clone()),
        hello("TLS 1.3 where it is required", &v13(), Pass(HelloAccepted)).with(only),
        hello("TLS 1.0 where nothing is required", &Hello::legacy(TLS10), Pass(HelloAccepted))
            .with(unjudged.clone()),
        bytes("empty record where nothing is required", &record(TLS10, &[]), Pass(HelloAccepted))
            .with(unjudged),
        case(
            "IPv6: TLS 1.0",
            tcp_frame(SOURCE_V6.into(), PROTECTED, DATA, &Hello::legacy(TLS10).bytes()),
            Drop(TlsVersion),
        ),
        case(
            "IPv6: TLS 1.3",
            tcp_frame(SOURCE_V6.into(), PROTECTED, DATA, &v13().bytes()),
            Pass(HelloAccepted),
        ),
        case(
            "TLS 1.0 at the other protected port",
            tcp_frame(SOURCE_V4.into(), 8443, DATA, &Hello::legacy(TLS10).bytes()),
            Drop(TlsVersion),
        ),
        case(
            "TLS 1.0 at an open port",
            tcp_frame(SOURCE_V4.into(), 80, DATA, &Hello::legacy(TLS10).bytes()),
            Pass(Clean),
        ),
        case(
            "TLS 1.0 in a SYN (fast open)",
            tcp_frame(SOURCE_V4.into(), PROTECTED, SYN, &Hello::legacy(TLS10).bytes()),
            Drop(TlsVersion),
        ),
        case(
            "TLS 1.0 behind TCP options and a tag",
            tagged(
                &[VLAN],
                IPV4,
                &ipv4(TCP, &tcp_with(PROTECTED, DATA, &[1; 12], &Hello::legacy(TLS10).bytes())),
            ),
            Drop(TlsVersion),
        ),
    ]
}

/// Hellos that go on in another segment or record.
fn parts() -> Vec<Case> {
    let late = Hello::legacy(TLS12).with(51, &[7; KEY_SHARE]).with(43, &version_list(&[TLS13]));
    let early = Hello::legacy(TLS12).with(43, &version_list(&[TLS13, TLS12])).with(51, &[7; KEY_SHARE]);
    let old = Hello::legacy(TLS12).with(43, &version_list(&[TLS11, TLS10])).with(51, &[7; KEY_SHARE]);
    let list = Hello::legacy(TLS12).with(43, &version_list(&[GREASE, TLS13, TLS12, TLS11]));
    let whole = Hello::legacy(TLS10).bytes();
    let message = Hello::legacy(TLS10).message();
    let far = Hello::legacy(TLS12).with(21, &[0; 5000]).with(43, &version_list(&[TLS11]));
    let end = list.bytes().len();
    vec![
        bytes("hello that goes on before its versions", &late.bytes()[..1000], Pass(HelloIncomplete)),
        bytes("hello that goes on behind acceptable versions", &early.bytes()[..1000], Pass(HelloAccepted)),
        bytes("hello that goes on behind old versions", &old.bytes()[..1000], Drop(TlsVersion)),
        bytes("list cut behind an acceptable version", &list.bytes()[..end - 4], Pass(HelloAccepted)),
        bytes("list cut in front of an acceptable version", &list.bytes()[..end - 6], Pass(HelloIncomplete)),
        bytes("old hello cut in its random", &whole[..20], Pass(HelloIncomplete)),
        bytes("old hello cut in its last byte", &whole[..whole.len() - 1], Drop(TlsVersion)),
        bytes("old hello cut in its last header", &whole[..whole.len() - 5], Pass(HelloIncomplete)),
        bytes("record header alone", &whole[..5], Pass(HelloIncomplete)),
        bytes("handshake header cut", &whole[..8], Pass(HelloIncomplete)),
        bytes(
            "hello in two records",
            &[record(TLS10, &message[..40]), record(TLS10, &message[40..])].concat(),
            Drop(TlsVersion),
        ),
        bytes(
            "handshake header in a record of its own",
            &[record(TLS10, &message[..4]), record(TLS10, &message[4..])].concat(),
            Drop(TlsVersion),
        ),
        bytes(
            "hello with another record behind",
            &[whole.clone(), record(TLS10, &[0; 4])].concat(),
            Drop(TlsVersion),
        ),
        bytes("old versions behind 5,000 bytes of padding", &far.bytes(), Drop(TlsVersion)),
        bytes(
            "old versions behind a key share, whole",
            &Hello::legacy(TLS12).with(51, &[7; KEY_SHARE]).with(43, &version_list(&[TLS11])).bytes(),
            Drop(TlsVersion),
        ),
    ]
}

/// Everything shorter than what tells a hello: it counts as one, or a split behind the first byte would evade the limit.
fn beginnings() -> Vec<Case> {
    let whole = Hello::legacy(TLS12).bytes();
    let beginning = |length: usize, source: IpAddr| {
        let frame = || tcp_frame(source, PROTECTED, DATA, &whole[..length]);
        let exhausted = State::default().exhausted(Limit::Hellos, SourceKey::of(source, u64::MAX));
        let name = |what: &str| format!("{length} bytes of a hello from {source}{what}");
        let elsewhere = tcp_frame(source, 80, DATA, &whole[..length]);
        [
            case(&name(""), frame(), Pass(HelloIncomplete)),
            case(&name(", over the limit"), frame(), Drop(HelloLimit)).with(exhausted.clone()),
            case(&name(" to an open port, over the limit"), elsewhere, Pass(Clean)).with(exhausted),
        ]
    };
    let sources = [IpAddr::from(SOURCE_V4), IpAddr::from(SOURCE_V6)];
    (1..=10).flat_map(|length| sources.map(|source| beginning(length, source))).flatten().collect()
}

/// Data that does not begin like a hello.
fn forms() -> Vec<Case> {
    let with = |at: usize, byte: u8| {
        let mut whole = Hello::legacy(TLS10).bytes();
        whole[at] = byte;
        whole
    };
    vec![
        bytes("application data", &[&[0x17, 3, 3, 0, 50][..], &[0xaa; 50]].concat(), Pass(Clean)),
        bytes("alert", &[0x15, 3, 3, 0, 2, 1, 0], Pass(Clean)),
        bytes("plain HTTP", b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", Pass(Clean)),
        bytes("one byte of another record", &[0x17], Pass(Clean)),
        bytes("two bytes, major version 2", &[0x16, 2], Pass(Clean)),
        bytes("three bytes, version 3.5", &[0x16, 3, 5], Pass(Clean)),
        bytes("four bytes, version 3.5", &[0x16, 3, 5, 1], Pass(Clean)),
        bytes("handshake message of 64 KiB, cut", &with(6, 1)[..7], Pass(Clean)),
        bytes("hello of major version 2, cut", &with(9, 2)[..10], Pass(Clean)),
        bytes(
            "record that ends in a handshake header, another one behind",
            &[record(TLS10, &[1, 0, 0]), vec![0x16, 3, 1]].concat(),
            Pass(HelloIncomplete),
        ),
        bytes("record of major version 2", &with(1, 2), Pass(Clean)),
        bytes("record of version 3.5", &with(2, 5), Pass(Clean)),
        bytes("another handshake message", &with(5, 16), Pass(Clean)),
        bytes("handshake message of 64 KiB", &with(6, 1), Pass(Clean)),
        bytes("hello of major version 2", &with(9, 2), Pass(Clean)),
        bytes(
            "ciphertext that begins like an empty record",
            &[0x16, 3, 1, 0, 0, 0x99, 0x12, 0x55, 0x13],
            Pass(Clean),
        ),
        bytes("ciphertext that begins like an empty record, cut", &[0x16, 3, 1, 0, 0, 0x16], Pass(Clean)),
        bytes("SSLv2 hello", &[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80], Pass(Clean)),
        bytes("not a hello, over the hello limit", &[0x17; 40], Pass(Clean))
            .with(State::default().limited(Limit::Hellos)),
    ]
}

/// Hellos and records that contradict themselves.
fn contradictions() -> Vec<Case> {
    let whole = || Hello::legacy(TLS12).bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole();
        bytes[at] = byte;
        bytes
    };
    let length = whole().len();
    let oversize = |length: u16| {
        let mut bytes = whole();
        bytes[3..5].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let versions = |list: &[u8]| Hello::legacy(TLS12).with(43, list);
    let many = |count: usize| {
        (0..count).fold(Hello { extensions: None, ..Hello::legacy(TLS12) }, |hello, _| hello.with(21, &[]))
    };
    vec![
        bytes("empty record", &record(TLS10, &[]), Drop(MalformedHello)),
        bytes(
            "empty record in front of a hello",
            &[record(TLS10, &[]), whole()].concat(),
            Drop(MalformedHello),
        ),
        bytes("record of 16,384 bytes, cut", &oversize(1 << 14), Pass(HelloAccepted)),
        // Too long, but servers look no closer.
        bytes("record of 18,432 bytes", &oversize((1 << 14) + 2048), Pass(HelloAccepted)),
        bytes("record of 18,433 bytes", &oversize((1 << 14) + 2049), Drop(MalformedHello)),
        bytes("record of 65,535 bytes", &oversize(u16::MAX), Drop(MalformedHello)),
        bytes("session id of 33 bytes", &with(43, 33), Drop(MalformedHello)),
        bytes(
            "session id beyond the hello",
            &Hello { session: 32, suites: 1, extensions: None, ..Hello::legacy(TLS12) }.bytes()[..]
                .iter()
                .enumerate()
                .map(|(at, byte)| if at == 8 { 40 } else { *byte })
                .collect::<Vec<_>>(),
            Drop(MalformedHello),
        ),
        bytes("no cipher suites", &Hello { suites: 0, ..Hello::legacy(TLS12) }.bytes(), Drop(MalformedHello)),
        bytes("odd length of cipher suites", &with(45, 23), Drop(MalformedHello)),
        bytes("cipher suites beyond the hello", &with(44, 9), Drop(MalformedHello)),
        bytes("no compression methods", &with(46 + 24, 0), Drop(MalformedHello)),
        bytes("extensions shorter than the hello", &with(46 + 24 + 3, 29), Drop(MalformedHello)),
        bytes("extension beyond the block", &with(length - 5, 5), Drop(MalformedHello)),
        hello("no version listed", &versions(&[0]), Drop(MalformedHello)),
        hello("odd length of the list of versions", &versions(&[3, 3, 3, 3]), Drop(MalformedHello)),
        hello(
            "list of versions shorter than its extension",
            &versions(&[2, 3, 3, 3, 4]),
            Drop(MalformedHello),
        ),
        hello("empty list extension", &versions(&[]), Drop(MalformedHello)),
        hello("thirty-three good versions", &versions(&version_list(&[TLS12; 33])), Pass(HelloAccepted)),
        hello("thirty-three old versions", &versions(&version_list(&[TLS10; 33])), Drop(TlsVersion)),
        hello("forty-eight extensions", &many(48), Pass(HelloAccepted)),
        hello("forty-nine extensions", &many(49), Pass(HelloAccepted)),
    ]
}
