//! Rules for `[pins]`. What only the named files tell (which keys are equal) is judged when they are read.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{Rules, attestation, entries, quote};
use crate::config::{
    Backup, PinDocument, PinEntry, PinSet, PinnedKey, Pins, ServerName,
    file::{File, PinDocumentSection, PinSection, PinSetSection},
    pins::Days,
    value::Text,
};

const DAY: u64 = 86_400;
/// Where documents are served unless told otherwise.
pub(super) const PATH: &str = "/.well-known/enforcer/pins";
/// Longer ones would be no help to anybody: a pin that is lost must be replaced some day.
const LONGEST_DAYS: u64 = 3_650;
/// Pins of a set; apps compare with each of them.
const MOST_PINS: usize = 64;

pub(super) fn pins(file: &File, bans: Option<&Path>, rules: &mut Rules<'_, '_>) -> Pins {
    let section = &file.pins;
    let mut sets = BTreeMap::new();
    let mut hosts: HashMap<&ServerName, &str> = HashMap::new();
    for (name, set) in &section.set {
        for host in entries(&set.get_ref().hosts) {
            hosts.entry(&host.get_ref().0).or_insert(name);
        }
    }
    for (name, set) in &section.set {
        let mut rules = rules.within(format!("pins.set.{}", quote(name)), set.span());
        rules.name(name);
        for host in entries(&set.get_ref().hosts) {
            if let Some((other, of)) = overlap(&host.get_ref().0, name, &hosts) {
                let (text, of) = (&host.get_ref().0, quote(of));
                let problem = if *text == other {
                    format!("`{text}` is in [pins.set.{of}] already")
                } else {
                    format!("`{text}` is one of `{other}` in [pins.set.{of}]")
                };
                rules.refuse_entry(host.span(), "hosts", problem, "a host has one set: remove it from one");
            }
        }
        sets.insert(name.clone(), self::set(set.get_ref(), &mut rules));
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
        document(value.get_ref(), file, &mut rules)
    });
    Pins { sets, document, switches }
}

/// A host of another set that `host` is, or is below. Of two that overlap one is below the other, and is told of.
fn overlap<'f>(
    host: &ServerName,
    set: &str,
    hosts: &HashMap<&ServerName, &'f str>,
) -> Option<(ServerName, &'f str)> {
    let mut above = host.name.as_str();
    let parents = std::iter::from_fn(|| {
        above = above.split_once('.')?.1;
        Some(ServerName { name: above.to_owned(), below: true })
    });
    let mut wider = std::iter::once(host.clone()).chain(parents);
    wider.find_map(|other| {
        let of = hosts.get(&other).filter(|of| **of != set)?;
        Some((other, *of))
    })
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

fn document(section: &PinDocumentSection, file: &File, rules: &mut Rules<'_, '_>) -> PinDocument {
    if file.pins.set.is_empty() {
        let problem = "there is no [pins.set.NAME], so there is nothing to tell";
        rules.refuse(rules.span.clone(), "", problem, "add one, or remove the section");
    }
    let key = rules.file("key", &section.key, "name the PEM file with a private key of P-256");
    let mut path = PATH.to_owned();
    if let Some(value) = &section.path {
        path.clone_from(&value.get_ref().0);
        if !attestation::is_endpoint(&path) {
            let problem = format!("`{}` is no path of one endpoint", path.escape_debug());
            rules.refuse(value.span(), "path", problem, attestation::ENDPOINT);
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
