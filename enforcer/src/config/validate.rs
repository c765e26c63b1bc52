//! The rules: defaults, ranges, and what must fit together. Turns a `File` into a [`Config`] and reports every
//! breach; where something is wrong the result holds a stand-in, and the caller throws it away.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
    hash::Hash,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Spanned, de::DeTable};

use super::{
    Config, RateLimit,
    error::Collector,
    file::{File, Key, LimitSection, List},
    load::find_in_table,
    named::{Named, NamedFile, Place},
    value::{Number, Rate, Size, Text, spell_duration},
};
use crate::prefix::Prefix;

mod access_log;
mod answers;
mod attestation;
mod hellos;
mod integrity;
mod introspection;
mod kernel;
mod limits;
mod lists;
mod paths;
mod payload;
mod pins;
mod revocation;
mod routes;
mod service;
mod suspicion;
mod tls;
mod tokens;
mod upstreams;

/// Judges a whole file. `table` is the file as parsed, to tell places; `folder` is what relative paths count from.
pub(super) fn validate<'t>(
    file: &File,
    table: &DeTable<'t>,
    folder: &Path,
    errors: &mut Collector<'t>,
) -> Config {
    let mut rules = Rules { errors, table, folder, prefix: String::new(), span: 0..0 };
    let listeners = tls::listeners(file, &mut rules);
    let ports = listeners.iter().map(|listener| listener.address.port()).collect::<Vec<_>>();
    let kernel = kernel::kernel(&file.kernel, &ports, &mut rules);
    tls::ports(file, kernel.mode, &mut rules);
    let upstreams = upstreams::upstreams(file, &mut rules);
    let tokens = tokens::tokens(file, &mut rules);
    let dpop = integrity::dpop(&file.dpop, &mut rules);
    let signatures = integrity::signatures(file, &mut rules);
    let routes = routes::routes(file, &mut rules);
    let http = service::http(&file.http, &listeners, &mut rules);
    let payloads = payload::payloads(file, &http, &mut rules);
    let bans = service::bans(&file.bans, &mut rules);
    let pins = pins::pins(file, bans.store.as_deref(), &mut rules);
    let attestation = attestation::attestation(&file.attestation, bans.store.as_deref(), &mut rules);
    let asked = attestation.as_ref().map(|attestation| &attestation.paths);
    let suspicion = suspicion::suspicion(file, &mut rules);
    paths::distinct(file, (asked, &pins, suspicion.as_ref()), &payloads, &mut rules);
    let metrics = service::metrics(&file.metrics, &listeners, &http.redirect, &mut rules);
    Config {
        kernel,
        tls: tls::tls(&file.tls, &mut rules),
        pins,
        suspicion,
        upstreams,
        tokens,
        dpop,
        signatures,
        payloads,
        replay: integrity::replay(&file.replay, bans.store.as_deref(), &mut rules),
        attestation,
        routes,
        revocation: revocation::revocation(&file.revocation, &bans, &metrics, &mut rules),
        bans,
        metrics,
        http,
        control: service::control(&file.control, &mut rules),
        log: service::log(&file.log, &mut rules),
        access_log: access_log::access_log(&file.access_log, &mut rules),
        listeners,
    }
}

/// Where the rules are in the file, and what they have found.
struct Rules<'e, 't> {
    errors: &'e mut Collector<'t>,
    table: &'e DeTable<'t>,
    folder: &'e Path,
    /// Key of the section, like `route[2]`.
    prefix: String,
    /// Where the section stands, for keys that are missing.
    span: Range<usize>,
}

/// A limit as written: each part only if it is there.
#[derive(Clone, Copy)]
struct LimitRules {
    /// What holds without the key.
    default: RateLimit,
    /// Whether `rate = "off"` may be written.
    may_be_off: bool,
    /// Smallest burst.
    least_burst: u64,
}

/// Faster rates than this cost less than 100 ns per event, which the arithmetic of the limiter no longer resolves well.
const MOST_EVENTS: u64 = 10_000_000;

/// Keys that are looked up in the file at most, so that a long file with an error costs little more than a good one.
const MOST_LOOKED_UP: usize = 1_000;

