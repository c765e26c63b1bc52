//! Sets of pins with the keys that are served to those who have them, and the guard that refuses a policy which would cut them off.
//!
//! Read with every policy, at the start, by a reload and when a file changes, so no way leads past the guard. Whether a set is served by
//! its backup stands in a file of its own ([`switches`]), which outlives the process.

mod document;
mod guarded;
mod judged;
pub mod switches;

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};

use super::{
    faults::Faults,
    tls::certificates::{self, Certificates},
};
use crate::{
    config::{self, Certificate, PinnedKey, ServerName},
    pins::{
        Pin, Published, day,
        guard::{Refused, Rules, Verdict},
    },
};
pub use document::{Document, Signed};
pub(super) use guarded::serve;
use judged::Door;

const DAY: u64 = 86_400;
/// Days before the end of a certificate from which on it is warned of.
const WARNED: u64 = 30;

/// A set of pins, and what is served to those who have it.
#[derive(Clone, Debug)]
pub struct Set {
    /// As in the configuration.
    pub name: String,
    /// The hosts that it is about.
    pub hosts: Vec<ServerName>,
    /// Every pin, in the order of the configuration.
    pub pins: Vec<Published>,
    /// Where each of them was read, if it does not stand in the configuration itself.
    files: Vec<Option<PathBuf>>,
    /// Seconds.
    pub min_overlap: u64,
    /// Pins that are served whatever is wrong with them.
    pub force: Vec<Pin>,
    /// The certificate that is kept ready.
    pub backup: Option<Backup>,
    /// Whether that is the one that is served.
    pub is_switched: bool,
    /// What clients can be shown: each key once.
    pub served: Vec<Served>,
}

/// A certificate that is kept ready.
#[derive(Clone, Debug)]
pub struct Backup {
    config: config::Backup,
    /// Its key and its end (seconds since 1970), or why it could not be used.
    pub state: Result<Served, String>,
}

/// A certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Of its key.
    pub pin: Pin,
    /// `notAfter`, seconds since 1970.
    pub ends: i64,
}

/// A set that is served by its backup.
#[derive(Clone, Debug)]
pub struct Switched {
    /// For these hosts.
    pub hosts: Vec<ServerName>,
    /// By this certificate.
    pub certificate: Certificate,
}

impl Set {
    /// What the guard judges by.
    pub fn rules(&self) -> Rules<'_> {
        Rules { pins: &self.pins, min_overlap: self.min_overlap, force: &self.force }
    }

    /// Pins other than those of the keys served, whose keys could be served at once.
    pub fn spares(&self, now: u64) -> usize {
        let served: Vec<Pin> = self.served.iter().map(|served| served.pin).collect();
        self.rules().spares(&served, now)
    }

    /// The pin that was read in a file under a day.
    fn read_in(&self, file: &Option<PathBuf>, at: u64) -> Option<Pin> {
        let known = |(published, path): &(&Published, &Option<PathBuf>)| *path == file && published.at == at;
        self.pins.iter().zip(&self.files).find(known).map(|(published, _)| published.pin)
    }

    /// What will be wrong, or has been forced: for people.
    pub fn remarks(&self, now: u64) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.is_switched {
            remarks.push("served by its backup: `enforcer pins switch --back` ends that".to_owned());
        }
        for served in &self.served {
            if let Verdict::Forced(fault) = self.rules().judge(served.pin, now) {
                remarks.push(format!("FORCED: the served key {} {fault}", served.pin));
            }
            remarks.extend(end("the certificate that is served", served.ends, now));
        }
        remarks.extend(self.read());
        if self.spares(now) == 0 {
            remarks.push(
                "no backup pin of another key is out for long enough: if the served key is lost, every app is cut off"
                    .to_owned(),
            );
        }
        match &self.backup {
            None => remarks.push("no backup certificate: there is nothing to switch to".to_owned()),
            Some(Backup { state: Err(problem), .. }) => {
                remarks.push(format!("the backup cannot be used: {problem}"));
            }
            Some(Backup { state: Ok(backup), .. }) if !self.is_switched => {
                if let Verdict::Refused(fault) = self.rules().judge(backup.pin, now) {
                    remarks.push(format!("the backup key {} {fault}", backup.pin));
                }
                remarks.extend(end("the backup certificate", backup.ends, now));
            }
            Some(_) => {}
        }
        remarks
    }
}

fn end(what: &str, ends: i64, now: u64) -> Option<String> {
    let ends = u64::try_from(ends).unwrap_or(0);
    match ends.checked_sub(now).map(|left| left / DAY) {
        None => Some(format!("{what} HAS EXPIRED on {}", day(ends))),
        Some(left) if left < WARNED => Some(format!("{what} ends in {left} days, on {}", day(ends))),
        Some(_) => None,
    }
}

