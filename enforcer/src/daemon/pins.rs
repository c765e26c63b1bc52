//! Pins while the daemon runs: the switch to a backup and back, what is counted and said of the guard, and what the command line is told
//! of a configuration.

use std::{collections::BTreeSet, fs, sync::Arc};

use anyhow::{Context as _, Result, bail};
use tracing::{error, warn};

use super::{facts, files::Seen, running::Running};
use crate::{
    cli::pins::{PinRow, Report, SetRow},
    clock,
    config::Config,
    metrics::Metrics,
    pins::{
        Pin, Published,
        formats::Host,
        guard::{Refused, Verdict},
    },
    policy::{
        Policy,
        pins::{self, Set, switches},
    },
};

/// Counts and says it, if the guard is why a policy was refused.
pub(super) fn note(error: &anyhow::Error, metrics: &Metrics) {
    if let Some(Refused { set, text }) = error.downcast_ref() {
        metrics.pin_guard_refusals.with_label_values(&[set]).inc();
        error!(set, text, "PIN GUARD: a key is not served, because apps that pin would be cut off");
    }
}

/// Says what is wrong with pins, or will be, in a policy that was just taken over.
pub(super) fn warn_of(policy: &Policy, now: u64) {
    for set in &policy.pins().sets {
        for remark in set.remarks(now) {
            warn!(set = set.name, "pins: {remark}");
        }
    }
}

/// Writes down which document apps are given from now on. If that cannot be done they are given it nevertheless.
pub(super) async fn remember(policy: &Policy, config: &Config, metrics: &Metrics) {
    let Some(document) = policy.pins().document.clone() else { return };
    let path = config.pins.switches.clone();
    let writing = tokio::task::spawn_blocking(move || document.remember(&path));
    if let Err(error) = writing.await.map_err(anyhow::Error::from).and_then(|done| done) {
        metrics.pin_document_write_errors.inc();
        error!(
            error = format!("{error:#}"),
            "pins: which version of the document apps have is not written down, so a restart will not notice an older one"
        );
    }
}

impl Running {
    /// Has a set served by its backup, or no longer: a sentence, and remarks.
    pub(super) async fn switch(&mut self, set: &str, back: bool) -> Result<(String, Vec<String>), String> {
        let result = self.change_over(set, back).await;
        match &result {
            Ok(()) => warn!(set, back, "pins: switched"),
            Err(error) => {
                note(error, &self.metrics);
                error!(
                    set,
                    back,
                    error = format!("{error:#}"),
                    "pins: not switched, everything stays as it was"
                );
            }
        }
        result.map_err(|error| format!("{error:#}"))?;
        let (policy, now) = (self.policy.load(), clock::unix_now());
        facts::certificates(&policy, &self.metrics, now);
        let by = if back { "its own certificate" } else { "its backup" };
        let remarks = policy.pins().set(set).map(|set| set.remarks(now)).unwrap_or_default();
        Ok((format!("pins.set.{set} is served by {by} from now on, also after a restart"), remarks))
    }

    /// What is served shall not be other than what a restart would serve: the file is written before the policy is taken over.
    async fn change_over(&self, set: &str, back: bool) -> Result<()> {
        let (config, policy) = (self.config.clone(), self.policy.load_full());
        let known = config.pins.sets.get(set).with_context(|| format!("there is no [pins.set.{set}]"))?;
        if !back && known.backup.is_none() {
            bail!("pins.set.{set}: there is no `backup` to switch to: name its chain and key, and reload");
        }
        let path = config.pins.switches.clone();
        let before = switches::read(&path)?;
        let mut after: BTreeSet<String> =
            before.iter().filter(|name| config.pins.sets.contains_key(*name)).cloned().collect();
        let changed = if back { after.remove(set) } else { after.insert(set.to_owned()) };
        if !changed {
            bail!("pins.set.{set} is {}switched to its backup already", if back { "not " } else { "" });
        }
        let reading = tokio::task::spawn_blocking(move || -> Result<(Seen, Policy)> {
            // Judged before it is written: a process that ends in between must be able to start.
            let mut tried = config.clone();
            tried.pins.switches = path.with_extension("next");
            let tried_path = tried.pins.switches.clone();
            let policy = switches::write(&tried_path, &after).and_then(|()| policy.reload(&tried));
            drop(fs::remove_file(&tried_path));
            let policy = policy?;
            switches::write(&path, &after)?;
            Ok((Seen::of(&config), policy))
        });
        let (seen, policy) = reading.await.context("reading the files")??;
        self.read.store(Arc::new(seen));
        self.policy.store(Arc::new(policy));
        Ok(())
    }
}

/// What a configuration comes to for apps that pin, at `now` (seconds since 1970).
pub(super) fn report(config: &Config, now: u64) -> Result<Report> {
    let survey = pins::survey(config, now)?;
    let hosts = if survey.sets.is_empty() {
        survey.names.into_iter().map(|(name, pins)| Host { name, pins }).collect()
    } else {
        survey.sets.iter().flat_map(hosts).collect()
    };
    Ok(Report {
        sets: survey.sets.iter().map(|set| row(set, now)).collect(),
        hosts,
        refused: survey.refused.into_iter().map(|refused| refused.text).collect(),
    })
}

/// Serving ones first.
fn hosts(set: &Set) -> Vec<Host> {
    let is_served = |pin: &Pin| set.served.iter().any(|served| served.pin == *pin);
    let mut pins: Vec<Pin> = set.pins.iter().map(|published| published.pin).collect();
    pins.sort_by_key(|pin| !is_served(pin));
    set.hosts.iter().map(|host| Host { name: host.to_string(), pins: pins.clone() }).collect()
}

fn row(set: &Set, now: u64) -> SetRow {
    let backup = set.backup.as_ref().and_then(|backup| backup.state.as_ref().ok());
    let role = |pin: Pin| {
        if set.served.iter().any(|served| served.pin == pin) {
            "serving"
        } else if backup.is_some_and(|backup| backup.pin == pin) {
            "backup"
        } else {
            "spare"
        }
    };
    let pin = |published: &Published| PinRow {
        sha256: published.pin.to_string(),
        role: role(published.pin),
        published: published.at,
        ready: published.at.saturating_add(set.min_overlap),
        may_serve: !matches!(set.rules().judge(published.pin, now), Verdict::Refused(_)),
        is_read: published.is_read,
    };
    SetRow {
        name: set.name.clone(),
        hosts: set.hosts.iter().map(ToString::to_string).collect(),
        switched: set.is_switched,
        pins: set.pins.iter().map(pin).collect(),
        remarks: set.remarks(now),
    }
}
