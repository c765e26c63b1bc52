//! Capture files: written by the daemon's command line and read by another parser, read in every form that people have, and
//! judged as packets are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use enforcer::{
    capture::{
        file::{Capture, Captured},
        writer::Writer,
    },
    cli::{args::Explain, explain},
    config,
};
use enforcer_tests::{
    packets::*,
    pcapng::{self, Packet},
};
use proptest::prelude::*;

/// The instant of the first packet, in nanoseconds since 1970.
const BEGIN: u64 = 1_700_000_000_123_456_789;

fn hello(version: u16) -> Vec<u8> {
    tcp_frame(SOURCE_V4.into(), 443, DATA, &Hello::legacy(version).bytes())
}

fn written(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    for (time, frame) in frames {
        writer.add("eth0", *time, frame.len(), frame, "enforcer: drop tls_version").unwrap();
    }
    bytes
}

fn read(bytes: Vec<u8>) -> anyhow::Result<Vec<Captured>> {
    let mut capture = Capture::read(Box::new(std::io::Cursor::new(bytes)))?;
    let mut packets = Vec::new();
    while let Some(packet) = capture.next_packet()? {
        packets.push(packet);
    }
    Ok(packets)
}

/// A pcap file of these packets; `magic` says of which byte order and resolution.
fn pcap(magic: u32, link: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [magic, 2 | 4 << 16, 0, 0, 65_535, link] {
        file.extend(word.to_le_bytes());
    }
    for (seconds, fraction, data) in packets {
        for word in [*seconds, *fraction, data.len() as u32, data.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(*data);
    }
    file
}

#[test]
fn another_parser_reads_what_is_written() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    writer.add("eth0", BEGIN, 1_500, &[1, 2, 3], "first").unwrap();
    writer.add("eth1", BEGIN + 1, 4, &[4; 4], "second").unwrap();
    writer.add("eth0", BEGIN + 2, 5, &[5; 5], "third").unwrap();
    let contents = pcapng::read(&bytes).unwrap();
    assert_eq!(contents.interfaces, [("eth0".to_owned(), 9), ("eth1".to_owned(), 9)]);
    let packet = |interface, time, length, bytes: &[u8], comment: &str| Packet {
        interface,
        time,
        length,
        bytes: bytes.to_vec(),
        comment: comment.to_owned(),
    };
    let expected = [
        packet(0, BEGIN, 1_500, &[1, 2, 3], "first"),
        packet(1, BEGIN + 1, 4, &[4; 4], "second"),
        packet(0, BEGIN + 2, 5, &[5; 5], "third"),
    ];
    assert_eq!(contents.packets, expected);
    assert_eq!(read(bytes).unwrap()[0], Captured { unix_ns: BEGIN, bytes: vec![1, 2, 3], length: 1_500 });
}

#[test]
fn every_usual_form_of_a_capture_is_read() {
    let frame = hello(0x0301);
    let packet = &frame[14..];
    let bare = [&[0; 12][..], &[0x08, 0x00], packet].concat();
    let cooked = [&[0; 14][..], &[0x08, 0x00], packet].concat();
    let cooked2 = [&[0x08, 0x00][..], &[0; 18], packet].concat();
    let (micro, nano) = (0xa1b2_c3d4, 0xa1b2_3c4d);
    for (file, unix_ns, expected) in [
        (pcap(micro, 1, &[(7, 5, &frame)]), 7_000_005_000, &frame),
        (pcap(nano, 1, &[(7, 5, &frame)]), 7_000_000_005, &frame),
        (pcap(nano, 101, &[(7, 5, packet)]), 7_000_000_005, &bare),
        (pcap(nano, 113, &[(7, 5, &cooked)]), 7_000_000_005, &bare),
        (pcap(nano, 276, &[(7, 5, &cooked2)]), 7_000_000_005, &bare),
    ] {
        let found = read(file).unwrap();
        assert_eq!(found, [Captured { unix_ns, bytes: expected.clone(), length: expected.len() }]);
    }
    let unknown = read(pcap(micro, 105, &[(7, 5, &frame)])).unwrap_err();
    assert!(format!("{unknown:#}").contains("packet 1: link type 105"), "{unknown:#}");
    assert!(read(b"not a capture at all, but a text".to_vec()).is_err());
    assert!(read(Vec::new()).is_err());
}