/// Reads every set that the configuration names, and which of them are switched. `old` are those of before, if there were any.
fn load(config: &config::Pins, now: u64, old: &[Set]) -> Result<Vec<Set>> {
    if config.sets.is_empty() {
        return Ok(Vec::new());
    }
    let switched = switches::read(&config.switches)?;
    let load = |(name, set): (&String, &config::PinSet)| {
        let old = old.iter().find(|old| old.name == *name);
        self::set(name, set, &switched, now, old).with_context(|| format!("pins.set.{name}"))
    };
    config.sets.iter().map(load).collect()
}

fn set(
    name: &str,
    config: &config::PinSet,
    switched: &BTreeSet<String>,
    now: u64,
    old: Option<&Set>,
) -> Result<Set> {
    let mut pins: Vec<Published> = Vec::with_capacity(config.pins.len());
    let mut files = Vec::with_capacity(config.pins.len());
    for (i, entry) in config.pins.iter().enumerate() {
        let (pin, file) = match &entry.key {
            PinnedKey::Pin(pin) => (*pin, None),
            PinnedKey::File(path) => {
                let text = fs::read(path).with_context(|| format!("pins[{i}].file: {}", path.display()))?;
                let pin = Pin::of_pem(&text).with_context(|| {
                    format!("pins[{i}].file: {} holds no certificate and no public key (PEM)", path.display())
                })?;
                (pin, Some(path.clone()))
            }
        };
        if entry.published > now {
            bail!(
                "pins[{i}].published is yet to come: {}; write the day when apps got it, and not before they did",
                day(entry.published)
            );
        }
        if let Some(other) = pins.iter().position(|published| published.pin == pin) {
            bail!(
                "pins[{other}] and pins[{i}] are of one key, {pin}: a backup has to be another key, kept elsewhere"
            );
        }
        if let (Some(path), Some(before)) = (&file, old.and_then(|old| old.read_in(&file, entry.published)))
            && before != pin
        {
            bail!(
                "pins[{i}].file: {} holds another key than before, {pin} for {before}, and apps got that one on {}: put the old file back, or give the new key an entry of its own with the day when apps got it",
                path.display(),
                day(entry.published)
            );
        }
        pins.push(Published { pin, at: entry.published, is_read: file.is_some() });
        files.push(file);
    }
    let backup = config
        .backup
        .as_ref()
        .map(|backup| Backup { config: backup.clone(), state: state(backup, &config.hosts) });
    if let Some(Backup { state: Ok(backup), .. }) = &backup
        && !pins.iter().any(|published| published.pin == backup.pin)
    {
        bail!(
            "backup: its key {} is in no pin of the set, so a switch to it would cut off every app that pins: add the pin",
            backup.pin
        );
    }
    if let Some(Backup { state: Ok(backup), .. }) = &backup
        && let Some((i, read)) =
            pins.iter().enumerate().find(|(_, read)| read.pin == backup.pin && read.is_read)
    {
        bail!(
            "pins[{i}].file: holds the backup's key, and may be replaced together with it, which no app would know then: only if apps have this very pin since {}, write `sha256 = \"{}\"` in place of `file`",
            day(read.at),
            backup.pin
        );
    }
    let is_switched = switched.contains(name);
    match (is_switched, &backup) {
        (true, None) => {
            bail!(
                "it is switched to its backup, and there is none: name it, or `enforcer pins switch --back`"
            )
        }
        (true, Some(Backup { state: Err(problem), .. })) => {
            bail!("it is switched to its backup, which cannot be used: {problem}")
        }
        _ => {}
    }
    Ok(Set {
        name: name.to_owned(),
        hosts: config.hosts.clone(),
        pins,
        files,
        min_overlap: config.min_overlap.as_secs(),
        force: config.force.clone(),
        backup,
        is_switched,
        served: Vec::new(),
    })
}

/// Whether a backup could be served.
fn state(backup: &config::Backup, hosts: &[ServerName]) -> Result<Served, String> {
    certificates::look(&certificate(backup), hosts, &provider::default_provider())
        .map_err(|error| format!("{error:#}"))?
        .ok_or_else(|| format!("the first certificate in {} cannot be read", backup.chain.display()))
}

fn certificate(backup: &config::Backup) -> Certificate {
    Certificate { chain: backup.chain.clone(), key: backup.key.clone(), ocsp: None }
}

