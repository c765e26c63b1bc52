//! Hellos that are read to their end: whatever way they come, the same marks; and what a fingerprint hangs on.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::hello::marks::{self, LABELS};

const KEY: u64 = 0x0123_4567_89ab_cdef;

/// What a hello is made of.
#[derive(Clone, Debug)]
struct Made {
    suites: Vec<u16>,
    /// With their contents; without versions.
    extensions: Vec<(u16, Vec<u8>)>,
    versions: Vec<u16>,
}

fn lengthy(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn numbers(list: &[u16]) -> Vec<u8> {
    list.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn server_name(name: &str) -> (u16, Vec<u8>) {
    (0, lengthy(&[&[0][..], &lengthy(name.as_bytes())].concat()))
}

fn protocols(list: &[&str]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = list.iter().flat_map(|one| [&[one.len() as u8], one.as_bytes()].concat()).collect();
    (16, lengthy(&list))
}

fn signatures(list: &[u16]) -> (u16, Vec<u8>) {
    (13, lengthy(&numbers(list)))
}

impl Made {
    fn stream(&self, records: &[usize]) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        let list = numbers(&self.versions);
        extensions.insert(extensions.len() / 2, (43, [&[list.len() as u8][..], &list].concat()));
        let block: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &lengthy(content)].concat())
            .collect();
        let mut body = Vec::from([3, 3]);
        body.extend([0x5a; 32]);
        body.push(0);
        body.extend(lengthy(&numbers(&self.suites)));
        body.extend([1, 0]);
        body.extend(lengthy(&block));
        let message = [&[1, 0][..], &lengthy(&body)].concat();
        in_records(&message, records)
    }

    fn fingerprint(&self) -> u64 {
        marks::read(&&*self.stream(&[]), KEY).unwrap().fingerprint()
    }
}

fn example() -> Made {
    Made {
        suites: vec![0x1301, 0x1302, 0xc02b],
        extensions: vec![
            server_name("api.Example.com"),
            (10, vec![0, 2, 0, 29]),
            protocols(&["h2", "http/1.1"]),
            signatures(&[0x0403, 0x0804]),
            (51, vec![7; 40]),
        ],
        versions: vec![0x0304, 0x0303],
    }
}

/// What of marks can be asked for: what lies in labels that were not read means nothing.
fn told(marks: &Marks) -> (u64, u32, Vec<u64>) {
    let taken = marks.labels().min(LABELS as u32);
    let suffixes = (0..taken).scan(marks.root(), |suffix, taken| {
        *suffix = marks.wider(*suffix, taken);
        Some(*suffix)
    });
    (marks.fingerprint(), marks.labels(), suffixes.collect())
}

fn made() -> impl Strategy<Value = Made> {
    let other = (1u16..60, vec(any::<u8>(), 0..80))
        .prop_filter("has a meaning", |(kind, _)| ![13, 16, 43].contains(kind));
    let known = prop_oneof![
        "[a-zA-Z.]{0,40}".prop_map(|name| server_name(&name)),
        vec("[a-z0-9/.]{0,9}", 0..3)
            .prop_map(|list| protocols(&list.iter().map(String::as_str).collect::<Vec<_>>())),
        vec(any::<u16>(), 0..12).prop_map(|list| signatures(&list)),
        (Just(0u16), vec(any::<u8>(), 0..12)),
        (Just(13u16), vec(any::<u8>(), 0..12)),
        (Just(16u16), vec(any::<u8>(), 0..12)),
    ];
    let extensions = vec(prop_oneof![other, known], 0..8);
    (vec(any::<u16>(), 1..30), extensions, vec(prop_oneof![0x0301u16..0x0306, Just(0x7a7a)], 1..5))
        .prop_map(|(suites, extensions, versions)| Made { suites, extensions, versions })
}

