//! The lists of `[kernel.hellos]` as a handshake meets them. What the program has let through unread (a full table, a fragment, no program at
//! all) is refused here.
//!
//! Called with every ClientHello before it is answered. The program compares hashes of names, here are the names themselves.

use std::collections::HashSet;

use crate::{
    config::{Feature, Fingerprint, Kernel, Mode, ServerName},
    denial::Denial,
};

/// Lists, none of them empty unless it says so.
#[derive(Debug)]
pub struct Hellos {
    refused: Names,
    /// `None`: whatever is not refused is served.
    only: Option<Names>,
    fingerprints: HashSet<Fingerprint>,
    rehearses_names: bool,
    rehearses_fingerprints: bool,
}

/// What a hello meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// It is refused for this.
    pub refused: Option<Denial>,
    /// It would be refused for these but for a dry run.
    pub rehearsed: [Option<Denial>; 2],
}

/// Whether the program refuses old hellos to a port.
pub(super) fn judged(kernel: &Kernel, port: u16) -> bool {
    kernel.mode != Mode::Off
        && kernel.protected_ports.contains(&port)
        && !kernel.dry_run.contains(&Feature::Tls)
}

impl Hellos {
    /// `None`: nothing is listed.
    pub fn of(kernel: &Kernel) -> Option<Self> {
        let lists = &kernel.hellos;
        (!lists.is_empty()).then(|| Self {
            refused: Names::of(&lists.refuse_names),
            only: (!lists.only_names.is_empty()).then(|| Names::of(&lists.only_names)),
            fingerprints: lists.refuse_fingerprints.iter().copied().collect(),
            rehearses_names: kernel.dry_run.contains(&Feature::HelloNames),
            rehearses_fingerprints: kernel.dry_run.contains(&Feature::HelloFingerprints),
        })
    }

    /// Judges a hello by the name that it asks for, as [`ServerName::plain`] writes it, and by its fingerprint. One that has none, for it is too long to be kept, could
    /// have any.
    pub fn judge(&self, name: Option<&str>, fingerprint: Option<Fingerprint>) -> Judgement {
        let named = name.is_some_and(|name| self.refused.have(name));
        let unlisted = self.only.as_ref().is_some_and(|only| !name.is_some_and(|name| only.have(name)));
        let known = !self.fingerprints.is_empty()
            && fingerprint.is_none_or(|fingerprint| self.fingerprints.contains(&fingerprint));
        let mut judgement = Judgement::default();
        let found = [
            (named || unlisted, Denial::TlsRefusedName, self.rehearses_names),
            (known, Denial::TlsRefusedFingerprint, self.rehearses_fingerprints),
        ];
        for (place, (listed, denial, rehearsed)) in judgement.rehearsed.iter_mut().zip(found) {
            if !listed || judgement.refused.is_some() {
            } else if rehearsed {
                *place = Some(denial);
            } else {
                judgement.refused = Some(denial);
            }
        }
        judgement
    }
}

#[derive(Debug, Default)]
struct Names {
    exact: HashSet<String>,
    /// What stands behind `*.`
    below: HashSet<String>,
}

impl Names {
    fn of(list: &[ServerName]) -> Self {
        let (below, exact): (Vec<_>, Vec<_>) = list.iter().partition(|name| name.below);
        let set = |list: Vec<&ServerName>| list.into_iter().map(|name| name.name.clone()).collect();
        Self { exact: set(exact), below: set(below) }
    }

    fn have(&self, name: &str) -> bool {
        let mut rest = name;
        self.exact.contains(name)
            || std::iter::from_fn(|| {
                (_, rest) = rest.split_once('.')?;
                Some(rest)
            })
            .any(|wider| self.below.contains(wider))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config, kernel::listed_hellos};
    use enforcer_common::hello::{lists, marks};
    use proptest::prelude::*;