/// A folder with files, and `explain` over it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reason and rule of each packet of the capture.
    fn explain(
        &self,
        config: &[u8],
        change: impl FnOnce(&mut Explain),
    ) -> anyhow::Result<Vec<(String, String)>> {
        let text = std::str::from_utf8(config).unwrap();
        let kernel = config::parse(text, Path::new("test.toml")).unwrap().kernel;
        let (pcap, quiet) = (self.path("capture"), false);
        let mut verb = Explain { pcap, config: None, bans: None, to: None, quiet };
        change(&mut verb);
        let mut rows = Vec::new();
        explain::judge_all(&kernel, &verb, |row| rows.push((row.reason.to_owned(), row.rule.clone())))?;
        Ok(rows)
    }
}

const PLAIN: &[u8] = br#"
[kernel]
mode = "off"
[[listener]]
address = "[::]:443"
certificates = [{ chain = "none", key = "none" }]
"#;

const CONFIG: &[u8] = br#"
[kernel]
mode = "off"
allow = ["198.18.0.0/24"]
limits = { packets = { rate = "1/s", burst = 2 } }
[[listener]]
address = "[::]:443"
certificates = [{ chain = "none", key = "none" }]
"#;

#[test]
fn a_capture_is_judged_by_the_configuration_and_the_bans_that_are_named() {
    let frames = [(BEGIN, hello(0x0301)), (BEGIN + 1, hello(0x0303))];
    let folder = Folder::new(&[
        ("capture", &written(&frames)),
        ("bans", b"198.18.0.0/15 # everybody\n"),
        ("wrong", b"198.18.0.0/15\neverybody\n"),
    ]);
    let pair = |reason: &str, rule: &str| (reason.to_owned(), rule.to_owned());
    let minimum = "kernel.minimum_tls is \"1.2\"";
    assert_eq!(
        folder.explain(PLAIN, |_| {}).unwrap(),
        // No SYN was seen, so that the refusal is not remembered: it could be forged.
        [pair("tls_version", minimum), pair("hello_accepted", minimum)]
    );
    let bans = |verb: &mut Explain| verb.bans = Some(folder.path("bans"));
    let banned = pair("banned_prefix", "198.18.0.0/15 is banned");
    assert_eq!(folder.explain(PLAIN, bans).unwrap(), [banned.clone(), banned]);
    let allowed = pair("allowed", "198.18.0.0/24 is allowed");
    assert_eq!(folder.explain(CONFIG, bans).unwrap(), [allowed.clone(), allowed]);
    assert_eq!(folder.explain(PLAIN, |verb| verb.to = "2001:db8::/32".parse().ok()).unwrap(), []);

    let absent = folder.explain(PLAIN, |verb| verb.pcap = folder.path("absent")).unwrap_err();
    assert!(format!("{absent:#}").contains("absent"), "{absent:#}");
    let wrong = folder.explain(PLAIN, |verb| verb.bans = Some(folder.path("wrong"))).unwrap_err();
    assert!(format!("{wrong:#}").contains("line 2"), "{wrong:#}");
}

/// Nobody says of half a packet what would have become of the whole one, unless the half decides.
#[test]
fn what_was_cut_off_is_not_judged() {
    let (old, good) = (hello(0x0301), hello(0x0303));
    let banned = tcp_frame("198.18.5.5".parse().unwrap(), 443, DATA, &[0x17; 300]);
    let data = tcp_frame(SOURCE_V4.into(), 443, DATA, &[0x17; 300]);
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file).unwrap();
    for (time, frame, kept) in [
        (0, &old, old.len()),
        (1, &old, 80),
        (2, &good, 80),
        (3, &banned, 60),
        (4, &data, 128),
        (5, &data, 20),
    ] {
        writer.add("eth0", BEGIN + time, frame.len(), &frame[..kept], "").unwrap();
    }
    let folder = Folder::new(&[("capture", &file), ("bans", b"198.18.5.5\n")]);
    let judged = folder.explain(PLAIN, |verb| verb.bans = Some(folder.path("bans"))).unwrap();
    let reasons: Vec<&str> = judged.iter().map(|(reason, _)| &**reason).collect();
    assert_eq!(reasons, ["tls_version", "cut", "cut", "banned", "clean", "cut"]);
    assert_eq!(judged[1].1, "what decides was not captured");
}