impl<'t> Rules<'_, 't> {
    /// The rules inside a section.
    fn within(&mut self, prefix: String, span: Range<usize>) -> Rules<'_, 't> {
        Rules { errors: self.errors, table: self.table, folder: self.folder, prefix, span }
    }

    /// The rules inside a section that stands once.
    fn section(&mut self, name: &str) -> Rules<'_, 't> {
        let path = self.path(name);
        let mut parts = path.split('.');
        let mut value = parts.next().and_then(|first| self.table.get(first));
        for part in parts {
            value = value.and_then(|value| value.get_ref().get(part));
        }
        let span = value.map_or(self.span.clone(), Spanned::span);
        self.within(path, span)
    }

    /// The whole path of a key of this section.
    fn path(&self, key: &str) -> String {
        match (self.prefix.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (_, true) => self.prefix.clone(),
            _ => format!("{}.{key}", self.prefix),
        }
    }

    fn refuse(
        &mut self,
        span: Range<usize>,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let path = self.path(key);
        self.errors.add(span, &path, problem.into(), remedy.into());
    }

    /// Refuses an entry of a list. Its number is looked up in the file: entries before it may have been cut out.
    fn refuse_entry(
        &mut self,
        span: Range<usize>,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.errors.is_full() {
            return;
        }
        let path = find_in_table(self.table, &span).unwrap_or_else(|| self.path(key));
        self.errors.add(span, &path, problem.into(), remedy.into());
    }

    /// A key that must be there is not, unless it was cut out for another error.
    fn missing(&mut self, key: &str, remedy: &str) {
        if !self.errors.knows(&self.path(key)) {
            self.refuse(self.span.clone(), key, "missing", remedy);
        }
    }

    fn number(&mut self, key: &str, value: &Key<Number>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(value) = value else { return default };
        self.in_range(value.span(), key, value.get_ref().0, &range, u64::to_string)
    }

    fn size(&mut self, key: &str, value: &Key<Size>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(value) = value else { return default };
        self.in_range(value.span(), key, value.get_ref().0, &range, |bytes| format!("{bytes} bytes"))
    }

    /// `range` in milliseconds.
    fn duration(
        &mut self,
        key: &str,
        value: &Key<Text<Duration>>,
        default: Duration,
        range: RangeInclusive<u64>,
    ) -> Duration {
        let Some(value) = value else { return default };
        let range = Duration::from_millis(*range.start())..=Duration::from_millis(*range.end());
        self.in_range(value.span(), key, value.get_ref().0, &range, |d| spell_duration(*d))
    }

    fn in_range<T: PartialOrd>(
        &mut self,
        span: Range<usize>,
        key: &str,
        value: T,
        range: &RangeInclusive<T>,
        spell: impl Fn(&T) -> String,
    ) -> T {
        if !range.contains(&value) {
            let remedy = format!("write {} to {}", spell(range.start()), spell(range.end()));
            self.refuse(span, key, format!("{} is out of range", spell(&value)), remedy);
        }
        value
    }

    /// A number of slots, rounded up to a power of two.
    fn slots(&mut self, value: &Key<Number>, default: u32) -> u32 {
        let slots = self.number("max_sources", value, u64::from(default), 1_024..=16_777_216);
        u32::try_from(slots.clamp(1_024, 16_777_216).next_power_of_two()).unwrap_or(default)
    }

    /// `None` is "off".
    fn limit(&mut self, key: &str, value: &Key<LimitSection>, rules: LimitRules) -> Option<RateLimit> {
        let Some(value) = value else { return Some(rules.default) };
        let section = value.get_ref();
        let rate_key = format!("{key}.rate");
        let mut limit = rules.default;
        if let Some(rate) = &section.rate {
            match rate.get_ref().0 {
                Rate::Off if rules.may_be_off => return None,
                Rate::Off => {
                    self.refuse(rate.span(), &rate_key, "a route's limit cannot be off", "remove `limit`");
                }
                Rate::Per { events, period } => {
                    let range = 1..=MOST_EVENTS;
                    let events = self.in_range(rate.span(), &rate_key, events, &range, u64::to_string);
                    // Without a burst of its own, a new rate brings along one period's worth, at least what is allowed.
                    let burst = if rules.least_burst > 0 { events.max(rules.least_burst) } else { 0 };
                    limit = RateLimit { events, period, burst };
                }
            }
        } else if rules.least_burst == 0 && !self.errors.knows(&self.path(&rate_key)) {
            self.refuse(value.span(), &rate_key, "missing", "write a rate like \"5/s\"");
        }
        let most = rules.least_burst..=MOST_EVENTS;
        limit.burst = self.number(&format!("{key}.burst"), &section.burst, limit.burst, most);
        Some(limit)
    }

    /// A string that must not be empty.
    fn text(&mut self, key: &str, value: &Key<Text<String>>, remedy: &str) -> String {
        let Some(value) = value else {
            self.missing(key, remedy);
            return String::new();
        };
        if value.get_ref().0.is_empty() {
            self.refuse(value.span(), key, "empty", remedy);
        }
        value.get_ref().0.clone()
    }

    /// A file's path, counted from the configuration's folder.
    fn file(&mut self, key: &str, value: &Key<Text<String>>, remedy: &str) -> PathBuf {
        let text = self.text(key, value, remedy);
        if text.contains('\0') {
            let span = value.as_ref().map_or(self.span.clone(), Spanned::span);
            self.refuse(span, key, "a path cannot hold a zero byte", "remove it");
        }
        self.folder.join(text)
    }

    /// Where a file is named, and its path; `None` if the name is no path at all.
    fn named_file(&self, key: &str, value: &Key<Text<String>>) -> Option<NamedFile> {
        let value = value.as_ref().filter(|value| !value.get_ref().0.is_empty())?;
        let text = &value.get_ref().0;
        (!text.contains('\0')).then(|| (self.place(key, value.span()), self.folder.join(text)))
    }

    /// Notes what the file names outside itself.
    fn name_outside(&mut self, key: &str, span: Range<usize>, named: Named) {
        let place = self.place(key, span);
        self.errors.named.push((place, named));
    }

    /// A place with its key as the file has it: entries before it may have been cut out.
    fn place(&self, key: &str, span: Range<usize>) -> Place {
        // The key as counted is right unless something was cut out; looking it up reads the whole file each time.
        let look = !self.errors.is_empty() && self.errors.named.len() < MOST_LOOKED_UP && !span.is_empty();
        let found = if look { find_in_table(self.table, &span) } else { None };
        Place { key: found.unwrap_or_else(|| self.path(key)), span }
    }

    /// A list that must have an entry.
    fn not_empty<T>(&mut self, key: &str, value: &List<T>, remedy: &str) {
        match value {
            None => self.missing(key, remedy),
            Some(list) if list.get_ref().is_empty() && !self.errors.knows(&self.path(key)) => {
                self.refuse(list.span(), key, "empty", remedy);
            }
            Some(_) => {}
        }
    }

    /// Refuses entries that stand twice.
    fn distinct<'v, T: Eq + Hash + Display + 'v>(
        &mut self,
        key: &str,
        entries: impl IntoIterator<Item = (Range<usize>, T)>,
    ) {
        let mut seen = HashSet::new();
        for (span, entry) in entries {
            if seen.contains(&entry) {
                self.refuse_entry(span, key, format!("`{entry}` stands here twice"), "remove one");
            }
            seen.insert(entry);
        }
    }

    /// Strings of a list, none of them empty, none of them twice.
    fn texts(&mut self, key: &str, value: &List<Text<String>>) -> Vec<String> {
        for entry in entries(value) {
            if entry.get_ref().0.is_empty() {
                self.refuse_entry(entry.span(), key, "empty", "remove it or fill it in");
            }
        }
        self.distinct(key, entries(value).map(|entry| (entry.span(), entry.get_ref().0.as_str())));
        entries(value).map(|entry| entry.get_ref().0.clone()).collect()
    }

    /// Prefixes, none of them twice, `most` of them.
    fn prefixes(&mut self, key: &str, value: &List<Text<Prefix>>, most: usize) -> Vec<Prefix> {
        self.distinct(key, entries(value).map(|entry| (entry.span(), entry.get_ref().0)));
        if let Some(list) = value.as_ref().filter(|list| list.get_ref().len() > most) {
            self.refuse(list.span(), key, format!("more than {most} prefixes"), "write fewer, wider ones");
        }
        entries(value).map(|entry| entry.get_ref().0).collect()
    }

    /// A name must be usable as a label and on a command line.
    fn name(&mut self, name: &str) {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            let remedy = "use 1 to 64 letters, digits, `-` and `_`";
            self.refuse(self.span.clone(), "", "not a usable name", remedy);
        }
    }
}

/// Entries; none for a list that is not there.
fn entries<T>(list: &List<T>) -> impl Iterator<Item = &Spanned<T>> {
    list.iter().flat_map(|list| list.get_ref())
}

/// Names that exist, for an error.
fn names<T>(table: &BTreeMap<String, T>) -> String {
    if table.is_empty() {
        return "there is none yet".to_owned();
    }
    format!("there are: {}", table.keys().map(|name| quote(name)).collect::<Vec<_>>().join(", "))
}

/// A key as it must be written in TOML.
pub(super) fn quote(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") }
}
