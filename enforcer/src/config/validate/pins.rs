//! Rules for `[pins]`. What only the named files tell (which keys are equal) is judged when they are read.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{Rules, entries, quote};
use crate::config::{
    Backup, PinDocument, PinEntry, PinSet, PinnedKey, Pins,
    file::{File, PinDocumentSection, PinSection, PinSetSection},
    pins::Days,
    value::Text,
};

const DAY: u64 = 86_400;
/// Where documents are served unless told otherwise.
const PATH: &str = "/.well-known/enforcer/pins";
/// Longer ones would be no help to anybody: a pin that is lost must be replaced some day.
const LONGEST_DAYS: u64 = 3_650;
/// Pins of a set; apps compare with each of them.
const MOST_PINS: usize = 64;

pub(super) fn pins(file: &File, bans: Option<&Path>, rules: &mut Rules<'_, '_>) -> Pins {
    let section = &file.pins;
    let mut hosts = HashMap::new();
    let mut sets = BTreeMap::new();
    for (name, set) in &section.set {
        let mut rules = rules.within(format!("pins.set.{}", quote(name)), set.span());
        rules.name(name);
        for host in entries(&set.get_ref().hosts) {
            let text = host.get_ref().0.to_string();
            if let Some(other) = hosts.insert(text.clone(), name).filter(|other| *other != name) {
                let problem = format!("`{text}` is in [pins.set.{}] already", quote(other));
                rules.refuse_entry(host.span(), "hosts", problem, "a host has one set: remove it from one");
            }
        }
        let read = self::set(set.get_ref(), &mut rules);
        served(file, set.get_ref(), &read, &mut rules);
        sets.insert(name.clone(), read);
    }
    let mut rules = rules.section("pins");
    let switches = match &section.switches {
        None => bans.map_or_else(
            || PathBuf::from("/var/lib/enforcer/pin-switches"),
            |bans| bans.with_file_name("pin-switches"),
        ),
        Some(_) => rules.file("switches", &section.switches, "write a path, or remove the key"),
    };
    let document = section.document.as_ref().map(|value| {
        let mut rules = rules.within("pins.document".to_owned(), value.span());
        document(value.get_ref(), section.set.is_empty(), &mut rules)
    });
    Pins { sets, document, switches }
}

fn set(section: &PinSetSection, rules: &mut Rules<'_, '_>) -> PinSet {
    rules.not_empty("hosts", &section.hosts, "list the hosts that apps know by these pins");
    rules.distinct("hosts", entries(&section.hosts).map(|host| (host.span(), host.get_ref().0.to_string())));
    let remedy = "list the pin of the serving key, and that of a backup key that is kept elsewhere";
    rules.not_empty("pins", &section.pins, remedy);
    match &section.pins {
        Some(list) if list.get_ref().len() == 1 => {
            let problem = "no backup: with one pin alone, the loss of its key cuts off every app that pins";
            rules.refuse(list.span(), "pins", problem, "add the pin of another key, kept elsewhere");
        }
        Some(list) if list.get_ref().len() > MOST_PINS => {
            let problem = format!("{} entries are too many", list.get_ref().len());
            rules.refuse(list.span(), "pins", problem, format!("list {MOST_PINS} at most"));
        }
        Some(_) | None => {}
    }
    let known = entries(&section.pins).filter_map(|pin| {
        let pin = pin.get_ref().sha256.as_ref()?;
        Some((pin.span(), pin.get_ref().0))
    });
    rules.distinct("pins", known);
    let pins = entries(&section.pins).enumerate().map(|(i, pin)| {
        let prefix = rules.path(&format!("pins[{i}]"));
        entry(pin.get_ref(), &mut rules.within(prefix, pin.span()))
    });
    let pins = pins.collect();
    let backup = section.backup.as_ref().map(|backup| {
        let prefix = rules.path("backup");
        let mut rules = rules.within(prefix, backup.span());
        let section = backup.get_ref();
        let chain = rules.file("chain", &section.chain, "name the PEM file with the chain, leaf first");
        let key = rules.file("key", &section.key, "name the PEM file with the private key");
        Backup { chain, key }
    });
    rules.distinct("force", entries(&section.force).map(|pin| (pin.span(), pin.get_ref().0)));
    PinSet {
        hosts: entries(&section.hosts).map(|host| host.get_ref().0.clone()).collect(),
        pins,
        min_overlap: days("min_overlap", section.min_overlap.as_ref(), 30, 0, rules),
        backup,
        force: entries(&section.force).map(|pin| pin.get_ref().0).collect(),
    }
}