/// What comes of segments in this order, each as far as it is not dropped.
fn gather(stream: &[u8], segments: &[(usize, usize)]) -> (Kind, Option<(u64, u32, Vec<u64>)>) {
    let mut bucket = opened(77);
    for (at, length) in segments {
        let mut marks = Marks::NONE;
        let segment = Segment { whole: 1, key: KEY, ..segment(77, *at, *length) };
        let followed = follow(&mut bucket, &segment, &stream, &mut marks);
        if !matches!(followed.kind, Kind::Part | Kind::Behind | Kind::Ahead) {
            return (followed.kind, followed.whole.then(|| told(&marks)));
        }
    }
    (Kind::Part, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// However a hello is cut into records and segments, in whatever order they come and how often.
    #[test]
    fn the_way_does_not_matter(
        made in made(),
        records in vec(1usize..200, 0..6),
        cuts in vec(any::<Index>(), 0..8),
        order in vec(any::<Index>(), 0..12),
    ) {
        let stream = made.stream(&records);
        let parts = borders(stream.len(), &cuts);
        let mut sent: Vec<_> = order.iter().map(|index| *index.get(&parts)).collect();
        sent.extend(&parts);
        let (kind, found) = gather(&stream, &sent);
        let good = made.versions.iter().any(|version| (MINIMUM..=0x0304).contains(version));
        prop_assert_eq!(kind, if good { Kind::Accepted } else { Kind::Refused });
        let whole = marks::read(&&*made.stream(&[]), KEY).unwrap();
        prop_assert_eq!(found, good.then(|| told(&whole)));
    }

    #[test]
    fn order_and_grease_do_not_matter(made in made(), swaps in vec((any::<Index>(), any::<Index>()), 0..9), at in any::<Index>()) {
        // Of two extensions of a kind the order would matter; servers refuse such hellos.
        let mut made = made;
        made.extensions.sort();
        made.extensions.dedup_by_key(|(kind, _)| *kind);
        let mut other = made.clone();
        for (one, two) in &swaps {
            let length = other.suites.len();
            other.suites.swap(one.index(length), two.index(length));
            if let length @ 1.. = other.extensions.len() {
                other.extensions.swap(one.index(length), two.index(length));
            }
        }
        other.suites.insert(at.index(other.suites.len() + 1), 0x3a3a);
        other.extensions.insert(at.index(other.extensions.len() + 1), (0xdada, vec![0]));
        other.versions.insert(at.index(other.versions.len() + 1), 0x4a4a);
        prop_assert_eq!(other.fingerprint(), made.fingerprint());
    }
}

#[test]
fn whatever_is_offered_shows_in_the_fingerprint_but_not_to_whom() {
    let example = example();
    let with = |at: usize, extension: (u16, Vec<u8>)| {
        let mut made = example.clone();
        made.extensions[at] = extension;
        made.fingerprint()
    };
    assert_eq!(with(0, server_name("another.example.org")), example.fingerprint());
    let without = |at: usize| {
        let mut made = example.clone();
        made.extensions.remove(at);
        made.fingerprint()
    };
    let mut all = vec![
        example.fingerprint(),
        with(2, protocols(&["http/1.1", "h2"])),
        with(2, protocols(&[""])),
        with(3, signatures(&[0x0804, 0x0403])),
        with(3, signatures(&[0x0403])),
        with(1, (11, vec![0, 2, 0, 29])),
        Made { suites: vec![0x1301, 0x1302], ..example.clone() }.fingerprint(),
        Made { suites: vec![0x1301, 0x1302, 0xc02b, 0xc02b], ..example.clone() }.fingerprint(),
        Made { versions: vec![0x0303], ..example.clone() }.fingerprint(),
    ];
    all.extend((0..5).map(without));
    let different: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:016x?}");
}

/// Fingerprints stand in configurations: they must not change with the program.
#[test]
fn the_fingerprint_of_the_example_stays() {
    assert_eq!(example().fingerprint(), 0x6bfdbeedb38b4ce7);
}

#[test]
fn a_name_is_found_by_its_suffixes() {
    let read = |name: &str| {
        let made = Made { extensions: vec![server_name(name)], ..example() };
        told(&marks::read(&&*made.stream(&[]), KEY).unwrap())
    };
    let of = |name: &str| marks::of_name(name.as_bytes(), KEY);
    let (_, labels, suffixes) = read("API.eu.example.com");
    assert_eq!(labels, 4);
    let expected =
        ["com", "example.com", "eu.example.com", "api.eu.example.com"].map(|name| of(name).unwrap());
    assert_eq!(suffixes, expected);
    assert_eq!(read("api.eu.example.com."), read("api.EU.example.com"));
    assert_ne!(of("ab.c"), of("a.bc"));
    assert_ne!(of("a.b"), marks::of_name(b"a.b", KEY + 1));
    assert_eq!(read("").1, 0);
    let (_, labels, suffixes) = read("x.1.2.3.4.5.6.7.8.9");
    assert_eq!((labels, suffixes.len()), (10, LABELS));
    assert_eq!(suffixes.last().copied(), of("2.3.4.5.6.7.8.9"));
    assert_eq!([of("1.2.3.4.5.6.7.8.9"), of("")], [None; 2]);
}

/// A whole hello in place of a longer beginning does not pass, and the beginning goes on as it was.
#[test]
fn a_whole_hello_in_place_of_a_longer_beginning_does_not_pass() {
    let decoy = Made { extensions: vec![(51, vec![7; 1_200]), (10, vec![0; 4])], ..example() }.stream(&[]);
    let hello = example().stream(&[]);
    let mut bucket = opened(77);
    let mut marks = Marks::NONE;
    let whole = |length| Segment { whole: 1, key: KEY, ..segment(77, 0, length) };
    assert_eq!(follow(&mut bucket, &whole(1_000), &&*decoy, &mut marks).kind, Kind::Part);
    assert_eq!(follow(&mut bucket, &whole(hello.len()), &&*hello, &mut marks).kind, Kind::Changed);
    let rest = Segment { whole: 1, key: KEY, ..segment(77, 1_000, decoy.len() - 1_000) };
    assert_eq!(follow(&mut bucket, &rest, &&*decoy, &mut marks).kind, Kind::Accepted);
    assert_eq!(told(&marks), told(&marks::read(&&*decoy, KEY).unwrap()));
}