/// What is served in place of the listeners' own certificates.
fn switched(sets: &[Set]) -> Vec<Switched> {
    let switched = |set: &Set| {
        let backup = set.backup.as_ref().filter(|_| set.is_switched)?;
        Some(Switched { hosts: set.hosts.clone(), certificate: certificate(&backup.config) })
    };
    sets.iter().filter_map(switched).collect()
}

/// Notes what of `listeners` is served to those who have the pins, all of it, and finds what would cut them off: the first thing of each
/// set.
fn guard<'c>(sets: &mut [Set], listeners: impl Iterator<Item = Door<'c>> + Clone, now: u64) -> Vec<Refused> {
    sets.iter_mut().filter_map(|set| judge(set, listeners.clone(), now)).collect()
}

fn judge<'c>(set: &mut Set, listeners: impl Iterator<Item = Door<'c>> + Clone, now: u64) -> Option<Refused> {
    let mut problem: Option<String> = None;
    set.served.clear();
    for host in &set.hosts {
        let (shown, unshown) = judged::shown(host, listeners.clone());
        problem = problem.or(unshown);
        for served in shown {
            if let Verdict::Refused(fault) = set.rules().judge(served.pin, now) {
                problem.get_or_insert_with(|| format!(
                    "the key {} of the certificate for `{host}` {fault}; serve a published key, or name this one in `force`",
                    served.pin
                ));
            }
            if !set.served.contains(&served) {
                set.served.push(served);
            }
        }
    }
    let serves = |pin: Pin| set.served.iter().any(|served| served.pin == pin);
    if let Some(Backup { state: Ok(backup), .. }) = &set.backup
        && !set.is_switched
        && serves(backup.pin)
    {
        problem.get_or_insert_with(|| {
            "backup: its key is the one that is served, and would be lost with it; make another key"
                .to_owned()
        });
    }
    let text = |problem| format!("pins.set.{}: {problem}", set.name);
    problem.map(|problem| Refused { set: set.name.clone(), text: text(problem) })
}

/// What a configuration comes to, whether or not the guard lets it pass.
#[derive(Debug)]
pub struct Survey {
    /// With what is served.
    pub sets: Vec<Set>,
    /// Names of the listeners' certificates with the keys that are served for each.
    pub names: Vec<(String, Vec<Pin>)>,
    /// What the guard refuses.
    pub refused: Vec<Refused>,
}

/// Reads certificates and pins alone.
pub fn survey(config: &config::Config, now: u64) -> Result<Survey> {
    let crypto: CryptoProvider = provider::default_provider();
    let mut sets = load(&config.pins, now, &[])?;
    let switched = switched(&sets);
    let load = |listener: &config::Listener| {
        Certificates::load(&listener.certificates, &switched, &crypto, None, &[], &mut Faults::fatal())
            .with_context(|| format!("listener {}", listener.address))
    };
    let listeners = config.listeners.iter().map(load).collect::<Result<Vec<_>>>()?;
    let doors = config.listeners.iter().zip(&listeners);
    let doors = doors.map(|(listener, certificates)| Door::of(listener, certificates));
    let refused = guard(&mut sets, doors, now);
    let mut names: Vec<(String, Vec<Pin>)> = Vec::new();
    for (name, pin) in listeners.iter().flat_map(Certificates::named) {
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, pins)) if pins.contains(&pin) => {}
            Some((_, pins)) => pins.push(pin),
            None => names.push((name, vec![pin])),
        }
    }
    Ok(Survey { sets, names, refused })
}

/// What the whole policy has of pins.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// Every set.
    pub sets: Vec<Set>,
    /// What apps are told of them.
    pub document: Option<Arc<Document>>,
}

impl Pins {
    /// Sets, which the guard has yet to judge, and their document: what of it is bad makes all of it bad, so that apps are told of the sets
    /// that they are served by.
    fn load(config: &config::Pins, now: u64, old: Option<&Self>) -> Result<Self> {
        let sets = load(config, now, old.map(|old| &*old.sets).unwrap_or_default())?;
        let old = old.and_then(|old| old.document.as_ref());
        let load = |document| Document::load(document, &sets, now, old).context("pins.document");
        let document = config.document.as_ref().map(load).transpose()?;
        if let Some(document) = &document
            && !old.is_some_and(|old| Arc::ptr_eq(old, document))
        {
            document.succeeds(&config.switches)?;
        }
        Ok(Self { sets, document })
    }

    /// The set of this name.
    pub fn set(&self, name: &str) -> Result<&Set> {
        self.sets.iter().find(|set| set.name == name).ok_or_else(|| anyhow!("there is no [pins.set.{name}]"))
    }
}