    fn kernel(lines: &str) -> Kernel {
        let text = format!(
            "[kernel]\nmode = \"off\"\n{lines}\n[[listener]]\naddress = \"[::]:443\"\n\
             certificates = [{{ chain = \"none\", key = \"none\" }}]\n"
        );
        config::parse(&text, Path::new("test")).unwrap().kernel
    }

    #[test]
    fn names_and_fingerprints_are_refused_and_rehearsed_each_by_itself() {
        const LISTS: &str = "[kernel.hellos]\nrefuse_names = [\"bad.example.com\", \"*.bad.example.com\"]\n\
                             only_names = [\"*.example.com\"]\nrefuse_fingerprints = [\"00000000000000ab\"]\n";
        let (known, other) = (Some(Fingerprint(0xab)), Some(Fingerprint(0xac)));
        let lists = Hellos::of(&kernel(LISTS)).unwrap();
        let refused = |name, fingerprint| lists.judge(name, fingerprint).refused;
        assert_eq!(refused(Some("api.example.com"), other), None);
        assert_eq!(refused(Some("api.example.com"), known), Some(Denial::TlsRefusedFingerprint));
        assert_eq!(refused(Some("api.example.com"), None), Some(Denial::TlsRefusedFingerprint));
        for name in [Some("bad.example.com"), Some("x.y.bad.example.com"), Some("example.com"), None] {
            assert_eq!(refused(name, known), Some(Denial::TlsRefusedName), "{name:?}");
        }
        let dry = format!("dry_run = [\"hello_names\"]\n{LISTS}");
        let lists = Hellos::of(&kernel(&dry)).unwrap();
        let judged = lists.judge(Some("bad.example.com"), known);
        assert_eq!(judged.refused, Some(Denial::TlsRefusedFingerprint));
        assert_eq!(judged.rehearsed, [Some(Denial::TlsRefusedName), None]);
        let dry = format!("dry_run = [\"hello_names\", \"hello_fingerprints\"]\n{LISTS}");
        let judged = Hellos::of(&kernel(&dry)).unwrap().judge(None, known);
        assert_eq!(judged.refused, None);
        assert_eq!(judged.rehearsed, [Some(Denial::TlsRefusedName), Some(Denial::TlsRefusedFingerprint)]);
        assert!(Hellos::of(&kernel("")).is_none());
    }

    /// A hello that asks for `name` and nothing else.
    fn hello(name: &str) -> Vec<u8> {
        let length = name.len() as u16;
        let list = [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name.as_bytes()].concat();
        let extension = [&[0, 0][..], &(length + 5).to_be_bytes(), &list].concat();
        let mut body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        body.extend((extension.len() as u16).to_be_bytes());
        body.extend(extension);
        let message = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), &message].concat()
    }

    proptest! {
        /// What is looked up by hashes is what is looked up by names, and what is compared one by one.
        #[test]
        fn hashes_say_what_names_say(
            name in "[abA](\\.[abB]){0,9}\\.?",
            listed in proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,3}", 0..6),
            key in any::<u64>(),
        ) {
            let mut listed = listed;
            listed.sort();
            listed.dedup();
            let list: Vec<String> = listed.iter().map(|name| format!("{name:?}")).collect();
            let kernel = kernel(&format!("[kernel.hellos]\nrefuse_names = [{}]\n", list.join(",")));
            let plain = ServerName::plain(&name);
            let expected = kernel.hellos.refuse_names.iter().any(|listed| listed.covers(&plain));
            let found = Hellos::of(&kernel).is_some_and(|lists| lists.judge(Some(&plain), None).refused.is_some());
            prop_assert_eq!(found, expected);
            let entries = listed_hellos(&kernel.hellos, key);
            let bytes = hello(&name);
            let marks = marks::read(&bytes.as_slice(), key).unwrap();
            let bits = lists::of_name(&bytes.as_slice(), &marks, |hash| entries.get(&hash).copied().unwrap_or(0));
            prop_assert_eq!(lists::refusal(bits, false).is_some(), expected);
        }
    }
}
