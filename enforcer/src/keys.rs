//! Fetches the keys of issuers that publish them by https, before they run out and when a token asks for one that is not there, and asks
//! about tokens that say nothing themselves; and asks Google about those of Play Integrity, and Apple for newer receipts.
//!
//! The daemon runs [`tend`]; what was fetched goes into the policy's keyrings, which decide when to ask. Nothing here looks
//! at a token.

mod address;
mod fetch;
mod introspect;
pub mod play;
pub mod receipts;

use std::{sync::Arc, time::Duration};

use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::{
    clock,
    metrics::Metrics,
    policy::{SharedPolicy, introspection::Introspector, issuer::Issuer, keyring::Keyring},
};

/// Between two looks at the policy: a new issuer waits at most so long for its first fetch.
const LOOK: Duration = Duration::from_secs(1);
/// For one fetch, discovery included. Requests wait for less than that.
const PATIENCE: Duration = Duration::from_secs(10);

/// A keyring that is looked after.
struct Tended {
    keyring: Arc<Keyring>,
    task: AbortHandle,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks after every keyring of the policy in force, until it is dropped.
pub async fn tend(policy: SharedPolicy, metrics: Metrics) {
    let mut tended: Vec<Tended> = Vec::new();
    let mut asked: Vec<Asked> = Vec::new();
    let mut google: Option<play::Tended> = None;
    loop {
        let issuers: Vec<Arc<Issuer>> = policy.load().issuers().cloned().collect();
        let is_served =
            |keyring: &Arc<Keyring>| issuers.iter().any(|one| Arc::ptr_eq(one.keyring(), keyring));
        tended.retain(|one| is_served(&one.keyring));
        for issuer in &issuers {
            let keyring = issuer.keyring();
            let known =
                tended.iter().any(|one| Arc::ptr_eq(&one.keyring, keyring) && !one.task.is_finished());
            if keyring.remote().is_some() && !known {
                tended.retain(|one| !Arc::ptr_eq(&one.keyring, keyring));
                let one = tend_one(issuer.name.clone(), Arc::clone(keyring), metrics.clone());
                let task = tokio::spawn(one).abort_handle();
                tended.push(Tended { keyring: Arc::clone(keyring), task });
            }
        }
        look_after(&issuers, &mut asked, &metrics);
        play::look_after(policy.load().play_remote(), &mut google, &metrics);
        show(&issuers, &metrics);
        tokio::time::sleep(LOOK).await;
    }
}

/// An introspector whose calls are made.
struct Asked {
    introspector: Arc<Introspector>,
    task: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn look_after(issuers: &[Arc<Issuer>], asked: &mut Vec<Asked>, metrics: &Metrics) {
    let wanted = |one: &Asked| {
        let same = |issuer: &Arc<Issuer>| {
            issuer.introspector().is_some_and(|wanted| Arc::ptr_eq(wanted, &one.introspector))
        };
        !one.task.is_finished() && issuers.iter().any(same)
    };
    asked.retain(wanted);
    for issuer in issuers {
        let Some(introspector) = issuer.introspector() else { continue };
        if !asked.iter().any(|one| Arc::ptr_eq(&one.introspector, introspector)) {
            let calls = introspect::tend(issuer.name.clone(), Arc::clone(introspector), metrics.clone());
            let task = tokio::spawn(calls).abort_handle();
            asked.push(Asked { introspector: Arc::clone(introspector), task });
        }
    }
}

fn show(issuers: &[Arc<Issuer>], metrics: &Metrics) {
    let now = clock::kernel_now();
    for issuer in issuers {
        let condition = issuer.keyring().condition(now);
        let keys = i64::try_from(condition.keys).unwrap_or(i64::MAX);
        metrics.token_keys.with_label_values(&[&issuer.name]).set(keys);
        if let Some(age) = condition.age {
            metrics.token_keys_age.with_label_values(&[&issuer.name]).set(age.cast_signed());
        }
    }
}

async fn tend_one(name: String, keyring: Arc<Keyring>, metrics: Metrics) {
    let mut was_good = true;
    loop {
        let due = keyring.due();
        let wait = Duration::from_nanos(due.0.saturating_sub(clock::kernel_now().0));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = keyring.wanted() => {}
        }
        let Some(remote) = keyring.remote() else { return };
        // Whoever asked may have got the fetch that was due.
        if !keyring.is_due(clock::kernel_now()) {
            continue;
        }
        keyring.begin(clock::kernel_now());
        let fetched = tokio::time::timeout(PATIENCE, fetch::keys(remote, keyring.validator())).await;
        let fetched =
            fetched.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())));
        let outcome = keyring.end(fetched, clock::kernel_now());
        let label = if outcome.is_ok() { "good" } else { "failed" };
        metrics.token_key_fetches.with_label_values(&[&name, label]).inc();
        match outcome {
            Ok(true) => {
                let keys = keyring.set().keys.len();
                info!(issuer = name, keys, "the keys of an issuer are new");
            }
            Ok(false) if !was_good => {
                info!(issuer = name, "an issuer is reached again, its keys are the same")
            }
            Ok(false) => {}
            Err(ref error) if was_good => {
                let error = format!("{error:#}");
                warn!(
                    issuer = name,
                    error, "the keys of an issuer cannot be fetched, those that are known hold on"
                );
            }
            Err(_) => {}
        }
        was_good = label == "good";
    }
}