/// Names and fingerprints are found in hellos that go over several packets, too; the packet that is dropped may show neither.
#[test]
fn listed_hellos_are_told_from_others() {
    let asking = |name: &str| {
        let length = name.len() as u16;
        let list = [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name.as_bytes()].concat();
        Hello { extensions: None, ..Hello::legacy(0x0303) }.with(0, &list).with(10, &[0, 2, 0, 29]).bytes()
    };
    let (refused, served) = (asking("www.Example.com"), asking("api.example.com"));
    // Of others, so that nothing is remembered of them where the connection below begins.
    let whole = |bytes: &[u8]| tcp_frame([198, 18, 0, 99].into(), 443, DATA, bytes);
    let part = |at: usize, bytes: &[u8]| tcp_at(SOURCE_V4.into(), 443, 7_001 + at as u32, DATA, bytes);
    let syn = tcp_at(SOURCE_V4.into(), 443, 7_000, SYN, &[]);
    let frames = [whole(&refused), whole(&served), syn, part(0, &refused[..60]), part(60, &refused[60..])];
    let frames: Vec<_> =
        frames.into_iter().enumerate().map(|(at, frame)| (BEGIN + at as u64, frame)).collect();
    let folder = Folder::new(&[("capture", &written(&frames))]);
    let judged = |lists: &str| {
        let config = [PLAIN, b"[kernel.hellos]\n", lists.as_bytes()].concat();
        folder.explain(&config, |_| {}).unwrap()
    };
    let pair = |reason: &str, rule: &str| (reason.to_owned(), rule.to_owned());
    let minimum = "kernel.minimum_tls is \"1.2\"";
    let (accepted, begun) = (pair("hello_accepted", minimum), pair("hello_incomplete", minimum));
    assert_eq!(
        judged("refuse_names = [\"*.net\", \"www.example.com\"]"),
        [
            pair("hello_name", "kernel.hellos.refuse_names has www.example.com"),
            accepted.clone(),
            pair("clean", ""),
            begun.clone(),
            pair("hello_name", "kernel.hellos.refuse_names"),
        ]
    );
    let only = judged("only_names = [\"www.example.com\"]");
    assert_eq!(only[1], pair("hello_unlisted", "kernel.hellos.only_names does not have api.example.com"));
    assert_eq!(only[4], accepted);
    let seen = enforcer::capture::hello::read(&refused).unwrap().fingerprint.unwrap();
    let by_print = judged(&format!("refuse_fingerprints = [\"{seen}\"]"));
    let rule = format!("kernel.hellos.refuse_fingerprints has {seen}");
    assert_eq!(by_print[0], pair("hello_fingerprint", &rule));
    assert_eq!(by_print[1], by_print[0], "the name plays no part");
}

/// Limits behave as they would have: by the time of the packets, not of the test.
#[test]
fn limits_go_by_the_time_of_the_capture() {
    const SECOND: u64 = 1_000_000_000;
    let frame = || tcp_frame(SOURCE_V6.into(), 80, ACK, b"data");
    let frames = [0, 1, 2, SECOND, SECOND + 1].map(|after| (BEGIN + after, frame()));
    let rows = Folder::new(&[("capture", &written(&frames))]).explain(CONFIG, |_| {}).unwrap();
    let reasons: Vec<&str> = rows.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["clean", "clean", "packet_limit", "clean", "packet_limit"]);
    assert_eq!(rows[2].1, "kernel.limits.packets is 1/s, burst 2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Captures come from anywhere: damaged ones are refused or read, and nothing else happens.
    #[test]
    fn no_damage_to_a_capture_makes_it_panic(
        new in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let frame = hello(0x0301);
        let mut file = if new { written(&[(BEGIN, frame.clone()), (BEGIN, frame)]) } else {
            pcap(0xa1b2_c3d4, 113, &[(7, 5, &frame), (8, 6, &frame)])
        };
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len() + 1));
        let _ = read(file);
    }
}
