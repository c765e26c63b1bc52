//! ClientHellos of which names or fingerprints are listed.

use enforcer::config::{Fingerprint, Hellos, ServerName};
use enforcer_common::{
    feature::Feature,
    hello::marks,
    reason::{DropReason::*, PassReason::*},
    settings::{Limit, flag, refusal},
    source::SourceKey,
    verdict::Verdict::{self, Drop, Pass},
};

use super::{Case, case, sequence};
use crate::{
    packets::*,
    tables::{PROTECTED, State},
};

const TLS11: u16 = 0x0302;
const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;

/// The client's initial sequence number: the hello begins one behind.
const INITIAL: u32 = 5_000;

pub(super) fn cases() -> Vec<Case> {
    [names(), fingerprints(), ways(), flows()].concat()
}

/// The extension that asks for a server.
pub(crate) fn server_name(name: &str) -> Vec<u8> {
    let length = name.len() as u16;
    [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name.as_bytes()].concat()
}

/// What a browser sends, asking for a server; the name stands behind a post-quantum key share.
fn hello(name: &str) -> Vec<u8> {
    modern(Some(name)).bytes()
}

fn modern(name: Option<&str>) -> Hello {
    let hello = Hello { session: 32, suites: 16, extensions: Some(vec![]), ..Hello::legacy(TLS12) };
    let hello = hello
        .with(0x2a2a, &[])
        .with(43, &version_list(&[0x7a7a, TLS13, TLS12]))
        .with(51, &[7; 1_216])
        .with(13, &[0, 6, 4, 3, 8, 4, 4, 1])
        .with(16, &[0, 12, 2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1']);
    let hello = match name {
        Some(name) => hello.with(0, &server_name(name)),
        None => hello,
    };
    hello.with(45, &[1, 1]).with(0xfafa, &[])
}

fn print(hello: &[u8]) -> Fingerprint {
    Fingerprint(marks::read(&hello, 0).map_or(0, |marks| marks.fingerprint()))
}

fn listed(names: &[&str]) -> Vec<ServerName> {
    let read = |text: &&str| match text.strip_prefix("*.") {
        Some(name) => ServerName { name: name.to_owned(), below: true },
        None => ServerName { name: (*text).to_owned(), below: false },
    };
    names.iter().map(read).collect()
}

fn refusing(names: &[&str]) -> State {
    State::default().listing_hellos(&Hellos { refuse_names: listed(names), ..Hellos::default() })
}

fn serving(names: &[&str]) -> State {
    State::default().listing_hellos(&Hellos { only_names: listed(names), ..Hellos::default() })
}

fn refusing_print(hello: &[u8]) -> State {
    State::default().listing_hellos(&Hellos { refuse_fingerprints: vec![print(hello)], ..Hellos::default() })
}

fn data(bytes: &[u8]) -> Vec<u8> {
    tcp_frame(SOURCE_V4.into(), PROTECTED, DATA, bytes)
}

fn part(at: usize, flags: u8, data: &[u8]) -> Vec<u8> {
    tcp_at(SOURCE_V4.into(), PROTECTED, INITIAL + 1 + at as u32, flags, data)
}

/// A flow from its SYN on, with data in these segments.
fn flow(name: &str, parts: Vec<(Vec<u8>, Verdict)>) -> Case {
    let syn = tcp_at(SOURCE_V4.into(), PROTECTED, INITIAL, SYN, &[]);
    sequence(name, [vec![(syn, Pass(Clean))], parts].concat())
}

/// A hello in segments of one length; the last one gets the verdict.
fn cut(name: &str, hello: &[u8], length: usize, verdict: Verdict) -> Case {
    let count = hello.len().div_ceil(length);
    let parts = hello.chunks(length).enumerate().map(|(number, data)| {
        let expected = if number + 1 == count { verdict } else { Pass(HelloIncomplete) };
        (part(number * length, DATA, data), expected)
    });
    flow(name, parts.collect())
}

fn names() -> Vec<Case> {
    let asks = |name: &str, asked: &str, state: State, expected: Verdict| {
        case(&format!("{name}, asked for {asked}"), data(&hello(asked)), expected).with(state)
    };
    let nameless = data(&modern(None).bytes());
    let empty = data(&modern(None).with(0, &[]).with(7, &[]).bytes());
    let broken = data(&modern(None).with(0, &[0, 9, 0, 0, 9, b'a']).with(7, &[]).bytes());
    let another_type = data(&modern(None).with(0, &[0, 5, 1, 0, 2, b'a', b'b']).with(7, &[]).bytes());
    let both = Hellos {
        refuse_names: listed(&["bad.example.com"]),
        only_names: listed(&["*.example.com"]),
        ..Hellos::default()
    };
    let both = State::default().listing_hellos(&both);
    let exact = || refusing(&["www.example.com"]);
    let below = || refusing(&["*.example.com"]);
    vec![
        asks("a refused name", "www.example.com", exact(), Drop(HelloName)),
        asks("a refused name", "WWW.Example.COM", exact(), Drop(HelloName)),
        asks("a refused name", "www.example.com.", exact(), Drop(HelloName)),
        asks("a refused name", "example.com", exact(), Pass(HelloAccepted)),
        asks("a refused name", "x.www.example.com", exact(), Pass(HelloAccepted)),
        asks("a refused name", "ww.wexample.com", exact(), Pass(HelloAccepted)),
        asks("all below a name", "www.example.com", below(), Drop(HelloName)),
        asks("all below a name", "a.b.c.example.com", below(), Drop(HelloName)),
        asks("all below a name", "1.2.3.4.5.6.7.8.9.example.com", below(), Drop(HelloName)),
        asks("all below a name", "example.com", below(), Pass(HelloAccepted)),
        asks("all below a name", "notexample.com", below(), Pass(HelloAccepted)),
        asks("all below a name", "com", below(), Pass(HelloAccepted)),
        asks(
            "the longest name that is compared",
            "a.b.c.d.e.f.g.h",
            refusing(&["a.b.c.d.e.f.g.h"]),
            Drop(HelloName),
        ),
        asks(
            "the longest name that is compared",
            "x.a.b.c.d.e.f.g.h",
            refusing(&["a.b.c.d.e.f.g.h"]),
            Pass(HelloAccepted),
        ),
        asks("all below one label", "a.b.test", refusing(&["*.test"]), Drop(HelloName)),
        asks("only some names", "api.example.com", serving(&["api.example.com"]), Pass(HelloAccepted)),
        asks("only some names", "www.example.com", serving(&["api.example.com"]), Drop(HelloUnlisted)),
        asks("only names below one", "www.example.com", serving(&["*.example.com"]), Pass(HelloAccepted)),
        asks("only names below one", "example.com", serving(&["*.example.com"]), Drop(HelloUnlisted)),
        asks("refused among those that are served", "bad.example.com", both.clone(), Drop(HelloName)),
        asks("refused among those that are served", "api.example.com", both, Pass(HelloAccepted)),
        case("no name where some are refused", nameless.clone(), Pass(HelloAccepted)).with(below()),
        case("no name where only some are served", nameless, Drop(HelloUnlisted)).with(serving(&["*.com"])),
        case("an empty name where some are refused", empty, Pass(HelloAccepted)).with(below()),
        case("a name that contradicts itself", broken, Drop(HelloUnlisted)).with(serving(&["*.com", "a"])),
        case("a name of another type", another_type, Drop(HelloUnlisted)).with(serving(&["*.com", "ab"])),
        case(
            "IPv6: a refused name",
            tcp_frame(SOURCE_V6.into(), PROTECTED, DATA, &hello("a.test")),
            Drop(HelloName),
        )
        .with(refusing(&["a.test"])),
        case(
            "a refused name at an open port",
            tcp_frame(SOURCE_V4.into(), 80, DATA, &hello("a.test")),
            Pass(Clean),
        )
        .with(refusing(&["a.test"])),
        case(
            "an old version with a refused name",
            data(&Hello::legacy(TLS11).with(0, &server_name("a.test")).bytes()),
            Drop(TlsVersion),
        )
        .with(refusing(&["a.test"])),
        case(
            "a refused name and no extension besides",
            data(&Hello { extensions: None, ..Hello::legacy(TLS12) }.with(0, &server_name("a.test")).bytes()),
            Drop(HelloName),
        )
        .with(refusing(&["a.test"])),
        case(
            "no extensions where only some names are served",
            data(&Hello { extensions: None, ..Hello::legacy(TLS12) }.bytes()),
            Drop(HelloUnlisted),
        )
        .with(serving(&["a.test"])),
    ]
}

fn fingerprints() -> Vec<Case> {
    let known = hello("www.example.com");
    let mut shuffled = modern(Some("other.example.org"));
    shuffled.extensions.iter_mut().for_each(|extensions| extensions.reverse());
    let other = modern(Some("www.example.com")).with(5, &[1, 0, 0, 0, 0]).bytes();
    let state = || refusing_print(&known);
    let rehearsed = |features: &[Feature], state: State| {
        let mask = features.iter().fold(0, |mask, feature| mask | feature.reasons());
        state.set(|settings| settings.dry_run = mask)
    };
    let both = Hellos {
        refuse_names: listed(&["www.example.com"]),
        refuse_fingerprints: vec![print(&known)],
        ..Hellos::default()
    };
    let both = State::default().listing_hellos(&both);
    vec![
        case("a refused fingerprint", data(&known), Drop(HelloFingerprint)).with(state()),
        case("a refused fingerprint in another order", data(&shuffled.bytes()), Drop(HelloFingerprint))
            .with(state()),
        case("one more extension than is refused", data(&other), Pass(HelloAccepted)).with(state()),
        case("a refused fingerprint, rehearsed", data(&known), Pass(HelloAccepted))
            .with(rehearsed(&[Feature::HelloFingerprints], state())),
        case("a refused fingerprint, names rehearsed", data(&known), Drop(HelloFingerprint))
            .with(rehearsed(&[Feature::HelloNames], both.clone())),
        case("a refused name, fingerprints rehearsed", data(&known), Drop(HelloName))
            .with(rehearsed(&[Feature::HelloFingerprints], both.clone())),
        case("both rehearsed", data(&known), Pass(HelloAccepted))
            .with(rehearsed(&[Feature::HelloNames, Feature::HelloFingerprints], both.clone())),
        case("both refused", data(&known), Drop(HelloName)).with(both),
        case("a fingerprint that is a name's hash", data(&known), Pass(HelloAccepted)).with({
            let mut state = state();
            state.hellos.iter_mut().for_each(|(_, bits)| *bits = 0b1111);
            state
        }),
    ]
}

/// However the hello comes.
fn ways() -> Vec<Case> {
    let refused = hello("www.example.com");
    let served = hello("api.example.com");
    let mut cases = Vec::new();
    for length in [1, 2, 3, 7, 61, 300, 1_000, 1_460, refused.len()] {
        let name = |what: &str| format!("{what} in segments of {length}");
        let below = refusing(&["www.example.com"]);
        let print = refusing_print(&refused);
        cases.push(cut(&name("a refused name"), &refused, length, Drop(HelloName)).with(below.clone()));
        cases.push(cut(&name("another name"), &served, length, Pass(HelloAccepted)).with(below));
        cases.push(cut(&name("a refused fingerprint"), &served, length, Drop(HelloFingerprint)).with(print));
    }
    let message = modern(Some("www.example.com")).message();
    for size in [1, 5, 100, 1_350] {
        let records: Vec<u8> = message.chunks(size).flat_map(|part| record(TLS12, part)).collect();
        let name = |what: &str| format!("a refused {what} in records of {size}");
        // 1,400 records of one byte take fewer steps than the program makes.
        cases.push(cut(&name("name"), &records, 900, Drop(HelloName)).with(refusing(&["*.example.com"])));
        cases.push(
            cut(&name("fingerprint"), &records, 900, Drop(HelloFingerprint)).with(refusing_print(&refused)),
        );
        cases.push(
            case(&format!("{} without a SYN", name("name")), data(&records), Drop(HelloName))
                .with(refusing(&["*.example.com"])),
        );
    }
    cases
}

/// What a list changes in the life of a flow.
fn flows() -> Vec<Case> {
    let (bad, good) = (hello("www.example.com"), hello("api.example.com"));
    let state = || refusing(&["www.example.com"]);
    let incomplete = Pass(HelloIncomplete);
    let mode = |mode| state().set(|settings| settings.refusal = mode);
    let answered = |name: &str, how, later| {
        let parts = vec![
            (part(0, DATA, &bad[..900]), incomplete),
            (part(900, DATA, &bad[900..]), Drop(HelloName)),
            (part(bad.len(), ACK, &[]), later),
        ];
        flow(&format!("a refused name and what follows, {name}"), parts).with(mode(how))
    };
    let behind = bad.len();
    let decoy = modern(None).with(21, &[0; 900]).with(10, &[0; 4]).bytes();
    let source = SourceKey::of(SOURCE_V4.into(), u64::MAX);
    let longer = [&good[..], &record(TLS12, &[0; 900])].concat();
    vec![
        answered("alert", refusal::ALERT, Pass(ServerReset)),
        answered("reset", refusal::RESET, Drop(RefusedConnection)),
        answered("poison", refusal::POISON, Drop(RefusedConnection)),
        answered("drop", refusal::DROP, Pass(ServerReset)),
        flow(
            "the first segment of a listed hello twice, then the rest",
            vec![
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part(0, DATA, &bad[..1_000]), Pass(Clean)),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
            ],
        )
        .with(state()),
        flow(
            "the last segment of a listed hello again",
            vec![
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
                (part(1_000, DATA, &bad[1_000..]), Pass(ServerReset)),
            ],
        )
        .with(state()),
        flow(
            "a whole listed hello in place of a longer beginning",
            vec![
                (part(0, DATA, &decoy[..behind + 100]), incomplete),
                (part(0, DATA, &bad), Drop(HelloChanged)),
            ],
        )
        .with(state()),
        flow(
            "a listed hello with a forged part of another one at a second SYN in between",
            vec![
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part((1 << 20) - 1, SYN, &[]), Pass(Clean)),
                (part(1 << 20, DATA, &good[..1_000]), incomplete),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
            ],
        )
        .with(state()),
        flow(
            "a listed hello in place of one that the server ignores, each segment again, and whole",
            vec![
                (part(0, DATA, &good), Pass(HelloAccepted)),
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloChanged)),
                (part(bad.len() - 1, DATA, &bad[bad.len() - 1..]), Drop(HelloChanged)),
                (part(0, DATA, &bad[..1_000]), Drop(HelloChanged)),
                (part(0, DATA, &bad), Drop(HelloChanged)),
                (part(bad.len(), DATA, &[0x17; 40]), Pass(Clean)),
            ],
        )
        .with(state()),
        flow(
            "a listed hello at one of two SYNs, each segment again, and whole",
            vec![
                (part((1 << 20) - 1, SYN, &[]), Pass(Clean)),
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloAhead)),
                (part(0, DATA, &bad), Drop(HelloChanged)),
                (part(1 << 20, DATA, &good[..1_000]), incomplete),
                (part((1 << 20) + 1_000, DATA, &good[1_000..]), Pass(HelloAccepted)),
                (part((1 << 20) + 1_000, DATA, &good[1_000..]), Pass(Clean)),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloAhead)),
                (part(0, DATA, &bad), Drop(HelloChanged)),
            ],
        )
        .with(state()),
        sequence(
            "a listed hello in a SYN that the server does not take, then in segments, and again",
            vec![
                (part(0, SYN, &bad), Drop(HelloName)),
                (part(1, DATA, &bad[..1_000]), incomplete),
                (part(1_001, DATA, &bad[1_000..]), Drop(HelloName)),
                (part(1_001, DATA, &bad[1_000..]), Drop(HelloChanged)),
            ],
        )
        .with(state()),
        flow(
            "a hello that is not listed again, in other cuts",
            vec![
                (part(0, DATA, &good[..1_000]), incomplete),
                (part(1_000, DATA, &good[1_000..]), Pass(HelloAccepted)),
                (part(1_000, DATA, &good[1_000..]), Pass(Clean)),
                (part(0, DATA, &good[..500]), Pass(Clean)),
                (part(0, DATA, &good), Pass(Clean)),
            ],
        )
        .with(state()),
        flow(
            "the second segment of a listed hello first",
            vec![
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloAhead)),
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
            ],
        )
        .with(state()),
        flow(
            "what follows a hello that is not listed",
            vec![
                (part(0, DATA, &good[..1_000]), incomplete),
                (part(1_000, DATA, &good[1_000..]), Pass(HelloAccepted)),
                (part(good.len(), DATA, &[0x14, 3, 3, 0, 1, 1]), Pass(Clean)),
            ],
        )
        .with(state()),
        sequence(
            "the last segment of a listed hello again, without a SYN",
            vec![
                (part(0, DATA, &bad[..1_000]), incomplete),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
                (part(1_000, DATA, &bad[1_000..]), Drop(HelloName)),
            ],
        )
        .with(state()),
        sequence(
            "what follows a hello that is not listed, without a SYN",
            vec![
                (part(0, DATA, &good), Pass(HelloAccepted)),
                (part(good.len(), DATA, &[0x14, 3, 3, 0, 1, 1]), Pass(Clean)),
                (part(good.len() + 6, DATA, &[0x17; 40]), Pass(Clean)),
            ],
        )
        .with(state()),
        case(
            "a listed hello in a SYN (fast open)",
            tcp_frame(SOURCE_V4.into(), PROTECTED, SYN, &bad),
            Drop(HelloName),
        )
        .with(state()),
        case("a listed hello with more behind it", data(&longer), Pass(HelloAccepted)).with(state()),
        case("a listed hello, over the hello limit", data(&bad), Drop(HelloLimit))
            .with(state().exhausted(Limit::Hellos, source)),
        case("a listed hello that finds no room", data(&bad), Pass(HelloUnfollowed)).with(state().crowded()),
        case("a listed hello that finds no room, strictly", data(&bad), Drop(UnknownConnection))
            .with(state().crowded().set(|settings| settings.flags |= flag::STRICT_CONNECTIONS)),
        flow(
            "a whole hello far from where one is awaited",
            vec![
                (part(0, DATA, &good[..1_000]), incomplete),
                (part(1 << 20, DATA, &bad), Drop(HelloAhead)),
                (part(1_000, DATA, &good[1_000..]), Pass(HelloAccepted)),
            ],
        )
        .with(state()),
    ]
}
