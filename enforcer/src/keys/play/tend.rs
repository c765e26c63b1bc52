//! Answers the questions about tokens that requests have, by asking Google; one task for each account that the policy names.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::MissedTickBehavior,
};
use tracing::error;

use super::{Config, Decoder};
use crate::{
    attestation::play::budget::Quota,
    metrics::Metrics,
    policy::attestation::{Question, Remote},
};

/// Between two looks at how calls are, for metrics.
const LOOK: Duration = Duration::from_secs(1);

/// One whose questions are answered, until it is dropped.
pub(in crate::keys) struct Tended {
    remote: Arc<Remote>,
    task: AbortHandle,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Has the questions answered that come by way of `wanted`, and no others.
pub(in crate::keys) fn look_after(
    wanted: Option<Arc<Remote>>,
    tended: &mut Option<Tended>,
    metrics: &Metrics,
) {
    let serves =
        |one: &Tended, wanted: &Arc<Remote>| Arc::ptr_eq(&one.remote, wanted) && !one.task.is_finished();
    match wanted {
        None => {
            if tended.take().is_some() {
                show(metrics, 0, false, 0);
            }
        }
        Some(wanted) if tended.as_ref().is_some_and(|one| serves(one, &wanted)) => {}
        Some(remote) => {
            let task = tokio::spawn(tend(Arc::clone(&remote), metrics.clone())).abort_handle();
            *tended = Some(Tended { remote, task });
        }
    }
}

async fn tend(remote: Arc<Remote>, metrics: Metrics) {
    let by = &remote.config;
    let config = Config {
        api: by.api.clone(),
        token_url: by.token_url.clone(),
        authorities: by.authorities.clone(),
        private_addresses: by.private_addresses,
        timeout: by.timeout,
        max_calls: by.max_calls,
        quota: Quota { per_day: by.calls_per_day, burst: by.burst, reserve: by.reserve },
    };
    let decoder = match Decoder::new(config, Arc::clone(&remote.account), metrics.clone()) {
        Ok(decoder) => Arc::new(decoder),
        Err(problem) => {
            // What is configured was found to be good before.
            return error!(error = format!("{problem:#}"), "Google cannot be asked about tokens");
        }
    };
    let mut calls = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            question = remote.next() => {
                let Some(question) = question else { return };
                let decoder = Arc::clone(&decoder);
                // Goes on to its end although nobody may wait any more: who gives up must not be able to make Google look bad.
                calls.spawn(async move {
                    let Question { package, token, who, answer } = question;
                    drop(answer.send(decoder.decode(&package, &token, who).await));
                });
            }
            _ = look.tick() => {
                let (left, is_resting) = decoder.condition();
                show(&metrics, left, is_resting, decoder.under_way());
            }
        }
        while calls.try_join_next().is_some() {}
    }
}

fn show(metrics: &Metrics, left: u64, is_resting: bool, under_way: u32) {
    metrics.play.left.set(i64::try_from(left).unwrap_or(i64::MAX));
    metrics.play.resting.set(is_resting.into());
    metrics.play.under_way.set(under_way.into());
}