/// A pin that is read in the very file whose certificates are served is always that of the served key: what the guard shall find out.
fn served(file: &File, section: &PinSetSection, set: &PinSet, rules: &mut Rules<'_, '_>) {
    let text = |value: &Option<Spanned<Text<String>>>| value.as_ref().map(|value| value.get_ref().0.clone());
    let backup = section.backup.as_ref().and_then(|backup| text(&backup.get_ref().chain));
    let certificates = file.listener.iter().flat_map(|listener| entries(&listener.get_ref().certificates));
    let chains = certificates.filter_map(|certificate| text(&certificate.get_ref().chain)).chain(backup);
    let chains: Vec<PathBuf> = chains.map(|chain| rules.folder.join(chain)).collect();
    for (i, (entry, read)) in entries(&section.pins).zip(&set.pins).enumerate() {
        if let (Some(value), PinnedKey::File(path)) = (&entry.get_ref().file, &read.key)
            && chains.contains(path)
        {
            let key = format!("pins[{i}].file");
            let problem = "is the file of a certificate that is served or kept ready: with it the pin would change, and nobody would notice";
            let remedy = "write the pin itself as `sha256` (`enforcer pins show` prints it), or name a copy";
            rules.refuse(value.span(), &key, problem, remedy);
        }
    }
}

fn entry(section: &PinSection, rules: &mut Rules<'_, '_>) -> PinEntry {
    let key = match (&section.sha256, &section.file) {
        (Some(pin), None) => PinnedKey::Pin(pin.get_ref().0),
        (Some(_), Some(file)) => {
            rules.refuse(file.span(), "file", "stands beside `sha256`", "remove one of the two");
            PinnedKey::File(PathBuf::new())
        }
        (None, _) => {
            let remedy = "name a certificate or a public key (PEM), or write its pin as `sha256`";
            PinnedKey::File(rules.file("file", &section.file, remedy))
        }
    };
    let published = section.published.as_ref().map(|day| day.get_ref().0.0);
    if published.is_none() {
        rules.missing("published", "write the day from which on every new version of the app has this pin");
    }
    PinEntry { key, published: published.unwrap_or_default() }
}

fn document(section: &PinDocumentSection, is_empty: bool, rules: &mut Rules<'_, '_>) -> PinDocument {
    if is_empty {
        let problem = "there is no [pins.set.NAME], so there is nothing to tell";
        rules.refuse(rules.span.clone(), "", problem, "add one, or remove the section");
    }
    let key = rules.file("key", &section.key, "name the PEM file with a private key of P-256");
    let mut path = PATH.to_owned();
    if let Some(value) = &section.path {
        path.clone_from(&value.get_ref().0);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        if !path.starts_with('/') || path.len() > 1_024 || !path.bytes().all(plain) || path.contains("//") {
            let problem = format!("`{}` is no path", path.escape_debug());
            rules.refuse(value.span(), "path", problem, format!("write one like \"{PATH}\""));
        }
    }
    if section.version.is_none() {
        rules.missing("version", "write 1, and a larger number with each change of the pins");
    }
    let version = rules.number("version", &section.version, 1, 1..=(1 << 53) - 1);
    let lifetime = days("lifetime", section.lifetime.as_ref(), 7, 60, rules);
    PinDocument { key, path, version, lifetime }
}

/// Seconds, at least `least`.
fn days(
    key: &str,
    value: Option<&Spanned<Text<Days>>>,
    default: u64,
    least: u64,
    rules: &mut Rules<'_, '_>,
) -> Duration {
    let Some(value) = value else { return Duration::from_secs(default * DAY) };
    let range = Duration::from_secs(least)..=Duration::from_secs(LONGEST_DAYS * DAY);
    let spell = |time: &Duration| match time.as_secs() {
        seconds if seconds % DAY == 0 => format!("{}d", seconds / DAY),
        seconds => format!("{seconds}s"),
    };
    rules.in_range(value.span(), key, value.get_ref().0.0, &range, spell)
}
